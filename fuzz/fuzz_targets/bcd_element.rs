//! Any bytes as an element of a store of boot configuration data: shown, written as it was read, and moved to other partitions.
#![no_main]

use guest::windows::bcd::{DeviceElement, ElementType, Value};
use guest::windows::hive::Data;
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
});
