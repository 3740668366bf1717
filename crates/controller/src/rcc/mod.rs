//! Automated Remote Cold Cloning, as it is asked for and as it went: settings, the course of a task, and the choice of a way. Pure.

mod choice;
mod course;

use machine::push::Way;
use protocol::message::{COMMAND_BYTES_MAX, COMMAND_SECONDS_MAX};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use choice::{Choice, choose, describe};
pub use course::{Course, MachineCommand};

use crate::{Error, ErrorKind, Result};

/// Commands before, and after.
const COMMANDS_MAX: usize = 16;
/// Longest warning to who is logged in.
const WARNING_SECONDS_MAX: u32 = 24 * 3600;
/// Longest text of it in bytes.
const MESSAGE_BYTES_MAX: usize = 500;
/// How long the boot image looks for the controller, in seconds, and between which bounds that can be set.
const CONTACT_SECONDS: (u32, u32, u32) = (120, 900, 24 * 3600);
/// After how long the watchdog resets a machine that hangs on its way: a server's memory test takes minutes. IPMI counts to 6553.
const WATCHDOG_SECONDS: (u32, u32, u32) = (60, 1200, 6553);

/// How a live machine is to be converted by restarting it into the boot image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rcc {
    /// Only this way; without it the safest that the machine has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// Whether it was accepted that a machine without a watchdog for its way needs one power cycle if it hangs hard.
    #[serde(default)]
    pub accept_no_watchdog: bool,
    /// Seconds between the warning to who is logged in and the restart.
    #[serde(default)]
    pub warning_seconds: u32,
    /// What is said to them, beside why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Commands for the shell of the machine's own system before it is restarted; one that fails ends the task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<MachineCommand>,
    /// Commands after it is back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<MachineCommand>,
    /// What becomes of the machine when its disks are copied.
    #[serde(default)]
    pub at_end: AtEnd,
    /// Seconds for which the boot image looks for the controller before it restarts the machine into its own system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact_seconds: Option<u32>,
    /// Seconds after which a watchdog resets a machine that hangs on its way into the boot image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog_seconds: Option<u32>,
}

/// What becomes of a machine when its disks are copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AtEnd {
    /// It starts its own system.
    #[default]
    Restart,
    /// It is switched off.
    PowerOff,
    /// It stays in the boot image, until an operator ends that.
    Stay,
}

impl Rcc {
    /// How long the boot image looks for the controller.
    pub fn contact_seconds(&self) -> u32 {
        self.contact_seconds.unwrap_or(CONTACT_SECONDS.1)
    }

    /// After how long a watchdog is to reset the machine on its way.
    pub fn watchdog_seconds(&self) -> u32 {
        self.watchdog_seconds.unwrap_or(WATCHDOG_SECONDS.1)
    }

    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`].
    pub fn check(&self) -> Result<()> {
        let invalid = |context: String| Err(Error::new(ErrorKind::Invalid, context));
        let within = |what: &str, value: u32, (least, _, most): (u32, u32, u32)| match (least..=most).contains(&value) {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Invalid,
                format!("{what}: expected {least} to {most} seconds, found {value}"),
            )),
        };
        within("time to look for the controller", self.contact_seconds(), CONTACT_SECONDS)?;
        within("watchdog", self.watchdog_seconds(), WATCHDOG_SECONDS)?;
        within("warning", self.warning_seconds, (0, 0, WARNING_SECONDS_MAX))?;
        if let Some(message) = &self.message
            && (message.len() > MESSAGE_BYTES_MAX || message.chars().any(char::is_control))
        {
            return invalid(format!("message: expected at most {MESSAGE_BYTES_MAX} bytes, none of control"));
        }
        if self.before.len().max(self.after.len()) > COMMANDS_MAX {
            return invalid(format!("commands: expected at most {COMMANDS_MAX} before, and as many after"));
        }
        for command in self.before.iter().chain(&self.after) {
            if command.command.trim().is_empty() || command.command.len() > COMMAND_BYTES_MAX {
                return invalid(format!("command: expected 1 to {COMMAND_BYTES_MAX} bytes"));
            }
            within("time of a command", command.seconds, (1, 0, COMMAND_SECONDS_MAX))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_bounds() {
        assert!(Rcc::default().check().is_ok());
        let command = |text: &str, seconds| vec![MachineCommand { command: text.into(), seconds }];
        let wrong = [
            Rcc { contact_seconds: Some(5), ..Rcc::default() },
            Rcc { watchdog_seconds: Some(10_000), ..Rcc::default() },
            Rcc { warning_seconds: 90_000, ..Rcc::default() },
            Rcc { message: Some("a\u{1b}b".into()), ..Rcc::default() },
            Rcc { before: command(" ", 5), ..Rcc::default() },
            Rcc { after: command("true", 0), ..Rcc::default() },
            Rcc { after: vec![command("true", 5).remove(0); 17], ..Rcc::default() },
        ];
        for rcc in wrong {
            println!("{}", rcc.check().unwrap_err());
        }
        let text = r#"{"before":[{"command":"systemctl stop app"}],"at_end":"power-off"}"#;
        let rcc: Rcc = serde_json::from_str(text).unwrap();
        assert_eq!((rcc.before[0].seconds, rcc.at_end), (300, AtEnd::PowerOff));
    }
}
