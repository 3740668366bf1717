//! Any bytes as a store of boot configuration data, as an element of one, as `boot.ini` and as a boot sector: read, shown
//! and planned without a panic or a loop, and an element is written as it was read.
#![no_main]

use guest::windows::bcd::{Bcd, DeviceElement, ElementType, Value};
use guest::windows::boot_ini::BootIni;
use guest::windows::boot_sector::{BootSector, Geometry, plan_geometry, plan_signature};
use guest::windows::drive_letters::DriveLetters;
use guest::windows::hive::{Data, Hive, Unfinished};
use guest::windows::{Partition, PartitionMove};
use machine::ByteOffset;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let to = Partition::Mbr { signature: 1, offset: ByteOffset(2) };
    if let Some(element) = DeviceElement::parse(bytes) {
        assert_eq!(element.to_bytes(), bytes);
        let _ = element.to_string();
        let moves: Vec<PartitionMove> =
            element.partitions().into_iter().map(|from| PartitionMove { from, to }).collect();
        if let Some(rebound) = element.rebound(&moves) {
            assert_eq!(DeviceElement::parse(&rebound.to_bytes()), Some(rebound));
        }
    }
    for format in 1..=8u32 {
        let value = Value::of(ElementType(1 << 28 | format << 24 | 1), &Data::binary(bytes));
        assert!(matches!(value, Value::Boolean(_)) || value.to_data().bytes == bytes);
    }
    let _ = BootIni::parse(bytes).map(|ini| (ini.to_string(), ini.notes()));
    let _ = BootSector::parse(bytes).map(|sector| sector.to_string());
    let wanted = Geometry { sectors_per_track: 63, heads: 255, hidden: 2048 };
    let _ = (plan_geometry(0, ByteOffset(0), bytes, wanted), plan_signature(0, bytes, 1));
    if let Ok(hive) = Hive::load(bytes.to_vec(), &[], Unfinished::ReadAsItIs) {
        if let Ok(store) = Bcd::read(&hive) {
            let _ = (store.to_string(), store.plan_graphics_mode(), store.fits(&[]));
        }
        let _ = DriveLetters::read(&hive).map(|letters| letters.to_string());
    }
});
