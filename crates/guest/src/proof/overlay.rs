//! What the throw-away overlay of a boot proof adds to a Linux guest: a unit that runs once and writes one line.
//!
//! With systemd it runs when multi-user is reached, and a second unit after a time if it is not; without systemd
//! `rc.local` starts it. It reads, and changes nothing else.

use super::Probe;
use crate::{Error, ErrorKind, Result, WritableTree};

const SCRIPT: &str = "/etc/vconverter-proof.sh";
const UNIT: &str = "/etc/systemd/system/vconverter-proof.service";
const LATE_UNIT: &str = "/etc/systemd/system/vconverter-proof-late.service";

/// Adds the probe to the guest in `tree`.
///
/// # Errors
/// [`ErrorKind::Malformed`] for a nonce or port with other characters than the probe's script can carry.
pub fn add_probe(tree: &mut dyn WritableTree, probe: &Probe) -> Result<()> {
    let plain = |text: &str| {
        !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if !plain(&probe.nonce) || !plain(&probe.port) {
        return Err(Error::new(ErrorKind::Malformed, "nonce or port of the probe: expected letters, digits and -"));
    }
    tree.replace(SCRIPT, script(probe).as_bytes(), 0o755)?;
    if tree.exists("/lib/systemd/systemd")? || tree.exists("/usr/lib/systemd/systemd")? {
        let unit = |when: &str, start: &str| {
            format!(
                "[Unit]\nDescription=Boot proof\nDefaultDependencies=no\n{when}\n\n[Service]\nType=simple\nExecStart=/bin/sh {SCRIPT} {start}\n"
            )
        };
        tree.replace(UNIT, unit("After=multi-user.target", "multi-user").as_bytes(), 0o644)?;
        tree.replace(LATE_UNIT, unit("After=local-fs.target", "time").as_bytes(), 0o644)?;
        for (target, unit) in [("multi-user", UNIT), ("local-fs", LATE_UNIT)] {
            let name = unit.rsplit('/').next().unwrap_or(unit);
            tree.symlink(&format!("/etc/systemd/system/{target}.target.wants/{name}"), unit)?;
        }
    } else {
        let old = tree.text("/etc/rc.local")?.unwrap_or_else(|| "#!/bin/sh -e\nexit 0\n".to_owned());
        let (first, rest) = old.split_once('\n').unwrap_or((old.as_str(), ""));
        let text = format!("{first}\n/bin/sh {SCRIPT} multi-user </dev/null >/dev/null 2>&1 &\n{rest}");
        tree.replace("/etc/rc.local", text.as_bytes(), 0o755)?;
    }
    if probe.serial_console {
        for path in ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"] {
            if let Some(text) = tree.text(path)? {
                tree.replace(path, with_serial_console(&text).as_bytes(), 0o600)?;
            }
        }
    }
    Ok(())
}

/// The script, for the oldest `/bin/sh` of a supported guest; only values that were filtered to harmless characters
/// come into the line.
fn script(probe: &Probe) -> String {
    let Probe { nonce, port, patience_s, .. } = probe;
    format!(
        r#"#!/bin/sh
# Boot proof of a throw-away overlay: writes one line of JSON to a serial port.
PATH=/usr/sbin:/usr/bin:/sbin:/bin; export PATH LC_ALL=C
reached=$1
active() {{ systemctl is-active --quiet "$@" 2>/dev/null; }}
if [ "$reached" = time ]; then
  sleep {patience_s}
  if active emergency.target || active rescue.target; then reached=emergency; fi
elif [ -d /run/systemd/system ] && ! active multi-user.target; then
  exit 0 # a target that failed releases what waits for it too
fi
mkdir /run/vconverter-proof.done 2>/dev/null || exit 0
clean() {{ tr -cd 'A-Za-z0-9 ._:/()+~@=,-'; }}
name=$(hostname 2>/dev/null | clean)
kernel=$(uname -r | clean)
product=$(. /etc/os-release 2>/dev/null; printf %s "$PRETTY_NAME" | clean)
keys=
for file in /etc/ssh/ssh_host_*_key.pub; do
  [ -f "$file" ] || continue
  sum=$(sha256sum "$file" | cut -c1-64)
  keys="$keys${{keys:+,}}\"$(basename "$file" | clean)\":\"$sum\""
done
failed=$(systemctl --failed --no-legend --plain 2>/dev/null | grep -c . )
root=
while read -r device point rest; do [ "$point" = / ] && root=$device; done < /proc/mounts
case $root in /dev/root|rootfs) root=$(findmnt -n -o SOURCE / 2>/dev/null);; esac
root=$(printf %s "$root" | clean)
cards=
for card in /sys/class/net/*; do
  [ -e "$card/device" ] || continue
  cards="$cards${{cards:+,}}\"$(basename "$card" | clean)\":\"$(clean < "$card/address")\""
done
stty -F /dev/{port} 115200 raw -echo 2>/dev/null
printf '\n{{"nonce":"{nonce}","hostname":"%s","kernel":"%s","product":"%s","host_keys":{{%s}},"failed_units":%d,"root_device":"%s","reached":"%s","interfaces":{{%s}}}}\n' \
  "$name" "$kernel" "$product" "$keys" "${{failed:-0}}" "$root" "$reached" "$cards" > /dev/{port}
"#
    )
}

/// A `grub.cfg` whose kernels also talk on the first serial port; the screen stays the main console.
fn with_serial_console(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 512);
    for line in text.split_inclusive('\n') {
        let first = line.split_ascii_whitespace().next();
        if matches!(first, Some("linux" | "linux16" | "linuxefi")) && !line.contains("console=ttyS0") {
            let (body, ending) = line.split_at(line.trim_end().len());
            out.push_str(body);
            if !line.contains("console=tty0") {
                out.push_str(" console=tty0");
            }
            out.push_str(" console=ttyS0,115200");
            out.push_str(ending);
        } else {
            out.push_str(line);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileTree, MemoryTree};

    fn probe() -> Probe {
        Probe { nonce: "abc-1".into(), port: "ttyS1".into(), patience_s: 60, serial_console: true }
    }

    #[test]
    fn probe_is_added_with_systemd_and_without() {
        let mut tree = MemoryTree::new()
            .with("/lib/systemd/systemd", "")
            .with("/boot/grub/grub.cfg", "menuentry 'x' {\n\tlinux /vmlinuz root=UUID=1 ro quiet\n\tinitrd /i\n}\n");
        add_probe(&mut tree, &probe()).unwrap();
        assert!(tree.text("/etc/systemd/system/multi-user.target.wants/vconverter-proof.service").unwrap().is_some());
        let menu = tree.text("/boot/grub/grub.cfg").unwrap().unwrap();
        assert!(menu.contains("ro quiet console=tty0 console=ttyS0,115200\n"), "{menu}");
        let mut old = MemoryTree::new().with("/etc/rc.local", "#!/bin/sh -e\necho hello\nexit 0\n");
        add_probe(&mut old, &probe()).unwrap();
        let text = old.text("/etc/rc.local").unwrap().unwrap();
        assert!(text.starts_with("#!/bin/sh -e\n/bin/sh /etc/vconverter-proof.sh"), "{text}");
    }

    #[test]
    fn script_writes_one_line_of_json() {
        let folder = tempfile::tempdir().unwrap();
        let port = folder.path().join("port");
        let done = folder.path().join("done");
        let text = script(&probe())
            .replace("/dev/ttyS1", port.to_str().unwrap())
            .replace("/run/vconverter-proof.done", done.to_str().unwrap());
        std::fs::write(folder.path().join("s"), text).unwrap();
        let run = || std::process::Command::new("sh").arg(folder.path().join("s")).arg("multi-user").status().unwrap();
        assert!(run().success() && run().success());
        let line = super::super::parse_probe_line(&std::fs::read_to_string(&port).unwrap(), "abc-1").unwrap();
        assert_eq!(line.reached, "multi-user");
        assert!(!line.kernel.is_empty());
    }

    #[test]
    fn a_nonce_cannot_bring_commands() {
        let bad = Probe { nonce: "$(reboot)".into(), ..probe() };
        assert!(add_probe(&mut MemoryTree::new(), &bad).is_err());
    }
}
