//! The programs, of 64 and of 32 bits, import only what Windows 7 and Server 2008 R2 have: `windows7.txt` is the list, with the release that each
//! function came with.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

/// What a program says of itself.
struct Program {
    /// Machine type.
    machine: u16,
    /// The functions that it imports, as `dll function`.
    imports: BTreeSet<String>,
    /// The version of Windows that its header asks for.
    subsystem: (u16, u16),
}

/// "PE Format" (Microsoft Learn), sections "Optional Header", "The .idata Section"; the program is our own.
fn parse(bytes: &[u8]) -> Program {
    let u16_at = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let header = u32_at(0x3c);
    assert_eq!(&bytes[header..header + 4], b"PE\0\0");
    let machine = u16_at(header + 4);
    let optional = header + 24;
    // PE32 or PE32+: where the directories are, and how long an address is.
    let (directories, address_bytes) = match u16_at(optional) {
        0x10b => (optional + 96, 4),
        0x20b => (optional + 112, 8),
        other => panic!("optional header 0x{other:x}"),
    };
    let sections = optional + usize::from(u16_at(header + 20));
    let place = |address: usize| {
        let section = (0..usize::from(u16_at(header + 6))).map(|number| sections + number * 40);
        let mut section = section.filter(|at| (u32_at(at + 12)..u32_at(at + 12) + u32_at(at + 16)).contains(&address));
        let at = section.next().unwrap_or_else(|| panic!("no section holds {address:#x}"));
        address - u32_at(at + 12) + u32_at(at + 20)
    };
    let text = |address: usize| {
        let bytes = &bytes[place(address)..];
        String::from_utf8(bytes[..bytes.iter().position(|byte| *byte == 0).unwrap()].to_vec()).unwrap()
    };
    assert_eq!(u32_at(directories + 13 * 8), 0, "no imports that are loaded late");
    let mut found = BTreeSet::new();
    let mut directory = place(u32_at(directories + 8));
    while u32_at(directory + 12) != 0 {
        let dll = text(u32_at(directory + 12)).to_ascii_lowercase();
        let mut entry = place(u32_at(directory));
        while bytes[entry..entry + address_bytes].iter().any(|byte| *byte != 0) {
            assert_eq!(bytes[entry + address_bytes - 1] >> 7, 0, "{dll}: a function by number");
            found.insert(format!("{dll} {}", text(u32_at(entry) + 2)));
            entry += address_bytes;
        }
        directory += 20;
    }
    Program { machine, imports: found, subsystem: (u16_at(optional + 48), u16_at(optional + 50)) }
}

/// `windows7.txt`: release by `dll function`.
fn allowed() -> BTreeMap<String, &'static str> {
    let lines = include_str!("windows7.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let [release, dll, function] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
            assert!(["2000", "XP", "Vista", "7"].contains(&release), "{line}: no release up to Windows 7");
            (format!("{dll} {function}"), release)
        })
        .collect()
}

#[test]
fn each_program_imports_what_windows_7_has() {
    let allowed = allowed();
    let mut unused: BTreeSet<&String> = allowed.keys().collect();
    for build in support::BUILDS {
        let Program { machine, imports, subsystem } = parse(&std::fs::read(build.program()).unwrap());
        assert_eq!(machine, build.machine, "{}", build.triple);
        let foreign: Vec<&String> = imports.iter().filter(|import| !allowed.contains_key(*import)).collect();
        println!("{}: {} functions; asks for Windows {}.{}", build.triple, imports.len(), subsystem.0, subsystem.1);
        assert!(foreign.is_empty(), "{}: not in windows7.txt: {foreign:#?}", build.triple);
        assert!(
            imports.len() > 100 && imports.contains("cfgmgr32.dll CM_Get_DevNode_Status"),
            "the table was read: {imports:?}"
        );
        assert!(subsystem <= (6, 1), "{}: {subsystem:?}", build.triple);
        unused.retain(|function| !imports.contains(*function));
    }
    assert!(unused.is_empty(), "in windows7.txt, and imported by neither program: {unused:#?}");
}

#[test]
fn what_is_newer_is_not_in_the_list() {
    let allowed = allowed();
    // Windows 8 and later; the standard library of the ordinary target imports each of them.
    for newer in [
        "bcryptprimitives.dll ProcessPrng",
        "api-ms-win-core-synch-l1-2-0.dll WaitOnAddress",
        "kernel32.dll GetSystemTimePreciseAsFileTime",
    ] {
        assert!(!allowed.contains_key(newer), "{newer}");
    }
}
