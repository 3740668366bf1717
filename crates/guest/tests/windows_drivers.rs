//! INF files, catalogs and the choice of drivers, on the real ones of the test data: the sources of virtio-win, signed
//! pairs, and the listings of what virtio-win ships for which release.
#![allow(clippy::unwrap_used)]

mod support;
mod virtio;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use guest::MemoryTree;
use guest::windows::drivers::catalog::{Catalog, Said};
use guest::windows::drivers::{Candidate, Device, Identifier, Package, Problem, best, matches};
use guest::windows::inf::{Encoding, Inf, StartType};
use guest::windows::{Architecture, Product, Release};

use virtio::{group, stamped};

fn is_inf(path: &str) -> bool {
    path.ends_with(".inf") || path.ends_with(".inx") || path.ends_with("netkvm-base.txt")
}

/// What is left of a text when blanks, quotes, commas and equals signs are gone.
fn squeezed(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && !"\",=".contains(*c)).collect()
}

/// A line without its comment.
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let end = line.find(|c| {
        quoted ^= c == '"';
        c == ';' && !quoted
    });
    &line[..end.unwrap_or(line.len())]
}

#[test]
fn every_inf_file_is_read_without_loss() {
    let Some(files) = group() else { return };
    let mut seen = BTreeSet::new();
    let mut entries = 0;
    for (path, bytes) in files.iter().filter(|(path, _)| is_inf(path)) {
        let inf = Inf::parse(bytes).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(&inf.to_bytes(), bytes, "{path}");
        seen.insert(format!("{:?}", inf.encoding()));
        // By another way, line by line: none of these files continues a line.
        let text = match inf.encoding() {
            Encoding::Utf16Le { .. } => {
                let units: Vec<u16> =
                    bytes[2..].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
                String::from_utf16(&units).unwrap()
            }
            _ => String::from_utf8_lossy(bytes).trim_start_matches('\u{feff}').to_owned(),
        };
        let mut expected = BTreeMap::<String, Vec<String>>::new();
        let mut section = String::new();
        for line in text.lines().map(without_comment).filter(|line| !line.trim().is_empty()) {
            match line.trim_start().strip_prefix('[') {
                Some(name) => section = name.split(']').next().unwrap().to_lowercase(),
                None => expected.entry(section.clone()).or_default().push(squeezed(line)),
            }
        }
        for (name, expected) in expected {
            let section = inf.section(&name).unwrap_or_else(|| panic!("{path}: [{name}]"));
            let found: Vec<String> = section
                .entries
                .iter()
                .map(|entry| {
                    squeezed(&format!("{}{}", entry.key.as_deref().unwrap_or_default(), entry.values.concat()))
                })
                .collect();
            entries += found.len();
            assert_eq!(found, expected, "{path}: [{name}]");
        }
    }
    println!("{entries} entries in {seen:?}");
    assert!(entries > 800, "{entries}");
    assert!(seen.len() >= 2, "{seen:?}");
}

#[test]
fn what_every_inf_file_asks_for_is_understood() {
    let Some(files) = group() else { return };
    let releases = ["xp", "2003", "7", "2008r2", "8.1", "10", "2022", "2025"];
    let mut installed = 0;
    for (path, bytes) in files.iter().filter(|(path, _)| path.ends_with(".inf") || path.ends_with(".inx")) {
        // Templates are stamped as a build does it.
        let text = String::from_utf8_lossy(bytes).replace("NT$ARCH$", "NTamd64");
        let text = stamped(&text, "12");
        let bytes = if bytes.starts_with(b"\xff\xfe") { bytes.clone() } else { text.into_bytes() };
        let inf = Inf::parse(&bytes).unwrap();
        let version = inf.version().unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(version.class_guid.is_some() && version.provider.is_some() && !version.catalogs.is_empty(), "{path}");
        let mut found = false;
        for architecture in [Architecture::X86, Architecture::Amd64] {
            for release in releases.map(|release| Release::parse(release, architecture).unwrap()) {
                for models in inf.models_for(&release).unwrap() {
                    for model in models.models {
                        let installation = inf.installation(&model.install_section, &release);
                        let installation = installation.unwrap_or_else(|error| panic!("{path}: {model:?}: {error}"));
                        assert!(!model.description.contains('%'), "{path}: {model:?}");
                        let needs: Vec<_> = installation.needs.iter().filter(|need| !need.is_inbox).collect();
                        assert!(needs.is_empty(), "{path}: {needs:?}");
                        (found, installed) = (true, installed + 1);
                    }
                }
            }
        }
        assert!(found, "{path} is for no release");
    }
    println!("{installed} installations");
}

#[test]
fn a_signed_inf_file_is_the_one_of_its_catalog() {
    let Some(files) = group() else { return };
    let mut pairs = 0;
    for (path, bytes) in files.iter().filter(|(path, _)| path.ends_with(".cat")) {
        let catalog = Catalog::parse(bytes).unwrap_or_else(|error| panic!("{path}: {error}"));
        let inf = &files[&path.replace(".cat", ".inf")];
        let name = path.rsplit('/').next().unwrap().replace(".cat", ".inf").to_lowercase();
        assert!(catalog.members.iter().any(|member| member.file.as_deref() == Some(&name)), "{path}: {catalog:?}");
        assert_eq!(catalog.holds(inf), Some(true), "{path}");
        assert_eq!(catalog.holds(&[inf.as_slice(), b"\r\n"].concat()), Some(false), "{path}");
        let signer = catalog.signer.as_ref().unwrap();
        let maker = if path.contains("Adafruit") { "Adafruit Industries" } else { "Arduino LLC" };
        assert_eq!((signer.name.as_str(), signer.is_asked_about()), (maker, true), "{path}");
        let subject =
            openssl(&["x509", "-inform", "DER", "-noout", "-subject", "-nameopt", "multiline"], &signer.certificate);
        assert!(subject.contains(&format!("organizationName          = {maker}")), "{path}: {subject}");
        let pem = openssl(&["x509", "-inform", "DER"], &signer.certificate);
        assert!(openssl(&["pkcs7", "-inform", "DER", "-print_certs"], bytes).contains(pem.trim()), "{path}");
        // The catalog names the devices of the INF file; one was made with another file beside it, and names that one's too.
        let of_inf: BTreeSet<String> = device_ids(&Inf::parse(inf).unwrap());
        let of_catalog: BTreeSet<String> = catalog.device_ids().map(str::to_lowercase).collect();
        assert!(!of_inf.is_empty() && of_catalog.is_superset(&of_inf), "{path}: {of_catalog:?}");
        for (release, said) in [("xp", Said::Named), ("7", Said::Named), ("5.0", Said::NewerOnly)] {
            assert_eq!(
                catalog.says_of(&Release::parse(release, Architecture::X86).unwrap()),
                said,
                "{path}: {release}"
            );
        }
        pairs += 1;
    }
    assert_eq!(pairs, 4);
}

#[test]
fn a_signed_catalog_with_changed_bytes_is_read_or_refused() {
    let Some(files) = group() else { return };
    let (mut read, mut seed) = (0, 0x9e37_79b9_7f4a_7c15_u64);
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    for bytes in files.iter().filter(|(path, _)| path.ends_with(".cat")).map(|(_, bytes)| bytes) {
        for _ in 0..2000 {
            let mut changed = bytes.clone();
            for _ in 0..=random(3) {
                let at = random(changed.len());
                changed[at] = u8::try_from(random(256)).unwrap();
            }
            changed.truncate(changed.len() - random(2) * random(bytes.len()));
            read += usize::from(Catalog::parse(&changed).is_ok_and(|catalog| catalog.signer.is_some()));
        }
    }
    println!("{read} of 8000 still have a signer");
    assert!(read > 0 && read < 8000);
}

/// What OpenSSL says of a file.
fn openssl(arguments: &[&str], input: &[u8]) -> String {
    let mut child =
        Command::new("openssl").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn device_ids(inf: &Inf) -> BTreeSet<String> {
    let releases =
        [Architecture::X86, Architecture::Amd64].map(|architecture| Release::parse("7", architecture).unwrap());
    let models = releases.iter().flat_map(|release| inf.models_for(release).unwrap()).flat_map(|models| models.models);
    let ids = models.flat_map(|model| [vec![model.hardware_id], model.compatible_ids].concat());
    ids.map(|id| id.to_lowercase()).collect()
}

/// What virtio-win's builds stamp into a folder's files (`Driver.Common.props` of its releases): lowest version, first
/// number of the driver's version, folder of the program. Which build goes into which folder is from its packaging.
fn stamp_of(folder: &str) -> Option<(&'static str, u16, &'static str)> {
    Some(match folder {
        "w7" | "2k8r2" | "win7" | "win2008r2" => ("6.1", 61, "12"),
        "w8" | "2k12" | "win8" | "win2012" => ("6.2", 62, "12"),
        "w8.1" | "2k12r2" | "win8.1" | "win2012r2" => ("6.3", 63, "12"),
        "w10" | "2k16" | "2k19" | "2k22" | "win10" | "win2016" | "win2019" | "win2022" => ("10.0", 100, "12"),
        "w11" | "2k25" | "win11" | "win2025" => ("10.0...16299", 100, "13"),
        _ => return None,
    })
}

/// Each release of the listings, and the builds whose folders it has there.
const RELEASES: &[(&str, &[&str])] = &[
    ("xp", &[]),
    ("2003", &[]),
    ("vista", &[]),
    ("2008", &[]),
    ("7", &["6.1"]),
    ("2008r2", &["6.1"]),
    ("8", &["6.2"]),
    ("2012", &["6.2"]),
    ("8.1", &["6.3"]),
    ("2012r2", &["6.3"]),
    ("10.0.10240", &["10.0"]),
    ("2016", &["10.0"]),
    // From 16299 on both builds name the release, with one version and date: Windows takes either.
    ("10", &["10.0", "10.0...16299"]),
    ("2019", &["10.0", "10.0...16299"]),
    ("2022", &["10.0", "10.0...16299"]),
    ("11", &["10.0", "10.0...16299"]),
    ("2025", &["10.0", "10.0...16299"]),
];

#[test]
fn the_driver_for_each_release_is_one_that_virtio_win_lists_for_it() {
    let Some(files) = group() else { return };
    let text = |path: &str| String::from_utf8_lossy(&files[path]).into_owned();
    let templates = [
        (
            "viostor",
            text("kvm-guest-drivers-windows/viostor/viostor.inx"),
            "PCI\\VEN_1AF4&DEV_1001&SUBSYS_00021AF4&REV_00",
        ),
        (
            "vioscsi",
            text("kvm-guest-drivers-windows/vioscsi/vioscsi.inx"),
            "PCI\\VEN_1AF4&DEV_1048&SUBSYS_11001AF4&REV_01",
        ),
        (
            "netkvm",
            text("kvm-guest-drivers-windows/NetKVM/netkvm-base.txt"),
            "PCI\\VEN_1AF4&DEV_1041&SUBSYS_11001AF4&REV_01",
        ),
    ];
    let mut chosen = 0;
    for listing in ["virt-v2v/virtio-win-iso-list.txt", "virt-v2v/virtio-win-drivers-list.txt"] {
        let listing = text(listing);
        for (driver, template, id) in &templates {
            let device = Device::from_id(id);
            let infs = listing.lines().filter(|line| line.to_lowercase().ends_with(&format!("/{driver}.inf")));
            let mut packages = Vec::new();
            for path in infs {
                let names: Vec<String> = path.split('/').map(str::to_lowercase).collect();
                let stamp = names.iter().find_map(|name| stamp_of(name)).unwrap_or_else(|| panic!("{path}"));
                let is_x86 = names.iter().any(|name| name == "x86" || name == "i386");
                let decoration = format!("NT{}.{}", if is_x86 { "x86" } else { "amd64" }, stamp.0);
                let inf = stamped(template, stamp.2).replace("NT$ARCH$", &decoration);
                let version = format!("DriverVer=07/22/2026,{}.6.101.58000 ; ", stamp.1);
                packages.push((
                    path,
                    stamp.0,
                    is_x86,
                    Inf::parse(inf.replace("DriverVer=", &version).as_bytes()).unwrap(),
                ));
            }
            assert!(packages.len() > 10, "{driver}: {}", packages.len());
            for architecture in [Architecture::X86, Architecture::Amd64] {
                for (release, builds) in RELEASES {
                    let release = Release::parse(release, architecture).unwrap();
                    let found = packages.iter().filter_map(|(path, build, is_x86, inf)| {
                        let found = matches(inf, None, &device, &release).unwrap()?;
                        Some(Candidate { driver: (*path, *build, *is_x86), found })
                    });
                    let Some(first) = best(found.collect()).into_iter().next() else {
                        // No listing has drivers for 32-bit servers or for releases before 7.
                        assert!(builds.is_empty() || architecture == Architecture::X86, "{driver}: none for {release}");
                        continue;
                    };
                    let (path, build, is_x86) = first.driver;
                    assert!(builds.contains(&build), "{driver}: {path} for {release}");
                    assert_eq!(is_x86, architecture == Architecture::X86, "{driver}: {path} for {release}");
                    assert_eq!(
                        (first.found.ranking.rank(), first.found.identifier),
                        (0xff_0000, Identifier::Hardware),
                        "{path}"
                    );
                    chosen += 1;
                }
            }
        }
    }
    println!("{chosen} drivers chosen");
    assert!(chosen > 100, "{chosen}");
}

#[test]
fn a_virtio_package_is_loaded_with_what_it_names_and_says_what_is_wrong() {
    let Some(files) = group() else { return };
    let template = String::from_utf8_lossy(&files["kvm-guest-drivers-windows/viostor/viostor.inx"]).into_owned();
    let inf = stamped(&template, "13").replace("NT$ARCH$", "NTamd64.10.0...16299");
    let tree = MemoryTree::new().with("/w11/amd64/viostor.inf", inf.as_bytes()).with("/w11/amd64/VIOSTOR.SYS", "MZ");
    let package = Package::load(&tree, "/w11/amd64/viostor.inf").unwrap();
    let paths: Vec<(&str, &str)> = package.files.iter().map(|file| (file.path.as_str(), file.found.as_str())).collect();
    assert_eq!(paths, [("viostor.inf", "/w11/amd64/viostor.inf"), ("viostor.sys", "/w11/amd64/VIOSTOR.SYS")]);
    assert_eq!(package.problems, [Problem::Missing { file: "viostor.cat".into() }]);
    let release = Release { product: Product::Server, ..Release::parse("2025", Architecture::Amd64).unwrap() };
    let installation = package.inf.installation("scsi_inst", &release).unwrap();
    let service = installation.service().unwrap();
    assert_eq!(
        (service.name.as_str(), service.start, service.binary.directory),
        ("viostor", StartType::Boot, Some(13))
    );
    assert!(Package::load(&MemoryTree::new().with("/x.inf", "[Version]\nSignature=$Chicago$\n"), "/x.inf").is_err());
}
