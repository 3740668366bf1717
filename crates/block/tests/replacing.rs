//! A replica whose source went on changing: what is replaced in it, before and after a crash, is what the source has then.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)] // sizes of test disks; a panic is how a test fails

mod support;

use std::path::{Path, PathBuf};

use block::journal::{ImageIdentity, JournaledImage, State};
use block::{Chunk, Content, CreateOptions, ErrorKind, Format, ImageWriter, open_source};
use machine::{ByteCount, ByteOffset};
use proptest::prelude::*;
use support::*;

const SIZE: usize = 3 << 20;

/// An image with its journal, as a process leaves it that may be killed at any moment.
struct Site {
    _folder: tempfile::TempDir,
    image: PathBuf,
    journal: PathBuf,
    identity: ImageIdentity,
    options: CreateOptions,
}

impl Site {
    fn new(format: Format, full: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (image, journal) = (folder.path().join("image"), folder.path().join("journal"));
        let identity = ImageIdentity { disk: "d".into(), size: ByteCount(SIZE as u64), format };
        Self { _folder: folder, image, journal, identity, options: CreateOptions { full, ..CreateOptions::default() } }
    }

    fn create(&self) -> JournaledImage {
        JournaledImage::create(&self.image, &self.journal, &self.identity, &self.options).unwrap()
    }

    fn resume(&self) -> JournaledImage {
        JournaledImage::resume(&self.image, &self.journal, &self.identity, &self.options).unwrap()
    }
}

/// What a reader of the source gives: zeros as such.
fn chunk(offset: usize, bytes: &[u8]) -> Chunk {
    match bytes.iter().all(|byte| *byte == 0) {
        true => zero(offset as u64, bytes.len() as u64),
        false => data(offset as u64, bytes),
    }
}

fn write(image: &mut JournaledImage, disk: &[u8], from: usize, to: usize) {
    for at in (from..to).step_by(GRAIN as usize) {
        let end = (at + GRAIN as usize).min(to);
        image.write(chunk(at, &disk[at..end])).unwrap();
    }
}

/// Replaces what differs from `disk`, at most `most` pieces of it; returns whether that was all.
fn replace(image: &mut JournaledImage, disk: &[u8], most: usize) -> bool {
    let end = image.durable().0 as usize;
    let mut replaced = 0;
    for at in (0..end).step_by(GRAIN as usize) {
        let wanted = &disk[at..(at + GRAIN as usize).min(end)];
        let mut found = vec![0; wanted.len()];
        image.read_back(ByteOffset(at as u64), &mut found).unwrap();
        if found == wanted {
            continue;
        }
        if replaced == most {
            return false;
        }
        image.replace(&chunk(at, wanted)).unwrap();
        replaced += 1;
    }
    true
}

fn check(path: &Path, format: Format, disk: &[u8]) {
    let source = open_source(path).unwrap().source;
    assert!(read_all(&*source) == disk, "the image is not what the source was at last");
    if format == Format::Qcow2 {
        check_clean(path);
        assert!(convert_to_raw(path, "qcow2", path.parent().unwrap()) == disk);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_copied_of_an_earlier_state_becomes_the_later_one(
        seeds in proptest::array::uniform3(1u64..1 << 40),
        copied in 0usize..=SIZE,
        killed in proptest::collection::vec(0usize..20, 0..4),
        is_qcow2: bool,
        is_full: bool,
        synced: bool,
    ) {
        let format = if is_qcow2 { Format::Qcow2 } else { Format::Raw };
        let (before, now, later) =
            (random_disk(SIZE, seeds[0]), random_disk(SIZE, seeds[1]), random_disk(SIZE, seeds[2]));
        let site = Site::new(format, is_full);
        let mut image = site.create();
        write(&mut image, &before, 0, copied);
        image.sync().unwrap();
        // Each time that it is killed it has replaced some more, and what of that is durable is not known.
        for most in killed {
            drop(image);
            image = site.resume();
            replace(&mut image, &now, most);
            if synced {
                image.sync().unwrap();
            }
        }
        prop_assert!(replace(&mut image, &now, usize::MAX));
        image.sync().unwrap();
        let from = image.durable().0 as usize;
        drop(image);
        let mut image = site.resume();
        write(&mut image, &now, from, SIZE);
        image.finish_with_journal().unwrap();
        check(&site.image, format, &now);

        // A whole image, too: the other disks of its machine were not done when it went away.
        let mut image = site.resume();
        prop_assert_eq!(image.durable(), ByteOffset(SIZE as u64));
        prop_assert!(replace(&mut image, &later, usize::MAX));
        image.finish_with_journal().unwrap();
        check(&site.image, format, &later);
    }
}

#[test]
fn what_cannot_be_read_the_second_time_is_zeros_and_told() {
    let site = Site::new(Format::Qcow2, false);
    let mut image = site.create();
    write(&mut image, &[7; SIZE], 0, SIZE);
    image.sync().unwrap();
    let bad = Chunk { offset: ByteOffset(70_000), content: Content::Unreadable(ByteCount(512)) };
    image.replace(&bad).unwrap();
    let beyond = image.replace(&data(SIZE as u64, &[1])).unwrap_err();
    assert_eq!(beyond.kind, ErrorKind::OutOfBounds);
    let (_, journal) = image.finish_with_journal().unwrap();
    let unreadable: Vec<_> = journal
        .records()
        .unwrap()
        .map(Result::unwrap)
        .filter(|record| record.state == State::Unreadable)
        .map(|record| (record.extent, record.replaced))
        .collect();
    assert_eq!(unreadable, [(extent(70_000, 70_512), true)]);
    let mut expected = vec![7; SIZE];
    expected[70_000..70_512].fill(0);
    check(&site.image, Format::Qcow2, &expected);
}
