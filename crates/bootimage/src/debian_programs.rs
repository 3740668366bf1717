//! Programs of Debian's packages that are put into an image, with the libraries that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::package::find_file;
use crate::tool::OBJDUMP;
use crate::{Error, ErrorKind, Result};

/// Libraries that those programs may name, and their packages.
const LIBRARIES: &[(&str, &str)] = &[
    ("ld-linux-x86-64.so.2", "libc6"),
    ("libc.so.6", "libc6"),
    ("libcrypt.so.1", "libcrypt1"),
    ("libgmp.so.10", "libgmp10"),
    ("libntfs-3g.so.89", "libntfs-3g89"),
    ("libtomcrypt.so.1", "libtomcrypt1"),
    ("libtommath.so.1", "libtommath1"),
    ("libz.so.1", "zlib1g"),
];
const LIBRARY_FOLDERS: &[&str] = &["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"];
const LOADER: &str = "ld-linux-x86-64.so.2";

/// Programs (path here and in the image, package) with their libraries: path in the image → where it lies here.
pub(crate) fn find(programs: &[(&str, &str)], progress: &mut dyn FnMut(&str)) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut open = Vec::new();
    for (path, package) in programs {
        let file = find_file(path, package, progress)?;
        open.push(file.clone());
        found.insert(path.trim_start_matches('/').to_owned(), file);
    }
    let mut seen = BTreeSet::new();
    while let Some(file) = open.pop() {
        for library in needed(&file)? {
            if seen.insert(library.clone()) {
                let from = find_library(&library, progress)?;
                open.push(from.clone());
                // The loader's place stands in every program.
                let folder = if library == LOADER { "lib64" } else { "lib/x86_64-linux-gnu" };
                found.insert(format!("{folder}/{library}"), from);
            }
        }
    }
    // Every program that has libraries names the loader, and not as one of them.
    let loader = find_library(LOADER, progress)?;
    found.insert(format!("lib64/{LOADER}"), loader);
    Ok(found)
}

fn find_library(name: &str, progress: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let unknown = || Error::new(ErrorKind::MissingTool, format!("the library {name} is of no known package"));
    let (_, package) = LIBRARIES.iter().find(|(library, _)| *library == name).ok_or_else(unknown)?;
    let mut missing = unknown();
    for folder in LIBRARY_FOLDERS {
        match find_file(&format!("{folder}/{name}"), package, progress) {
            Ok(file) => return Ok(file),
            Err(error) => missing = error,
        }
    }
    Err(missing)
}

/// Names of the libraries that a program asks for; none for a static one.
pub(crate) fn needed(program: &Path) -> Result<Vec<String>> {
    let mut command = OBJDUMP.command()?;
    let headers = OBJDUMP.run(command.arg("-p").arg(program))?;
    let names = headers.lines().filter_map(|line| line.trim_start().strip_prefix("NEEDED"));
    Ok(names.map(|name| name.trim().to_owned()).collect())
}
