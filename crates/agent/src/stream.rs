//! One data connection: a disk's used contents, or their hashes, as frames.
//!
//! Three threads: one reads the disk and compresses, one sends, one takes acknowledgements. Bounded queues between them
//! keep memory small whatever the disk or the link does.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use block::{Buffer, Chunk, Content, Extent, ExtentReader, ReadOptions};
use machine::{ByteCount, ByteOffset};
use protocol::Connection;
use protocol::codec::Compressor;
use protocol::frame::{
    Ack, CONTENT_BYTES_MAX, Codec, HEADER_BYTES, Header, IDLE_SECONDS, Kind, StreamError, StreamErrorKind,
};
use protocol::message::{Compress, OnUnreadable, StreamMode};

use crate::inventory::OpenDisk;
use crate::pace::{LinkRate, Pace};
use crate::{Error, ErrorKind, Result, Screen, Status};

/// Frames between the thread that reads and the one that sends.
const QUEUE_FRAMES: usize = 4;
/// Reads of 1 MiB in flight.
const READS_IN_FLIGHT: usize = 8;
/// Frames are sent together until they have this many bytes.
const BATCH_BYTES: usize = 256 << 10;
/// Frames of a batch, however short.
const BATCH_FRAMES: usize = 64;

/// A frame on its way to the sender.
struct Frame {
    header: Header,
    payload: Payload,
}

enum Payload {
    None,
    /// Content as it was read.
    Read(Buffer),
    /// Compressed content, a hash, an error.
    Made(Vec<u8>),
}

impl Payload {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Read(buffer) => buffer,
            Self::Made(bytes) => bytes,
        }
    }
}

/// Sends what `mode` asks for, to the end.
///
/// # Errors
/// [`ErrorKind::Link`] when the connection was cut; [`ErrorKind::Disk`] for what the controller was told in an error frame.
pub(crate) fn serve(connection: &Connection, disk: &OpenDisk, mode: &StreamMode, screen: &Screen) -> Result<()> {
    let (sender, frames) = sync_channel(QUEUE_FRAMES);
    let link = LinkRate::default();
    let spare = Mutex::new(Vec::new());
    let durable = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let acknowledged = scope.spawn(|| receive_acks(connection, &durable));
        let producer = scope.spawn(|| Producer::new(sender, mode, &link, &spare)?.run(disk, mode));
        let sent = send_frames(connection, frames, &link, &spare, &Progress { disk, mode, screen });
        if sent.is_err() {
            connection.abort();
        }
        let produced = producer.join().unwrap_or_else(|_| Err(Error::new(ErrorKind::Disk, "the reader panicked")));
        let _ = acknowledged.join();
        // The disk's failure is what the link's failure may only follow from.
        produced.and(sent)
    })
}

/// What the screen is told.
struct Progress<'a> {
    disk: &'a OpenDisk,
    mode: &'a StreamMode,
    screen: &'a Screen,
}

impl Progress<'_> {
    fn show(&self, done: u64) {
        let total = self.disk.used_bytes.0.max(done);
        let disk = self.disk.disk.path.clone();
        self.screen.show(match self.mode {
            StreamMode::Data { .. } => Status::Copying { disk, done, total },
            StreamMode::Hashes { .. } => Status::Verifying { disk, done, total },
        });
    }
}

fn send_frames(
    connection: &Connection,
    frames: Receiver<Frame>,
    link: &LinkRate,
    spare: &Mutex<Vec<Vec<u8>>>,
    progress: &Progress<'_>,
) -> Result<()> {
    let failed = |e| Error::new(ErrorKind::Link, "cannot send to the controller").because(e);
    let mut meter = link.meter();
    let mut batch: Vec<Frame> = Vec::with_capacity(BATCH_FRAMES);
    let mut done = 0;
    loop {
        match frames.recv_timeout(Duration::from_secs(IDLE_SECONDS)) {
            Ok(frame) => batch.push(frame),
            Err(RecvTimeoutError::Timeout) => {
                let idle = Header::bare(Kind::Idle, ByteOffset::ZERO, ByteCount::ZERO);
                connection.write_parts(&[&idle.to_bytes()]).map_err(failed)?;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let mut bytes = batch[0].payload.bytes().len();
        while bytes < BATCH_BYTES && batch.len() < BATCH_FRAMES {
            let Ok(frame) = frames.try_recv() else { break };
            bytes += frame.payload.bytes().len() + HEADER_BYTES;
            batch.push(frame);
        }
        let headers: Vec<[u8; HEADER_BYTES]> = batch.iter().map(|frame| frame.header.to_bytes()).collect();
        let parts: Vec<&[u8]> =
            batch.iter().zip(&headers).flat_map(|(frame, header)| [&header[..], frame.payload.bytes()]).collect();
        let began = Instant::now();
        connection.write_parts(&parts).map_err(failed)?;
        meter.sent(bytes, began.elapsed());
        for Frame { header, payload } in batch.drain(..) {
            if matches!(header.kind, Kind::Data(_) | Kind::Zero | Kind::Hash | Kind::Unreadable) {
                done += header.length.0;
            }
            if let (Payload::Made(buffer), Ok(mut spare)) = (payload, spare.lock())
                && spare.len() <= QUEUE_FRAMES
            {
                spare.push(buffer);
            }
        }
        progress.show(done);
    }
    connection.finish();
    Ok(())
}

/// Until the controller closes. A connection that is cut is cut for the sender, too.
fn receive_acks(connection: &Connection, durable: &AtomicU64) {
    connection.set_read_timeout(None);
    while let Ok(ack) = Ack::read_from(connection) {
        durable.fetch_max(ack.durable.0, Ordering::Relaxed);
    }
    connection.abort();
}

/// Reads the disk and makes frames.
struct Producer<'a> {
    frames: SyncSender<Frame>,
    compressor: Compressor,
    pace: Pace,
    link: &'a LinkRate,
    spare: &'a Mutex<Vec<Vec<u8>>>,
    /// A run of zeros that may go on.
    zeros: Extent,
    covered: ByteCount,
}

/// The controller is gone; the sender knows why.
struct Gone;

impl<'a> Producer<'a> {
    fn new(
        frames: SyncSender<Frame>,
        mode: &StreamMode,
        link: &'a LinkRate,
        spare: &'a Mutex<Vec<Vec<u8>>>,
    ) -> Result<Self> {
        let compress = match mode {
            StreamMode::Data { compress, .. } => *compress,
            StreamMode::Hashes { .. } => Compress::Never,
        };
        let zeros = Extent::first(ByteCount::ZERO);
        let (compressor, pace) = (Compressor::new()?, Pace::new(compress));
        Ok(Self { frames, compressor, pace, link, spare, zeros, covered: ByteCount::ZERO })
    }

    /// Ok as well when the controller is gone: that is the sender's to tell.
    fn run(mut self, disk: &OpenDisk, mode: &StreamMode) -> Result<()> {
        let (resume, on_unreadable) = match mode {
            StreamMode::Data { resume, on_unreadable, .. } => (*resume, *on_unreadable),
            StreamMode::Hashes { resume } => (*resume, OnUnreadable::Stop),
        };
        let options = ReadOptions {
            queue_depth: READS_IN_FLIGHT,
            on_unreadable: match on_unreadable {
                OnUnreadable::Stop => block::OnUnreadable::Stop,
                OnUnreadable::Skip => block::OnUnreadable::Skip,
            },
            ..ReadOptions::default()
        };
        let whole = Extent::first(disk.source.size());
        let wanted = disk.used.extents(Extent::between(resume, whole.end()));
        for chunk in ExtentReader::new(disk.source.clone(), wanted, options) {
            let sent = match chunk {
                Ok(chunk) => match mode {
                    StreamMode::Data { .. } => self.send_chunk(chunk),
                    StreamMode::Hashes { .. } => self.send_hashes(chunk),
                },
                Err(error) => return self.send_error(error),
            };
            if sent.is_err() {
                return Ok(());
            }
        }
        let end = Header::bare(Kind::End, whole.end(), self.covered);
        let _ = self.flush_zeros().and_then(|()| self.send(end, Payload::None));
        Ok(())
    }

    fn send(&self, header: Header, payload: Payload) -> std::result::Result<(), Gone> {
        self.frames.send(Frame { header, payload }).map_err(|_| Gone)
    }

    fn send_chunk(&mut self, chunk: Chunk) -> std::result::Result<(), Gone> {
        self.covered += chunk.length();
        match chunk.content {
            Content::Zero(length) => {
                if self.zeros.end() == chunk.offset && !self.zeros.is_empty() {
                    self.zeros = Extent::between(self.zeros.start(), chunk.offset + length);
                    return Ok(());
                }
                self.flush_zeros()?;
                self.zeros = Extent::between(chunk.offset, chunk.offset + length);
                Ok(())
            }
            Content::Unreadable(length) => {
                self.flush_zeros()?;
                self.send(Header::bare(Kind::Unreadable, chunk.offset, length), Payload::None)
            }
            Content::Data(data) => {
                self.flush_zeros()?;
                let (header, payload) = self.encode(chunk.offset, data);
                self.send(header, payload)
            }
        }
    }

    fn flush_zeros(&mut self) -> std::result::Result<(), Gone> {
        let zeros = std::mem::replace(&mut self.zeros, Extent::first(ByteCount::ZERO));
        match zeros.is_empty() {
            true => Ok(()),
            false => self.send(Header::bare(Kind::Zero, zeros.start(), zeros.length()), Payload::None),
        }
    }

    fn encode(&mut self, offset: ByteOffset, data: Buffer) -> (Header, Payload) {
        if self.pace.try_next(self.link) {
            let began = Instant::now();
            let mut made = self.spare.lock().ok().and_then(|mut spare| spare.pop()).unwrap_or_default();
            let shrank = self.compressor.compress(&data, &mut made);
            self.pace.learn(data.len(), if shrank { made.len() } else { data.len() }, began.elapsed());
            if shrank {
                return (Header::data(offset, &data, Codec::Zstd, made.len()), Payload::Made(made));
            }
        }
        (Header::data(offset, &data, Codec::Stored, data.len()), Payload::Read(data))
    }

    fn send_hashes(&mut self, chunk: Chunk) -> std::result::Result<(), Gone> {
        self.covered += chunk.length();
        match chunk.content {
            Content::Data(data) => self.send_hash(chunk.offset, &data),
            Content::Zero(mut length) => {
                let zeros = vec![0; CONTENT_BYTES_MAX];
                let mut offset = chunk.offset;
                while !length.is_zero() {
                    let piece = length.min(CONTENT_BYTES_MAX.into());
                    self.send_hash(offset, &zeros[..piece.to_usize().unwrap_or(CONTENT_BYTES_MAX)])?;
                    offset += piece;
                    length = length - piece;
                }
                Ok(())
            }
            Content::Unreadable(length) => {
                self.send(Header::bare(Kind::Unreadable, chunk.offset, length), Payload::None)
            }
        }
    }

    fn send_hash(&self, offset: ByteOffset, content: &[u8]) -> std::result::Result<(), Gone> {
        let hash = blake3::hash(content).as_bytes().to_vec();
        self.send(Header::about(Kind::Hash, offset, content.len().into(), &hash), Payload::Made(hash))
    }

    /// The controller is told where and why the disk stopped.
    fn send_error(mut self, error: block::Error) -> Result<()> {
        let kind = match error.kind {
            block::ErrorKind::Unreadable => StreamErrorKind::Unreadable,
            _ => StreamErrorKind::Source,
        };
        let payload = StreamError { kind, text: crate::error::chain(&error) }.to_payload();
        let header = Header::about(Kind::Error, error.offset.unwrap_or_default(), ByteCount::ZERO, &payload);
        let _ = self.flush_zeros().and_then(|()| self.send(header, Payload::Made(payload)));
        Err(Error::new(ErrorKind::Disk, "the disk cannot be read").because(error))
    }
}
