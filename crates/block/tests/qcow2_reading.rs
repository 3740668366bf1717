//! qcow2 images made by QEMU are read as QEMU reads them; what is not read is refused by name.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)] // sizes of test disks; a panic is how a test fails

mod support;

use std::ffi::OsStr;
use std::path::Path;

use block::{Backing, ErrorKind, Extent, Format, OpenOptions, open_source, open_source_with};
use machine::{ByteOffset, SectorSize};
use support::*;

/// The image is read as QEMU reads it, piece by piece, and what its map leaves out is zeros.
fn assert_reads_as_qemu(image: &Path, folder: &Path) {
    let expected = convert_to_raw(image, "qcow2", folder);
    let opened = open_source(image).unwrap();
    assert_eq!(opened.format, Format::Qcow2);
    assert_eq!(opened.source.size().0, expected.len() as u64);
    assert!(read_all(&*opened.source) == expected, "{} differs", image.display());
    let mut random = Random(7);
    for _ in 0..200 {
        let start = random.below(expected.len() as u64);
        let length = random.below((expected.len() as u64 - start).min(300_000)) as usize;
        let mut part = vec![1; length];
        opened.source.read_at(ByteOffset(start), &mut part).unwrap();
        assert!(part == expected[start as usize..][..length], "{length} bytes at {start}");
    }
    let mut left = expected;
    let mut before = 0;
    for extent in opened.source.allocated(Extent::first(opened.source.size())) {
        let (start, end) = extent.map(|e| (e.start().0, e.end().0)).unwrap();
        assert!(before <= start && start < end);
        before = end;
        left[start as usize..end as usize].fill(0);
    }
    assert!(block::is_zero(&left), "{} holds data that its map leaves out", image.display());
}

fn create(image: &Path, options: &str, size: &str) {
    run(
        "qemu-img",
        [
            "create".as_ref(),
            "-q".as_ref(),
            "-f".as_ref(),
            "qcow2".as_ref(),
            "-o".as_ref(),
            options.as_ref(),
            image.as_os_str(),
            size.as_ref(),
        ] as [&OsStr; 8],
    );
}

#[test]
fn random_images_of_every_layout_are_read_as_qemu_reads_them() {
    if !has("qemu-img") || !has("qemu-io") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let layouts = [
        "compat=0.10",
        "compat=1.1,cluster_size=512",
        "compat=1.1,cluster_size=4096,compression_type=zstd",
        "compat=1.1,cluster_size=2M,lazy_refcounts=on",
        "compat=1.1,extended_l2=on,cluster_size=64k",
        "compat=1.1,extended_l2=on,cluster_size=16k,compression_type=zstd",
        "compat=1.1,preallocation=metadata",
    ];
    for (seed, layout) in (1..).zip(layouts) {
        let image = folder.path().join("image.qcow2");
        create(&image, layout, "20M");
        let mut random = Random(seed);
        let mut arguments: Vec<String> = vec!["-f".into(), "qcow2".into()];
        let mut write = |command: String| arguments.extend(["-c".to_owned(), command]);
        // QEMU packs only clusters that hold nothing yet.
        for region in 0..10 {
            if random.below(2) == 0 || layout.contains("preallocation") {
                continue;
            }
            write(format!("write -c -P {} {} 2M", 1 + random.below(255), region << 21));
        }
        for _ in 0..40 {
            let (start, length) = (random.below(38_000) * 512, (1 + random.below(600)) * 512);
            let zeros = layout != "compat=0.10";
            write(match random.below(4) {
                0 if zeros => format!("write -z {start} {length}"),
                1 if zeros => format!("write -z -u {start} {length}"),
                _ => format!("write -P {} {start} {length}", 1 + random.below(255)),
            });
        }
        arguments.push(image.to_str().unwrap().into());
        run("qemu-io", &arguments);
        assert_reads_as_qemu(&image, folder.path());
        std::fs::remove_file(&image).unwrap();
    }
}

#[test]
fn compressed_images_of_real_data_are_read() {
    if !has("qemu-img") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("disk.raw");
    let mut bytes = random_disk(6 << 20, 3);
    for (at, byte) in bytes[1 << 20..4 << 20].iter_mut().enumerate() {
        *byte = (at / 700) as u8;
    }
    std::fs::write(&raw, bytes).unwrap();
    for options in
        ["compression_type=zlib", "compression_type=zstd", "compression_type=zlib,extended_l2=on", "cluster_size=2M"]
    {
        let image = folder.path().join("packed.qcow2");
        run(
            "qemu-img",
            [
                "convert".as_ref(),
                "-c".as_ref(),
                "-O".as_ref(),
                "qcow2".as_ref(),
                "-o".as_ref(),
                options.as_ref(),
                raw.as_os_str(),
                image.as_os_str(),
            ] as [&OsStr; 8],
        );
        assert_reads_as_qemu(&image, folder.path());
        std::fs::remove_file(&image).unwrap();
    }
}

#[test]
fn backing_files_beside_the_image_are_read_and_others_refused() {
    if !has("qemu-img") || !has("qemu-io") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("base.raw"), random_disk(3 << 20, 9)).unwrap();
    create(&at("middle.qcow2"), "backing_file=base.raw,backing_fmt=raw", "5M");
    run(
        "qemu-io",
        ["-f", "qcow2", "-c", "write -P 7 2M 1M", "-c", "write -z 64k 128k", at("middle.qcow2").to_str().unwrap()],
    );
    create(&at("top.qcow2"), "backing_file=middle.qcow2,backing_fmt=qcow2,extended_l2=on", "6M");
    run(
        "qemu-io",
        ["-f", "qcow2", "-c", "write -P 9 100k 3k", "-c", "write -P 9 4M 3M", at("top.qcow2").to_str().unwrap()]
            .map(|a| if a == "write -P 9 4M 3M" { "write -P 9 4M 2M" } else { a }),
    );
    assert_reads_as_qemu(&at("top.qcow2"), folder.path());

    let options = OpenOptions { backing: Backing::Refuse, ..OpenOptions::default() };
    let refused = open_source_with(&at("top.qcow2"), &options).err().unwrap();
    assert_eq!(refused.kind, ErrorKind::Unsupported);
    assert!(refused.to_string().contains("middle.qcow2"), "{refused}");

    std::fs::create_dir(at("below")).unwrap();
    let absolute = at("base.raw").display().to_string();
    std::os::unix::fs::symlink(&absolute, at("link.raw")).unwrap();
    for name in [&*absolute, "../base.raw", "nbd:localhost:10809", "json:{}", "link.raw", "evil.qcow2", ".", "missing"]
    {
        let image = at("evil.qcow2");
        let option = format!("backing_file={name},backing_fmt=raw");
        run(
            "qemu-img",
            [
                "create".as_ref(),
                "-q".as_ref(),
                "-u".as_ref(),
                "-f".as_ref(),
                "qcow2".as_ref(),
                "-o".as_ref(),
                option.as_ref(),
                image.as_os_str(),
                "1M".as_ref(),
            ] as [&OsStr; 9],
        );
        // The image as its own (raw) backing file is no loop; as qcow2 it is, and the chain is bounded.
        let bytes = std::fs::read(&image).unwrap();
        if name == "evil.qcow2" {
            let at = bytes.windows(4).position(|w| w == [0xe2, 0x79, 0x2a, 0xca]).unwrap();
            let mut looped = bytes;
            looped[at..at + 4].copy_from_slice(&[0x12, 0x34, 0x56, 0x78]);
            std::fs::write(&image, looped).unwrap();
        }
        assert!(open_source(&image).is_err(), "{name} was opened");
        std::fs::remove_file(&image).unwrap();
    }
}

#[test]
fn variants_made_by_qemu_hold_the_same_disk_and_other_formats_are_named() {
    let Some(data) = test_data() else { return };
    let folder = tempfile::tempdir().unwrap();
    run(
        "tar",
        [
            "--zstd".as_ref(),
            "-xf".as_ref(),
            data.join("groups/qemu-variants.tar.zst").as_os_str(),
            "-C".as_ref(),
            folder.path().as_os_str(),
        ] as [&OsStr; 5],
    );
    let charlie = std::fs::read(unpack(&data, "disk/charlie.dd.zst", folder.path())).unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let opened = open_source(&path);
        let named = |format: &str| {
            let error = opened.as_ref().err().unwrap_or_else(|| panic!("{name} was opened"));
            assert_eq!(error.kind, ErrorKind::Unsupported);
            assert!(error.to_string().contains(format), "{name}: {error}");
        };
        match path.extension().and_then(OsStr::to_str) {
            Some("qcow2") if name.contains("luks") => named("encrypted"),
            Some("qcow2") => {
                assert_reads_as_qemu(&path, folder.path());
                let source = opened.unwrap_or_else(|e| panic!("{name}: {e}")).source;
                let changed = name.contains("overlay") || name.contains("snap");
                assert_eq!(read_all(&*source) == charlie, !changed, "{name}");
            }
            Some("vmdk") => named("VMDK"),
            Some("vhd") => named("VHD"),
            Some("vhdx") => named("VHDX"),
            Some("vdi") => named("VDI"),
            _ => {}
        }
    }
    for (name, format) in [
        ("img/ntfs-fixed.vhd.zst", "fixed VHD"),
        ("img/ext2.vmdk.zst", "VMDK"),
        ("img/ntfs-dynamic.vhdx.zst", "VHDX"),
        ("img/ntfs-dynamic.vhd.zst", "VHD"),
    ] {
        let error = open_source(&unpack(&data, name, folder.path())).err().unwrap();
        assert!(error.to_string().contains(format) && error.to_string().contains("qemu-img convert"), "{error}");
    }
    let image = unpack(&data, "img/ext2.qcow2.zst", folder.path());
    assert_reads_as_qemu(&image, folder.path());
}

#[test]
fn a_damaged_image_is_an_error_and_never_a_panic() {
    if !has("qemu-img") || !has("qemu-io") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image.qcow2");
    create(&image, "extended_l2=on,compression_type=zstd,cluster_size=16k", "4M");
    run("qemu-io", ["-f", "qcow2", "-c", "write -P 3 10k 700k", "-c", "write -c -P 5 1M 1M", image.to_str().unwrap()]);
    let sound = std::fs::read(&image).unwrap();
    let mut random = Random(11);
    let mut refused = 0;
    for _ in 0..600 {
        let mut bytes = sound.clone();
        for _ in 0..1 + random.below(4) {
            // The tables lie in the first clusters.
            let bound = if random.below(2) == 0 { 512 } else { bytes.len() as u64 };
            let at = random.below(bound) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
        if random.below(4) == 0 {
            bytes.truncate(random.below(bytes.len() as u64) as usize);
        }
        std::fs::write(&image, bytes).unwrap();
        let Ok(opened) = open_source(&image) else {
            refused += 1;
            continue;
        };
        let size = opened.source.size().0.min(8 << 20);
        let mut buffer = vec![0; size as usize];
        let read = opened.source.read_at(ByteOffset::ZERO, &mut buffer);
        let walked = opened.source.allocated(Extent::first(opened.source.size())).take(10_000).any(|e| e.is_err());
        refused += u32::from(read.is_err() || walked);
    }
    assert!(refused > 100, "damage was noticed {refused} times of 600");
}

#[test]
fn a_raw_file_has_the_sector_size_that_was_asked_for_and_tells_its_holes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.raw");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[1; 4096], 20 << 20).unwrap();
    let options = OpenOptions { logical_sector_size: Some(SectorSize::B4096), ..OpenOptions::default() };
    let opened = open_source_with(&path, &options).unwrap();
    assert_eq!((opened.format, opened.source.logical_sector_size()), (Format::Raw, SectorSize::B4096));
    let used: u64 = opened.source.allocated(Extent::first(opened.source.size())).map(|e| e.unwrap().length().0).sum();
    assert!((4096..1 << 20).contains(&used), "{used} bytes are allocated");
    let behind = extent(30 << 20, 64 << 20);
    assert_eq!(opened.source.allocated(behind).count(), 0);
}
