//! What a receiver does with frames that no honest agent sends, and with streams that break off.
// Sizes here are small constants.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::io::{self, Cursor, Read, Write};
use std::sync::{Arc, Mutex};

use block::Format;
use block::journal::ImageIdentity;
use conversion::receive::{ReceiveOptions, ReceiveStats, receive_disk, verify_disk};
use conversion::replica::Replica;
use conversion::{Cancel, DataStream, Error, ErrorKind};
use machine::{ByteCount, ByteOffset};
use protocol::frame::{Ack, Codec, Header, Kind, StreamError, StreamErrorKind};

const GRAIN: u64 = 64 << 10;
const SIZE: u64 = 64 * GRAIN;

/// Frames in, acknowledgements out; at the end of the frames the link is cut.
struct Wire {
    frames: Cursor<Vec<u8>>,
    acks: Arc<Mutex<Vec<u8>>>,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.frames.read(buffer)? {
            0 => Err(io::ErrorKind::ConnectionReset.into()),
            length => Ok(length),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.acks.lock().unwrap().write(buffer)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn data(offset: u64, content: &[u8]) -> Vec<u8> {
    let header = Header::data(ByteOffset(offset), content, Codec::Stored, content.len());
    [&header.to_bytes()[..], content].concat()
}

fn bare(kind: Kind, offset: u64, length: u64) -> Vec<u8> {
    Header::bare(kind, ByteOffset(offset), ByteCount(length)).to_bytes().to_vec()
}

fn page(byte: u8) -> Vec<u8> {
    vec![byte; GRAIN as usize]
}

struct Outcome {
    result: Result<ReceiveStats, Error>,
    resumed_at: Vec<u64>,
    acks: Vec<u64>,
    replica: Replica,
    _folder: tempfile::TempDir,
}

/// Receives the streams one behind another; there is no further one.
fn receive(streams: &[Vec<Vec<u8>>]) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let replica = Replica {
        path: folder.path().join("image"),
        journal: folder.path().join("image.journal"),
        identity: ImageIdentity { disk: "d".into(), size: ByteCount(SIZE), format: Format::Raw },
    };
    let acks = Arc::new(Mutex::new(Vec::new()));
    let mut resumed_at = Vec::new();
    let mut left = streams.iter();
    let mut supply = |resume: ByteOffset| -> conversion::Result<Box<dyn DataStream>> {
        resumed_at.push(resume.0);
        let frames = left.next().ok_or_else(|| Error::new(ErrorKind::Source, "no further stream"))?.concat();
        Ok(Box::new(Wire { frames: Cursor::new(frames), acks: Arc::clone(&acks) }))
    };
    let result = receive_disk(&mut supply, &replica, &ReceiveOptions::default(), &mut |_| {}, &Cancel::default());
    let acks = acks
        .lock()
        .unwrap()
        .chunks_exact(16)
        .map(|ack| Ack::parse(ack.try_into().unwrap()).unwrap().durable.0)
        .collect();
    Outcome { result, resumed_at, acks, replica, _folder: folder }
}

fn refusal(stream: Vec<Vec<u8>>) -> String {
    let error = receive(&[stream]).result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Source, "{error}");
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {cause}")
}

#[test]
fn what_was_sent_is_in_the_image_and_acknowledged() {
    let outcome = receive(&[vec![
        data(0, &page(1)),
        bare(Kind::Zero, GRAIN, GRAIN),
        bare(Kind::Idle, 0, 0),
        data(8 * GRAIN, &page(2)),
        bare(Kind::End, SIZE, 3 * GRAIN),
    ]]);
    let stats = outcome.result.unwrap();
    assert_eq!((stats.done, stats.data, stats.zero), (ByteCount(3 * GRAIN), ByteCount(2 * GRAIN), ByteCount(GRAIN)));
    let mut expected = vec![0; SIZE as usize];
    expected[..GRAIN as usize].fill(1);
    expected[8 * GRAIN as usize..9 * GRAIN as usize].fill(2);
    assert!(std::fs::read(&outcome.replica.path).unwrap() == expected);
    assert!(outcome.acks.is_sorted() && !outcome.acks.is_empty(), "{:?}", outcome.acks);
}

#[test]
fn a_stream_that_breaks_off_goes_on_behind_its_last_whole_frame() {
    let mut torn = data(GRAIN, &page(2));
    torn.truncate(1000);
    let outcome = receive(&[vec![data(0, &page(1)), torn], vec![data(GRAIN, &page(2)), bare(Kind::End, SIZE, GRAIN)]]);
    assert_eq!(outcome.resumed_at, [0, GRAIN]);
    assert_eq!(outcome.result.unwrap().done, ByteCount(2 * GRAIN));
    assert_eq!(std::fs::read(&outcome.replica.path).unwrap()[GRAIN as usize], 2);
}

#[test]
fn damaged_content_is_never_written_and_asked_for_again() {
    let mut damaged = data(GRAIN, &page(2));
    *damaged.last_mut().unwrap() ^= 1;
    let outcome = receive(&[
        vec![data(0, &page(1)), damaged, bare(Kind::End, SIZE, 2 * GRAIN)],
        vec![data(GRAIN, &page(2)), bare(Kind::End, SIZE, GRAIN)],
    ]);
    assert_eq!(outcome.resumed_at, [0, GRAIN]);
    outcome.result.unwrap();
    let image = std::fs::read(&outcome.replica.path).unwrap();
    assert!(image[GRAIN as usize..2 * GRAIN as usize].iter().all(|byte| *byte == 2));
}

#[test]
fn compressed_content_that_lies_about_its_length_is_never_written() {
    let mut payload = Vec::new();
    assert!(protocol::codec::Compressor::new().unwrap().compress(&page(7), &mut payload));
    let header = Header::data(ByteOffset(0), &[7; 100 << 10], Codec::Zstd, payload.len());
    let bomb = [&header.to_bytes()[..], &payload].concat();
    let outcome = receive(&[vec![bomb]]);
    assert_eq!(outcome.resumed_at, [0, 0], "it is asked for again from the start");
    assert!(outcome.result.is_err() && outcome.acks.iter().all(|position| *position == 0));
}

#[test]
fn frames_beyond_the_disk_or_out_of_order_are_refused() {
    assert!(refusal(vec![data(SIZE, &page(1))]).contains("beyond the disk"));
    assert!(refusal(vec![bare(Kind::Zero, SIZE - 1, 2)]).contains("beyond the disk"));
    assert!(refusal(vec![data(4 * GRAIN, &page(1)), data(0, &page(2))]).contains("frames ascend"));
    assert!(refusal(vec![data(0, &page(1)), data(0, &page(2))]).contains("frames ascend"));
}

#[test]
fn an_end_that_does_not_add_up_is_refused() {
    assert!(refusal(vec![data(0, &page(1)), bare(Kind::End, SIZE, 2 * GRAIN)]).contains("the stream ended at"));
    assert!(refusal(vec![bare(Kind::End, SIZE / 2, 0)]).contains("the stream ended at"));
    let hash = Header::about(Kind::Hash, ByteOffset(0), ByteCount(9), &[1; 32]);
    assert!(refusal(vec![hash.to_bytes().to_vec(), vec![1; 32]]).contains("a hash in a stream of data"));
    assert!(refusal(vec![vec![0xff; 32]]).contains("not known"));
}

#[test]
fn the_sources_own_failure_stops_the_copy_with_its_place() {
    let payload = StreamError { kind: StreamErrorKind::Unreadable, text: "medium\u{1b}[2J error".into() }.to_payload();
    let error = Header::about(Kind::Error, ByteOffset(0x1_2000), ByteCount::ZERO, &payload);
    let outcome = receive(&[vec![data(0, &page(1)), error.to_bytes().to_vec(), payload]]);
    let error = outcome.result.unwrap_err().to_string();
    assert!(error.contains("0x12000") && error.contains("medium[2J error"), "{error}");
    assert_eq!(outcome.acks, [GRAIN], "what came is durable");
}

#[test]
fn unreadable_extents_are_listed_and_are_zeros() {
    let outcome = receive(&[vec![
        data(0, &page(1)),
        bare(Kind::Unreadable, GRAIN, 512),
        data(GRAIN + 512, &page(3)[512..]),
        bare(Kind::End, SIZE, 2 * GRAIN),
    ]]);
    let stats = outcome.result.unwrap();
    assert_eq!((stats.unreadable, stats.unreadable_extents.len()), (ByteCount(512), 1));
    let image = std::fs::read(&outcome.replica.path).unwrap();
    assert!(image[GRAIN as usize..][..512].iter().all(|byte| *byte == 0) && image[GRAIN as usize + 512] == 3);
}

#[test]
fn streams_that_bring_nothing_for_ever_are_given_up() {
    let empty: Vec<Vec<Vec<u8>>> = vec![Vec::new(); 25];
    let outcome = receive(&empty);
    assert!(outcome.result.unwrap_err().to_string().contains("brought nothing"));
    assert_eq!(outcome.resumed_at.len(), 20);
}

#[test]
fn hashes_tell_equal_from_different() {
    let outcome = receive(&[vec![data(0, &page(1)), data(GRAIN, &page(2)), bare(Kind::End, SIZE, 2 * GRAIN)]]);
    outcome.result.unwrap();
    let source = block::open_source(&outcome.replica.path).unwrap().source;
    let compare = |second: &[u8]| {
        let hash = |offset, content: &[u8]| {
            let hash = *blake3::hash(content).as_bytes();
            let header = Header::about(Kind::Hash, ByteOffset(offset), content.len().into(), &hash);
            [&header.to_bytes()[..], &hash].concat()
        };
        let frames = [hash(0, &page(1)), hash(GRAIN, second), bare(Kind::End, SIZE, 2 * GRAIN)].concat();
        let mut supply = |_: ByteOffset| -> conversion::Result<Box<dyn DataStream>> {
            Ok(Box::new(Wire { frames: Cursor::new(frames.clone()), acks: Arc::default() }))
        };
        verify_disk(&mut supply, &source, &mut |_| {}, &Cancel::default()).unwrap()
    };
    assert!(compare(&page(2)).is_equal());
    let found = compare(&page(9));
    assert_eq!((found.differing, found.differences.len()), (ByteCount(GRAIN), 1));
}

#[test]
fn a_full_target_is_told_and_keeps_what_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = folder.path().join("tiny");
    std::fs::create_dir(&tiny).unwrap();
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(&tiny).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no small filesystem can be mounted here");
        return;
    }
    let replica = Replica {
        path: tiny.join("image"),
        journal: tiny.join("image.journal"),
        identity: ImageIdentity { disk: "d".into(), size: ByteCount(SIZE), format: Format::Raw },
    };
    let frames: Vec<u8> = (0..60).flat_map(|n| data(n * GRAIN, &page(n as u8 + 1))).collect();
    let mut supply = |_: ByteOffset| -> conversion::Result<Box<dyn DataStream>> {
        Ok(Box::new(Wire { frames: Cursor::new(frames.clone()), acks: Arc::default() }))
    };
    let result = receive_disk(&mut supply, &replica, &ReceiveOptions::default(), &mut |_| {}, &Cancel::default());
    let left = replica.path.exists() && replica.journal.exists();
    let unmounted = std::process::Command::new("umount").arg(&tiny).status().unwrap();
    assert!(unmounted.success());
    let error = result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Target, "{error}");
    assert!(error.to_string().contains("no space") && left, "{error}");
}
