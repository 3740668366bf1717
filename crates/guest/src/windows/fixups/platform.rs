//! What the virtual machine has beside disks and network: Secure Boot, a TPM, interfaces of Hyper-V.
//!
//! Windows 11 and Server 2022 ask for UEFI with Secure Boot and for a TPM 2.0 (Microsoft, "Windows 11 requirements", "Hardware
//! requirements for Windows Server"). A new TPM is empty, so it helps nobody else who leaned on the old one: older releases get
//! none. Secure Boot is as it was at the source, or, where that is not known, on for those that ask for it; and it is off, with
//! a warning, where something that starts would be refused: a VM that starts comes first.
//!
//! Since Windows 10 1607 Secure Boot takes only drivers that Microsoft signed (Microsoft, "Driver signing policy"), and servers take
//! only those that it tested (virtio-win's own documentation warns of it: bug 1844726 of Red Hat).

use machine::{DiskBus, FirmwareKind, HypervInterfaces};

use crate::windows::drivers::catalog::Signature;
use crate::windows::{LoaderSignature, Product, Release};

/// First builds that ask for Secure Boot and a TPM: Windows 11, Windows Server 2022.
const NEWEST: [(bool, u32); 2] = [(false, 22_000), (true, 20_348)];
/// Windows 10 1607 and Server 2016.
const POLICY_OF_1607: u32 = 14_393;

/// How Windows is started.
pub(super) struct Start<'s> {
    pub(super) release: Release,
    pub(super) firmware: FirmwareKind,
    pub(super) disk_bus: DiskBus,
    /// Whether Secure Boot was on at the source, if that is known.
    pub(super) was_secure: Option<bool>,
    /// Options of the last start.
    pub(super) options: &'s str,
    /// Who signed the boot manager; `None` without one.
    pub(super) loader: Option<LoaderSignature>,
    /// Drivers that are brought in, and who signed them.
    pub(super) drivers: &'s [(String, Signature)],
}

impl Start<'_> {
    /// Whether the VM is to enforce Secure Boot; why not goes to the warnings.
    pub(super) fn is_secure(&self, warnings: &mut Vec<String>) -> bool {
        let wanted = self.was_secure.unwrap_or_else(|| is_newest(&self.release));
        if self.firmware != FirmwareKind::Uefi || !wanted {
            return false;
        }
        let obstacles = self.obstacles();
        if !obstacles.is_empty() {
            let source = if self.was_secure == Some(true) { ", and it was on at the source" } else { "" };
            warnings.push(format!(
                "Secure Boot is off in the virtual machine{source}: {}; it can be switched on in the definition when that is mended",
                obstacles.join("; ")
            ));
            return false;
        }
        if self.loader == Some(LoaderSignature::Windows2023) {
            warnings.push(
                "Windows' boot manager is signed by Windows UEFI CA 2023 alone: under Secure Boot only a firmware with that key \
                 starts it, which older ones of virtual machines have not"
                    .into(),
            );
        }
        true
    }

    /// What Secure Boot would refuse.
    fn obstacles(&self) -> Vec<String> {
        let mut obstacles = Vec::new();
        if self.release.version() < (6, 2) {
            obstacles.push(format!("{} does not know it", self.release.name()));
        }
        if self.disk_bus == DiskBus::Ide {
            obstacles.push("Windows has only a driver for IDE, and machines with IDE have no Secure Boot".into());
        }
        match self.loader {
            Some(LoaderSignature::Windows2011 | LoaderSignature::Windows2023) => {}
            Some(LoaderSignature::Other) => obstacles.push("its boot manager is not signed by Microsoft".into()),
            Some(LoaderSignature::None) => obstacles.push("its boot manager is not signed".into()),
            None => obstacles.push("Windows' boot manager was not found".into()),
        }
        let options = self.options.split_whitespace().map(|option| option.trim_start_matches('/'));
        if options.into_iter().any(|option| option.eq_ignore_ascii_case("TESTSIGNING")) {
            obstacles.push("it was last started with TESTSIGNING".into());
        }
        let wanted = self.signature_wanted();
        let weak: Vec<&str> =
            self.drivers.iter().filter(|(_, by)| *by < wanted).map(|(driver, _)| driver.as_str()).collect();
        if !weak.is_empty() {
            let by = if wanted == Signature::Certified { "certified by Microsoft" } else { "signed as it asks for" };
            obstacles.push(format!("the library's drivers {} are not {by}", weak.join(", ")));
        }
        obstacles
    }

    fn signature_wanted(&self) -> Signature {
        match (self.release.build >= POLICY_OF_1607, self.release.product) {
            (false, _) => Signature::Maker,
            (true, Product::Workstation) => Signature::Attested,
            (true, Product::Server | Product::DomainController) => Signature::Certified,
        }
    }
}

/// Whether a release asks for Secure Boot and a TPM.
fn is_newest(release: &Release) -> bool {
    let server = release.product != Product::Workstation;
    let first = NEWEST.iter().find(|(of_server, _)| *of_server == server);
    release.version() >= (10, 0) && first.is_some_and(|(_, build)| release.build >= *build)
}

/// Whether Windows wants a TPM 2.0, which it takes with UEFI alone.
pub(super) fn wants_tpm(release: &Release, firmware: FirmwareKind) -> bool {
    firmware == FirmwareKind::Uefi && is_newest(release)
}

/// Since Vista Windows makes use of Hyper-V's interfaces (Microsoft, "Hypervisor Top Level Functional Specification", 1.0 for
/// Server 2008 to 4.0 for Server 2012 R2); the timers and hypercalls beyond the first are offered to Windows 8 and later.
pub(super) fn hyperv(release: &Release) -> HypervInterfaces {
    match release.version() {
        (..=5, _) => HypervInterfaces::None,
        (6, ..=1) => HypervInterfaces::Basic,
        _ => HypervInterfaces::Full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::Architecture;

    fn release(name: &str) -> Release {
        Release::parse(name, Architecture::Amd64).unwrap()
    }

    fn start(name: &str, was_secure: Option<bool>) -> Start<'static> {
        Start {
            release: release(name),
            firmware: FirmwareKind::Uefi,
            disk_bus: DiskBus::Sata,
            was_secure,
            options: " NOEXECUTE=OPTIN",
            loader: Some(LoaderSignature::Windows2011),
            drivers: &[],
        }
    }

    /// Whether it is on, and the warning.
    fn verdict(start: &Start<'_>) -> (bool, String) {
        let mut warnings = Vec::new();
        let on = start.is_secure(&mut warnings);
        println!("{on} {warnings:?}");
        (on, warnings.join("|"))
    }

    #[test]
    fn secure_boot_is_as_it_was_and_on_for_those_that_ask_for_it() {
        let on = |name: &str, was: Option<bool>| verdict(&start(name, was));
        let quiet = |on: bool| (on, String::new());
        assert_eq!((on("8.1", Some(true)), on("2019", Some(true))), (quiet(true), quiet(true)));
        assert_eq!((on("10", None), on("2019", None)), (quiet(false), quiet(false)));
        assert_eq!((on("11", None), on("2022", None), on("2025", None)), (quiet(true), quiet(true), quiet(true)));
        assert_eq!(on("11", Some(false)), quiet(false));
        let bios = Start { firmware: FirmwareKind::Bios, ..start("11", Some(true)) };
        assert_eq!(verdict(&bios), quiet(false));
    }

    #[test]
    fn what_would_be_refused_switches_it_off_with_a_warning() {
        let drivers = [("viostor.inf".to_owned(), Signature::Attested), ("netkvm.inf".to_owned(), Signature::Maker)];
        let cases = [
            (Start { disk_bus: DiskBus::Ide, ..start("11", None) }, "only a driver for IDE"),
            (Start { loader: None, ..start("11", None) }, "boot manager was not found"),
            (
                Start { loader: Some(LoaderSignature::None), ..start("10", Some(true)) },
                "on at the source: its boot manager",
            ),
            (Start { loader: Some(LoaderSignature::Other), ..start("11", None) }, "not signed by Microsoft"),
            (Start { options: " TESTSIGNING  NOEXECUTE=OPTIN", ..start("11", None) }, "TESTSIGNING"),
            (Start { drivers: &drivers, ..start("11", None) }, "drivers netkvm.inf are not signed"),
            (
                Start { drivers: &drivers, ..start("2022", None) },
                "viostor.inf, netkvm.inf are not certified by Microsoft",
            ),
            (start("7", Some(true)), "Windows 7 does not know it"),
        ];
        for (start, said) in cases {
            let (on, warning) = verdict(&start);
            assert!(!on && warning.contains(said), "{said}: {warning}");
        }
        // What Microsoft attests is enough for clients, and a maker's signature was before Windows 10 1607.
        assert_eq!(verdict(&Start { drivers: &drivers[..1], ..start("11", None) }).1, "");
        assert_eq!(verdict(&Start { drivers: &drivers, ..start("2012r2", Some(true)) }).1, "");
        let newer = Start { loader: Some(LoaderSignature::Windows2023), ..start("11", None) };
        let (on, warning) = verdict(&newer);
        assert!(on && warning.contains("Windows UEFI CA 2023"), "{warning}");
    }

    #[test]
    fn the_newest_get_a_tpm_and_each_what_it_knows_of_hyper_v() {
        let uefi = |name: &str| wants_tpm(&release(name), FirmwareKind::Uefi);
        let with: Vec<&str> =
            ["7", "10", "11", "2016", "2019", "2022", "2025"].into_iter().filter(|n| uefi(n)).collect();
        assert_eq!(with, ["11", "2022", "2025"]);
        assert!(!wants_tpm(&release("11"), FirmwareKind::Bios));
        use HypervInterfaces::{Basic, Full, None};
        let known = ["xp", "2003", "vista", "2008r2", "8", "2012r2", "10", "11"].map(|name| hyperv(&release(name)));
        assert_eq!(known, [None, None, Basic, Basic, Full, Full, Full, Full]);
    }
}
