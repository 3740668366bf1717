/** What a task's states and steps are called, and how far it is. */

import type { Task, TaskState } from '../api/types';
import type { IconName } from '../parts/Icon.svelte';

export type Tone = 'busy' | 'ok' | 'warn' | 'bad' | 'idle';

interface StateWords {
  text: string;
  icon: IconName;
  tone: Tone;
}

const STATES: Record<TaskState, StateWords> = {
  waiting: { text: 'Waits for its machine', icon: 'clock', tone: 'idle' },
  unconfirmed: { text: 'Waits for your yes', icon: 'question', tone: 'warn' },
  scheduled: { text: 'Scheduled', icon: 'clock', tone: 'idle' },
  queued: { text: 'Queued', icon: 'queue', tone: 'idle' },
  running: { text: 'Running', icon: 'busy', tone: 'busy' },
  done: { text: 'Done', icon: 'done', tone: 'ok' },
  failed: { text: 'Failed', icon: 'failed', tone: 'bad' },
  cancelled: { text: 'Cancelled', icon: 'stopped', tone: 'idle' },
};

export function stateWords(task: Task): StateWords {
  if (task.state === 'running' && task.cancel_requested)
    return { text: 'Cancelling', icon: 'stopped', tone: 'warn' };
  if (task.state === 'done' && task.outcome?.proof?.verdict === 'failed')
    return { text: 'Done, does not boot', icon: 'warning', tone: 'bad' };
  return STATES[task.state] ?? { text: task.state, icon: 'info', tone: 'idle' };
}

export const isOver = (task: Task): boolean => ['done', 'failed', 'cancelled'].includes(task.state);
export const isRunning = (task: Task): boolean => task.state === 'running';
export const isNotBegun = (task: Task): boolean =>
  ['waiting', 'unconfirmed', 'scheduled', 'queued'].includes(task.state);

interface StepWords {
  /** As the API names it. */
  id: string;
  title: string;
  about: string;
}

const STEPS: readonly StepWords[] = [
  { id: 'check', title: 'Check', about: 'everything that can be refused before anything is written' },
  { id: 'copy', title: 'Copy', about: 'used blocks of the disks, over TLS' },
  { id: 'verify', title: 'Verify', about: 'hashes of the source compared with the copy' },
  { id: 'fix up', title: 'Fix up', about: 'drivers and boot files for the new hardware' },
  { id: 'define', title: 'Define', about: 'the virtual machine is written down' },
  { id: 'prove', title: 'Prove', about: 'it is started in isolation and seen to come up' },
];

export function stepsOf(task: Task): StepWords[] {
  return STEPS.filter(({ id }) => {
    if (id === 'verify') return task.request.verify === true || task.step === 'verify';
    if (id === 'prove') return task.request.prove_boot !== false;
    return true;
  });
}

export function stepTitle(step: string | null | undefined): string {
  return STEPS.find(({ id }) => id === step)?.title ?? step ?? '–';
}

export type StepState = 'done' | 'now' | 'failed' | 'ahead';

export function stepState(task: Task, step: string): StepState {
  if (task.state === 'done') return 'done';
  const order = STEPS.map(({ id }) => id);
  const at = task.step ? order.indexOf(task.step) : -1;
  const place = order.indexOf(step);
  if (place < at) return 'done';
  if (place > at) return 'ahead';
  return task.state === 'failed' || task.state === 'cancelled' ? 'failed' : 'now';
}
