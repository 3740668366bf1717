//! A hive, changed in its base block alone, and any bytes as its logs: replayed, left alone or refused.
#![no_main]

use guest::windows::hive::{Hive, Unfinished};

#[path = "../small_hive.rs"]
mod small_hive;

fn checksum(block: &mut [u8]) {
    let sum = block[..508]
        .chunks_exact(4)
        .fold(0, |sum, word| sum ^ u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    let sum = match sum {
        u32::MAX => u32::MAX - 1,
        0 => 1,
        sum => sum,
    };
    block[508..512].copy_from_slice(&sum.to_le_bytes());
}

libfuzzer_sys::fuzz_target!(|input: (u8, bool, Vec<u8>, Vec<u8>)| {
    let (kind, is_base_right, first, second) = input;
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
    let logs = [log(&first, 2), log(&second, 3)];
    if let Ok(hive) = Hive::load(hive, &logs, Unfinished::Refuse) {
        assert!(hive.check().is_whole());
    }
    let _ = Hive::load(small.clone(), &[first, second], Unfinished::ReadAsItIs);
});
