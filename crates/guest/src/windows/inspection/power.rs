//! Hibernation and Fast Startup: whether the filesystem is that of a Windows that only sleeps.
//!
//! With `HiberbootEnabled` (Windows 8 and later) a shutdown hibernates the kernel. A hibernation file that begins with
//! `hibr` holds a system that goes on from it; after it was resumed its beginning is `wake` or zeros (Microsoft,
//! PO_MEMORY_IMAGE's signatures, as in the kernel's debugging symbols). Whatever is changed on the disk meanwhile is
//! damaged when it wakes up.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fields::{Reader, answer};
use crate::Result;
use machine::Note;

/// What is in the hibernation file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HibernationFile {
    /// There is none on this volume.
    None,
    /// No system, or one that was resumed.
    Idle,
    /// A system that goes on from it.
    Hibernated,
}

/// How the machine sleeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Power {
    /// `HibernateEnabled`.
    pub hibernation: Option<bool>,
    /// `HiberbootEnabled`: Fast Startup, which needs hibernation.
    pub fast_startup: Option<bool>,
    /// `hiberfil.sys` of this volume.
    pub file: HibernationFile,
}

impl Power {
    pub(super) fn read(reader: &Reader<'_>) -> Result<Self> {
        Ok(Self {
            hibernation: reader.control("Power")?.flag("HibernateEnabled")?,
            fast_startup: reader.control("Session Manager\\Power")?.flag("HiberbootEnabled")?,
            file: match reader.paths.resolve("/hiberfil.sys")? {
                Some(path) => {
                    let mut signature = [0; 4];
                    let length = reader.tree.read_at(&path, 0, &mut signature)?;
                    parse_signature(&signature[..length])
                }
                None => HibernationFile::None,
            },
        })
    }

    /// Whether shutting down leaves a hibernated kernel.
    pub fn is_fast_startup_on(&self) -> bool {
        self.fast_startup == Some(true) && self.hibernation != Some(false)
    }

    pub(super) fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        if self.file == HibernationFile::Hibernated {
            notes.push(Note::warning(
                "Windows is hibernated, or was shut down with Fast Startup",
                "its filesystems are not changed, and the VM starts afresh: start the source first, and shut it down with \
                 `shutdown /s /f /t 0`",
            ));
        } else if self.is_fast_startup_on() {
            notes.push(Note::info(
                "Fast Startup is on",
                "an ordinary shutdown hibernates: before a cold conversion use `shutdown /s /f /t 0` or a restart",
            ));
        }
        notes
    }
}

fn parse_signature(bytes: &[u8]) -> HibernationFile {
    match bytes.to_ascii_lowercase().as_slice() {
        b"hibr" => HibernationFile::Hibernated,
        _ => HibernationFile::Idle,
    }
}

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "hibernation: {}, fast startup: {}", answer(self.hibernation), answer(self.fast_startup))?;
        let file = match self.file {
            HibernationFile::None => "none",
            HibernationFile::Idle => "holds no system",
            HibernationFile::Hibernated => "holds a system",
        };
        writeln!(f, "hibernation file: {file}")
    }
}
