//! Our own programs for the inside: `vconverter-bootenv` and `vconverter-agent`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::tool::STRIP;
use crate::{Error, ErrorKind, Result};

/// Folder where our programs lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Programs in `folder`.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Programs beside the running one; for a test program, in the folder above its `deps`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the running program's path cannot be read.
    pub fn beside_executable() -> Result<Self> {
        let running = std::env::current_exe().map_err(|e| Error::io("find the running program", e))?;
        let folder = running.parent().unwrap_or(Path::new("/"));
        let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
        Ok(Self::in_folder(folder))
    }

    /// Where a program of that name would lie.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The static program `name`.
    ///
    /// # Errors
    /// [`ErrorKind::MissingProgram`] where it is not there, or needs shared libraries, which an initramfs has not.
    pub fn find(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        if !path.is_file() {
            let what = format!("{name} is not in {}: it is built with the same command", self.folder.display());
            return Err(Error::new(ErrorKind::MissingProgram, what));
        }
        let bytes = fs::read(&path).map_err(|e| Error::path("read", &path, e))?;
        if !is_static_program(&bytes) {
            let what = format!("{} is no static x86-64 program", path.display());
            return Err(Error::new(ErrorKind::MissingProgram, what));
        }
        Ok(path)
    }
}

/// Whether `elf` is an x86-64 program without interpreter (System V ABI, ELF-64 header and program headers).
fn is_static_program(elf: &[u8]) -> bool {
    const PT_INTERP: [u8; 4] = [3, 0, 0, 0];
    let number = |at: usize, size: usize| {
        let bytes = elf.get(at..at + size)?;
        bytes.iter().rev().try_fold(0usize, |n, &b| n.checked_mul(256)?.checked_add(usize::from(b)))
    };
    let headers = || {
        let (start, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
        let mut interpreted = false;
        for n in 0..count {
            let at = start.checked_add(n.checked_mul(size)?)?;
            interpreted |= elf.get(at..at.checked_add(4)?)? == PT_INTERP;
        }
        Some(!interpreted)
    };
    elf.starts_with(b"\x7fELF\x02\x01") && number(0x12, 2) == Some(0x3e) && headers() == Some(true)
}

/// Copies `program` to `to` without symbols and debug information, which are most of a development build; as it is
/// where binutils is not installed.
pub(crate) fn copy_stripped(program: &Path, to: &Path, progress: &mut dyn FnMut(&str)) -> Result<()> {
    match STRIP.command() {
        Ok(mut command) => STRIP.run(command.arg("-o").arg(to).arg(program)).map(drop),
        Err(missing) => {
            progress(&format!("{missing}; taking {} with its symbols", program.display()));
            fs::copy(program, to).map(drop).map_err(|e| Error::path("copy", program, e))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_program_is_static_and_a_script_is_not() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(is_static_program(&own));
        assert!(!is_static_program(b"#!/bin/sh\n"));
        assert!(!is_static_program(&own[..100]));
        assert!(!is_static_program(b""));
    }

    #[test]
    fn a_dynamic_program_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::copy("/bin/cat", folder.path().join("cat")).unwrap();
        let programs = Programs::in_folder(folder.path());
        assert!(programs.find("cat").unwrap_err().context.contains("no static"));
        assert!(programs.find("dog").unwrap_err().context.contains("is not in"));
    }
}
