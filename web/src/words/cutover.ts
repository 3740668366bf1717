/** A cutover in words: what it needs to be said, what will happen, and where it is. */

import type { CutoverState, Machine, Task } from '../api/types';
import type { IconName } from '../parts/Icon.svelte';
import type { Tone } from './task';

/** Where VMs are, if nothing else is said. */
export const CONNECTION = 'qemu:///system';

const STATES: Record<CutoverState, { text: string; icon: IconName; tone: Tone }> = {
  running: { text: 'Is being cut over', icon: 'busy', tone: 'busy' },
  done: { text: 'Cut over', icon: 'done', tone: 'ok' },
  undoing: { text: 'Is being undone', icon: 'busy', tone: 'busy' },
  undone: { text: 'Undone', icon: 'retry', tone: 'idle' },
  failed: { text: 'Failed', icon: 'failed', tone: 'bad' },
};

export const cutoverWords = (state: CutoverState): { text: string; icon: IconName; tone: Tone } =>
  STATES[state] ?? { text: state, icon: 'info', tone: 'idle' };

export const isAtWork = (state: CutoverState | undefined): boolean =>
  state === 'running' || state === 'undoing';

type Source = 'boot-image' | 'live' | 'absent';

function sourceOf(machine: Machine | undefined): Source {
  if (!machine || machine.state !== 'ready') return 'absent';
  return machine.cold_cloning_ready ? 'boot-image' : 'live';
}

/** What must be said beforehand, each by its name in the API. */
export interface Admission {
  id: 'source_is_off' | 'lose_changes' | 'unproven';
  text: string;
}

export function admissions(task: Task, machine: Machine | undefined): Admission[] {
  const name = machine?.name ?? task.machine;
  const source = sourceOf(machine);
  const asked: Admission[] = [];
  if (source === 'absent')
    asked.push({
      id: 'source_is_off',
      text: `I have seen that ${name} is switched off, and it stays so. It is not connected, so nobody can see it from here.`,
    });
  if (source === 'live')
    asked.push({
      id: 'lose_changes',
      text: `What ${name} wrote since it was copied is given up: it runs its own system.`,
    });
  if (task.outcome?.proof.verdict !== 'passed')
    asked.push({ id: 'unproven', text: `The VM ${task.name} is started though its boot is not proven.` });
  return asked;
}

/** What will happen, in the order in which it does. */
export function cutoverSteps(task: Task, machine: Machine | undefined, connection: string): string[] {
  const name = machine?.name ?? task.machine;
  const off = {
    'boot-image': `${name} is switched off. It stands in the boot image: nothing runs on it.`,
    live: `${name} shuts its own system down. Its services are away from now on.`,
    absent: `${name} is switched off already, as you say.`,
  }[sourceOf(machine)];
  return [
    off,
    `It is waited until ${name} is gone: no agent, no answer at its addresses. As long as it answers, nothing is started.`,
    `The VM ${task.name} is defined at ${connection || CONNECTION}, its network cards are connected, and it is started. It has the name and the addresses of ${name}.`,
    'It can be undone: the VM is stopped and disconnected, and the source is woken.',
  ];
}

export function undoSteps(task: Task, machine: Machine | undefined): string[] {
  const name = machine?.name ?? task.machine;
  return [
    `The VM ${task.name} is shut down, or switched off where it does not, and its network cards are disconnected.`,
    `${name} is woken over the network (Wake-on-LAN), and starts its own system; where it is not woken, switch it on.`,
    `What the VM wrote since the cutover stays in its disks: ${name} does not have it.`,
  ];
}
