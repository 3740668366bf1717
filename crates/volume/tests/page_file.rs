//! Page files, hibernation and shadow copies of Windows: their content reads as zeros, everything else is as it was.
#![allow(clippy::unwrap_used)] // a test fails by it
mod support;

use std::os::unix::fs::FileExt;
use std::path::Path;

use block::hide;
use machine::{ByteCount, ByteOffset};
use support::ntfs::{attribute, bytes_at, checksums, made, mounted, patch, record};
use support::{disk, extents, holds, sh, test_data};
use volume::files::Files;
use volume::{Layout, detect_layout};

const STORE: &str =
    "System Volume Information/{0a1b2c3d-1111-2222-3333-444455556666}{3808876b-c176-4e48-b7ae-04046e6cc752}";
const CATALOGUE: &str = "System Volume Information/{3808876b-c176-4e48-b7ae-04046e6cc752}";

/// A system volume with all of them between other files.
fn system(folder: &Path) -> std::path::PathBuf {
    let fill = format!(
        "mkdir -p Windows 'System Volume Information'; head -c 900000 /dev/urandom > Windows/before
         head -c 5000000 /dev/urandom > pagefile.sys; head -c 700001 /dev/urandom > swapfile.sys
         {{ printf HIBR; head -c 3000000 /dev/urandom; }} > hiberfil.sys; head -c 2000000 /dev/urandom > '{STORE}'
         head -c 65536 /dev/urandom > '{CATALOGUE}'; head -c 20000 /dev/urandom > 'System Volume Information/tracking.log'
         head -c 900000 /dev/urandom > Windows/pagefile.sys"
    );
    made(folder, "48M", "-c 4096", &fill)
}

/// Names whose content goes.
const GONE: [&str; 4] = ["./pagefile.sys", "./swapfile.sys", "./hiberfil.sys", STORE];

fn layout(image: &Path) -> Layout {
    detect_layout(&[disk(image)]).unwrap()
}

fn length(extents: &[(u64, u64)]) -> u64 {
    extents.iter().map(|(start, end)| end - start).sum()
}

#[test]
fn their_content_is_left_out_and_every_other_file_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let image = system(folder.path());
    let layout = layout(&image);
    assert_eq!(layout.warnings(), []);
    let size = 48 << 20;
    let (without, with) = (extents(&*layout.used(0), size), extents(&*layout.used_with_swap(0), size));
    println!("{} bytes with them, {} without", length(&with), length(&without));
    let gone = 5_000_000 + 700_001 + 3_000_004 + 2_000_000;
    assert_eq!(length(&with) - length(&without), gone);
    assert_eq!(length(&with), layout.disks()[0].volumes[0].used_bytes.0 + 4096);

    // Read as a copy reads it: in grains, and the page that hibernation is found by reads as zeros all the same.
    let (copy, source) = (folder.path().join("copy.img"), hide(disk(&image), &layout.hidden(0)));
    let target = std::fs::File::create(&copy).unwrap();
    target.set_len(size).unwrap();
    for (start, end) in
        block::grains(layout.used(0).extents(block::Extent::first(ByteCount(size))), ByteCount(65_536), ByteCount(size))
            .map(|e| e.map(|e| (e.start().0, e.end().0)).unwrap())
    {
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        source.read_at(ByteOffset(start), &mut bytes).unwrap();
        target.write_all_at(&bytes, start).unwrap();
    }
    let (before, after) = (checksums(&image), checksums(&copy));
    let is_gone = |line: &&str| {
        GONE.iter()
            .any(|name| line.split_once("  ").unwrap().1.trim_start_matches("./") == name.trim_start_matches("./"))
    };
    let kept = |text: &str| text.lines().filter(|line| !is_gone(line)).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(kept(&after), kept(&before));
    assert_eq!(kept(&after).len(), 4);
    let sizes = "stat -c %s pagefile.sys swapfile.sys hiberfil.sys; head -c 4096 hiberfil.sys | tr -d '\\0' | wc -c";
    assert_eq!(mounted(&copy, "ro", sizes), "5000000\n700001\n3000004\n0\n");
    // ntfs-3g would not mount a hibernated volume to be written.
    mounted(&copy, "rw", "echo new > Windows/new");
    sh("ntfsfix -n $1 >/dev/null", &[&copy]);
}

#[test]
fn of_a_volume_that_is_not_sure_only_the_sign_of_hibernation_goes() {
    let folder = tempfile::tempdir().unwrap();
    let image = system(folder.path());
    let place = layout(&image).hidden(0).iter().next().unwrap();
    assert_eq!((place.length(), bytes_at::<4>(&image, place.start().0)), (ByteCount(4096), *b"HIBR"));
    patch(&image, attribute(&image, record(&image, 4096, 3), 0x70) + 24 + 10, &[1]);
    let layout = layout(&image);
    let found = extents(&*layout.used(0), 48 << 20);
    println!("{:?}", layout.warnings());
    assert_eq!(length(&found), (48 << 20) - 4096);
    assert!(!holds(&found, place.start().0) && layout.hidden(0).iter().next() == Some(place));
    assert_eq!(length(&extents(&*layout.used_with_swap(0), 48 << 20)), 48 << 20);
    // A system that went on from it, or an empty file, has nothing to hide.
    for sign in [*b"wake", [0; 4]] {
        patch(&image, place.start().0, &sign);
        assert!(self::layout(&image).hidden(0).is_empty());
        assert_eq!(length(&extents(&*self::layout(&image).used(0), 48 << 20)), 48 << 20);
    }
}

#[test]
fn shadow_copies_of_real_volumes_are_left_out() {
    let Some(data) = test_data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    sh("zstd -dq --long=27 $1 -o $2", &[&data.join("disk/vss.raw.zst"), &image]);
    let layout = layout(&image);
    let files = Files::open(disk(&image)).unwrap();
    let listed = files.list("/System Volume Information").unwrap();
    let storage = listed.iter().filter_map(|entry| {
        let name = entry.name.to_str().unwrap().to_ascii_lowercase();
        let is_storage = name.len() > 38 && name.ends_with("{3808876b-c176-4e48-b7ae-04046e6cc752}");
        is_storage.then(|| files.metadata(Path::new("/System Volume Information").join(&entry.name)).unwrap().size.0)
    });
    let storage: Vec<u64> = storage.collect();
    let size = std::fs::metadata(&image).unwrap().len();
    let [without, with] = [layout.used(0), layout.used_with_swap(0)].map(|map| length(&extents(&*map, size)));
    println!("{with} bytes with shadow copies of {storage:?}, {without} without");
    assert!(!storage.is_empty());
    assert_eq!(with - without, storage.iter().sum::<u64>());
}
