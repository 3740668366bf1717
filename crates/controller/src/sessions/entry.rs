//! Who gets in at the agent port: decided from what the store knows of a key and from what its certificate is worth.
//!
//! | | made by itself | issued here | over | another CA's |
//! | --- | --- | --- | --- | --- |
//! | unknown key | waits | waits | refused | refused |
//! | approved, never kept a certificate | works | works | refused | refused |
//! | approved, kept one | waits | works | refused | refused |
//! | revoked | refused | refused | refused | refused |
//!
//! Whoever waits can do nothing until an operator approves, or approves again. A certificate says nothing that the store
//! does not confirm: of a key that the store does not know it is worth nothing. An agent whose certificate is over comes
//! again without it, and waits; a revoked key is refused for ever, so that nobody approves it by mistake.

use std::time::Duration;

use protocol::certificate::Shown;

use crate::Timestamp;
use crate::store::KeyStanding;

/// What a connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// It works.
    Works {
        /// The end of the certificate that it shows; `None` where its key alone is taken.
        until: Option<Timestamp>,
    },
    /// It waits for an operator.
    Waits,
    /// It is sent away.
    Refused(Refusal),
}

/// Why a connection is sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its key was revoked.
    Revoked,
    /// Its certificate is over.
    Over(Timestamp),
    /// Its certificate is another controller's.
    Foreign,
}

pub(super) fn entry(standing: KeyStanding, shown: Shown) -> Entry {
    match (standing, shown) {
        (KeyStanding::Revoked, _) => Entry::Refused(Refusal::Revoked),
        (_, Shown::Foreign) => Entry::Refused(Refusal::Foreign),
        (_, Shown::Over { until }) => Entry::Refused(Refusal::Over(moment(until))),
        (KeyStanding::Approved { .. }, Shown::Issued { until }) => Entry::Works { until: Some(moment(until)) },
        (KeyStanding::Approved { certified: false }, Shown::SelfMade) => Entry::Works { until: None },
        (KeyStanding::Approved { certified: true }, Shown::SelfMade) | (KeyStanding::Unknown, _) => Entry::Waits,
    }
}

impl Refusal {
    /// For the machine's screen.
    pub(super) fn reason(self) -> String {
        match self {
            Self::Revoked => "this machine's key was revoked".into(),
            Self::Over(at) => format!("this machine's certificate is over since {at}"),
            Self::Foreign => "this machine's certificate is another controller's".into(),
        }
    }

    /// What somebody at the machine can do.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::Revoked => {
                "restart the machine from the boot image, or remove the agent's state folder: it gets another"
            }
            Self::Over(_) => "it comes again without, and waits for an operator's approval",
            Self::Foreign => "remove the agent's state folder: it waits for approval then",
        }
    }
}

/// A time since 1970, as the store has it.
pub(super) fn moment(since: Duration) -> Timestamp {
    Timestamp(0).after(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_at_the_head_is_what_is_done() {
        let until = Duration::from_secs(5);
        let shown = [Shown::SelfMade, Shown::Issued { until }, Shown::Over { until }, Shown::Foreign];
        let works = Entry::Works { until: Some(Timestamp(5000)) };
        let (over, foreign) = (Entry::Refused(Refusal::Over(Timestamp(5000))), Entry::Refused(Refusal::Foreign));
        let by_key = Entry::Works { until: None };
        for (standing, expected) in [
            (KeyStanding::Unknown, [Entry::Waits, Entry::Waits, over, foreign]),
            (KeyStanding::Approved { certified: false }, [by_key, works, over, foreign]),
            (KeyStanding::Approved { certified: true }, [Entry::Waits, works, over, foreign]),
            (KeyStanding::Revoked, [Entry::Refused(Refusal::Revoked); 4]),
        ] {
            assert_eq!(shown.map(|shown| entry(standing, shown)), expected, "{standing:?}");
        }
    }
}
