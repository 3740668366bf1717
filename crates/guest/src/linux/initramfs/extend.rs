//! The archive that is appended to an initramfs to bring kernel modules, with indexes in which `modprobe` and udev
//! find them.
//!
//! Module names and paths are those that the initramfs itself uses: generators may unpack modules or move them, so the
//! guest's own `modules.dep` does not describe them. The initramfs's indexes are therefore read, the new modules added,
//! and the result written behind. Modules are written unpacked, which every kmod can load; a signature is part of the
//! unpacked module and stays.

use std::collections::{BTreeMap, BTreeSet};

use super::{Compression, Contents, compression, cpio};
use crate::linux::module_index::Index;
use crate::linux::modules::Modules;
use crate::{Error, ErrorKind, FileTree, Result};

/// Longest module, unpacked.
const MODULE_MAX: u64 = 64 << 20;

/// Links followed on the way to the modules' folder.
const LINKS_MAX: usize = 16;

/// Bytes that extend an initramfs, and the names of the files in them.
#[derive(Debug)]
pub(crate) struct Extension {
    /// Padding and archive, to be appended.
    pub(crate) bytes: Vec<u8>,
    /// Paths in the initramfs.
    pub(crate) brings: Vec<String>,
}

/// Builds the archive that brings the modules `missing` of `modules` (dependencies included by the caller) into an
/// initramfs of `size` bytes that holds `contents`.
pub(crate) fn extension(
    tree: &dyn FileTree,
    modules: &Modules,
    contents: &Contents,
    size: u64,
    missing: &BTreeSet<String>,
) -> Result<Extension> {
    let folder = match &contents.modules_folder {
        Some(folder) => folder.clone(),
        None => follow_links(&contents.links, &format!("lib/modules/{}", modules.version())),
    };
    // Path below the modules' folder, of those that are there and those that come.
    let mut paths: BTreeMap<&str, String> = BTreeMap::new();
    for (name, path) in &contents.modules {
        if let Some(relative) = path.strip_prefix(&folder).and_then(|path| path.strip_prefix('/')) {
            paths.insert(name, relative.to_owned());
        }
    }
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for name in missing {
        let module = modules.get(name).ok_or_else(|| absent(name))?;
        let path = modules.path(module);
        let packed = tree.read(&path, MODULE_MAX)?.ok_or_else(|| absent(name).at(&path))?;
        let relative = unpacked_name(&module.path).to_owned();
        files.push((relative.clone(), super::unpack(&packed, MODULE_MAX).map_err(|e| e.at(&path))?));
        paths.insert(name, relative);
    }
    files.extend(indexes(modules, contents, missing, &paths)?);

    let mut writer = cpio::Writer::new();
    let mut made = BTreeSet::new();
    let mut brings = Vec::new();
    for (relative, bytes) in &files {
        let path = format!("{folder}/{relative}");
        for (end, _) in path.match_indices('/') {
            let parent = &path[..end];
            if !contents.folders.contains(parent) && made.insert(parent.to_owned()) {
                writer.folder(parent);
            }
        }
        writer.file(&path, bytes, 0o644);
        brings.push(path);
    }
    let archive = writer.finish();
    let bytes = match contents.archives.last().map(|archive| archive.compression) {
        // Without an end mark in LZ4's legacy frame, only another frame can follow it.
        Some(Compression::Lz4) => compression::lz4_legacy(&archive),
        _ => {
            let padding = usize::try_from(size.next_multiple_of(4) - size).unwrap_or(0);
            [vec![0; padding], archive].concat()
        }
    };
    Ok(Extension { bytes, brings })
}

fn absent(name: &str) -> Error {
    Error::new(ErrorKind::Missing, format!("the kernel has no module {name}"))
}

/// `kernel/drivers/virtio/virtio.ko.xz` without what the packing adds.
fn unpacked_name(path: &str) -> &str {
    path.find(".ko.").map_or(path, |dot| &path[..dot + 3])
}

/// `path` with the links of the initramfs followed, so that none of them is replaced by a folder.
fn follow_links(links: &BTreeMap<String, String>, path: &str) -> String {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let found = path.match_indices('/').map(|(end, _)| end).chain([path.len()]).find_map(|end| {
            let target = links.get(&path[..end])?;
            let parent = path[..end].rsplit_once('/').map_or("", |(parent, _)| parent);
            let start = if target.starts_with('/') { "" } else { parent };
            Some(format!("{start}/{target}{}", &path[end..]))
        });
        let Some(next) = found else { break };
        let mut names: Vec<&str> = Vec::new();
        for name in next.split('/') {
            match name {
                "" | "." => {}
                ".." => drop(names.pop()),
                name => names.push(name),
            }
        }
        path = names.join("/");
    }
    path
}

/// The initramfs's indexes with the new modules in them; only those that it has, or the binary ones if it has none.
fn indexes(
    modules: &Modules,
    contents: &Contents,
    missing: &BTreeSet<String>,
    paths: &BTreeMap<&str, String>,
) -> Result<Vec<(String, Vec<u8>)>> {
    let mut dependencies = Vec::new();
    for name in missing {
        let module = modules.get(name).ok_or_else(|| absent(name))?;
        let mut line = format!("{}:", paths[name.as_str()]);
        for dependency in &module.dependencies {
            // A dependency that is neither there nor coming is part of the kernel itself.
            if let Some(path) = paths.get(dependency.as_str()) {
                line.push(' ');
                line.push_str(path);
            }
        }
        dependencies.push((name.clone(), line));
    }
    let aliases = modules.aliases(missing);
    let mut files = Vec::new();
    let mut binary = |file: &str, entries: &[(String, String)]| -> Result<()> {
        let mut index = match contents.indexes.get(file) {
            Some(bytes) => Index::parse(bytes).map_err(|e| e.at(file))?,
            None => Index::default(),
        };
        for (key, value) in entries {
            index.insert(key, value);
        }
        files.push((file.to_owned(), index.to_bytes()));
        Ok(())
    };
    binary("modules.dep.bin", &dependencies)?;
    binary("modules.alias.bin", &aliases)?;
    let mut text = |file: &str, lines: Vec<String>| {
        // modprobe of busybox reads these; libkmod does not.
        if let Some(present) = contents.indexes.get(file) {
            let mut bytes = present.clone();
            if bytes.last().is_some_and(|byte| *byte != b'\n') {
                bytes.push(b'\n');
            }
            lines.iter().for_each(|line| bytes.extend(format!("{line}\n").bytes()));
            files.push((file.to_owned(), bytes));
        }
    };
    text("modules.dep", dependencies.iter().map(|(_, line)| line.clone()).collect());
    text("modules.alias", aliases.iter().map(|(alias, module)| format!("alias {alias} {module}")).collect());
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_on_the_way_are_followed_not_replaced() {
        let links = BTreeMap::from([("lib".to_owned(), "usr/lib".to_owned()), ("usr/lib".to_owned(), "/x".to_owned())]);
        assert_eq!(follow_links(&links, "lib/modules/6.1"), "x/modules/6.1");
        assert_eq!(follow_links(&BTreeMap::new(), "lib/modules/6.1"), "lib/modules/6.1");
        let endless = BTreeMap::from([("lib".to_owned(), "lib/lib".to_owned())]);
        assert!(follow_links(&endless, "lib/modules").len() < 4096);
        assert_eq!(unpacked_name("kernel/virtio.ko.xz"), "kernel/virtio.ko");
    }
}
