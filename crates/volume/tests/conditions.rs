//! In which state a volume of Windows is, and that what belongs to several disks is copied whole.
#![allow(clippy::unwrap_used)] // a test fails by it
mod support;

use machine::Condition;
use support::ntfs::{attribute, first_run, made, patch, record};
use support::{disk, extents, sh, test_data};
use volume::detect_layout;

/// A system whose files are compressed by the overlay.
const FILL: &str = r#"mkdir -p Windows/System32; seq 9999 > hiberfil.sys; printf x > Windows/notepad.exe
    python3 -c "
import os, struct
os.setxattr('Windows/notepad.exe', 'system.ntfs_reparse_data', struct.pack('<IHHIIII', 0x80000017, 16, 0, 1, 2, 1, 0))
""#;

#[test]
fn states_of_ntfs_are_seen_each_alone_and_together() {
    let folder = tempfile::tempdir().unwrap();
    let image = &made(folder.path(), "24M", "-c 4096", "seq 9999 > hiberfil.sys");
    let conditions = || detect_layout(&[disk(image)]).unwrap().disks()[0].volumes[0].conditions.clone();
    assert_eq!(conditions(), []);
    patch(image, attribute(image, record(image, 4096, 3), 0x70) + 24 + 10, &[1]);
    assert_eq!(conditions(), [Condition::Dirty]);
    let log = first_run(image, attribute(image, record(image, 4096, 2), 0x80)) * 4096;
    let mut page = vec![0; 4096];
    page[..32].copy_from_slice(b"RSTR\x1e\0\x09\0\0\0\0\0\0\0\0\0\0\x10\0\0\0\x10\0\0\x30\0\0\0\x01\0\x07\0");
    (1..=8).for_each(|stride| page[stride * 512 - 2] = 7);
    patch(image, log, &page);
    assert_eq!(conditions(), [Condition::Dirty, Condition::LogInUse]);

    let image = &made(folder.path(), "24M", "-c 4096", FILL);
    let conditions = || detect_layout(&[disk(image)]).unwrap().disks()[0].volumes[0].conditions.clone();
    assert_eq!(conditions(), [Condition::SystemCompressed]);
    let sleeping = first_run(image, attribute(image, file(image, "hiberfil.sys"), 0x80)) * 4096;
    for (sign, expected) in [(b"hibr", true), (b"HIBR", true), (b"RSTR", true), (b"wake", false), (b"\0\0\0\0", false)]
    {
        patch(image, sleeping, sign);
        println!("{}: {:?}", sign.escape_ascii(), conditions());
        assert_eq!(conditions().contains(&Condition::Hibernated), expected);
    }
}

/// Where the record of a file in the root is.
fn file(image: &std::path::Path, name: &str) -> u64 {
    let number = sh(&format!("fls -f ntfs $1 | sed -n 's/^r[^ ]* \\([0-9]*\\)-.*\\t{name}$/\\1/p'"), &[image]);
    record(image, 4096, number.trim().parse().unwrap())
}

#[test]
fn what_belongs_to_several_disks_is_copied_whole_whatever_it_looks_like() {
    let folder = tempfile::tempdir().unwrap();
    let ntfs =
        made(folder.path(), "16M", "-c 4096", "printf HIBR > hiberfil.sys; head -c 900000 /dev/zero > pagefile.sys");
    let image = folder.path().join("disk");
    let types = [
        ("dos", "42", Condition::DynamicDisk),
        ("gpt", "AF9B60A0-1431-4F62-BC68-3311714A69AD", Condition::DynamicDisk),
        ("gpt", "E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D", Condition::StorageSpaces),
    ];
    for (label, kind, expected) in types {
        sh(
            &format!(
                "rm -f $1; truncate -s 24M $1; printf 'label: {label}\\nstart=2048,size=16M,type={kind}\\n' | sfdisk -q $1 2>/dev/null
                 dd if=$2 of=$1 bs=1M seek=1 conv=notrunc status=none"
            ),
            &[&image, &ntfs],
        );
        let layout = detect_layout(&[disk(&image)]).unwrap();
        let volume = &layout.disks()[0].volumes[0];
        println!("{kind}: {:?}", layout.warnings());
        assert_eq!((volume.kind.as_str(), &volume.conditions), ("ntfs", &vec![expected]));
        assert!(layout.warnings()[0].text.contains("is copied whole"), "{:?}", layout.warnings());
        assert_eq!((extents(&*layout.used(0), 24 << 20), volume.used_bytes), (vec![(0, 24 << 20)], volume.size));
        assert!(layout.hidden(0).is_empty());
    }
}

#[test]
fn volumes_that_were_left_in_order_have_no_conditions() {
    let Some(data) = test_data() else { return };
    let folder = tempfile::tempdir().unwrap();
    for file in ["ColinFinck-testfs1.raw", "charlie.dd", "dfirntfs-ntfs3.raw", "ntfs.raw", "vss.raw"] {
        let image = folder.path().join(file);
        sh("zstd -dq --long=27 $1 -o $2", &[&data.join(format!("disk/{file}.zst")), &image]);
        assert_eq!(detect_layout(&[disk(&image)]).unwrap().disks()[0].volumes[0].conditions, [], "{file}");
    }
}
