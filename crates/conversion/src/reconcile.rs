//! Makes the part of a replica that is there already what its source has now: the machine was away, and its own system may
//! have written its disks.
//!
//! The agent reads what is used and sends hashes; only pieces that differ are sent themselves. Pieces that are used no longer
//! stay as they are: nothing refers to them.

use block::journal::JournaledImage;
use block::{Chunk, Content, CreateOptions, Extent, ImageWriter, Pool};
use machine::{ByteCount, ByteOffset};
use protocol::frame::{CONTENT_BYTES_MAX, Header, Kind};

use crate::receive::{Contents, Failure, insist, read_error, read_hash, source_failed};
use crate::replica::Replica;
use protocol::message::WITHIN_MAX;

use crate::{Cancel, DataStream, Result, StreamMode};

/// Opens a stream of what lies in some extents.
pub type PartSupply<'a> = dyn FnMut(StreamMode, &[Extent]) -> Result<Box<dyn DataStream>> + 'a;

/// Compares everything before the replica's durable end with the source, and replaces what differs. Returns how much that was.
/// `progress` is told how much was compared, and how many bytes came over the network.
///
/// # Errors
/// As [`receive_disk`](crate::receive::receive_disk). The replica is a mixture of both then: it must be reconciled again.
pub fn reconcile_disk(
    supply: &mut PartSupply<'_>,
    replica: &Replica,
    create: &CreateOptions,
    skip_unreadable: bool,
    progress: &mut dyn FnMut(ByteCount, ByteCount),
    cancel: &Cancel,
) -> Result<ByteCount> {
    let image = replica.open(create)?;
    let end = image.durable();
    let mut reconciler = Reconciler {
        replica,
        image,
        position: ByteOffset::ZERO,
        end,
        differing: Vec::new(),
        sent: ByteCount::ZERO,
        progress,
    };
    let (mut compared, mut replaced) = (ByteCount::ZERO, ByteCount::ZERO);
    while reconciler.position < end {
        insist(
            "hashes",
            &mut reconciler,
            |state| supply(StreamMode::Hashes, &[Extent::between(state.position, end)]),
            |state| state.position,
            |state, stream| state.compare(stream, &mut compared, cancel),
            cancel,
        )?;
        let differing = std::mem::take(&mut reconciler.differing);
        let Some(last) = differing.last() else { continue };
        replaced += differing.iter().map(|extent| extent.length()).sum();
        let mut fetch = Fetch { of: &mut reconciler, done: ByteOffset::ZERO, contents: Contents::new()? };
        let part = |done: ByteOffset| -> Vec<Extent> {
            let rest = Extent::between(done, last.end());
            differing.iter().map(|extent| extent.intersection(rest)).filter(|extent| !extent.is_empty()).collect()
        };
        insist(
            "data",
            &mut fetch,
            |fetch| supply(StreamMode::Data { skip_unreadable }, &part(fetch.done)),
            |fetch| fetch.done,
            |fetch, stream| fetch.receive(stream, &part(fetch.done), compared, cancel),
            cancel,
        )?;
        reconciler.image.sync().map_err(|e| replica.failed(e))?;
    }
    reconciler.image.sync().map_err(|e| replica.failed(e))?;
    Ok(replaced)
}

struct Reconciler<'a> {
    replica: &'a Replica,
    image: JournaledImage,
    /// Everything before it was compared.
    position: ByteOffset,
    end: ByteOffset,
    /// Pieces that differ, neighbours joined, and are not replaced yet.
    differing: Vec<Extent>,
    sent: ByteCount,
    progress: &'a mut dyn FnMut(ByteCount, ByteCount),
}

impl Reconciler<'_> {
    /// Compares until the stream ends or there is enough to be fetched.
    fn compare(
        &mut self,
        mut stream: Box<dyn DataStream>,
        compared: &mut ByteCount,
        cancel: &Cancel,
    ) -> std::result::Result<(), Failure> {
        let mut buffer = Pool::new(1).take();
        loop {
            cancel.check().map_err(Failure::Stop)?;
            let header = Header::read_from(&mut stream)?;
            self.sent += ByteCount(protocol::frame::HEADER_BYTES as u64 + u64::from(header.payload_bytes));
            match header.kind {
                Kind::Idle => {}
                Kind::Hash => {
                    let theirs = read_hash(&mut stream, &header)?;
                    let extent = Extent::between(header.offset, header.end());
                    if extent.start() < self.position || extent.end() > self.end {
                        let text = format!("hash of {extent}: expected one between {} and {}", self.position, self.end);
                        return Err(protocol::Error::malformed(text).into());
                    }
                    let ours = &mut buffer[..header.length.to_usize().unwrap_or(CONTENT_BYTES_MAX)];
                    self.image.read_back(extent.start(), ours).map_err(|e| Failure::Stop(self.replica.failed(e)))?;
                    if *blake3::hash(ours).as_bytes() != theirs {
                        self.differs(extent);
                    }
                    self.position = extent.end();
                    *compared += extent.length();
                    (self.progress)(*compared, self.sent);
                    if self.differing.len() == WITHIN_MAX {
                        return Ok(());
                    }
                }
                Kind::Error => {
                    return Err(Failure::Stop(source_failed(header.offset, &read_error(&mut stream, &header)?)));
                }
                Kind::End => {
                    self.position = self.end;
                    return Ok(());
                }
                other => return Err(protocol::Error::malformed(format!("{other:?} in a stream of hashes")).into()),
            }
        }
    }

    fn differs(&mut self, extent: Extent) {
        match self.differing.last_mut() {
            Some(last) if last.end() == extent.start() => *last = Extent::between(last.start(), extent.end()),
            _ => self.differing.push(extent),
        }
    }
}

/// Receives what differs.
struct Fetch<'a, 'b> {
    of: &'a mut Reconciler<'b>,
    /// Everything before it came.
    done: ByteOffset,
    contents: Contents,
}

impl Fetch<'_, '_> {
    fn receive(
        &mut self,
        mut stream: Box<dyn DataStream>,
        wanted: &[Extent],
        compared: ByteCount,
        cancel: &Cancel,
    ) -> std::result::Result<(), Failure> {
        loop {
            cancel.check().map_err(Failure::Stop)?;
            let header = Header::read_from(&mut stream)?;
            self.of.sent += ByteCount(protocol::frame::HEADER_BYTES as u64 + u64::from(header.payload_bytes));
            let content = match header.kind {
                Kind::Idle => continue,
                Kind::Data(codec) => Content::Data(self.contents.read(&mut stream, &header, codec)?),
                Kind::Zero => Content::Zero(header.length),
                Kind::Unreadable => Content::Unreadable(header.length),
                Kind::End => return Ok(()),
                Kind::Error => {
                    return Err(Failure::Stop(source_failed(header.offset, &read_error(&mut stream, &header)?)));
                }
                Kind::Hash => return Err(protocol::Error::malformed("a hash in a stream of data").into()),
            };
            let extent = Extent::new(header.offset, header.length)
                .filter(|extent| extent.start() >= self.done && wanted.iter().any(|wish| wish.contains(*extent)));
            let Some(extent) = extent else {
                let text = format!("frame at {} of {} bytes was not asked for", header.offset, header.length.0);
                return Err(protocol::Error::malformed(text).into());
            };
            let chunk = Chunk { offset: header.offset, content };
            self.of.image.replace(&chunk).map_err(|e| Failure::Stop(self.of.replica.failed(e)))?;
            self.done = extent.end();
            (self.of.progress)(compared, self.of.sent);
        }
    }
}
