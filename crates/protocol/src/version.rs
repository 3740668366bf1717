//! Versions of the protocol.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A revision of what follows the opening of a connection. The opening itself ([`crate::message::Opening`] and its
/// answer) is frozen, so that any two programs can tell each other which revisions they speak.
///
/// * **1**, first light: pairing by commit and reveal, `Report`, `ServeDisk` with data and hash streams, frames of at
///   most 1 MiB with XXH3 checksums, stored or zstd, acknowledged by position.
/// * **2**, the Device Installer: drivers pushed to the boot image ([`crate::driver`]); an agent reports anew by itself
///   when its hardware changed.
/// * **3**, enrolment: a one-time token in the place of a pairing ([`crate::enrolment`]), and certificates for agents that
///   were approved ([`crate::certificate`]). An agent of revision 2 is served as before, by its approved key alone; one
///   that ever kept a certificate is not served without it any more, whichever revision it says that it speaks. Of a disk
///   parts are asked for or left out, and swap is kept ([`crate::message::Scope`]); a machine is given back or switched off
///   ([`crate::message::ControllerMessage::Power`]).
/// * **4**, automated Remote Cold Cloning: a live machine says how it could be started from the boot image once
///   ([`machine::push::Survey`]), is sent what that needs, starts it, and says whether its boot path is as it was; commands of
///   an operator's run before and after.
///
/// A program speaks its newest revision and, still, those from 2 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u16);

/// Revisions that a program speaks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VersionRange {
    /// The oldest.
    pub oldest: Version,
    /// The newest.
    pub newest: Version,
}

impl Version {
    /// Drivers are pushed.
    pub const V2: Self = Self(2);
    /// Tokens enrol, certificates are shown, parts of a disk are left out.
    pub const V3: Self = Self(3);
    /// The boot image is pushed to a live machine.
    pub const V4: Self = Self(4);
}

impl VersionRange {
    /// What this build speaks.
    pub const SPOKEN: Self = Self { oldest: Version::V2, newest: Version::V4 };

    /// The newest revision that both speak.
    pub fn common(self, other: Self) -> Option<Version> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.oldest == self.newest {
            true => write!(f, "{}", self.newest),
            false => write!(f, "{} to {}", self.oldest, self.newest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_revision_is_chosen() {
        let range = |oldest, newest| VersionRange { oldest: Version(oldest), newest: Version(newest) };
        assert_eq!(range(1, 2).common(range(2, 3)), Some(Version(2)));
        assert_eq!(range(3, 4).common(range(1, 9)), Some(Version(4)));
        assert_eq!(range(1, 2).common(range(3, 4)), None);
        assert_eq!(range(5, 4).common(range(1, 9)), None, "a range of a liar");
    }
}
