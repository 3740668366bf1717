//! The value of an attribute as bytes that can be read anywhere: in its file record, or in clusters.

use block::BlockSource;
use machine::ByteOffset;

use super::attribute::Attribute;
use super::lznt1::decompress;
use super::runs::{ClusterRun, parse_runs};
use crate::error::{Error, ErrorKind, Result};

/// Size of a unit of compression; Windows has 64 KiB.
const UNIT_BYTES_MAX: u64 = 1 << 20;

/// A value. What is read of it lies inside of its size.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    /// Bytes.
    pub size: u64,
    /// What lies behind this reads as zeros.
    pub initialized: u64,
    /// Compressed: clusters of a unit, as a power of two.
    pub compression_unit: Option<u8>,
    pub is_encrypted: bool,
    pub place: StreamPlace,
    /// Where its record was read, for errors.
    at: u64,
}

/// Where a value lies.
#[derive(Clone, Debug)]
pub(crate) enum StreamPlace {
    /// In its file record.
    Record(Vec<u8>),
    /// In these clusters, without a gap between one run and the next.
    Clusters(Vec<ClusterRun>),
}

impl Stream {
    /// The value whose first part is `attribute`, of a record that was read at `at`.
    ///
    /// # Errors
    /// [`Malformed`](ErrorKind::Malformed) for runs or sizes that cannot be.
    pub(crate) fn begin(attribute: &Attribute<'_>, clusters: u64, at: u64) -> Result<Self> {
        let wrong = |what: String| Error::malformed(at, format!("ntfs: attribute {:#x}: {what}", attribute.kind()));
        if let Some(value) = attribute.value() {
            let (size, place) = (value.len() as u64, StreamPlace::Record(value.to_vec()));
            return Ok(Self { size, initialized: size, compression_unit: None, is_encrypted: false, place, at });
        }
        if attribute.first_cluster() != 0 {
            return Err(wrong(format!(
                "expected its first part, found that from cluster {}",
                attribute.first_cluster()
            )));
        }
        let sizes = attribute.sizes();
        if sizes.size > i64::MAX as u64 {
            return Err(wrong(format!("{} bytes", sizes.size)));
        }
        let unit = match attribute.is_compressed() {
            // What has no unit is written as it is, like a resident value.
            true => Some(attribute.compression_unit()).filter(|&unit| unit != 0),
            false => None,
        };
        let mut stream = Self {
            size: sizes.size,
            initialized: sizes.initialized.min(sizes.size),
            compression_unit: unit,
            is_encrypted: attribute.is_encrypted(),
            place: StreamPlace::Clusters(Vec::new()),
            at,
        };
        stream.extend(attribute, clusters)?;
        Ok(stream)
    }

    /// Adds the next part.
    ///
    /// # Errors
    /// [`Malformed`](ErrorKind::Malformed) where it does not continue what is there.
    pub(crate) fn extend(&mut self, attribute: &Attribute<'_>, clusters: u64) -> Result<()> {
        match &mut self.place {
            StreamPlace::Clusters(runs) if !attribute.is_resident() => {
                parse_runs(attribute.mapping_pairs(), attribute.first_cluster(), clusters, self.at, runs)
            }
            _ => Err(Error::malformed(self.at, "ntfs: a value in a file record has a further part")),
        }
    }

    /// Its runs; none for a value in its file record.
    pub(crate) fn runs(&self) -> &[ClusterRun] {
        match &self.place {
            StreamPlace::Record(_) => &[],
            StreamPlace::Clusters(runs) => runs,
        }
    }

    /// Fills `buffer` from `offset`, as the clusters hold it: neither decrypted nor decompressed. Holes read as zeros.
    ///
    /// # Errors
    /// [`Malformed`](ErrorKind::Malformed) where it has no clusters there, [`Read`](ErrorKind::Read).
    pub(crate) fn read_stored(
        &self,
        source: &dyn BlockSource,
        cluster_bytes: u64,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        let wrong = |at: u64| Error::malformed(self.at, format!("ntfs: a value has no byte {at}"));
        let end = offset.checked_add(buffer.len() as u64).ok_or_else(|| wrong(offset))?;
        let runs = match &self.place {
            StreamPlace::Record(value) => {
                let start = usize::try_from(offset).map_err(|_| wrong(offset))?;
                let part = start.checked_add(buffer.len()).and_then(|end| value.get(start..end));
                buffer.copy_from_slice(part.ok_or_else(|| wrong(end))?);
                return Ok(());
            }
            StreamPlace::Clusters(runs) => runs,
        };
        let mut position = offset;
        let mut index = runs.partition_point(|run| run.end() <= offset / cluster_bytes);
        let mut rest = buffer;
        while !rest.is_empty() {
            let run = runs.get(index).ok_or_else(|| wrong(position))?;
            // A run's end was bounded as a number of clusters: as bytes it may be more than a number holds.
            let run_end = run.end().saturating_mul(cluster_bytes);
            let length = usize::try_from(run_end - position).unwrap_or(usize::MAX).min(rest.len());
            let (part, behind) = rest.split_at_mut(length);
            match run.place {
                None => part.fill(0),
                Some(place) => {
                    let from = ByteOffset(place * cluster_bytes + (position - run.first * cluster_bytes));
                    source.read_at(from, part).map_err(|e| Error::read("ntfs: a file's clusters", e))?;
                }
            }
            position += length as u64;
            rest = behind;
            index += 1;
        }
        Ok(())
    }

    /// Fills `buffer` from `offset`, which the value has: decompressed, and zeros where it was never written.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for an encrypted value; [`Malformed`](ErrorKind::Malformed) where a compressed
    /// unit is none; as [`Stream::read_stored`].
    pub(crate) fn read(
        &self,
        source: &dyn BlockSource,
        cluster_bytes: u64,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        if self.is_encrypted {
            return Err(Error::new(ErrorKind::Unsupported, "ntfs: the file is encrypted"));
        }
        let written = self.initialized.saturating_sub(offset);
        let written = usize::try_from(written).unwrap_or(usize::MAX).min(buffer.len());
        let (buffer, behind) = buffer.split_at_mut(written);
        behind.fill(0);
        let Some(unit) = self.compression_unit else {
            return self.read_stored(source, cluster_bytes, offset, buffer);
        };
        let unit = 1u64.checked_shl(unit.into()).and_then(|unit| unit.checked_mul(cluster_bytes));
        let unit = unit.filter(|&unit| unit <= UNIT_BYTES_MAX);
        let unit = unit.ok_or_else(|| Error::malformed(self.at, "ntfs: units of compression are too large"))?;
        let (mut position, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let bytes = self.unit(source, cluster_bytes, position - position % unit, unit)?;
            let inside = usize::try_from(position % unit).unwrap_or(0);
            let length = (bytes.len() - inside).min(rest.len());
            let (part, left) = rest.split_at_mut(length);
            part.copy_from_slice(&bytes[inside..inside + length]);
            position += length as u64;
            rest = left;
        }
        Ok(())
    }

    /// The bytes of a compressed unit: as they are where it has all of its clusters, zeros where it has none.
    fn unit(&self, source: &dyn BlockSource, cluster_bytes: u64, start: u64, unit: u64) -> Result<Vec<u8>> {
        let (first, count) = (start / cluster_bytes, unit / cluster_bytes);
        let runs = self.runs();
        let begin = runs.partition_point(|run| run.end() <= first);
        let inside = runs[begin..].iter().take_while(|run| run.first < first + count);
        let mut placed = 0;
        for run in inside.filter(|run| run.place.is_some()) {
            if run.first.max(first) != first + placed {
                return Err(Error::malformed(self.at, "ntfs: a compressed unit has a hole in it"));
            }
            placed = run.end().min(first + count) - first;
        }
        let size = usize::try_from(unit).unwrap_or(0);
        let stored = usize::try_from(placed * cluster_bytes).unwrap_or(0);
        let mut bytes = vec![0; stored];
        self.read_stored(source, cluster_bytes, start, &mut bytes)?;
        if stored == 0 || stored == size {
            bytes.resize(size, 0);
            return Ok(bytes);
        }
        decompress(&bytes, size).ok_or_else(|| {
            Error::malformed(self.at, format!("ntfs: the compressed unit at byte {start} of a file is damaged"))
        })
    }

    /// All of a value in memory.
    ///
    /// # Errors
    /// [`TooLarge`](ErrorKind::TooLarge) for one of more than `max` bytes; as [`Stream::read`].
    pub(crate) fn load(&self, source: &dyn BlockSource, cluster_bytes: u64, max: usize) -> Result<Vec<u8>> {
        let length = usize::try_from(self.size).ok().filter(|&size| size <= max).ok_or_else(|| {
            let context = format!("ntfs: expected a value of at most {max} bytes, found {}", self.size);
            Error { offset: Some(ByteOffset(self.at)), ..Error::new(ErrorKind::TooLarge, context) }
        })?;
        let mut bytes = vec![0; length];
        self.read(source, cluster_bytes, 0, &mut bytes)?;
        Ok(bytes)
    }
}
