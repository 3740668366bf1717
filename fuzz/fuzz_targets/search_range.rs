//! Any text as a range of addresses: refused, or as many as it says, ascending, and within bounds.
#![no_main]

use controller::search::{ADDRESSES_MAX, AddressRange};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(range) = text.parse::<AddressRange>() {
        assert!(range.len() >= 1 && range.len() <= ADDRESSES_MAX);
        let mut addresses = range.addresses();
        let mut last = addresses.next();
        let mut count = u32::from(last.is_some());
        for address in addresses {
            assert!(Some(address) > last);
            (last, count) = (Some(address), count + 1);
        }
        assert_eq!(count, range.len());
    }
});
