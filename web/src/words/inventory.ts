/** What is said of machines that operators keep, and of what happened to them. */

import type { HistoryEvent, Reach, Search } from '../api/types';
import type { IconName } from '../parts/Icon.svelte';
import { duration } from './quantity';

export const REACHES: readonly { id: Reach; title: string }[] = [
  { id: 'unknown', title: 'Not known' },
  { id: 'ssh', title: 'SSH' },
  { id: 'winrm', title: 'Windows Remote Management' },
];

export function reachText(reach: Reach): string {
  return REACHES.find((one) => one.id === reach)?.title ?? reach;
}

const EVENTS: Record<HistoryEvent, { title: string; icon: IconName }> = {
  added: { title: 'Added', icon: 'plus' },
  approved: { title: 'Approved', icon: 'shield' },
  joined: { title: 'Joined', icon: 'machine' },
  connected: { title: 'Connected', icon: 'live' },
  left: { title: 'Left', icon: 'offline' },
  changed: { title: 'Changed', icon: 'chip' },
  edited: { title: 'Edited', icon: 'list' },
  'task-created': { title: 'Task asked for', icon: 'convert' },
  'task-done': { title: 'Task done', icon: 'done' },
  'task-failed': { title: 'Task failed', icon: 'failed' },
  'task-cancelled': { title: 'Task cancelled', icon: 'stopped' },
};

export function eventWords(event: HistoryEvent): { title: string; icon: IconName } {
  return EVENTS[event];
}

/** The names of ports that a search looks at by itself. */
const PORTS: Record<number, string> = {
  22: 'SSH',
  135: 'RPC',
  445: 'SMB',
  3389: 'RDP',
  5985: 'WinRM',
  5986: 'WinRM (TLS)',
};

export function portText(port: number): string {
  return PORTS[port] ? `${port} ${PORTS[port]}` : `${port}`;
}

/** Where a search is, in a line. */
export function searchText(search: Search): string {
  const connects = `${search.done} of ${search.total} connects`;
  if (search.state === 'done') return `Done: ${connects}`;
  if (search.state === 'cancelled') return `Cancelled after ${connects}`;
  const rate = search.connects_per_second == null ? '' : `, ${search.connects_per_second} a second`;
  const left = search.seconds_left == null ? '' : `, about ${duration(search.seconds_left)} left`;
  return `${connects}${rate}${left}`;
}

/** How many connects a search makes, if it can be told of its range: `/24`, `a-b`, `a-9`, or one address. */
export function addressCount(range: string): number | null {
  const parse = (text: string): number | null => {
    const parts = text.trim().split('.');
    if (parts.length !== 4 || !parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256))
      return null;
    return parts.reduce((sum, part) => sum * 256 + Number(part), 0);
  };
  const [network = '', prefix] = range.split('/');
  if (prefix !== undefined) {
    const bits = Number(prefix);
    if (parse(network) === null || !/^\d+$/.test(prefix) || bits < 16 || bits > 32) return null;
    return bits > 30 ? 2 ** (32 - bits) : 2 ** (32 - bits) - 2;
  }
  const [first = '', last] = range.split('-');
  const from = parse(first);
  if (from === null) return null;
  if (last === undefined) return 1;
  const to = /^\s*\d{1,3}\s*$/.test(last) ? Math.floor(from / 256) * 256 + Number(last) : parse(last);
  return to === null || to < from || to - from >= 65_536 ? null : to - from + 1;
}
