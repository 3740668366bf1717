//! Registry hives: read, checked, edited in memory and written as a whole.
//!
//! Follows M. Suhanov's "Windows registry file format specification". Versions 1.2 (Windows NT 3.5) to 1.6 (hives of
//! containers) are read, 1.3 to 1.5 are edited. A hive whose last write did not end is read after its transaction logs
//! were replayed, or not at all: what is in the file alone is a mixture of two states. Damage is refused where it is met,
//! with its position in the file; [`Hive::salvage`] reads what is whole and says what is not.
//!
//! A hive is in memory as a whole, at most [`HIVE_MAX`] bytes. Every length, count and depth that it names is verified
//! before it is used. Nothing here writes a file but [`file`].

mod base_block;
mod bins;
mod check;
mod control_set;
mod edit;
mod field;
pub mod file;
mod index;
mod key;
mod log;
mod marvin32;
mod name;
mod security;
mod upcase;
mod value;
mod walk;

pub use base_block::BASE_BLOCK_SIZE;
pub use bins::{CHANGED_MAX, CellOffset, HIVE_MAX};
pub use check::{Check, FINDINGS_MAX, Finding, Severity};
pub use edit::Edit;
pub use key::Key;
pub use name::{DEPTH_MAX, KEY_NAME_MAX, KeyPath, Name, VALUE_NAME_MAX};
pub use security::DESCRIPTOR_MAX;
pub use value::{DATA_MAX, Data, Value, ValueType};
pub use walk::{Step, Walk};

pub(super) use field::units;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Error, ErrorKind, Result};
use base_block::BaseBlock;
use bins::{Bins, PAGE};

/// Windows' time: 100 ns since the beginning of 1601, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filetime(pub u64);

impl Filetime {
    /// The present.
    pub fn now() -> Self {
        // Seconds between the beginnings of 1601 and 1970.
        const UNIX: u64 = 11_644_473_600;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self((since.as_secs() + UNIX) * 10_000_000 + u64::from(since.subsec_nanos() / 100))
    }
}

/// What to do about a hive whose last write did not end and of which no log holds the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unfinished {
    /// Refuse it.
    #[default]
    Refuse,
    /// Read it as it is if its structure is whole, so that its base block alone is out of date.
    ReadAsItIs,
}

/// What was replayed from logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Writes that were replayed.
    pub entries: usize,
    /// Pages in them.
    pub pages: usize,
    /// The hive's sequence number after them.
    pub sequence: u32,
}

/// How a hive came to be what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its last write had ended.
    Clean,
    /// Its logs were replayed.
    Replayed(Replay),
    /// It was read without the rest of its last write, on request.
    AsItIs,
}

/// A registry hive.
#[derive(Clone, Debug)]
pub struct Hive {
    base: BaseBlock,
    bins: Bins,
    state: State,
    /// What its next write has to exceed.
    sequence: u32,
}

impl Hive {
    /// The hive in `primary` after the writes in `logs`, whose order does not matter.
    ///
    /// # Errors
    /// `Missing` for an unfinished hive without its logs, `Malformed` for damage, `Unsupported` for Windows 3.1, NT 3.1
    /// and 95, `TooLarge`.
    pub fn load(primary: Vec<u8>, logs: &[Vec<u8>], unfinished: Unfinished) -> Result<Self> {
        let (image, state) = recover(primary, logs, unfinished)?;
        let size = image.base.bins_size() as usize;
        let mut bytes = image.bins;
        if !size.is_multiple_of(PAGE) || size == 0 {
            return Err(malformed(40, format!("base block: expected bins in pages of {PAGE}, found {size} bytes")));
        }
        if size > bytes.len() {
            let (expected, found) = (size + BASE_BLOCK_SIZE, bytes.len() + BASE_BLOCK_SIZE);
            return Err(malformed(found as u64, format!("expected a hive of {expected} bytes, found its end")));
        }
        bytes.truncate(size);
        let sequence = log::latest_sequence(logs).max(image.base.sequences().0);
        let hive = Self { bins: Bins::parse(bytes)?, base: image.base, state, sequence };
        hive.root()?;
        // What is not its own log, or half of a write, shows in the structure.
        let reason = match state {
            State::Clean => return Ok(hive),
            State::Replayed(_) => "it is damaged after its logs were replayed (are they those of this hive?)",
            State::AsItIs => "its last write did not end, and it is damaged",
        };
        match hive.check().damage().next() {
            Some(finding) => Err(Error::new(ErrorKind::Malformed, format!("{reason}: {finding}"))),
            None => Ok(hive),
        }
    }

    /// What is whole of a hive, with what is wrong with the rest: a walk with [`Walk::lenient`] leaves that out.
    ///
    /// # Errors
    /// A file that is no hive of a version that is read.
    pub fn salvage(primary: Vec<u8>, logs: &[Vec<u8>]) -> Result<(Self, Vec<Error>)> {
        let mut wrong = Vec::new();
        let mut base = BaseBlock::parse(&primary)?;
        let (mut bytes, state) = match recover(primary.clone(), logs, Unfinished::Refuse) {
            Ok((image, state)) => {
                base = image.base;
                (image.bins, state)
            }
            Err(error) if error.kind == ErrorKind::Missing => {
                wrong.push(error);
                (primary.get(BASE_BLOCK_SIZE..).unwrap_or_default().to_vec(), State::AsItIs)
            }
            Err(error) => return Err(error),
        };
        base.require_readable()?;
        let size = base.bins_size() as usize;
        if base.is_checksum_right() && size > bytes.len() {
            let (expected, found) = (size + BASE_BLOCK_SIZE, bytes.len() + BASE_BLOCK_SIZE);
            wrong.push(malformed(found as u64, format!("expected a hive of {expected} bytes, found its end")));
        }
        let length = if base.is_checksum_right() { size.min(bytes.len()) } else { bins_in(&bytes) };
        bytes.truncate(length / PAGE * PAGE);
        // A last bin that is cut off ends where the file does: its first cells are whole.
        close_last_bin(&mut bytes);
        let (bins, unreadable) = Bins::parse_whole_ones(bytes);
        wrong.extend(unreadable);
        let sequence = log::latest_sequence(logs).max(base.sequences().0);
        Ok((Self { base, bins, state, sequence }, wrong))
    }

    /// How it came to be what it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Major and minor version.
    pub fn version(&self) -> (u32, u32) {
        self.base.version()
    }

    /// Both numbers of its last write.
    pub fn sequences(&self) -> (u32, u32) {
        self.base.sequences()
    }

    /// The end of the path under which Windows had it.
    pub fn file_name(&self) -> String {
        self.base.file_name()
    }

    /// The bins: everything after the base block, as far as it is used.
    pub fn bins_bytes(&self) -> &[u8] {
        self.bins.bytes()
    }

    /// Its topmost key.
    pub fn root(&self) -> Result<Key<'_>> {
        Key::open(self, CellOffset(self.base.root()))
    }

    /// The key at `path` (`ControlSet001\Services\Disk`), as Windows compares names.
    pub fn open(&self, path: impl Into<KeyPath>) -> Result<Option<Key<'_>>> {
        self.root()?.open_path(path)
    }

    /// Its file after a write at `time` that ended: what comes after the bins in the old file is left out.
    pub fn to_file(&mut self, time: Filetime) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        self.base.set_sequence(self.sequence);
        self.base.set_written(time);
        self.base.set_bins_size(field::to_u32(self.bins.len()));
        self.base.set_checksum();
        let mut bytes = self.base.bytes().to_vec();
        bytes.extend_from_slice(self.bins.bytes());
        bytes
    }

    /// What is wrong with its structure.
    pub fn check(&self) -> Check {
        check::check(self).0
    }

    /// Begins an edit, whose changes bear `time`.
    ///
    /// # Errors
    /// `Malformed` where the check finds damage, `Unsupported` for versions that are only read.
    pub fn edit(&mut self, time: Filetime) -> Result<Edit<'_>> {
        Edit::begin(self, time)
    }

    /// Everything of `key` and below it, keys before their subkeys.
    pub fn walk<'h>(&'h self, key: &Key<'h>) -> Walk<'h> {
        Walk::new(self, key)
    }
}

/// The hive's file with its last write ended.
fn recover(mut primary: Vec<u8>, logs: &[Vec<u8>], unfinished: Unfinished) -> Result<(log::Image, State)> {
    if primary.len() as u64 > HIVE_MAX {
        return Err(Error::new(ErrorKind::TooLarge, format!("a hive of more than {HIVE_MAX} bytes")));
    }
    let base = BaseBlock::parse(&primary)?;
    primary.drain(..BASE_BLOCK_SIZE.min(primary.len()));
    let mut image = log::Image { base, bins: primary };
    if !image.base.is_dirty() {
        image.base.require_readable()?;
        return Ok((image, State::Clean));
    }
    if let Some(replay) = log::replay(&mut image, logs) {
        image.base.require_readable()?;
        return Ok((image, State::Replayed(replay)));
    }
    image.base.require_readable()?;
    if unfinished == Unfinished::ReadAsItIs {
        if !image.base.is_checksum_right() {
            image.base.set_bins_size(field::to_u32(bins_in(&image.bins)));
        }
        let sequence = image.base.sequences().0;
        image.base.set_sequence(sequence);
        image.base.set_checksum();
        return Ok((image, State::AsItIs));
    }
    let logs = match logs.len() {
        0 => "there is no log of it".to_owned(),
        count => format!("none of the {count} logs beside it holds the rest"),
    };
    let context = format!(
        "the hive's last write did not end and {logs}: bring its .LOG, .LOG1 and .LOG2 files of the same time, or ask \
         for it as it is"
    );
    Err(Error::new(ErrorKind::Missing, context))
}

/// Bytes of bins that follow one another from the start.
fn bins_in(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + bins::BIN_HEADER) {
        let size = field::le32(header, 8) as usize;
        let is_bin = &header[..4] == b"hbin" && field::le32(header, 4) as usize == at;
        if !is_bin || size == 0 || !size.is_multiple_of(PAGE) || size > bytes.len() - at {
            break;
        }
        at += size;
    }
    at
}

/// Lets a last bin that goes beyond the end of `bytes` end there.
fn close_last_bin(bytes: &mut [u8]) {
    let start = bins_in(bytes);
    let left = bytes.len() - start;
    if let Some(header) = bytes.get_mut(start..start + bins::BIN_HEADER)
        && &header[..4] == b"hbin"
        && field::le32(header, 4) as usize == start
        && field::le32(header, 8) as usize > left
    {
        header[8..12].copy_from_slice(&field::to_u32(left).to_le_bytes());
    }
}

/// Something that does not follow the format, `position` bytes into the file.
fn malformed(position: u64, what: impl AsRef<str>) -> Error {
    Error::new(ErrorKind::Malformed, format!("at {position:#x}: {}", what.as_ref()))
}
