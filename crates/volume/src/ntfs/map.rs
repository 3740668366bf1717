//! The allocation map of NTFS: `$Bitmap`, a bit a cluster, read piece by piece as it is iterated.
//!
//! Wholly used instead, with the reason: a filesystem that ends beyond its volume, is marked to be checked, whose log
//! holds changes that were not carried out, whose bitmap is too short or calls clusters free in which its own metadata
//! lie. Clusters that Windows found to be bad are marked used; they are not read.

use std::sync::Arc;

use block::{AllocationMap, BlockSource, Everything, Extent, ExtentIter, grains};
use machine::{ByteCount, ByteOffset};

use super::attribute::kind;
use super::log::{LogState, RESTART_BYTES, parse_log_state};
use super::runs::{ClusterRun, parse_runs};
use super::stream::Stream;
use super::{Boot, NtfsVolume, file};
use crate::bits::Bits;
use crate::error::Result;
use crate::field::le16;

/// Bytes of the bitmap that are read at once.
const CHUNK: u64 = 64 << 10;
const CHUNK_CLUSTERS: u64 = CHUNK * 8;
/// Runs of bad clusters that are left out; a disk with more has other troubles.
const BAD_RUNS_MAX: usize = 65_536;
/// Of the volume's flags: it is to be checked.
const FLAG_DIRTY: u16 = 1;

/// The allocation map of an NTFS filesystem.
#[derive(Clone)]
pub(crate) struct NtfsMap {
    volume: NtfsVolume,
    bitmap: Arc<Stream>,
    /// Bad clusters, ascending: first and one past the last.
    bad: Arc<Vec<(u64, u64)>>,
}

/// What a walk over the bitmap found.
pub(crate) struct Findings {
    /// Bytes in use, from the filesystem's start to its last cluster.
    pub used: ByteCount,
    pub warnings: Vec<String>,
}

impl NtfsMap {
    /// Opens the map and reads the bitmap once.
    ///
    /// # Errors
    /// The reason why every byte must count as used.
    pub(crate) fn open(source: Arc<dyn BlockSource>, boot: Boot) -> std::result::Result<(Self, Findings), String> {
        if boot.total_bytes() > source.size().0 {
            return Err("it ends beyond its volume".into());
        }
        let volume = NtfsVolume::open(source, boot).map_err(|e| e.to_string())?;
        if is_dirty(&volume).map_err(|e| e.to_string())? {
            return Err("it is marked to be checked".into());
        }
        match log_state(&volume).map_err(|e| e.to_string())? {
            LogState::Clean => {}
            LogState::InUse => return Err("it was not cleanly unmounted, its log holds changes".into()),
            LogState::Damaged => return Err("its log cannot be read".into()),
        }
        let mut warnings: Vec<String> = volume.boot.damage.clone().into_iter().collect();
        let bitmap = bitmap(&volume)?;
        let mut bad = bad_clusters(&volume).map_err(|e| e.to_string())?;
        if bad.len() > BAD_RUNS_MAX {
            warnings.push(format!("of its {} runs of bad clusters {BAD_RUNS_MAX} are left out", bad.len()));
            bad.truncate(BAD_RUNS_MAX);
        }
        let count: u64 = bad.iter().map(|(first, end)| end - first).sum();
        if count != 0 {
            warnings.push(format!("{count} clusters are marked as bad, they are not read"));
        }
        let map = Self { volume, bitmap: Arc::new(bitmap), bad: Arc::new(bad) };
        let used = map.walk()?;
        Ok((map, Findings { used, warnings }))
    }

    /// Counts what is used, and compares it with the places of metadata.
    fn walk(&self) -> std::result::Result<ByteCount, String> {
        let metadata = self.metadata().map_err(|e| e.to_string())?;
        let mut used = 0;
        for chunk in 0..self.volume.boot.clusters.div_ceil(CHUNK_CLUSTERS) {
            let bits = self.bits(chunk).map_err(|e| format!("its bitmap: {e}"))?;
            let base = chunk * CHUNK_CLUSTERS;
            if let Some(free) = within(&metadata, base, bits.clusters).find(|&cluster| !bits.get(cluster - base)) {
                return Err(format!("its bitmap marks cluster {free} free, which holds metadata"));
            }
            used += self.without_bad(chunk, bits).used();
        }
        Ok(ByteCount(used * self.volume.boot.cluster_bytes))
    }

    /// Where the files lie that each volume has.
    fn metadata(&self) -> Result<Vec<(u64, u64)>> {
        let mut places = Vec::new();
        let mut put = |runs: &[ClusterRun]| places.extend(runs.iter().filter_map(ClusterRun::places));
        put(self.volume.table.runs());
        put(self.bitmap.runs());
        for number in (0..=file::LAST_COMPARED).filter(|&number| number != file::BAD_CLUSTERS) {
            let record = self.volume.record(number)?;
            for attribute in record.attributes()?.iter().filter(|attribute| !attribute.is_resident()) {
                let mut runs = Vec::new();
                let (pairs, first) = (attribute.mapping_pairs(), attribute.first_cluster());
                parse_runs(pairs, first, self.volume.boot.clusters, record.at(), &mut runs)?;
                put(&runs);
            }
        }
        Ok(joined(places))
    }

    /// The bits of one piece of the bitmap.
    fn bits(&self, chunk: u64) -> Result<Bits> {
        let clusters = (self.volume.boot.clusters - chunk * CHUNK_CLUSTERS).min(CHUNK_CLUSTERS);
        let mut bytes = vec![0; usize::try_from(clusters.div_ceil(8)).unwrap_or(0)];
        self.volume.read_stored(&self.bitmap, chunk * CHUNK, &mut bytes)?;
        Ok(Bits { bytes, clusters })
    }

    fn without_bad(&self, chunk: u64, mut bits: Bits) -> Bits {
        let base = chunk * CHUNK_CLUSTERS;
        within(&self.bad, base, bits.clusters).for_each(|cluster| bits.clear(cluster - base));
        bits
    }

    /// The used extents of a piece; all of it where it cannot be read any more.
    fn chunk_extents(&self, chunk: u64) -> Vec<Extent> {
        let boot = &self.volume.boot;
        let offset = |cluster: u64| ByteOffset(cluster.min(boot.clusters) * boot.cluster_bytes);
        let base = chunk * CHUNK_CLUSTERS;
        match self.bits(chunk) {
            Ok(bits) => {
                let runs = self.without_bad(chunk, bits).runs();
                runs.into_iter().map(|(first, end)| Extent::between(offset(base + first), offset(base + end))).collect()
            }
            Err(_) => vec![Extent::between(offset(base), offset(base + CHUNK_CLUSTERS))],
        }
    }
}

/// The bitmap's stream.
fn bitmap(volume: &NtfsVolume) -> std::result::Result<Stream, String> {
    let record = volume.record(file::BITMAP).map_err(|e| e.to_string())?;
    let bitmap = volume.stream(&record, kind::DATA, "").map_err(|e| e.to_string())?.ok_or("it has no bitmap")?;
    let needed = volume.boot.clusters.div_ceil(8);
    if bitmap.size < needed || bitmap.initialized < needed {
        let found = bitmap.size.min(bitmap.initialized);
        return Err(format!("its bitmap has {found} bytes, its clusters need {needed}"));
    }
    if bitmap.compression_unit.is_some() || bitmap.is_encrypted || bitmap.runs().iter().any(|run| run.place.is_none()) {
        return Err("its bitmap is sparse, compressed or encrypted, which no system does".into());
    }
    Ok(bitmap)
}

/// What the named stream of `$BadClus` has in places: it is as large as the volume, and a hole where all is well.
fn bad_clusters(volume: &NtfsVolume) -> Result<Vec<(u64, u64)>> {
    let record = volume.record(file::BAD_CLUSTERS)?;
    let stream = volume.stream(&record, kind::DATA, "$Bad")?;
    Ok(joined(stream.iter().flat_map(Stream::runs).filter_map(ClusterRun::places).collect()))
}

/// Ranges in ascending order, those that touch or overlap as one.
fn joined(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, previous| {
        let joins = next.0 <= previous.1;
        previous.1 = if joins { previous.1.max(next.1) } else { previous.1 };
        joins
    });
    ranges
}

/// The clusters of ascending ranges that are among `count` from `first`.
fn within(ranges: &[(u64, u64)], first: u64, count: u64) -> impl Iterator<Item = u64> {
    let (start, end) = (ranges.partition_point(|range| range.1 <= first), first + count);
    let inside = ranges[start..].iter().take_while(move |range| range.0 < end);
    inside.flat_map(move |range| range.0.max(first)..range.1.min(end))
}

/// Whether the volume is marked to be checked.
///
/// # Errors
/// [`Malformed`](crate::ErrorKind::Malformed) where the volume's own record does not say.
pub(crate) fn is_dirty(volume: &NtfsVolume) -> Result<bool> {
    let record = volume.record(file::VOLUME)?;
    let information = record.attribute(kind::VOLUME_INFORMATION, "")?;
    let value = information.as_ref().and_then(super::attribute::Attribute::value).filter(|value| value.len() >= 12);
    let wrong = || crate::Error::malformed(record.at(), "ntfs: the volume's record has no version and flags");
    Ok(le16(value.ok_or_else(wrong)?, 10) & FLAG_DIRTY != 0)
}

/// What the log says.
///
/// # Errors
/// Where there is none, or it cannot be read.
pub(crate) fn log_state(volume: &NtfsVolume) -> Result<LogState> {
    let record = volume.record(file::LOG)?;
    let Some(log) = volume.stream(&record, kind::DATA, "")? else { return Ok(LogState::Damaged) };
    let length = usize::try_from(log.size).unwrap_or(RESTART_BYTES).min(RESTART_BYTES);
    let mut bytes = vec![0; length];
    volume.read_stored(&log, 0, &mut bytes)?;
    Ok(parse_log_state(&bytes))
}

impl AllocationMap for NtfsMap {
    fn extents(&self, within: Extent) -> ExtentIter<'_> {
        let boot = &self.volume.boot;
        let end = ByteOffset(boot.clusters_bytes());
        let body = Extent::between(ByteOffset(0), end).intersection(within);
        // The copy of the boot sector, sectors that make no cluster, and whatever lies behind the filesystem.
        let tail = Extent::between(end, within.end().max(end)).intersection(within);
        let chunk = |at: ByteOffset| at.0 / boot.cluster_bytes / CHUNK_CLUSTERS;
        let chunks = match body.is_empty() {
            true => 0..0,
            false => chunk(body.start())..chunk(ByteOffset(body.end().0 - 1)) + 1,
        };
        let used = chunks
            .flat_map(move |chunk| self.chunk_extents(chunk))
            .map(move |e| e.intersection(body))
            .filter(|e| !e.is_empty())
            .map(Ok);
        grains(used.chain(Everything.extents(tail)), ByteCount(1), ByteCount(within.end().0))
    }
}
