//! Files of NTFS are those that ntfs-3g shows: on volumes that it filled, and on those that Windows wrote.
#![allow(clippy::unwrap_used)] // a test fails by it
mod support;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use block::{BlockSource, Extent, Slice};
use machine::ByteCount;
use machine::files::FileTree;
use support::ntfs::{Mounted, made};
use support::{disk, sh, test_data};
use volume::files::{FileKind, Files};
use volume::{ErrorKind, detect_layout};

/// Bytes of a file that are compared.
const COMPARED: usize = 6 << 20;

/// Folders, names of all kinds, files of all sizes: in their records, in clusters, sparse, compressed, linked.
const FILL: &str = r#"mkdir -p Windows/System32/config many "Program Files (x86)" packed Ünïcode/日本
    head -c 5000001 /dev/urandom > Windows/System32/config/SYSTEM; printf x > one; : > none
    for n in 10 300 500 650 700 720 800 1024 4095 4096 4097; do head -c $n /dev/urandom > size-$n; done
    truncate -s 20M sparse; printf tail | dd of=sparse bs=1 seek=15000000 conv=notrunc status=none
    printf 'ä' > "Ünïcode/Größe und Maß.TXT"; echo 日 > Ünïcode/日本/本
    seq -f many/A-Rather-Long-Name-To-Fill-Blocks-With-%05g 1 4000 | xargs touch
    echo deep > many/A-Rather-Long-Name-To-Fill-Blocks-With-02222; ln one hard
    python3 -c "
import os, struct
os.setxattr('packed', 'system.ntfs_attrib_be', bytes([0, 0, 8, 0x10]))
def point(path, tag, target, flags):
    name = target.encode('utf-16-le')
    head = struct.pack('<HHHH', 0, len(name), len(name) + 2, 0) + flags
    data = head + name + b'\0\0\0\0'
    os.setxattr(path, 'system.ntfs_reparse_data', struct.pack('<IHH', tag, len(data), 0) + data)
os.mkdir('Documents and Settings'); os.mkdir('other'); open('relative', 'w')
point('Documents and Settings', 0xa0000003, chr(92) + '??' + chr(92) + 'C:' + chr(92) + 'Windows', b'')
point('other', 0xa0000003, chr(92) + '??' + chr(92) + 'Volume{0a1b2c3d-0000-0000-0000-100000000000}' + chr(92), b'')
point('relative', 0xa000000c, 'Windows' + chr(92) + 'System32' + chr(92) + '..', struct.pack('<I', 1))
open('overlay', 'wb').write(bytes(9))
os.setxattr('overlay', 'system.ntfs_reparse_data', struct.pack('<IHHIIII', 0x80000017, 16, 0, 1, 2, 1, 1))
"
    seq 300000 > packed/numbers; head -c 400000 /dev/urandom > packed/noise; seq 100 > packed/short
    { seq 30000; head -c 200000 /dev/zero; head -c 100000 /dev/urandom; seq 9; } > packed/mixed"#;

/// Kind, size and a sum of each file below `path`.
fn walk(files: &Files, path: &Path, found: &mut BTreeMap<String, String>) {
    for entry in files.list(path).unwrap() {
        let path = path.join(&entry.name);
        let metadata = files.metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(metadata.kind, entry.kind, "{}", path.display());
        let what = match metadata.kind {
            FileKind::Regular => match files.read_range(&path, 0, COMPARED) {
                // Windows shows Interix' links as the files that they are, ntfs-3g as links.
                Ok(bytes) if bytes.starts_with(b"IntxLNK\x01") => {
                    found.insert(path.display().to_string(), "Symlink ".into());
                    continue;
                }
                Ok(bytes) => format!("{} {:x}", metadata.size.0, sum(&bytes)),
                Err(error) => error.to_string(),
            },
            FileKind::Directory => {
                walk(files, &path, found);
                String::new()
            }
            _ => String::new(),
        };
        found.insert(path.display().to_string(), format!("{:?} {what}", metadata.kind));
    }
}

fn walk_host(root: &Path, path: &Path, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(path).unwrap().map(|e| e.unwrap()) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let what = if kind.is_symlink() {
            "Symlink ".into()
        } else if kind.is_dir() {
            walk_host(root, &path, found);
            "Directory ".into()
        } else {
            let mut bytes = Vec::new();
            match std::fs::File::open(&path).and_then(|file| file.take(COMPARED as u64).read_to_end(&mut bytes)) {
                Ok(_) => format!("Regular {} {:x}", entry.metadata().unwrap().len(), sum(&bytes)),
                Err(error) => format!("Regular {error}"),
            }
        };
        let name = Path::new("/").join(path.strip_prefix(root).unwrap()).display().to_string();
        found.insert(name, what);
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0u64, |sum, &b| sum.wrapping_mul(31).wrapping_add(b.into()))
}

/// Compares the filesystem at `offset` of an image; how many files there are.
fn assert_alike(image: &Path, offset: u64, files: &Files) -> usize {
    let mounted = Mounted::read_only(image, offset);
    let (mut expected, mut found) = (BTreeMap::new(), BTreeMap::new());
    walk_host(&mounted.root, &mounted.root, &mut expected);
    walk(files, Path::new("/"), &mut found);
    let differs = expected.iter().find(|(name, what)| found.get(*name) != Some(*what));
    assert!(found == expected, "{}: {differs:?}, {:?}", image.display(), differs.map(|(name, _)| found.get(name)));
    found.len()
}

#[test]
fn all_files_are_those_that_were_put_in() {
    let folder = tempfile::tempdir().unwrap();
    for options in ["-c 4096", "-c 512", "-c 4096 -s 4096", "-c 65536"] {
        let image = made(folder.path(), "96M", options, FILL);
        let files = Files::open(disk(&image)).unwrap();
        // Its data are none for ntfs-3g either, which says so in another way.
        let (mut found, mut expected) = (BTreeMap::new(), BTreeMap::new());
        walk(&files, Path::new("/"), &mut found);
        let mounted = Mounted::read_only(&image, 0);
        walk_host(&mounted.root, &mounted.root, &mut expected);
        assert!(found.remove("/overlay").unwrap().contains("compressed by Windows' overlay (LZX)"));
        expected.remove("/overlay").unwrap();
        println!("{options}: {} files", found.len());
        let differs = expected.iter().find(|(name, what)| found.get(*name) != Some(*what));
        assert!(found == expected, "{options}: {differs:?}, {:?}", differs.map(|(name, _)| found.get(name)));
        assert!(found.len() > 4030);

        let large = std::fs::read(mounted.root.join("packed/mixed")).unwrap();
        for (offset, length) in [(0, 1), (65_535, 2), (100_000, 200_000), (large.len() as u64 - 9, 99)] {
            let start = usize::try_from(offset).unwrap();
            let end = (start + length).min(large.len());
            assert!(files.read_range("/packed/mixed", offset, length).unwrap() == large[start..end], "{offset}");
        }
    }
}

#[test]
fn names_are_found_without_regard_to_case_and_links_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let image = made(folder.path(), "96M", "-c 4096", FILL);
    let files = Files::open(disk(&image)).unwrap();
    for n in 1..=4000 {
        let name = format!("/MANY/a-rather-LONG-name-to-fill-blocks-with-{n:05}");
        assert_eq!(files.metadata(&name).unwrap().kind, FileKind::Regular, "{name}");
    }
    let read = |path: &str| files.read(path, ByteCount(100));
    let kind = |path: &str| read(path).unwrap_err().kind;
    assert_eq!(read("/many/A-RATHER-LONG-NAME-TO-FILL-BLOCKS-WITH-02222").unwrap(), b"deep\n");
    assert_eq!(read("/ÜNÏCODE/größe UND MAß.txt").unwrap(), "ä".as_bytes());
    assert_eq!([kind("/many/a-rather"), kind("/zzz"), kind("/one/x")], [ErrorKind::NotFound; 3]);
    assert_eq!(kind("/many"), ErrorKind::Unsupported);
    assert_eq!(files.read("/sparse", ByteCount::mib(19)).unwrap_err().kind, ErrorKind::TooLarge);
    assert_eq!(files.read_range("/sparse", 14_999_998, 8).unwrap(), b"\0\0tail\0\0");

    assert_eq!(files.read_link("/Documents and Settings").unwrap(), "/Windows");
    assert_eq!(files.metadata("/documents AND settings/system32/CONFIG/system").unwrap().size, ByteCount(5_000_001));
    assert_eq!(files.read_link("/relative").unwrap(), "Windows/System32/..");
    assert_eq!(files.list("/relative").unwrap().len(), 1);
    assert_eq!(files.target_metadata("/other").unwrap_err().kind, ErrorKind::NotFound);

    let tree: &dyn FileTree = &files;
    assert_eq!(tree.read("/overlay", 100).unwrap(), None, "what cannot be read is as if it were not there");
    let error = files.read("/overlay", ByteCount(100)).unwrap_err();
    assert_eq!((error.kind, error.to_string().contains("LZX")), (ErrorKind::Unsupported, true), "{error}");
}

#[test]
fn volumes_that_windows_wrote_have_the_files_that_ntfs_3g_shows() {
    let Some(data) = test_data() else { return };
    let mut seen = 0;
    for (file, unpack) in [
        ("disk/ColinFinck-testfs1.raw.zst", ""),
        ("disk/charlie.dd.zst", ""),
        ("disk/dfirntfs-ntfs3.raw.zst", ""),
        ("disk/ntfs.raw.zst", ""),
        ("disk/vss.raw.zst", ""),
        ("disk/vss_2003.tgz", "tar -C $(dirname $2) -xSzf $1; mv $(dirname $2)/vss_2003.raw $2"),
        ("img/ntfs-dynamic.vhdx.zst", "zstd -dq $1 -o $2.x; qemu-img convert -f vhdx -O raw $2.x $2"),
        ("img/vsstest.qcow2.zst", "zstd -dq $1 -o $2.x; qemu-img convert -f qcow2 -O raw $2.x $2"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk");
        let unpack = if unpack.is_empty() { "zstd -dq --long=27 $1 -o $2" } else { unpack };
        sh(unpack, &[&data.join(file), &image]);
        let source = disk(&image);
        let layout = detect_layout(&[Arc::clone(&source)]).unwrap();
        let volume = layout.disks()[0].volumes.iter().find(|volume| volume.kind == "ntfs").unwrap();
        let slice = Slice::new(source, Extent::new(volume.offset, volume.size).unwrap()).unwrap();
        let files = Files::open(Arc::new(slice) as Arc<dyn BlockSource>).unwrap();
        let count = assert_alike(&image, volume.offset.0, &files);
        println!("{file}: {count} files");
        seen += count;
    }
    assert!(seen > 100, "{seen}");
}
