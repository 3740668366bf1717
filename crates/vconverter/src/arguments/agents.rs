//! What can be typed about agents and the tokens that enrol them.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};

use crate::agent_install::{Address, Target};

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  vconverter agents
  vconverter agents install ssh://ada@web1
  vconverter agents status ssh://ada@web1
  vconverter agents remove ssh://ada@web1
  vconverter agents revoke 5f2c09aa41d7
  vconverter agents token create --label web1 --expires 2h > token
  vconverter agents token list
  vconverter agents token revoke e-4f9c21ab

A token approves one machine, once, without a pairing code: on that machine, with the file's mode 0600,
  vconverter-agent --controller HOST:7770 --state-dir /var/lib/vconverter-agent --enrol token
It holds the fingerprint of this controller's CA: the agent gives it to nobody else. Each agent gets a certificate, renewed over
its connection: for 90 days where it runs on an installed system, for a day in the boot image. When that is over, or its file
lost, the machine waits for approval again. A revoked key is refused for ever; `machines forget` revokes all of a machine."
)]
pub(crate) struct Agents {
    #[command(subcommand)]
    pub(crate) action: Option<AgentsAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentsAction {
    /// Install the agent over SSH on a machine that runs its own system (Linux), so that it can be converted
    Install(Box<InstallAgent>),
    /// Take the agent, and everything that belongs to it, away from a machine
    #[command(after_help = "\
Examples:
  vconverter agents remove ssh://ada@web1
  vconverter agents remove ssh://ada@web1 --dry-run

The machine stays in the controller's list: `vconverter machines forget`.")]
    Remove {
        #[command(flatten)]
        reach: Box<ReachAgent>,
        /// Show what would be removed
        #[arg(long)]
        dry_run: bool,
    },
    /// Show what of the agent is on a machine, and what it did last
    #[command(after_help = "Example:\n  vconverter agents status ssh://ada@web1")]
    Status {
        #[command(flatten)]
        reach: Box<ReachAgent>,
    },
    /// Revoke an agent's key: its session and streams end at once, and a task that it served waits for the machine
    Revoke {
        /// Fingerprint of the key, or the beginning of it where no other begins so
        key: String,
    },
    /// One-time tokens that approve a machine
    #[command(after_help = "\
Examples:
  vconverter agents token create --label web1 --expires 2h > token
  vconverter agents token list
  vconverter agents token revoke e-4f9c21ab")]
    Token {
        #[command(subcommand)]
        action: TokenAction,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vconverter agents install ssh://root@web1
  vconverter agents install ssh://ada@web1:2222 --identity ~/.ssh/web --sudo-password-file sudo-password
  vconverter agents install ssh://ada@10.0.0.7 --jump ada@bastion.example.net --controller 192.0.2.10:7770
  vconverter agents install ssh://ada@web1 --once
  vconverter agents install ssh://ada@web1 --dry-run

The connection is that of the OpenSSH client (ssh): its configuration, keys, agent and known hosts are used as they are. A host
key that is not known is asked for on a terminal, else refused with its fingerprint; one that has changed is refused. The
agent is installed as root: directly, by sudo or by doas (with `nopass`). Passwords are asked for on a terminal, or are the
first line of a file; they are in no argument and no environment.

The program goes to /usr/local/sbin (/opt/vconverter where /usr is read-only), its state to /var/lib/vconverter-agent, and a
service of systemd, OpenRC or SysV starts it. What fails, or is cut off before the controller has seen the machine, leaves
nothing there. On a machine that has an agent it is an update: key and certificate stay.")]
pub(crate) struct InstallAgent {
    #[command(flatten)]
    pub(crate) reach: ReachAgent,
    /// Where the machine finds the controller [default: where it listens for agents; where that is everywhere, the address
    /// from which the machine sees the connection]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) controller: Option<String>,
    /// Run the agent without installing it: it is gone after a restart of the machine, or by `agents remove`
    #[arg(long)]
    pub(crate) once: bool,
    /// Show what would be done, and leave nothing behind
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How many seconds the agent may take to reach the controller
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
}

/// A machine, and how to log in there.
#[derive(Debug, Args)]
pub(crate) struct ReachAgent {
    /// The machine: ssh://[USER@]HOST[:PORT]; a host may be an alias of OpenSSH's configuration
    #[arg(value_name = "TARGET")]
    pub(crate) target: Target,
    /// Its SSH server's port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// The password, in the first line of a file
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Private key to log in with, and no other
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// The password for sudo, in the first line of a file [default: that of the login]
    #[arg(long, value_name = "FILE")]
    pub(crate) sudo_password_file: Option<PathBuf>,
    /// Go through this host: [USER@]HOST[:PORT]
    #[arg(long, value_name = "HOST")]
    pub(crate) jump: Option<Address>,
    /// The jump host's password, in the first line of a file
    #[arg(long, value_name = "FILE", requires = "jump")]
    pub(crate) jump_password_file: Option<PathBuf>,
    /// Demand this host key, whatever is known: SHA256:…, as `ssh-keygen -lf` shows it
    #[arg(long, value_name = "FINGERPRINT")]
    pub(crate) host_key: Option<String>,
    /// Demand this key of the jump host
    #[arg(long, value_name = "FINGERPRINT", requires = "jump")]
    pub(crate) jump_host_key: Option<String>,
    /// Configuration file of OpenSSH instead of the user's
    #[arg(long, value_name = "FILE")]
    pub(crate) ssh_config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Make a token and print it, this once
    Create {
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        label: String,
        /// How long it is good: 30m, 24h, 7d; at most 30d
        #[arg(long, value_name = "TIME", default_value = "24h")]
        expires: Life,
    },
    /// Show tokens: what each is for, and what became of it
    List,
    /// Revoke a token that was not used
    Revoke {
        /// Its id, as the list shows it
        id: String,
    },
}

/// How long something is good, in minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) minutes: u32,
}

impl FromStr for Life {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected a number and m, h or d, as in 24h, found {text:?}");
        let unit = text.chars().next_back().ok_or_else(wrong)?;
        let minutes_each: u32 = match unit {
            'm' => 1,
            'h' => 60,
            'd' => 24 * 60,
            _ => return Err(wrong()),
        };
        let count: u32 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
        let minutes = count.checked_mul(minutes_each).filter(|minutes| *minutes > 0).ok_or_else(wrong)?;
        Ok(Self { minutes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_a_number_and_a_unit() {
        let minutes = |text: &str| text.parse::<Life>().ok().map(|life| life.minutes);
        assert_eq!([minutes("30m"), minutes("24h"), minutes("7d")], [Some(30), Some(1440), Some(10080)]);
        for wrong in ["", "h", "24", "24s", "-1h", "0m", "99999999999h", "4000000d", "2é"] {
            assert_eq!(minutes(wrong), None, "{wrong}");
        }
    }
}
