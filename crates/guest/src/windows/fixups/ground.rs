//! What every fix-up of a Windows guest looks at, and nothing that any of them changes.

use crate::Result;
use crate::plan::Change;
use crate::tree::FileTree;
use crate::windows::path::Paths;
use crate::windows::volumes::SYSTEM;
use crate::windows::{Additions, Release};

/// Permission bits of new files: NTFS passes on those of the folder, and does without.
const MODE: u32 = 0o644;

/// The guest as it is.
pub(super) struct Ground<'g> {
    /// All its filesystems.
    pub(super) tree: &'g dyn FileTree,
    /// Real paths in it.
    pub(super) paths: Paths<'g>,
    /// The Windows folder from the root of its volume, as it is spelled there: `/Windows`.
    pub(super) windows: String,
    pub(super) release: Release,
    pub(super) additions: &'g Additions,
}

impl Ground<'_> {
    /// The path in the tree of `path`, which is below the root of the system volume, with `\` or `/`: as far as it is there, in
    /// the case in which it is there.
    pub(super) fn place(&self, path: &str) -> Result<String> {
        let path = path.replace('\\', "/");
        let mut found = SYSTEM.to_owned();
        let mut names = path.split('/').filter(|name| !name.is_empty());
        for name in names.by_ref() {
            let next = format!("{found}/{name}");
            match self.paths.resolve(&next)? {
                Some(real) => found = real,
                None => {
                    found = next;
                    break;
                }
            }
        }
        Ok(names.fold(found, |path, name| format!("{path}/{name}")))
    }

    /// A path below the Windows folder.
    pub(super) fn in_windows(&self, path: &str) -> Result<String> {
        self.place(&format!("{}/{path}", self.windows))
    }

    /// A file with new contents at `path` of the system volume; none where it has them already.
    pub(super) fn write(&self, path: &str, contents: &[u8]) -> Result<Option<Change>> {
        Change::write(self.tree, &self.place(path)?, contents, MODE)
    }
}
