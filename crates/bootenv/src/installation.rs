//! Installs drivers into the running boot image: modules for its kernel, and firmware. What appears is set read-only by
//! whoever watches the devices, as everything else.
//!
//! Files come from outside, so everything is bounded, and nothing is written but below the folders of modules and firmware.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use kernel_modules::{DriverError, ModuleInfo, Part, is_driver_name, is_firmware_name, module_name, read_driver};
use rustix::io::Errno;
use serde::Serialize;

use crate::modules::{self, FIRMWARE, Loaded, Modules, is_loaded, modaliases};
use crate::unclaimed::named_firmware;
use crate::{Error, Result, memory, mounts};

/// Files that are installed at one time.
pub const FILES_MAX: usize = 1000;
/// Largest file, as it comes.
pub const FILE_BYTES_MAX: u64 = 64 << 20;
/// All files of one time, as they come.
pub const TOTAL_BYTES_MAX: u64 = 256 << 20;
/// A module of the kernel's own, whose signer is the one that the kernel trusts.
const OWN_MODULE: &str = "sd_mod";

/// A file with a driver, or firmware.
pub struct DriverFile {
    /// Its name; of firmware also the folders below the firmware folder, where they are known.
    pub name: String,
    /// What is in it.
    pub content: Vec<u8>,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// Whether it is in force.
    pub installed: bool,
    /// In words.
    pub text: String,
}

/// Installs files and loads what devices ask for. One at a time: another waits.
pub fn install(files: Vec<DriverFile>) -> Vec<Outcome> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let kernel = Kernel {
        release: rustix::system::uname().release().to_string_lossy().into_owned(),
        modules: modules::running(),
        firmware: Path::new(FIRMWARE),
        room: free_memory() / 2,
    };
    let mut outcomes = kernel.put_in(files);
    let named = |module: &Added| module.name.clone();
    let modules: BTreeSet<String> = outcomes.iter().flat_map(|(_, added)| added.iter().map(named)).collect();
    // Those that stand in for others first; the rest of the hardware may ask for something now, too.
    let served = modaliases();
    let served: BTreeSet<String> = served.iter().flat_map(|alias| kernel.modules.serving(alias)).collect();
    let mut failures = Vec::new();
    for name in modules.iter().filter(|name| served.contains(*name)) {
        failures.extend(kernel.modules.load_again(name).failures.into_iter().map(|error| (name.clone(), error)));
    }
    let others: Loaded = modules::load_for_hardware();
    for error in others.failures {
        crate::console::log(error.chain());
    }
    // Their modules are loaded and gave up for want of firmware.
    probe_unclaimed();
    for (outcome, added) in &mut outcomes {
        tell_loading(outcome, added, &failures, &kernel);
    }
    outcomes.into_iter().map(|(outcome, _)| outcome).collect()
}

/// A module that was put in.
struct Added {
    name: String,
    file: String,
    signer: Option<String>,
}

/// What files are installed for.
struct Kernel<'a> {
    release: String,
    modules: &'a Modules,
    firmware: &'a Path,
    /// Bytes of memory that may be filled.
    room: u64,
}

/// What one file holds, as it is put in.
struct Parts {
    modules: Vec<(String, ModuleInfo, Vec<u8>)>,
    /// Releases that others are for, with a module's file each.
    others: Vec<(String, String)>,
    firmware: usize,
}

impl Kernel<'_> {
    /// Puts in what is in the files: modules that need each other in any order, then firmware.
    fn put_in(&self, files: Vec<DriverFile>) -> Vec<(Outcome, Vec<Added>)> {
        let mut outcomes = Vec::new();
        let mut waiting: Vec<(usize, String, ModuleInfo, Vec<u8>)> = Vec::new();
        let mut loose = Vec::new();
        let mut room = self.room;
        for DriverFile { name, content } in files.into_iter().take(FILES_MAX) {
            let number = outcomes.len();
            let is_loose = ![".ko", ".ko.xz", ".ko.zst", ".deb"].iter().any(|end| name.ends_with(end));
            let mut outcome = Outcome { name: name.clone(), installed: false, text: String::new() };
            if is_loose {
                loose.push((number, name, content));
            } else {
                match self.unpack(&name, &content, &mut room) {
                    Ok(parts) => {
                        self.judge(&parts, &mut outcome);
                        for (file, info, bytes) in parts.modules {
                            if is_loaded(&module_name(&file)) {
                                outcome.installed = false;
                                outcome.text = already_loaded(&file, &name);
                            } else {
                                waiting.push((number, file, info, bytes));
                            }
                        }
                    }
                    Err(error) => outcome.text = error.chain(),
                }
            }
            outcomes.push((outcome, Vec::new()));
        }
        // Again and again, for one may need another; what is left needs something that is not there.
        loop {
            let before = waiting.len();
            let mut errors = Vec::new();
            waiting.retain(|(number, file, info, bytes)| match self.modules.add(file, info, bytes) {
                Ok(()) => {
                    let added = Added { name: module_name(file), file: file.clone(), signer: info.signer.clone() };
                    outcomes[*number].1.push(added);
                    false
                }
                Err(error) => {
                    errors.push((*number, error));
                    true
                }
            });
            if waiting.is_empty() || waiting.len() == before {
                for (number, error) in errors {
                    let (outcome, _): &mut (Outcome, Vec<Added>) = &mut outcomes[number];
                    (outcome.installed, outcome.text) = (false, error.chain());
                }
                break;
            }
        }
        let named = if loose.is_empty() { BTreeSet::new() } else { named_firmware(self.modules, &modaliases()) };
        for (number, name, content) in loose {
            let (outcome, _) = &mut outcomes[number];
            match self.put_in_firmware(&name, &content, &named, &mut room) {
                Ok(place) => (outcome.installed, outcome.text) = (true, format!("firmware {place}")),
                Err(error) => outcome.text = error.chain(),
            }
        }
        outcomes
    }

    /// Unpacks modules into memory, firmware into its folder.
    fn unpack(&self, name: &str, content: &[u8], room: &mut u64) -> Result<Parts> {
        if !is_driver_name(name) {
            return Err(Error::new("no name for a driver"));
        }
        let mut parts = Parts { modules: Vec::new(), others: Vec::new(), firmware: 0 };
        let mut failure = None;
        let read = read_driver(name, content, &mut |part| {
            let kept = match part {
                Part::Module { file, info, .. } if info.release() != self.release => {
                    parts.others.push((info.release().to_owned(), file));
                    Ok(())
                }
                Part::Module { file, info, content } => take_room(room, content.len()).map(|()| {
                    parts.modules.push((file, info, content));
                }),
                Part::Firmware { name, content } => {
                    parts.firmware += 1;
                    take_room(room, content.len()).and_then(|()| self.write_firmware(&name, &content))
                }
                Part::FirmwareLink { name, target } => {
                    parts.firmware += 1;
                    self.link_firmware(&name, &target)
                }
            };
            // Nothing more is unpacked behind a failure.
            let kept: std::result::Result<(), Error> = kept;
            kept.map_err(|error| {
                let stop = DriverError::new(error.chain());
                failure = Some(error);
                stop
            })
        });
        match (read, failure) {
            (_, Some(error)) => Err(error),
            (Err(error), None) => Err(Error::new(error.to_string())),
            (Ok(()), None) => Ok(parts),
        }
    }

    /// What can be said before anything is loaded.
    fn judge(&self, parts: &Parts, outcome: &mut Outcome) {
        if parts.modules.is_empty() && parts.firmware == 0 {
            if let Some((release, _)) = parts.others.first() {
                outcome.text = format!(
                    "it is for Linux {release}, and this boot image has {}; one that takes it: \
                     vconverter boot-image build --kernel linux-image-{release} --add-driver {}",
                    self.release, outcome.name
                );
            }
            return;
        }
        outcome.installed = true;
        outcome.text = if parts.firmware > 0 { format!("{} firmware files", parts.firmware) } else { String::new() };
    }

    /// Puts a single firmware file where a module looks for it; returns its name there.
    fn put_in_firmware(&self, name: &str, content: &[u8], named: &BTreeSet<String>, room: &mut u64) -> Result<String> {
        let mut read = None;
        let file = name.rsplit('/').next().unwrap_or(name);
        if !is_driver_name(file) || !is_firmware_name(name) {
            return Err(Error::new("no name for firmware"));
        }
        let done = read_driver(file, content, &mut |part| {
            if let Part::Firmware { name, content } = part {
                read = Some((name, content));
            }
            Ok(())
        });
        done.map_err(|error| Error::new(error.to_string()))?;
        let (plain, content) = read.ok_or_else(|| Error::new("no firmware"))?;
        let place = match name.strip_suffix(file) {
            Some(folder) if !folder.is_empty() => format!("{folder}{plain}"),
            _ => {
                let is_meant = |wanted: &&String| wanted.rsplit('/').next() == Some(plain.as_str());
                let found = named.iter().find(is_meant).cloned();
                found.ok_or_else(|| {
                    Error::new(format!("no driver of this machine's devices names a firmware {plain}"))
                })?
            }
        };
        take_room(room, content.len())?;
        self.write_firmware(&place, &content)?;
        Ok(place)
    }

    fn write_firmware(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.firmware_path(name)?;
        fs::write(&path, content).map_err(|e| Error::path("write", &path, e))
    }

    fn link_firmware(&self, name: &str, target: &str) -> Result<()> {
        let path = self.firmware_path(name)?;
        if !is_firmware_name(target) {
            return Err(Error::new(format!("firmware {name} leads out of its folder")));
        }
        std::os::unix::fs::symlink(self.firmware.join(target), &path).map_err(|e| Error::path("link", &path, e))
    }

    /// The path of a firmware file whose folder is there and which is not there itself: what is replaced may be a link.
    fn firmware_path(&self, name: &str) -> Result<std::path::PathBuf> {
        if !is_firmware_name(name) {
            return Err(Error::new(format!("{name:?}: no name for firmware")));
        }
        let path = self.firmware.join(name);
        let folder = path.parent().unwrap_or(self.firmware);
        fs::create_dir_all(folder).map_err(|e| Error::path("create", folder, e))?;
        // A link in the way would lead elsewhere.
        if !folder.canonicalize().is_ok_and(|real| real.starts_with(self.firmware.canonicalize().unwrap_or_default())) {
            return Err(Error::new(format!("firmware {name} leads out of its folder")));
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::path("replace", &path, error)),
            _ => Ok(path),
        }
    }
}

/// The kernel does not take another in the place of one that it uses.
fn already_loaded(module: &str, file: &str) -> String {
    format!(
        "{} is loaded already; a boot image with this one instead: vconverter boot-image build --add-driver {file}",
        module_name(module)
    )
}

fn take_room(room: &mut u64, bytes: usize) -> Result<()> {
    let left = room.checked_sub(bytes as u64);
    *room = left.ok_or_else(|| Error::new("the memory of this machine is too small for it"))?;
    Ok(())
}

/// Bytes of memory that drivers may take.
pub(crate) fn free_memory() -> u64 {
    memory::available().0.min(2 * TOTAL_BYTES_MAX)
}

/// Completes what is said of a file by what became of its modules.
fn tell_loading(outcome: &mut Outcome, added: &[Added], failures: &[(String, Error)], kernel: &Kernel<'_>) {
    let mut told: Vec<String> = Some(outcome.text.clone()).filter(|text| !text.is_empty()).into_iter().collect();
    for module in added {
        let failure = failures.iter().find(|(name, _)| *name == module.name).map(|(_, error)| error);
        told.push(match failure {
            Some(error) => {
                outcome.installed = false;
                refusal(module, error, &outcome.name, kernel)
            }
            None if is_loaded(&module.name) => format!("{} is loaded", module.name),
            None => format!("{} is kept: no device here asks for it", module.name),
        });
    }
    outcome.text = told.join("; ");
}

/// Why the kernel did not take a module, and what would.
fn refusal(module: &Added, error: &Error, file: &str, kernel: &Kernel<'_>) -> String {
    const SIGNATURE: [Errno; 5] = [Errno::PERM, Errno::NOKEY, Errno::KEYREJECTED, Errno::BADMSG, Errno::NODATA];
    let code = error.source.as_ref().and_then(std::io::Error::raw_os_error);
    if !SIGNATURE.iter().any(|errno| Some(errno.raw_os_error()) == code) {
        return format!("{}; the log may say more", error.chain());
    }
    let own = kernel.modules.info_of(OWN_MODULE).and_then(|info| info.signer);
    signature_refusal(module.signer.as_deref(), own.as_deref(), &module.file, file, &mounts::lockdown())
}

fn signature_refusal(signer: Option<&str>, own: Option<&str>, module: &str, file: &str, lockdown: &str) -> String {
    let signed = signer.map_or("is not signed".to_owned(), |signer| format!("is signed by {signer}"));
    let trusted = own.map(|own| format!(", and trusts {own}")).unwrap_or_default();
    let why = if lockdown == "none" || lockdown.is_empty() { "" } else { " under Secure Boot" };
    format!(
        "{module} {signed}: this kernel refuses it{why}{trusted}. With Secure Boot off it is taken, here and from a boot \
         image made by: vconverter boot-image build --add-driver {file}"
    )
}

/// Offers devices without a driver to the drivers once more.
fn probe_unclaimed() {
    for bus in ["pci", "usb", "virtio"] {
        let folder = Path::new("/sys/bus").join(bus);
        for entry in fs::read_dir(folder.join("devices")).into_iter().flatten().flatten() {
            if !entry.path().join("driver").exists() {
                // A driver that gives up again says so in the kernel's log.
                let _ = fs::write(folder.join("drivers_probe"), entry.file_name().as_encoded_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::{load_modules, tests::module};

    struct Place(tempfile::TempDir, Modules);

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("firmware")).unwrap();
            let modules = load_modules(&folder.path().join("modules"));
            Self(folder, modules)
        }

        fn install(&self, files: &[(&str, &[u8])]) -> Vec<Outcome> {
            let firmware = self.0.path().join("firmware");
            let kernel =
                Kernel { release: "6.1.0-25-amd64".into(), modules: &self.1, firmware: &firmware, room: 1 << 20 };
            let file = |(name, content): &(&str, &[u8])| DriverFile { name: (*name).into(), content: content.to_vec() };
            let outcomes = kernel.put_in(files.iter().map(file).collect());
            outcomes.into_iter().map(|(outcome, _)| outcome).collect()
        }
    }

    const OURS: &str = "vermagic=6.1.0-25-amd64 SMP";

    #[test]
    fn modules_that_need_each_other_are_put_in_whatever_their_order() {
        let place = Place::new();
        let (raid, core) = (module(&["name=raid", "depends=core", OURS]), module(&["name=core", OURS]));
        let outcomes = place.install(&[("raid.ko", &raid), ("core.ko", &core)]);
        assert!(outcomes.iter().all(|outcome| outcome.installed), "{outcomes:?}");
        assert_eq!(place.1.serving("raid"), ["raid"]);
        let lonely = module(&["name=lonely", "depends=nowhere", OURS]);
        let outcomes = place.install(&[("lonely.ko", &lonely)]);
        assert!(!outcomes[0].installed && outcomes[0].text.contains("needs the module nowhere"), "{outcomes:?}");
    }

    #[test]
    fn a_module_for_another_kernel_is_refused_with_both_versions_and_what_takes_it() {
        let place = Place::new();
        let other = module(&["name=x", "vermagic=6.12.1-1-amd64 SMP"]);
        let outcomes = place.install(&[("x.ko", &other)]);
        assert_eq!(
            outcomes[0].text,
            "it is for Linux 6.12.1-1-amd64, and this boot image has 6.1.0-25-amd64; one that takes it: \
             vconverter boot-image build --kernel linux-image-6.12.1-1-amd64 --add-driver x.ko"
        );
        assert!(!outcomes[0].installed && place.1.serving("x").is_empty());
    }

    #[test]
    fn files_that_are_no_driver_or_too_large_are_refused_and_write_nothing() {
        let place = Place::new();
        let large = vec![1; 2 << 20];
        let outcomes = place.install(&[
            ("../../x.ko", b"x"),
            ("x.ko", b"text"),
            ("x.deb", b"text"),
            ("unasked.bin", b"x"),
            ("a/../../b.fw", b"x"),
            ("a/large.fw", &large),
        ]);
        for (outcome, why) in outcomes.iter().zip([
            "no name",
            "no kernel module",
            "no Debian package",
            "no driver of this machine's devices names",
            "no name",
            "memory",
        ]) {
            assert!(!outcome.installed && outcome.text.contains(why), "{outcome:?}: {why}");
        }
        assert_eq!(fs::read_dir(place.0.path().join("firmware")).unwrap().count(), 0);
    }

    #[test]
    fn firmware_with_its_folder_goes_there() {
        let place = Place::new();
        let packed = zstd_of(b"firmware");
        let outcomes = place.install(&[("bnx2/a.fw.zst", &packed)]);
        assert_eq!((outcomes[0].installed, outcomes[0].text.as_str()), (true, "firmware bnx2/a.fw"));
        assert_eq!(fs::read(place.0.path().join("firmware/bnx2/a.fw")).unwrap(), b"firmware");
    }

    /// A frame with one raw block (RFC 8878, section 3.1.1).
    fn zstd_of(content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x20, length];
        let header = u32::from(length) << 3 | 1;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(content);
        frame
    }

    #[test]
    fn a_link_in_the_way_leads_nowhere() {
        let place = Place::new();
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), place.0.path().join("firmware/a")).unwrap();
        let outcomes = place.install(&[("a/b.fw", b"x")]);
        assert!(outcomes[0].text.contains("leads out"), "{outcomes:?}");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_module_that_is_not_trusted_is_told_by_its_signer() {
        let unsigned = signature_refusal(None, Some("Debian Secure Boot CA"), "x.ko", "x.deb", "integrity");
        assert!(unsigned.starts_with(
            "x.ko is not signed: this kernel refuses it under Secure Boot, and trusts Debian Secure Boot CA."
        ));
        assert!(unsigned.ends_with("vconverter boot-image build --add-driver x.deb"), "{unsigned}");
        assert!(
            signature_refusal(Some("Vendor"), None, "x.ko", "x.ko", "none")
                .starts_with("x.ko is signed by Vendor: this kernel refuses it. ")
        );
    }
}
