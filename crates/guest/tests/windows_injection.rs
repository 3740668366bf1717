//! What injecting a driver changes, against golden files that were written from their sources; and what is known of
//! Windows' own drivers, against the registries in which Windows wrote it.
#![allow(clippy::unwrap_used)]

mod support;
mod virtio;

use guest::ErrorKind;
use guest::windows::drivers::{Edit, INBOX_DRIVERS, Injection, Key, Placement, Scope, plan_injection};
use guest::windows::hive::{Data as Stored, Hive};
use guest::windows::inf::{Data, Inf};
use guest::windows::{Architecture, Release};

use virtio::{group, stamped};

fn files(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn placement() -> Placement {
    Placement { windows: "Windows".into(), published: "oem9.inf".into() }
}

/// The plan for a driver of virtio-win, built for `target`.
fn planned(template: &str, name: &str, target: &str, folder: &str, first: u16, release: &str) -> Option<Injection> {
    let text = String::from_utf8_lossy(&group()?[template]).into_owned();
    let stamp = format!("DriverVer=07/22/2026,{first}.6.101.58000 ; ");
    let text = stamped(&text, folder).replace("NT$ARCH$", target).replace("DriverVer=", &stamp);
    let all = files(&[&format!("{name}.inf"), &format!("{name}.cat"), &format!("{name}.sys"), "netkvmp.exe"]);
    let all = if name == "netkvm" { all } else { all[..3].to_vec() };
    let release = Release::parse(release, Architecture::Amd64).unwrap();
    Some(plan_injection(&Inf::parse(text.as_bytes()).unwrap(), &all[0], &all, &release, &placement()).unwrap())
}

#[test]
fn a_boot_critical_driver_is_injected_as_its_golden_file_says() {
    let template = "kvm-guest-drivers-windows/viostor/viostor.inx";
    let cases = [
        ("2008r2", "NTamd64.6.1", "12", 61, include_str!("golden/injection-viostor-2008r2.txt")),
        ("2025", "NTamd64.10.0...16299", "13", 100, include_str!("golden/injection-viostor-2025.txt")),
    ];
    for (release, target, folder, first, golden) in cases {
        let Some(plan) = planned(template, "viostor", target, folder, first, release) else { return };
        let expected: String =
            golden.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        let shown = plan.to_string().replace(&plan.package, "PACKAGE");
        assert_eq!(shown, expected, "{release}");
        let form = if release == "2025" { "viostor.inf_amd64_" } else { "viostor.inf_amd64_neutral_" };
        let digits = plan.package.strip_prefix(form).unwrap();
        assert!(digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{}", plan.package);
        assert_eq!(plan.notes, Vec::<String>::new());
    }
}

#[test]
fn a_network_driver_waits_for_the_first_boot() {
    let template = "kvm-guest-drivers-windows/NetKVM/netkvm-base.txt";
    let Some(plan) = planned(template, "netkvm", "NTamd64.10.0", "12", 100, "2019") else { return };
    assert!(!plan.is_boot_critical && plan.edits.is_empty());
    let sources: Vec<&str> = plan.files.iter().map(|file| file.source.as_str()).collect();
    assert_eq!(sources, ["netkvm.cat", "netkvm.inf", "netkvm.sys", "netkvmp.exe"]);
    assert!(
        plan.files.iter().all(|file| file
            .destination
            .starts_with("Program Files\\vconverter\\firstboot\\drivers\\netkvm.inf_amd64_"))
    );
}

#[test]
fn what_boot_needs_and_the_package_lacks_is_an_error() {
    let Some(all) = group() else { return };
    let text = String::from_utf8_lossy(&all["kvm-guest-drivers-windows/viostor/viostor.inx"]).into_owned();
    let inf = Inf::parse(stamped(&text, "12").replace("NT$ARCH$", "NTamd64.6.1").as_bytes()).unwrap();
    let plan = |names: &[&str], release: &str| {
        let release = Release::parse(release, Architecture::Amd64).unwrap();
        plan_injection(&inf, "viostor.inf", &files(names), &release, &placement()).unwrap_err()
    };
    let missing = plan(&["viostor.inf"], "7");
    assert_eq!(
        (missing.kind, missing.to_string().as_str()),
        (ErrorKind::Missing, "viostor.inf: the package has no viostor.sys")
    );
    let older = plan(&["viostor.inf", "viostor.sys"], "2008");
    assert_eq!(older.to_string(), "viostor.inf: it has no device for Windows Server 2008 (6.0.6002, amd64)");
}

/// Whether Windows has what we would write; paths of programs are the same in each of their spellings.
fn is_same(name: &str, ours: &Data, windows: &Stored) -> bool {
    let path = |text: &str| text.to_lowercase().replace("\\systemroot\\", "");
    match ours {
        Data::Sz(text) | Data::ExpandSz(text) if name == "ImagePath" => {
            windows.text().is_some_and(|own| path(&own) == path(text))
        }
        Data::Sz(text) | Data::ExpandSz(text) => windows.text().is_some_and(|own| own.eq_ignore_ascii_case(text)),
        Data::Dword(number) => windows.dword() == Some(*number),
        Data::MultiSz(_) | Data::Bytes(..) => false,
    }
}

/// What is different between what enabling every driver of Windows writes and what Windows itself wrote.
fn differences(hive: &Hive, release: &Release) -> Vec<String> {
    let mut different = Vec::new();
    let mut compared = 0;
    let path = |key: &Key| match key.scope {
        Scope::ControlSets => format!("ControlSet001\\{}", key.path),
        Scope::Hive => key.path.clone(),
    };
    for driver in INBOX_DRIVERS.iter().filter(|driver| driver.is_in(release)) {
        for edit in driver.enabling(release) {
            match edit {
                Edit::Set { key, name, data, .. } => {
                    let found = hive.open(path(&key).as_str()).unwrap().map(|own| own.data(name.as_str()).unwrap());
                    compared += 1;
                    match found {
                        Some(Some(own)) if is_same(&name, &data, &own) => {}
                        Some(Some(own)) => {
                            let shown = own.text().or_else(|| own.dword().map(|number| number.to_string()));
                            different.push(format!("{} {name}: {}", key.path, shown.unwrap_or_default()));
                        }
                        Some(None) => different.push(format!("{} {name}: absent", key.path)),
                        None => different.push(format!("{}: absent", key.path)),
                    }
                }
                Edit::RemoveKey { key } => {
                    if hive.open(path(&key).as_str()).unwrap().is_some() {
                        different.push(format!("{}: there", key.path));
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        // Since Windows 8 its own driver database has the identifiers.
        for id in driver.ids.iter().filter(|_| release.version() >= (6, 2)) {
            let key = format!("DriverDatabase\\DeviceIds\\{id}");
            assert!(hive.open(key.as_str()).unwrap().is_some(), "{release}: {key}");
        }
    }
    println!("{release}: {compared} values compared, {} differ", different.len());
    different.dedup();
    different
}

#[test]
fn what_enables_a_driver_of_windows_is_what_windows_wrote_itself() {
    let Some(data) = support::test_data() else { return };
    let of = |hive: &str, release: &str, architecture| {
        differences(&support::hive(&data, hive), &Release::parse(release, architecture).unwrap())
    };
    // What starts later, or not without its hardware, is what enabling is for; so is StartOverride.
    let ten = of("hives/SYSTEM-win10-19041-x64-clean", "10", Architecture::Amd64);
    let overridden = ["pciide", "LSI_SAS", "LSI_SAS2i", "LSI_SAS3i", "vmbus", "storvsc"];
    assert_eq!(ten, overridden.map(|service| format!("Services\\{service}\\StartOverride: there")));
    let seven = of("hives/SYSTEM-win7sp1-x86-clean", "7", Architecture::X86);
    assert_eq!(seven, ["Services\\pciide Start: 3", "Services\\msahci Start: 3", "Services\\storvsc Start: 3",]);
    let xp = of("hives/SYSTEM-xpsp3-x86-clean", "xp", Architecture::X86);
    assert_eq!(
        xp,
        [
            // What XP's drivers have of their own stays.
            "Services\\intelide ErrorControl: 1",
            // This one was installed on a PIIX4: what it never met is not among its critical devices, and is added.
            "Control\\CriticalDeviceDatabase\\PCI#VEN_8086&DEV_7010: absent",
            "Services\\pciide Start: 4",
            "Services\\pciide ErrorControl: 1",
            "Services\\pciide ImagePath: absent",
            "Control\\CriticalDeviceDatabase\\PCI#CC_0101: absent",
            "Services\\atapi ErrorControl: 1",
        ]
    );
}
