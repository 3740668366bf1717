//! What OpenSSH, sudo and doas say when something does not work, as one sentence with what to do.
//!
//! The words are those of OpenSSH 9.2, sudo 1.9 and opendoas 6.8 (in `tests/ssh`, as they really came); older ones say the
//! same for what is looked for here. What is not known is repeated as it is.

use super::helper::HostKey;
use crate::failure::{Code, Failure};

/// A connection that did not come about.
pub(super) struct Refusal<'a> {
    /// Whom it was to.
    pub(super) host: &'a str,
    /// What OpenSSH said.
    pub(super) said: &'a str,
    /// The key that the host showed.
    pub(super) key: Option<HostKey>,
    /// A key was demanded.
    pub(super) is_pinned: bool,
    /// A password was given.
    pub(super) with_password: bool,
    /// The option that names the host's key.
    pub(super) pin_option: &'static str,
    /// The option that names the password.
    pub(super) password_option: &'static str,
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    UnknownKey,
    ChangedKey,
    /// No way to log in was taken; a password is among those that the host takes.
    DeniedWithoutPassword,
    Other,
}

impl Refusal<'_> {
    pub(super) fn kind(&self) -> Kind {
        if self.said.contains("HOST IDENTIFICATION HAS CHANGED") {
            return Kind::ChangedKey;
        }
        if self.said.contains("Host key verification failed") {
            return if self.is_pinned { Kind::ChangedKey } else { Kind::UnknownKey };
        }
        let takes = self.methods().unwrap_or_default();
        match !self.with_password && (takes.contains("password") || takes.contains("keyboard-interactive")) {
            true => Kind::DeniedWithoutPassword,
            false => Kind::Other,
        }
    }

    /// What the host takes, where it took nothing.
    fn methods(&self) -> Option<&str> {
        self.said
            .lines()
            .rev()
            .find_map(|line| line.split_once("Permission denied (")?.1.split_once(')').map(|(list, _)| list))
    }

    pub(super) fn failure(&self) -> Failure {
        let Self { host, said, .. } = self;
        let shown = self.key.as_ref().map(|key| format!("{} ({})", key.fingerprint, key.kind));
        let shown = shown.unwrap_or_else(|| "none".into());
        let after =
            |text: &str| said.lines().find_map(|line| line.split_once(text).map(|(_, rest)| rest.trim().to_owned()));
        match self.kind() {
            Kind::ChangedKey if self.is_pinned => {
                let text =
                    format!("{host} shows the host key {shown}, not the one of {}; nothing was done", self.pin_option);
                return Failure::new(Code::Refused, text);
            }
            Kind::ChangedKey => {
                let line = said
                    .lines()
                    .find_map(|line| line.split_once(" key in ").filter(|(begin, _)| begin.starts_with("Offending")));
                let place = line.map_or("the file of known hosts", |(_, place)| place.trim());
                let text = format!(
                    "the host key of {host} has changed: it shows {shown}, and {place} has another one; nothing was done. \
                     If its system was made anew, take that line away; if not, somebody may be in between"
                );
                return Failure::new(Code::Refused, text);
            }
            Kind::UnknownKey => {
                let fingerprint = self.key.as_ref().map_or("SHA256:…", |key| &key.fingerprint);
                let text = format!(
                    "the host key of {host} is not known: it shows {shown}; nothing was done. Compare it on the machine \
                     (ssh-keygen -lf /etc/ssh/ssh_host_…_key.pub), then add {} {fingerprint}",
                    self.pin_option
                );
                return Failure::new(Code::Refused, text);
            }
            Kind::DeniedWithoutPassword | Kind::Other => {}
        }
        if let Some(methods) = self.methods() {
            let why = match self.with_password {
                true if methods.contains("password") || methods.contains("keyboard-interactive") => {
                    "the password is wrong, or not taken for this user"
                }
                true => "it takes no password",
                false => "no key was taken",
            };
            let text = format!(
                "{host} lets nobody in: {why} (it takes {methods}); {}, --identity or ssh-agent",
                self.password_option
            );
            return Failure::new(Code::Refused, text);
        }
        if said.contains("Too many authentication failures") {
            let text = format!("{host} was offered too many keys: name the right one with --identity");
            return Failure::new(Code::Refused, text);
        }
        if let Some(rest) = after("Could not resolve hostname ") {
            let why = rest.split_once(": ").map_or(rest.as_str(), |(_, why)| why).to_owned();
            return Failure::new(Code::NotFound, format!("the name of {host} is not found: {why}"));
        }
        let known = [
            ("Connection refused", "refuses the connection: no SSH server listens there, or a firewall is in between"),
            ("Connection timed out", "does not answer: it is off, or a firewall is in between"),
            ("Operation timed out", "does not answer: it is off, or a firewall is in between"),
            ("banner exchange", "does not speak SSH there"),
            ("No route to host", "cannot be reached: no such host on its network, or a firewall says so"),
            ("Network is unreachable", "cannot be reached: there is no route to its network"),
        ];
        if let Some((_, text)) = known.iter().find(|(words, _)| said.contains(words)) {
            return Failure::new(Code::Failed, format!("{host} {text}"));
        }
        if let Some(rest) = after("no matching ") {
            let text = format!(
                "{host} speaks only what OpenSSH here takes for unsafe: no matching {rest}; allow it in a file of --ssh-config"
            );
            return Failure::new(Code::Refused, text);
        }
        Failure::new(Code::Failed, format!("no connection to {host}: {}", plain(said)))
    }
}

/// Last words in one line, without what OpenSSH warns of.
pub(super) fn plain(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("Warning: "));
    let lines: Vec<&str> = lines.filter(|line| !line.starts_with("sudo: unable to resolve host")).collect();
    match lines.is_empty() {
        true => "it says nothing".into(),
        false => lines[lines.len().saturating_sub(4)..].join("; "),
    }
}

/// Why sudo did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sudo {
    PasswordNeeded,
    WrongPassword,
    NotAllowed,
    NeedsTerminal,
    Other,
}

impl Sudo {
    pub(super) fn of(said: &str) -> Self {
        let has = |words: &[&str]| words.iter().any(|words| said.contains(words));
        if has(&["not in the sudoers file", "is not allowed to", "may not run sudo", "no valid sudoers"]) {
            Self::NotAllowed
        } else if has(&["must have a tty"]) {
            Self::NeedsTerminal
        } else if has(&["incorrect password attempt", "Sorry, try again"]) {
            Self::WrongPassword
        } else if has(&["a password is required", "a terminal is required", "no tty present", "no askpass program"]) {
            Self::PasswordNeeded
        } else {
            Self::Other
        }
    }

    /// `user` is whom it was done as.
    pub(super) fn failure(self, user: &str, said: &str) -> Failure {
        let text = match self {
            Self::PasswordNeeded => format!(
                "sudo asks {user} for a password: --sudo-password-file, or --password-file where it is the same"
            ),
            Self::WrongPassword => format!("sudo does not take the password for {user}: --sudo-password-file"),
            Self::NotAllowed => {
                format!("{user} may not use sudo for this ({}): log in as root, or as somebody who may", plain(said))
            }
            Self::NeedsTerminal => {
                format!(
                    "sudo wants a terminal (requiretty): add `Defaults:{user} !requiretty` to its rules, or log in as root"
                )
            }
            Self::Other => format!("sudo does not work for {user}: {}", plain(said)),
        };
        Failure::new(Code::Refused, text)
    }
}

/// Why doas did not do it; it takes a password only on a terminal.
pub(super) fn doas_failure(user: &str, said: &str) -> Failure {
    let text = if said.contains("Authentication required") {
        format!(
            "doas asks {user} for a password, which it takes only on a terminal: add `permit nopass {user}` to its rules, or log in as root"
        )
    } else if said.contains("Operation not permitted") {
        format!("{user} may not use doas: log in as root, or as somebody who may")
    } else {
        format!("doas does not work for {user}: {}", plain(said))
    };
    Failure::new(Code::Refused, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str) -> String {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ssh").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    fn refusal(said: &str, with_password: bool) -> Refusal<'_> {
        let key =
            said.contains("Host key").then(|| HostKey { kind: "ssh-ed25519".into(), fingerprint: "SHA256:abc".into() });
        let (host, pin_option, password_option) = ("ada@web1", "--host-key", "--password-file");
        Refusal { host, said, key, is_pinned: false, with_password, pin_option, password_option }
    }

    #[test]
    fn what_openssh_says_becomes_one_sentence() {
        let cases = [
            ("unknown_key.txt", false, Kind::UnknownKey, Code::Refused, "add --host-key SHA256:abc"),
            (
                "changed_key.txt",
                false,
                Kind::ChangedKey,
                Code::Refused,
                "known_hosts:1 has another one; nothing was done",
            ),
            (
                "denied_batch.txt",
                false,
                Kind::DeniedWithoutPassword,
                Code::Refused,
                "no key was taken (it takes publickey,password)",
            ),
            ("denied_batch.txt", true, Kind::Other, Code::Refused, "the password is wrong, or not taken"),
            ("denied_key_only.txt", false, Kind::Other, Code::Refused, "no key was taken (it takes publickey)"),
            ("denied_key_only.txt", true, Kind::Other, Code::Refused, "it takes no password (it takes publickey)"),
            ("refused.txt", false, Kind::Other, Code::Failed, "no SSH server listens there"),
            (
                "unknown_host.txt",
                false,
                Kind::Other,
                Code::NotFound,
                "is not found: Temporary failure in name resolution",
            ),
            ("no_route.txt", false, Kind::Other, Code::Failed, "no route to its network"),
            ("timed_out.txt", false, Kind::Other, Code::Failed, "does not answer"),
            ("bad_identity.txt", false, Kind::DeniedWithoutPassword, Code::Refused, "no key was taken"),
            ("proxy.txt", false, Kind::Other, Code::Failed, "Connection closed by remote host"),
        ];
        for (name, with_password, kind, code, text) in cases {
            let said = said(name);
            let refusal = refusal(&said, with_password);
            let failure = refusal.failure();
            println!("{name}: {}", failure.message);
            assert_eq!((refusal.kind(), failure.code), (kind, code), "{name}");
            assert!(failure.message.contains(text) && !failure.message.contains('\n'), "{name}: {}", failure.message);
        }
        let said = said("unknown_key.txt");
        let pinned = Refusal { is_pinned: true, ..refusal(&said, false) };
        assert!(pinned.failure().message.contains("not the one of --host-key"), "{}", pinned.failure().message);
    }

    #[test]
    fn what_sudo_and_doas_say_is_known() {
        let cases = [
            ("sudo_n.txt", Sudo::PasswordNeeded),
            ("sudo_n_notinsudoers.txt", Sudo::PasswordNeeded),
            ("sudo_wrong.txt", Sudo::WrongPassword),
            ("sudo_notinsudoers.txt", Sudo::NotAllowed),
            ("sudo_tty.txt", Sudo::NeedsTerminal),
        ];
        for (name, expected) in cases {
            let said = said(name);
            assert_eq!(Sudo::of(&said), expected, "{name}");
            let message = expected.failure("ada", &said).message;
            println!("{name}: {message}");
            assert!(!message.contains("unable to resolve"), "{message}");
        }
        assert!(doas_failure("ada", &said("doas_password.txt")).message.contains("permit nopass ada"));
        assert!(doas_failure("bob", &said("doas_notpermitted.txt")).message.contains("may not use doas"));
        assert!(doas_failure("bob", &said("doas_noconf.txt")).message.contains("doas is not enabled"));
    }
}
