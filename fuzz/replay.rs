//! Targets run without the fuzzer, on the inputs that it kept: a test has `extern crate self as libfuzzer_sys;`, this file and
//! the targets as modules.

use std::process::Command;
use std::time::{Duration, Instant};

/// What the fuzzer itself gives a target, too.
const INPUT_SECONDS_MAX: u64 = 10;

macro_rules! fuzz_target {
    (|$bytes:ident: &[u8]| $body:expr) => {
        pub(crate) fn run($bytes: &[u8]) {
            $body;
        }
    };
}
pub(crate) use fuzz_target;

/// Runs a target on all its kept inputs, and on nothing.
pub(crate) fn replay(target: &str, run: fn(&[u8])) {
    let archive = format!("{}/../../fuzz/corpora/{target}.tar.zst", env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().expect("a folder");
    let unpacked = Command::new("tar").args(["--zstd", "-xf", &archive, "-C"]).arg(folder.path()).status();
    assert!(unpacked.expect("tar is there").success(), "{archive}");
    let mut names: Vec<_> =
        folder.path().read_dir().expect("it was made").flatten().map(|entry| entry.path()).collect();
    names.sort();
    assert!(!names.is_empty(), "{archive} is empty");
    run(&[]);
    let begun = Instant::now();
    for name in &names {
        let input_begun = Instant::now();
        // A panic does not say which input it was.
        println!("{target}: {}", name.file_name().unwrap_or_default().display());
        run(&std::fs::read(name).expect("it was unpacked"));
        assert!(input_begun.elapsed() < Duration::from_secs(INPUT_SECONDS_MAX));
    }
    println!("{target}: {} inputs in {} ms", names.len(), begun.elapsed().as_millis());
}
