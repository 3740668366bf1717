//! What a machine's serial output says of its boot: recognisers of texts that firmware, boot loaders, initramfs
//! generators, systemd and kernels are known to print.
//!
//! Evidence from inside the guest passes: the probe's line with the right nonce, or its own host name at a login prompt. A known
//! failure fails. Anything else is inconclusive: a screen that says nothing proves nothing.

use machine::firstboot::ReportLine;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::appliance::ProbeLine;

/// Text looked at, from its end: a guest may talk for hours.
const TEXT_MAX: usize = 1 << 20;

/// Longest line of the probe.
const LINE_MAX: usize = 16 << 10;

/// What the serial output proves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// The guest itself shows that it is up.
    Passed {
        /// What it showed.
        evidence: String,
    },
    /// A failure that is known.
    Failed {
        /// What it means, for the operator.
        meaning: String,
        /// The line that showed it.
        evidence: String,
    },
    /// Nothing that is known, yet.
    Inconclusive,
}

/// A text that means failure.
struct Sign {
    text: &'static str,
    meaning: &'static str,
}

const NO_BOOT_DEVICE: &str =
    "the firmware found no disk to boot from: boot sector, active partition or boot loader are missing or not read";
const NO_EFI_LOADER: &str = "the UEFI firmware found no boot loader: the EFI system partition has no fallback loader";
const GRUB_RESCUE: &str = "GRUB started and did not find its own files: its volume has another name or is not readable";
const GRUB_SHELL: &str = "GRUB started and found no configuration: it waits at its command line";
const EMERGENCY_INITRAMFS: &str = "the kernel started and its initramfs did not find the root filesystem: the disk driver is missing or the root's name is wrong";
const EMERGENCY_SYSTEMD: &str =
    "the system started and systemd went into emergency mode: a filesystem of fstab is missing or damaged";
const PANIC: &str = "the kernel stopped with a panic";
const PANIC_ROOT: &str =
    "the kernel could not mount its root filesystem: it has no driver for the disk or no initramfs";
const STOP: &str = "Windows stopped with a blue screen";
const STOP_BOOT_DEVICE: &str =
    "Windows cannot reach its system disk: the storage driver is missing or does not start at boot";
const WINDOWS_BOOT_MANAGER: &str =
    "the Windows boot manager cannot start Windows: its boot configuration points to another disk";

/// Signs by what is printed; the specific before the general.
const SIGNS: [Sign; 29] = [
    Sign { text: "VFS: Unable to mount root fs", meaning: PANIC_ROOT },
    Sign { text: "VFS: Cannot open root device", meaning: PANIC_ROOT },
    Sign { text: "No working init found", meaning: PANIC },
    Sign { text: "Kernel panic - not syncing", meaning: PANIC },
    Sign { text: "end Kernel panic", meaning: PANIC },
    Sign { text: "(initramfs)", meaning: EMERGENCY_INITRAMFS },
    Sign { text: "Gave up waiting for root", meaning: EMERGENCY_INITRAMFS },
    Sign { text: "Entering emergency mode. Exit the shell to continue", meaning: EMERGENCY_INITRAMFS },
    Sign { text: "dracut:/#", meaning: EMERGENCY_INITRAMFS },
    Sign { text: "You are in emergency mode", meaning: EMERGENCY_SYSTEMD },
    Sign { text: "Welcome to emergency mode", meaning: EMERGENCY_SYSTEMD },
    Sign { text: "Reached target emergency.target", meaning: EMERGENCY_SYSTEMD },
    Sign { text: "Reached target Emergency Mode", meaning: EMERGENCY_SYSTEMD },
    Sign { text: "You are in rescue mode", meaning: EMERGENCY_SYSTEMD },
    Sign { text: "grub rescue>", meaning: GRUB_RESCUE },
    Sign { text: "Entering rescue mode...", meaning: GRUB_RESCUE },
    Sign { text: "GRUB Hard Disk Error", meaning: GRUB_RESCUE },
    Sign { text: "grub>", meaning: GRUB_SHELL },
    Sign { text: "Minimal BASH-like line editing is supported", meaning: GRUB_SHELL },
    Sign { text: "No bootable device", meaning: NO_BOOT_DEVICE },
    Sign { text: "Operating system not found", meaning: NO_BOOT_DEVICE },
    Sign { text: "Missing operating system", meaning: NO_BOOT_DEVICE },
    Sign { text: "UEFI Interactive Shell", meaning: NO_EFI_LOADER },
    Sign { text: "No bootable option or device was found", meaning: NO_EFI_LOADER },
    Sign { text: "BdsDxe: No bootable option", meaning: NO_EFI_LOADER },
    Sign { text: "INACCESSIBLE_BOOT_DEVICE", meaning: STOP_BOOT_DEVICE },
    Sign { text: "INACCESSIBLE BOOT DEVICE", meaning: STOP_BOOT_DEVICE },
    Sign { text: "A problem has been detected and Windows has been shut down", meaning: STOP },
    Sign { text: "Windows failed to start", meaning: WINDOWS_BOOT_MANAGER },
];

const WAITING: Sign = Sign { text: "no limit)", meaning: EMERGENCY_INITRAMFS };

/// What initramfs-tools, dracut, systemd and GRUB say before they give up.
const COMPLAINTS: [&str; 5] = ["ALERT!", "does not exist", "Timed out waiting", "Dependency failed for", "error: "];

/// How far before a prompt its complaint is looked for.
const COMPLAINT_LINES: usize = 20;

/// What `text`, the serial output of a machine so far, proves of the guest whose name is `hostname`.
pub fn classify(text: &str, hostname: &str) -> Verdict {
    let text = printable(tail(text));
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // A login prompt after a failure means that the guest recovered; a failure after a login prompt that it did not.
    let login = lines.iter().rposition(|line| is_login_prompt(line, hostname));
    let failure = lines.iter().enumerate().rev().find_map(|(at, line)| {
        let sign = SIGNS.iter().find(|sign| line.contains(sign.text))?;
        Some((at, sign))
    });
    // A line that is being printed is not looked at: it would be another one at each look.
    let complete = text.rfind('\n').map_or("", |end| &text[..end]).trim_end();
    let last = complete.rsplit('\n').next().unwrap_or_default().trim();
    let waiting = lines.iter().rposition(|line| *line == last && waits_for_a_device(line)).map(|at| (at, &WAITING));
    let failure = waiting.or(failure);
    match (login, failure) {
        (Some(login), Some((at, sign))) if at > login => failed(sign, &lines[..=at]),
        (Some(login), _) => Verdict::Passed { evidence: lines[login].to_owned() },
        (None, Some((at, sign))) => failed(sign, &lines[..=at]),
        (None, None) => Verdict::Inconclusive,
    }
}

/// systemd's words while it waits without limit for a device, as dracut's initramfs does for its root filesystem. They
/// count only as the last ones: whatever comes after them means that the device came.
fn waits_for_a_device(line: &str) -> bool {
    line.contains("/ no limit)")
        && ["Job dev-", "running for /dev/", "running for dev-"].iter().any(|job| line.contains(job))
}

/// The probe's line with this nonce on its serial port.
pub fn parse_probe_line(text: &str, nonce: &str) -> Option<ProbeLine> {
    parse_line(text, |line: &ProbeLine| line.nonce == nonce)
}

/// The report of a Windows' first boot with this nonce on its serial port.
pub fn parse_first_boot_line(text: &str, nonce: &str) -> Option<ReportLine> {
    parse_line(text, |line: &ReportLine| line.nonce == nonce)
}

fn parse_line<T: DeserializeOwned>(text: &str, is_wanted: impl Fn(&T) -> bool) -> Option<T> {
    let mut lines = tail(text).lines().filter(|line| line.len() <= LINE_MAX);
    lines.find_map(|line| {
        let start = line.find('{')?;
        let found = serde_json::from_str(line[start..].trim_end()).ok()?;
        is_wanted(&found).then_some(found)
    })
}

/// The last line of `text` with something on it, at most 200 characters.
pub fn last_words(text: &str) -> Option<String> {
    let text = printable(tail(text));
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    Some(line.chars().take(200).collect())
}

/// What it suggests, but does not prove, that these are the last words of a machine.
pub fn standing_hint(words: &str) -> Option<&'static str> {
    let hints = [
        ("Booting from Hard Disk", "so the firmware started the boot code of a disk, which has shown nothing"),
        ("GRUB loading", "so GRUB's boot sector did not get its core image to run"),
    ];
    hints.iter().find(|(text, _)| words.contains(text)).map(|(_, hint)| *hint)
}

/// The verdict of `lines`, of which the last shows `sign`. A prompt alone says little: what was complained about just
/// before it is told too.
fn failed(sign: &Sign, lines: &[&str]) -> Verdict {
    let (line, before) = lines.split_last().unwrap_or((&"", &[]));
    let complaint = before.iter().rev().take(COMPLAINT_LINES).find(|line| COMPLAINTS.iter().any(|c| line.contains(c)));
    let cut = |line: &str| line.chars().take(200).collect::<String>();
    let evidence = match complaint {
        Some(complaint) => format!("{} … {}", cut(complaint), cut(line)),
        None => cut(line),
    };
    Verdict::Failed { meaning: sign.meaning.to_owned(), evidence }
}

/// `phys1 login:`, at the end of a line or the start of one: agetty prints `HOST login: ` on a line of its own.
fn is_login_prompt(line: &str, hostname: &str) -> bool {
    let Some((name, _)) = line.split_once(" login:") else { return false };
    let short = |name: &str| name.split('.').next().unwrap_or(name).to_owned();
    !hostname.is_empty() && short(name.rsplit(char::is_whitespace).next().unwrap_or(name)) == short(hostname)
}

fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(TEXT_MAX);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// Without escape sequences and control characters, which firmware and GRUB print on serial ports.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => {
                if chars.next_if_eq(&'[').is_some() {
                    // Parameters, then one final character.
                    let last = chars.by_ref().find(|c| ('\u{40}'..='\u{7e}').contains(c));
                    // Positioning starts a new piece of text.
                    if matches!(last, Some('H' | 'f' | 'J')) {
                        out.push('\n');
                    }
                } else {
                    chars.next();
                }
            }
            '\n' | '\r' => out.push('\n'),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(text: &str) -> &'static str {
        match classify(text, "phys1") {
            Verdict::Failed { meaning, .. } => {
                SIGNS.iter().map(|sign| sign.meaning).find(|known| *known == meaning).unwrap()
            }
            other => panic!("{other:?} for {text}"),
        }
    }

    #[test]
    fn own_host_name_at_a_login_prompt_passes_and_another_one_does_not() {
        let text = "[  OK  ] Reached target multi-user.target - Multi-User System.\r\n\r\n\
                    Debian GNU/Linux 12 phys1 ttyS0\r\n\r\nphys1 login: ";
        assert_eq!(classify(text, "phys1"), Verdict::Passed { evidence: "phys1 login:".into() });
        assert_eq!(classify(text, "phys1.example.org"), Verdict::Passed { evidence: "phys1 login:".into() });
        assert_eq!(classify(text, "phys2"), Verdict::Inconclusive);
        assert_eq!(classify("localhost login: ", ""), Verdict::Inconclusive);
    }

    #[test]
    fn firmware_without_a_boot_device_is_told() {
        let seabios = "SeaBIOS (version 1.16.2-debian-1.16.2-1)\r\n\r\nBooting from Hard Disk...\r\nBoot failed: not a \
                       bootable disk\r\n\r\nNo bootable device.\r\n";
        assert_eq!(meaning(seabios), NO_BOOT_DEVICE);
        let ovmf = "BdsDxe: failed to load Boot0001 \"UEFI QEMU HARDDISK\" from PciRoot(0x0)/Pci(0x1,0x1): Not Found\r\n\
                    BdsDxe: No bootable option or device was found.\r\nBdsDxe: Press any key to enter the Boot Manager Menu.";
        assert_eq!(meaning(ovmf), NO_EFI_LOADER);
        let shell =
            "\u{1b}[0m\u{1b}[35m\u{1b}[40m\u{1b}[2J\u{1b}[01;01HUEFI Interactive Shell v2.2\r\nEDK II\r\nShell> ";
        assert_eq!(meaning(shell), NO_EFI_LOADER);
    }

    #[test]
    fn boot_loader_shells_are_told() {
        let rescue = "GRUB loading.\r\nWelcome to GRUB!\r\n\r\nerror: no such device: 0f2c.\r\nEntering rescue mode...\r\n\
                      grub rescue> ";
        assert_eq!(meaning(rescue), GRUB_RESCUE);
        let Verdict::Failed { evidence, .. } = classify(rescue, "") else { panic!("not failed") };
        assert_eq!(evidence, "error: no such device: 0f2c. … grub rescue>");
        let shell = "\u{1b}[H\u{1b}[J                             GNU GRUB  version 2.06-13\r\n\r\n   Minimal BASH-like line \
                     editing is supported. For the first word,\r\n\r\ngrub> ";
        assert_eq!(meaning(shell), GRUB_SHELL);
    }

    #[test]
    fn emergency_shells_and_panics_are_told() {
        let initramfs = "Gave up waiting for root file system device.  Common problems:\r\n - Missing modules (cat /proc/modules; \
                         ls /dev)\r\nALERT!  UUID=1 does not exist.  Dropping to a shell!\r\n\r\nBusyBox v1.35.0\r\n\r\n\
                         (initramfs) ";
        assert_eq!(meaning(initramfs), EMERGENCY_INITRAMFS);
        let dracut = "[  135.1] dracut-initqueue[280]: Warning: dracut-initqueue timeout - starting timeout scripts\r\n\
                      [  190.1] dracut-initqueue[280]: Warning: Could not boot.\r\nGenerating \"/run/initramfs/rdsosreport.txt\"\r\n\
                      Entering emergency mode. Exit the shell to continue.\r\n\r\ndracut:/# ";
        assert_eq!(meaning(dracut), EMERGENCY_INITRAMFS);
        let forever = "\u{1b}[K[  *** ] Job dev-disk-by\\x2duuid-00000000\\x2…tart running (5min 44s / no limit)\r";
        assert_eq!(meaning(forever), EMERGENCY_INITRAMFS);
        assert_eq!(meaning(&format!("{forever}\n\u{1b}M\r\u{1b}[K[ *")), EMERGENCY_INITRAMFS);
        assert_eq!(classify(&format!("{forever}\n[  OK  ] Found device\n"), "phys1"), Verdict::Inconclusive);
        let limited = "[  *** ] Job dev-disk-by\\x2duuid-0…tart running (44s / 1min 30s)";
        assert_eq!(classify(limited, "phys1"), Verdict::Inconclusive);
        let systemd = "[ TIME ] Timed out waiting for device dev-sdb1.device.\r\nYou are in emergency mode. After logging in, \
                       type \"journalctl -xb\" to view\r\nGive root password for maintenance\r\n";
        assert_eq!(meaning(systemd), EMERGENCY_SYSTEMD);
        let root = "[    2.1] VFS: Cannot open root device \"sda1\" or unknown-block(0,0): error -6\r\n";
        assert_eq!(meaning(root), PANIC_ROOT);
        let panic = "[    2.2] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\r\n\
                     [    2.3] ---[ end Kernel panic - not syncing: Attempted to kill init! ]---\r\n";
        assert_eq!(meaning(panic), PANIC);
        assert_eq!(meaning("Stop code: INACCESSIBLE_BOOT_DEVICE (0x7B)"), STOP_BOOT_DEVICE);
    }

    #[test]
    fn the_later_of_login_and_failure_counts() {
        let recovered = "Gave up waiting for root file system device.\n(initramfs) exit\nphys1 login: ";
        assert!(matches!(classify(recovered, "phys1"), Verdict::Passed { .. }));
        assert_eq!(meaning("phys1 login: \n[ 50.0] Kernel panic - not syncing: oops"), PANIC);
        let waiting = "dracut-initqueue[280]: something else\nLoading Linux 6.1.0 ...\n";
        assert_eq!(classify(waiting, "phys1"), Verdict::Inconclusive);
    }

    #[test]
    fn only_the_line_with_the_right_nonce_is_the_probes() {
        let text = "noise\n{\"nonce\":\"old\",\"hostname\":\"x\"}\r\n{\"nonce\":\"n1\",\"hostname\":\"phys1\",\"failed_units\":2}\r\n";
        let line = parse_probe_line(text, "n1").unwrap();
        assert_eq!((line.hostname.as_str(), line.failed_units), ("phys1", 2));
        assert_eq!(parse_probe_line(text, "n2"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,100}", raw in proptest::collection::vec(0u8..128, 0..200)) {
            let _ = classify(&text, &text);
            let raw = String::from_utf8_lossy(&raw);
            let _ = (classify(&raw, "a"), parse_probe_line(&raw, "n"));
        }
    }
}
