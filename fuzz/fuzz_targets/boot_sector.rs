//! Any bytes as the first sector of a volume and of a disk: read and shown; a change that is planned says what was there, and
//! once it is made nothing is left.
#![no_main]

use guest::windows::boot_sector::{BootSector, Geometry, copy_offset, disk_signature, plan_geometry, plan_signature};
use machine::ByteOffset;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = (BootSector::parse(bytes).map(|sector| sector.to_string()), copy_offset(bytes));
    let wanted = Geometry { sectors_per_track: 63, heads: 255, hidden: 2048 };
    let patched = |patch: &guest::RawPatch| {
        let mut sector = bytes.to_vec();
        let at = patch.offset.0 as usize;
        assert_eq!(sector[at..at + patch.old.len()], patch.old);
        sector[at..at + patch.new.len()].copy_from_slice(&patch.new);
        sector
    };
    if let Ok(Some(patch)) = plan_geometry(0, ByteOffset(0), bytes, wanted) {
        assert!(plan_geometry(0, ByteOffset(0), &patched(&patch), wanted).expect("it was one before").is_none());
    }
    if let Ok(Some(patch)) = plan_signature(0, bytes, 1) {
        assert_eq!(disk_signature(&patched(&patch)), Some(1));
    }
});
