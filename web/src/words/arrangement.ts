/** How the Network Browser arranges machines: the branches of its tree. */

import type { Machine, MachineGroup } from '../api/types';
import type { IconName } from '../parts/Icon.svelte';
import { GROUPS, groupOf, systemText, type Group, type GroupId } from './machine';

export type Arrangement = 'state' | 'group' | 'network' | 'system';

export const ARRANGEMENTS: readonly { id: Arrangement; title: string }[] = [
  { id: 'state', title: 'State' },
  { id: 'group', title: 'Group' },
  { id: 'network', title: 'Network' },
  { id: 'system', title: 'Operating system' },
];

export interface Branch {
  /** It stays the same while the branch is the same. */
  id: string;
  title: string;
  icon: IconName;
  /** Its colour: that of a state, if it is one. */
  tone: GroupId | 'other';
  /** What it means, for who hovers or listens. */
  about: string;
  machines: Machine[];
}

/**
 * The branches, their machines by name. Those that are Cold Cloning Ready or wait for approval always have theirs; in the other
 * arrangements the former stand in a second place, too.
 */
export function arrange(by: Arrangement, machines: Machine[], groups: readonly MachineGroup[]): Branch[] {
  const ordered = [...machines].sort((a, b) => a.name.localeCompare(b.name));
  const states = GROUPS.map((group) => ofState(group, ordered));
  if (by === 'state') return states;
  const first = states.filter((branch) => branch.id === 'ready' || branch.id === 'waiting');
  const known = ordered.filter((machine) => machine.id);
  if (by === 'group') return [...first, ...byGroup(known, groups)];
  const places = by === 'network' ? networks(known) : systems(known);
  const branches = [...places].map(([title, inside]) =>
    other(by, title, by === 'network' ? 'network' : 'chip', inside),
  );
  branches.sort((a, b) => compare(a.title, b.title));
  const placed = new Set([...places.values()].flat());
  const rest = known.filter((machine) => !placed.has(machine));
  const unknown = by === 'network' ? 'Network not known' : 'System not known';
  return [...first, ...branches, ...(rest.length > 0 ? [other(by, unknown, 'question', rest)] : [])];
}

function ofState(group: Group, machines: Machine[]): Branch {
  const { id, title, icon, about } = group;
  return {
    id,
    title,
    icon,
    tone: id,
    about,
    machines: machines.filter((machine) => groupOf(machine) === id),
  };
}

function other(by: Arrangement, title: string, icon: IconName, machines: Machine[]): Branch {
  return { id: `${by}:${title}`, title, icon, tone: 'other', about: '', machines };
}

function byGroup(machines: Machine[], groups: readonly MachineGroup[]): Branch[] {
  // A group that was made just now may be told by its first machine.
  const names = new Set([
    ...groups.map((group) => group.name),
    ...machines.flatMap((one) => one.group ?? []),
  ]);
  const branches = [...names].sort(compare).map((name) =>
    other(
      'group',
      name,
      'list',
      machines.filter((machine) => machine.group === name),
    ),
  );
  const rest = machines.filter((machine) => !machine.group);
  return rest.length > 0 ? [...branches, other('group', 'In no group', 'question', rest)] : branches;
}

/** As people count: `Debian 9` before `Debian 12`, `10.0.9.0` before `10.0.10.0`. */
function compare(one: string, another: string): number {
  return one.localeCompare(another, 'en', { numeric: true });
}

function put(map: Map<string, Machine[]>, title: string, machine: Machine): void {
  map.set(title, [...(map.get(title) ?? []), machine]);
}

function systems(machines: Machine[]): Map<string, Machine[]> {
  const found = new Map<string, Machine[]>();
  for (const machine of machines) {
    const guest = machine.report?.guest;
    if (guest && (guest.product || guest.family !== 'unknown'))
      put(found, systemText(machine.report), machine);
  }
  return found;
}

/** A machine stands in each of its networks; one without an agent in the network that its address is in, if that is known. */
function networks(machines: Machine[]): Map<string, Machine[]> {
  const found = new Map<string, Machine[]>();
  for (const machine of machines) {
    for (const network of new Set(networksOf(machine))) put(found, network, machine);
  }
  const known = [...found.keys()].flatMap((text) => parseNetwork(text) ?? []);
  for (const machine of machines) {
    const address = machine.report ? null : parseAddress(machine.given_address ?? '');
    if (address === null) continue;
    const around = known.filter((one) => mask(address, one.prefix) === one.address);
    const [nearest] = around.sort((a, b) => b.prefix - a.prefix);
    if (nearest) put(found, nearest.text, machine);
  }
  return found;
}

function networksOf(machine: Machine): string[] {
  const nets = machine.report?.nics.flatMap((nic) => nic.addresses ?? []) ?? [];
  return nets.flatMap((net) => {
    const address = parseAddress(net.address);
    // IPv6 says little here: a link has several prefixes, and they change.
    if (address === null || isLocal(address)) return [];
    return [`${format(mask(address, net.prefix_length))}/${net.prefix_length}`];
  });
}

function parseAddress(text: string): number | null {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256)) return null;
  return parts.reduce((sum, part) => sum * 256 + Number(part), 0);
}

function parseNetwork(text: string): { text: string; address: number; prefix: number } | null {
  const [address = '', prefix = ''] = text.split('/');
  const number = parseAddress(address);
  return number === null ? null : { text, address: number, prefix: Number(prefix) };
}

function mask(address: number, prefix: number): number {
  const size = 2 ** (32 - prefix);
  return Math.floor(address / size) * size;
}

function format(address: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.');
}

/** Loopback (127/8) and link-local (169.254/16). */
function isLocal(address: number): boolean {
  return mask(address, 8) === mask(127 * 2 ** 24, 8) || mask(address, 16) === (169 * 256 + 254) * 65_536;
}
