//! A disk as an input of a fuzz target writes it: a few sectors, anywhere on a disk that is as large as its structures say.
//!
//! The size in sectors of 512 bytes (4 bytes, little-endian), then runs of sectors until the input ends: where the run begins
//! (3 bytes, little-endian), how many sectors it has less one (7 bits of a byte); its bytes, or, where the eighth bit is set, one
//! byte that they all have. What no run has reads as zeros; of two runs in one place the later one counts.

use std::sync::Arc;

use block::{BlockSource, check_bounds};
use machine::{ByteCount, ByteOffset, SectorSize};

const SECTOR: usize = 512;
/// Largest disk: 64 MiB.
const SECTORS_MAX: u32 = 1 << 17;
/// Runs of one disk.
const RUNS_MAX: usize = 1024;
const FILLED: u8 = 0x80;

struct Run {
    start: usize,
    end: usize,
    content: Content,
}

enum Content {
    /// Where it is in the input, which may end before the run does.
    Bytes(usize),
    Fill(u8),
}

struct Sparse {
    size: ByteCount,
    runs: Vec<Run>,
    input: Vec<u8>,
}

/// The disk that `input` describes, which is any bytes.
pub fn sparse_disk(input: &[u8]) -> Arc<dyn BlockSource> {
    let number = |at: usize, length: usize| {
        let bytes: Vec<u8> = input.iter().skip(at).take(length).copied().collect();
        bytes.iter().rev().fold(0_u32, |number, &byte| number << 8 | u32::from(byte))
    };
    let (mut runs, mut at) = (Vec::new(), 4);
    while at + 4 < input.len() && runs.len() < RUNS_MAX {
        let (first, kind) = (number(at, 3) as usize, input[at + 3]);
        at += 4;
        let sectors = usize::from(kind & !FILLED) + 1;
        let is_filled = kind & FILLED != 0;
        let content = if is_filled { Content::Fill(input[at]) } else { Content::Bytes(at) };
        runs.push(Run { start: first * SECTOR, end: (first + sectors) * SECTOR, content });
        at += if is_filled { 1 } else { sectors * SECTOR };
    }
    let size = ByteCount(u64::from(number(0, 4) % (SECTORS_MAX + 1)) * SECTOR as u64);
    Arc::new(Sparse { size, runs, input: input.to_vec() })
}

impl BlockSource for Sparse {
    fn size(&self) -> ByteCount {
        self.size
    }

    fn logical_sector_size(&self) -> SectorSize {
        SectorSize::B512
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> block::Result<()> {
        check_bounds(offset, buffer, self.size)?;
        let start = usize::try_from(offset.0).expect("it was compared with the size");
        let end = start + buffer.len();
        buffer.fill(0);
        for run in self.runs.iter().filter(|run| run.start < end && start < run.end) {
            let (from, to) = (run.start.max(start), run.end.min(end));
            let wanted = &mut buffer[from - start..to - start];
            match run.content {
                Content::Fill(byte) => wanted.fill(byte),
                Content::Bytes(at) => {
                    let bytes = self.input.get(at + from - run.start..).unwrap_or_default();
                    let length = wanted.len().min(bytes.len());
                    wanted[..length].copy_from_slice(&bytes[..length]);
                    wanted[length..].fill(0);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_lie_where_the_input_has_them_and_the_rest_is_zeros() {
        let mut input = vec![100, 0, 0, 0];
        input.extend([7, 0, 0, 1]);
        input.extend([1; 1024]);
        input.extend([8, 0, 0, FILLED | 1, 2]);
        input.extend([99, 0, 0, 3, 5, 6]);
        let disk = sparse_disk(&input);
        assert_eq!(disk.size(), ByteCount(51_200));
        let mut whole = vec![9; 51_200];
        disk.read_at(ByteOffset(0), &mut whole).unwrap();
        let mut expected = vec![0; 51_200];
        expected[7 * 512..8 * 512].fill(1);
        expected[8 * 512..10 * 512].fill(2);
        expected[99 * 512..99 * 512 + 2].copy_from_slice(&[5, 6]);
        assert!(whole == expected);
        let mut part = [9; 700];
        disk.read_at(ByteOffset(3900), &mut part).unwrap();
        assert_eq!(part, expected[3900..4600]);
        assert!(disk.read_at(ByteOffset(51_100), &mut part).is_err());
    }

    #[test]
    fn any_input_is_a_disk_of_bounded_size() {
        for input in [&[][..], &[1], &[0xff; 9], &[2, 0, 0, 0, 0, 0, 0, 0x7f]] {
            let disk = sparse_disk(input);
            assert!(disk.size().0 <= 64 << 20);
            disk.read_at(ByteOffset(0), &mut vec![0; usize::try_from(disk.size().0).unwrap()]).unwrap();
        }
    }
}
