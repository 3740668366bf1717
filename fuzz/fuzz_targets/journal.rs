//! Any bytes as a journal: records within the disk, or the end.
#![no_main]

use block::Extent;
use block::journal::Replay;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut replay) = Replay::new(bytes) else { return };
    let disk = Extent::first(replay.identity().size);
    for record in replay.by_ref() {
        assert!(disk.contains(record.expect("memory can be read").extent));
    }
});
