//! Damaged disks: whatever bits are flipped, nothing panics, loops or breaks the contract of a map.
#![allow(clippy::unwrap_used)] // a test fails by it
mod support;

use std::sync::OnceLock;

use proptest::prelude::*;
use support::sh;

/// Small images of everything that is parsed, made once.
fn images() -> &'static [Vec<u8>] {
    static IMAGES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        sh(
            "cd $1; mkdir d; mkdir d/sub; seq 3000 > d/sub/numbers; echo x > d/x; ln -s sub/numbers d/link
             ln -s /aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggg d/long
             truncate -s 1M ext4; mke2fs -qF -t ext4 -b 1024 -g 256 -d d ext4 2>/dev/null
             truncate -s 1M ext2; mke2fs -qF -t ext2 -b 1024 -d d ext2 2>/dev/null
             truncate -s 1M inline; mke2fs -qF -t ext4 -O inline_data,meta_bg,^resize_inode,^has_journal -I 256 -b 1024 -d d inline 2>/dev/null
             truncate -s 1M fat; mkfs.vfat -F 12 fat >/dev/null 2>&1; mcopy -s -i fat d/sub ::/
             truncate -s 34M fat32; mkfs.vfat -F 32 -s 1 fat32 >/dev/null 2>&1; mcopy -s -i fat32 d/sub ::/; truncate -s 1M fat32
             truncate -s 1M swap; mkswap swap >/dev/null 2>&1
             truncate -s 2M ntfs; mkntfs -qFfc 512 ntfs >/dev/null 2>&1; seq 30000 > big; ntfscp -fq ntfs big big; ntfscp -fq ntfs d/x x; rm big
             truncate -s 3M exfat; mkfs.exfat -c 512 -b 64K exfat >/dev/null
             truncate -s 4M mbr; printf 'label: dos\\nsize=1M\\nsize=128K\\nsize=128K\\nsize=1500K,type=5\\nsize=256K\\nsize=256K\\n' | sfdisk -q mbr 2>/dev/null
             dd if=ext4 of=mbr bs=1M seek=1 conv=notrunc status=none
             truncate -s 4M gpt; printf 'label: gpt\\nsize=1M\\nsize=1M,type=uefi\\n' | sfdisk -q gpt 2>/dev/null
             dd if=ext2 of=gpt bs=1M seek=1 conv=notrunc status=none; dd if=fat of=gpt bs=1M seek=2 conv=notrunc status=none
             rm -r d",
            &[folder.path()],
        );
        let mut paths: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
    })
}

fn all(bytes: &[u8]) {
    let disk = volume::fuzz::disk(bytes);
    volume::fuzz::table(&*disk);
    volume::fuzz::probe(&*disk);
    volume::fuzz::map(&disk);
    volume::fuzz::layout(&disk);
    volume::fuzz::files(&disk);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bits_and_torn_ends_do_no_harm(
        image in 0usize..10,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..24),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut bytes = images()[image].clone();
        // Structures are where something is; most of an image is zeros.
        let places: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] != 0).take(100_000).collect();
        for (place, value, near) in flips {
            let at = places[place.index(places.len())] + usize::from(near);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        all(&bytes);
    }

    #[test]
    fn metadata_text_of_any_kind_does_no_harm(text in "([a-z]{1,8} (\\{|= ?(-?[0-9]{1,22}|\"[a-z]*\"|\\[[0-9, ]*\\]))[ \n]|\\}|#|\\[|\"){0,40}") {
        volume::fuzz::lvm_text(text.as_bytes());
    }
}

#[test]
fn whole_images_pass_their_own_checks() {
    for image in images() {
        all(image);
    }
}
