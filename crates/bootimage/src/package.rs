//! Debian packages: asked for and fetched by the package client, unpacked by dpkg. Nothing is installed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::tool::{APT_CACHE, APT_GET, DPKG_DEB};
use crate::{Error, ErrorKind, Result, cache};

/// A concrete package and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Its field `Depends`, as it stands.
    pub(crate) depends: String,
}

impl Package {
    /// Name and version as the name of a file or folder.
    pub(crate) fn entry_name(&self) -> String {
        // A version may hold `:` and `~`, which are fine in a file name, and never `/`.
        format!("{}_{}", self.name, self.version)
    }
}

/// The candidates of those of `names` that the package client knows, in its order.
pub(crate) fn candidates(names: &[&str]) -> Result<Vec<Package>> {
    let shown = APT_CACHE.run(APT_CACHE.command()?.args(["show", "--no-all-versions", "--"]).args(names));
    match shown {
        // It fails where it knows none of them.
        Err(error) if error.kind == ErrorKind::ToolFailed => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(shown) => Ok(shown.split("\n\n").filter_map(parse_stanza).collect()),
    }
}

/// Reads one stanza of `apt-cache show`.
pub(crate) fn parse_stanza(stanza: &str) -> Option<Package> {
    let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let package = Package {
        name: field("Package")?.into(),
        version: field("Version")?.into(),
        depends: field("Depends").unwrap_or_default().into(),
    };
    (!package.entry_name().contains('/')).then_some(package)
}

/// Fetches `package` into `folder` and unpacks it there; the `.deb` itself is removed.
pub(crate) fn fetch(package: &Package, folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<()> {
    progress(&format!("fetching {} {}", package.name, package.version));
    let mut command = APT_GET.command()?;
    command.args(["download", "-q", "-o", "APT::Sandbox::User=root", "--"]);
    command.arg(format!("{}={}", package.name, package.version)).current_dir(folder);
    APT_GET.run(&mut command).map_err(|error| Error {
        kind: ErrorKind::NoPackage,
        context: format!("{} cannot be fetched: {} (is `apt-get update` due?)", package.name, error.context),
        source: error.source,
    })?;
    let fetched = children(folder)?.into_iter().find(|path| path.extension() == Some(OsStr::new("deb")));
    let fetched = fetched.ok_or_else(|| {
        Error::new(ErrorKind::NoPackage, format!("the package client fetched no file for {}", package.name))
    })?;
    unpack(&fetched, folder, progress)?;
    fs::remove_file(&fetched).map_err(|e| Error::path("remove", &fetched, e))
}

/// Unpacks a `.deb` into `folder`.
pub(crate) fn unpack(file: &Path, folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<()> {
    progress(&format!("unpacking {}", file.file_name().unwrap_or_default().to_string_lossy()));
    DPKG_DEB.run(DPKG_DEB.command()?.arg("-x").arg(file).arg(folder)).map(drop)
}

/// The file `path` of the package `name`: as installed, else from the cache, into which the package is fetched.
pub(crate) fn find_file(path: &str, name: &str, progress: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    find(path, name, &Path::is_file, progress)
}

/// The same for a folder.
pub(crate) fn find_folder(path: &str, name: &str, progress: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    find(path, name, &Path::is_dir, progress)
}

fn find(path: &str, name: &str, is_wanted: &dyn Fn(&Path) -> bool, progress: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    if is_wanted(Path::new(path)) {
        return Ok(path.into());
    }
    let cache = cache::open_cache("package")?;
    let start = format!("{name}_");
    let mut cached = cached(&cache)?;
    cached.retain(|entry| entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start)));
    let entry = match cached.pop() {
        Some(entry) => entry,
        None => {
            let package = candidates(&[name])?.into_iter().next().ok_or_else(|| {
                let what = format!("{path} is not there: install the package {name}");
                Error::new(ErrorKind::MissingTool, what)
            })?;
            cache::entry(&cache, &package.entry_name(), |folder| fetch(&package, folder, progress))?
        }
    };
    let found = entry.join(path.trim_start_matches('/'));
    if is_wanted(&found) {
        return Ok(found);
    }
    Err(Error::new(ErrorKind::MissingTool, format!("{}: the package {name} does not bring it", found.display())))
}

/// The entries of `cache` that are packages, older versions of each first.
pub(crate) fn cached(cache: &Path) -> Result<Vec<PathBuf>> {
    let mut entries = children(cache)?;
    entries.retain(|path| path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b".")));
    entries.sort_by_key(|path| version_key(&path.to_string_lossy()));
    Ok(entries)
}

/// What is in `folder`, sorted.
pub(crate) fn children(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::path("list", folder, e);
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// The files below `folder` whose names `wanted` takes, sorted; links to folders are not followed.
pub(crate) fn files_below(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in children(folder)? {
        if path.is_dir() && !path.is_symlink() {
            found.extend(files_below(&path, wanted)?);
        } else if wanted(&path.file_name().unwrap_or_default().to_string_lossy()) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Splits digits from the rest, so that 6.1.0-9 comes before 6.1.0-25.
pub(crate) fn version_key(name: &str) -> Vec<(u64, String)> {
    let mut key = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, after) = rest.split_at(text_end);
        let number_end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        key.push((0, text.to_owned()));
        key.push((after[..number_end].parse().unwrap_or(0), String::new()));
        rest = &after[number_end..];
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stanza_tells_name_version_and_needs() {
        let package = parse_stanza("Package: a\nVersion: 1:2~3\nDepends: b (= 1), c\nDescription: d\n").unwrap();
        assert_eq!((package.entry_name().as_str(), package.depends.as_str()), ("a_1:2~3", "b (= 1), c"));
        assert_eq!(parse_stanza(""), None);
        assert_eq!(parse_stanza("Package: ../../x\nVersion: 1\n"), None);
    }

    #[test]
    fn unknown_packages_are_left_out() {
        let found = candidates(&["no-such-package-a", "no-such-package-b"]).unwrap();
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn versions_are_ordered_by_number() {
        let mut names = [
            "linux-image-6.1.0-25-amd64_6.1.106-3",
            "linux-image-6.12.0-1-amd64_6.12.1-1",
            "linux-image-6.1.0-9-amd64_6.1.27-1",
        ];
        names.sort_by_key(|name| version_key(name));
        assert_eq!(names.map(|n| &n[12..20]), ["6.1.0-9-", "6.1.0-25", "6.12.0-1"]);
    }
}
