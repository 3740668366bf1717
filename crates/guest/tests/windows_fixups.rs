//! Fix-ups of real Windows registries: what changes, against golden files; applied twice, taken back, refused; and what they
//! write for drivers of Windows, against what Windows wrote.
#![allow(clippy::unwrap_used)]

mod support;
mod virtio;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use guest::windows::hive::{Data, Filetime, Hive, Severity, Unfinished, file};
use guest::windows::{Additions, Architecture, plan, reg_text};
use guest::{Change, Direction, FileTree, MemoryTree, Plan, RegistryChange, State, apply, registration};
use machine::{DiskBus, Firmware, FirmwareKind, HypervInterfaces, Machine, NicModel};
use support::{keys, test_data, unpack, values};
use windows::{SAMPLES, Sample, additions, virtio_library};

const SYSTEM: &str = "/system/Windows/System32/config/SYSTEM";
const SOFTWARE: &str = "/system/Windows/System32/config/SOFTWARE";

fn planned(tree: &MemoryTree, refused: &[String], library: &Path) -> Option<Plan> {
    let additions = additions(virtio_library(library)?);
    Some(plan(tree, &Machine::default(), refused, &additions).unwrap())
}

/// Keys with their values, by lower-case path.
type Contents = BTreeMap<Vec<String>, BTreeMap<String, Data>>;

fn contents(hive: &Hive) -> Contents {
    keys(hive).into_iter().map(|(path, key)| (path, values(&key))).collect()
}

fn load(tree: &MemoryTree, path: &str) -> Hive {
    file::open(tree, path, Unfinished::Refuse).unwrap()
}

fn changes_of<'p>(plan: &'p Plan, path: &str) -> Vec<&'p RegistryChange> {
    let all = plan.fixups.iter().flat_map(|fixup| &fixup.changes);
    let of_hive = all.filter_map(|change| match change {
        Change::Registry { path: own, changes, .. } if own == path => Some(changes),
        _ => None,
    });
    of_hive.flatten().collect()
}

#[test]
fn the_fix_ups_of_each_release_are_those_of_its_golden_file() {
    let Some(data) = test_data() else { return };
    for sample in &SAMPLES {
        let folder = tempfile::tempdir().unwrap();
        let Some(plan) = planned(&sample.tree(&data), &[], folder.path()) else { return };
        // The digests of packages' folders are those of INF files of the test data.
        let capabilities = &plan.capabilities;
        let shown = format!(
            "{plan}disks on {:?}, network adapter {:?}, {:?}, clock in {}, Hyper-V {:?}\n",
            capabilities.disk_bus,
            capabilities.nic_model,
            capabilities.firmware,
            if capabilities.clock_utc { "UTC" } else { "local time" },
            capabilities.hyperv,
        );
        assert_eq!((capabilities.secure_boot, capabilities.tpm), (Some(false), false));
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/fixups-{}.txt", sample.name));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &shown).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap();
        let first = shown.lines().zip(expected.lines()).find(|(shown, expected)| shown != expected);
        assert!(shown == expected, "{}: first difference: {first:?}", sample.name);
        println!("{}: {} lines as in the golden file", sample.name, shown.lines().count());
    }
}

#[test]
fn applied_fix_ups_are_made_once_and_leave_sound_hives() {
    let Some(data) = test_data() else { return };
    for sample in &SAMPLES {
        let folder = tempfile::tempdir().unwrap();
        let mut tree = sample.tree(&data);
        let Some(first) = planned(&tree, &[], folder.path()) else { return };
        let outcomes = apply(&first, &[], &mut tree);
        assert_eq!(outcomes.len(), first.fixups.len());
        for (outcome, fixup) in outcomes.iter().zip(&first.fixups) {
            let expected = if fixup.already_so { State::AlreadySo } else { State::Done };
            assert_eq!((outcome.state, outcome.detail.as_str()), (expected, ""), "{}: {}", sample.name, fixup.id);
        }
        for path in [SYSTEM, SOFTWARE] {
            let damage: Vec<String> = load(&tree, path)
                .check()
                .findings
                .iter()
                .filter(|finding| finding.severity == Severity::Damage)
                .map(ToString::to_string)
                .collect();
            assert_eq!(damage, Vec::<String>::new(), "{}: {path}", sample.name);
        }
        let after = tree.clone();
        let again = apply(&first, &[], &mut tree);
        assert!(again.iter().all(|outcome| outcome.state == State::AlreadySo), "{}: {again:?}", sample.name);
        assert!(tree == after, "{}: nothing is written the second time", sample.name);
        // And a plan of the changed guest has nothing left to do.
        let second = planned(&tree, &[], &folder.path().join("again")).unwrap();
        let left: Vec<&str> =
            second.fixups.iter().filter(|fixup| !fixup.already_so).map(|fixup| fixup.id.as_str()).collect();
        assert_eq!(left, Vec::<&str>::new(), "{}: {second}", sample.name);
        assert_eq!(second.capabilities, first.capabilities, "{}", sample.name);
    }
}

#[test]
fn what_was_changed_in_the_registry_can_be_taken_back() {
    let Some(data) = test_data() else { return };
    for sample in &SAMPLES {
        let folder = tempfile::tempdir().unwrap();
        let mut tree = sample.tree(&data);
        let Some(plan) = planned(&tree, &[], folder.path()) else { return };
        let before = [SYSTEM, SOFTWARE].map(|path| contents(&load(&tree, path)));
        apply(&plan, &[], &mut tree);
        for (path, before) in [SYSTEM, SOFTWARE].iter().zip(before) {
            let prefix = reg_text::usual_prefix(path.rsplit('/').next().unwrap());
            let changes: Vec<RegistryChange> = changes_of(&plan, path).into_iter().cloned().collect();
            let mut hive = load(&tree, path);
            assert!(contents(&hive) != before || changes.is_empty());
            let text = registration(&changes, &prefix, Direction::Back);
            let mut edit = hive.edit(Filetime::now()).unwrap();
            reg_text::merge(&mut edit, &reg_text::parse(text.as_bytes()).unwrap(), &prefix).unwrap();
            edit.commit().unwrap();
            let after = contents(&hive);
            let differs: Vec<_> = before.iter().filter(|(key, values)| after.get(*key) != Some(values)).collect();
            assert!(differs.is_empty() && after.len() == before.len(), "{}: {path}: {differs:?}", sample.name);
            // The same file forth again is the same change.
            let text = registration(&changes, &prefix, Direction::Forth);
            let mut edit = hive.edit(Filetime::now()).unwrap();
            reg_text::merge(&mut edit, &reg_text::parse(text.as_bytes()).unwrap(), &prefix).unwrap();
            edit.commit().unwrap();
            assert!(contents(&hive) == contents(&load(&tree, path)), "{}: {path}", sample.name);
            println!("{}: {path}: {} changes forth and back", sample.name, changes.len());
        }
    }
}

#[test]
fn no_two_fix_ups_change_the_same_value_so_that_each_can_be_refused() {
    let Some(data) = test_data() else { return };
    for sample in &SAMPLES {
        let folder = tempfile::tempdir().unwrap();
        let Some(all) = planned(&sample.tree(&data), &[], folder.path()) else { return };
        let mut seen = BTreeSet::new();
        for path in [SYSTEM, SOFTWARE] {
            for change in changes_of(&all, path) {
                if let RegistryChange::Value { key, name, .. } = change {
                    assert!(seen.insert((path, key.to_lowercase(), name.to_lowercase())), "{key} {name}");
                }
            }
        }
        for fixup in &all.fixups {
            let mut tree = sample.tree(&data);
            let refused = [fixup.id.clone()];
            let plan = planned(&tree, &refused, &folder.path().join(&fixup.id)).unwrap();
            let failed: Vec<_> = apply(&plan, &refused, &mut tree)
                .into_iter()
                .filter(|outcome| matches!(outcome.state, State::Failed | State::NoRoom))
                .collect();
            assert_eq!(failed, [], "{}", sample.name);
        }
    }
}

#[test]
fn a_guest_without_its_drivers_library_starts_from_what_windows_has_itself() {
    let Some(data) = test_data() else { return };
    let machine = Machine::default();
    let buses = SAMPLES.each_ref().map(|sample| {
        let plan = plan(&sample.tree(&data), &machine, &[], &Additions::default()).unwrap();
        (plan.capabilities.disk_bus, plan.capabilities.nic_model, plan.capabilities.firmware)
    });
    let bios = FirmwareKind::Bios;
    assert_eq!(
        buses,
        [
            (DiskBus::Ide, NicModel::Rtl8139, bios),
            (DiskBus::Sata, NicModel::E1000, bios),
            (DiskBus::Sata, NicModel::E1000e, bios)
        ]
    );
}

/// An EFI program for x86-64 with a certificate table that holds `names` ("PE Format": the fifth data directory).
fn signed_program(names: &str) -> Vec<u8> {
    let (optional, directories) = (0x58, 0x58 + 112);
    let mut bytes = support::program(Architecture::Amd64, "");
    bytes.resize(optional, 0);
    bytes.extend([0x0b, 0x02]);
    bytes.resize(directories + 16 * 8, 0);
    let (start, length) = (u32::try_from(bytes.len()).unwrap(), u32::try_from(names.len()).unwrap());
    bytes[directories + 32..directories + 36].copy_from_slice(&start.to_le_bytes());
    bytes[directories + 36..directories + 40].copy_from_slice(&length.to_le_bytes());
    [bytes, names.as_bytes().to_vec()].concat()
}

#[test]
fn a_windows_11_wants_a_tpm_and_is_started_securely_where_nothing_would_be_refused() {
    let Some(data) = test_data() else { return };
    let sample = SAMPLES[2].as_release("11");
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = virtio_library(folder.path()) else { return };
    let firmware = Firmware { kind: FirmwareKind::Uefi, secure_boot: Some(true), ..Firmware::default() };
    let machine = Machine { firmware, ..Machine::default() };
    let microsofts = "Microsoft Windows Production PCA 2011";
    for (signer, additions, expected, said) in [
        (microsofts, Additions::default(), true, ""),
        ("Windows UEFI CA 2023", Additions::default(), true, "Windows UEFI CA 2023 alone"),
        ("Example Ltd", Additions::default(), false, "its boot manager is not signed by Microsoft"),
        // The library's packages have no catalogs.
        (microsofts, additions(library), false, "the library's drivers viostor.inf"),
    ] {
        let tree = sample.tree(&data).with("/boot/EFI/Microsoft/Boot/bootmgfw.efi", signed_program(signer));
        let plan = plan(&tree, &machine, &[], &additions).unwrap();
        let wanted = (plan.capabilities.secure_boot, plan.capabilities.tpm, plan.capabilities.hyperv);
        assert_eq!(wanted, (Some(expected), true, HypervInterfaces::Full), "{signer}");
        let told = plan.warnings.iter().find(|warning| warning.contains("Secure Boot"));
        println!("{signer}: {told:?}");
        assert!(told.map_or("", String::as_str).contains(said) && told.is_some() != said.is_empty(), "{told:?}");
    }
    // What the source's firmware says of itself goes before what Windows wrote at its last start, and both before the release.
    let off = Machine { firmware: Firmware { secure_boot: Some(false), ..machine.firmware.clone() }, ..machine };
    let plan = plan(&sample.tree(&data), &off, &[], &Additions::default()).unwrap();
    assert_eq!((plan.capabilities.secure_boot, plan.capabilities.tpm), (Some(false), true));
}

/// The plan for a guest, and the ids of what it leaves out for want of room.
fn with_room(tree: &MemoryTree, machine: &Machine, library: &Path) -> Option<(Plan, Vec<String>)> {
    let plan = plan(tree, machine, &[], &additions(virtio_library(library)?)).unwrap();
    let left_out = plan.fixups.iter().filter(|fixup| fixup.no_room).map(|fixup| fixup.id.clone()).collect();
    Some((plan, left_out))
}

#[test]
fn what_windows_starts_without_is_left_out_where_its_volume_is_nearly_full() {
    let Some(data) = test_data() else { return };
    let sample = &SAMPLES[2];
    let folder = tempfile::tempdir().unwrap();
    let (tree, machine) = (sample.tree(&data), Machine::default());
    let ample = tree.clone().with_room_below("/system", 1 << 40);
    let Some((all, left_out)) = with_room(&ample, &machine, &folder.path().join("all")) else { return };
    assert_eq!(left_out, Vec::<String>::new(), "{all}");
    let needed = all.room[0].needed;
    let hives = [SYSTEM, SOFTWARE].map(|path| tree.metadata(path).unwrap().unwrap().size);
    println!("{}, hives of {hives:?}", all.room[0]);
    assert!(needed.0 > *hives.iter().max().unwrap(), "a hive is there twice while it is replaced");
    assert_eq!(all.room[0].place, "/system");

    let mut tight = tree.clone().with_room_below("/system", needed.0 - 1);
    let (plan, left_out) = with_room(&tight, &machine, &folder.path().join("tight")).unwrap();
    println!("{}", plan.warnings.last().unwrap());
    assert_eq!(left_out, ["staged-drivers"], "{plan}");
    assert!(plan.warnings.last().unwrap().starts_with("the guest has no room for all fix-ups (/system: "));
    // The disk has its driver, the network adapter has not; the first boot installs nothing that is not there.
    assert_eq!((plan.capabilities.disk_bus, plan.capabilities.nic_model), (DiskBus::Virtio, NicModel::E1000e));
    for outcome in apply(&plan, &[], &mut tight) {
        let is_left_out = outcome.id == "staged-drivers";
        assert_eq!(outcome.state == State::Refused, is_left_out, "{outcome:?}");
        assert!(!matches!(outcome.state, State::Failed | State::NoRoom), "{outcome:?}");
    }
    let file = format!("/system{}/{}", machine::firstboot::FOLDER, machine::firstboot::PLAN_FILE);
    let first: machine::firstboot::Plan = serde_json::from_str(&tight.text(&file).unwrap().unwrap()).unwrap();
    assert!(first.drivers.is_empty() && first.publishers.is_empty() && first.scaffolding.device_paths.is_empty());

    // Where not even a second copy of a hive fits, the hive stays as it is, and Windows has what it has.
    let mut full = tree.with_room_below("/system", hives[0] / 2);
    let (plan, left_out) = with_room(&full, &machine, &folder.path().join("full")).unwrap();
    println!("left out: {left_out:?}");
    assert!(["boot-drivers", "first-boot", "stop-codes"].iter().all(|id| left_out.iter().any(|left| left == id)));
    assert_eq!(plan.capabilities.disk_bus, DiskBus::Sata);
    let before = full.read(SYSTEM, u64::MAX).unwrap();
    assert!(apply(&plan, &[], &mut full).iter().all(|outcome| !matches!(outcome.state, State::Failed | State::NoRoom)));
    assert!(full.read(SYSTEM, u64::MAX).unwrap() == before);
}

#[test]
fn a_system_hive_at_the_limit_of_its_release_does_not_grow_beyond_it() {
    let Some(data) = test_data() else { return };
    let sample = &SAMPLES[2];
    let folder = tempfile::tempdir().unwrap();
    let tree = sample.tree(&data);
    let size = tree.metadata(SYSTEM).unwrap().unwrap().size;
    // Half of the memory is the limit of x64.
    let machine = |limit: u64| Machine { memory: machine::ByteCount(limit * 2), ..Machine::default() };
    let plan_at = |limit: u64| with_room(&tree, &machine(limit), &folder.path().join(limit.to_string()));
    let Some((roomy, left_out)) = plan_at(size + (1 << 20)) else { return };
    assert_eq!(left_out, Vec::<String>::new());
    let grows: u64 = roomy
        .fixups
        .iter()
        .flat_map(|fixup| &fixup.changes)
        .map(|change| match change {
            Change::Registry { path, grows, .. } if path == SYSTEM => *grows,
            _ => 0,
        })
        .sum();
    println!("{size} bytes, and {grows} more");
    assert!(grows > 0);
    assert_eq!(plan_at(size + grows).unwrap().1, Vec::<String>::new());
    let (plan, left_out) = plan_at(size + grows - 1).unwrap();
    println!("{}", plan.warnings.last().unwrap());
    assert!(
        !left_out.is_empty()
            && plan.warnings.last().unwrap().contains("Windows 10 (10.0.19041, amd64) with this memory"),
        "{left_out:?} {plan}"
    );
    let mut changed = tree.clone();
    apply(&plan, &[], &mut changed);
    assert!(changed.metadata(SYSTEM).unwrap().unwrap().size < size + grows);
    // One that Windows starts with although it is longer is no reason to leave anything out.
    assert_eq!(plan_at(size - 1).unwrap().1, Vec::<String>::new());
}

#[test]
fn a_hive_that_changed_since_the_plan_is_left_alone() {
    let Some(data) = test_data() else { return };
    let sample = &SAMPLES[1];
    let folder = tempfile::tempdir().unwrap();
    let mut tree = sample.tree(&data);
    let Some(plan) = planned(&tree, &[], folder.path()) else { return };
    let mut hive = load(&tree, SYSTEM);
    let mut edit = hive.edit(Filetime::now()).unwrap();
    edit.set_value("ControlSet001\\Services\\msahci", "Start", &Data::of_dword(2)).unwrap();
    edit.commit().unwrap();
    file::write(&mut tree, SYSTEM, &mut hive, Filetime::now()).unwrap();
    let before = tree.read(SYSTEM, u64::MAX).unwrap();
    let outcomes = apply(&plan, &[], &mut tree);
    let failed = outcomes.last().unwrap();
    println!("{}", failed.detail);
    assert_eq!((failed.id.as_str(), failed.state), ("boot-drivers", State::Failed));
    assert!(failed.detail.contains("msahci") && failed.detail.contains("not what the plan was made for"));
    assert!(tree.read(SYSTEM, u64::MAX).unwrap() == before);
}

/// Deletes what Windows has of a driver, has the fix-up write it again, and says what is different from Windows' own.
fn rewritten(data: &Path, sample: &Sample, services: &[&str], devices: &[&str]) -> Vec<String> {
    let mut hive = support::hive(data, sample.system);
    let sets = hive.control_sets().unwrap();
    let before = contents(&hive);
    let mut edit = hive.edit(Filetime(1)).unwrap();
    let mut watched = Vec::new();
    for set in &sets {
        watched.extend(services.iter().map(|service| format!("{set}\\Services\\{service}")));
        let device = |id: &&str| format!("{set}\\Control\\CriticalDeviceDatabase\\{}", id.replace('\\', "#"));
        watched.extend(devices.iter().map(device));
    }
    for key in &watched {
        edit.delete_key(key.as_str()).unwrap();
    }
    edit.commit().unwrap();
    let mut tree = sample.tree_with(data, hive.to_file(Filetime(1)));
    let plan = plan(&tree, &Machine::default(), &[], &Additions::default()).unwrap();
    assert!(apply(&plan, &[], &mut tree).iter().all(|outcome| outcome.state != State::Failed));
    let after = contents(&load(&tree, SYSTEM));
    let is_watched = |path: &[String]| {
        let path = path.join("\\").to_lowercase();
        watched.iter().any(|key| {
            let key = key.to_lowercase();
            path == key || path.starts_with(&format!("{key}\\"))
        })
    };
    // Each control set is compared with itself; what is the same in all is told once.
    let told = |contents: &Contents| -> BTreeMap<(String, String), (String, Data)> {
        let mut told = BTreeMap::new();
        for (path, values) in contents.iter().filter(|(path, _)| is_watched(path)) {
            for (name, data) in values {
                let key = path.join("\\").to_lowercase();
                told.insert((key, name.to_lowercase()), (format!("{} {name}", path[1..].join("\\")), data.clone()));
            }
        }
        told
    };
    let (before, after) = (told(&before), told(&after));
    let mut differences = BTreeSet::new();
    for (key, (name, old)) in &before {
        match after.get(key) {
            Some((_, new)) if is_same(name, old, new) => {}
            Some((_, new)) => {
                differences.insert(format!("{name}: {} instead of {}", shown(new), shown(old)));
            }
            None => {
                differences.insert(format!("{name}: {} is not written", shown(old)));
            }
        }
    }
    for (_, (name, new)) in after.iter().filter(|(key, _)| !before.contains_key(*key)) {
        differences.insert(format!("{name}: {} is added", shown(new)));
    }
    println!("{}: {} values of Windows, {} differences", sample.name, before.len(), differences.len());
    differences.into_iter().collect()
}

/// Paths of programs are the same in each of their spellings.
fn is_same(name: &str, windows: &Data, ours: &Data) -> bool {
    let path =
        |data: &Data| data.text().map(|text| text.to_lowercase().trim_start_matches("\\systemroot\\").to_owned());
    windows == ours || name.ends_with(" ImagePath") && path(windows) == path(ours)
}

fn shown(data: &Data) -> String {
    let text = data.text().or_else(|| data.texts().map(|texts| texts.join(", ")));
    let text = text.or_else(|| data.dword().map(|number| number.to_string()));
    let text = text.unwrap_or_else(|| reg_text::data_text(data));
    if text.chars().count() > 60 { format!("{}…", text.chars().take(60).collect::<String>()) } else { text }
}

#[test]
fn what_windows_wrote_for_its_own_drivers_is_written_again_and_each_difference_is_known() {
    let Some(data) = test_data() else { return };
    let cases: [(&Sample, &[&str], &[&str]); 3] = [
        (&SAMPLES[0], &["intelide"], &["PCI\\VEN_8086&DEV_7111"]),
        (&SAMPLES[1], &["intelide", "LSI_SAS", "msahci"], &["PCI\\CC_010601", "PCI\\VEN_1000&DEV_0054"]),
        (&SAMPLES[2], &["intelide", "LSI_SAS", "storahci"], &[]),
    ];
    let mut found = String::new();
    for (sample, services, devices) in cases {
        for difference in rewritten(&data, sample, services, devices) {
            found.push_str(&format!("{}: {difference}\n", sample.name));
        }
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/inbox-rewritten.txt");
    // Every line has its explanation behind it.
    let mut expected = String::new();
    for line in std::fs::read_to_string(&golden).unwrap().lines().filter(|line| !line.starts_with('#')) {
        let (difference, why) = line.split_once(" -- ").unwrap_or_else(|| panic!("{line}: no explanation"));
        assert!(why.len() > 20, "{line}");
        expected.push_str(&format!("{difference}\n"));
    }
    assert!(found == expected, "found:\n{found}expected:\n{expected}");
}

#[test]
fn a_dirty_hive_is_changed_after_its_logs_were_replayed_and_they_are_emptied() {
    let Some(data) = test_data() else { return };
    let name = "hives/SYSTEM-win10-1709-x64-dirty";
    let mut tree = SAMPLES[2].tree_with(&data, unpack(&data, name));
    for log in ["LOG1", "LOG2"] {
        tree = tree.with(&format!("{SYSTEM}.{log}"), unpack(&data, &format!("{name}.{log}")));
    }
    let replayed = contents(&load(&tree, SYSTEM));
    let folder = tempfile::tempdir().unwrap();
    let Some(plan) = planned(&tree, &[], folder.path()) else { return };
    assert!(apply(&plan, &[], &mut tree).iter().all(|outcome| outcome.state != State::Failed), "{plan}");
    assert_eq!(tree.read(&format!("{SYSTEM}.LOG1"), u64::MAX).unwrap().unwrap(), b"");
    let after = contents(&load(&tree, SYSTEM));
    let changed: BTreeSet<String> =
        changes_of(&plan, SYSTEM).iter().map(|change| change.key().to_lowercase()).collect();
    let lost: Vec<_> = replayed
        .iter()
        .filter(|(path, values)| !changed.contains(&path.join("\\").to_lowercase()) && after.get(*path) != Some(values))
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
    println!("{} keys after replay, {} changed", replayed.len(), changed.len());
}
