/** Kinds of filesystems, in groups that have a colour each. */

import type { Disk, Volume } from '../api/types';

export type Colour = 'linux' | 'windows' | 'boot' | 'swap' | 'other';

const LINUX = new Set([
  'ext2',
  'ext3',
  'ext4',
  'xfs',
  'btrfs',
  'f2fs',
  'reiserfs',
  'jfs',
  'zfs_member',
  'LVM2_member',
]);
const WINDOWS = new Set(['ntfs', 'refs', 'exfat', 'BitLocker']);
/** The EFI system partition, and the one that GRUB keeps its core in. */
const BOOT_TYPES = new Set(['C12A7328-F81F-11D2-BA4B-00A0C93EC93B', '21686148-6449-6E6F-744E-656564454649']);

export function colourOf(kind: string, type?: string | null): Colour {
  if (kind === 'vfat' || (type && BOOT_TYPES.has(type))) return 'boot';
  if (kind === 'swap') return 'swap';
  if (LINUX.has(kind)) return 'linux';
  if (WINDOWS.has(kind)) return 'windows';
  return 'other';
}

export function kindText(kind: string): string {
  if (kind === 'LVM2_member') return 'LVM';
  return kind === 'unknown' ? 'not recognised' : kind;
}

type Condition = NonNullable<Volume['conditions']>[number];

/** States of a volume in a word or two; what they mean is said before a conversion. */
const CONDITIONS: Record<Condition, string> = {
  hibernated: 'hibernated',
  dirty: 'to be checked',
  log_in_use: 'was in use',
  system_compressed: 'compact OS',
  clear_key: 'protection suspended',
  dynamic_disk: 'dynamic disk',
  dynamic_simple: 'dynamic, simple',
  dynamic_spanned: 'dynamic, spanned',
  dynamic_striped: 'dynamic, striped',
  dynamic_mirrored: 'dynamic, mirrored',
  dynamic_raid5: 'dynamic, RAID-5',
  storage_spaces: 'Storage Spaces',
};

export function conditionsText(conditions?: Condition[]): string {
  return (conditions ?? []).map((condition) => CONDITIONS[condition]).join(', ');
}

export function volumeName(volume: Volume): string {
  if (volume.label) return volume.label;
  return volume.number ? `partition ${volume.number}` : 'whole disk';
}

/** A partition or logical volume that can be left out of a conversion. */
export interface Choice {
  /** As the API is told: a name that only this one has. */
  name: string;
  /** For people. */
  text: string;
  kind: string;
  used: number;
  size: number;
}

/** What can be left out of a disk, which is at `index` in its machine's list. */
export function choicesOf(disk: Disk, index: number): Choice[] {
  const mounted = (points?: string[]) => (points?.length ? ` on ${points.join(', ')}` : '');
  return disk.volumes.flatMap((volume) => {
    const inside = volume.parts.map((part) => ({
      name: part.name,
      text: `${part.name}${mounted(part.mount_points)}`,
      kind: part.kind,
      used: part.used_bytes,
      size: part.size,
    }));
    // A physical volume is left out by its disk, or by what lies in it.
    if (!volume.number || inside.length > 0) return inside;
    const own = {
      name: `${index}:${volume.number}`,
      text: `${volumeName(volume)}${mounted(volume.mount_points)}`,
      kind: volume.kind,
      used: volume.used_bytes,
      size: volume.size,
    };
    return [own];
  });
}

/** What a conversion reads of a disk; its swap has nothing in use. */
export const usedBytes = (disk: Disk): number =>
  disk.volumes.reduce((sum, volume) => sum + volume.used_bytes, 0);
