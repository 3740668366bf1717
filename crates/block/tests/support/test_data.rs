//! Where the real data is, for the tests of every crate.

use std::path::{Path, PathBuf};

/// The folder of test data, or `None` with a word about it.
pub(crate) fn test_data() -> Option<PathBuf> {
    let found = std::env::var_os("VCONVERTER_TESTDATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/testdata"), PathBuf::from);
    if !found.is_dir() {
        println!("skipped: no test data");
        return None;
    }
    Some(found)
}
