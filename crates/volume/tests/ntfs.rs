//! The allocation map of NTFS is its bitmap to the bit, as other programs read it; what it leaves out no file needs, and one
//! that lies is copied whole.
#![allow(clippy::unwrap_used)] // a test fails by it
mod differencing;
mod support;

use differencing::{by_vhd, by_vhdx};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use support::ntfs::{attribute, bytes_at, checksums, first_run, made, mounted, patch, record};
use support::{disk, extents, holds, sh, test_data};
use volume::files::Files;
use volume::{Layout, detect_layout};

/// Sizes of volumes, and options of mkntfs for clusters and sectors of every size.
const VARIANTS: [(&str, &str, u64); 9] = [
    ("24M", "-c 512", 512),
    ("24M", "-c 1024 -s 1024", 1024),
    ("24M", "-c 4096", 4096),
    ("24M", "-c 4096 -s 4096", 4096),
    ("64M", "-c 65536", 65_536),
    ("128M", "-c 131072", 131_072),
    ("256M", "-c 1048576", 1 << 20),
    ("512M", "-c 2097152", 2 << 20),
    ("512M", "-c 2097152 -s 4096", 2 << 20),
];

/// Largest real volume whose files are read again, in bytes.
const VOLUME_MAX: u64 = 2 << 30;

/// Files of several sizes and kinds, some of them gone again.
const FILL: &str = "mkdir -p Windows/System32 many
    head -c 3000000 /dev/urandom > Windows/System32/ntoskrnl.exe; head -c 700 /dev/urandom > small
    for i in $(seq 60); do head -c 20000 /dev/urandom > many/file-$i; done; for i in $(seq 1 2 60); do rm many/file-$i; done
    truncate -s 9M sparse; printf tail | dd of=sparse bs=1 seek=5000000 conv=notrunc status=none";

/// A disk with one filesystem on it that has no table.
fn layout(image: &Path) -> Layout {
    detect_layout(&[disk(image)]).unwrap()
}

/// Used clusters of a bitmap.
fn ones(bitmap: &[u8], clusters: u64) -> Vec<u64> {
    (0..clusters).filter(|&n| bitmap[usize::try_from(n / 8).unwrap()] >> (n % 8) & 1 == 1).collect()
}

#[test]
fn the_map_is_the_bitmap_for_every_size_of_clusters() {
    let folder = tempfile::tempdir().unwrap();
    for (size, options, cluster) in VARIANTS {
        let image = made(folder.path(), size, options, FILL);
        let bytes = std::fs::metadata(&image).unwrap().len();
        sh("ntfscat -i 6 $1 > $1.bitmap", &[&image]);
        let clusters =
            u64::from_le_bytes(bytes_at(&image, 40)) * u64::from(u16::from_le_bytes(bytes_at(&image, 11))) / cluster;
        let used = ones(&std::fs::read(folder.path().join("ntfs.img.bitmap")).unwrap(), clusters);
        let layout = layout(&image);
        let volume = &layout.disks()[0].volumes[0];
        println!("{options}: {} of {clusters} clusters", used.len());
        assert_eq!((volume.kind.as_str(), volume.label.as_deref()), ("ntfs", Some("made")), "{options}");
        assert_eq!((layout.warnings(), volume.used_bytes.0), (&[][..], used.len() as u64 * cluster), "{options}");
        let found = extents(&*layout.used(0), bytes);
        let mapped: Vec<u64> = (0..clusters).filter(|n| holds(&found, n * cluster)).collect();
        assert!(mapped == used, "{options}");
        assert_eq!(found.last().map(|last| last.1), Some(bytes), "{options}: the copy of the boot sector is used");
        assert!(found.iter().all(|&(start, end)| start % cluster == 0 && (end % cluster == 0 || end == bytes)));
        let total: u64 = found.iter().map(|(start, end)| end - start).sum();
        assert_eq!(total, used.len() as u64 * cluster + bytes - clusters * cluster, "{options}");
    }
}

/// A copy of what the map says is used.
fn copy(layout: &Layout, image: &Path) -> PathBuf {
    let (source, path) = (std::fs::File::open(image).unwrap(), image.with_extension("copy"));
    let target = std::fs::File::create(&path).unwrap();
    let size = source.metadata().unwrap().len();
    target.set_len(size).unwrap();
    for (start, end) in extents(&*layout.used(0), size) {
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        source.read_exact_at(&mut bytes, start).unwrap();
        target.write_all_at(&bytes, start).unwrap();
    }
    path
}

#[test]
fn a_copy_of_used_clusters_alone_has_all_files() {
    let folder = tempfile::tempdir().unwrap();
    for (size, options, _) in [VARIANTS[0], VARIANTS[3], VARIANTS[4], VARIANTS[6]] {
        let image = made(folder.path(), size, options, FILL);
        let copy = copy(&layout(&image), &image);
        let sums = checksums(&image);
        println!("{options}: {} files", sums.lines().count());
        assert_eq!(sums.lines().count(), 33);
        assert_eq!(checksums(&copy), sums, "{options}");
        let end = std::fs::metadata(&image).unwrap().len() - 512;
        let sector = u64::from(u16::from_le_bytes(bytes_at(&image, 11)));
        let mirror = end + 512 - sector;
        assert_eq!(
            bytes_at::<512>(&copy, mirror),
            bytes_at::<512>(&image, 0),
            "{options}: the copy of the boot sector"
        );
        // What sleuthkit reads is neither ours nor ntfs-3g's.
        let judged = "for n in $(fls -rFu -f ntfs $1 | sed -n 's/^r[^ ]* \\([0-9]*\\)-128.*/\\1/p'); do echo $n; icat -f ntfs $1 $n | sha256sum; done";
        assert_eq!(sh(judged, &[&copy]), sh(judged, &[&image]), "{options}");
    }
}

/// What the manifest of the test data says of NTFS: file, clusters, their size, used ones.
fn facts(data: &Path) -> Vec<(String, [u64; 3])> {
    let manifest = std::fs::read_to_string(data.join("MANIFEST.tsv")).unwrap();
    let number = |text: &str, name: &str| -> u64 {
        text.split(name).nth(1).unwrap().split([' ', '"']).next().unwrap().parse().unwrap()
    };
    let of = |line: &str| {
        let (file, text) = (line.split('\t').next()?, line.split(" ntfs uuid=").nth(1)?);
        Some((file.to_owned(), [" clusters=", " size=", " used="].map(|name| number(text, name))))
    };
    manifest.lines().filter_map(of).collect()
}

/// A differencing disk with its parent, which lies beside it: what the manifest's readers agree on.
fn joined(data: &Path, file: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let unpack = "zstd -dq $1 -o $3/child; zstd -dq $2 -o $3/parent; case $1 in
          *.vhdx.zst) qemu-img convert -f vhdx -O raw $3/parent $3/raw;;
          *) head -c -512 $3/parent >$3/raw;; # a fixed VHD is raw, but for its footer
        esac";
    let parent = data.join(file.replace("differential", "parent"));
    sh(unpack, &[&data.join(file), &parent, path]);
    let (child, parent) = (std::fs::read(path.join("child")).unwrap(), std::fs::read(path.join("raw")).unwrap());
    let raw = if file.ends_with(".vhdx.zst") { by_vhdx(&child, parent) } else { by_vhd(&child, parent) };
    let manifest = std::fs::read_to_string(data.join("MANIFEST.tsv")).unwrap();
    let line = manifest.lines().find(|line| line.starts_with(file)).unwrap();
    std::fs::write(path.join("joined"), &raw).unwrap();
    let hash = sh("sha256sum <$1", &[&path.join("joined")]);
    let hash = hash.split(' ').next().unwrap();
    assert!(line.contains(&format!("\"true_raw_sha256\":\"{hash}\"")), "{file}: {hash}");
    raw
}

#[test]
fn real_volumes_have_the_used_clusters_that_the_manifest_has_and_their_files_in_a_copy() {
    let Some(data) = test_data() else { return };
    let facts = facts(&data);
    assert!(facts.len() >= 14, "{facts:?}");
    for (file, [clusters, cluster, used]) in facts {
        let folder = tempfile::tempdir().unwrap();
        let unpack = "case $1 in *.tgz) tar -C $2 -xSzf $1;; *) zstd -dq --long=27 $1 -o $2/$(basename $1 .zst);; esac
            case $(ls $2) in
              *.vhd) format=vpc;; *.vhdx) format=vhdx;; *.qcow2) format=qcow2;; *) mv $2/* $2/raw; exit;;
            esac; qemu-img convert -f $format -O raw $2/* $2/raw";
        match file.contains("differential") {
            true => std::fs::write(folder.path().join("raw"), joined(&data, &file)).unwrap(),
            false => drop(sh(unpack, &[&data.join(&file), folder.path()])),
        }
        let source = disk(&folder.path().join("raw"));
        let layout = detect_layout(std::slice::from_ref(&source)).unwrap();
        let volume = layout.disks()[0].volumes.iter().find(|volume| volume.kind == "ntfs").unwrap();
        println!("{file}: {} of {} bytes", volume.used_bytes.0, volume.size.0);
        assert_eq!(volume.used_bytes.0, used * cluster, "{file}: {:?}", layout.warnings());
        assert_eq!(layout.warnings(), [], "{file}");
        let found = extents(&*layout.used_with_swap(0), source.size().0);
        let (start, end) = (volume.offset.0, volume.offset.0 + volume.size.0);
        let inside = |at: u64| at.clamp(start, end);
        let total: u64 = found.iter().map(|&(from, to)| inside(to) - inside(from)).sum();
        assert_eq!(total, used * cluster + volume.size.0 - clusters * cluster, "{file}");
        if volume.size.0 > VOLUME_MAX {
            println!("{file}: its files are not compared: it has {} GiB", volume.size.0 >> 30);
            continue;
        }
        // The volume, and what is used of it, each as an image of its own.
        let raw = std::fs::File::open(folder.path().join("raw")).unwrap();
        let image = |name: &str, ranges: &[(u64, u64)]| {
            let path = folder.path().join(name);
            let image = std::fs::File::create(&path).unwrap();
            image.set_len(volume.size.0).unwrap();
            for (from, to) in ranges.iter().map(|&(from, to)| (inside(from), inside(to))).filter(|(from, to)| from < to)
            {
                let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
                raw.read_exact_at(&mut bytes, from).unwrap();
                image.write_all_at(&bytes, from - start).unwrap();
            }
            path
        };
        let sums = checksums(&image("volume", &[(start, end)]));
        assert_eq!(checksums(&image("copy", &found)), sums, "{file}");
        println!("{file}: {} files are the same in a copy", sums.lines().count());
        assert!(!sums.is_empty(), "{file}");
    }
}

/// What `layout` says of the only volume of a disk: its warning, and whether all of it is used.
fn whole(image: &Path, words: &str) {
    let layout = layout(image);
    assert!(layout.warnings().iter().any(|w| w.text.contains(words)), "{words}: {:?}", layout.warnings());
    let size = std::fs::metadata(image).unwrap().len();
    assert_eq!(extents(&*layout.used(0), size), [(0, size)], "{words}");
    assert_eq!(layout.disks()[0].volumes[0].used_bytes.0, size, "{words}");
}

/// A restart page of a log, with its fixups.
fn restart_page(sequence: u64, client: u16) -> Vec<u8> {
    let mut page = vec![0; 4096];
    page[..4].copy_from_slice(b"RSTR");
    page[4..8].copy_from_slice(&[30, 0, 9, 0]);
    page[16..24].copy_from_slice(&[0, 16, 0, 0, 0, 16, 0, 0]);
    page[24] = 48;
    page[48..56].copy_from_slice(&sequence.to_le_bytes());
    page[60..62].copy_from_slice(&client.to_le_bytes());
    page[30] = 7;
    (1..=8).for_each(|stride| page[stride * 512 - 2] = 7);
    page
}

#[test]
fn a_volume_that_lies_is_copied_whole() {
    let folder = tempfile::tempdir().unwrap();
    let image = &made(folder.path(), "24M", "-c 4096", FILL);
    let kept = std::fs::read(image).unwrap();
    let again = || std::fs::write(image, &kept).unwrap();
    let end = kept.len() as u64;

    // It tells of more than there is, and so does its copy, which lies elsewhere then.
    for at in [40, end - 512 + 40] {
        patch(image, at, &(end / 512 + 8).to_le_bytes());
    }
    whole(image, "ends beyond its volume");
    again();
    let information = attribute(image, record(image, 4096, 3), 0x70);
    patch(image, information + 24 + 10, &[1]);
    whole(image, "marked to be checked");
    again();
    let log = first_run(image, attribute(image, record(image, 4096, 2), 0x80)) * 4096;
    patch(image, log, &[restart_page(7, 0xffff), restart_page(8, 0)].concat());
    whole(image, "its log holds changes");
    patch(image, log, &[restart_page(7, 0), restart_page(8, 0xffff)].concat());
    assert_eq!(layout(image).warnings(), [], "the later page says that all is done");
    patch(image, log, &[0; 8192]);
    whole(image, "its log cannot be read");
    again();
    let bitmap = attribute(image, record(image, 4096, 6), 0x80);
    patch(image, bitmap + 56, &100u64.to_le_bytes());
    whole(image, "its bitmap has 100 bytes");
    again();
    let bits = first_run(image, bitmap) * 4096;
    patch(image, bits, &[0xef]);
    whole(image, "marks cluster 4 free");
    again();
    patch(image, record(image, 4096, 6) + 510, &[0xab, 0xcd]);
    whole(image, "a torn write");
    again();
    let table = attribute(image, record(image, 4096, 0), 0x80);
    let pairs = table + u64::from(u16::from_le_bytes(bytes_at(image, table + 32)));
    patch(image, pairs, &[0xf8]);
    whole(image, "ntfs: runs");
}

#[test]
fn the_copy_of_the_boot_sector_is_read_where_the_first_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    for (options, cluster) in [("-c 4096", 4096u64), ("-c 4096 -s 4096", 4096)] {
        let image = &made(folder.path(), "24M", options, FILL);
        let before = layout(image);
        let used = before.disks()[0].volumes[0].used_bytes;
        let size = std::fs::metadata(image).unwrap().len();
        let kept: [u8; 512] = bytes_at(image, 0);
        for (at, bytes) in
            [(13, vec![3]), (40, (1u64 << 40).to_le_bytes().to_vec()), (48, vec![0, 9, 9]), (64, vec![0])]
        {
            patch(image, 0, &kept);
            patch(image, at, &bytes);
            let found = layout(image);
            println!("{options}, byte {at}: {:?}", found.warnings());
            assert!(found.warnings()[0].text.contains("the copy in its last sector is used"), "{:?}", found.warnings());
            assert_eq!(found.disks()[0].volumes[0].used_bytes, used, "{options}, byte {at}");
            assert_eq!(extents(&*found.used(0), size), extents(&*before.used(0), size), "{options}, byte {at}");
        }
        // Neither is whole.
        patch(image, size - u64::from(u16::from_le_bytes([kept[11], kept[12]])) + 13, &[3]);
        patch(image, 0, &kept);
        patch(image, 13, &[3]);
        let found = layout(image);
        assert_eq!(extents(&*found.used(0), size), [(0, size)], "{options}, {cluster}");
    }
}

/// What lets the table of file records grow in hundreds of small pieces: the volume is full but for single clusters.
const FRAGMENT: &str = "mkdir a b; head -c 3500000 /dev/zero | split -a 4 -d -b 1000 - a/
    head -c 20000000 /dev/urandom > filler 2>/dev/null || true; seq -f a/%04g 0 2 3499 | xargs rm -f
    cd b; seq 10000 13000 | xargs touch 2>/dev/null || true; ls | tail -1";

#[test]
fn a_table_in_many_pieces_is_put_together() {
    let folder = tempfile::tempdir().unwrap();
    let image = made(folder.path(), "10M", "-c 512", FRAGMENT);
    let pieces = sh("ntfscluster -I 0 $1; ntfscat -i 6 $1 > $1.bitmap", &[&image]);
    println!("the table's record has {} lines of pieces", pieces.lines().count());
    assert!(pieces.contains("0x20 - ") && pieces.lines().count() > 100, "{pieces}");
    let layout = layout(&image);
    let used = ones(&std::fs::read(folder.path().join("ntfs.img.bitmap")).unwrap(), (10 << 11) - 1).len() as u64;
    assert_eq!((layout.warnings(), layout.disks()[0].volumes[0].used_bytes.0), (&[][..], used * 512));
    let copy = copy(&layout, &image);
    assert_eq!(checksums(&copy), checksums(&image));
    let listed: usize = mounted(&image, "ro", "ls b | wc -l").trim().parse().unwrap();
    let files = Files::open(disk(&image)).unwrap();
    let names = files.list("/b").unwrap();
    println!("{listed} files in records of all pieces");
    assert!(listed > 1000 && names.len() == listed);
    assert!(names.iter().all(|entry| files.metadata(Path::new("/b").join(&entry.name)).is_ok()));
}

#[test]
fn bad_clusters_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let image = &made(folder.path(), "24M", "-c 4096", FILL);
    let before = layout(image);
    let size = std::fs::metadata(image).unwrap().len();
    let clusters = size / 4096 - 1;
    let mapped = extents(&*before.used(0), size);
    let free = (100..clusters).find(|n| (0..4).all(|m| !holds(&mapped, (n + m) * 4096))).unwrap();
    // The stream of bad clusters is a hole as large as the volume: one with three of them in it has three runs.
    let record = record(image, 4096, 8);
    let mut at = attribute(image, record, 0x80);
    while bytes_at::<1>(image, at + 8) == [0] {
        at += u64::from(u32::from_le_bytes(bytes_at(image, at + 4)));
    }
    let [a, b] = u16::try_from(free).unwrap().to_le_bytes();
    let [c, d] = u16::try_from(clusters - free - 3).unwrap().to_le_bytes();
    let pairs = u64::from(u16::from_le_bytes(bytes_at(image, at + 32)));
    patch(
        image,
        at + pairs,
        &[0x02, a, b, 0x21, 3, a, b, 0x02, c, d, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
    );
    patch(image, at + 4, &u32::try_from(pairs + 16).unwrap().to_le_bytes());
    patch(image, record + 24, &u32::try_from(at - record + pairs + 24).unwrap().to_le_bytes());
    let bitmap = first_run(image, attribute(image, self::record(image, 4096, 6), 0x80)) * 4096;
    for cluster in free..free + 4 {
        let [byte] = bytes_at::<1>(image, bitmap + cluster / 8);
        patch(image, bitmap + cluster / 8, &[byte | 1 << (cluster % 8)]);
    }
    let told = sh("ntfsinfo -v -i 8 $1 2>&1 | tail -6", &[image]);
    println!("ntfsinfo: {told}");
    assert!(told.contains(&format!("{free:#x}\t\t0x3\n")), "{told}");
    let found = layout(image);
    println!("{:?}", found.warnings());
    assert!(found.warnings()[0].text.contains("3 clusters are marked as bad"));
    let after = extents(&*found.used(0), size);
    assert_eq!((free..free + 4).map(|n| holds(&after, n * 4096)).collect::<Vec<_>>(), [false, false, false, true]);
    let used = |layout: &Layout| layout.disks()[0].volumes[0].used_bytes.0;
    assert_eq!(used(&found), used(&before) + 4096);
}
