#!/bin/bash
# Makes the disk of the copy benchmark: 20 GiB, one ext4 without a partition table, 3.0 GB of live files and 2.0 GB of
# deleted ones whose blocks hold stale data; and the list of its used extents (bytes: start, end) for `copy-bench`.
# Needs root (a loop mount of its own new file, undone at the end). Usage: prepare-disk.sh FOLDER
set -euo pipefail
folder=$1
disk=$folder/disk.raw
mkdir -p "$folder"
rm -f "$disk"
truncate -s 20G "$disk"
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$disk"
mnt=$(mktemp -d)
mount -o loop "$disk" "$mnt"
trap 'umount "$mnt" 2>/dev/null || true; rmdir "$mnt"' EXIT
# Files of a system, over and over, until a size is reached.
fill() {
    mkdir -p "$1"
    local size=0 round=0
    while [ "$size" -lt "$2" ]; do
        round=$((round + 1))
        find /usr/bin /usr/lib /usr/share -xdev -type f -size -20M -print0 |
            (cd / && tar --null -cf - -T - 2>/dev/null) | head -c $(($2 - size)) | tar -C "$1" --one-top-level="$round" -xf - 2>/dev/null || true
        sync -f "$1"
        size=$(($(du -s --block-size=1 "$1" | cut -f1)))
        [ "$round" -lt 40 ] || break
    done
}
# Interleaved, so that live and stale blocks are neighbours.
for part in 1 2 3 4 5; do
    fill "$mnt/live/$part" 600000000
    fill "$mnt/stale/$part" 400000000
done
rm -rf "$mnt/stale"
umount "$mnt"
dumpe2fs "$disk" 2>/dev/null | python3 -c '
import re, sys
size = block = None
free = []
for line in sys.stdin:
    if m := re.match(r"Block count:\s+(\d+)", line): size = int(m[1])
    if m := re.match(r"Block size:\s+(\d+)", line): block = int(m[1])
    if m := re.match(r"\s+Free blocks: (.*)", line):
        for part in filter(None, m[1].strip().split(", ")):
            first, _, last = part.partition("-")
            free.append((int(first), int(last or first) + 1))
at = used = 0
for start, end in sorted(free) + [(size, size)]:
    if at < start:
        print(at * block, start * block)
        used += start - at
    at = max(at, end)
print(f"{used * block / 1e9:.2f} GB used", file=sys.stderr)
' >"$folder/used.txt"
