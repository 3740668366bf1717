//! The durable, append-only journal beside an image that is being written (`DISK.journal`): which extents are safely
//! in the image, so that a killed process goes on where it was.
//!
//! Layout, little-endian: a header of 128 bytes (`VCJOURNL`, version, format, size of the disk, sector-independent disk
//! id, CRC-32), then records of 32 bytes (kind, sequence number, start, length, CRC-32 that also covers the header's
//! nonce). A record that is cut off or fails its CRC ends the journal: what was torn was never promised.
//!
//! The order that makes it true: the data is made durable in the image first, then its records are appended and made
//! durable. [`JournaledImage`] keeps that order.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use machine::{ByteCount, ByteOffset};

use crate::{
    Chunk, Content, CreateOptions, Error, ErrorKind, Extent, Format, ImageEditor, ImageWriter, Placed, PlacedIter,
    Result, create_image, resume_image,
};

const MAGIC: [u8; 8] = *b"VCJOURNL";
const VERSION: u32 = 1;
const HEADER_SIZE: usize = 128;
const RECORD_SIZE: usize = 32;
/// Set in the kind of a record of what was replaced.
const REPLACED: u8 = 0x80;
/// The longest disk id that the header holds.
pub const DISK_ID_MAX: usize = 64;
/// Records kept in memory before they are made durable without being asked.
const PENDING_MAX: usize = 4096;

/// What an image belongs to; a journal is only gone on with for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageIdentity {
    /// Any stable name of the disk (WWN, serial, UUID of the copy), at most [`DISK_ID_MAX`] bytes.
    pub disk: String,
    /// Size of the disk.
    pub size: ByteCount,
    /// Format of the image.
    pub format: Format,
}

/// What an extent of the image is known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Data was written.
    Data,
    /// It was found to be zeros, nothing was written.
    Zero,
    /// It could not be read; zeros stand in its place and the image is incomplete.
    Unreadable,
}

/// One extent that is durable in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where on the disk.
    pub extent: Extent,
    /// What is there.
    pub state: State,
    /// Whether it was replaced later: such extents do not ascend, and only those that got a place in the file, or could not
    /// be read, are told.
    pub replaced: bool,
}

/// An open journal, appended to.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    identity: ImageIdentity,
    sequence: u64,
    salt: u32,
}

impl Journal {
    /// Makes the journal; it must not exist.
    ///
    /// # Errors
    /// What the operating system said, or [`ErrorKind::Unsupported`] for a disk id that is too long.
    pub fn create(path: &Path, identity: &ImageIdentity) -> Result<Self> {
        let header = encode_header(identity)?;
        let io = |e| Error::io(format!("cannot create the journal {}", path.display()), e);
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(path).map_err(io)?;
        file.write_all(&header).and_then(|()| file.sync_all()).map_err(io)?;
        // The name must survive too.
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            identity: identity.clone(),
            sequence: 0,
            salt: crc32fast::hash(&header),
        })
    }

    /// Opens a journal to go on with it; a torn tail is cut off.
    ///
    /// # Errors
    /// What the operating system said, or [`ErrorKind::Malformed`] for what is no journal.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |e| Error::io(format!("cannot open the journal {}", path.display()), e);
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
        let mut replay = Replay::new(BufReader::new(&file))?;
        let identity = replay.identity.clone();
        replay.by_ref().try_for_each(|record| record.map(drop))?;
        let (sequence, salt) = (replay.sequence, replay.salt);
        drop(replay);
        let end = HEADER_SIZE as u64 + sequence * RECORD_SIZE as u64;
        file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).map_err(io)?;
        Ok(Self { file, path: path.to_owned(), identity, sequence, salt })
    }

    /// What the image belongs to.
    pub fn identity(&self) -> &ImageIdentity {
        &self.identity
    }

    /// Appends records and makes them durable. Their data must be durable already.
    ///
    /// # Errors
    /// What the operating system said. The journal must then be opened anew.
    pub fn append(&mut self, records: &[Record]) -> Result<()> {
        let mut bytes = Vec::with_capacity(records.len() * RECORD_SIZE);
        for record in records {
            bytes.extend_from_slice(&encode_record(record, self.sequence, self.salt));
            self.sequence += 1;
        }
        let io = |e| Error::io(format!("cannot write the journal {}", self.path.display()), e);
        self.file.write_all(&bytes).and_then(|()| self.file.sync_data()).map_err(io)
    }

    /// The records from the first on, read from the file as they are asked for.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn records(&self) -> Result<Replay<BufReader<File>>> {
        let io = |e| Error::io(format!("cannot read the journal {}", self.path.display()), e);
        Replay::new(BufReader::new(File::open(&self.path).map_err(io)?))
    }

    /// Deletes the journal: its image is complete.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path)
            .map_err(|e| Error::io(format!("cannot remove the journal {}", self.path.display()), e))
    }
}

/// Reads a journal's records in order; ends at the first that is torn.
#[derive(Debug)]
pub struct Replay<R> {
    input: R,
    identity: ImageIdentity,
    sequence: u64,
    salt: u32,
    ended: bool,
}

impl<R: Read> Replay<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] for what is no journal, [`ErrorKind::Unsupported`] for a later version of one, or what
    /// the operating system said.
    pub fn new(mut input: R) -> Result<Self> {
        let mut header = [0; HEADER_SIZE];
        input.read_exact(&mut header).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::malformed(ByteOffset::ZERO, format!("journal header: expected {HEADER_SIZE} bytes, found fewer"))
            }
            _ => Error::io("cannot read the journal", e),
        })?;
        let identity = decode_header(&header)?;
        Ok(Self { input, identity, sequence: 0, salt: crc32fast::hash(&header), ended: false })
    }

    /// What the image belongs to.
    pub fn identity(&self) -> &ImageIdentity {
        &self.identity
    }
}

impl<R: Read> Iterator for Replay<R> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let mut bytes = [0; RECORD_SIZE];
        let record = match self.input.read_exact(&mut bytes) {
            Ok(()) => decode_record(&bytes, self.sequence, self.salt),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => None,
            Err(e) => {
                self.ended = true;
                return Some(Err(Error::io("cannot read the journal", e)));
            }
        };
        match record.filter(|record| Extent::first(self.identity.size).contains(record.extent)) {
            Some(record) => {
                self.sequence += 1;
                Some(Ok(record))
            }
            None => {
                self.ended = true;
                None
            }
        }
    }
}

fn encode_header(identity: &ImageIdentity) -> Result<[u8; HEADER_SIZE]> {
    let id = identity.disk.as_bytes();
    let length = u8::try_from(id.len()).ok().filter(|_| id.len() <= DISK_ID_MAX);
    let Some(length) = length else {
        let context = format!("disk id of {} bytes: expected at most {DISK_ID_MAX}", id.len());
        return Err(Error::new(ErrorKind::Unsupported, context));
    };
    let mut header = [0; HEADER_SIZE];
    header[0..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12] = match identity.format {
        Format::Raw => 0,
        Format::Qcow2 => 1,
    };
    header[13] = length;
    header[16..24].copy_from_slice(&identity.size.0.to_le_bytes());
    header[24..24 + id.len()].copy_from_slice(id);
    let crc = crc32fast::hash(&header[..HEADER_SIZE - 4]);
    header[HEADER_SIZE - 4..].copy_from_slice(&crc.to_le_bytes());
    Ok(header)
}

fn decode_header(header: &[u8; HEADER_SIZE]) -> Result<ImageIdentity> {
    let malformed = |context: &str| Err(Error::malformed(ByteOffset::ZERO, format!("journal header: {context}")));
    if header[0..8] != MAGIC {
        return malformed("expected the signature VCJOURNL, found another");
    }
    if u32_at(header, HEADER_SIZE - 4) != crc32fast::hash(&header[..HEADER_SIZE - 4]) {
        return malformed("the checksum is wrong");
    }
    let version = u32_at(header, 8);
    if version != VERSION {
        let context = format!("journal of version {version}: expected {VERSION}");
        return Err(Error::new(ErrorKind::Unsupported, context));
    }
    let format = match header[12] {
        0 => Format::Raw,
        1 => Format::Qcow2,
        _ => return malformed("unknown image format"),
    };
    let id = header.get(24..24 + usize::from(header[13])).filter(|id| id.len() <= DISK_ID_MAX);
    match id.and_then(|id| std::str::from_utf8(id).ok()) {
        Some(disk) => Ok(ImageIdentity { disk: disk.to_owned(), size: ByteCount(u64_at(header, 16)), format }),
        None => malformed("the disk id is no text of at most 64 bytes"),
    }
}

fn encode_record(record: &Record, sequence: u64, salt: u32) -> [u8; RECORD_SIZE] {
    let mut bytes = [0; RECORD_SIZE];
    bytes[0] = match record.state {
        State::Data => 1,
        State::Zero => 2,
        State::Unreadable => 3,
    };
    if record.replaced {
        bytes[0] |= REPLACED;
    }
    // Seven bytes of sequence number are enough for any disk.
    bytes[1..8].copy_from_slice(&sequence.to_le_bytes()[..7]);
    bytes[8..16].copy_from_slice(&record.extent.start().0.to_le_bytes());
    bytes[16..24].copy_from_slice(&record.extent.length().0.to_le_bytes());
    bytes[24..28].copy_from_slice(&salt.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..RECORD_SIZE - 4]);
    bytes[RECORD_SIZE - 4..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode_record(bytes: &[u8; RECORD_SIZE], sequence: u64, salt: u32) -> Option<Record> {
    let valid = u32_at(bytes, RECORD_SIZE - 4) == crc32fast::hash(&bytes[..RECORD_SIZE - 4])
        && u32_at(bytes, 24) == salt
        && bytes[1..8] == sequence.to_le_bytes()[..7];
    let state = match bytes[0] & !REPLACED {
        1 => State::Data,
        2 => State::Zero,
        3 => State::Unreadable,
        _ => return None,
    };
    let extent = Extent::new(ByteOffset(u64_at(bytes, 8)), ByteCount(u64_at(bytes, 16)))?;
    valid.then_some(Record { extent, state, replaced: bytes[0] & REPLACED != 0 })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// An image together with its journal: an [`ImageWriter`] whose [`sync`](ImageWriter::sync) survives the process.
pub struct JournaledImage {
    image: Box<dyn ImageEditor>,
    journal: Journal,
    /// Written and not yet durable; ascending, neighbours of one state joined.
    pending: Vec<Record>,
    /// Replaced and not yet durable, in the order of their places.
    replaced: Vec<Record>,
    durable: ByteOffset,
}

impl JournaledImage {
    /// Makes the image and, beside it, its journal. Neither may exist.
    ///
    /// # Errors
    /// As [`create_image`] and [`Journal::create`].
    pub fn create(image: &Path, journal: &Path, identity: &ImageIdentity, options: &CreateOptions) -> Result<Self> {
        let writer = create_image(image, identity.format, identity.size, options)?;
        let journal = Journal::create(journal, identity).inspect_err(|_| {
            // The empty image was made by this very call and would be in the way of the next.
            let _ = std::fs::remove_file(image);
        })?;
        Ok(Self { image: writer, journal, pending: Vec::new(), replaced: Vec::new(), durable: ByteOffset::ZERO })
    }

    /// Goes on with both. The source is then read from [`JournaledImage::durable`] on.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] where the journal belongs to another disk, as [`resume_image`] and [`Journal::open`].
    pub fn resume(image: &Path, journal: &Path, identity: &ImageIdentity, options: &CreateOptions) -> Result<Self> {
        let journal = Journal::open(journal)?;
        if journal.identity() != identity {
            let context =
                format!("the journal belongs to another image: expected {identity:?}, found {:?}", journal.identity());
            return Err(Error::new(ErrorKind::Malformed, context));
        }
        let mut durable = ByteOffset::ZERO;
        for record in journal.records()? {
            let Record { extent, replaced, .. } = record?;
            if replaced {
                continue;
            }
            if extent.start() < durable {
                return Err(Error::malformed(extent.start(), "the journal's extents do not ascend"));
            }
            durable = extent.end();
        }
        let placed: PlacedIter<'_> = Box::new(journal.records()?.filter_map(|record| match record {
            Ok(Record { extent, state: State::Data, replaced: false }) => Some(Ok(Placed::Written(extent))),
            Ok(Record { extent, state: State::Data, replaced: true }) => Some(Ok(Placed::Replaced(extent))),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }));
        let writer = resume_image(image, identity.format, identity.size, placed, options)?;
        Ok(Self { image: writer, journal, pending: Vec::new(), replaced: Vec::new(), durable })
    }

    /// Every byte of the disk before this offset is safe: where to go on after a crash, what to acknowledge.
    pub fn durable(&self) -> ByteOffset {
        self.durable
    }

    /// Reads what is there so far.
    ///
    /// # Errors
    /// As [`ImageEditor::read_back`].
    pub fn read_back(&mut self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        self.image.read_back(offset, buffer)
    }

    /// Replaces what lies before [`JournaledImage::durable`] by what the source has there now; durable after the next
    /// [`sync`](ImageWriter::sync). A crash before it leaves any mixture of both.
    ///
    /// # Errors
    /// As [`ImageEditor::replace`].
    pub fn replace(&mut self, chunk: &Chunk) -> Result<()> {
        let Some(extent) = chunk.extent().filter(|extent| extent.end() <= self.durable) else {
            return Err(Error::out_of_bounds(chunk.offset, chunk.length(), self.durable - ByteOffset::ZERO));
        };
        if let Content::Data(data) = &chunk.content {
            return self.replace_data(extent.start(), data);
        }
        if let Content::Unreadable(_) = chunk.content {
            self.replaced.push(Record { extent, state: State::Unreadable, replaced: true });
        }
        let zeros = [0; crate::BUFFER_SIZE];
        let mut at = extent.start();
        while at < extent.end() {
            let length = (extent.end() - at).to_usize().unwrap_or(usize::MAX).min(zeros.len());
            self.replace_data(at, &zeros[..length])?;
            at += length.into();
        }
        Ok(())
    }

    fn replace_data(&mut self, offset: ByteOffset, data: &[u8]) -> Result<()> {
        let placed = self.image.replace(offset, data)?;
        self.replaced.extend(placed.into_iter().map(|extent| Record { extent, state: State::Data, replaced: true }));
        if self.replaced.len() >= PENDING_MAX {
            self.sync()?;
        }
        Ok(())
    }

    /// The journal, for its records.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Completes the image and hands back the journal, to be read (what was unreadable?) and then removed.
    ///
    /// # Errors
    /// As [`ImageWriter::finish`].
    pub fn finish_with_journal(mut self) -> Result<(ByteCount, Journal)> {
        self.sync()?;
        Ok((self.image.finish()?, self.journal))
    }

    fn note(&mut self, record: Record) {
        match self.pending.last_mut() {
            Some(last) if last.state == record.state && last.extent.end() == record.extent.start() => {
                last.extent = Extent::between(last.extent.start(), record.extent.end());
            }
            _ => self.pending.push(record),
        }
    }
}

impl ImageWriter for JournaledImage {
    fn write(&mut self, chunk: Chunk) -> Result<()> {
        let state = match chunk.content {
            Content::Data(_) => State::Data,
            Content::Zero(_) => State::Zero,
            Content::Unreadable(_) => State::Unreadable,
        };
        let extent = chunk.extent();
        self.image.write(chunk)?;
        if let Some(extent) = extent.filter(|extent| !extent.is_empty()) {
            self.note(Record { extent, state, replaced: false });
        }
        if self.pending.len() >= PENDING_MAX {
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<ByteOffset> {
        let end = self.image.sync()?;
        let durable = Extent::between(self.durable, end);
        let mut records = Vec::new();
        let mut later = Vec::new();
        for record in self.pending.drain(..) {
            let part = |extent: Extent| (!extent.is_empty()).then_some(Record { extent, ..record });
            records.extend(part(record.extent.intersection(durable)));
            later.extend(part(Extent::between(record.extent.start().max(end), record.extent.end())));
        }
        self.pending = later;
        records.append(&mut self.replaced);
        if !records.is_empty() {
            self.journal.append(&records)?;
        }
        self.durable = self.durable.max(end);
        Ok(self.durable)
    }

    fn finish(self: Box<Self>) -> Result<ByteCount> {
        let (length, journal) = self.finish_with_journal()?;
        journal.remove()?;
        Ok(length)
    }

    fn bytes_written(&self) -> ByteCount {
        self.image.bytes_written()
    }
}
