//! Values: the `vk` record and its data, in the record itself, in a cell, or as big data in several.

use std::borrow::Cow;

use super::bins::{Bins, CellOffset};
use super::field::{le16, le32, unit_bytes, units};
use super::name::Name;
use super::{Hive, malformed};
use crate::{Error, ErrorKind, Result};

/// Fixed part of a `vk` record; the name follows.
pub(super) const VALUE_SIZE: usize = 20;

/// Set in the length of data that stand in the record itself.
pub(super) const RESIDENT: u32 = 1 << 31;

/// Bytes of a segment of big data; data that are longer than one are stored as such from minor version 4 on.
pub(super) const SEGMENT: usize = 16_344;

/// Longest data of one value, in bytes.
pub const DATA_MAX: usize = 64 << 20;

const FLAG_COMPRESSED: u16 = 1;
const FLAG_TOMBSTONE: u16 = 2;

/// What a value's data are. Numbers that Windows does not name are allowed, and used (device properties).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueType(pub u32);

impl ValueType {
    /// `REG_NONE`.
    pub const NONE: Self = Self(0);
    /// `REG_SZ`: text.
    pub const SZ: Self = Self(1);
    /// `REG_EXPAND_SZ`: text with `%names%` of the environment.
    pub const EXPAND_SZ: Self = Self(2);
    /// `REG_BINARY`.
    pub const BINARY: Self = Self(3);
    /// `REG_DWORD`: 32 bits, little-endian.
    pub const DWORD: Self = Self(4);
    /// `REG_DWORD_BIG_ENDIAN`.
    pub const DWORD_BIG_ENDIAN: Self = Self(5);
    /// `REG_LINK`: the name of a key.
    pub const LINK: Self = Self(6);
    /// `REG_MULTI_SZ`: texts.
    pub const MULTI_SZ: Self = Self(7);
    /// `REG_QWORD`: 64 bits, little-endian.
    pub const QWORD: Self = Self(11);
}

/// Type and bytes of a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Data {
    /// What the bytes are.
    pub kind: ValueType,
    /// The bytes, as they are stored.
    pub bytes: Vec<u8>,
}

impl Data {
    /// These bytes.
    pub fn new(kind: ValueType, bytes: impl Into<Vec<u8>>) -> Self {
        Self { kind, bytes: bytes.into() }
    }

    /// A `REG_SZ`.
    pub fn sz(text: &str) -> Self {
        Self::new(ValueType::SZ, terminated(text))
    }

    /// A `REG_EXPAND_SZ`.
    pub fn expand_sz(text: &str) -> Self {
        Self::new(ValueType::EXPAND_SZ, terminated(text))
    }

    /// A `REG_MULTI_SZ`; an empty text cannot stand in one and is left out.
    pub fn multi_sz<'t>(texts: impl IntoIterator<Item = &'t str>) -> Self {
        let mut bytes: Vec<u8> = texts.into_iter().filter(|text| !text.is_empty()).flat_map(terminated).collect();
        bytes.extend([0, 0]);
        Self::new(ValueType::MULTI_SZ, bytes)
    }

    /// A `REG_DWORD`.
    pub fn of_dword(number: u32) -> Self {
        Self::new(ValueType::DWORD, number.to_le_bytes())
    }

    /// A `REG_QWORD`.
    pub fn of_qword(number: u64) -> Self {
        Self::new(ValueType::QWORD, number.to_le_bytes())
    }

    /// A `REG_BINARY`.
    pub fn binary(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(ValueType::BINARY, bytes)
    }

    /// Text up to its zero, if it has one.
    pub fn text(&self) -> Option<String> {
        if !matches!(self.kind, ValueType::SZ | ValueType::EXPAND_SZ | ValueType::LINK) {
            return None;
        }
        let units = units(&self.bytes);
        let end = units.iter().position(|&unit| unit == 0).unwrap_or(units.len());
        Some(String::from_utf16_lossy(&units[..end]))
    }

    /// The texts of a `REG_MULTI_SZ` up to an empty one or the end.
    pub fn texts(&self) -> Option<Vec<String>> {
        if self.kind != ValueType::MULTI_SZ {
            return None;
        }
        let units = units(&self.bytes);
        let texts = units.split(|&unit| unit == 0).take_while(|text| !text.is_empty());
        Some(texts.map(String::from_utf16_lossy).collect())
    }

    /// The number in a `REG_DWORD` or `REG_DWORD_BIG_ENDIAN` of four bytes.
    pub fn dword(&self) -> Option<u32> {
        let bytes = self.bytes.as_slice().try_into().ok()?;
        match self.kind {
            ValueType::DWORD => Some(u32::from_le_bytes(bytes)),
            ValueType::DWORD_BIG_ENDIAN => Some(u32::from_be_bytes(bytes)),
            _ => None,
        }
    }

    /// The number in a `REG_QWORD` of eight bytes.
    pub fn qword(&self) -> Option<u64> {
        let bytes = self.bytes.as_slice().try_into().ok()?;
        (self.kind == ValueType::QWORD).then(|| u64::from_le_bytes(bytes))
    }
}

fn terminated(text: &str) -> Vec<u8> {
    let units: Vec<u16> = text.encode_utf16().chain([0]).collect();
    unit_bytes(&units)
}

/// The fields of a `vk` record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name_length: u16,
    /// Length of the data with [`RESIDENT`].
    pub(super) size: u32,
    /// The data's cell, or the data themselves.
    pub(super) data: u32,
    pub(super) kind: ValueType,
    pub(super) flags: u16,
}

/// Where data are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DataPlace {
    /// In the record, or nowhere because there are none.
    Resident,
    Cell(CellOffset),
    Big {
        head: CellOffset,
        list: CellOffset,
        segments: Vec<CellOffset>,
    },
}

impl Record {
    pub(super) fn read(bins: &Bins, offset: CellOffset) -> Result<Self> {
        let cell = bins.cell(offset)?;
        let wrong = |what: String| Err(malformed(offset.position(), format!("value: {what}")));
        if cell.get(..2) != Some(b"vk") {
            return wrong(format!("expected vk, found {}", cell[..2.min(cell.len())].escape_ascii()));
        }
        if cell.len() < VALUE_SIZE {
            return wrong(format!("expected {VALUE_SIZE} bytes, found {}", cell.len()));
        }
        let record = Self {
            name_length: le16(cell, 2),
            size: le32(cell, 4),
            data: le32(cell, 8),
            kind: ValueType(le32(cell, 12)),
            flags: le16(cell, 16),
        };
        if usize::from(record.name_length) > cell.len() - VALUE_SIZE {
            let room = cell.len() - VALUE_SIZE;
            return wrong(format!("a name of {} bytes in a cell with room for {room}", record.name_length));
        }
        if record.size & RESIDENT != 0 && record.length() > 4 {
            return wrong(format!("{} bytes of data in a record with room for 4", record.length()));
        }
        Ok(record)
    }

    /// Bytes of data.
    pub(super) fn length(&self) -> usize {
        (self.size & !RESIDENT) as usize
    }

    pub(super) fn name(&self, bins: &Bins, offset: CellOffset) -> Result<Name> {
        let cell = bins.cell(offset)?;
        let bytes = cell.get(VALUE_SIZE..VALUE_SIZE + usize::from(self.name_length)).unwrap_or_default();
        Ok(Name::decode(bytes, self.flags & FLAG_COMPRESSED != 0))
    }

    pub(super) fn is_tombstone(&self) -> bool {
        self.flags & FLAG_TOMBSTONE != 0
    }

    /// Where the data are, in cells that are long enough for them.
    pub(super) fn place(&self, bins: &Bins, minor: u32) -> Result<DataPlace> {
        let length = self.length();
        if self.size & RESIDENT != 0 || length == 0 {
            return Ok(DataPlace::Resident);
        }
        let at = CellOffset(self.data);
        let wrong = |at: CellOffset, what: String| Err(malformed(at.position(), format!("data: {what}")));
        if length > DATA_MAX {
            let context = format!("value with {length} bytes of data, expected up to {DATA_MAX}");
            return Err(Error::new(ErrorKind::TooLarge, context));
        }
        let cell = bins.cell(at)?;
        // Some writers put long data into one cell, whatever the version says.
        if minor < 4 || length <= SEGMENT || cell.get(..2) != Some(b"db") {
            if cell.len() < length {
                return wrong(at, format!("{length} bytes in a cell of {}", cell.len()));
            }
            return Ok(DataPlace::Cell(at));
        }
        let (count, list) = (usize::from(le16(cell, 2)), CellOffset(le32(cell, 4)));
        if count != length.div_ceil(SEGMENT) {
            return wrong(at, format!("{length} bytes in {count} segments"));
        }
        let elements = bins.cell(list)?;
        if elements.len() < count * 4 {
            return wrong(list, format!("{count} segments in a cell with room for {}", elements.len() / 4));
        }
        let segments: Vec<CellOffset> =
            elements[..count * 4].chunks_exact(4).map(|element| CellOffset(le32(element, 0))).collect();
        let mut left = length;
        for &segment in &segments {
            let (room, expected) = (bins.cell(segment)?.len(), left.min(SEGMENT));
            if room < expected {
                return wrong(segment, format!("{expected} bytes of a segment in a cell of {room}"));
            }
            left -= expected;
        }
        Ok(DataPlace::Big { head: at, list, segments })
    }

    /// The data of the record at `offset`.
    pub(super) fn bytes<'b>(&self, bins: &'b Bins, offset: CellOffset, minor: u32) -> Result<Cow<'b, [u8]>> {
        let length = self.length();
        match self.place(bins, minor)? {
            DataPlace::Resident => {
                let length = if self.size & RESIDENT != 0 { length } else { 0 };
                Ok(Cow::Borrowed(bins.cell(offset)?.get(8..8 + length).unwrap_or_default()))
            }
            DataPlace::Cell(at) => Ok(Cow::Borrowed(&bins.cell(at)?[..length])),
            DataPlace::Big { segments, .. } => {
                let mut bytes = Vec::with_capacity(length);
                for segment in segments {
                    let take = (length - bytes.len()).min(SEGMENT);
                    bytes.extend_from_slice(&bins.cell(segment)?[..take]);
                }
                Ok(Cow::Owned(bytes))
            }
        }
    }
}

/// A `vk` record of this name without data.
pub(super) fn record_bytes(name: &Name) -> Vec<u8> {
    let (name, compressed) = name.encode();
    let mut bytes = vec![0; VALUE_SIZE];
    bytes[..2].copy_from_slice(b"vk");
    bytes[2..4].copy_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
    bytes[16] = u8::from(compressed && !name.is_empty());
    bytes.extend(name);
    bytes
}

/// A value of a key.
#[derive(Clone, Copy, Debug)]
pub struct Value<'h> {
    hive: &'h Hive,
    at: CellOffset,
    record: Record,
}

impl<'h> Value<'h> {
    pub(super) fn open(hive: &'h Hive, at: CellOffset) -> Result<Self> {
        Ok(Self { hive, at, record: Record::read(&hive.bins, at)? })
    }

    /// Where it is.
    pub fn at(&self) -> CellOffset {
        self.at
    }

    /// Its name; the empty one is that of the default value.
    pub fn name(&self) -> Result<Name> {
        self.record.name(&self.hive.bins, self.at)
    }

    /// What its data are.
    pub fn kind(&self) -> ValueType {
        self.record.kind
    }

    /// Bytes of its data.
    pub fn length(&self) -> usize {
        self.record.length()
    }

    /// Whether it hides the value of that name in the hive below, in a hive of a container.
    pub fn is_tombstone(&self) -> bool {
        self.record.is_tombstone()
    }

    /// Its data.
    pub fn bytes(&self) -> Result<Cow<'h, [u8]>> {
        self.record.bytes(&self.hive.bins, self.at, self.hive.base.minor())
    }

    /// Its type and data.
    pub fn data(&self) -> Result<Data> {
        Ok(Data { kind: self.kind(), bytes: self.bytes()?.into_owned() })
    }
}
