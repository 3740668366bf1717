//! What depmod wrote about a kernel's modules: `modules.dep`, `modules.alias`, `modules.softdep`, `modules.builtin`
//! (see modules.dep(5), modprobe.d(5)). Pure: text in, load orders out.

use std::collections::{HashMap, HashSet};

use crate::info::ModuleInfo;
use crate::pattern;

/// Depth to which soft dependencies are followed; real ones are one or two deep.
const SOFT_DEPTH_MAX: usize = 8;

/// The modules of one kernel.
#[derive(Debug, Default)]
pub struct Index {
    /// Name → path below the modules folder, and paths of what is needed, the deepest last (as depmod orders them).
    modules: HashMap<String, Module>,
    /// Alias patterns by their part before the first `:` (`pci`, `scsi`), as most lookups are for one bus.
    aliases: HashMap<String, Vec<(String, String)>>,
    soft: HashMap<String, Soft>,
    builtin: HashSet<String>,
}

#[derive(Debug)]
struct Module {
    path: String,
    needs: Vec<String>,
}

#[derive(Debug, Default)]
struct Soft {
    before: Vec<String>,
    after: Vec<String>,
}

/// The text of the index files.
#[derive(Clone, Copy, Debug, Default)]
pub struct IndexText<'a> {
    /// `modules.dep`
    pub dep: &'a str,
    /// `modules.alias`
    pub alias: &'a str,
    /// `modules.softdep`
    pub softdep: &'a str,
    /// `modules.builtin`
    pub builtin: &'a str,
}

/// Reads the index files; lines of another form are passed over.
pub fn parse_index(text: IndexText<'_>) -> Index {
    let mut index = Index::default();
    for (path, needs) in text.dep.lines().filter_map(|line| line.split_once(':')) {
        let needs = needs.split_whitespace().map(str::to_owned).collect();
        index.modules.insert(module_name(path), Module { path: path.to_owned(), needs });
    }
    for line in text.alias.lines() {
        if let Some((alias, name)) = line.strip_prefix("alias ").and_then(|rest| rest.rsplit_once(' ')) {
            let name = module_name(name);
            index.aliases.entry(bus(alias).to_owned()).or_default().push((alias.to_owned(), name));
        }
    }
    for line in text.softdep.lines() {
        let mut words = line.split_whitespace();
        if let (Some("softdep"), Some(name)) = (words.next(), words.next()) {
            index.add_soft(name, words);
        }
    }
    index.builtin = text.builtin.lines().map(module_name).collect();
    index
}

/// `kernel/drivers/scsi/sd_mod.ko` → `sd_mod`; `-` and `_` are the same in names.
pub fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split_once(".ko").map_or(file, |(name, _)| name).replace('-', "_")
}

/// The part by which aliases are filed: up to the first colon, if that part has no wildcard.
fn bus(alias: &str) -> &str {
    match alias.split_once(':') {
        Some((bus, _)) if !bus.contains(['*', '?', '[', '\\']) => bus,
        _ => "",
    }
}

/// A module cannot be used, for one that it needs is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingModule(pub String);

impl Index {
    /// Puts a module at `path`, below the modules folder, in the place of one of the same name.
    ///
    /// # Errors
    /// The module it needs and the kernel has not.
    pub fn add(&mut self, path: &str, info: &ModuleInfo) -> Result<(), MissingModule> {
        let name = module_name(path);
        let mut needs: Vec<String> = Vec::new();
        for wanted in info.depends.iter().map(|wanted| module_name(wanted)) {
            match self.modules.get(&wanted) {
                // As depmod orders them: what is needed by a need comes behind it.
                Some(found) => {
                    for path in std::iter::once(&found.path).chain(&found.needs) {
                        needs.retain(|other| other != path);
                        needs.push(path.clone());
                    }
                }
                None if self.builtin.contains(&wanted) => {}
                None => return Err(MissingModule(wanted)),
            }
        }
        self.modules.insert(name.clone(), Module { path: path.to_owned(), needs });
        self.aliases.values_mut().for_each(|filed| filed.retain(|(_, module)| *module != name));
        for alias in &info.aliases {
            self.aliases.entry(bus(alias).to_owned()).or_default().push((alias.clone(), name.clone()));
        }
        self.soft.remove(&name);
        info.softdep.iter().for_each(|line| self.add_soft(&name, line.split_whitespace()));
        Ok(())
    }

    /// Path below the modules folder of the module `name`.
    pub fn path(&self, name: &str) -> Option<&str> {
        self.modules.get(&name.replace('-', "_")).map(|module| module.path.as_str())
    }

    fn add_soft<'a>(&mut self, name: &str, words: impl Iterator<Item = &'a str>) {
        let soft = self.soft.entry(module_name(name)).or_default();
        let mut after = false;
        for word in words {
            match word {
                "pre:" => after = false,
                "post:" => after = true,
                _ if after => soft.after.push(word.to_owned()),
                _ => soft.before.push(word.to_owned()),
            }
        }
    }

    /// Names of the modules that serve `alias`, a modalias or the name of a module; empty for what is built in or
    /// not there.
    pub fn resolve(&self, alias: &str) -> Vec<&str> {
        let canonical = alias.replace('-', "_");
        if let Some((name, _)) = self.modules.get_key_value(&canonical) {
            return vec![name];
        }
        if self.builtin.contains(&canonical) {
            return Vec::new();
        }
        let filed = |bus: &str| self.aliases.get(bus).into_iter().flatten();
        let wildcard_bus = if bus(alias).is_empty() { None } else { Some("") };
        let mut names: Vec<&str> = Vec::new();
        for (wanted, name) in filed(bus(alias)).chain(wildcard_bus.into_iter().flat_map(filed)) {
            if !names.contains(&name.as_str()) && pattern::matches(wanted, alias) {
                names.push(name);
            }
        }
        names
    }

    /// Paths below the modules folder in the order in which they are to be loaded for module `name`: soft dependencies,
    /// hard ones, itself, soft ones that come after.
    pub fn load_order(&self, name: &str) -> Vec<&str> {
        let mut order = Order { index: self, open: Vec::new(), paths: Vec::new(), seen: HashSet::new() };
        order.open(name, 0);
        order.finish()
    }
}

/// A walk over dependencies that keeps what is still to be done in a list, not on the stack: how deep an index nests is
/// the index's own word.
struct Order<'a> {
    index: &'a Index,
    open: Vec<Visit<'a>>,
    paths: Vec<&'a str>,
    seen: HashSet<&'a str>,
}

enum Visit<'a> {
    /// A module whose dependencies come first.
    Module { name: &'a str, depth: usize },
    /// A module whose dependencies have come.
    Path(&'a str),
}

impl<'a> Order<'a> {
    fn finish(mut self) -> Vec<&'a str> {
        while let Some(visit) = self.open.pop() {
            match visit {
                Visit::Module { name, depth } => self.add(name, depth),
                Visit::Path(path) => self.paths.push(path),
            }
        }
        self.paths
    }

    fn open(&mut self, name: &str, depth: usize) {
        if let Some((name, _)) = self.index.modules.get_key_value(name) {
            self.open.push(Visit::Module { name, depth });
        }
    }

    /// What was opened last comes first, so everything is opened in reverse.
    fn add(&mut self, name: &'a str, depth: usize) {
        let Some(module) = self.index.modules.get(name) else { return };
        if depth > SOFT_DEPTH_MAX || !self.seen.insert(&module.path) {
            return;
        }
        let soft = self.index.soft.get(name);
        for wanted in soft.iter().flat_map(|soft| soft.after.iter().rev()) {
            self.open_soft(wanted, depth);
        }
        self.open.push(Visit::Path(&module.path));
        for wanted in soft.iter().flat_map(|soft| soft.before.iter().rev()) {
            self.open_soft(wanted, depth);
        }
        // depmod lists the closure of hard dependencies with the deepest last.
        for need in &module.needs {
            self.open(&module_name(need), depth);
        }
    }

    fn open_soft(&mut self, wanted: &str, depth: usize) {
        for name in self.index.resolve(wanted).into_iter().rev() {
            self.open(name, depth + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: IndexText<'static> = IndexText {
        dep: "kernel/fs/ext4/ext4.ko: kernel/fs/mbcache.ko kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko\n\
            kernel/fs/mbcache.ko:\nkernel/fs/jbd2/jbd2.ko: kernel/lib/crc16.ko\nkernel/lib/crc16.ko:\n\
            kernel/crypto/crc32c_generic.ko:\nkernel/arch/x86/crypto/crc32c-intel.ko:\n\
            kernel/drivers/net/ethernet/intel/e1000/e1000.ko:\nkernel/drivers/net/phy/realtek.ko:\n\
            kernel/drivers/net/ethernet/realtek/r8169.ko:\nkernel/a.ko:\nkernel/b.ko:\n",
        alias: "# Aliases\nalias crypto-crc32c crc32c_generic\nalias crypto-crc32c crc32c_intel\n\
            alias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000\nalias fs-ext4 ext4\n\
            alias pci:v000010ECd00008168sv*sd*bc*sc*i* r8169\n",
        softdep: "softdep ext4 pre: crypto-crc32c\nsoftdep r8169 pre: realtek\nsoftdep a post: b\nsoftdep b pre: a\n",
        builtin: "kernel/lib/crc32.ko\n",
    };

    fn order(name: &str) -> Vec<String> {
        parse_index(TEXT).load_order(name).into_iter().map(module_name).collect()
    }

    #[test]
    fn dependencies_come_before_what_needs_them() {
        assert_eq!(order("ext4"), ["crc16", "jbd2", "mbcache", "crc32c_generic", "crc32c_intel", "ext4"]);
        assert_eq!(order("r8169"), ["realtek", "r8169"]);
    }

    #[test]
    fn soft_dependencies_in_a_circle_end() {
        assert_eq!(order("a"), ["a", "b"]);
        assert_eq!(order("b"), ["a", "b"]);
    }

    #[test]
    fn hard_dependencies_in_a_circle_end() {
        let dep = "kernel/a.ko: kernel/b.ko\nkernel/b.ko: kernel/c.ko kernel/b.ko\nkernel/c.ko: kernel/a.ko\n";
        let index = parse_index(IndexText { dep, ..IndexText::default() });
        assert_eq!(index.load_order("a"), ["kernel/c.ko", "kernel/b.ko", "kernel/a.ko"]);
        assert_eq!(index.load_order("b"), ["kernel/a.ko", "kernel/c.ko", "kernel/b.ko"]);
    }

    #[test]
    fn dependencies_may_nest_as_deep_as_the_index_is_long() {
        const DEEP: usize = 200_000;
        let dep: String = (0..DEEP).map(|n| format!("kernel/m{n}.ko: kernel/m{}.ko\n", n + 1)).collect();
        let index = parse_index(IndexText { dep: &dep, ..IndexText::default() });
        let order = index.load_order("m0");
        assert_eq!(order.len(), DEEP);
        assert_eq!((order[0], order[DEEP - 1]), ("kernel/m199999.ko", "kernel/m0.ko"));
    }

    #[test]
    fn a_modalias_finds_its_driver() {
        let index = parse_index(TEXT);
        let card = "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00";
        assert_eq!(index.resolve(card), ["e1000"]);
        assert_eq!(index.resolve("pci:v00008086d00001237sv0sd0bc06sc00i00"), [""; 0]);
        assert_eq!(index.resolve("fs-ext4"), ["ext4"]);
        assert_eq!(index.resolve("crc32c-intel"), ["crc32c_intel"]);
        assert_eq!(index.resolve("crc32"), [""; 0]);
    }

    #[test]
    fn a_module_that_comes_later_serves_its_devices() {
        let mut index = parse_index(TEXT);
        let info = ModuleInfo {
            depends: vec!["jbd2".into(), "crc32".into()],
            aliases: vec!["pci:v00001000d00000060sv*sd*bc*sc*i*".into()],
            softdep: vec!["pre: realtek".into()],
            ..ModuleInfo::default()
        };
        index.add("updates/new-raid.ko", &info).unwrap();
        assert_eq!(index.resolve("pci:v00001000d00000060sv00001000sd00001013bc01sc04i00"), ["new_raid"]);
        assert_eq!(index.path("new-raid"), Some("updates/new-raid.ko"));
        let order = index.load_order("new_raid").into_iter().map(module_name);
        assert_eq!(order.collect::<Vec<_>>(), ["crc16", "jbd2", "realtek", "new_raid"]);
        let other = ModuleInfo { aliases: vec!["pci:other".into()], ..ModuleInfo::default() };
        index.add("updates/e1000.ko", &other).unwrap();
        assert_eq!(index.resolve("pci:v00008086d0000100Esv0sd0bc02sc00i00"), [""; 0], "its aliases went with it");
        let needy = ModuleInfo { depends: vec!["raid-core".into()], ..ModuleInfo::default() };
        assert_eq!(index.add("updates/z.ko", &needy), Err(MissingModule("raid_core".into())));
        assert_eq!(index.path("z"), None);
    }

    #[test]
    fn an_unknown_module_has_no_load_order() {
        assert!(parse_index(TEXT).load_order("none").is_empty());
        assert!(parse_index(IndexText::default()).resolve("x").is_empty());
    }
}
