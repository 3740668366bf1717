//! Which kernel modules go into an initramfs: chosen by folder or name, closed over what they need.
//!
//! Needs are the hard dependencies of `modules.dep` and the soft ones of `modules.softdep`, whose names may be aliases
//! (`crypto-crc32c`). See modules.dep(5) and modprobe.d(5).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use kernel_modules::{ModuleInfo, module_name};

use crate::{Error, ErrorKind, Result};

/// Folder of modules that the operator adds, below the modules folder; depmod(8) gives it precedence by this name.
pub(crate) const ADDED: &str = "updates/";

/// Index of all modules of one kernel.
pub(crate) struct ModuleIndex {
    /// Path below the modules folder → paths of what must be loaded before.
    dependencies: BTreeMap<String, Vec<String>>,
    /// Module name (with `_`) → path.
    by_name: HashMap<String, String>,
    /// Alias pattern and module name, in the order of `modules.alias`.
    aliases: Vec<(String, String)>,
    /// Module name → names or aliases of modules it wants, with `pre:` and `post:` between them as in `modules.softdep`.
    soft: HashMap<String, Vec<String>>,
}

/// A choice of modules and the index files that describe just them.
#[derive(Debug)]
pub(crate) struct Selection {
    /// Paths below the modules folder, sorted.
    pub(crate) paths: BTreeSet<String>,
    /// `modules.dep` of the selection.
    pub(crate) dep: String,
    /// `modules.alias` of the selection.
    pub(crate) alias: String,
    /// `modules.softdep` of the selection.
    pub(crate) softdep: String,
    /// Aliases for devices of the kernel's modules that are not in the selection, in the form of `modules.alias`.
    pub(crate) left_out: String,
}

/// Buses whose devices are told by name where no driver takes them.
const BUSES: [&str; 6] = ["pci:", "usb:", "virtio:", "vmbus:", "xen:", "scsi:"];

impl Selection {
    /// Names of the modules that need `module`.
    pub(crate) fn dependents(&self, module: &str) -> Vec<String> {
        let lines = self.dep.lines().filter_map(|line| line.split_once(':'));
        let needing = lines.filter(|(_, needs)| needs.split_whitespace().any(|need| module_name(need) == module));
        needing.map(|(path, _)| module_name(path)).collect()
    }
}

/// Reads the index files that depmod wrote into `folder`.
pub(crate) fn load_index(folder: &Path) -> Result<ModuleIndex> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|e| Error::path("read", &path, e))
    };
    Ok(parse_index(&read("modules.dep")?, &read("modules.alias")?, &read("modules.softdep")?))
}

fn parse_index(dep: &str, alias: &str, softdep: &str) -> ModuleIndex {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let dependencies: BTreeMap<String, Vec<String>> =
        dep.lines().filter_map(|line| line.split_once(':')).map(|(path, needs)| (path.into(), words(needs))).collect();
    let by_name = dependencies.keys().map(|path| (module_name(path), path.clone())).collect();
    let aliases = alias
        .lines()
        .filter_map(|line| line.strip_prefix("alias ")?.rsplit_once(' '))
        .map(|(pattern, name)| (pattern.to_owned(), name.to_owned()))
        .collect();
    let mut soft: HashMap<String, Vec<String>> = HashMap::new();
    for line in softdep.lines() {
        let mut parts = line.split_whitespace();
        if let (Some("softdep"), Some(name)) = (parts.next(), parts.next()) {
            soft.entry(name.to_owned()).or_default().extend(marked(parts));
        }
    }
    ModuleIndex { dependencies, by_name, aliases, soft }
}

/// The words of a soft dependency, the first of which says whether they come before or after.
fn marked<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut words: Vec<String> = words.map(str::to_owned).collect();
    if words.first().is_some_and(|word| !word.ends_with(':')) {
        words.insert(0, "pre:".into());
    }
    words
}

/// Which modules are wanted for themselves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted<'a> {
    /// Starts of paths below `kernel/`.
    pub(crate) starts: &'a [&'a str],
    /// Starts of paths that match `starts` and are left out nevertheless, unless something needs them.
    pub(crate) without: &'a [&'a str],
    /// The same by name.
    pub(crate) without_names: &'a [String],
    /// Devices by their modalias: all modules that serve them, as far as they are in one of `device_starts`.
    pub(crate) devices: &'a [String],
    /// Starts of paths below `kernel/` of drivers that a device may bring.
    pub(crate) device_starts: &'a [&'a str],
    /// Modules by name; those that the kernel does not have are passed over ([`ModuleIndex::has`]).
    pub(crate) names: &'a [String],
}

impl ModuleIndex {
    /// Puts a module that the kernel package does not have at `path`, in the place of one of the same name.
    ///
    /// # Errors
    /// It depends on a module that is not there.
    pub(crate) fn add(&mut self, path: &str, info: &ModuleInfo) -> Result<()> {
        let name = module_name(path);
        if let Some(before) = self.by_name.insert(name.clone(), path.to_owned()) {
            self.dependencies.remove(&before);
            for needs in self.dependencies.values_mut() {
                for need in needs.iter_mut().filter(|need| **need == before) {
                    path.clone_into(need);
                }
            }
        }
        let mut needs: Vec<String> = Vec::new();
        for wanted in &info.depends {
            let found = self.by_name.get(&wanted.replace('-', "_")).ok_or_else(|| {
                let what = format!("{name} needs the module {wanted}, which this kernel has not: add it too, before");
                Error::new(ErrorKind::UnusableDriver, what)
            })?;
            // As depmod orders them: what is needed by a need comes behind it.
            for path in std::iter::once(found).chain(self.dependencies.get(found).into_iter().flatten()) {
                needs.retain(|other| other != path);
                needs.push(path.clone());
            }
        }
        self.dependencies.insert(path.to_owned(), needs);
        self.aliases.retain(|(_, module)| module.replace('-', "_") != name);
        self.aliases.extend(info.aliases.iter().map(|alias| (alias.clone(), name.clone())));
        let soft = info.softdep.iter().flat_map(|line| marked(line.split_whitespace()));
        self.soft.insert(name, soft.collect());
        Ok(())
    }

    /// What is wanted, and all that it needs.
    pub(crate) fn select(&self, wanted: &Wanted<'_>) -> Result<Selection> {
        let begins = |path: &str, list: &[&str]| {
            let below = path.strip_prefix("kernel/").unwrap_or(path);
            list.iter().any(|start| below.starts_with(start))
        };
        let mut open: Vec<&str> = self.dependencies.keys().map(String::as_str).collect();
        open.retain(|path| path.starts_with(ADDED) || begins(path, wanted.starts) && !begins(path, wanted.without));
        open.retain(|path| !wanted.without_names.contains(&module_name(path)));
        if open.is_empty() {
            return Err(Error::new(ErrorKind::NoKernel, "the kernel package has none of the modules that are needed"));
        }
        for device in wanted.devices {
            let served = self.serving(device).into_iter();
            let paths = served.filter_map(|module| self.by_name.get(&module).map(String::as_str));
            open.extend(paths.filter(|path| {
                path.starts_with(ADDED) || begins(path, wanted.device_starts) && !begins(path, wanted.without)
            }));
        }
        open.extend(wanted.names.iter().flat_map(|name| self.resolve(name)));
        let mut paths = BTreeSet::new();
        while let Some(path) = open.pop() {
            if !paths.insert(path.to_owned()) {
                continue;
            }
            open.extend(self.dependencies.get(path).into_iter().flatten().map(String::as_str));
            let soft = self.soft.get(&module_name(path)).into_iter().flatten();
            for name in soft.filter(|word| !word.ends_with(':')) {
                open.extend(self.resolve(name));
            }
        }
        Ok(self.describe(paths))
    }

    /// Whether the kernel has the module `name`, or one that answers to it, as a file.
    pub(crate) fn has(&self, name: &str) -> bool {
        !self.resolve(name).is_empty()
    }

    /// Names of the modules that serve the device of a modalias.
    pub(crate) fn serving(&self, modalias: &str) -> BTreeSet<String> {
        let served = self.aliases.iter().filter(|(pattern, _)| kernel_modules::matches(pattern, modalias));
        served.map(|(_, module)| module.replace('-', "_")).filter(|name| self.by_name.contains_key(name)).collect()
    }

    /// The paths that a module name or a plain alias stands for; none for what is built in.
    fn resolve(&self, name: &str) -> Vec<&str> {
        let canonical = name.replace('-', "_");
        if let Some(path) = self.by_name.get(&canonical) {
            return vec![path];
        }
        let plain = |byte: u8| if byte == b'-' { b'_' } else { byte };
        let named = self.aliases.iter().filter(|(pattern, _)| pattern.bytes().map(plain).eq(canonical.bytes()));
        named.filter_map(|(_, module)| self.by_name.get(&module.replace('-', "_")).map(String::as_str)).collect()
    }

    fn describe(&self, paths: BTreeSet<String>) -> Selection {
        let names: BTreeSet<String> = paths.iter().map(|path| module_name(path)).collect();
        let (mut dep, mut alias, mut softdep, mut left_out) = <(String, String, String, String)>::default();
        for path in &paths {
            let needs = self.dependencies.get(path).map(|needs| needs.join(" ")).unwrap_or_default();
            dep.push_str(format!("{path}: {needs}").trim_end());
            dep.push('\n');
        }
        for (pattern, name) in &self.aliases {
            let line = format!("alias {pattern} {name}\n");
            if names.contains(&name.replace('-', "_")) {
                alias.push_str(&line);
            } else if BUSES.iter().any(|bus| pattern.starts_with(bus)) {
                left_out.push_str(&line);
            }
        }
        for name in &names {
            if let Some(wanted) = self.soft.get(name) {
                softdep.push_str(&format!("softdep {name} {}\n", wanted.join(" ")));
            }
        }
        Selection { paths, dep, alias, softdep, left_out }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko\n\
        kernel/fs/jbd2/jbd2.ko:\nkernel/lib/crc16.ko:\nkernel/crypto/crc32c_generic.ko:\n\
        kernel/arch/x86/crypto/crc32c-intel.ko:\nkernel/drivers/scsi/sd_mod.ko: kernel/block/t10-pi.ko\n\
        kernel/block/t10-pi.ko: kernel/lib/crc-t10dif.ko\nkernel/lib/crc-t10dif.ko:\n\
        kernel/crypto/crct10dif_generic.ko:\nkernel/sound/x.ko:\n";
    const ALIAS: &str = "# comment\nalias crypto-crc32c crc32c_generic\nalias crypto-crc32c crc32c_intel\n\
        alias crct10dif crct10dif_generic\nalias scsi:t-0x00* sd_mod\nalias snd x\n";
    const SOFT: &str = "softdep ext4 pre: crypto-crc32c\nsoftdep jbd2 pre: crypto-crc32c\n\
        softdep crc_t10dif pre: crct10dif\nsoftdep x pre: ext4 post: sd_mod\n";

    fn selected(wanted: &[&str]) -> Selection {
        parse_index(DEP, ALIAS, SOFT).select(&Wanted { starts: wanted, ..Wanted::default() }).unwrap()
    }

    fn names_of(selection: &Selection) -> Vec<String> {
        selection.paths.iter().map(|path| module_name(path)).collect()
    }

    #[test]
    fn soft_dependencies_by_alias_bring_every_provider() {
        assert_eq!(names_of(&selected(&["fs/ext4/"])), ["crc32c_intel", "crc32c_generic", "ext4", "jbd2", "crc16"]);
    }

    #[test]
    fn needs_of_needs_are_brought() {
        let brought = names_of(&selected(&["drivers/scsi/"]));
        assert_eq!(brought, ["t10_pi", "crct10dif_generic", "sd_mod", "crc_t10dif"]);
    }

    #[test]
    fn the_index_describes_the_selection_only() {
        let selection = selected(&["drivers/scsi/"]);
        assert_eq!(selection.alias, "alias crct10dif crct10dif_generic\nalias scsi:t-0x00* sd_mod\n");
        assert_eq!(selection.softdep, "softdep crc_t10dif pre: crct10dif\n");
        assert!(selection.dep.contains("kernel/drivers/scsi/sd_mod.ko: kernel/block/t10-pi.ko\n"));
        assert!(!selection.dep.contains("ext4"));
        assert_eq!(selection.dependents("t10_pi"), ["sd_mod"]);
    }

    #[test]
    fn words_of_pre_and_post_are_both_wanted() {
        let brought = names_of(&selected(&["sound/"]));
        assert!(brought.contains(&"ext4".into()) && brought.contains(&"sd_mod".into()), "{brought:?}");
    }

    #[test]
    fn what_comes_after_a_module_stays_after_it() {
        // ipmi_devintf needs ipmi_msghandler, which wants it afterwards: the other way round neither is loaded.
        let dep = "kernel/ipmi_devintf.ko: kernel/ipmi_msghandler.ko\nkernel/ipmi_msghandler.ko:\nkernel/a.ko:\n";
        let soft = "softdep ipmi_msghandler post: ipmi_devintf\nsoftdep ipmi_devintf a\n";
        let wanted = Wanted { starts: &["ipmi_msghandler"], ..Wanted::default() };
        let selection = parse_index(dep, "", soft).select(&wanted).unwrap();
        assert_eq!(selection.paths.len(), 3);
        assert_eq!(selection.softdep, "softdep ipmi_devintf pre: a\nsoftdep ipmi_msghandler post: ipmi_devintf\n");
        let text =
            kernel_modules::IndexText { dep: &selection.dep, alias: "", softdep: &selection.softdep, builtin: "" };
        let index = kernel_modules::parse_index(text);
        let order: Vec<String> = index.load_order("ipmi_devintf").into_iter().map(module_name).collect();
        println!("{order:?}");
        let at = |name: &str| order.iter().position(|other| other == name).unwrap();
        assert!(at("ipmi_msghandler") < at("ipmi_devintf"));
        assert_eq!(index.load_order("ipmi_msghandler").len(), 3);
    }

    #[test]
    fn what_is_left_out_is_told_by_its_devices() {
        let index = parse_index(DEP, ALIAS, SOFT);
        let wanted = Wanted { starts: &["drivers/scsi/", "block/"], ..Wanted::default() };
        assert_eq!(index.select(&wanted).unwrap().left_out, "");
        let without_names = ["sd_mod".to_owned()];
        let selection = index.select(&Wanted { without_names: &without_names, ..wanted }).unwrap();
        assert!(!names_of(&selection).contains(&"sd_mod".to_owned()), "{:?}", selection.paths);
        assert_eq!(selection.left_out, "alias scsi:t-0x00* sd_mod\n");
    }

    #[test]
    fn nothing_selected_is_an_error() {
        let select = |starts: &[&str], without: &[&str]| {
            parse_index(DEP, ALIAS, SOFT).select(&Wanted { starts, without, ..Wanted::default() })
        };
        assert!(select(&["net/"], &[]).is_err());
        assert!(select(&["fs/"], &["fs/"]).is_err());
    }

    #[test]
    fn a_device_brings_its_driver() {
        let devices = ["scsi:t-0x00".to_owned(), "pci:v1".to_owned()];
        let wanted =
            Wanted { starts: &["lib/crc16"], devices: &devices, device_starts: &["drivers/"], ..Wanted::default() };
        let selection = parse_index(DEP, ALIAS, SOFT).select(&wanted).unwrap();
        assert_eq!(names_of(&selection), ["t10_pi", "crct10dif_generic", "sd_mod", "crc_t10dif", "crc16"]);
    }

    #[test]
    fn a_device_brings_no_driver_of_another_kind() {
        let devices = ["scsi:t-0x00".to_owned(), "snd".to_owned()];
        let names = ["jbd2".to_owned(), "no-such".to_owned()];
        let wanted = Wanted {
            starts: &["lib/crc16"],
            devices: &devices,
            device_starts: &["drivers/"],
            names: &names,
            ..Wanted::default()
        };
        let index = parse_index(DEP, ALIAS, SOFT);
        let selection = index.select(&wanted).unwrap();
        let found = names_of(&selection);
        assert!(found.contains(&"sd_mod".to_owned()) && found.contains(&"jbd2".to_owned()), "{found:?}");
        assert!(!found.contains(&"x".to_owned()), "sound is of no use: {found:?}");
        assert!(index.has("crypto-crc32c") && index.has("crc32c-intel") && !index.has("no-such"));
    }

    #[test]
    fn an_added_module_takes_the_place_of_the_kernels_own() {
        let mut index = parse_index(DEP, ALIAS, SOFT);
        let info =
            ModuleInfo { depends: vec!["ext4".into()], aliases: vec!["scsi:t-0x07*".into()], ..ModuleInfo::default() };
        index.add("updates/sd_mod.ko", &info).unwrap();
        let selection = index.select(&Wanted { starts: &["lib/crc16"], ..Wanted::default() }).unwrap();
        let dep = "updates/sd_mod.ko: kernel/fs/ext4/ext4.ko kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko\n";
        assert!(selection.dep.ends_with(dep), "{}", selection.dep);
        assert!(selection.alias.contains("alias scsi:t-0x07* sd_mod\n") && !selection.alias.contains("t-0x00"));
        assert!(!selection.dep.contains("drivers/scsi/sd_mod.ko"));
        let needy = ModuleInfo { depends: vec!["none".into()], ..ModuleInfo::default() };
        assert!(index.add("updates/z.ko", &needy).unwrap_err().context.contains("needs the module none"));
    }
}
