//! Settings of conversions, as `convert` and `profiles set` take them.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use controller::schedule::BackBy;
use controller::tasks::Settings;
use conversion::{Allocation, OutputFormat};

use crate::failure::{Failure, Result};

/// What a profile can say, too.
#[derive(Debug, Args)]
pub(crate) struct ConversionSettings {
    /// Existing folder in which the result appears
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Format of the disks [default: qcow2]
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    /// Room that images get: thin grows, full sets aside what the disk can ever take [default: thin]
    #[arg(long, value_enum)]
    pub(crate) allocation: Option<Room>,
    /// Copy the content of swap areas, swap and page files, hibernation and shadow copies, which no system needs after its start
    #[arg(long)]
    pub(crate) keep_swap: bool,
    /// Compare hashes of the source's used blocks with the result's
    #[arg(long)]
    pub(crate) verify: bool,
    /// Fill what cannot be read with zeros, record it, and mark the result incomplete
    #[arg(long)]
    pub(crate) skip_unreadable: bool,
    /// Start the VM in isolation and see it come up [default where QEMU is installed]
    #[arg(long, overrides_with = "no_prove_boot")]
    pub(crate) prove_boot: bool,
    /// Do not start the VM
    #[arg(long)]
    pub(crate) no_prove_boot: bool,
    /// How long the VM may take to show that it is up; then the proof is inconclusive [default: 300, or 1200 without KVM]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(10..=86_400))]
    pub(crate) proof_time: Option<u32>,
    /// MACHINE only: how fast its data may come in, such as 20M (bytes a second) or 200Mbit
    #[arg(long, value_name = "RATE")]
    pub(crate) bandwidth: Option<Rate>,
    /// MACHINE only: when it must have its own system again, such as 06:00 or "06:00 Europe/Berlin"; where that will not be met,
    /// the copy is stopped, the machine given back, and what is copied kept
    #[arg(long, value_name = "TIME")]
    pub(crate) back_by: Option<BackBy>,
}

/// Room of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Room {
    /// As much as it holds; it grows
    Thin,
    /// As much as its disk can ever take
    Full,
}

/// Format of the disks.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Format {
    /// qcow2, uncompressed
    Qcow2,
    /// Sparse raw
    Raw,
}

/// Bytes a second; `None` is as fast as it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) Option<u64>);

impl ConversionSettings {
    /// As the controller takes them: what was not said is left open.
    pub(crate) fn settings(&self) -> Result<Settings> {
        let absolute = |path: &PathBuf| {
            std::path::absolute(path).map_err(|e| Failure::io(&format!("output folder {}", path.display()), &e))
        };
        Ok(Settings {
            output: self.output.as_ref().map(absolute).transpose()?,
            format: self.format.map(Into::into),
            allocation: self.allocation.map(Into::into),
            keep_swap: self.keep_swap.then_some(true),
            verify: self.verify.then_some(true),
            skip_unreadable: self.skip_unreadable.then_some(true),
            prove_boot: match (self.prove_boot, self.no_prove_boot) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                _ => None,
            },
            proof_time_s: self.proof_time,
            bytes_per_second: self.bandwidth.and_then(|rate| rate.0),
            back_by: self.back_by.clone(),
            windows: None,
        })
    }
}

impl From<Room> for Allocation {
    fn from(room: Room) -> Self {
        match room {
            Room::Thin => Self::Thin,
            Room::Full => Self::Full,
        }
    }
}

impl From<Format> for OutputFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Qcow2 => Self::Qcow2,
            Format::Raw => Self::Raw,
        }
    }
}

/// By when a machine must be back in its own system; `None` is as long as it takes.
#[derive(Clone, Debug)]
pub(crate) struct Return(pub(crate) Option<BackBy>);

impl FromStr for Return {
    type Err = controller::Error;

    /// `never`, or a time of day, with a zone or by the controller's own.
    fn from_str(text: &str) -> std::result::Result<Self, controller::Error> {
        match text {
            "never" => Ok(Self(None)),
            _ => text.parse().map(|time| Self(Some(time))),
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    /// `unlimited`; a number of bytes with k, M or G (powers of 1000); or of bits with kbit, Mbit or Gbit.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "unlimited" {
            return Ok(Self(None));
        }
        let wrong = || format!("{text:?}: expected a rate such as 20M (bytes a second), 200Mbit, or unlimited");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = text.get(digits.len()..).unwrap_or_default();
        let (prefix, bits) = match unit.strip_suffix("bit") {
            Some(prefix) => (prefix, 8),
            None => (unit, 1),
        };
        let factor: u64 = match prefix {
            "" => 1,
            "k" | "K" => 1000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            _ => return Err(wrong()),
        };
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        let rate = number.checked_mul(factor).map(|rate| rate / bits).filter(|rate| *rate > 0);
        rate.map(|rate| Self(Some(rate))).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_bytes_or_bits_a_second() {
        let rate = |text: &str| text.parse::<Rate>().map(|rate| rate.0);
        assert_eq!(rate("20M"), Ok(Some(20_000_000)));
        assert_eq!(rate("200Mbit"), Ok(Some(25_000_000)));
        assert_eq!(rate("1500"), Ok(Some(1500)));
        assert_eq!(rate("unlimited"), Ok(None));
        for wrong in ["", "0", "M", "20MB", "-1k", "7bit", "99999999999999999999", "99999999999G", "20 M"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
