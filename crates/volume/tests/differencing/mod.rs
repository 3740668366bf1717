//! Joins a differencing disk of Hyper-V with its parent, since qemu-img does not. Of real disks alone; the manifest has their hashes.
//!
//! Source: Microsoft, "Virtual Hard Disk Image Format Specification" 1.0 and "MS-VHDX: Virtual Hard Disk v2 File Format".

const SECTOR: usize = 512;

fn big<const N: usize>(bytes: &[u8], at: usize) -> usize {
    bytes[at..at + N].iter().fold(0, |all, byte| all << 8 | usize::from(*byte))
}

fn little<const N: usize>(bytes: &[u8], at: usize) -> usize {
    bytes[at..at + N].iter().rev().fold(0, |all, byte| all << 8 | usize::from(*byte))
}

/// What `parent`, the raw content of the parent, becomes by a differencing VHD.
pub(crate) fn by_vhd(child: &[u8], mut parent: Vec<u8>) -> Vec<u8> {
    let footer = child.len() - SECTOR;
    assert_eq!((&child[footer..footer + 8], big::<4>(child, footer + 60)), (&b"conectix"[..], 4), "a differencing VHD");
    let header = big::<8>(child, footer + 16);
    let (table, entries, block) =
        (big::<8>(child, header + 16), big::<4>(child, header + 28), big::<4>(child, header + 32));
    let bitmap = (block / SECTOR / 8).next_multiple_of(SECTOR);
    for entry in 0..entries {
        let at = big::<4>(child, table + entry * 4);
        if at == 0xffff_ffff {
            continue;
        }
        for sector in 0..block / SECTOR {
            let to = entry * block + sector * SECTOR;
            // The first sector is the highest bit.
            if child[at * SECTOR + sector / 8] & 0x80 >> (sector % 8) != 0 && to < parent.len() {
                let from = at * SECTOR + bitmap + sector * SECTOR;
                parent[to..to + SECTOR].copy_from_slice(&child[from..from + SECTOR]);
            }
        }
    }
    parent
}

/// What `parent`, the raw content of the parent, becomes by a differencing VHDX whose log is empty.
pub(crate) fn by_vhdx(child: &[u8], mut parent: Vec<u8>) -> Vec<u8> {
    const REGIONS: usize = 192 << 10;
    const BAT: usize = 0x2dc2_7766;
    const METADATA: usize = 0x8b7c_a206;
    const FILE_PARAMETERS: usize = 0xcaa1_6737;
    const LOGICAL_SECTOR: usize = 0x8141_bf1d;
    let region = |first: usize| {
        let entries = (0..little::<4>(child, REGIONS + 8)).map(|entry| REGIONS + 16 + entry * 32);
        entries.filter(|at| little::<4>(child, *at) == first).map(|at| little::<8>(child, at + 16)).next().unwrap()
    };
    let (bat, metadata) = (region(BAT), region(METADATA));
    let item = |first: usize| {
        let entries = (0..little::<2>(child, metadata + 10)).map(|entry| metadata + 32 + entry * 32);
        let found = entries.filter(|at| little::<4>(child, *at) == first).map(|at| little::<4>(child, at + 16)).next();
        metadata + found.unwrap()
    };
    let block = little::<4>(child, item(FILE_PARAMETERS));
    let logical = little::<4>(child, item(LOGICAL_SECTOR));
    // A block of sector bits, of 1 MiB, for each chunk, whose entry is behind those of its blocks.
    let ratio = (1 << 23) * logical / block;
    let state = |entry: usize| {
        let value = little::<8>(child, bat + entry * 8);
        (value & 7, (value >> 20) << 20)
    };
    for number in 0..parent.len().div_ceil(block) {
        let chunk = number / ratio;
        let (kind, data) = state(number + chunk);
        let (_, bits) = state((chunk + 1) * (ratio + 1) - 1);
        for sector in 0..block / logical {
            let to = number * block + sector * logical;
            let bit = (number % ratio) * (block / logical) + sector;
            let is_here = match kind {
                6 => true,
                7 => child[bits + bit / 8] & 1 << (bit % 8) != 0,
                _ => false,
            };
            if is_here && to < parent.len() {
                parent[to..to + logical].copy_from_slice(&child[data + sector * logical..][..logical]);
            }
        }
    }
    parent
}
