//! How the boot path is: digests of what decides what is started, to be compared afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::efi::Variables;
use crate::record::{self, FolderSnapshot};
use crate::{Error, Result};

/// Bytes of all files together that are read; of more, sizes are compared.
const READ_BYTES_MAX: u64 = 256 << 20;
/// Deepest folder.
const DEPTH_MAX: usize = 12;

/// Digests of the non-volatile variables of the boot path.
pub(crate) fn of_variables(variables: &Variables<'_>) -> BTreeMap<String, String> {
    let all = variables.boot_path().into_iter().take(record::SNAPSHOT_ENTRIES_MAX);
    all.map(|(name, bytes)| (name, record::digest(&bytes))).collect()
}

/// Digests of the files below `base`/`path`, or of that file itself; none where it is not there. Symbolic links are not followed.
pub(crate) fn of_files(base: &Path, path: &str) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let mut budget = READ_BYTES_MAX;
    walk(&base.join(path), "", 0, &mut budget, &mut files)?;
    Ok(files)
}

fn walk(place: &Path, name: &str, depth: usize, budget: &mut u64, files: &mut BTreeMap<String, String>) -> Result<()> {
    let error = |e| Error::path("look at", place, e);
    let metadata = match fs::symlink_metadata(place) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(error(e)),
    };
    if files.len() >= record::SNAPSHOT_ENTRIES_MAX {
        return Ok(());
    }
    if metadata.is_file() {
        let digest = match budget.checked_sub(metadata.len()) {
            Some(left) => {
                *budget = left;
                format!(":{}", of_file(place, metadata.len()).map_err(error)?)
            }
            None => String::new(),
        };
        files.insert(name.to_owned(), format!("{}{digest}", metadata.len()));
    } else if metadata.is_dir() && depth < DEPTH_MAX {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(place).map_err(error)?.take(record::SNAPSHOT_ENTRIES_MAX) {
            names.insert(entry.map_err(error)?.file_name().to_string_lossy().into_owned());
        }
        for inside in names {
            let joined = if name.is_empty() { inside.clone() } else { format!("{name}/{inside}") };
            walk(&place.join(&inside), &joined, depth + 1, budget, files)?;
        }
    } else {
        files.insert(name.to_owned(), "no file".to_owned());
    }
    Ok(())
}

fn of_file(path: &Path, bytes: u64) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path)?.take(bytes);
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(record::to_hex(&hasher.finalize().as_bytes()[..16])),
            length => hasher.update(&buffer[..length]),
        };
    }
}

/// Something that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// A variable, or a path within its filesystem.
    pub(crate) name: String,
    /// What is said of it.
    pub(crate) what: &'static str,
}

/// What differs, by name; `folder` is where files are, and empty for variables.
pub(crate) fn compare(
    folder: &str,
    before: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
) -> Vec<Difference> {
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let differences = names.into_iter().filter_map(|name| {
        let what = match (before.get(name), now.get(name)) {
            (Some(_), None) => "was there before and is not now",
            (None, Some(_)) => "was not there before",
            (before, now) if before != now => "is not as it was",
            _ => return None,
        };
        let name = match (folder, name.as_str()) {
            ("", name) => name.to_owned(),
            (folder, "") => folder.to_owned(),
            (folder, name) => format!("{folder}/{name}"),
        };
        Some(Difference { name, what })
    });
    differences.collect()
}

impl FolderSnapshot {
    /// What differs from `base`, the mounted filesystem.
    pub(crate) fn compare(&self, base: &Path) -> Result<Vec<Difference>> {
        Ok(compare(&self.path, &self.files, &of_files(base, &self.path)?))
    }
}
