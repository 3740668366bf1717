//! What `boot.ini` means for a conversion; it is read by [`boot_ini`](crate::windows::boot_ini).
//!
//! Source: Microsoft, KB 102873, "BOOT.INI and ARC Path Naming Conventions and Usage", and "Boot INI Options Reference".

use machine::Note;

use crate::windows::boot_ini::{Adapter, BootIni, Entry};

/// Options that are right on one machine alone, and what they mean. `/noexecute`, `/fastdetect`, `/usepmtimer`, `/PAE` and their
/// like do no harm in a VM.
const OPTIONS: [(&str, &str); 8] = [
    (
        "3GB",
        "programs have 3 GiB and the kernel 1 GiB: drivers of the VM's hardware may find no room, then start without it",
    ),
    ("USERVA", "programs have more than 2 GiB, the kernel less: drivers of the VM's hardware may find no room"),
    ("HAL", "this HAL is loaded whatever the hardware is: it must suit the VM"),
    ("KERNEL", "this kernel is loaded: it must suit the HAL and the VM's processors"),
    ("PCILOCK", "addresses of PCI devices stay as the old BIOS gave them: the VM's devices may not work"),
    ("NUMPROC", "no more processors of the VM are used"),
    ("ONECPU", "one processor of the VM is used, however many it has"),
    ("MAXMEM", "no more memory of the VM is used"),
];

/// What an operator should know of entries that a VM's BIOS does not reach as the source's did, and of options.
pub(super) fn notes(ini: &BootIni) -> Vec<Note> {
    let started = ini.default_entry();
    let mut notes = Vec::new();
    for entry in &ini.entries {
        let is_started = started == Some(entry);
        let note = |what: String, meaning: &str| match is_started {
            true => Note::warning(what, meaning),
            false => Note::info(what, meaning),
        };
        notes.extend(place(entry).map(|(what, meaning)| note(what, meaning)));
        if is_started {
            notes.extend(options(entry));
        }
    }
    notes
}

/// How the loader reaches an entry, if that is another way than the first disk of the BIOS.
fn place(entry: &Entry) -> Option<(String, &'static str)> {
    let arc = entry.arc.as_ref()?;
    let meaning = match arc.adapter {
        Adapter::Scsi { .. } | Adapter::Signature { .. } => {
            "it is read by NTBOOTDD.SYS, a driver of the old SCSI adapter: write multi() there, which reads it by the BIOS"
        }
        Adapter::Multi { .. } if arc.rdisk > 0 => {
            "the VM must have the disks in the order in which the old BIOS had them, all of those before this one among them"
        }
        Adapter::Multi { .. } => return None,
    };
    Some((format!("boot.ini: {arc}"), meaning))
}

fn options(entry: &Entry) -> impl Iterator<Item = Note> + '_ {
    entry.options.iter().filter_map(|option| {
        let name = option.trim_start_matches('/').split(['=', ':']).next()?;
        let (_, meaning) = OPTIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(Note::warning(format!("boot.ini: {}", option.to_ascii_lowercase()), *meaning))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let notes = notes(&BootIni::parse(text.as_bytes()).unwrap());
        notes.iter().map(|note| format!("{note}").split(": ").take(3).collect::<Vec<_>>().join(": ")).collect()
    }

    #[test]
    fn entries_that_a_vms_bios_reaches_otherwise_are_told_and_what_is_started_weighs_more() {
        let first = "multi(0)disk(0)rdisk(0)partition(1)\\WINDOWS=\"XP\" /noexecute=optin /fastdetect /usepmtimer\n";
        let second = "multi(0)disk(0)rdisk(1)partition(2)\\WINNT=\"2000\" /fastdetect /3GB\n";
        let scsi = "scsi(1)disk(2)rdisk(0)partition(1)\\WINNT=\"NT\"\nC:\\CMDCONS\\BOOTSECT.DAT=\"Console\" /cmdcons\n";
        let head = "[boot loader]\ntimeout=3\n[operating systems]\n";
        assert_eq!(told(&format!("{head}{first}")), Vec::<String>::new());
        let all = told(&format!("{head}{first}{second}{scsi}"));
        assert_eq!(
            all,
            [
                "info: boot.ini: multi(0)disk(0)rdisk(1)partition(2)\\WINNT",
                "info: boot.ini: scsi(1)disk(2)rdisk(0)partition(1)\\WINNT"
            ]
        );
        let all = told(&format!("{head}{second}{first}"));
        assert_eq!(all, ["warning: boot.ini: multi(0)disk(0)rdisk(1)partition(2)\\WINNT", "warning: boot.ini: /3gb"]);
        assert_eq!(
            told(&format!("{head}{}", first.replace("/usepmtimer", "/HAL=hal1.dll"))),
            ["warning: boot.ini: /hal=hal1.dll"]
        );
    }
}
