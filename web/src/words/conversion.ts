/** A conversion as the Convert dialog holds it, as the API takes it, and in words. */

import type { Allocation, DiskSetting, Machine, NewConversion, OutputFormat, Profile } from '../api/types';
import { backByForm, backByText, type BackByForm } from './back-by';
import { choicesOf, usedBytes, type Choice } from './filesystem';
import { bytes, plural } from './quantity';
import { limitText } from './rate';
import { rccOf, restartSentences, type RestartForm } from './restart';
import { scheduleOf, scheduleText, type When } from './schedule';

export interface Form {
  kind: 'now' | 'rcc' | 'wait';
  /** With `rcc`: how the machine is restarted. */
  restart: RestartForm;
  when: When;
  backBy: BackByForm;
  /** Paths of the disks that are taken. */
  disks: string[];
  /** Volumes of them that are left out, as the API names them. */
  leftOut: string[];
  /** Room of the images, and other room or another folder for single disks, by path. */
  allocation: Allocation;
  rooms: Record<string, Allocation | ''>;
  folders: Record<string, string>;
  keepsSwap: boolean;
  name: string;
  output: string;
  format: OutputFormat;
  verify: boolean;
  proves: boolean;
  skipsUnreadable: boolean;
  /** Bytes a second that may come in for it; `null` is as fast as it goes. */
  bytesPerSecond: number | null;
  /** What only a profile sets. */
  proofTime: number | null;
  /** Of a profile: it begins only while one is open, where nothing else is chosen. */
  windows: string[];
}

/** Copies what a profile says; later changes of the profile do not reach the task. */
export function applyProfile(form: Form, { settings }: Profile): void {
  form.output = settings.output ?? form.output;
  form.format = settings.format ?? form.format;
  form.allocation = settings.allocation ?? form.allocation;
  form.keepsSwap = settings.keep_swap ?? form.keepsSwap;
  form.verify = settings.verify ?? form.verify;
  form.proves = settings.prove_boot ?? form.proves;
  form.skipsUnreadable = settings.skip_unreadable ?? form.skipsUnreadable;
  form.bytesPerSecond = settings.bytes_per_second ?? null;
  if (settings.back_by) form.backBy = backByForm(settings.back_by);
  form.proofTime = settings.proof_time_s ?? null;
  form.windows = settings.windows ?? [];
}

/** What a result may be called; the same rule is the controller's. */
export const NAME_PATTERN = '[A-Za-z0-9_][A-Za-z0-9_.\\-]{0,99}';

/** A name that fits the rule, as near to the machine's as can be. */
export function suggestName(machine: Machine): string {
  const name = machine.name.replace(/[^A-Za-z0-9_.-]+/g, '-').replace(/^[.-]+|-+$/g, '');
  return name.slice(0, 100) || 'vm';
}

export function asWish(machine: Machine, form: Form): NewConversion {
  const all = machine.report?.disks.map((disk) => disk.path) ?? [];
  const takesAll = form.disks.length === all.length;
  return {
    machine: machine.id ?? machine.name,
    request: {
      name: form.name,
      output: form.output,
      format: form.format,
      disks: takesAll ? [] : form.disks,
      skip_volumes: leftOut(machine, form).map((choice) => choice.name),
      disk_settings: form.disks.map((disk) => settingOf(form, disk)).filter((setting) => setting !== null),
      allocation: form.allocation,
      keep_swap: form.keepsSwap,
      verify: form.verify,
      skip_unreadable: form.skipsUnreadable,
      prove_boot: form.proves ? null : false,
      bytes_per_second: form.bytesPerSecond,
      back_by: backByText(form.backBy),
      proof_time_s: form.proofTime,
      windows: form.when.kind === 'now' && form.windows.length > 0 ? form.windows : null,
    },
    // Its values are in the request already, as the form shows them.
    profile: 'none',
    wait: form.kind === 'wait',
    schedule: scheduleOf(form.when),
    rcc: form.kind === 'rcc' ? rccOf(form.restart) : null,
    held: form.kind === 'rcc' && form.restart.isHeld,
  };
}

/** Volumes that are left out of disks that are taken. */
export function leftOut(machine: Machine, form: Form): Choice[] {
  const disks = machine.report?.disks ?? [];
  const all = disks.flatMap((disk, index) => (form.disks.includes(disk.path) ? choicesOf(disk, index) : []));
  return all.filter((choice) => form.leftOut.includes(choice.name));
}

function settingOf(form: Form, disk: string): DiskSetting | null {
  const allocation = form.rooms[disk] || null;
  const folder = form.folders[disk]?.trim() || null;
  return allocation || folder ? { disk, allocation, folder } : null;
}

/** In words what will happen, in the order in which it does. */
export function inWords(machine: Machine, form: Form): string[] {
  const disks = machine.report?.disks ?? [];
  const taken = disks.filter((disk) => form.disks.includes(disk.path));
  const left = disks.filter((disk) => !form.disks.includes(disk.path));
  const without = leftOut(machine, form);
  const absent = without.reduce((sum, choice) => sum + choice.used, 0);
  const used = Math.max(0, taken.reduce((sum, disk) => sum + usedBytes(disk), 0) - absent);
  const size = taken.reduce((sum, disk) => sum + disk.virtual_size, 0);
  const said: string[] = [];

  if (form.kind === 'wait') {
    said.push(
      `The task waits until ${machine.name} is started from the boot image, by ISO or PXE. Then it asks you for a yes before anything is read.`,
    );
  } else if (form.kind === 'rcc') {
    said.push(...restartSentences(machine.name, form.restart));
  } else {
    said.push(
      `${machine.name} stays in the boot image while it is copied: its own services are down until you restart it. Its disks are opened for reading only.`,
    );
  }
  said.push(beginning(form));
  said.push(
    `${bytes(used)} in use of ${bytes(size)} on ${list(taken.map((disk) => disk.path))} ${used === 1 ? 'is' : 'are'} copied over an encrypted link.` +
      (left.length > 0
        ? ` ${list(left.map((disk) => disk.path))} ${left.length === 1 ? 'is' : 'are'} left out: what lies there the VM will miss.`
        : ''),
  );
  if (without.length > 0) {
    const names = list(without.map((choice) => choice.text));
    const are =
      without.length === 1 ? 'keeps its place and reads as zeros' : 'keep their places and read as zeros';
    said.push(`${names} ${are}; the VM no longer mounts ${without.length === 1 ? 'it' : 'them'}.`);
  }
  if (form.keepsSwap) said.push('The content of swap is copied, too.');
  const full = taken.filter((disk) => (form.rooms[disk.path] || form.allocation) === 'full');
  if (full.length > 0) {
    const room = bytes(full.reduce((sum, disk) => sum + disk.virtual_size, 0));
    said.push(`${room} are set aside at once for ${list(full.map((disk) => disk.path))}.`);
  }
  for (const disk of taken) {
    const folder = form.folders[disk.path]?.trim().replace(/\/+$/, '');
    if (folder) said.push(`${disk.path} is made in ${folder}/${form.name || '…'}.`);
  }
  if (form.bytesPerSecond) said.push(`No more than ${limitText(form.bytesPerSecond)} comes in for it.`);
  const backBy = backByText(form.backBy);
  if (backBy)
    said.push(
      `${machine.name} is back in its own system by ${backBy}: where the copy would not end in time it is stopped, the machine starts its own system, and what is copied is kept for later.`,
    );
  if (form.skipsUnreadable)
    said.push(
      'Sectors that cannot be read are filled with zeros and listed; the result is then called incomplete.',
    );
  if (form.verify) said.push('Every used block of the copy is compared with the source by its hash.');
  said.push(
    'Drivers and boot files are fitted to the virtual hardware on an overlay, in a helper VM that has no network. If that fails, it can be tried again without copying.',
  );
  said.push(
    form.proves
      ? 'The VM is started without network, on throw-away disks, until it shows from inside that it came up. The evidence is kept.'
      : 'The VM is not started: whether it boots will not be known.',
  );
  said.push(
    `${form.output.replace(/\/+$/, '') || '…'}/${form.name || '…'} appears in one step when all of it is whole: ${plural(taken.length, 'disk')} as ${form.format}, and ${form.name || '…'}.xml for libvirt with the network links down.`,
  );
  return said;
}

function beginning(form: Form): string {
  const isAsked = form.kind === 'wait' || (form.kind === 'rcc' && form.restart.isHeld);
  const begins = isAsked ? 'After your yes it begins' : 'It begins';
  switch (form.when.kind) {
    case 'now':
      return form.windows.length > 0
        ? `${begins} ${scheduleText({ windows: form.windows })}.`
        : `${begins} as soon as there is room among the running tasks.`;
    case 'at':
      return form.when.at
        ? `${begins} ${scheduleText(scheduleOf(form.when))}, if the controller runs then, else as soon as it does.`
        : `${begins} at the time that you choose.`;
    case 'window':
      return `${begins} ${scheduleText(scheduleOf(form.when))}. Once begun it is not stopped when the window closes.`;
  }
}

function list(names: string[]): string {
  if (names.length === 0) return 'no disk';
  if (names.length === 1) return names[0] ?? '';
  return `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}
