//! What can be typed about restarting a live machine into the boot image.

use clap::Args;
use controller::rcc::{AtEnd, MachineCommand, Rcc};
use machine::push::Way;

use super::agents::Life;
use crate::failure::{Code, Failure, Result};

/// How a live machine is converted by automated Remote Cold Cloning.
#[derive(Debug, Args)]
#[command(next_help_heading = "Automated Remote Cold Cloning")]
pub(crate) struct RccArguments {
    /// Restart the live machine into the boot image, convert it, and give it back; its agent is installed (`agent install`)
    #[arg(long)]
    pub(crate) rcc: bool,
    /// Only this way into the boot image: boot-next, kexec, grub or systemd-boot [default: the safest that the machine has]
    #[arg(long, requires = "rcc", value_name = "WAY")]
    pub(crate) way: Option<Way>,
    /// Accept that a machine without a watchdog for its way would need one power cycle if it hung hard
    #[arg(long, requires = "rcc")]
    pub(crate) accept_no_watchdog: bool,
    /// Begin when an operator says so (`tasks resume`), not before
    #[arg(long, requires = "rcc")]
    pub(crate) confirm: bool,
    /// Warn who is logged in so long before the restart: 10m, 1h [default: not at all]
    #[arg(long, requires = "rcc", value_name = "TIME")]
    pub(crate) warn: Option<Life>,
    /// What they are told
    #[arg(long, requires = "rcc", value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// Run this on the machine before it is restarted, and do not restart it where it fails; can be given more than once
    #[arg(long = "before", requires = "rcc", value_name = "COMMAND")]
    pub(crate) before: Vec<String>,
    /// Run this on the machine when it is back; can be given more than once
    #[arg(long = "after", requires = "rcc", value_name = "COMMAND")]
    pub(crate) after: Vec<String>,
    /// What becomes of the machine when its disks are copied: restart, power-off or stay (in the boot image) [default: restart]
    #[arg(long, requires = "rcc", value_name = "STATE", value_parser = parse_at_end)]
    pub(crate) at_end: Option<AtEnd>,
    /// How long the boot image looks for the controller before it restarts the machine [default: 15m]
    #[arg(long, requires = "rcc", value_name = "TIME")]
    pub(crate) contact: Option<Life>,
    /// After how long a watchdog resets a machine that hangs on its way [default: 20m]
    #[arg(long, requires = "rcc", value_name = "TIME")]
    pub(crate) watchdog: Option<Life>,
}

/// Seconds that a command before or after may take.
const COMMAND_SECONDS: u32 = 300;

impl RccArguments {
    /// What was asked for, if it was.
    pub(crate) fn settings(&self) -> Result<Option<Rcc>> {
        if !self.rcc {
            return Ok(None);
        }
        let commands = |texts: &[String]| {
            texts.iter().map(|text| MachineCommand { command: text.clone(), seconds: COMMAND_SECONDS }).collect()
        };
        let rcc = Rcc {
            way: self.way,
            accept_no_watchdog: self.accept_no_watchdog,
            warning_seconds: seconds(self.warn).unwrap_or_default(),
            message: self.message.clone(),
            before: commands(&self.before),
            after: commands(&self.after),
            at_end: self.at_end.unwrap_or_default(),
            contact_seconds: seconds(self.contact),
            watchdog_seconds: seconds(self.watchdog),
        };
        rcc.check().map_err(|e| Failure::new(Code::Usage, e.to_string()))?;
        Ok(Some(rcc))
    }
}

/// Too long a time is told by who knows the bounds.
fn seconds(life: Option<Life>) -> Option<u32> {
    life.map(|life| life.minutes.saturating_mul(60))
}

fn parse_at_end(text: &str) -> std::result::Result<AtEnd, String> {
    match text {
        "restart" => Ok(AtEnd::Restart),
        "power-off" => Ok(AtEnd::PowerOff),
        "stay" => Ok(AtEnd::Stay),
        _ => Err("expected restart, power-off or stay".into()),
    }
}
