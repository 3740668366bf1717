//! The group of INF files of the test data, and virtio-win's templates as its build stamps them.

use std::collections::BTreeMap;
use std::io::Read;

use super::support::test_data;

/// The files of the group, by their paths; `None` with a word about it where there is no test data.
pub(crate) fn group() -> Option<BTreeMap<String, Vec<u8>>> {
    let file = std::fs::File::open(test_data()?.join("groups/drivers-inf.tar.zst")).unwrap();
    let mut archive = tar::Archive::new(zstd::Decoder::new(file).unwrap());
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().trim_start_matches("./").to_owned();
        let mut bytes = Vec::new();
        if entry.header().entry_type().is_file() {
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(path, bytes);
        }
    }
    Some(files)
}

/// A template with what virtio-win's build puts into it.
pub(crate) fn stamped(text: &str, folder: &str) -> String {
    text.replace("INX_PLATFORM_DRIVERS_DIR", folder)
        .replace("_INX_SUBSYS_VENDOR_ID", "1AF4")
        .replace("INX_COMPANY", "Red Hat, Inc.")
        .replace("INX_PREFIX_VENDOR", "Red Hat ")
        .replace("INX_NETKVM_DMAREMAP", "0")
        .replace("INX_NETKVM_SEPARATE_TAIL", "1")
}
