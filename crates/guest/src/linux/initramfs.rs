//! Reads an initramfs as the kernel unpacks it, and extends one by an archive of its own at the end.
//!
//! An initramfs is a row of cpio archives (Documentation/driver-api/early-userspace/buffer-format.rst of Linux), each
//! plain or compressed, with NUL bytes between them; a plain one starts at a multiple of 4. Names of later archives
//! take the place of earlier ones. Nothing is unpacked to disk; every length is bounded. Unified kernel images (PE
//! files with their initramfs inside) are not opened here and never extended: they are signed as a whole.

mod compression;
mod cpio;
mod extend;
mod input;

pub use compression::Compression;
pub(crate) use compression::unpack;
pub(crate) use extend::extension;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::ControlFlow;

use crate::{Error, ErrorKind, FileTree, Result};
use input::Input;

/// Bytes that all archives together may unpack to.
const UNPACKED_MAX: u64 = 4 << 30;

/// Bytes of names, link targets and indexes that are kept of all archives together; some megabytes in a real one. A
/// few kilobytes may unpack to very many of them.
const KEPT_MAX: usize = 64 << 20;

/// Entries of all archives together.
const ENTRIES_MAX: usize = 1 << 20;

/// Archives in one initramfs.
const ARCHIVES_MAX: usize = 64;

/// Longest index file of modules that is kept.
const INDEX_MAX: u64 = 16 << 20;

/// One archive in an initramfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// First byte in the file.
    pub offset: u64,
    /// How it is packed.
    pub compression: Compression,
}

/// What an initramfs holds, as far as it decides whether its kernel finds its disks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The archives that were read.
    pub archives: Vec<Archive>,
    /// Whether reading ended early because every module asked for had been seen; what follows holds only if not.
    pub ended_early: bool,
    /// Kernel modules: name as `modprobe` writes it, with `_` → path in the initramfs.
    pub modules: BTreeMap<String, String>,
    /// Folders.
    pub folders: BTreeSet<String>,
    /// Symbolic links among the names that a module's path can lead through: `lib` → `usr/lib`.
    pub links: BTreeMap<String, String>,
    /// Files `modules.*` of the kernel: file name → contents.
    pub indexes: BTreeMap<String, Vec<u8>>,
    /// The folder that modules and indexes lie in: `usr/lib/modules/6.1.0-32-amd64`.
    pub modules_folder: Option<String>,
    /// Names of other files, for telling which generator made it and what it waits for; bounded.
    pub names: BTreeSet<String>,
}

/// Names kept of files that are no modules.
const NAMES_MAX: usize = 65_536;

/// Reads the initramfs at `path` from byte `start` on, for kernel `version`; ends as soon as every module in `wanted`
/// was seen. An empty `wanted` reads to the end.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for a compression that cannot be read, [`ErrorKind::Malformed`] for what is no
/// initramfs, [`ErrorKind::TooLarge`] past the bounds above.
pub fn read(tree: &dyn FileTree, path: &str, start: u64, version: &str, wanted: &BTreeSet<String>) -> Result<Contents> {
    let mut contents = Contents::default();
    let mut missing = wanted.clone();
    let mut input = Input::open(tree, path, start)?;
    let mut bounds = Bounds { bytes: UNPACKED_MAX, entries: ENTRIES_MAX, kept: KEPT_MAX };
    loop {
        input.skip_zeros().map_err(|e| fault(e, path))?;
        let head = input.peek(6).map_err(|e| fault(e, path))?;
        if head.is_empty() {
            break;
        }
        let detected = Compression::detect(head);
        let offset = input.position();
        let Some(compression) = detected else {
            // A boot loader or generator may leave anything behind the last archive; the kernel stops there too.
            if contents.archives.is_empty() {
                return Err(Error::new(ErrorKind::Malformed, "neither a cpio archive nor a known compression").at(path));
            }
            break;
        };
        if contents.archives.len() == ARCHIVES_MAX {
            return Err(Error::new(ErrorKind::TooLarge, format!("more than {ARCHIVES_MAX} archives")).at(path));
        }
        contents.archives.push(Archive { offset, compression });
        let visited = compression::open(compression, &mut input, |reader| {
            visit(reader, compression == Compression::None, version, &mut contents, &mut missing, &mut bounds)
        });
        match visited.map_err(|e| e.at(path))? {
            ControlFlow::Continue(()) => {}
            ControlFlow::Break(()) => {
                contents.ended_early = true;
                break;
            }
        }
    }
    if contents.archives.is_empty() {
        return Err(Error::new(ErrorKind::Malformed, "no archive in it").at(path));
    }
    Ok(contents)
}

/// For fuzzing: reads an initramfs from memory.
pub fn read_bytes(bytes: &[u8]) -> Result<Contents> {
    let tree = crate::tree::MemoryTree::new().with("/initrd", bytes);
    read(&tree, "/initrd", 0, "6.1.0", &BTreeSet::new())
}

fn fault(error: std::io::Error, path: &str) -> Error {
    Error::io("read", error).at(path)
}

struct Bounds {
    bytes: u64,
    entries: usize,
    kept: usize,
}

fn too_large(what: &str) -> Error {
    Error::new(ErrorKind::TooLarge, format!("initramfs with more than {what}"))
}

impl Bounds {
    /// Counts `length` bytes that are about to be kept.
    fn keep(&mut self, length: usize) -> Result<()> {
        let left = self.kept.checked_sub(length);
        self.kept = left.ok_or_else(|| too_large("64 MiB of names and indexes"))?;
        Ok(())
    }
}

/// Walks the archives in one unpacked stream.
fn visit(
    stream: &mut dyn Read,
    plain: bool,
    version: &str,
    contents: &mut Contents,
    missing: &mut BTreeSet<String>,
    bounds: &mut Bounds,
) -> Result<ControlFlow<()>> {
    let mut archive = cpio::Reader::new(stream, plain, bounds.bytes);
    let searching = !missing.is_empty();
    while let Some(entry) = archive.next_entry()? {
        bounds.entries = bounds.entries.checked_sub(1).ok_or_else(|| too_large("1048576 entries"))?;
        let name = normal(&entry.name);
        bounds.keep(name.len())?;
        match entry.kind() {
            cpio::Kind::Folder => {
                contents.folders.insert(name);
            }
            cpio::Kind::Link if !name.contains("/modules/") && contents.links.len() < NAMES_MAX => {
                // A module's path has few links on its way; their targets are short.
                let target = archive.contents(entry.size.min(4096))?;
                bounds.keep(target.len())?;
                if let Ok(target) = String::from_utf8(target) {
                    contents.links.insert(name, target);
                }
            }
            cpio::Kind::File => {
                let folder = modules_folder(&name, version);
                if let Some(module) = super::modules::module_name(&name) {
                    missing.remove(&module);
                    contents.modules.insert(module, name.clone());
                    if let Some(folder) = folder {
                        contents.modules_folder = Some(folder.to_owned());
                    }
                    if searching && missing.is_empty() {
                        return Ok(ControlFlow::Break(()));
                    }
                } else if let Some((folder, file)) = folder.and_then(|folder| {
                    let file = name.strip_prefix(folder)?.strip_prefix('/')?;
                    (file.starts_with("modules.") && !file.contains('/')).then_some((folder, file))
                }) {
                    if entry.size > INDEX_MAX {
                        return Err(Error::new(ErrorKind::TooLarge, format!("{file} of {} bytes", entry.size)));
                    }
                    contents.modules_folder = Some(folder.to_owned());
                    let file = file.to_owned();
                    let bytes = archive.contents(entry.size)?;
                    bounds.keep(bytes.len())?;
                    contents.indexes.insert(file, bytes);
                } else if contents.names.len() < NAMES_MAX {
                    contents.names.insert(name);
                }
            }
            _ => {}
        }
    }
    bounds.bytes = bounds.bytes.saturating_sub(archive.position());
    Ok(ControlFlow::Continue(()))
}

/// `usr/lib/modules/VERSION` if `name` lies below it (or `lib/modules/VERSION`).
fn modules_folder<'n>(name: &'n str, version: &str) -> Option<&'n str> {
    ["usr/lib/modules/", "lib/modules/"].iter().find_map(|start| {
        let rest = name.strip_prefix(start)?.strip_prefix(version)?;
        rest.starts_with('/').then(|| &name[..start.len() + version.len()])
    })
}

/// A name as the kernel creates it: without `./` and leading `/`.
fn normal(name: &str) -> String {
    name.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}

/// An archive for tests.
#[cfg(test)]
pub(super) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = cpio::Writer::new();
    for (name, data) in files {
        writer.file(name, data, 0o644);
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::MemoryTree;

    const VERSION: &str = "6.1.0-1-amd64";

    fn pack(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        let xz = |format| {
            let options = liblzma::stream::LzmaOptions::new_preset(1).unwrap();
            let stream = match format {
                "xz" => liblzma::stream::Stream::new_easy_encoder(1, liblzma::stream::Check::Crc32),
                _ => liblzma::stream::Stream::new_lzma_encoder(&options),
            };
            let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream.unwrap());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        match compression {
            Compression::None => bytes.to_vec(),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::encode_all(bytes, 1).unwrap(),
            Compression::Xz => xz("xz"),
            Compression::Lzma => xz("lzma"),
            Compression::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Lz4 => compression::lz4_legacy(bytes),
            Compression::Lzop => unreachable!("nothing here writes lzop"),
        }
    }

    fn sample() -> Vec<u8> {
        archive(&[
            ("usr/lib/modules/6.1.0-1-amd64/kernel/drivers/ata/ata-piix.ko", b"a"),
            ("usr/lib/modules/6.1.0-1-amd64/kernel/drivers/block/virtio_blk.ko.xz", b"bb"),
            ("usr/lib/modules/6.1.0-1-amd64/modules.dep", b"x"),
            ("etc/zzz", &[b'z'; 300_000]),
        ])
    }

    #[test]
    fn every_compression_is_read_behind_an_early_archive_and_before_an_appended_one() {
        use Compression::{Bzip2, Gzip, Lz4, Lzma, None, Xz, Zstd};
        for compression in [None, Gzip, Xz, Lzma, Zstd, Lz4, Bzip2] {
            let mut image = archive(&[("kernel/x86/microcode/GenuineIntel.bin", b"microcode")]);
            image.resize(image.len().next_multiple_of(512), 0);
            image.extend(pack(compression, &sample()));
            let more = archive(&[("usr/lib/modules/6.1.0-1-amd64/kernel/virtio.ko", b"v")]);
            if compression == Lz4 {
                image.extend(pack(Lz4, &more));
            } else {
                image.resize(image.len().next_multiple_of(4), 0);
                image.extend(more);
            }
            let tree = MemoryTree::new().with("/boot/i", &image);
            let all = read(&tree, "/boot/i", 0, VERSION, &BTreeSet::new()).unwrap();
            assert_eq!(
                all.modules.keys().map(String::as_str).collect::<Vec<_>>(),
                ["ata_piix", "virtio", "virtio_blk"],
                "{compression:?}"
            );
            assert_eq!(all.indexes["modules.dep"], b"x");
            assert_eq!(all.modules_folder.as_deref(), Some("usr/lib/modules/6.1.0-1-amd64"));
            assert!(all.names.contains("kernel/x86/microcode/GenuineIntel.bin"));
            let wanted = BTreeSet::from(["virtio_blk".to_owned()]);
            assert!(read(&tree, "/boot/i", 0, VERSION, &wanted).unwrap().ended_early);
            // Cut short anywhere, it is an error or a part of it, never a panic.
            for end in [10, 200, image.len() / 2, image.len() - 200] {
                let cut = MemoryTree::new().with("/boot/i", &image[..end]);
                let _ = read(&cut, "/boot/i", 0, VERSION, &BTreeSet::new());
            }
        }
    }

    #[test]
    fn lzop_is_recognised_and_refused_by_name() {
        let error = read_bytes(b"\x89LZO\0\r\n\x1a\n and more").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported);
        assert!(error.context.contains("lzop"), "{error}");
        assert_eq!(read_bytes(b"MZ this is a program").unwrap_err().kind, ErrorKind::Malformed);
    }

    /// A stream of zeros is an archive without an end; one of many indexes would fill the memory of the appliance.
    #[test]
    fn what_unpacks_without_bound_is_refused() {
        let zeros = pack(Compression::Zstd, &vec![0; 8 << 20]);
        assert_eq!(read_bytes(&zeros).unwrap_err().kind, ErrorKind::Malformed);
        let index = vec![0; 16 << 20];
        let names: Vec<String> = (0..5).map(|n| format!("lib/modules/6.1.0/modules.{n}")).collect();
        let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), index.as_slice())).collect();
        let packed = pack(Compression::Zstd, &archive(&files));
        assert!(packed.len() < 1 << 20);
        let error = read_bytes(&packed).unwrap_err();
        assert_eq!(error.kind, ErrorKind::TooLarge);
        assert!(error.context.contains("indexes"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn damaged_images_are_survived(position in 0usize..2000, value: u8, packed: bool) {
            let files = [("usr/lib/modules/6.1.0/kernel/a.ko", b"1".as_slice()), ("usr/lib/modules/6.1.0/modules.dep.bin", b"2")];
            let mut image = archive(&files);
            if packed {
                image = pack(Compression::Gzip, &image);
            }
            let position = position % image.len();
            image[position] = value;
            let _ = read_bytes(&image);
        }
    }
}
