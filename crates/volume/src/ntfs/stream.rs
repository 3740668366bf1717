//! The value of an attribute as bytes that can be read anywhere: in its file record, or in clusters.

use block::BlockSource;
use machine::ByteOffset;

use super::attribute::Attribute;
use super::runs::{ClusterRun, parse_runs};
use crate::error::{Error, ErrorKind, Result};

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

    /// All of a value in memory.
    ///
    /// # Errors
    /// [`TooLarge`](ErrorKind::TooLarge) for one of more than `max` bytes; as [`Stream::read_stored`].
    pub(crate) fn load(&self, source: &dyn BlockSource, cluster_bytes: u64, max: usize) -> Result<Vec<u8>> {
        let length = usize::try_from(self.size).ok().filter(|&size| size <= max).ok_or_else(|| {
            let context = format!("ntfs: expected a value of at most {max} bytes, found {}", self.size);
            Error { offset: Some(ByteOffset(self.at)), ..Error::new(ErrorKind::TooLarge, context) }
        })?;
        let mut bytes = vec![0; length];
        let written = usize::try_from(self.initialized).unwrap_or(length).min(length);
        self.read_stored(source, cluster_bytes, 0, &mut bytes[..written])?;
        Ok(bytes)
    }
}
