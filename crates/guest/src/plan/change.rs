//! One change of one file, or of a disk outside of its files.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Digest, RawPatch, RegistryChange, diff};
use crate::{Error, ErrorKind, FileTree, Result, WritableTree};

/// Longest file that a change replaces as a whole, in bytes. EFI loaders are the longest of them.
const REPLACED_MAX: u64 = 64 << 20;

/// One change of one file, or of a disk outside of its files.
///
/// New contents are not part of the printed or stored form (an initramfs has megabytes): a plan that was read back can
/// be shown and compared, and is made again from the same disk to be applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Change {
    /// A file is made, or replaced as a whole.
    Write {
        /// The file.
        path: String,
        /// Contents that it has now; `None` if it does not exist.
        before: Option<Digest>,
        /// Contents that it will have.
        after: Digest,
        /// Bytes of these.
        size: u64,
        /// Permission bits, if it is made; an existing file keeps its own.
        mode: u32,
        /// Lines that differ, `-` before those of now, `+` before the new ones; empty for other than text.
        diff: String,
        #[allow(missing_docs)]
        #[serde(skip)]
        contents: Option<Arc<[u8]>>,
    },
    /// Bytes are added at the end of a file.
    Append {
        /// The file.
        path: String,
        /// Bytes that it has now.
        size: u64,
        /// Bytes that are added.
        added: u64,
        /// Of the added bytes.
        digest: Digest,
        /// Names of the files that the added archive brings.
        brings: Vec<String>,
        #[allow(missing_docs)]
        #[serde(skip)]
        contents: Option<Arc<[u8]>>,
    },
    /// A file or link is removed.
    Remove {
        /// The file.
        path: String,
    },
    /// A symbolic link is put in place.
    Link {
        /// The link.
        path: String,
        /// Where it points.
        target: String,
    },
    /// Bytes of a disk outside of its files are changed.
    Patch {
        /// The disk, for people.
        path: String,
        /// What is changed.
        patch: RawPatch,
    },
    /// Keys and values of a registry hive are changed.
    Registry {
        /// The hive's file.
        path: String,
        /// What is changed, in order.
        changes: Vec<RegistryChange>,
        /// Bytes by which the hive grows for it.
        #[serde(default)]
        grows: u64,
    },
}

impl Change {
    /// A file with new contents; `None` if it has them already.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] if the present file is too long to be compared.
    pub(crate) fn write(tree: &dyn FileTree, path: &str, contents: &[u8], mode: u32) -> Result<Option<Self>> {
        let before = tree.read(path, REPLACED_MAX)?;
        if before.as_deref() == Some(contents) {
            return Ok(None);
        }
        Ok(Some(Self::Write {
            path: path.to_owned(),
            before: before.as_deref().map(Digest::of),
            after: Digest::of(contents),
            size: contents.len() as u64,
            mode,
            diff: diff::lines(before.as_deref().unwrap_or_default(), contents),
            contents: Some(contents.into()),
        }))
    }

    /// Bytes added to a file that is `size` bytes long now.
    pub(crate) fn append(path: &str, size: u64, contents: Vec<u8>, brings: Vec<String>) -> Self {
        Self::Append {
            path: path.to_owned(),
            size,
            added: contents.len() as u64,
            digest: Digest::of(&contents),
            brings,
            contents: Some(contents.into()),
        }
    }

    /// The file that is changed.
    pub fn path(&self) -> &str {
        match self {
            Self::Write { path, .. }
            | Self::Append { path, .. }
            | Self::Remove { path }
            | Self::Link { path, .. }
            | Self::Patch { path, .. }
            | Self::Registry { path, .. } => path,
        }
    }

    /// The change in one line.
    pub fn summary(&self) -> String {
        match self {
            Self::Write { path, before: None, .. } => format!("make {}", path.escape_debug()),
            Self::Write { path, .. } => format!("change {}", path.escape_debug()),
            Self::Append { path, added, brings, .. } => {
                format!("append {added} bytes to {}: {}", path.escape_debug(), brings.join(" ").escape_debug())
            }
            Self::Remove { path } => format!("remove {}", path.escape_debug()),
            Self::Link { path, target } => format!("link {} to {}", path.escape_debug(), target.escape_debug()),
            Self::Patch { patch, .. } => format!("change {patch}"),
            Self::Registry { path, changes, .. } => {
                let are = if changes.len() == 1 { "change" } else { "changes" };
                format!("{} {are} in {}", changes.len(), path.escape_debug())
            }
        }
    }

    /// Does it; says whether anything was left to be done. Those of hives are made by [`apply`](super::apply), all of
    /// one hive together.
    pub(super) fn apply_to_files(&self, tree: &mut dyn WritableTree) -> Result<bool> {
        let no_contents =
            || Error::new(ErrorKind::Changed, "the plan was read back: it must be made again to be applied");
        let changed =
            |path: &str| Error::new(ErrorKind::Changed, "the file is not what the plan was made for").at(path);
        match self {
            Self::Write { path, before, after, mode, contents, .. } => {
                let now = tree.read(path, REPLACED_MAX)?.as_deref().map(Digest::of);
                if now == Some(*after) {
                    return Ok(false);
                }
                if now != *before {
                    return Err(changed(path));
                }
                let contents = contents.as_deref().ok_or_else(no_contents)?;
                tree.replace(path, contents, *mode).map(|()| true)
            }
            Self::Append { path, size, added, digest, contents, .. } => {
                let now = tree.metadata(path)?.ok_or_else(|| changed(path))?.size;
                if now == size + added && Digest::of(&tail(tree, path, *size, *added)?) == *digest {
                    return Ok(false);
                }
                let contents = contents.as_deref().ok_or_else(no_contents)?;
                tree.append(path, *size, contents)?;
                // Read again: what the guest's kernel will read is what counts.
                if Digest::of(&tail(tree, path, *size, *added)?) != *digest {
                    return Err(Error::new(ErrorKind::Io, "the appended bytes read back differently").at(path));
                }
                Ok(true)
            }
            Self::Remove { path } => {
                if tree.metadata(path)?.is_none() && tree.read_link(path)?.is_none() {
                    return Ok(false);
                }
                tree.remove(path).map(|()| true)
            }
            Self::Link { path, target } => {
                if tree.read_link(path)?.as_deref() == Some(target) {
                    return Ok(false);
                }
                tree.symlink(path, target).map(|()| true)
            }
            Self::Patch { patch, .. } => tree.patch(patch),
            Self::Registry { .. } => Ok(false),
        }
    }
}

fn tail(tree: &dyn FileTree, path: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
    if length > REPLACED_MAX {
        return Err(Error::new(ErrorKind::TooLarge, format!("more than {REPLACED_MAX} bytes to append")).at(path));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let read = tree.read_at(path, offset, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}
