//! Files of NTFS. Names are found without regard to case by the volume's own table, by their short forms too; the volume's
//! own files and short names are not listed. Symbolic links and mount points are links.
//!
//! Refused: encrypted files, and those whose data are elsewhere: compressed by the overlay filter ("compact OS") or
//! deduplicated. Alternate streams are not read.

use std::ffi::OsString;
use std::sync::Arc;

use block::BlockSource;
use machine::ByteCount;

use super::{Entry, FileKind, LINK_MAX, Metadata, Node, Run, Tree};
use crate::error::{Error, ErrorKind, Result};
use crate::ntfs::{
    Boot, Index, IndexedName, LogState, NtfsVolume, Record, Reparse, Stream, UpCase, file, is_dirty, is_link, kind,
    log_state, parse_reparse,
};

/// Size of a reparse point, as Windows bounds it.
const REPARSE_BYTES_MAX: usize = 16 << 10;

/// The files of an NTFS filesystem. A node is the number of a file record.
pub(super) struct NtfsFiles {
    volume: NtfsVolume,
    upcase: UpCase,
}

impl NtfsFiles {
    pub(super) fn open(source: Arc<dyn BlockSource>, boot: Boot) -> Result<Self> {
        let volume = NtfsVolume::open(source, boot)?;
        let upcase = UpCase::load(&volume);
        Ok(Self { volume, upcase })
    }

    fn record(&self, node: Node) -> Result<Record> {
        let record = self.volume.record(node.0)?;
        match record.in_use() && record.base().is_none() {
            true => Ok(record),
            false => Err(Error::malformed(record.at(), format!("ntfs: file record {} is not a file's first", node.0))),
        }
    }

    fn reparse(&self, record: &Record) -> Result<Option<Reparse>> {
        let stream = self.volume.stream(record, kind::REPARSE, "")?;
        let value = stream.map(|stream| self.volume.load(&stream, REPARSE_BYTES_MAX)).transpose()?;
        Ok(value.map(|value| parse_reparse(&value)))
    }

    /// The value that holds a file's bytes.
    fn data(&self, record: &Record) -> Result<Stream> {
        let elsewhere =
            |how: String| Err(Error::new(ErrorKind::Unsupported, format!("ntfs: the file's data are {how}")));
        match self.reparse(record)? {
            Some(Reparse::Overlay(algorithm)) => {
                return elsewhere(format!("compressed by Windows' overlay ({algorithm})"));
            }
            Some(Reparse::Deduplicated) => return elsewhere("deduplicated".into()),
            _ => {}
        }
        let stream = self.volume.stream(record, kind::DATA, "")?;
        let wrong = || Error::malformed(record.at(), format!("ntfs: file record {} has no data", record.number));
        stream.ok_or_else(wrong)
    }
}

impl Tree for NtfsFiles {
    fn root(&self) -> Node {
        Node(file::ROOT)
    }

    fn metadata(&self, node: Node) -> Result<Metadata> {
        let record = self.record(node)?;
        let (kind, size) = match self.reparse(&record)? {
            Some(Reparse::Link(target)) => (FileKind::Symlink, target.len() as u64),
            _ if record.is_directory() => (FileKind::Directory, 0),
            _ => {
                let stream = self.volume.stream(&record, kind::DATA, "")?;
                (FileKind::Regular, stream.map_or(0, |stream| stream.size))
            }
        };
        Ok(Metadata { kind, mode: 0o755, uid: 0, gid: 0, size: ByteCount(size) })
    }

    fn list(&self, directory: Node) -> Result<Vec<Entry>> {
        let kind = |name: &IndexedName| match name.reparse {
            Some(tag) if is_link(tag) => FileKind::Symlink,
            _ if name.is_directory => FileKind::Directory,
            _ => FileKind::Regular,
        };
        let names = Index::open(&self.volume, &self.record(directory)?)?.names()?;
        let shown = names.iter().filter(|name| !name.is_dos && name.record >= file::FIRST_ORDINARY);
        Ok(shown.map(|n| Entry { name: OsString::from(String::from_utf16_lossy(&n.name)), kind: kind(n) }).collect())
    }

    fn find(&self, directory: Node, name: &[u8]) -> Result<Option<Node>> {
        let name: Vec<u16> = String::from_utf8_lossy(name).encode_utf16().collect();
        let found = Index::open(&self.volume, &self.record(directory)?)?.find(&name, &self.upcase)?;
        Ok(found.map(Node))
    }

    fn read(&self, node: Node, offset: u64, length: usize) -> Result<Vec<u8>> {
        let stream = self.data(&self.record(node)?)?;
        let mut bytes = vec![0; length];
        self.volume.read(&stream, offset, &mut bytes)?;
        Ok(bytes)
    }

    fn runs(&self, node: Node) -> Result<Option<Vec<Run>>> {
        let sure = !is_dirty(&self.volume)? && log_state(&self.volume)? == LogState::Clean;
        let runs = if sure { self.stored_runs(node)? } else { Vec::new() };
        Ok((!runs.is_empty()).then_some(runs))
    }

    fn stored_runs(&self, node: Node) -> Result<Vec<Run>> {
        let stream = self.data(&self.record(node)?)?;
        if stream.compression_unit.is_some() || stream.is_encrypted {
            return Ok(Vec::new());
        }
        let cluster = self.volume.boot.cluster_bytes;
        let run = |first: u64, place: u64, count: u64| {
            let at = first.saturating_mul(cluster);
            let length = (count * cluster).min(stream.size.saturating_sub(at));
            (length != 0).then_some(Run { at, start: place * cluster, length })
        };
        Ok(stream.runs().iter().filter_map(|r| run(r.first, r.place?, r.count)).collect())
    }

    fn is_overlaid(&self, node: Node) -> bool {
        let found = self.record(node).and_then(|record| self.reparse(&record));
        matches!(found, Ok(Some(Reparse::Overlay(_))))
    }

    fn read_link(&self, node: Node) -> Result<Vec<u8>> {
        match self.reparse(&self.record(node)?)? {
            Some(Reparse::Link(target)) if target.len() as u64 <= LINK_MAX.0 => Ok(target.into_bytes()),
            _ => Err(Error::new(ErrorKind::Unsupported, "ntfs: no link, or one that is too long")),
        }
    }
}
