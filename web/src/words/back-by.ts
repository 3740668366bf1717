/** When a machine must have its own system again, and whether that will be. */

import type { Task } from '../api/types';
import { bytes, duration, moment } from './quantity';
import { ownZone } from './schedule';
import { isNotBegun, isOver } from './task';

/** As the controller reckons: what a machine takes from its restart until it serves again. */
const RETURN_MS = 5 * 60_000;
const DAY_MS = 86_400_000;

export interface BackByForm {
  isSet: boolean;
  /** `06:00` */
  time: string;
  zone: string;
}

/** Of what the API says: `06:00 Europe/Berlin`. */
export function backByForm(text: string | null | undefined): BackByForm {
  const [time, zone] = text?.split(' ') ?? [];
  return { isSet: Boolean(time), time: time || '06:00', zone: zone || ownZone() };
}

export const backByText = ({ isSet, time, zone }: BackByForm): string | null =>
  isSet && time ? `${time} ${zone}` : null;

/** How far a zone's clocks are before UTC at a moment, in milliseconds. */
function offset(zone: string, at: number): number {
  const clock = new Intl.DateTimeFormat('en', { timeZone: zone, timeZoneName: 'longOffset' });
  const name = clock.formatToParts(at).find(({ type }) => type === 'timeZoneName')?.value ?? '';
  const [, sign, hours = 0, minutes = 0] = /([+-])(\d\d):(\d\d)/.exec(name) ?? [];
  return (sign === '-' ? -1 : 1) * (Number(hours) * 60 + Number(minutes)) * 60_000;
}

/** The first moment after `after` at which the zone's clocks show that time; `null` for what cannot be understood. */
export function nextMoment(text: string, after: number): number | null {
  const { time, zone } = backByForm(text);
  const [hours, minutes] = time.split(':').map(Number);
  if (hours === undefined || minutes === undefined || Number.isNaN(hours + minutes)) return null;
  try {
    const today = after + offset(zone, after);
    const midnight = today - (((today % DAY_MS) + DAY_MS) % DAY_MS);
    for (const day of [-1, 0, 1, 2]) {
      const civil = midnight + day * DAY_MS + (hours * 60 + minutes) * 60_000;
      const guess = civil - offset(zone, civil);
      const at = civil - offset(zone, guess);
      if (at > after) return at;
    }
  } catch {
    // A zone that this browser does not know.
  }
  return null;
}

/** What will become of it, as far as one can know now. */
export function backByForecast(task: Task, now: number): { text: string; isMissed: boolean } | null {
  if (!task.back_by || isOver(task)) return null;
  const by = nextMoment(task.back_by, task.started_at ? Date.parse(task.started_at) : now);
  const rule = 'the copy is stopped, the machine starts its own system, and what is copied is kept for later';
  if (isNotBegun(task) || by === null) {
    return {
      text: `The machine is back in its own system by ${task.back_by}: where that would not be met, ${rule}.`,
      isMissed: false,
    };
  }
  const until = `The machine must be back by ${moment(new Date(by).toISOString())}`;
  const { seconds_left, total, done } = task.progress;
  if (task.step !== 'copy' || seconds_left == null)
    return { text: `${until}; else ${rule}.`, isMissed: false };
  const end = now + seconds_left * 1000;
  const left = `${bytes(Math.max(0, total - done))} are left, ${duration(seconds_left)} at this rate`;
  return end > by - RETURN_MS
    ? { text: `${until}, and will not be: ${left}. If it stays so, ${rule}.`, isMissed: true }
    : { text: `${until}, and will be: ${left}.`, isMissed: false };
}
