//! Any bytes as a catalog file.
#![no_main]

use guest::windows::drivers::catalog::Catalog;
use guest::windows::{Architecture, Release};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(catalog) = Catalog::parse(bytes) {
        let release = Release::new((10, 0), 17763, Architecture::Amd64);
        let _ = (catalog.says_of(&release), catalog.closest_build(&release), catalog.device_ids().count());
        assert!(catalog.members.len() <= 65_536 && catalog.attributes.len() <= 65_536);
    }
});
