//! What the engine copies is what a naive copy would have, uninterrupted or resumed anywhere, judged by qemu-img.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)] // sizes of test disks; a panic is how a test fails

mod support;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use block::fault::{FaultySource, FullWriter};
use block::journal::{ImageIdentity, Journal, JournaledImage, State};
use block::{
    BlockSource, Chunk, Content, CopyOptions, CreateOptions, ErrorKind, ExtentReader, Format, ImageWriter,
    OnUnreadable, Placed, ReadOptions, copy, create_image, open_source, resume_image, verify,
};
use machine::{ByteCount, ByteOffset};
use proptest::prelude::*;
use support::*;

const FORMATS: [Format; 2] = [Format::Raw, Format::Qcow2];

fn keep_on(_: &block::Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Copies all of `used` into a new image.
fn copy_whole(source: &Arc<dyn BlockSource>, used: &[(u64, u64)], image: &Path, format: Format, direct: bool) {
    let options = CreateOptions { direct, ..CreateOptions::default() };
    let mut writer = create_image(image, format, source.size(), &options).unwrap();
    let read = ReadOptions { direct, ..ReadOptions::default() };
    copy(Arc::clone(source), extents(used), &mut *writer, &CopyOptions { read, sync_every: None }, &mut keep_on)
        .unwrap();
    let length = writer.finish().unwrap();
    assert_eq!(length.0, image.metadata().unwrap().len());
}

/// The disk with everything outside the grains of `used` zeroed.
fn expected(disk: &[u8], used: &[(u64, u64)]) -> Vec<u8> {
    let mut bytes = vec![0; disk.len()];
    for &(start, end) in used.iter().filter(|(start, end)| start < end) {
        let start = (start / GRAIN * GRAIN) as usize;
        let end = (end.next_multiple_of(GRAIN) as usize).min(disk.len());
        bytes[start..end].copy_from_slice(&disk[start..end]);
    }
    bytes
}

fn used_extents(size: u64) -> impl Strategy<Value = Vec<(u64, u64)>> {
    proptest::collection::vec(0..=size, 0..24).prop_map(|mut cuts| {
        cuts.sort_unstable();
        cuts.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
    })
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(24))]
    #[test]
    fn a_reader_gives_what_a_plain_vector_holds(
        size in 1u64..5_000_000, seed: u64, used in used_extents(5_000_000), depth in 1usize..10, from_file: bool, direct: bool,
    ) {
        let disk = random_disk(size as usize, seed);
        let used: Vec<_> = used.into_iter().map(|(a, b)| (a.min(size), b.min(size))).collect();
        let folder = tempfile::tempdir().unwrap();
        let source = if from_file {
            std::fs::write(folder.path().join("disk"), &disk).unwrap();
            open_source(&folder.path().join("disk")).unwrap().source
        } else {
            memory(&disk)
        };
        let options = ReadOptions { queue_depth: depth, direct, ..ReadOptions::default() };
        let mut copied = vec![0; disk.len()];
        let mut end = ByteOffset::ZERO;
        for chunk in ExtentReader::new(source, extents(&used), options) {
            let chunk = chunk.unwrap();
            let extent = chunk.extent().unwrap();
            prop_assert!(extent.start() >= end && !extent.is_empty());
            end = extent.end();
            let range = extent.start().0 as usize..end.0 as usize;
            match chunk.content {
                Content::Data(bytes) => {
                    prop_assert!(bytes.chunks(GRAIN as usize).all(|grain| !block::is_zero(grain)));
                    copied[range].copy_from_slice(&bytes);
                }
                Content::Zero(_) => prop_assert!(block::is_zero(&disk[range])),
                Content::Unreadable(_) => prop_assert!(false),
            }
        }
        prop_assert!(copied == expected(&disk, &used));
    }
}

#[test]
fn images_hold_the_used_blocks_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = [512, 65_536, 65_536 + 512, 3_000_320, 20 << 20];
    for (seed, size) in (1..).zip(sizes) {
        let disk = random_disk(size, seed);
        let source = memory(&disk);
        let mut random = Random(seed);
        let mut cuts: Vec<u64> = (0..10).map(|_| random.below(size as u64)).collect();
        cuts.sort_unstable();
        let used: Vec<_> = cuts.chunks_exact(2).map(|c| (c[0], c[1])).collect();
        for (format, direct) in
            [(Format::Raw, true), (Format::Raw, false), (Format::Qcow2, true), (Format::Qcow2, false)]
        {
            let image = folder.path().join("image");
            copy_whole(&source, &used, &image, format, direct);
            let opened = open_source(&image).unwrap();
            assert_eq!((opened.format, opened.source.size()), (format, source.size()));
            assert!(read_all(&*opened.source) == expected(&disk, &used), "{format} of {size} bytes");
            assert!(
                verify(Arc::clone(&source), extents(&used), opened.source, &ReadOptions::default(), &mut |_| {
                    ControlFlow::Continue(())
                })
                .unwrap()
                .is_equal()
            );
            if has("qemu-img") {
                if format == Format::Qcow2 {
                    check_clean(&image);
                }
                assert!(convert_to_raw(&image, format.name(), folder.path()) == expected(&disk, &used));
            }
            std::fs::remove_file(&image).unwrap();
        }
    }
}

#[test]
fn a_large_sparse_qcow2_crosses_regions_and_stays_clean() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("large.qcow2");
    let size = ByteCount(64 << 40);
    let mut writer = create_image(&image, Format::Qcow2, size, &CreateOptions::default()).unwrap();
    let offsets = [0, (512 << 20) - GRAIN, 512 << 20, 5 << 30, (1 << 40) + 3 * GRAIN, (64 << 40) - GRAIN];
    for (fill, offset) in (1u8..).zip(offsets) {
        writer.write(data(offset, &vec![fill; GRAIN as usize])).unwrap();
    }
    // A chunk over the border of two regions is cut there.
    writer.finish().unwrap();
    let source = open_source(&image).unwrap().source;
    for (fill, offset) in (1u8..).zip(offsets) {
        let mut byte = [0];
        source.read_at(ByteOffset(offset + GRAIN - 1), &mut byte).unwrap();
        assert_eq!(byte, [fill]);
    }
    let allocated: u64 = source.allocated(block::Extent::first(size)).map(|e| e.unwrap().length().0).sum();
    assert_eq!(allocated, offsets.len() as u64 * GRAIN);
    if has("qemu-img") {
        check_clean(&image);
    }
}

#[test]
fn a_chunk_over_the_border_of_two_regions_is_cut_there() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("border.qcow2");
    let mut writer = create_image(&image, Format::Qcow2, ByteCount(1 << 30), &CreateOptions::default()).unwrap();
    let bytes = random_disk(1 << 20, 5).iter().map(|b| b | 1).collect::<Vec<u8>>();
    writer.write(data((512 << 20) - (1 << 19), &bytes)).unwrap();
    writer.finish().unwrap();
    let mut found = vec![0; 1 << 20];
    open_source(&image).unwrap().source.read_at(ByteOffset((512 << 20) - (1 << 19)), &mut found).unwrap();
    assert!(found == bytes);
    if has("qemu-img") {
        check_clean(&image);
    }
}

/// Chunks as they may come over a network: cut anywhere.
fn fragments(disk: &[u8], seed: u64) -> Vec<Chunk> {
    let mut random = Random(seed | 1);
    let mut chunks = Vec::new();
    let mut at = 0;
    while at < disk.len() {
        let length = (1 + random.below(300_000) as usize).min(disk.len() - at);
        chunks.push(match random.below(4) {
            0 => zero(at as u64, length as u64),
            1 => Chunk { offset: ByteOffset(at as u64), content: Content::Unreadable(ByteCount(length as u64)) },
            _ => data(at as u64, &disk[at..at + length]),
        });
        at += length;
    }
    chunks
}

#[test]
fn a_run_resumed_at_any_point_gives_the_same_file_as_an_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let disk: Vec<u8> = random_disk(4_000_256, 21).iter().map(|b| b ^ 0x5a).collect();
    for format in FORMATS {
        let identity = ImageIdentity { disk: "wwn-0x5000".into(), size: ByteCount(disk.len() as u64), format };
        let chunks = fragments(&disk, 77);
        let options = CreateOptions::default();
        let mut whole = JournaledImage::create(&at("whole"), &at("whole.journal"), &identity, &options).unwrap();
        chunks.iter().for_each(|chunk| whole.write(chunk.clone()).unwrap());
        Box::new(whole).finish().unwrap();
        let expected = std::fs::read(at("whole")).unwrap();

        for stop in 0..=chunks.len() {
            let mut first = JournaledImage::create(&at("image"), &at("journal"), &identity, &options).unwrap();
            for (n, chunk) in chunks[..stop].iter().enumerate() {
                first.write(chunk.clone()).unwrap();
                // Not everything that was written is durable when it is killed.
                if n % 3 == 0 {
                    first.sync().unwrap();
                }
            }
            drop(first);
            // A torn record and a torn write stand behind what was promised.
            let mut journal = std::fs::OpenOptions::new().append(true).open(at("journal")).unwrap();
            std::io::Write::write_all(&mut journal, &[1, 2, 3]).unwrap();

            let mut second = JournaledImage::resume(&at("image"), &at("journal"), &identity, &options).unwrap();
            let durable = second.durable();
            for chunk in &chunks {
                let extent = chunk.extent().unwrap();
                if extent.end() <= durable {
                    continue;
                }
                // The rest of the chunk in which the durable part ends.
                let skip = durable.saturating_since(extent.start()).0;
                let offset = extent.start() + ByteCount(skip);
                let rest = extent.length().0 - skip;
                let content = match &chunk.content {
                    Content::Data(bytes) => Content::Data(bytes.slice(skip as usize..bytes.len())),
                    Content::Zero(_) => Content::Zero(ByteCount(rest)),
                    Content::Unreadable(_) => Content::Unreadable(ByteCount(rest)),
                };
                second.write(Chunk { offset, content }).unwrap();
            }
            let (_, journal) = second.finish_with_journal().unwrap();
            assert!(std::fs::read(at("image")).unwrap() == expected, "{format} resumed after {stop} chunks");
            let unreadable: u64 = journal
                .records()
                .unwrap()
                .map(|r| r.unwrap())
                .filter(|r| r.state == State::Unreadable)
                .map(|r| r.extent.length().0)
                .sum();
            let told: u64 =
                chunks.iter().filter(|c| matches!(c.content, Content::Unreadable(_))).map(|c| c.length().0).sum();
            assert_eq!(unreadable, told);
            journal.remove().unwrap();
            std::fs::remove_file(at("image")).unwrap();
        }
        if format == Format::Qcow2 && has("qemu-img") {
            check_clean(&at("whole"));
        }
        std::fs::remove_file(at("whole")).unwrap();
    }
}

#[test]
fn a_journal_of_another_disk_or_a_missing_image_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let identity = ImageIdentity { disk: "a".into(), size: ByteCount(1 << 20), format: Format::Qcow2 };
    let options = CreateOptions::default();
    let mut image = JournaledImage::create(&at("image"), &at("journal"), &identity, &options).unwrap();
    image.write(data(0, &[1; 1 << 16])).unwrap();
    image.sync().unwrap();
    drop(image);
    let other = ImageIdentity { disk: "b".into(), ..identity.clone() };
    assert_eq!(
        JournaledImage::resume(&at("image"), &at("journal"), &other, &options).err().unwrap().kind,
        ErrorKind::Malformed
    );
    assert!(JournaledImage::create(&at("image"), &at("journal2"), &identity, &options).is_err());
    assert!(!at("journal2").exists());
    assert!(JournaledImage::create(&at("image2"), &at("journal"), &identity, &options).is_err());
    assert!(!at("image2").exists());
    std::fs::OpenOptions::new().write(true).open(at("image")).unwrap().set_len(70_000).unwrap();
    assert_eq!(
        JournaledImage::resume(&at("image"), &at("journal"), &identity, &options).err().unwrap().kind,
        ErrorKind::Malformed
    );
}

#[test]
fn records_behind_a_damaged_one_are_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let identity = ImageIdentity { disk: "a".into(), size: ByteCount(1 << 40), format: Format::Raw };
    let mut journal = Journal::create(&path, &identity).unwrap();
    let record =
        |n: u64| block::journal::Record { extent: extent(n * 100, n * 100 + 50), state: State::Data, replaced: false };
    journal.append(&[record(0), record(1)]).unwrap();
    journal.append(&[record(2)]).unwrap();
    drop(journal);
    let sound = std::fs::read(&path).unwrap();
    for bit in 0..sound.len() * 8 {
        let mut bytes = sound.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &bytes).unwrap();
        match Journal::open(&path) {
            Err(error) => assert!(bit / 8 < 128 && error.kind != ErrorKind::Io, "{error}"),
            Ok(journal) => {
                let kept = journal.records().unwrap().map(|r| r.unwrap()).collect::<Vec<_>>();
                let expected = (bit / 8 - 128) / 32;
                assert_eq!(kept, (0..expected as u64).map(record).collect::<Vec<_>>(), "bit {bit}");
            }
        }
    }
}

#[test]
fn unreadable_sectors_stop_the_copy_or_are_skipped_one_by_one() {
    let disk: Vec<u8> = random_disk(3 << 20, 4).iter().map(|b| b ^ 0xff).collect();
    let bad = [(70_000, 70_001), (200_704, 201_728), (1_500_000, 1_600_000), ((3 << 20) - 512, 3 << 20)];
    let sectors: Vec<(u64, u64)> =
        bad.iter().map(|&(a, b): &(u64, u64)| (a / 512 * 512, b.next_multiple_of(512))).collect();
    let faulty = || {
        let source = FaultySource::new(memory(&disk));
        Arc::new(bad.iter().fold(source, |source, &(a, b)| source.unreadable(extent(a, b)))) as Arc<dyn BlockSource>
    };
    let stopped =
        ExtentReader::new(faulty(), extents(&[(0, 3 << 20)]), ReadOptions::default()).find_map(Result::err).unwrap();
    assert_eq!((stopped.kind, stopped.offset), (ErrorKind::Unreadable, Some(ByteOffset(70_000 / 512 * 512))));

    let skip = ReadOptions { on_unreadable: OnUnreadable::Skip, ..ReadOptions::default() };
    let chunks: Vec<Chunk> =
        ExtentReader::new(faulty(), extents(&[(0, 3 << 20)]), skip.clone()).map(|c| c.unwrap()).collect();
    let mut end = 0;
    let mut lost: Vec<(u64, u64)> = Vec::new();
    for chunk in &chunks {
        assert_eq!(chunk.offset.0, end, "no gap between the chunks");
        end += chunk.length().0;
        match &chunk.content {
            Content::Data(bytes) => assert!(**bytes == disk[chunk.offset.0 as usize..end as usize]),
            Content::Zero(_) => panic!("the disk has no zeros"),
            Content::Unreadable(_) => match lost.last_mut() {
                Some(last) if last.1 == chunk.offset.0 => last.1 = end,
                _ => lost.push((chunk.offset.0, end)),
            },
        }
    }
    assert_eq!((end, lost), (3 << 20, sectors.clone()));

    let folder = tempfile::tempdir().unwrap();
    let mut expected = disk.clone();
    sectors.iter().for_each(|&(a, b)| expected[a as usize..b as usize].fill(0));
    for format in FORMATS {
        let image = folder.path().join(format.name());
        let mut writer = create_image(&image, format, ByteCount(3 << 20), &CreateOptions::default()).unwrap();
        let options = CopyOptions { read: skip.clone(), sync_every: Some(ByteCount(1 << 20)) };
        let totals = copy(faulty(), extents(&[(0, 3 << 20)]), &mut *writer, &options, &mut keep_on).unwrap();
        writer.finish().unwrap();
        assert_eq!(totals.unreadable.0, sectors.iter().map(|(a, b)| b - a).sum::<u64>());
        assert_eq!(totals.done, ByteCount(3 << 20));
        assert!(read_all(&*open_source(&image).unwrap().source) == expected);
    }
}

#[test]
fn a_medium_that_heals_is_read_by_trying_again() {
    let disk = vec![3; 1 << 20];
    let source = FaultySource::new(memory(&disk)).unreadable(extent(5000, 5001)).heals_after(1);
    let chunks: Vec<Chunk> = ExtentReader::new(Arc::new(source), extents(&[(0, 1 << 20)]), ReadOptions::default())
        .map(|c| c.unwrap())
        .collect();
    assert!(matches!(&chunks[..], [Chunk { content: Content::Data(bytes), .. }] if **bytes == disk));
}

#[test]
fn a_source_that_shrinks_is_told_and_not_padded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, vec![1; 16 << 20]).unwrap();
    for direct in [true, false] {
        let source = open_source(&path).unwrap().source;
        let options = ReadOptions { direct, queue_depth: 2, ..ReadOptions::default() };
        let mut reader = ExtentReader::new(source, extents(&[(0, 16 << 20)]), options);
        assert!(reader.next().unwrap().is_ok());
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(5 << 20).unwrap();
        let error = reader.find_map(Result::err).unwrap();
        assert_eq!(error.kind, ErrorKind::OutOfBounds);
        assert!(error.to_string().contains("shorter"), "{error}");
        file.set_len(16 << 20).unwrap();
    }
    let decorated = FaultySource::new(memory(&vec![1; 4 << 20])).shrinks(ByteCount(1 << 20), ByteCount(2 << 20));
    let error = ExtentReader::new(Arc::new(decorated), extents(&[(0, 4 << 20)]), ReadOptions::default())
        .find_map(Result::err)
        .unwrap();
    assert_eq!(error.kind, ErrorKind::OutOfBounds);
}

#[test]
fn a_full_disk_is_no_space_and_what_was_durable_can_be_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let disk: Vec<u8> = random_disk(8 << 20, 8).iter().map(|b| b | 1).collect();
    let source = memory(&disk);
    for format in FORMATS {
        let inner = create_image(&image, format, source.size(), &CreateOptions::default()).unwrap();
        let mut writer = FullWriter::new(inner, ByteCount(3 << 20));
        let options = CopyOptions { sync_every: Some(ByteCount(1 << 20)), ..CopyOptions::default() };
        let error = copy(Arc::clone(&source), everything(&source), &mut writer, &options, &mut keep_on).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoSpace);
        drop(writer);
        let mut writer = resume_image(
            &image,
            format,
            source.size(),
            Box::new(extents(&[(0, 3 << 20)]).map(|extent| extent.map(Placed::Written))),
            &CreateOptions::default(),
        )
        .unwrap();
        copy(Arc::clone(&source), extents(&[(3 << 20, 8 << 20)]), &mut *writer, &options, &mut keep_on).unwrap();
        writer.finish().unwrap();
        assert!(read_all(&*open_source(&image).unwrap().source) == disk);
        std::fs::remove_file(&image).unwrap();
    }
    let greedy = CreateOptions { expected: Some(ByteCount(1 << 60)), ..CreateOptions::default() };
    let error = create_image(&image, Format::Qcow2, ByteCount(1 << 30), &greedy).err().unwrap();
    assert_eq!(error.kind, ErrorKind::NoSpace);
    assert!(!image.exists());
}

#[test]
fn a_cancelled_copy_says_so_and_an_existing_file_is_never_touched() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let source = memory(&random_disk(8 << 20, 2));
    let mut writer = create_image(&image, Format::Raw, source.size(), &CreateOptions::default()).unwrap();
    let calls = AtomicU32::new(0);
    let error =
        copy(Arc::clone(&source), everything(&source), &mut *writer, &CopyOptions::default(), &mut |_| match calls
            .fetch_add(1, Ordering::Relaxed)
        {
            0 | 1 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        });
    assert_eq!(error.unwrap_err().kind, ErrorKind::Cancelled);
    assert_eq!(calls.into_inner(), 3);
    drop(writer);
    let before = std::fs::read(&image).unwrap();
    assert!(create_image(&image, Format::Qcow2, source.size(), &CreateOptions::default()).is_err());
    assert!(std::fs::read(&image).unwrap() == before);
}

#[test]
fn chunks_that_do_not_ascend_or_lie_beyond_the_disk_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for format in FORMATS {
        let mut writer =
            create_image(&folder.path().join(format.name()), format, ByteCount(1 << 20), &CreateOptions::default())
                .unwrap();
        writer.write(data(1000, &[1; 100])).unwrap();
        for chunk in [data(1099, &[1]), zero(0, 5), zero(1 << 20, 1), zero((1 << 20) - 1, 2), zero(u64::MAX, u64::MAX)]
        {
            assert_eq!(writer.write(chunk).unwrap_err().kind, ErrorKind::OutOfBounds);
        }
        assert_eq!(writer.sync().unwrap(), ByteOffset::ZERO);
        writer.write(zero(1100, (1 << 20) - 1100)).unwrap();
        assert_eq!(writer.sync().unwrap(), ByteOffset(1 << 20));
        writer.finish().unwrap();
    }
}

#[test]
fn verification_lists_what_differs() {
    let disk = random_disk(6 << 20, 31);
    let mut changed = disk.clone();
    changed[(2 << 20) + 5] ^= 1;
    changed[(3 << 20) - 1] ^= 1;
    changed[3 << 20] ^= 1;
    changed[5 << 20] ^= 1;
    let result =
        verify(memory(&disk), extents(&[(0, 4 << 20)]), memory(&changed), &ReadOptions::default(), &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(!result.is_equal());
    assert_eq!(result.compared, ByteCount(4 << 20));
    assert_eq!(result.differences, [extent(2 << 20, 4 << 20)]);
    assert!(
        verify(memory(&disk), extents(&[]), memory(&disk[..100]), &ReadOptions::default(), &mut |_| {
            ControlFlow::Continue(())
        })
        .is_err()
    );
}
