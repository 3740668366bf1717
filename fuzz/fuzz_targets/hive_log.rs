//! A hive, changed in its base block alone, and any bytes as its logs, also as entries whose hashes are right: replayed, left
//! alone or refused, without memory for more than they hold.
#![no_main]

use guest::windows::hive::{Hive, Unfinished};

#[path = "../../crates/guest/src/windows/hive/marvin32.rs"]
mod marvin32;
#[path = "../small_hive.rs"]
mod small_hive;

mod field {
    pub(super) fn le32(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    }
}

/// Bytes of the hive that the logs say, how much later than the entry before, where in the hive, and what.
type Entry = (u32, u8, Vec<(u16, Vec<u8>)>);

/// What the hive may become longer than its logs.
const GROWTH_MAX: usize = 17 << 20;

fn checksum(block: &mut [u8]) {
    let sum = (0..508).step_by(4).fold(0, |sum, at| sum ^ field::le32(block, at));
    let sum = match sum {
        u32::MAX => u32::MAX - 1,
        0 => 1,
        sum => sum,
    };
    block[508..512].copy_from_slice(&sum.to_le_bytes());
}

fn entries_of(entries: &[Entry], first: u32) -> Vec<u8> {
    let (mut log, mut sequence) = (Vec::new(), first);
    for (bins_size, later, pages) in entries.iter().take(8) {
        let mut rest = Vec::new();
        for (offset, bytes) in pages {
            rest.extend(u32::from(*offset).to_le_bytes());
            rest.extend((bytes.len() as u32).to_le_bytes());
        }
        rest.extend(pages.iter().flat_map(|(_, bytes)| bytes));
        rest.resize((40 + rest.len()).next_multiple_of(512) - 40, 0);
        let mut head = b"HvLE".to_vec();
        for field in [40 + rest.len() as u32, u32::from(later / 128), sequence, bins_size & !4095, pages.len() as u32] {
            head.extend(field.to_le_bytes());
        }
        head.extend(marvin32::hash(&rest).to_le_bytes());
        head.extend(marvin32::hash(&head).to_le_bytes());
        log.extend([head, rest].concat());
        sequence = sequence.wrapping_add(u32::from(later % 128).max(1).min(2));
    }
    log
}

libfuzzer_sys::fuzz_target!(|input: (u8, bool, Vec<Entry>, Vec<u8>, Vec<u8>)| {
    let (kind, is_base_right, entries, first, second) = input;
    let small = small_hive::small_hive();
    let mut hive = small.clone();
    if is_base_right {
        checksum(&mut hive);
    }
    let log = |entries: &[u8], sequence: u8| {
        let mut log = small[..512].to_vec();
        log[28] = [1, 2, 6][usize::from(kind) % 3];
        (log[4], log[8]) = (sequence, sequence);
        checksum(&mut log);
        log.extend_from_slice(entries);
        log
    };
    let (split, whole) = (usize::from(kind / 3) % (entries.len() + 1), entries.len());
    let chain = [entries_of(&entries[..split], 2), entries_of(&entries[split..whole], 3)];
    for logs in [[log(&first, 2), log(&second, 3)], [log(&chain[0], 2), log(&chain[1], 3)]] {
        let room = hive.len() + logs.iter().map(Vec::len).sum::<usize>() + GROWTH_MAX;
        if let Ok(hive) = Hive::load(hive.clone(), &logs, Unfinished::Refuse) {
            assert!(hive.check().is_whole() && hive.bins_bytes().len() <= room);
        }
    }
    let _ = Hive::load(small.clone(), &[first, second], Unfinished::ReadAsItIs);
});
