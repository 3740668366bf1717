//! What a conversion tells while it runs, and how it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use machine::ByteCount;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A step of a conversion, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// A live machine is restarted into the boot image: its controller's part.
    Reboot,
    /// Everything that can be refused before anything is written.
    Check,
    /// The disks are copied into replicas.
    Copy,
    /// Hashes of the source's used blocks are compared with the replicas'.
    Verify,
    /// Fix-ups are planned and applied to an overlay, which then joins its disk.
    FixUp,
    /// The VM definition is written.
    Define,
    /// The VM is started in isolation and seen to come up.
    Prove,
    /// The machine is seen back in its own system: its controller's part.
    Return,
}

impl Step {
    /// All, in their order.
    pub const ALL: [Self; 8] =
        [Self::Reboot, Self::Check, Self::Copy, Self::Verify, Self::FixUp, Self::Define, Self::Prove, Self::Return];
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reboot => "reboot",
            Self::Check => "check",
            Self::Copy => "copy",
            Self::Verify => "verify",
            Self::FixUp => "fix up",
            Self::Define => "define",
            Self::Prove => "prove",
            Self::Return => "return",
        })
    }
}

/// How far the copy of one disk is. Counts are bytes of that disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CopyProgress {
    /// Position of the disk in the machine, from 0.
    pub disk: usize,
    /// Used bytes already dealt with, zeros included.
    pub done: ByteCount,
    /// Used bytes in all.
    pub total: ByteCount,
    /// Bytes that crossed the network (payloads as sent, without TLS); equal to `written` for a local copy.
    pub sent: ByteCount,
    /// Bytes written into the replica.
    pub written: ByteCount,
    /// Bytes that the source could not read and that were filled with zeros.
    pub unreadable: ByteCount,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A step begins.
    Step {
        /// Which.
        step: Step,
    },
    /// The copy, or the verification, moved on.
    Progress {
        /// Copy or verify.
        step: Step,
        /// How far.
        #[serde(flatten)]
        progress: CopyProgress,
    },
    /// Something worth a line in the task's log.
    Log {
        /// One sentence.
        message: String,
    },
    /// Something the operator should know before trusting the result.
    Warning {
        /// One sentence.
        message: String,
    },
}

/// Whoever is told what happens. Called from the thread that converts; it should return at once.
pub trait Observer: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Event);
}

impl<F: Fn(Event) + Send + Sync> Observer for F {
    fn event(&self, event: Event) {
        self(event);
    }
}

/// A flag by which an operator stops a conversion; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks to stop at the next safe point.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether someone asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// An error if someone asked to stop.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    pub fn check(&self) -> crate::Result<()> {
        if self.is_cancelled() { Err(crate::Error::cancelled()) } else { Ok(()) }
    }
}
