//! The real agent against the receiver, over loopback and over links that fail.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use block::Format;
use block::journal::ImageIdentity;
use conversion::Cancel;
use conversion::receive::{ReceiveOptions, ReceiveStats, receive_disk, verify_disk};
use conversion::reconcile::reconcile_disk;
use conversion::replica::Replica;
use machine::{ByteCount, ByteOffset};
use protocol::message::{Compress, OnUnreadable, Scope, StreamMode};
use support::{Agent, Controller, Link, make_disk};

fn data(resume: ByteOffset) -> StreamMode {
    StreamMode::Data { resume, compress: Compress::WhenItPays, on_unreadable: OnUnreadable::Stop }
}

fn hashes(resume: ByteOffset) -> StreamMode {
    StreamMode::Hashes { resume }
}

struct Place {
    _folder: tempfile::TempDir,
    root: PathBuf,
    disk: PathBuf,
}

impl Place {
    fn new(mib: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let disk = root.join("disk");
        make_disk(&disk, mib, 0x5eed);
        Self { _folder: folder, root, disk }
    }

    fn replica(&self, name: &str, format: Format) -> Replica {
        let size = ByteCount(std::fs::metadata(&self.disk).unwrap().len());
        Replica {
            path: self.root.join(name),
            journal: self.root.join(format!("{name}.journal")),
            identity: ImageIdentity { disk: "disk 0".into(), size, format },
        }
    }

    fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    fn agent(&self, address: std::net::SocketAddr, controller: &Controller) -> Agent {
        Agent::start(address, Some(controller.authority()), &self.state(), &[&self.disk])
    }
}

fn receive(controller: &Controller, replica: &Replica, mode: fn(ByteOffset) -> StreamMode) -> ReceiveStats {
    let mut supply = controller.supply(0, mode, Cancel::default());
    receive_disk(&mut supply, replica, &ReceiveOptions::default(), &mut |_| {}, &Cancel::default()).unwrap()
}

fn assert_same(left: &Path, right: &Path) {
    assert!(std::fs::read(left).unwrap() == std::fs::read(right).unwrap(), "{} differs", right.display());
}

#[test]
fn what_is_left_out_arrives_as_zeros_and_hashes_prove_the_rest() {
    let place = Place::new(16);
    let controller = Controller::start();
    let mut agent = place.agent(controller.address(), &controller);
    agent.wait_for_status("waiting_for_approval");
    controller.approve();
    // One range of whole grains, one that begins and ends within them.
    let left_out = vec![(ByteOffset(4 << 20), ByteCount::mib(2)), (ByteOffset((9 << 20) + 512), ByteCount(100_000))];
    let scope = Scope { left_out: left_out.clone(), ..Scope::default() };
    let supply = |mode: fn(ByteOffset) -> StreamMode| {
        let (controller, scope) = (&controller, scope.clone());
        move |resume: ByteOffset| -> conversion::Result<Box<dyn conversion::DataStream>> {
            Ok(Box::new(controller.open_within(0, mode(resume), scope.clone()).unwrap()))
        }
    };
    let replica = place.replica("part", Format::Raw);
    receive_disk(&mut supply(data), &replica, &ReceiveOptions::default(), &mut |_| {}, &Cancel::default()).unwrap();
    let mut expected = std::fs::read(&place.disk).unwrap();
    for (at, length) in &left_out {
        let (at, length) = (usize::try_from(at.0).unwrap(), length.to_usize().unwrap());
        assert!(expected[at..at + length].iter().any(|byte| *byte != 0));
        expected[at..at + length].fill(0);
    }
    assert!(std::fs::read(&replica.path).unwrap() == expected);
    let source = replica.source().unwrap();
    let proven = verify_disk(&mut supply(hashes), &source, &mut |_| {}, &Cancel::default()).unwrap();
    println!("{} compared, {:?}", proven.compared, proven.differences);
    assert!(proven.differences.is_empty() && proven.compared >= ByteCount::mib(13), "{}", proven.compared);
}

#[test]
fn a_disk_arrives_as_it_is_and_hashes_prove_it() {
    let place = Place::new(64);
    let before = std::fs::metadata(&place.disk).unwrap().modified().unwrap();
    let controller = Controller::start();
    let mut agent = place.agent(controller.address(), &controller);
    let shown = agent.wait_for_status("waiting_for_approval");
    assert!(shown.contains(&controller.code().to_string()), "both screens show one code: {shown}");
    let report = controller.approve();
    assert_eq!(report.machine.disks[0].virtual_size, ByteCount::mib(64));
    assert!(!report.machine.cpu.model.is_empty() && report.machine.memory.0 > 0);

    let replica = place.replica("raw", Format::Raw);
    let stats = receive(&controller, &replica, data);
    assert_same(&place.disk, &replica.path);
    assert_eq!((stats.done, stats.zero), (ByteCount::mib(64), ByteCount::mib(16)));
    assert!(stats.sent.0 < (49 << 20) && stats.streams == 1, "{stats:?}");

    let always = |resume| StreamMode::Data { resume, compress: Compress::Always, on_unreadable: OnUnreadable::Stop };
    let small = place.replica("compressed", Format::Raw);
    let stats = receive(&controller, &small, always);
    assert_same(&place.disk, &small.path);
    assert!(stats.sent.0 < (34 << 20), "text was compressed, noise was stored: {stats:?}");

    let opened = block::open_source(&replica.path).unwrap().source;
    let mut supply = controller.supply(0, hashes, Cancel::default());
    let found = verify_disk(&mut supply, &opened, &mut |_| {}, &Cancel::default()).unwrap();
    assert!(found.is_equal());
    assert_eq!(found.compared, ByteCount::mib(64));

    // One byte is changed in the replica.
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(&replica.path).unwrap();
    file.write_all_at(b"!", 33 << 20).unwrap();
    let found = verify_disk(&mut supply, &opened, &mut |_| {}, &Cancel::default()).unwrap();
    assert!(!found.is_equal() && found.differing.0 <= 1 << 20, "{found:?}");
    assert!(found.differences[0].start().0 <= 33 << 20 && found.differences[0].end().0 > 33 << 20);
    assert_eq!(std::fs::metadata(&place.disk).unwrap().modified().unwrap(), before);
}

#[test]
fn a_link_that_is_cut_again_and_again_only_delays() {
    let place = Place::new(96);
    let controller = Controller::start();
    let link = Link::to(controller.address());
    let _agent = place.agent(link.address, &controller);
    controller.approve();
    link.cut_every(20 << 20);
    let replica = place.replica("raw", Format::Raw);
    let stats = receive(&controller, &replica, data);
    assert_same(&place.disk, &replica.path);
    assert!(link.cuts() >= 2 && stats.streams >= 3, "{} cuts, {stats:?}", link.cuts());
    // Whole frames that arrived are never asked for again: each cut costs one frame at most.
    let once = (72 + u64::from(stats.streams)) << 20;
    assert!(stats.resent.0 == 0 && stats.sent.0 < once, "{stats:?}");
}

#[test]
fn a_link_that_freezes_is_noticed_and_left() {
    let place = Place::new(256);
    let controller = Controller::start();
    controller.set_patience(Duration::from_millis(700));
    let link = Link::to(controller.address());
    let _agent = place.agent(link.address, &controller);
    controller.approve();
    let replica = place.replica("raw", Format::Raw);
    let frozen = std::cell::Cell::new(false);
    let mut supply = controller.supply(0, data, Cancel::default());
    let mut progress = |stats: &ReceiveStats| {
        if !frozen.replace(true) {
            assert!(stats.position.0 < 256 << 20);
            link.freeze(true);
        }
    };
    let streams = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(3));
            link.freeze(false);
        });
        receive_disk(&mut supply, &replica, &ReceiveOptions::default(), &mut progress, &Cancel::default())
            .unwrap()
            .streams
    });
    assert!(streams >= 2);
    assert_same(&place.disk, &replica.path);
}

#[test]
fn a_killed_agent_goes_on_with_its_key_where_it_was() {
    let place = Place::new(192);
    let controller = Controller::start();
    let mut agent = Some(place.agent(controller.address(), &controller));
    controller.approve();
    let replica = place.replica("raw", Format::Raw);
    let mut supply = controller.supply(0, data, Cancel::default());
    let mut progress = |stats: &ReceiveStats| {
        if stats.position.0 > 10 << 20
            && let Some(running) = agent.take()
        {
            running.kill();
            agent = Some(place.agent(controller.address(), &controller));
        }
    };
    // Killed once: the condition is true again, so the first kill disarms it.
    let mut killed = false;
    let mut once = |stats: &ReceiveStats| {
        if !killed && stats.position.0 > 10 << 20 {
            killed = true;
            progress(stats);
        }
    };
    // Looked at after each frame: on a fast machine all is here within the usual interval.
    let options = ReceiveOptions { progress_interval: Duration::ZERO, ..ReceiveOptions::default() };
    let stats = receive_disk(&mut supply, &replica, &options, &mut once, &Cancel::default()).unwrap();
    assert!(killed && stats.streams >= 2, "{stats:?}");
    assert_same(&place.disk, &replica.path);
    assert_eq!(stats.resent.0, 0);
}

/// The machine was stopped halfway, ran its own system, and came back.
#[test]
fn what_changed_while_the_machine_was_away_is_found_and_sent_again_and_nothing_else() {
    use std::os::unix::fs::FileExt;
    for format in [Format::Qcow2, Format::Raw] {
        let place = Place::new(64);
        let controller = Controller::start();
        let link = Link::to(controller.address());
        let agent = place.agent(link.address, &controller);
        controller.approve();
        let replica = place.replica("image", format);
        let cancel = Cancel::default();
        let mut supply = controller.supply(0, data, cancel.clone());
        let stopped = receive_disk(
            &mut supply,
            &replica,
            &ReceiveOptions {
                sync_bytes: ByteCount::mib(4),
                progress_interval: Duration::ZERO,
                ..ReceiveOptions::default()
            },
            &mut |stats| {
                if stats.position.0 > 40 << 20 {
                    cancel.cancel();
                }
            },
            &cancel,
        );
        assert_eq!(stopped.unwrap_err().kind, conversion::ErrorKind::Cancelled);
        agent.kill();

        // Data becomes other data, zeros, or comes where there was none; before and behind what was copied.
        let file = std::fs::File::options().write(true).open(&place.disk).unwrap();
        for (at, byte, length) in
            [(5_000, 1, 700), (3 << 20, 0, 2 << 20), (20 << 20, 2, 9), ((40 << 20) - 3, 3, 6), (60 << 20, 4, 1 << 20)]
        {
            file.write_all_at(&vec![byte; length], at).unwrap();
        }
        let whole_zeros = (0..64).filter(|mib| {
            let mut bytes = vec![0; 1 << 20];
            std::os::unix::fs::FileExt::read_exact_at(
                &std::fs::File::open(&place.disk).unwrap(),
                &mut bytes,
                mib << 20,
            )
            .unwrap();
            bytes.iter().all(|byte| *byte == 0)
        });
        let zero = whole_zeros.filter(|mib| *mib < 36).max().unwrap();
        file.write_all_at(&[5; 3], (zero << 20) + 77).unwrap();

        let _agent = place.agent(link.address, &controller);
        link.cut_every(10 << 20);
        let (mut told, none) = ((ByteCount::ZERO, ByteCount::ZERO), Cancel::default());
        let mut supply = |mode: conversion::StreamMode, within: &[block::Extent]| {
            let mode = match mode {
                conversion::StreamMode::Hashes => hashes(ByteOffset::ZERO),
                conversion::StreamMode::Data { .. } => data(ByteOffset::ZERO),
            };
            controller.open(0, mode, within, &none)
        };
        let replaced = reconcile_disk(
            &mut supply,
            &replica,
            &block::CreateOptions::default(),
            false,
            &mut |compared, sent| told = (compared, sent),
            &none,
        )
        .unwrap();
        println!("{format}: {} compared, {replaced} replaced, {} crossed the network", told.0, told.1);
        assert!(replaced.0 >= 4 << 20 && replaced.0 <= 8 << 20, "{replaced} replaced");
        assert!(told.0.0 >= 36 << 20 && told.1.0 < 8 << 20, "{told:?}");
        let rest = receive(&controller, &replica, data);
        assert!(rest.sent.0 < 29 << 20, "{rest:?}");
        let raw = place.root.join("as-read");
        let source = block::open_source(&replica.path).unwrap().source;
        let mut bytes = vec![0; 64 << 20];
        source.read_at(ByteOffset::ZERO, &mut bytes).unwrap();
        std::fs::write(&raw, bytes).unwrap();
        assert_same(&place.disk, &raw);
    }
}

/// What a killed controller leaves behind is the image and the journal as they are at any moment.
#[test]
fn a_killed_controller_goes_on_behind_its_journal() {
    for format in [Format::Raw, Format::Qcow2] {
        let place = Place::new(160);
        let controller = Controller::start();
        let _agent = place.agent(controller.address(), &controller);
        controller.approve();
        let (first, second) = (place.replica("first", format), place.replica("second", format));
        let mut supply = controller.supply(0, data, Cancel::default());
        let mut left = None;
        // Told of every frame, so that a fast copy is seen under way too.
        let options = ReceiveOptions {
            sync_bytes: ByteCount::mib(16),
            progress_interval: Duration::ZERO,
            ..ReceiveOptions::default()
        };
        let mut progress = |stats: &ReceiveStats| {
            if left.is_none() && stats.position.0 > 60 << 20 && stats.position.0 < 150 << 20 {
                std::fs::copy(&first.path, &second.path).unwrap();
                std::fs::copy(&first.journal, &second.journal).unwrap();
                left = Some(stats.position);
            }
        };
        receive_disk(&mut supply, &first, &options, &mut progress, &Cancel::default()).unwrap();
        let left = left.expect("the copy was seen under way");
        let stats = receive(&controller, &second, data);
        assert_same(&first.path, &second.path);
        assert_eq!(stats.done, ByteCount::mib(160));
        let expected = ByteCount(160 << 20).0 - left.0;
        assert!(stats.sent.0 < expected + (64 << 20), "{stats:?} after {left}");
    }
}

#[test]
fn the_wrong_controller_is_told_plainly() {
    let place = Place::new(1);
    let controller = Controller::start();
    let other = Controller::start();
    let mut agent = Agent::start(controller.address(), Some(other.authority()), &place.state(), &[&place.disk]);
    let shown = agent.wait_for_status("not signed by the CA");
    assert!(shown.contains(r#""status":"connecting""#), "{shown}");
}

#[test]
fn a_token_is_good_once_and_for_its_agent_only() {
    use protocol::message::{OpenStream, Opening, StreamToken};
    use protocol::tls::{AgentTls, Identity, Trust};
    let place = Place::new(1);
    let controller = Controller::start();
    let _agent = place.agent(controller.address(), &controller);
    controller.approve();
    // The agent's own key, and a stranger's, with tokens that were not given.
    for identity in [Identity::load_or_create_agent(&place.state()).unwrap(), Identity::create_agent().unwrap()] {
        let tls = AgentTls::new(&identity, Trust::Authority(controller.authority())).unwrap();
        let socket = std::net::TcpStream::connect(controller.address()).unwrap();
        let link = protocol::Connection::connect(socket, &tls).unwrap();
        let open = Opening::OpenStream(OpenStream { token: StreamToken::random().unwrap() });
        let error = link.open(&open).unwrap_err();
        assert_eq!(error.kind, protocol::ErrorKind::Refused, "{error}");
    }
    assert_eq!(controller.refused_streams(), 2);
}

#[test]
fn a_disk_that_shrank_or_is_another_is_refused_with_a_reason() {
    let place = Place::new(2);
    let controller = Controller::start();
    let _agent = place.agent(controller.address(), &controller);
    controller.approve();
    let file = std::fs::File::options().write(true).open(&place.disk).unwrap();
    file.set_len(1 << 20).unwrap();
    let replica = place.replica("raw", Format::Raw);
    let replica =
        Replica { identity: ImageIdentity { size: ByteCount::mib(2), ..replica.identity.clone() }, ..replica };
    let mut supply = controller.supply(0, data, Cancel::default());
    let error = receive_disk(&mut supply, &replica, &ReceiveOptions::default(), &mut |_| {}, &Cancel::default());
    let error = error.unwrap_err();
    assert_eq!(error.kind, conversion::ErrorKind::Source, "{error:?}");
}
