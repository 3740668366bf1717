//! Any bytes as a store of boot configuration data, and as a hive with drive letters: read, shown and planned without a panic or
//! a loop.
#![no_main]

use guest::windows::bcd::Bcd;
use guest::windows::drive_letters::DriveLetters;
use guest::windows::hive::{Hive, Unfinished};
use guest::windows::{Partition, PartitionMove};
use machine::ByteOffset;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(hive) = Hive::load(bytes.to_vec(), &[], Unfinished::ReadAsItIs) else { return };
    let from = Partition::Mbr { signature: 1, offset: ByteOffset(2) };
    let moves = [PartitionMove { from, to: Partition::Mbr { signature: 2, offset: ByteOffset(2) } }];
    if let Ok(store) = Bcd::read(&hive) {
        let _ = (store.to_string(), store.plan_graphics_mode(), store.plan_rebind(&moves), store.fits(&[]));
    }
    if let Ok(letters) = DriveLetters::read(&hive) {
        let _ = (letters.to_string(), letters.plan_moves(&moves), letters.for_first_boot());
    }
});
