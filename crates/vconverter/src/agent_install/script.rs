//! What runs in the shell of the other end, and what it says. Any POSIX shell will do; the user's own shell only starts it.

use std::net::IpAddr;

/// Before what a script of ours says: a user's start-up files say other things.
const MARK: &str = "vconverter: ";

/// Looks around, then makes a folder in which programs may run when it is told `place NAME KIB`, and takes it away when its
/// input ends.
pub(super) const KEEPER: &str = r#"
trap '' HUP INT TERM PIPE
umask 077
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
say() { echo "vconverter: $*"; }
say system $(uname -s) $(uname -m) $(uname -r)
say user $(id -u) $(id -un)
say connection $SSH_CONNECTION
if [ -d /run/systemd/system ]; then say init systemd
elif [ -d /run/openrc ]; then say init OpenRC
elif [ -d /etc/init.d ] || [ -d /etc/rc.d/init.d ]; then say init SysV; fi
for program in /usr/local/sbin/vconverter-agent /opt/vconverter/vconverter-agent; do
  [ ! -x $program ] || say installed $program
done
for tool in sudo doas; do
  if command -v $tool >/dev/null 2>&1; then say has $tool; fi
done
say ready
folder=
place() {
  for above in /tmp /var/tmp /dev/shm "$HOME" /run "$XDG_RUNTIME_DIR"; do
    [ -n "$above" ] && [ -d "$above" ] || continue
    try=$above/$1
    if ! mkdir "$try" 2>/dev/null; then say no $above: not allowed, read-only or full; continue; fi
    folder=$try
    free=$(df -Pk "$try" 2>/dev/null | { read -r head; read -r name blocks used free rest; echo $free; })
    if [ "${free:-$2}" -lt "$2" ]; then
      say no $above: only $free KiB are free, $2 are needed
    elif ! { printf '#!/bin/sh\nexit 0\n' >"$try/try" && chmod 700 "$try/try"; } 2>/dev/null; then
      say no $above: full
    elif ! "$try/try" 2>/dev/null; then
      say no $above: programs may not run there, it is mounted noexec
    else
      rm -f "$try/try"; say place $try; return
    fi
    rm -rf "$try"; folder=
  done
  say nowhere
}
while read -r order name size; do
  case $order in
  place) place "$name" "$size" ;;
  esac
done
[ -z "$folder" ] || rm -rf "$folder" || { sleep 1; rm -rf "$folder"; }
"#;

/// What the keeper saw of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// `Linux`.
    pub(super) system: String,
    /// `x86_64`.
    pub(super) cpu: String,
    /// `6.1.0-13-amd64`.
    pub(super) kernel: String,
    pub(super) user_id: Option<u32>,
    pub(super) user: String,
    /// Where the machine sees this one.
    pub(super) seen_from: Option<IpAddr>,
    pub(super) init: Option<String>,
    /// The program of an agent that is installed.
    pub(super) installed: Option<String>,
    pub(super) has_sudo: bool,
    pub(super) has_doas: bool,
}

impl Facts {
    /// Of what the keeper said, without marks. What is not known is passed over.
    pub(super) fn parse(seen: &[String]) -> Self {
        let mut facts = Self::default();
        for line in seen {
            let mut words = line.split_ascii_whitespace();
            let mut next = || words.next().unwrap_or_default().to_owned();
            match next().as_str() {
                "system" => (facts.system, facts.cpu, facts.kernel) = (next(), next(), next()),
                "user" => (facts.user_id, facts.user) = (next().parse().ok(), next()),
                // An address of a link has its interface behind it.
                "connection" => facts.seen_from = next().split('%').next().and_then(|address| address.parse().ok()),
                "init" => facts.init = Some(next()),
                "installed" => facts.installed = facts.installed.take().or_else(|| Some(next())),
                "has" => match next().as_str() {
                    "sudo" => facts.has_sudo = true,
                    "doas" => facts.has_doas = true,
                    _ => {}
                },
                _ => {}
            }
        }
        facts
    }

    /// Major and minor version of the kernel.
    pub(super) fn kernel_version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.kernel.split(['.', '-']).map(|number| number.parse().ok());
        Some((numbers.next()??, numbers.next()??))
    }
}

/// What a line of a script says; `None` for a line of somebody else.
pub(super) fn word(line: &str) -> Option<&str> {
    line.strip_prefix(MARK)
}

/// A command line that runs a script, whatever the user's shell is.
pub(super) fn remote(script: &str) -> String {
    // csh takes no quoted line ends and sees an exclamation mark in quotes: both travel as another character.
    let text = script.replace('\n', "\x1e").replace('!', "\x1f");
    let unpack = r#"eval "$(printf %s "$1" | tr "\036\037" "\n\041")""#;
    format!("exec sh -c {} vconverter {}", quoted(unpack), quoted(&text))
}

/// One word of a shell's.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_the_keeper_sees_is_understood() {
        let seen = [
            "system Linux x86_64 3.2.0-4-amd64",
            "user 1000 ada",
            "connection fe80::1%eth0 50022 fe80::2%eth0 22",
            "init SysV",
            "installed /opt/vconverter/vconverter-agent",
            "has sudo",
            "something else",
        ];
        let facts = Facts::parse(&seen.map(str::to_owned));
        assert_eq!(
            (facts.system.as_str(), facts.cpu.as_str(), facts.kernel_version()),
            ("Linux", "x86_64", Some((3, 2)))
        );
        assert_eq!((facts.user_id, facts.user.as_str(), facts.seen_from), (Some(1000), "ada", "fe80::1".parse().ok()));
        assert_eq!((facts.has_sudo, facts.has_doas, facts.init.as_deref()), (true, false, Some("SysV")));
        assert_eq!(Facts::parse(&[]), Facts::default());
    }

    #[test]
    fn a_script_runs_as_it_is_in_any_shell_that_quotes() {
        let script = "a='x  y'\nif ! false; then\n  echo \"vconverter: $a $1\" 'it'\n  printf '#!/bin/sh\\n'\nfi\n";
        let output = Command::new("sh").args(["-c", &remote(script)]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.starts_with("vconverter: x  y ") && said.ends_with(" it\n#!/bin/sh\n"), "{said:?} {output:?}");
        assert!(!remote(KEEPER).contains(['\n', '!']));
    }

    #[test]
    fn the_keeper_looks_around_and_takes_its_folder_away() {
        use std::io::Write;
        let mut command = Command::new("sh");
        command.args(["-c", &remote(KEEPER)]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let name = format!("vconverter-test-{}", std::process::id());
        writeln!(child.stdin.as_mut().unwrap(), "place {name} 99999999999").unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "place {name} 100").unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        println!("{said}");
        let words: Vec<&str> = said.lines().filter_map(word).collect();
        assert!(words.contains(&"nowhere") && words.iter().any(|word| word.contains("KiB are free")), "{said}");
        let place = words.iter().find_map(|word| word.strip_prefix("place ")).unwrap();
        assert!(place.ends_with(&name) && !std::path::Path::new(place).exists(), "{place}");
        let facts = Facts::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(facts.system, "Linux");
    }
}
