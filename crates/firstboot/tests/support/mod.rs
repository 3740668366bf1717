//! Where the program for Windows is, for the tests that read or run it.

use std::path::{Path, PathBuf};

/// The program that `make windows` built, in the target folder of this test.
pub(crate) fn program() -> PathBuf {
    let program = |target: &Path| target.join("x86_64-win7-windows-gnu/release").join(machine::firstboot::PROGRAM);
    let folders = Path::new(env!("CARGO_TARGET_TMPDIR")).ancestors();
    let found = folders.map(program).find(|program| program.is_file());
    found.expect("the program for Windows is built: make windows")
}
