/** Automated Remote Cold Cloning: how a live machine is restarted into the boot image, as the dialog holds it and in words. */

import type { Machine, Rcc, Task } from '../api/types';
import { duration } from './quantity';

export interface RestartForm {
  /** Minutes between the warning and the restart; 0 is no warning. */
  warnMinutes: number;
  message: string;
  /** Commands, one a line. */
  before: string;
  after: string;
  atEnd: 'restart' | 'power-off' | 'stay';
  /** It begins only when an operator says so. */
  isHeld: boolean;
  acceptsPowerCycle: boolean;
}

export const newRestart = (): RestartForm => ({
  warnMinutes: 0,
  message: '',
  before: '',
  after: '',
  atEnd: 'restart',
  isHeld: false,
  acceptsPowerCycle: false,
});

/** Whether its agent runs on its own system, connected. */
export const canBeRestarted = (machine: Machine): boolean =>
  machine.booted === 'live' && machine.state === 'ready';

/** Seconds that a command may take. */
const COMMAND_SECONDS = 300;

const commandsOf = (text: string): { command: string; seconds: number }[] =>
  text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .map((command) => ({ command, seconds: COMMAND_SECONDS }));

export function rccOf(form: RestartForm): Rcc {
  return {
    accept_no_watchdog: form.acceptsPowerCycle,
    warning_seconds: form.warnMinutes * 60,
    message: form.message.trim() || null,
    before: commandsOf(form.before),
    after: commandsOf(form.after),
    at_end: form.atEnd,
  };
}

const AT_END: Record<RestartForm['atEnd'], string> = {
  restart: 'starts its own system again, which confirms that it is back and that its boot path is as it was',
  'power-off': 'is switched off',
  stay: 'stays in the boot image until somebody ends that',
};

/** What will happen to the machine, in its order. */
export function restartSentences(name: string, form: RestartForm): string[] {
  const said = [
    `The boot image for ${name} is sent over the network and put in place; everything that is changed for it is written down before.`,
  ];
  if (form.before.trim())
    said.push('Your commands run on the machine; one that fails ends the task, and nothing is restarted.');
  if (form.warnMinutes > 0)
    said.push(`Who is logged in is warned ${form.warnMinutes} min before the restart.`);
  said.push(
    `${name} is restarted into the boot image, once. Its own boot path is restored before anything is copied; whatever fails, its own system starts again by itself.`,
  );
  said.push(`When its disks are copied it ${AT_END[form.atEnd]}.`);
  if (form.after.trim() && form.atEnd === 'restart') said.push('Then your commands for the return run.');
  return said;
}

/** How far a task's machine is on its way into the boot image and back; `null` where it is not restarted. */
export function courseText(task: Task): string | null {
  const { course, rcc } = task;
  if (!rcc) return null;
  const by = course?.way ? ` (${course.way})` : '';
  const differs = [course?.restored, course?.boot_path].some(
    (report) => (report?.differences ?? []).length > 0,
  );
  if (differs) return `the boot path differs from the record: see the log${by}`;
  if (course?.back_at)
    return course.boot_path
      ? `in its own system again, with the boot path as it was${by}`
      : `in its own system again${by}`;
  if (course?.released_at) return `given back${by}`;
  if (course?.arrived_at) return `in the boot image; the boot path is restored${by}`;
  if (course?.restarted_at) return `restarted into the boot image${by}`;
  if (course?.placed_at) return `the boot image is in place${by}`;
  return 'not begun';
}

export const downtimeText = (task: Task): string | null =>
  task.downtime_seconds == null ? null : duration(task.downtime_seconds);
