//! What can be typed about agents and the tokens that enrol them.

use std::str::FromStr;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  vconverter agents
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
