//! What follows `ssh://`: who logs in where.

use std::fmt;
use std::str::FromStr;

/// `[USER@]HOST[:PORT]`; what is left out is as OpenSSH's own configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(super) user: Option<String>,
    /// A name, an alias of OpenSSH's configuration, or an address without brackets.
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

/// Where the agent is to be installed: `ssh://` and an [`Address`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target(pub(super) Address);

impl FromStr for Target {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("ssh://").ok_or("expected ssh://[USER@]HOST[:PORT]")?;
        rest.strip_suffix('/').unwrap_or(rest).parse().map(Self)
    }
}

impl FromStr for Address {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (user, rest) = match text.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, text),
        };
        let (host, port) = match rest.strip_prefix('[').map(|rest| rest.split_once(']').ok_or("']' is missing")) {
            Some(split) => {
                let (host, port) = split?;
                let port = match port.is_empty() {
                    true => None,
                    false => Some(port.strip_prefix(':').ok_or("expected :PORT behind ']'")?),
                };
                (host, port)
            }
            // An IPv6 address without brackets has no port.
            None if rest.matches(':').count() > 1 => (rest, None),
            None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        let port =
            port.map(|port| port.parse::<u16>().ok().filter(|port| *port > 0).ok_or(format!("no port: {port:?}")));
        if user.is_some_and(|user| user.contains(':')) {
            return Err("a password does not belong here: --password-file, or it is asked for".into());
        }
        // What begins with a hyphen would be an option of ssh; the others mean something to a shell, or in its configuration.
        let is_word = |text: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || "._-:%+\\".contains(c);
            !text.is_empty() && !text.starts_with('-') && text.chars().all(fits)
        };
        if !is_word(host) {
            return Err(format!("no host: {host:?}"));
        }
        if let Some(user) = user.filter(|user| !is_word(user)) {
            return Err(format!("no user: {user:?}"));
        }
        Ok(Self { user: user.map(str::to_owned), host: host.to_owned(), port: port.transpose()? })
    }
}

/// Without the port, which is an option of its own.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        f.write_str(&self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_urls_say() {
        let parsed = |text: &str| {
            let Target(Address { user, host, port }) = text.parse().unwrap();
            (user.unwrap_or_default(), host, port.unwrap_or_default())
        };
        let is = |user: &str, host: &str, port: u16| (user.to_owned(), host.to_owned(), port);
        assert_eq!(parsed("ssh://web1"), is("", "web1", 0));
        assert_eq!(parsed("ssh://ada@web1.example.net:2222"), is("ada", "web1.example.net", 2222));
        assert_eq!(parsed("ssh://ada@[2001:db8::1]:22/"), is("ada", "2001:db8::1", 22));
        assert_eq!(parsed("ssh://root@2001:db8::1"), is("root", "2001:db8::1", 0));
    }

    #[test]
    fn what_is_no_address_is_told() {
        for wrong in [
            "web1",
            "ssh://",
            "ssh://ada@",
            "ssh://@web1",
            "ssh://-oProxyCommand=x",
            "ssh://-l@web1",
            "ssh://a b",
            "ssh://web1:0",
            "ssh://web1:99999",
            "ssh://web1:x",
            "ssh://[::1",
            "ssh://[::1]22",
            "ssh://a;b",
            "ssh://$(id)@web1",
            "ssh://web1/x",
            "http://web1",
            "ssh://a'b",
            "ssh://ada@example.net@web1",
        ] {
            let error = wrong.parse::<Target>().unwrap_err();
            println!("{wrong}: {error}");
        }
        let error = "ssh://ada:secret@web1".parse::<Target>().unwrap_err();
        assert!(error.contains("--password-file") && !error.contains("secret"), "{error}");
    }
}
