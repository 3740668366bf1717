//! Files read in user space are those that were put in, on every layout of ext2/3/4.
#![allow(clippy::unwrap_used)] // a test fails by it
mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;

use machine::ByteCount;
use machine::files::FileTree;
use support::{disk, sh};
use volume::ErrorKind;
use volume::files::{FileKind, Files};

const VARIANTS: [&str; 7] = [
    "-t ext2 -b 1024",
    "-t ext2 -O ^filetype -r 1 -b 4096",
    "-t ext3 -b 1024",
    "-t ext4",
    "-t ext4 -b 1024 -O inline_data -I 256",
    "-t ext4 -O bigalloc,meta_bg,^resize_inode",
    "-t ext4 -O ^metadata_csum,^64bit",
];

/// A tree with what a root has: large and sparse files, many names, links of both kinds and lengths, owners and modes.
fn tree(root: &Path) {
    let script = "cd $1; mkdir -p usr/lib etc many/deep/er empty
        head -c 5000001 /dev/urandom > large; truncate -s 20M sparse
        printf tail | dd of=sparse bs=1 seek=15000000 conv=notrunc status=none
        printf x > one; : > none; head -c 100 /dev/urandom > etc/inline; seq 20000 > etc/seq
        echo NAME=x > usr/lib/os-release
        for i in $(seq 1500); do echo $i > many/a-rather-long-name-to-fill-blocks-with-$i; done
        chmod 4755 one; chown 12345:99999 none; chmod 1777 empty; mkfifo fifo; mknod null c 1 3";
    sh(script, &[root]);
    symlink("../usr/lib/os-release", root.join("etc/os-release")).unwrap();
    symlink("usr/lib", root.join("lib")).unwrap();
    symlink("/etc", root.join("absolute")).unwrap();
    symlink(format!("/usr/{}lib", "./".repeat(60)), root.join("long")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("../../../..", root.join("many/deep/up")).unwrap();
}

/// Everything under `path`: kind, mode, owner and contents, by name.
fn walk(files: &Files, path: &Path, found: &mut BTreeMap<String, String>) {
    for entry in files.list(path).unwrap() {
        let path = path.join(&entry.name);
        let m = files.metadata(&path).unwrap();
        assert_eq!(m.kind, entry.kind, "{}", path.display());
        let what = match m.kind {
            FileKind::Regular => {
                let bytes = files.read(&path, ByteCount::mib(64)).unwrap();
                assert_eq!(bytes.len() as u64, m.size.0);
                format!("{:x}", bytes.iter().fold(0u64, |sum, &b| sum.wrapping_mul(31).wrapping_add(b.into())))
            }
            FileKind::Symlink => files.read_link(&path).unwrap().into_string().unwrap(),
            FileKind::Directory => {
                walk(files, &path, found);
                String::new()
            }
            _ => String::new(),
        };
        found.insert(path.display().to_string(), format!("{:?} {:o} {}:{} {what}", m.kind, m.mode, m.uid, m.gid));
    }
}

fn walk_host(root: &Path, path: &Path, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(path).unwrap().map(|e| e.unwrap()) {
        let m = entry.path().symlink_metadata().unwrap();
        let path = entry.path();
        let (kind, what) = match m.mode() >> 12 {
            4 => {
                walk_host(root, &path, found);
                (FileKind::Directory, String::new())
            }
            8 => {
                let bytes = std::fs::read(&path).unwrap();
                let sum = bytes.iter().fold(0u64, |sum, &b| sum.wrapping_mul(31).wrapping_add(b.into()));
                (FileKind::Regular, format!("{sum:x}"))
            }
            10 => (FileKind::Symlink, std::fs::read_link(&path).unwrap().display().to_string()),
            1 => (FileKind::Fifo, String::new()),
            2 => (FileKind::CharDevice, String::new()),
            other => panic!("{other}"),
        };
        let name = Path::new("/").join(path.strip_prefix(root).unwrap()).display().to_string();
        found.insert(name, format!("{kind:?} {:o} {}:{} {what}", m.mode() & 0o7777, m.uid(), m.gid()));
    }
}

#[test]
fn all_files_are_those_that_were_put_in() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir(&root).unwrap();
    tree(&root);
    let mut expected = BTreeMap::new();
    walk_host(&root, &root, &mut expected);
    assert!(expected.len() > 1500);
    for options in VARIANTS {
        let image = folder.path().join("disk");
        sh(
            &format!("rm -f $1; truncate -s 64M $1; mke2fs -qF {options} -N 3000 -d $2 $1 2>/dev/null"),
            &[&image, &root],
        );
        let files = Files::open(disk(&image)).unwrap();
        let mut found = BTreeMap::new();
        walk(&files, Path::new("/"), &mut found);
        found.remove("/lost+found");
        let mut expected = expected.clone();
        if options.contains("inline_data") {
            // mke2fs itself cuts sparse files short there, as debugfs shows.
            assert!(found.remove("/sparse").is_some() && expected.remove("/sparse").is_some());
        }
        assert!(found == expected, "{options}: {:#?}", expected.iter().find(|(k, v)| found.get(*k) != Some(*v)));

        let kind = |result: volume::Result<Vec<u8>>| result.unwrap_err().kind;
        assert_eq!(files.read("/etc/os-release", ByteCount(7)).unwrap(), b"NAME=x\n");
        assert_eq!(files.read("/absolute/../lib/../../etc/./os-release", ByteCount(7)).unwrap(), b"NAME=x\n");
        assert_eq!(files.read("/long/os-release", ByteCount(7)).unwrap(), b"NAME=x\n");
        assert_eq!(files.read("/many/deep/up/one", ByteCount(7)).unwrap(), b"x");
        assert_eq!(kind(files.read("/loop", ByteCount(7))), ErrorKind::NotFound);
        assert_eq!(kind(files.read("/one/two", ByteCount(7))), ErrorKind::NotFound);
        assert_eq!(kind(files.read("/large", ByteCount(5_000_000))), ErrorKind::TooLarge);
        assert_eq!(kind(files.read("/fifo", ByteCount(7))), ErrorKind::Unsupported);
        assert_eq!(files.target_metadata("/etc/os-release").unwrap().size, ByteCount(7));
        is_a_guests_tree(&files);
        let large = std::fs::read(root.join("large")).unwrap();
        for (offset, length) in [(0, 1), (4_999_999, 100), (1_234_567, 2_000_000), (5_000_001, 1), (u64::MAX, 9)] {
            let start = usize::try_from(offset.min(5_000_001)).unwrap();
            let end = (start + length).min(large.len());
            assert!(files.read_range("/large", offset, length).unwrap() == large[start..end], "{offset}");
        }
        assert_eq!(files.read_range("/sparse", 14_999_998, 8).unwrap(), b"\0\0tail\0\0");
    }
}

/// What is not there, or is of another kind, is none; links are followed to the end.
fn is_a_guests_tree(tree: &dyn FileTree) {
    use machine::files::FileKind;
    use std::io::ErrorKind;

    let kind = |path: &str| tree.metadata(path).unwrap().map(|metadata| metadata.kind);
    assert_eq!([kind("/lib"), kind("/etc/os-release")], [Some(FileKind::Folder), Some(FileKind::File)]);
    assert_eq!([kind("/fifo"), kind("/loop"), kind("/nothing")], [Some(FileKind::Other), None, None]);
    assert_eq!(tree.text("/etc/os-release").unwrap().unwrap(), "NAME=x\n");
    assert_eq!([tree.read("/etc", 9).unwrap(), tree.read("/nothing", 9).unwrap()], [None, None]);
    assert_eq!(tree.read("/large", 9).unwrap_err().kind(), ErrorKind::FileTooLarge);
    let mut part = [b'-'; 8];
    assert_eq!(tree.read_at("/etc/os-release", 5, &mut part).unwrap(), 2);
    assert_eq!(&part, b"x\n------");
    assert_eq!(tree.read_at("/nothing", 0, &mut part).unwrap_err().kind(), ErrorKind::NotFound);
    let names: Vec<String> = tree.list("/absolute").unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["inline", "os-release", "seq"]);
    assert_eq!((tree.list("/one").unwrap(), tree.read_link("/one").unwrap()), (vec![], None));
    assert_eq!(tree.read_link("/lib").unwrap().unwrap(), "usr/lib");
}

/// Media as xorriso makes them: Joliet, Rock Ridge, both, none; a large file in pieces and a full folder.
#[test]
fn files_of_an_iso_are_read_by_each_kind_of_name() {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    let deep = tree.join("viostor/2k19/amd64");
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("viostor-of-a-long-name.inf"), "[Version]\n").unwrap();
    std::fs::write(deep.join("empty.txt"), "").unwrap();
    let large: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(tree.join("large.bin"), &large).unwrap();
    std::fs::create_dir(tree.join("many")).unwrap();
    for n in 0..200 {
        std::fs::write(tree.join(format!("many/file-number-{n:03}.txt")), format!("{n}")).unwrap();
    }
    for (options, long) in [("-J -r", true), ("-J --norock", true), ("-r", true), ("--norock", false)] {
        let image = folder.path().join("image.iso");
        sh(
            &format!("rm -f \"$2\"; xorriso -as mkisofs -quiet -iso-level 3 {options} -o \"$2\" \"$1\" 2>&1"),
            &[&tree, &image],
        );
        let files = Files::open(disk(&image)).unwrap();
        assert_eq!(files.read("/large.bin", ByteCount(2 << 20)).unwrap(), large, "{options}");
        assert_eq!(files.read_range("/LARGE.bin", 4096, 4).unwrap(), 1024u32.to_le_bytes(), "{options}");
        assert_eq!(files.list("/many").unwrap().len(), 200, "{options}");
        let names: Vec<String> =
            files.list("/viostor/2k19/amd64").unwrap().iter().map(|e| e.name.to_string_lossy().into_owned()).collect();
        println!("{options}: {names:?}");
        assert_eq!(names.len(), 2, "{options}");
        if long {
            assert_eq!(names, ["empty.txt", "viostor-of-a-long-name.inf"], "{options}");
            let inf = files.read("/viostor/2k19/amd64/viostor-of-a-long-name.inf", ByteCount(100)).unwrap();
            assert_eq!(inf, b"[Version]\n", "{options}");
            assert_eq!(files.read("/many/file-number-199.txt", ByteCount(9)).unwrap(), b"199");
        }
        assert!(files.read("/viostor/none", ByteCount(1)).is_err() && files.read("/viostor", ByteCount(1)).is_err());
        // A medium that is cut, or whose bytes are changed, gives errors and never ends in anything else.
        let bytes = std::fs::read(&image).unwrap();
        for cut in [40_000, 50_000, 60_000, 100_000] {
            std::fs::write(&image, &bytes[..cut]).unwrap();
            if let Ok(files) = Files::open(disk(&image)) {
                let _ = (files.read("/large.bin", ByteCount(2 << 20)).is_err(), files.list("/many"));
            }
        }
        std::fs::write(&image, &bytes).unwrap();
        let writable = std::fs::OpenOptions::new().write(true).open(&image).unwrap();
        let files = || Files::open(disk(&image));
        for at in (32_768..bytes.len().min(70_000)).step_by(53) {
            writable.write_all_at(&[!bytes[at]], at as u64).unwrap();
            if let Ok(files) = files() {
                let _ =
                    (files.list("/"), files.list("/many"), files.read("/viostor/2k19/amd64/empty.txt", ByteCount(9)));
            }
            writable.write_all_at(&bytes[at..=at], at as u64).unwrap();
        }
        assert!(files().is_ok());
    }
}
