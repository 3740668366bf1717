//! A swap file's content is left out where its blocks are sure, and nothing else with it.
#![allow(clippy::unwrap_used)] // a test fails by it
mod support;

use std::os::unix::fs::FileExt;
use std::path::Path;

use machine::Mount;
use support::{disk, extents, sh};
use volume::{Layout, detect_layout};

const MIB: u64 = 1 << 20;

/// A root filesystem with a swap file in several pieces between other files.
fn root(folder: &Path) -> std::path::PathBuf {
    let script = "cd $1; mkdir -p t/etc; echo '/swapfile none swap sw 0 0' > t/etc/fstab
        head -c 9000000 /dev/urandom > t/before; head -c 12582912 /dev/urandom > t/swapfile; chmod 600 t/swapfile
        mkswap -U 6b4f0f5e-70c4-4c7e-9d3e-3a3c5a1f4f01 t/swapfile >/dev/null; head -c 9000000 /dev/urandom > t/behind
        mke2fs -qF -t ext4 -d t root.img 64M";
    sh(script, &[folder]);
    folder.join("root.img")
}

fn layout(image: &Path, device: &str) -> Layout {
    let mut layout = detect_layout(&[disk(image)]).unwrap();
    let line = |device: &str, mount_point: &str, kind: &str| Mount {
        device: device.into(),
        mount_point: mount_point.into(),
        kind: kind.into(),
    };
    layout.leave_out_swap_files(&[line("LABEL=root", "/", "ext4"), line(device, "none", "swap")]);
    layout
}

fn length(extents: &[(u64, u64)]) -> u64 {
    extents.iter().map(|(start, end)| end - start).sum()
}

#[test]
fn its_pages_are_left_out_and_every_other_file_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let image = root(folder.path());
    let found = layout(&image, "/swapfile");
    assert_eq!(found.warnings(), []);
    let (without, with) = (extents(&*found.used(0), 64 * MIB), extents(&*found.used_with_swap(0), 64 * MIB));
    println!("{} bytes with the swap, {} without", length(&with), length(&without));
    assert_eq!(length(&with) - length(&without), 12 * MIB - 4096, "all but the header");
    let before = extents(&*detect_layout(&[disk(&image)]).unwrap().used(0), 64 * MIB);
    assert_eq!(with, before);

    let (copy, source) = (folder.path().join("copy.img"), std::fs::File::open(&image).unwrap());
    let target = std::fs::File::create(&copy).unwrap();
    target.set_len(64 * MIB).unwrap();
    for (start, end) in without {
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        source.read_exact_at(&mut bytes, start).unwrap();
        target.write_all_at(&bytes, start).unwrap();
    }
    let judged = sh(
        "cd $1; e2fsck -fn copy.img >/dev/null 2>&1; for f in before behind swapfile; do debugfs -R \"dump $f o-$f\" copy.img 2>/dev/null; done
         cmp t/before o-before; cmp t/behind o-behind; blkid -p -s UUID -o value o-swapfile; stat -c %s o-swapfile",
        &[folder.path()],
    );
    assert_eq!(judged, "6b4f0f5e-70c4-4c7e-9d3e-3a3c5a1f4f01\n12582912\n");
}

#[test]
fn it_is_copied_where_its_blocks_are_not_sure() {
    let folder = tempfile::tempdir().unwrap();
    let image = root(folder.path());
    let whole = extents(&*detect_layout(&[disk(&image)]).unwrap().used(0), 64 * MIB);
    let found = layout(&image, "/etc/fstab");
    assert!(found.warnings()[0].to_string().contains("no header of a swap area"), "{:?}", found.warnings());
    assert_eq!(extents(&*found.used(0), 64 * MIB), whole);
    let absent = layout(&image, "/data/swapfile");
    assert_eq!((absent.warnings(), extents(&*absent.used(0), 64 * MIB)), (&[][..], whole.clone()));

    sh(
        "cd $1; debugfs -w -R 'ln swapfile other' root.img 2>/dev/null; debugfs -w -R 'sif swapfile links_count 2' root.img",
        &[folder.path()],
    );
    let found = layout(&image, "/swapfile");
    assert!(found.warnings()[0].text.contains("/swapfile is copied"), "{:?}", found.warnings());
    sh(
        "cd $1; debugfs -w -R 'sif swapfile links_count 1' root.img; debugfs -w -R 'feature needs_recovery' root.img 2>/dev/null",
        &[folder.path()],
    );
    let found = layout(&image, "/swapfile");
    assert!(
        found.warnings().iter().any(|warning| warning.text.contains("/swapfile is copied")),
        "{:?}",
        found.warnings()
    );
    assert_eq!(length(&extents(&*found.used(0), 64 * MIB)), 64 * MIB, "its bitmaps are not sure either");
}
