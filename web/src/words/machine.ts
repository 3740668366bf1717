/** What a machine's states, parts and systems are called. */

import type { Machine, Report } from '../api/types';
import type { IconName } from '../parts/Icon.svelte';

export type GroupId = 'ready' | 'waiting' | 'live' | 'offline' | 'added';

export interface Group {
  id: GroupId;
  title: string;
  icon: IconName;
  /** What it means, for who hovers or listens. */
  about: string;
}

/** What machines can be just now, in the order of the Network Browser. */
export const GROUPS: readonly Group[] = [
  {
    id: 'ready',
    title: 'Cold Cloning Ready',
    icon: 'ready',
    about: 'In the boot image: nothing uses their disks, they can be converted now',
  },
  {
    id: 'waiting',
    title: 'Waiting for approval',
    icon: 'waiting',
    about: 'They show a pairing code on their screen; nothing is read before it was typed here',
  },
  { id: 'live', title: 'Live', icon: 'live', about: 'Running their own system, with an agent' },
  { id: 'offline', title: 'Offline', icon: 'offline', about: 'Known, and not connected' },
  {
    id: 'added',
    title: 'Without agent',
    icon: 'question',
    about: 'Added by their addresses; start one from the boot image, or run the agent on it',
  },
];

export function groupOf(machine: Machine): GroupId {
  if (machine.state === 'offline') return 'offline';
  if (machine.state === 'no-agent') return 'added';
  if (machine.state === 'waiting-for-approval' || machine.state === 'pairing') return 'waiting';
  return machine.booted === 'boot-image' ? 'ready' : 'live';
}

export function stateText(machine: Machine): string {
  switch (machine.state) {
    case 'pairing':
      return 'Pairing';
    case 'waiting-for-approval':
      return 'Waiting for approval';
    case 'approved':
      return 'Approved, reporting';
    case 'offline':
      return 'Offline';
    case 'no-agent':
      return 'No agent yet';
    case 'ready':
      if (!machine.answers) return 'Does not answer';
      return machine.cold_cloning_ready ? 'Cold Cloning Ready' : 'Live';
  }
}

const MEDIA: Record<string, string> = {
  iso: 'the ISO',
  pxe: 'PXE',
  'uefi-http': 'UEFI HTTP boot',
  push: 'a push over the network',
};

export function mediumText(medium: string | null | undefined): string {
  return (medium && MEDIA[medium]) || 'a boot medium';
}

export function systemText(report: Report | null | undefined): string {
  if (!report) return 'not known yet';
  return report.guest.product ?? (report.guest.family === 'unknown' ? 'not recognised' : report.guest.family);
}

export function firmwareText(report: Report): string {
  const { kind, secure_boot } = report.firmware;
  if (kind === 'unknown') return 'not known';
  if (kind === 'bios') return 'BIOS';
  return secure_boot === true
    ? 'UEFI, Secure Boot on'
    : secure_boot === false
      ? 'UEFI, Secure Boot off'
      : 'UEFI';
}

export function hardwareText(report: Report): string {
  const { manufacturer, product } = report.smbios;
  return [manufacturer, product].filter(Boolean).join(' ') || 'not known';
}

export function cpuText(report: Report): string {
  const { model, sockets, cores_per_socket, threads_per_core } = report.cpu;
  const threads = sockets * cores_per_socket * threads_per_core;
  const name = model.replace(/\((R|TM)\)/g, '').replace(/\s+/g, ' ');
  return threads > 0
    ? `${sockets} × ${cores_per_socket} cores, ${threads} threads · ${name}`
    : name || 'not known';
}

/** What a search looks through. */
export function searchText(machine: Machine): string {
  const report = machine.report;
  const said = [
    machine.name,
    machine.id,
    machine.address,
    machine.given_address,
    machine.group,
    machine.note,
    report?.guest.product,
    report?.guest.hostname,
    report?.smbios.serial,
    report?.smbios.uuid,
    report?.smbios.product,
    ...(report?.nics.flatMap((nic) => [nic.mac, ...(nic.addresses ?? []).map((net) => net.address)]) ?? []),
  ];
  return said.filter(Boolean).join(' ').toLowerCase();
}
