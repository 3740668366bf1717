/** What a task's states and steps are called, and how far it is. */

import type { Task, TaskState, TaskStep } from '../api/types';
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
  paused: { text: 'Paused', icon: 'pause', tone: 'warn' },
  done: { text: 'Done', icon: 'done', tone: 'ok' },
  failed: { text: 'Failed', icon: 'failed', tone: 'bad' },
  cancelled: { text: 'Cancelled', icon: 'stopped', tone: 'idle' },
};

export function stateWords(task: Task): StateWords {
  if (task.state === 'running' && task.cancel_requested)
    return { text: 'Cancelling', icon: 'stopped', tone: 'warn' };
  if (task.state === 'running' && task.pause_requested)
    return { text: 'Pausing', icon: 'pause', tone: 'warn' };
  if (task.state === 'done' && task.outcome?.proof?.verdict === 'failed')
    return { text: 'Done, does not boot', icon: 'warning', tone: 'bad' };
  return STATES[task.state] ?? { text: task.state, icon: 'info', tone: 'idle' };
}

export const isOver = (task: Task): boolean => ['done', 'failed', 'cancelled'].includes(task.state);
export const isRunning = (task: Task): boolean => task.state === 'running';
export const isNotBegun = (task: Task): boolean =>
  ['waiting', 'unconfirmed', 'scheduled', 'queued'].includes(task.state);
/** Whether it waits for a time that can still be changed. */
export const canBeScheduled = (task: Task): boolean => isNotBegun(task) && !task.started_at;

type StepId = TaskStep['step'];

const STEPS: Record<StepId, { title: string; about: string }> = {
  reboot: {
    title: 'Restart',
    about: 'the live machine starts the boot image once; its boot path is restored',
  },
  check: { title: 'Check', about: 'everything that can be refused before anything is written' },
  copy: { title: 'Copy', about: 'used blocks of the disks, over TLS' },
  verify: { title: 'Verify', about: 'hashes of the source compared with the copy' },
  'fix-up': { title: 'Fix up', about: 'drivers and boot files for the new hardware' },
  define: { title: 'Define', about: 'the virtual machine is written down' },
  prove: { title: 'Prove', about: 'it is started in isolation and seen to come up' },
  return: { title: 'Return', about: 'the source is seen back in its own system' },
};
const ORDER = Object.keys(STEPS) as StepId[];

/** The steps of a task; of one that was not begun, those that are ahead. */
export function stepsOf(task: Task): TaskStep[] {
  if (task.steps.length > 0) return task.steps;
  const { verify, prove_boot } = task.request;
  const ahead = ORDER.filter(
    (step) =>
      (step !== 'verify' || verify) &&
      (step !== 'prove' || prove_boot !== false) &&
      ((step !== 'reboot' && step !== 'return') || !!task.rcc),
  );
  return ahead.map((step) => ({ step, state: 'pending' }));
}

export const stepWords = (step: StepId): { title: string; about: string } =>
  STEPS[step] ?? { title: step, about: '' };

/** Of the step that a task is in or ended in; the API names it with a space for the hyphen there. */
export function stepTitle(step: string | null | undefined): string {
  if (!step) return '–';
  return stepWords(step.replaceAll(' ', '-') as StepId).title;
}
