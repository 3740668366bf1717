//! What the tests of this crate share: a repeatable random disk, real tools, the test data.
#![allow(dead_code)] // each test program uses its own part

mod test_data;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use block::{BlockSource, BufferMut, Chunk, Content, Extent, ExtentIter, MemorySource, Pool};
use machine::{ByteCount, ByteOffset, SectorSize};

#[allow(unused_imports)] // not each test program needs it
pub(crate) use test_data::test_data;

pub(crate) const GRAIN: u64 = block::GRAIN.0;

/// xorshift64*: repeatable and without a crate.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// A disk on which about a half of the grains are zero, some hold only one byte.
pub(crate) fn random_disk(size: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed | 1);
    let mut bytes = vec![0; size];
    for grain in bytes.chunks_mut(GRAIN as usize) {
        match random.below(4) {
            0 | 1 => {}
            2 => {
                let at = random.below(grain.len() as u64) as usize;
                grain[at] = 0xa5;
            }
            _ => grain.chunks_mut(8).for_each(|word| {
                let value = random.next().to_le_bytes();
                word.copy_from_slice(&value[..word.len()]);
            }),
        }
    }
    bytes
}

pub(crate) fn memory(bytes: &[u8]) -> Arc<dyn BlockSource> {
    Arc::new(MemorySource::new(bytes.to_vec(), SectorSize::B512))
}

pub(crate) fn extent(start: u64, end: u64) -> Extent {
    Extent::between(ByteOffset(start), ByteOffset(end))
}

pub(crate) fn extents(list: &[(u64, u64)]) -> ExtentIter<'static> {
    let list: Vec<_> = list.iter().map(|&(start, end)| Ok(extent(start, end))).collect();
    Box::new(list.into_iter())
}

/// All of a disk.
pub(crate) fn everything(source: &Arc<dyn BlockSource>) -> ExtentIter<'static> {
    extents(&[(0, source.size().0)])
}

pub(crate) fn read_all(source: &dyn BlockSource) -> Vec<u8> {
    let mut bytes = vec![0; source.size().to_usize().unwrap()];
    source.read_at(ByteOffset::ZERO, &mut bytes).unwrap();
    bytes
}

pub(crate) fn data(offset: u64, bytes: &[u8]) -> Chunk {
    let mut buffer: BufferMut = Pool::new(0).take();
    buffer[..bytes.len()].copy_from_slice(bytes);
    Chunk { offset: ByteOffset(offset), content: Content::Data(buffer.freeze(bytes.len())) }
}

pub(crate) fn zero(offset: u64, length: u64) -> Chunk {
    Chunk { offset: ByteOffset(offset), content: Content::Zero(ByteCount(length)) }
}

/// Runs a tool that must succeed; returns what it printed.
pub(crate) fn run(program: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program}: {out}{err}");
    out.into_owned()
}

/// Whether a tool is there; says so when not.
pub(crate) fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        println!("skipped: no {program}");
    }
    there
}

/// `qemu-img check` finds nothing at all.
pub(crate) fn check_clean(image: &Path) {
    let printed = run("qemu-img", [OsStr::new("check"), OsStr::new("-f"), OsStr::new("qcow2"), image.as_os_str()]);
    assert!(printed.contains("No errors were found"), "{printed}");
}

/// The disk in an image, as QEMU reads it.
pub(crate) fn convert_to_raw(image: &Path, format: &str, folder: &Path) -> Vec<u8> {
    let raw = folder.join("as-qemu-reads-it.raw");
    run(
        "qemu-img",
        [
            "convert".as_ref(),
            "-f".as_ref(),
            format.as_ref(),
            "-O".as_ref(),
            "raw".as_ref(),
            image.as_os_str(),
            raw.as_os_str(),
        ] as [&OsStr; 7],
    );
    let bytes = std::fs::read(&raw).unwrap();
    std::fs::remove_file(&raw).unwrap();
    bytes
}

/// Unpacks a file of the test data into `folder`.
pub(crate) fn unpack(data: &Path, name: &str, folder: &Path) -> PathBuf {
    let to = folder.join(Path::new(name).file_stem().unwrap());
    run(
        "zstd",
        ["-q".as_ref(), "-d".as_ref(), "--long=27".as_ref(), "-o".as_ref(), to.as_os_str(), data.join(name).as_os_str()]
            as [&OsStr; 6],
    );
    to
}
