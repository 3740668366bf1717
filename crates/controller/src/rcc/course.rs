//! How an automated Remote Cold Cloning went: kept with its task, told to the operator.

use machine::push::{BootPathReport, Way};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// A command for the shell of a machine's own system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MachineCommand {
    /// For `/bin/sh -c`.
    pub command: String,
    /// After so many it is ended.
    #[serde(default = "MachineCommand::seconds_default")]
    pub seconds: u32,
}

impl MachineCommand {
    fn seconds_default() -> u32 {
        300
    }
}

/// What happened of an automated Remote Cold Cloning so far; what did not happen is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Course {
    /// The way that was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// When the boot image was in place on the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed_at: Option<Timestamp>,
    /// When the machine was told to start it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted_at: Option<Timestamp>,
    /// When the boot image reported, with the boot path restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived_at: Option<Timestamp>,
    /// What the boot image restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<BootPathReport>,
    /// When the machine was told to start its own system, or to switch itself off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_at: Option<Timestamp>,
    /// When its own system was heard again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_at: Option<Timestamp>,
    /// What its own system found when it compared the boot path with the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_path: Option<BootPathReport>,
}

impl Course {
    /// Whether the machine was sent away and is not known to be back.
    pub fn is_away(&self) -> bool {
        self.restarted_at.is_some() && self.back_at.is_none()
    }

    /// Seconds for which the machine did not serve: from the order to restart until its own system was heard again.
    pub fn downtime_seconds(&self) -> Option<u64> {
        Some(self.back_at?.millis_since(self.restarted_at?) / 1000)
    }

    /// The downtime in words, with its parts.
    pub fn describe_downtime(&self) -> Option<String> {
        let between = |from: Option<Timestamp>, to: Option<Timestamp>| Some(to?.millis_since(from?) / 1000);
        let whole = self.downtime_seconds()?;
        let parts = [
            (between(self.restarted_at, self.arrived_at), "into the boot image"),
            (between(self.arrived_at, self.released_at), "in it"),
            (between(self.released_at, self.back_at), "back to its own system"),
        ];
        let parts: Vec<String> =
            parts.into_iter().filter_map(|(seconds, what)| Some(format!("{} s {what}", seconds?))).collect();
        Some(match parts.is_empty() {
            true => format!("{whole} s"),
            false => format!("{whole} s: {}", parts.join(", ")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_downtime_is_told_with_its_parts() {
        let at = |seconds: i64| Some(Timestamp(seconds * 1000));
        let mut course = Course { restarted_at: at(100), ..Course::default() };
        assert!(course.is_away() && course.describe_downtime().is_none());
        course.back_at = at(160);
        assert_eq!(course.describe_downtime().unwrap(), "60 s");
        course = Course { arrived_at: at(131), released_at: at(150), back_at: at(190), ..course };
        assert_eq!(
            course.describe_downtime().unwrap(),
            "90 s: 31 s into the boot image, 19 s in it, 40 s back to its own system"
        );
        assert!(!course.is_away());
    }
}
