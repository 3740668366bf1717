//! Becoming root at the other end: by being it, by sudo, or by doas.

use controller::trust::Secret;

use super::connection::Connection;
use super::said::{Sudo, doas_failure};
use super::script::Facts;
use crate::failure::{Code, Failure, Result};

/// How commands are run as root.
pub(super) enum Elevation {
    /// Who logged in is root.
    None,
    SudoWithoutPassword,
    Sudo(Secret),
    Doas,
}

impl Elevation {
    /// Finds a way that works: each is tried with a command that does nothing. `ask` is asked for a password where one is
    /// needed and none was given; `None` where there is nobody to ask.
    pub(super) fn find(
        connection: &Connection,
        facts: &Facts,
        given: Option<&Secret>,
        ask: &dyn Fn() -> Result<Option<Secret>>,
    ) -> Result<Self> {
        if facts.user_id == Some(0) {
            return Ok(Self::None);
        }
        let user = facts.user.as_str();
        let mut failure = None;
        if facts.has_sudo {
            match Self::find_sudo(connection, user, given, ask) {
                Ok(found) => return Ok(found),
                Err(error) if error.code == Code::Interrupted => return Err(error),
                Err(error) => failure = Some(error),
            }
        }
        if facts.has_doas {
            let ended = connection.run("doas -n true", b"")?;
            if ended.status.success() {
                return Ok(Self::Doas);
            }
            failure = failure.or_else(|| Some(doas_failure(user, &ended.said)));
        }
        Err(failure.unwrap_or_else(|| {
            let text = format!("{user} is not root, and neither sudo nor doas is there: log in as root");
            Failure::new(Code::Refused, text)
        }))
    }

    fn find_sudo(
        connection: &Connection,
        user: &str,
        given: Option<&Secret>,
        ask: &dyn Fn() -> Result<Option<Secret>>,
    ) -> Result<Self> {
        let ended = connection.run("sudo -n true", b"")?;
        if ended.status.success() {
            return Ok(Self::SudoWithoutPassword);
        }
        let why = Sudo::of(&ended.said);
        if why != Sudo::PasswordNeeded {
            return Err(why.failure(user, &ended.said));
        }
        let asked;
        let password = match given {
            Some(password) => password,
            None => {
                asked = ask()?.ok_or_else(|| why.failure(user, &ended.said))?;
                &asked
            }
        };
        let found = Self::Sudo(password.clone());
        let ended = connection.run(&found.command("true"), found.input().as_bytes())?;
        match ended.status.success() {
            true => Ok(found),
            false => Err(Sudo::of(&ended.said).failure(user, &ended.said)),
        }
    }

    /// A command line, as root. Its words are nothing special to a shell.
    pub(super) fn command(&self, line: &str) -> String {
        match self {
            Self::None => line.to_owned(),
            Self::SudoWithoutPassword => format!("sudo -n -- {line}"),
            // Without -k it would take no password where it has taken one shortly before.
            Self::Sudo(_) => format!("sudo -k -S -p '' -- {line}"),
            Self::Doas => format!("doas -n -- {line}"),
        }
    }

    /// What such a command reads first.
    pub(super) fn input(&self) -> String {
        match self {
            Self::Sudo(password) => format!("{}\n", password.expose()),
            Self::None | Self::SudoWithoutPassword | Self::Doas => String::new(),
        }
    }

    /// For people.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::None => "root itself",
            Self::SudoWithoutPassword => "root by sudo, without a password",
            Self::Sudo(_) => "root by sudo, with a password",
            Self::Doas => "root by doas",
        }
    }
}
