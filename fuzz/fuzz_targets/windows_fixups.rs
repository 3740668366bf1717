//! Any keys, and any changes of the hive that has them, as those of a Windows that is fixed up: planned, shown, applied, once
//! only, and taken back.
#![no_main]

use guest::windows::drivers::Hypervisor;
use guest::windows::hive::{Filetime, Hive, KeyPath, Unfinished, file};
use guest::windows::reg_text::{self, Encoding, Export, export};
use guest::windows::{Additions, Architecture, FirstBoot, Script, plan};
use guest::{Change, Direction, MemoryTree, Plan, RegistryChange, State, apply, registration};
use machine::Machine;

#[path = "../made_windows.rs"]
mod made_windows;

const HIVES: [&str; 2] = ["/system/Windows/System32/config/SYSTEM", "/system/Windows/System32/config/SOFTWARE"];

fn load(tree: &MemoryTree, path: &str) -> Hive {
    file::open(tree, path, Unfinished::Refuse).expect("it was read before")
}

/// Keys in order, each with its values by name.
fn contents(hive: &Hive) -> Vec<String> {
    let path = KeyPath::default();
    let how = Export { key: &path, prefix: &KeyPath::from("HKLM"), encoding: Encoding::Utf16, salvage: false };
    let mut text = Vec::new();
    let root = hive.root().expect("it was read before");
    export(hive, &root, &how, &mut text).expect("it is whole");
    let mut sections = reg_text::parse(&text).expect("it was written so");
    for section in &mut sections {
        if let reg_text::Change::Set(values) = &mut section.change {
            values.sort_by(|(one, _), (other, _)| one.compare(other));
        }
    }
    sections.iter().map(|section| format!("{} {:?}", section.key, section.change)).collect()
}

/// A program as far as its header goes.
fn program(architecture: Architecture) -> Vec<u8> {
    let mut program = vec![0; 0x40];
    program[..2].copy_from_slice(b"MZ");
    program[0x3c] = 0x40;
    program.extend(b"PE\0\0");
    program.extend(architecture.pe_machine().to_le_bytes());
    program
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(mut tree) = made_windows::made_windows(bytes, "/system") else { return };
    let script = Script { name: "10-hello.cmd".into(), contents: b"echo hello".to_vec(), timeout_s: 60 };
    let programs = FirstBoot::PROGRAMS.map(|(built, _)| (built, program(built))).into();
    let first_boot = FirstBoot { programs, nonce: "n".into(), scripts: vec![script] };
    // One of them, which is quicker than all; each comes with some inputs.
    let hypervisors = vec![Hypervisor::ALL[bytes.len() % Hypervisor::ALL.len()]];
    let additions = Additions { hypervisors, first_boot: Some(first_boot), ..Additions::default() };
    let Ok(planned) = plan(&tree, &Machine::default(), &[], &additions) else { return };
    let shown = planned.to_string();
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    let stored = serde_json::to_string(&planned).expect("it has no maps with odd keys");
    // Contents of files are not stored.
    let again = serde_json::from_str::<Plan>(&stored).expect("it was written so");
    assert_eq!(serde_json::to_string(&again).ok(), Some(stored));
    let before = tree.clone();
    let first = apply(&planned, &[], &mut tree);
    // A hive that was damaged on purpose may have no room, or be refused; it is thrown away then.
    if first.iter().any(|outcome| !matches!(outcome.state, State::Done | State::AlreadySo)) {
        return;
    }
    let second = apply(&planned, &[], &mut tree);
    assert!(second.iter().all(|outcome| outcome.state == State::AlreadySo), "{first:?}\n{second:?}");
    for path in HIVES {
        let prefix = reg_text::usual_prefix(path.rsplit('/').next().unwrap_or_default());
        let changes = planned.fixups.iter().flat_map(|fixup| &fixup.changes);
        let of_hive: Vec<RegistryChange> = changes
            .filter_map(|change| match change {
                Change::Registry { path: own, changes, .. } if own == path => Some(changes.clone()),
                _ => None,
            })
            .flatten()
            .collect();
        let (original, mut hive) = (load(&before, path), load(&tree, path));
        if !original.check().is_whole() {
            continue;
        }
        assert!(hive.check().is_whole(), "{:?}", hive.check());
        let back = registration(&of_hive, &prefix, Direction::Back);
        let sections = reg_text::parse(back.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{back}"));
        let mut edit = hive.edit(Filetime(1)).expect("it was edited before");
        reg_text::merge(&mut edit, &sections, &prefix).unwrap_or_else(|error| panic!("{error}\n{back}"));
        edit.commit().unwrap_or_else(|error| panic!("{error}\n{back}"));
        let (was, is) = (contents(&original), contents(&hive));
        let first = was.iter().zip(&is).find(|(was, is)| was != is);
        assert!(was == is, "{back}\n{} keys and {}, the first that differs: {first:?}", was.len(), is.len());
    }
});
