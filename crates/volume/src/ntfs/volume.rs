//! A volume: its file records by number, and the values of their attributes, wherever their parts are.

use std::sync::Arc;

use block::BlockSource;

use super::attribute::{Attribute, kind};
use super::record::{Record, number_of};
use super::stream::Stream;
use super::{Boot, file};
use crate::error::{Error, Result};
use crate::field::{le16, le32, le64, peek, utf16};

/// Size of an attribute list, as Windows bounds it.
const LIST_BYTES_MAX: usize = 256 << 10;
const LIST_ENTRY_BYTES: usize = 26;

/// An NTFS volume whose master file table can be read.
#[derive(Clone)]
pub(crate) struct NtfsVolume {
    pub source: Arc<dyn BlockSource>,
    pub boot: Boot,
    /// The master file table.
    pub table: Stream,
}

/// An entry of an attribute list: which record has a part of which attribute.
struct Listed {
    kind: u32,
    name: Vec<u16>,
    first_cluster: u64,
    record: u64,
}

impl NtfsVolume {
    /// Finds the master file table, which may lie in many pieces; the records that tell of the later ones lie in the
    /// earlier ones.
    ///
    /// # Errors
    /// [`Malformed`](crate::ErrorKind::Malformed) where a record or an attribute on the way does not add up.
    pub(crate) fn open(source: Arc<dyn BlockSource>, boot: Boot) -> Result<Self> {
        let mut bytes = vec![0; boot.record_bytes];
        let read = |e| Error::read("ntfs: master file table", e);
        source.read_at(machine::ByteOffset(boot.table), &mut bytes).map_err(read)?;
        let base = Record::parse(file::TABLE, bytes, boot.table)?;
        let at = boot.table;
        let wrong = |what: &str| Error::malformed(at, format!("ntfs: master file table: {what}"));
        let first = base.attribute(kind::DATA, "")?.ok_or_else(|| wrong("it has no data"))?;
        let table = Stream::begin(&first, boot.clusters, at)?;
        let mut volume = Self { source, boot, table };
        if let Some(list) = base.attribute(kind::LIST, "")? {
            let parts =
                volume.list(&base, &list)?.into_iter().filter(|part| part.kind == kind::DATA && part.name.is_empty());
            for part in parts.filter(|part| part.first_cluster != 0) {
                let record = volume.record(part.record)?;
                let found = record.attributes()?.into_iter().find(|attribute| part.is(attribute));
                let found = found.filter(|_| record.base() == Some(file::TABLE));
                let found = found.ok_or_else(|| wrong(&format!("record {} has no part of it", part.record)))?;
                volume.table.extend(&found, volume.boot.clusters)?;
            }
        }
        if volume.table.runs().first().and_then(|run| run.place) != Some(volume.boot.table / volume.boot.cluster_bytes)
        {
            return Err(Error::malformed(volume.boot.table, "ntfs: the master file table says that it lies elsewhere"));
        }
        Ok(volume)
    }

    /// The file record of this number.
    ///
    /// # Errors
    /// [`Malformed`](crate::ErrorKind::Malformed) where the table has none, or it is torn.
    pub(crate) fn record(&self, number: u64) -> Result<Record> {
        let length = self.boot.record_bytes;
        let offset = number.checked_mul(length as u64).filter(|offset| {
            offset.checked_add(length as u64).is_some_and(|end| end <= self.table.size.min(self.table.initialized))
        });
        let offset = offset.ok_or_else(|| {
            Error::malformed(self.boot.table, format!("ntfs: the master file table has no file record {number}"))
        })?;
        let mut bytes = vec![0; length];
        self.read_stored(&self.table, offset, &mut bytes)?;
        let cluster = offset / self.boot.cluster_bytes;
        let run = self.table.runs().iter().find(|run| run.end() > cluster);
        let place = run.and_then(|run| Some(run.place? + (cluster - run.first)));
        let at = place.map_or(0, |place| place * self.boot.cluster_bytes + offset % self.boot.cluster_bytes);
        Record::parse(number, bytes, at)
    }

    /// The value of a file's attribute of this kind and name, with the parts that other records have.
    ///
    /// # Errors
    /// [`Malformed`](crate::ErrorKind::Malformed) where its parts do not add up.
    pub(crate) fn stream(&self, file: &Record, kind: u32, name: &str) -> Result<Option<Stream>> {
        let Some(list) = file.attribute(kind::LIST, "")? else {
            let attribute = file.attribute(kind, name)?;
            return attribute.map(|a| Stream::begin(&a, self.boot.clusters, file.at())).transpose();
        };
        let mut stream: Option<Stream> = None;
        let mut further: Option<Record> = None;
        for part in self.list(file, &list)? {
            if part.kind != kind || !part.name.iter().copied().eq(name.encode_utf16()) {
                continue;
            }
            let wrong = |what| {
                let context = format!("ntfs: file record {}: part of attribute {kind:#x}: {what}", part.record);
                Error::malformed(file.at(), context)
            };
            let record = match &further {
                _ if part.record == file.number => file,
                Some(record) if record.number == part.record => record,
                _ => {
                    let record = self.record(part.record)?;
                    if !record.in_use() || record.base() != Some(file.number) {
                        return Err(wrong(format!("it belongs to another file than {}", file.number)));
                    }
                    further.insert(record)
                }
            };
            let attribute = record.attributes()?.into_iter().find(|attribute| part.is(attribute));
            let attribute = attribute.ok_or_else(|| wrong("it is not there".into()))?;
            match &mut stream {
                None => stream = Some(Stream::begin(&attribute, self.boot.clusters, record.at())?),
                Some(stream) => stream.extend(&attribute, self.boot.clusters)?,
            }
        }
        Ok(stream)
    }

    /// Reads of a value as it is stored.
    ///
    /// # Errors
    /// As [`Stream::read_stored`].
    pub(crate) fn read_stored(&self, stream: &Stream, offset: u64, buffer: &mut [u8]) -> Result<()> {
        stream.read_stored(&*self.source, self.boot.cluster_bytes, offset, buffer)
    }

    /// Reads of a value, which has what is asked for.
    ///
    /// # Errors
    /// As [`Stream::read`].
    pub(crate) fn read(&self, stream: &Stream, offset: u64, buffer: &mut [u8]) -> Result<()> {
        stream.read(&*self.source, self.boot.cluster_bytes, offset, buffer)
    }

    /// All of a value of at most `max` bytes.
    ///
    /// # Errors
    /// As [`Stream::load`].
    pub(crate) fn load(&self, stream: &Stream, max: usize) -> Result<Vec<u8>> {
        stream.load(&*self.source, self.boot.cluster_bytes, max)
    }

    fn list(&self, file: &Record, list: &Attribute<'_>) -> Result<Vec<Listed>> {
        let stream = Stream::begin(list, self.boot.clusters, file.at())?;
        let bytes = self.load(&stream, LIST_BYTES_MAX)?;
        let mut rest = &bytes[..];
        let mut entries = Vec::new();
        while rest.len() >= LIST_ENTRY_BYTES {
            let (length, name_units) = (usize::from(le16(rest, 4)), usize::from(rest[6]));
            let name_at = usize::from(rest[7]);
            if length < LIST_ENTRY_BYTES || length > rest.len() || name_at + name_units * 2 > length {
                let context = format!("ntfs: file record {}: attribute list: an entry of {length} bytes", file.number);
                return Err(Error::malformed(file.at(), context));
            }
            entries.push(Listed {
                kind: le32(rest, 0),
                name: (0..name_units).map(|n| le16(rest, name_at + n * 2)).collect(),
                first_cluster: le64(rest, 8),
                record: number_of(le64(rest, 16)),
            });
            rest = &rest[length..];
        }
        Ok(entries)
    }
}

impl Listed {
    fn is(&self, attribute: &Attribute<'_>) -> bool {
        let name = String::from_utf16_lossy(&self.name);
        attribute.kind() == self.kind && attribute.is_named(&name) && attribute.first_cluster() == self.first_cluster
    }
}

/// The label of a volume, which its own record has; that is the fourth of the table.
pub(crate) fn label(source: &dyn BlockSource, boot: &Boot) -> Option<String> {
    let at = boot.table + file::VOLUME * boot.record_bytes as u64;
    let record = Record::parse(file::VOLUME, peek(source, at, boot.record_bytes)?, at).ok()?;
    let attribute = record.attribute(kind::VOLUME_NAME, "").ok()??;
    utf16(attribute.value()?, le16)
}
