//! The modules of one kernel as depmod(8) describes them in the guest: `modules.dep`, `modules.alias`,
//! `modules.builtin`.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Error, ErrorKind, FileTree, Result};

/// Longest text index, in bytes; `modules.alias` of a distribution's kernel has 1.5 MB.
const TEXT_MAX: u64 = 32 << 20;

/// Dependencies followed for one module.
const DEPENDENCIES_MAX: usize = 1024;

/// A module in a kernel's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Module {
    /// Path below the kernel's folder: `kernel/drivers/virtio/virtio_pci.ko`.
    pub(crate) path: String,
    /// Names of the modules it needs, in the order of `modules.dep` (all of them, not only direct ones).
    pub(crate) dependencies: Vec<String>,
}

/// The modules of one kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Modules {
    version: String,
    modules: BTreeMap<String, Module>,
    builtin: BTreeSet<String>,
    alias_text: String,
}

/// How a driver comes into a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Part of the kernel itself.
    Builtin,
    /// A module.
    Module,
    /// Not at all.
    Absent,
}

impl Modules {
    /// Reads the indexes of kernel `version` in the guest.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] if there is no `modules.dep`.
    pub(crate) fn load(tree: &dyn FileTree, version: &str) -> Result<Self> {
        let folder = format!("/lib/modules/{version}");
        let text = |name: &str| -> Result<Option<String>> {
            let bytes = tree.read(&format!("{folder}/{name}"), TEXT_MAX)?;
            Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
        };
        let dep = text("modules.dep")?.ok_or_else(|| {
            Error::new(ErrorKind::Missing, "no list of this kernel's modules").at(format!("{folder}/modules.dep"))
        })?;
        let builtin = text("modules.builtin")?.unwrap_or_default();
        Ok(Self {
            version: version.to_owned(),
            modules: parse_dep(&dep),
            builtin: builtin.lines().filter_map(module_name).collect(),
            alias_text: text("modules.alias")?.unwrap_or_default(),
        })
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Module> {
        self.modules.get(name)
    }

    pub(crate) fn presence(&self, name: &str) -> Presence {
        if self.builtin.contains(name) {
            Presence::Builtin
        } else if self.modules.contains_key(name) {
            Presence::Module
        } else {
            Presence::Absent
        }
    }

    /// The guest's path of a module.
    pub(crate) fn path(&self, module: &Module) -> String {
        // Very old depmod writes absolute paths.
        if module.path.starts_with('/') {
            module.path.clone()
        } else {
            format!("/lib/modules/{}/{}", self.version, module.path)
        }
    }

    /// `names` and every module that they need; those built into the kernel are left out.
    pub(crate) fn closure(&self, names: &[&str]) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        while let Some(name) = open.pop() {
            if found.len() < DEPENDENCIES_MAX
                && let Some(module) = self.modules.get(&name)
                && found.insert(name)
            {
                open.extend(module.dependencies.iter().cloned());
            }
        }
        found
    }

    /// Device aliases of the modules in `names`: alias → module name, in index form.
    pub(crate) fn aliases(&self, names: &BTreeSet<String>) -> Vec<(String, String)> {
        let line = |line: &str| {
            let mut words = line.strip_prefix("alias ")?.split_ascii_whitespace();
            let (alias, module) = (words.next()?, words.next()?);
            names.contains(&canonical(module)).then(|| (canonical_alias(alias), canonical(module)))
        };
        self.alias_text.lines().filter_map(line).collect()
    }
}

/// Lines `path: path path …`.
fn parse_dep(text: &str) -> BTreeMap<String, Module> {
    let mut modules = BTreeMap::new();
    for line in text.lines() {
        let Some((path, dependencies)) = line.split_once(':') else { continue };
        let Some(name) = module_name(path) else { continue };
        // A path with .. would be read from elsewhere.
        if path.split('/').any(|part| part == "..") {
            continue;
        }
        let dependencies = dependencies.split_ascii_whitespace().filter_map(module_name).collect();
        modules.insert(name, Module { path: path.trim().to_owned(), dependencies });
    }
    modules
}

/// `virtio_blk` for `…/virtio-blk.ko.xz`; `None` if it is no module.
pub(crate) fn module_name(path: &str) -> Option<String> {
    let file = path.trim().rsplit('/').next()?;
    let name = ["", ".gz", ".xz", ".zst"].iter().find_map(|packed| file.strip_suffix(packed)?.strip_suffix(".ko"))?;
    (!name.is_empty()).then(|| canonical(name))
}

fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// An alias as the index holds it: `-` becomes `_`, except within brackets.
fn canonical_alias(alias: &str) -> String {
    let mut bracket = false;
    let convert = |c: char| {
        bracket = match c {
            '[' => true,
            ']' => false,
            _ => bracket,
        };
        if c == '-' && !bracket { '_' } else { c }
    };
    alias.chars().map(convert).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryTree;

    #[test]
    fn dependencies_are_followed_and_built_in_ones_are_not_files() {
        let tree = MemoryTree::new()
            .with(
                "/lib/modules/6.1/modules.dep",
                "kernel/virtio_pci.ko.xz: kernel/virtio-ring.ko.xz\nkernel/virtio-ring.ko.xz: kernel/virtio.ko.xz\n\
                 kernel/virtio.ko.xz:\n../../etc/evil/../virtio_net.ko:\n",
            )
            .with("/lib/modules/6.1/modules.builtin", "kernel/drivers/block/virtio_blk.ko\n")
            .with("/lib/modules/6.1/modules.alias", "alias pci:v00001AF4d*sv* virtio_pci\nalias a-[0-9] virtio_ring\n");
        let modules = Modules::load(&tree, "6.1").unwrap();
        let closure = modules.closure(&["virtio_pci", "virtio_blk"]);
        assert_eq!(closure.iter().collect::<Vec<_>>(), ["virtio", "virtio_pci", "virtio_ring"]);
        assert_eq!(modules.presence("virtio_blk"), Presence::Builtin);
        assert_eq!(modules.presence("virtio_net"), Presence::Absent);
        assert_eq!(modules.aliases(&closure)[1], ("a_[0-9]".to_owned(), "virtio_ring".to_owned()));
    }
}
