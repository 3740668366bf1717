//! Receives one disk from an agent into an image, and compares one with its source.
//!
//! What is written was checked: position, bounds, order, checksum. Every few MiB the image is made durable, then its
//! journal, and only then the agent is told. A link that was cut, an agent that died or a frame that was damaged is no
//! end: the stream is opened again behind the last good frame. After a crash of this process it is opened again behind
//! what the journal says.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use block::journal::{JournaledImage, State};
use block::{BlockSource, Buffer, Chunk, Content, CreateOptions, Extent, ImageWriter, PieceHash, Pool, Verification};
use machine::{ByteCount, ByteOffset};
use protocol::codec::Decompressor;
use protocol::frame::{Ack, CONTENT_BYTES_MAX, Codec, Header, Kind, StreamError, StreamErrorKind};

use crate::replica::{Replica, note_extent};
use crate::{Cancel, DataStream, Error, ErrorKind, Result};

/// Opens data streams of one disk.
pub trait StreamSupply {
    /// A stream that begins at `resume`; waits until the machine is there, for as long as it takes.
    ///
    /// # Errors
    /// When cancelled, or when the machine can never deliver it.
    fn open(&mut self, resume: ByteOffset) -> Result<Box<dyn DataStream>>;
}

impl<F: FnMut(ByteOffset) -> Result<Box<dyn DataStream>>> StreamSupply for F {
    fn open(&mut self, resume: ByteOffset) -> Result<Box<dyn DataStream>> {
        self(resume)
    }
}

/// How a disk is received.
#[derive(Clone, Debug)]
pub struct ReceiveOptions {
    /// Made durable after so much data.
    pub sync_bytes: ByteCount,
    /// And after that time, if anything came.
    pub sync_interval: Duration,
    /// Least time between two calls of `progress`.
    pub progress_interval: Duration,
    /// How the image is made.
    pub create: CreateOptions,
}

impl Default for ReceiveOptions {
    fn default() -> Self {
        Self {
            sync_bytes: ByteCount::mib(32),
            sync_interval: Duration::from_secs(1),
            progress_interval: Duration::from_millis(200),
            create: CreateOptions::default(),
        }
    }
}

/// What came, so far or in all. Bytes of the disk unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceiveStats {
    /// Everything in use before this position came.
    pub position: ByteOffset,
    /// Used bytes that came, those of earlier runs included.
    pub done: ByteCount,
    /// Of these with content.
    pub data: ByteCount,
    /// Of these zeros.
    pub zero: ByteCount,
    /// Of these unreadable at the source.
    pub unreadable: ByteCount,
    /// Frames as they crossed the network, headers included, TLS not, of this run.
    pub sent: ByteCount,
    /// Received a second time in this run.
    pub resent: ByteCount,
    /// Bytes written into the image's file by this run.
    pub written: ByteCount,
    /// Streams of this run.
    pub streams: u32,
    /// What the source could not read, neighbours joined; the first ten thousand of them.
    pub unreadable_extents: Vec<Extent>,
}

/// Streams that brought nothing, one behind another, before it is given up.
const FRUITLESS_MAX: u32 = 20;
/// Pause after a stream that brought nothing.
const FRUITLESS_PAUSE: Duration = Duration::from_millis(500);
/// A stream may begin before the position that was asked for by less than this: agents read whole grains.
const OVERLAP_MAX: u64 = CONTENT_BYTES_MAX as u64;

/// Receives a disk into its replica, from where an earlier run was interrupted, until it is complete. The journal stays:
/// the caller removes it once it has recorded that the image is whole.
///
/// # Errors
/// [`ErrorKind::Source`] when the agent cannot read its disk, [`ErrorKind::Target`] when the image cannot be written (what
/// is durable stays), [`ErrorKind::Cancelled`]; what `supply` gives.
pub fn receive_disk(
    supply: &mut dyn StreamSupply,
    replica: &Replica,
    options: &ReceiveOptions,
    progress: &mut dyn FnMut(&ReceiveStats),
    cancel: &Cancel,
) -> Result<ReceiveStats> {
    let mut receiver = Receiver::begin(replica, options)?;
    let outcome = insist(
        "data",
        &mut receiver,
        |receiver| supply.open(receiver.stats.position),
        |receiver| receiver.stats.position,
        |receiver, stream| {
            receiver.stats.streams += 1;
            receiver.receive(stream, progress, cancel)
        },
        cancel,
    );
    match outcome {
        Ok(()) => receiver.finish(progress),
        Err(error) => {
            // What came is kept where the disk still takes it; the first error is the one to tell.
            let _ = receiver.image.sync();
            Err(error)
        }
    }
}

/// One stream after another, until one comes to its end. `position` tells whether one brought something: it is given up
/// when twenty in a row did not.
pub(crate) fn insist<S>(
    what: &str,
    state: &mut S,
    mut open: impl FnMut(&mut S) -> Result<Box<dyn DataStream>>,
    position: impl Fn(&S) -> ByteOffset,
    mut receive: impl FnMut(&mut S, Box<dyn DataStream>) -> std::result::Result<(), Failure>,
    cancel: &Cancel,
) -> Result<()> {
    let mut fruitless = 0;
    loop {
        cancel.check()?;
        let before = position(state);
        let stream = open(state)?;
        match receive(state, stream) {
            Ok(()) => return Ok(()),
            Err(Failure::Stop(error)) => return Err(error),
            Err(Failure::Again(error)) => {
                tracing::info!(error = %error.chain(), position = %position(state), "stream interrupted");
                fruitless = if position(state) > before { 0 } else { fruitless + 1 };
                if fruitless >= FRUITLESS_MAX {
                    let text = format!("{FRUITLESS_MAX} streams of {what} of the disk brought nothing");
                    return Err(Error::because(ErrorKind::Source, text, error));
                }
                if fruitless > 0 {
                    std::thread::sleep(FRUITLESS_PAUSE);
                }
            }
        }
    }
}

/// Why a stream ended early.
pub(crate) enum Failure {
    /// Another stream may go on.
    Again(protocol::Error),
    /// No stream can.
    Stop(Error),
}

impl From<protocol::Error> for Failure {
    fn from(error: protocol::Error) -> Self {
        match error.is_transient() {
            true => Self::Again(error),
            false => Self::Stop(Error::because(ErrorKind::Source, "the agent does not keep to the protocol", error)),
        }
    }
}

/// Reads the contents of data frames.
pub(crate) struct Contents {
    pool: Pool,
    decompressor: Decompressor,
    payload: Vec<u8>,
}

impl Contents {
    pub(crate) fn new() -> Result<Self> {
        let decompressor =
            Decompressor::new().map_err(|e| Error::because(ErrorKind::Internal, "cannot decompress", e))?;
        Ok(Self { pool: Pool::new(8), decompressor, payload: Vec::new() })
    }

    /// The content that follows `header`, checked.
    pub(crate) fn read(
        &mut self,
        stream: &mut Box<dyn DataStream>,
        header: &Header,
        codec: Codec,
    ) -> std::result::Result<Buffer, Failure> {
        // The header's own check bounds both lengths by a buffer's.
        let length = header.length.to_usize().unwrap_or(usize::MAX).min(CONTENT_BYTES_MAX);
        let mut buffer = self.pool.take();
        let content = &mut buffer[..length];
        let link = |e| protocol::Error::link("cannot receive a frame", e);
        match codec {
            Codec::Stored => stream.read_exact(content).map_err(link)?,
            Codec::Zstd => {
                self.payload.resize(header.payload_bytes as usize, 0);
                stream.read_exact(&mut self.payload).map_err(link)?;
                self.decompressor.decompress(&self.payload, content)?;
            }
        }
        header.check(content)?;
        Ok(buffer.freeze(length))
    }
}

struct Receiver<'a> {
    replica: &'a Replica,
    image: JournaledImage,
    disk: Extent,
    options: &'a ReceiveOptions,
    contents: Contents,
    stats: ReceiveStats,
    /// Data that is not durable.
    unsynced: ByteCount,
    synced_at: Instant,
    shown_at: Option<Instant>,
}

impl<'a> Receiver<'a> {
    fn begin(replica: &'a Replica, options: &'a ReceiveOptions) -> Result<Self> {
        let mut stats = ReceiveStats::default();
        let image = replica.open(&options.create)?;
        for record in image.journal().records().map_err(|e| replica.failed(e))? {
            let record = record.map_err(|e| replica.failed(e))?;
            let length = record.extent.length();
            if record.replaced {
                if record.state == State::Unreadable {
                    stats.note_unreadable(record.extent);
                }
                continue;
            }
            stats.done += length;
            match record.state {
                State::Data => stats.data += length,
                State::Zero => stats.zero += length,
                State::Unreadable => stats.note_unreadable(record.extent),
            }
        }
        stats.position = image.durable();
        Ok(Self {
            replica,
            image,
            disk: Extent::first(replica.identity.size),
            options,
            contents: Contents::new()?,
            stats,
            unsynced: ByteCount::ZERO,
            synced_at: Instant::now(),
            shown_at: None,
        })
    }

    /// Receives one stream to its end.
    fn receive(
        &mut self,
        mut stream: Box<dyn DataStream>,
        progress: &mut dyn FnMut(&ReceiveStats),
        cancel: &Cancel,
    ) -> std::result::Result<(), Failure> {
        let began = self.stats.position;
        let mut covered = ByteCount::ZERO;
        self.synced_at = Instant::now();
        loop {
            cancel.check().map_err(Failure::Stop)?;
            let header = Header::read_from(&mut stream)?;
            self.stats.sent += ByteCount(protocol::frame::HEADER_BYTES as u64 + u64::from(header.payload_bytes));
            match header.kind {
                Kind::Data(codec) => {
                    let data = self.contents.read(&mut stream, &header, codec)?;
                    covered += header.length;
                    self.write(header, Content::Data(data), began)?;
                }
                Kind::Zero => {
                    covered += header.length;
                    self.write(header, Content::Zero(header.length), began)?;
                }
                Kind::Unreadable => {
                    covered += header.length;
                    self.write(header, Content::Unreadable(header.length), began)?;
                }
                Kind::Idle => {}
                Kind::Error => {
                    let error = read_error(&mut stream, &header)?;
                    self.sync(&mut stream)?;
                    return Err(Failure::Stop(source_failed(header.offset, &error)));
                }
                Kind::End if header.offset == self.disk.end() && header.length == covered => {
                    self.stats.position = self.disk.end();
                    return self.sync(&mut stream);
                }
                Kind::End => {
                    let text = format!(
                        "the stream ended at {} after {} bytes: expected {} and {}",
                        header.offset,
                        header.length.0,
                        self.disk.end(),
                        covered.0
                    );
                    return Err(protocol::Error::malformed(text).into());
                }
                Kind::Hash => return Err(protocol::Error::malformed("a hash in a stream of data").into()),
            }
            let interval = self.synced_at.elapsed() >= self.options.sync_interval && !self.unsynced.is_zero();
            if interval || self.unsynced >= self.options.sync_bytes {
                self.sync(&mut stream)?;
            }
            self.show(progress);
        }
    }

    /// Writes what is new of a frame.
    fn write(&mut self, header: Header, content: Content, began: ByteOffset) -> std::result::Result<(), Failure> {
        let Some(extent) = Extent::new(header.offset, header.length).filter(|e| self.disk.contains(*e)) else {
            let text = format!("frame at {} of {} bytes beyond the disk", header.offset, header.length.0);
            return Err(protocol::Error::malformed(text).into());
        };
        let position = self.stats.position;
        let known = position.saturating_since(extent.start());
        if known.0 > 0 && (position != began || known.0 >= OVERLAP_MAX) {
            let text = format!("frame at {} comes behind {position}: frames ascend", header.offset);
            return Err(protocol::Error::malformed(text).into());
        }
        self.stats.resent += known.min(extent.length());
        let new = Extent::between(extent.start().max(position), extent.end());
        if new.is_empty() {
            return Ok(());
        }
        let content = match content {
            Content::Data(data) => {
                self.stats.data += new.length();
                self.unsynced += new.length();
                Content::Data(data.slice(data.len() - new.length().to_usize().unwrap_or(data.len())..data.len()))
            }
            Content::Zero(_) => {
                self.stats.zero += new.length();
                Content::Zero(new.length())
            }
            Content::Unreadable(_) => {
                self.stats.note_unreadable(new);
                Content::Unreadable(new.length())
            }
        };
        self.image.write(Chunk { offset: new.start(), content }).map_err(|e| Failure::Stop(self.replica.failed(e)))?;
        self.stats.done += new.length();
        self.stats.position = new.end();
        Ok(())
    }

    /// First the image, then the journal, then the agent is told.
    fn sync(&mut self, stream: &mut Box<dyn DataStream>) -> std::result::Result<(), Failure> {
        let durable = self.image.sync().map_err(|e| Failure::Stop(self.replica.failed(e)))?;
        self.unsynced = ByteCount::ZERO;
        self.synced_at = Instant::now();
        self.stats.written = self.image.bytes_written();
        Ack { durable: durable.min(self.stats.position) }.write_to(stream)?;
        Ok(())
    }

    fn show(&mut self, progress: &mut dyn FnMut(&ReceiveStats)) {
        if self.shown_at.is_none_or(|at| at.elapsed() >= self.options.progress_interval) {
            self.stats.written = self.image.bytes_written();
            progress(&self.stats);
            self.shown_at = Some(Instant::now());
        }
    }

    fn finish(mut self, progress: &mut dyn FnMut(&ReceiveStats)) -> Result<ReceiveStats> {
        let written = self.image.bytes_written();
        self.image.finish_with_journal().map_err(|e| self.replica.failed(e))?;
        self.stats.written = self.stats.written.max(written);
        progress(&self.stats);
        Ok(self.stats)
    }
}

impl ReceiveStats {
    fn note_unreadable(&mut self, extent: Extent) {
        self.unreadable += extent.length();
        note_extent(&mut self.unreadable_extents, extent);
    }
}

/// Compares the hashes that the agent makes of its disk, read again, with the replica. The replica may be anything that
/// reads as the received disk does.
///
/// # Errors
/// As [`receive_disk`]; a difference is no error.
pub fn verify_disk(
    supply: &mut dyn StreamSupply,
    replica: &Arc<dyn BlockSource>,
    progress: &mut dyn FnMut(&Verification),
    cancel: &Cancel,
) -> Result<Verification> {
    let mut buffer = Pool::new(1).take();
    let mut state = (ByteOffset::ZERO, Verification::default());
    insist(
        "hashes",
        &mut state,
        |(position, _)| supply.open(*position),
        |(position, _)| *position,
        |(position, found), stream| compare_stream(stream, &**replica, &mut buffer, position, found, progress, cancel),
        cancel,
    )?;
    Ok(state.1)
}

fn compare_stream(
    mut stream: Box<dyn DataStream>,
    replica: &dyn BlockSource,
    buffer: &mut [u8],
    position: &mut ByteOffset,
    found: &mut Verification,
    progress: &mut dyn FnMut(&Verification),
    cancel: &Cancel,
) -> std::result::Result<(), Failure> {
    let disk = Extent::first(replica.size());
    loop {
        cancel.check().map_err(Failure::Stop)?;
        let header = Header::read_from(&mut stream)?;
        match header.kind {
            Kind::Idle => {}
            Kind::Hash => {
                let expected = read_hash(&mut stream, &header)?;
                let extent = Extent::between(header.offset, header.end());
                if extent.end() <= *position {
                    continue;
                }
                if !disk.contains(extent) {
                    let text = format!("hash of {extent} beyond the replica's {} bytes", disk.length().0);
                    return Err(protocol::Error::malformed(text).into());
                }
                let content = &mut buffer[..header.length.to_usize().unwrap_or(CONTENT_BYTES_MAX)];
                let unreadable = |e| Failure::Stop(Error::because(ErrorKind::Target, "the replica cannot be read", e));
                replica.read_at(header.offset, content).map_err(unreadable)?;
                let ours = PieceHash { extent, hash: *blake3::hash(content).as_bytes() };
                found.compare(PieceHash { extent, hash: expected }, ours);
                *position = extent.end();
                progress(found);
            }
            Kind::Error => return Err(Failure::Stop(source_failed(header.offset, &read_error(&mut stream, &header)?))),
            Kind::End if header.offset <= disk.end() => return Ok(()),
            other => return Err(protocol::Error::malformed(format!("{other:?} in a stream of hashes")).into()),
        }
    }
}

pub(crate) fn read_hash(
    stream: &mut Box<dyn DataStream>,
    header: &Header,
) -> std::result::Result<[u8; protocol::frame::HASH_BYTES], Failure> {
    let mut hash = [0; protocol::frame::HASH_BYTES];
    stream.read_exact(&mut hash).map_err(|e| protocol::Error::link("cannot receive a frame", e))?;
    header.check(&hash)?;
    Ok(hash)
}

pub(crate) fn read_error(
    stream: &mut Box<dyn DataStream>,
    header: &Header,
) -> std::result::Result<StreamError, Failure> {
    let mut payload = vec![0; header.payload_bytes as usize];
    stream.read_exact(&mut payload).map_err(|e| protocol::Error::link("cannot receive a frame", e))?;
    header.check(&payload)?;
    Ok(StreamError::from_payload(&payload))
}

pub(crate) fn source_failed(offset: ByteOffset, error: &StreamError) -> Error {
    let text: String = error.text.chars().filter(|c| !c.is_control()).collect();
    let text = match error.kind {
        StreamErrorKind::Unreadable => format!("the source cannot read its disk at {offset}: {text}"),
        StreamErrorKind::Source | StreamErrorKind::Other => format!("the source stopped: {text}"),
    };
    Error::new(ErrorKind::Source, text)
}
