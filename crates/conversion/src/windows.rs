//! What a Windows guest gets from this machine: drivers out of the library, the program of its first boot, and the operator's
//! scripts. They are handed to the appliance beside its job, which chooses among the drivers when it has seen the guest.

use std::fs;
use std::path::{Path, PathBuf};

use bootimage::Programs;
use guest::appliance::{FIRST_BOOT_PATH, FirstBootJob, SCRIPTS_PATH, WINDOWS_DRIVERS_PATH, WindowsJob};
use guest::windows::drivers::{Device, Hypervisor, Library, VIRTUAL_DEVICES};
use guest::windows::{Architecture, FirstBoot, Release};
use machine::firstboot::Script;
use machine::{Family, Machine};

use crate::error::Context;
use crate::{Error, ErrorKind, Result};

/// Seconds that a script of the operator's may take.
const SCRIPT_TIMEOUT_S: u32 = 900;
/// Longest script, in bytes; a setup program may be one.
const SCRIPT_BYTES_MAX: u64 = 64 << 20;

/// What Windows guests get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowsGuests {
    /// Folder of the library of drivers; it need not exist.
    pub drivers: Option<PathBuf>,
    /// Hypervisors whose drivers go in; empty: all.
    pub hypervisors: Vec<Hypervisor>,
    /// Programs to run at the first boot, in this order.
    pub scripts: Vec<PathBuf>,
}

/// What goes into the appliance.
pub(crate) struct Parcel {
    /// For its job.
    pub(crate) job: WindowsJob,
    /// Files of its initramfs: path and content.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// What the operator should know.
    pub(crate) warnings: Vec<String>,
}

impl WindowsGuests {
    /// What the guest of `machine` gets; nothing where it cannot be a Windows. `nonce` is repeated in the report of the first boot.
    pub(crate) fn parcel(&self, machine: &Machine, nonce: &str) -> Result<Parcel> {
        let mut parcel = Parcel { job: WindowsJob::default(), files: Vec::new(), warnings: Vec::new() };
        if !may_be_windows(machine) {
            return Ok(parcel);
        }
        parcel.job.hypervisors =
            if self.hypervisors.is_empty() { Hypervisor::ALL.to_vec() } else { self.hypervisors.clone() };
        self.add_drivers(machine, &mut parcel)?;
        let programs = Programs::beside_executable().context(ErrorKind::Refused, || "our own programs".into())?;
        add_programs(machine, &programs, &mut parcel)?;
        self.add_first_boot(nonce, &mut parcel)?;
        Ok(parcel)
    }

    fn add_drivers(&self, machine: &Machine, parcel: &mut Parcel) -> Result<()> {
        let library = self.drivers.as_ref().map(Library::new);
        let unread =
            |error: guest::Error| Error::because(ErrorKind::Refused, "the library of drivers for Windows", error);
        let is_empty = library.as_ref().map_or(Ok(true), |library| library.releases().map(|all| all.is_empty()));
        if is_empty.map_err(unread)? {
            parcel.warnings.push(
                "the library of drivers for Windows is empty: the VM gets hardware that Windows has drivers for itself (add \
                 virtio-win.iso with: vconverter drivers add)"
                    .into(),
            );
            return Ok(());
        }
        let wanted = VIRTUAL_DEVICES.iter().filter(|device| parcel.job.hypervisors.contains(&device.hypervisor));
        let devices: Vec<Device> = wanted.map(|device| device.device()).collect();
        let Some(library) = library else { return Ok(()) };
        let files = library.excerpt(&devices, &releases(machine)).map_err(unread)?;
        parcel
            .files
            .extend(files.into_iter().map(|(path, content)| (format!("{WINDOWS_DRIVERS_PATH}/{path}"), content)));
        Ok(())
    }

    fn add_first_boot(&self, nonce: &str, parcel: &mut Parcel) -> Result<()> {
        let mut scripts = Vec::new();
        for path in &self.scripts {
            let (name, content) = script(path)?;
            if scripts.iter().any(|known: &Script| known.file.eq_ignore_ascii_case(&name)) {
                return Err(Error::new(ErrorKind::Refused, format!("two scripts for the first boot are named {name}")));
            }
            parcel.files.push((format!("{SCRIPTS_PATH}/{name}"), content));
            scripts.push(Script { file: name, timeout_s: SCRIPT_TIMEOUT_S });
        }
        parcel.job.first_boot = Some(FirstBootJob { nonce: nonce.to_owned(), scripts });
        Ok(())
    }
}

/// The programs of the first boot that may run on the machine's guest. One that is not here is told of; what it would have done,
/// the plan says.
fn add_programs(machine: &Machine, programs: &Programs, parcel: &mut Parcel) -> Result<()> {
    let architecture = architecture(machine);
    for (built, name) in FirstBoot::PROGRAMS.iter().filter(|(built, _)| architecture.is_none_or(|one| one == *built)) {
        let path = programs.path(name);
        if !path.is_file() {
            let missing =
                format!("{} is not here: nothing runs at the first boot of a Windows ({built})", path.display());
            parcel.warnings.push(missing);
            continue;
        }
        let content = fs::read(&path).context(ErrorKind::Refused, || path.display().to_string())?;
        parcel.files.push((format!("{FIRST_BOOT_PATH}/{name}"), content));
    }
    Ok(())
}

/// A script's name in the guest, and what is in it.
fn script(path: &Path) -> Result<(String, Vec<u8>)> {
    let refused = |what: &str| Error::new(ErrorKind::Refused, format!("script {}: {what}", path.display()));
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| refused("its name is no text"))?;
    let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_. ".contains(&b)) && !name.starts_with('.');
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    if !is_plain || !matches!(extension.as_deref(), Some("cmd" | "bat" | "exe" | "ps1")) {
        return Err(refused("expected letters, digits, - and _, and .cmd, .bat, .exe or .ps1 at the end"));
    }
    let unread = || format!("script {}", path.display());
    if fs::metadata(path).context(ErrorKind::Refused, unread)?.len() > SCRIPT_BYTES_MAX {
        return Err(refused("longer than 64 MiB"));
    }
    Ok((name.to_owned(), fs::read(path).context(ErrorKind::Refused, unread)?))
}

/// Whether a machine's guest is a Windows, or nobody has seen what it is and there is NTFS.
fn may_be_windows(machine: &Machine) -> bool {
    let has_ntfs = || machine.disks.iter().flat_map(|disk| &disk.layout.volumes).any(|volume| volume.kind == "ntfs");
    match machine.guest.family {
        Family::Windows => true,
        Family::Unknown => has_ntfs(),
        Family::Linux => false,
    }
}

/// The architecture of a machine's guest, where it is known.
fn architecture(machine: &Machine) -> Option<Architecture> {
    machine.guest.arch.as_deref().and_then(|arch| arch.parse().ok())
}

/// The release that a machine's guest is, of every kind; all that there are where that is not known.
fn releases(machine: &Machine) -> Vec<Release> {
    let guest = &machine.guest;
    let architecture = architecture(machine);
    let version = guest.version.as_deref().zip(architecture);
    match version.and_then(|(version, architecture)| Release::parse(version, architecture).ok()) {
        Some(release) => release.of_each_product().to_vec(),
        None => {
            let architectures = architecture.map_or(vec![Architecture::X86, Architecture::Amd64], |one| vec![one]);
            architectures.into_iter().flat_map(Release::all).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_taken_by_its_name_and_other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = folder.path().join(name);
            fs::write(&path, "echo").unwrap();
            path
        };
        assert_eq!(script(&write("10-licence.cmd")).unwrap(), ("10-licence.cmd".into(), b"echo".to_vec()));
        for name in ["x.sh", "a&b.cmd", ".cmd", "noextension"] {
            assert_eq!(script(&write(name)).unwrap_err().kind, ErrorKind::Refused, "{name}");
        }
        assert!(script(&folder.path().join("gone.cmd")).unwrap_err().to_string().contains("gone.cmd"));
    }

    #[test]
    fn a_guest_gets_the_program_of_its_architecture_and_both_where_that_is_not_known() {
        let folder = tempfile::tempdir().unwrap();
        let programs = Programs::in_folder(folder.path());
        let parcel = |architecture: Option<&str>| {
            let mut machine = Machine::default();
            machine.guest.arch = architecture.map(Into::into);
            let mut parcel = Parcel { job: WindowsJob::default(), files: Vec::new(), warnings: Vec::new() };
            add_programs(&machine, &programs, &mut parcel).unwrap();
            let names: Vec<String> = parcel.files.into_iter().map(|(path, _)| path).collect();
            (names, parcel.warnings)
        };
        let [x86, amd64] = ["x86", "amd64"].map(|built| format!("vconverter-firstboot-{built}.exe"));
        fs::write(folder.path().join(&amd64), "MZ").unwrap();
        let missing = format!(
            "{} is not here: nothing runs at the first boot of a Windows (x86)",
            folder.path().join(&x86).display()
        );
        assert_eq!(parcel(Some("x86")), (vec![], vec![missing]));
        fs::write(folder.path().join(&x86), "MZ").unwrap();
        let [x86, amd64] = [x86, amd64].map(|name| format!("/vconverter/first-boot/{name}"));
        assert_eq!(parcel(Some("x86_64")), (vec![amd64.clone()], vec![]));
        assert_eq!(parcel(Some("x86")), (vec![x86.clone()], vec![]));
        assert_eq!(parcel(None), (vec![x86, amd64], vec![]));
        // Nothing is built for it, and the plan says so.
        assert_eq!(parcel(Some("arm64")), (vec![], vec![]));
    }

    #[test]
    fn drivers_are_looked_for_by_what_is_known_of_the_guest() {
        let mut machine = Machine::default();
        assert!(!may_be_windows(&machine));
        machine.guest.family = Family::Windows;
        assert!(releases(&machine).len() > 20);
        machine.guest.arch = Some("x86_64".into());
        machine.guest.version = Some("10.0.17763".into());
        assert_eq!(releases(&machine).iter().map(|release| release.build).collect::<Vec<_>>(), [17763; 3]);
    }
}
