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

/** A maintenance window as it is chosen. */
export interface WindowForm {
  days: Day[];
  from: string;
  to: string;
  zone: string;
}

export const newWindow = (): WindowForm => ({ days: ['Sat'], from: '22:00', to: '06:00', zone: ownZone() });

/** What is wrong with it, if something is. */
export function windowFault({ days, from, to }: WindowForm): string | null {
  if (days.length === 0) return 'Choose the days on which the window opens.';
  return !from || !to || from === to ? 'A window needs two different times.' : null;
}

/** `Mon,Tue 22:00-06:00 Europe/Berlin` */
export function windowText({ days, from, to, zone }: WindowForm): string {
  const said = days.length === 7 ? 'daily' : DAYS.filter((day) => days.includes(day)).join(',');
  return `${said} ${from}-${to} ${zone}`;
}

export interface When {
  kind: 'now' | 'at' | 'window';
  /** As `datetime-local` gives it: `2026-12-01T22:00`. */
  at: string;
  zone: string;
  window: WindowForm;
}

export const newWhen = (): When => ({ kind: 'now', at: '', zone: ownZone(), window: newWindow() });

/** What is wrong with it, if something is. */
export function faultOf(when: When): string | null {
  if (when.kind === 'at' && !when.at) return 'Choose the day and the time at which it begins.';
  return when.kind === 'window' ? windowFault(when.window) : null;
}

export function scheduleOf(when: When): TaskSchedule | null {
  if (when.kind === 'at') return { start_at: `${when.at}[${when.zone}]`, windows: [] };
  return when.kind === 'window' ? { start_at: null, windows: [windowText(when.window)] } : null;
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
