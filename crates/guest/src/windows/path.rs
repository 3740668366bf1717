//! Paths of a Windows guest: found whatever their case, and out of what its registry writes.
//!
//! Windows takes `C:\WINDOWS\system32` and `/Windows/System32` for one folder. A tree may tell names by their case (a
//! volume mounted by ntfs-3g) or not (our NTFS reader), so each name is looked for in its folder's listing and given as
//! it stands there. A name that is there exactly comes before one of another case.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::hive::Name;
use crate::tree::{Entry, FileTree, components};
use crate::{Error, ErrorKind, Result};

/// Listings that one [`Paths`] keeps.
const LISTINGS_MAX: usize = 64;
/// Names of one path, in a folder structure whose paths Windows itself bounds at 32,767 characters.
const DEPTH_MAX: usize = 64;

/// The real path of `path`, whose names may be of any case; `None` where there is nothing.
///
/// # Errors
/// What the tree says; [`ErrorKind::Escape`] for a path with `..`.
pub fn resolve(tree: &dyn FileTree, path: &str) -> Result<Option<String>> {
    Paths::new(tree).resolve(path)
}

/// Looks for many paths of one tree, and lists each folder once. Not to be kept while the tree is changed.
pub struct Paths<'t> {
    tree: &'t dyn FileTree,
    listings: RefCell<BTreeMap<String, Vec<Entry>>>,
}

impl<'t> Paths<'t> {
    /// Nothing listed yet.
    pub fn new(tree: &'t dyn FileTree) -> Self {
        Self { tree, listings: RefCell::default() }
    }

    /// As [`resolve`].
    ///
    /// # Errors
    /// As there.
    pub fn resolve(&self, path: &str) -> Result<Option<String>> {
        let names = components(path)?;
        if names.len() > DEPTH_MAX {
            return Err(Error::new(ErrorKind::TooLarge, format!("a path of more than {DEPTH_MAX} names")).at(path));
        }
        let mut found = String::new();
        for name in names {
            let folder = if found.is_empty() { "/" } else { &found };
            match self.find(folder, name)? {
                Some(name) => found = format!("{found}/{name}"),
                None => return Ok(None),
            }
        }
        Ok(Some(if found.is_empty() { "/".to_owned() } else { found }))
    }

    /// The real name of `name` in `folder`, which is a real path.
    fn find(&self, folder: &str, name: &str) -> Result<Option<String>> {
        let mut listings = self.listings.borrow_mut();
        if !listings.contains_key(folder) {
            if listings.len() == LISTINGS_MAX {
                listings.clear();
            }
            listings.insert(folder.to_owned(), self.tree.list(folder)?);
        }
        let entries = listings.get(folder).map(Vec::as_slice).unwrap_or_default();
        if entries.iter().any(|entry| entry.name == name) {
            return Ok(Some(name.to_owned()));
        }
        let wanted = Name::from(name);
        Ok(entries.iter().find(|entry| Name::from(&entry.name).is(&wanted)).map(|entry| entry.name.clone()))
    }
}

/// The path in the tree that a path of the registry stands for: `\SystemRoot\System32\x`, `%SystemRoot%\x`, `system32\x`
/// (a driver's, from the system root on), `C:\Windows\x` or `\??\C:\x`. `root` is the real system root (`/Windows`); the letter
/// of the tree's volume is taken to be the one with which `system_root` (`C:\Windows`) begins.
///
/// `None` for other volumes, shares, devices and environment variables, and where `..` stands in it. Arguments of a command
/// are no part of a path: cut them off first.
pub fn of_registry(path: &str, root: &str, system_root: &str) -> Option<String> {
    let path = path.trim().trim_matches('"').replace('/', "\\");
    let after = |prefix: &str| -> Option<&str> {
        let (start, rest) = (path.get(..prefix.len())?, path.get(prefix.len()..)?);
        start.eq_ignore_ascii_case(prefix).then_some(rest)
    };
    let below_root = ["\\SystemRoot\\", "%SystemRoot%\\", "%windir%\\"].into_iter().find_map(after);
    let device = after("\\??\\").or_else(|| after("\\\\?\\")).unwrap_or(&path);
    let found = match (below_root, device.as_bytes()) {
        (Some(rest), _) => format!("{root}\\{rest}"),
        (None, [letter, b':', b'\\', ..]) if system_root.as_bytes().first()?.eq_ignore_ascii_case(letter) => {
            device[2..].to_owned()
        }
        (None, [_, b':', ..] | [b'\\' | b'%', ..] | []) => return None,
        (None, _) => format!("{root}\\{device}"),
    };
    let found = format!("/{}", found.replace('\\', "/").trim_start_matches('/'));
    components(&found).ok().map(|names| format!("/{}", names.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryTree;

    #[test]
    fn a_path_of_any_case_is_found_as_it_stands() {
        let tree =
            MemoryTree::new().with("/WINDOWS/System32/Config/ÄRGER", "").with("/WINDOWS/System32/config/system", "");
        let find = |path: &str| resolve(&tree, path).unwrap();
        assert_eq!(find("/windows/system32/CONFIG/ärger"), Some("/WINDOWS/System32/Config/ÄRGER".into()));
        // Two that differ by case only, as another system may have made them: the exact one.
        assert_eq!(find("/Windows/SYSTEM32/config/SYSTEM"), Some("/WINDOWS/System32/config/system".into()));
        assert_eq!(find("/"), Some("/".into()));
        assert_eq!(find("/windows/none"), None);
        assert_eq!(resolve(&tree, "/windows/../x").unwrap_err().kind, ErrorKind::Escape);
        assert_eq!(resolve(&tree, &"/x".repeat(65)).unwrap_err().kind, ErrorKind::TooLarge);
    }

    #[test]
    fn paths_of_the_registry_are_paths_of_the_tree() {
        let find = |path: &str| of_registry(path, "/WINNT", "D:\\WINNT");
        let driver = Some("/WINNT/System32/drivers/x.sys".to_owned());
        for path in [
            "System32\\drivers\\x.sys",
            "\\SystemRoot\\System32\\drivers\\x.sys",
            "%systemroot%\\System32/drivers\\x.sys",
            "\\??\\d:\\WINNT\\System32\\drivers\\x.sys",
            "\"D:\\WINNT\\System32\\drivers\\x.sys\"",
        ] {
            assert_eq!(find(path), driver, "{path}");
        }
        for path in ["E:\\x.sys", "\\\\server\\share\\x.sys", "%ProgramFiles%\\x", "\\Device\\x", "..\\x", "", "C:x"] {
            assert_eq!(find(path), None, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,40}") {
            if let Some(path) = of_registry(&text, "/Windows", "C:\\Windows") {
                proptest::prop_assert!(path.starts_with('/') && components(&path).is_ok(), "{}", path);
            }
        }
    }
}
