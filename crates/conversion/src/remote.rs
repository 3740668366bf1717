//! A machine on the other end of an agent's connection, as the pipeline sees it.

use std::io::{Read, Write};

use machine::{ByteOffset, Machine};
use protocol::message::Scope;
use serde::{Deserialize, Serialize};

use crate::{Cancel, Result};

/// What a data stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamMode {
    /// The used blocks themselves.
    Data {
        /// Go on past unreadable sectors and report each as such.
        skip_unreadable: bool,
    },
    /// Hashes of the used blocks, read again from the disk.
    Hashes,
}

/// A wish for a stream of one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRequest {
    /// Position of the disk in [`Machine::disks`] of the report that [`RemoteMachine::machine`] returned.
    pub disk: usize,
    /// Data or hashes.
    pub mode: StreamMode,
    /// Everything before this position is durable on this side and is not sent again.
    pub resume: ByteOffset,
    /// How much of the disk.
    pub scope: Scope,
    /// The stay in the boot image that the stream must be of, where that matters.
    pub visit: Option<Visit>,
}

impl StreamRequest {
    /// A wish for all of a disk from `resume` on, on whichever visit.
    pub fn whole(disk: usize, mode: StreamMode, resume: ByteOffset) -> Self {
        Self { disk, mode, resume, scope: Scope::default(), visit: None }
    }
}

/// A stay of a machine in the boot image, in which nothing writes its disks: what was copied in one belongs together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Visit(pub String);

/// One connected, authenticated data stream: frames come in, acknowledgements go out.
pub trait DataStream: Read + Write + Send {}

impl<T: Read + Write + Send> DataStream for T {}

/// A source machine that is reached through its agent.
pub trait RemoteMachine: Send + Sync {
    /// What the agent reported last.
    fn machine(&self) -> Machine;

    /// The task that its disks are asked for. A task whose result was whole when the controller was killed is told of that
    /// result, and no other is.
    fn task(&self) -> Option<&str> {
        None
    }

    /// The machine's stay in the boot image; waits until the machine is there. `None` where its own system runs, which writes
    /// its disks all the time: what was `begun` in the boot image waits until it is there again.
    ///
    /// # Errors
    /// When cancelled.
    fn visit(&self, begun: Option<&Visit>, cancel: &Cancel) -> Result<Option<Visit>>;

    /// Asks the agent for a stream and waits until it is there, for as long as it takes: a machine whose link was cut
    /// or whose agent died comes back.
    ///
    /// # Errors
    /// When cancelled, when the machine can never deliver it (another machine's disks, approval withdrawn), and
    /// [`ErrorKind::SourceChanged`](crate::ErrorKind::SourceChanged) where it is there on another visit.
    fn open_stream(&self, request: &StreamRequest, cancel: &Cancel) -> Result<Box<dyn DataStream>>;
}
