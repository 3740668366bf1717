//! A machine on the other end of an agent's connection, as the pipeline sees it.

use std::io::{Read, Write};

use machine::{ByteOffset, Machine};
use protocol::message::Scope;

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
}

/// One connected, authenticated data stream: frames come in, acknowledgements go out.
pub trait DataStream: Read + Write + Send {}

impl<T: Read + Write + Send> DataStream for T {}

/// A source machine that is reached through its agent.
pub trait RemoteMachine: Send + Sync {
    /// What the agent reported last.
    fn machine(&self) -> Machine;

    /// Asks the agent for a stream and waits until it is there, for as long as it takes: a machine whose link was cut
    /// or whose agent died comes back.
    ///
    /// # Errors
    /// When cancelled, or when the machine can never deliver it (another machine's disks, approval withdrawn).
    fn open_stream(&self, request: &StreamRequest, cancel: &Cancel) -> Result<Box<dyn DataStream>>;
}
