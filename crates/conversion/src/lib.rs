//! The pipeline of a conversion: plan → receive or copy → fix up → define → prove.
//!
//! It takes a source (disks of this machine, or a machine on the other end of an agent's connection) and leaves a VM
//! that boots, with the proof beside it. Every step is recorded in a working folder next to the result, so that a
//! conversion that was killed goes on where it was; nothing bears its final name before it is whole.
//!
//! No SQL and no HTTP server here: the controller calls [`convert`], and so does the command line for local disks.

mod annex;
mod appliance;
mod choices;
mod copy;
mod define;
mod dry_run;
mod error;
mod event;
mod fixup;
mod inspect;
mod link_test;
mod local;
mod made;
mod needed;
mod outcome;
mod overlay;
mod pipeline;
mod preflight;
mod programs;
mod prove;
pub mod receive;
pub mod reconcile;
mod remote;
pub mod replica;
mod request;
mod undo;
mod visits;
mod watch;
mod windows;
mod workdir;

pub use choices::{Allocation, Choices, DiskSetting};
pub use error::{Error, ErrorKind, Result};
pub use event::{Cancel, CopyProgress, Event, Observer, Step};
pub use inspect::{Inspection, inspect};
pub use link_test::{LinkTest, test_link};
pub use outcome::{ConvertedDisk, FixUpOutcome, Outcome, Proof, Verdict};
pub use pipeline::convert;
pub use preflight::{Finding, PlannedDisk, Preflight, preflight};
pub use prove::{PROOF_FOLDER, PROOF_RECORD, PROOF_SCREENSHOT, PROOF_SERIAL_LOG};
pub use remote::{DataStream, RemoteMachine, StreamMode, StreamRequest, Visit};
pub use request::{OutputFormat, Request, Source};
pub use windows::WindowsGuests;
pub use workdir::{discard, working_folder};

/// Notes with each volume of a machine where its guest mounts it, as far as its table could be read.
pub use guest::linux::place_mounts;
/// The hypervisors that Windows guests get drivers for.
pub use guest::windows::drivers::Hypervisor;
