//! What the tests of hives share: the real hives of the test data, and what is known of them.

#![allow(dead_code, unreachable_pub, reason = "each test takes what it needs")]

#[path = "../../../block/tests/support/test_data.rs"]
mod test_data;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use guest::windows::Architecture;
use guest::windows::hive::{Data, Hive, Key, Unfinished};
use serde_json::Value;

#[allow(unused_imports)] // not each test program needs it
pub(crate) use test_data::test_data;

/// A file of the test data, unpacked.
pub fn unpack(data: &Path, name: &str) -> Vec<u8> {
    let file = std::fs::File::open(data.join(format!("{name}.zst"))).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut decoder = zstd::Decoder::new(file).unwrap();
    decoder.window_log_max(27).unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut decoder, &mut bytes).unwrap();
    bytes
}

/// The logs of a hive of the test data.
pub fn logs(data: &Path, name: &str) -> Vec<Vec<u8>> {
    let logs = ["LOG", "LOG1", "LOG2"].map(|log| format!("{name}.{log}"));
    logs.iter().filter(|log| data.join(format!("{log}.zst")).exists()).map(|log| unpack(data, log)).collect()
}

/// A hive of the test data.
pub fn hive(data: &Path, name: &str) -> Hive {
    Hive::load(unpack(data, name), &logs(data, name), Unfinished::Refuse).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// What is known of the files in the folder `hives`.
pub fn facts(data: &Path) -> serde_json::Map<String, Value> {
    let text = std::fs::read_to_string(data.join("ORACLES.json")).unwrap();
    let Value::Object(all) = serde_json::from_str(&text).unwrap() else { panic!("ORACLES.json is no object") };
    all.into_iter().filter_map(|(name, facts)| Some((name.strip_suffix(".zst")?.to_owned(), facts))).collect()
}

/// The SHA-256 of `bytes`, in hexadecimal, by coreutils.
pub fn sha256(bytes: &[u8]) -> String {
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

/// A program of a machine type, as far as a look at its header goes.
pub fn program(architecture: Architecture, content: &str) -> Vec<u8> {
    let mut bytes = vec![0; 0x40];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x40;
    bytes.extend(b"PE\0\0");
    bytes.extend(architecture.pe_machine().to_le_bytes());
    bytes.extend(content.as_bytes());
    bytes
}

/// Every key with its path, from the root on.
pub fn keys(hive: &Hive) -> Vec<(Vec<String>, Key<'_>)> {
    let (mut all, mut path) = (Vec::new(), Vec::new());
    for step in hive.walk(&hive.root().unwrap()) {
        let step = step.unwrap();
        path.truncate(step.depth.saturating_sub(1));
        if step.depth > 0 {
            path.push(step.key.name().unwrap().to_string());
        }
        all.push((path.clone(), step.key));
    }
    all
}

/// The values of a key by their names.
pub fn values(key: &Key<'_>) -> BTreeMap<String, Data> {
    let values = key.values().unwrap().map(|value| {
        let value = value.unwrap();
        (value.name().unwrap().to_string(), value.data().unwrap())
    });
    values.collect()
}

/// Keys and values that a walk from the root reaches.
pub fn counts(hive: &Hive) -> (u64, u64) {
    let (mut keys, mut values) = (0, 0);
    for step in hive.walk(&hive.root().unwrap()) {
        let key = step.unwrap().key;
        keys += 1;
        for value in key.values().unwrap() {
            value.unwrap().data().unwrap();
            values += 1;
        }
    }
    (keys, values)
}
