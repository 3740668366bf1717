/** When a task begins: what the form holds, what the API takes, and both in words. */

import type { TaskSchedule } from '../api/types';

export const DAYS = ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'] as const;
export type Day = (typeof DAYS)[number];

/** Zones of this browser, with UTC, which it may leave out. */
export const ZONES: readonly string[] = [...new Set(['UTC', ...Intl.supportedValuesOf('timeZone')])];

export const ownZone = (): string => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  return ZONES.includes(zone) ? zone : 'UTC';
};

export interface When {
  kind: 'now' | 'at' | 'window';
  /** As `datetime-local` gives it: `2026-12-01T22:00`. */
  at: string;
  days: Day[];
  from: string;
  to: string;
  zone: string;
}

export const newWhen = (): When => ({
  kind: 'now',
  at: '',
  days: ['Sat'],
  from: '22:00',
  to: '06:00',
  zone: ownZone(),
});

/** What is wrong with it, if something is. */
export function faultOf(when: When): string | null {
  if (when.kind === 'at' && !when.at) return 'Choose the day and the time at which it begins.';
  if (when.kind === 'window' && when.days.length === 0) return 'Choose the days on which the window opens.';
  if (when.kind === 'window' && (!when.from || !when.to || when.from === when.to))
    return 'A window needs two different times.';
  return null;
}

export function scheduleOf(when: When): TaskSchedule | null {
  if (when.kind === 'at') return { start_at: `${when.at}[${when.zone}]`, windows: [] };
  if (when.kind === 'window') {
    const days = when.days.length === 7 ? 'daily' : DAYS.filter((day) => when.days.includes(day)).join(',');
    return { start_at: null, windows: [`${days} ${when.from}-${when.to} ${when.zone}`] };
  }
  return null;
}

/** `not before 2026-12-01 22:00 Europe/Berlin, only Sat 22:00-06:00 Europe/Berlin`. */
export function scheduleText(schedule: TaskSchedule | null | undefined): string {
  if (!schedule) return 'as soon as there is room';
  const said: string[] = [];
  if (schedule.start_at) said.push(`not before ${startText(schedule.start_at)}`);
  if (schedule.windows?.length) said.push(`only while a window is open: ${schedule.windows.join('; ')}`);
  return said.join(', ') || 'as soon as there is room';
}

function startText(at: string): string {
  const [civil = at, zone] = at.split('[');
  const text = civil.slice(0, 16).replace('T', ' ');
  return `${text} ${zone ? zone.replace(']', '') : 'UTC'}`;
}
