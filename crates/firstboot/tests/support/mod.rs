//! Where the programs for Windows are, for the tests that read or run them.

use std::path::{Path, PathBuf};

/// One that `make windows` builds.
#[derive(Clone, Copy)]
pub(crate) struct Build {
    /// Target of the compiler.
    pub(crate) triple: &'static str,
    /// Machine type in its header.
    #[allow(dead_code)] // not every test looks at it
    pub(crate) machine: u16,
}

pub(crate) const AMD64: Build = Build { triple: "x86_64-win7-windows-gnu", machine: 0x8664 };
pub(crate) const X86: Build = Build { triple: "i686-win7-windows-gnu", machine: 0x14c };
/// All of them.
#[allow(dead_code)]
pub(crate) const BUILDS: [Build; 2] = [AMD64, X86];

impl Build {
    /// The program, in the target folder of this test.
    pub(crate) fn program(self) -> PathBuf {
        let program = |target: &Path| target.join(self.triple).join("release").join(machine::firstboot::PROGRAM);
        let folders = Path::new(env!("CARGO_TARGET_TMPDIR")).ancestors();
        let found = folders.map(program).find(|program| program.is_file());
        found.expect("the program for Windows is built: make windows")
    }
}
