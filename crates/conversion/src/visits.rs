//! The visits of a machine in the boot image in which its disks are copied.
//!
//! In one visit nothing writes the disks. When the machine was away in between (its operator needed it, it was started anew),
//! its own system may have written any of them: what is here of all of them is compared before the rest is copied, so that
//! they are of one moment.

use crate::copy::{Meter, RemoteCopy};
use crate::pipeline::{Origin, Pipeline};
use crate::{ErrorKind, Event, Result, Step, Visit};

impl Pipeline<'_> {
    /// Copies what is not copied, until all disks are as they were in one visit.
    pub(crate) fn copy_in_visits(&mut self) -> Result<()> {
        loop {
            if let Origin::Remote(remote) = &self.origin {
                let visit = remote.visit(self.record.visit.as_ref(), self.cancel)?;
                self.arrive(visit)?;
            }
            match self.copy_rest() {
                Err(error) if error.kind == ErrorKind::SourceChanged => {
                    self.observer.event(Event::Log { message: error.to_string() });
                }
                copied => return copied,
            }
        }
    }

    /// Disks that were copied in two visits make no machine: what is there of them is compared first.
    fn arrive(&mut self, visit: Option<Visit>) -> Result<()> {
        if visit.is_none() || visit == self.record.visit {
            return Ok(());
        }
        let places = 0..self.record.selected.len();
        self.record.to_compare = places.map(|place| self.replica(place).journal.exists()).collect();
        if self.record.to_compare.contains(&true) {
            let message = "the machine was in its own system since: what is here of its disks is compared with them, and only what differs is sent";
            self.observer.event(Event::Log { message: message.into() });
        }
        self.record.copied.fill(None);
        self.record.visit = visit;
        self.store()
    }

    fn copy_rest(&mut self) -> Result<()> {
        for place in 0..self.record.selected.len() {
            if self.record.copied[place].is_some() {
                continue;
            }
            if self.record.to_compare.get(place) == Some(&true) {
                self.reconcile(place)?;
                self.record.to_compare[place] = false;
                self.store()?;
            }
            let disk = self.copy_disk(place)?;
            self.record.copied[place] = Some(disk);
            self.store()?;
        }
        Ok(())
    }

    fn reconcile(&self, place: usize) -> Result<()> {
        let Origin::Remote(machine) = &self.origin else { return Ok(()) };
        let (taken, visit) = (&self.selection.disks[place], self.record.visit.as_ref());
        let disk = &self.record.machine.disks[taken.index];
        let copy = RemoteCopy { place, taken, machine: machine.as_ref(), visit };
        let mut meter = Meter::new(Step::Copy, self.observer, self.cancel);
        let skip = self.record.request.skip_unreadable;
        let replaced = copy.reconcile(&self.replica(place), skip, &mut meter, self.cancel)?;
        let message = format!("{}: {replaced} had changed and were sent again", disk.path);
        self.observer.event(Event::Log { message });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write};
    use std::sync::{Arc, Mutex};

    use block::Extent;
    use machine::{ByteCount, ByteOffset, Disk, DiskIdentity, DiskLayout, Machine, SectorSize};
    use protocol::frame::{CONTENT_BYTES_MAX, Codec, Header, Kind};

    use crate::choices::Selection;
    use crate::pipeline::Record;
    use crate::workdir::Workdir;
    use crate::{Cancel, DataStream, OutputFormat, RemoteMachine, Request, StreamMode, StreamRequest};

    use super::*;

    const SIZE: usize = 8 << 20;

    /// A machine with two disks in the boot image, which is started anew after some streams. A mock: frames are those of the
    /// protocol, the agent's program is in `agent`'s own tests.
    struct Restless(Mutex<State>);

    struct State {
        disks: [Vec<u8>; 2],
        visit: u32,
        /// After so many streams it goes away in the midst of one, and its own system writes both disks.
        streams_left: u32,
        sent: usize,
    }

    struct Canned(io::Cursor<Vec<u8>>);

    impl Read for Canned {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Canned {
        fn write(&mut self, acknowledged: &[u8]) -> io::Result<usize> {
            Ok(acknowledged.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn frames(disk: &[u8], request: &StreamRequest) -> Vec<u8> {
        let part = |&(offset, length): &_| Extent::new(offset, length).unwrap();
        let mut within: Vec<Extent> = request.scope.within.iter().map(part).collect();
        if within.is_empty() {
            within.push(Extent::first(disk.len().into()));
        }
        let (mut bytes, mut covered) = (Vec::new(), ByteCount::ZERO);
        for extent in within {
            let mut at = extent.start().max(request.resume);
            while at < extent.end() {
                let length = (extent.end() - at).to_usize().unwrap().min(CONTENT_BYTES_MAX);
                let from = usize::try_from(at.0).unwrap();
                let content = &disk[from..from + length];
                match request.mode {
                    StreamMode::Data { .. } => {
                        bytes.extend(Header::data(at, content, Codec::Stored, length).to_bytes());
                        bytes.extend(content);
                    }
                    StreamMode::Hashes => {
                        let hash = *blake3::hash(content).as_bytes();
                        bytes.extend(Header::about(Kind::Hash, at, length.into(), &hash).to_bytes());
                        bytes.extend(hash);
                    }
                }
                covered += length.into();
                at += length.into();
            }
        }
        bytes.extend(Header::bare(Kind::End, ByteOffset(disk.len() as u64), covered).to_bytes());
        bytes
    }

    fn visit_of(number: u32) -> Visit {
        Visit(format!("visit {number}"))
    }

    impl RemoteMachine for Restless {
        fn machine(&self) -> Machine {
            let disk = |index: usize| Disk {
                path: format!("/dev/sd{index}"),
                format: "raw".into(),
                virtual_size: SIZE.into(),
                logical_sector_size: SectorSize::B512,
                identity: DiskIdentity { serial: Some(format!("S{index}")), ..DiskIdentity::default() },
                layout: DiskLayout::default(),
            };
            Machine { disks: vec![disk(0), disk(1)], ..Machine::default() }
        }

        fn visit(&self, _: Option<&Visit>, _: &Cancel) -> Result<Option<Visit>> {
            Ok(Some(visit_of(self.0.lock().unwrap().visit)))
        }

        fn open_stream(&self, request: &StreamRequest, _: &Cancel) -> Result<Box<dyn DataStream>> {
            let mut state = self.0.lock().unwrap();
            if request.visit != Some(visit_of(state.visit)) {
                return Err(crate::Error::new(ErrorKind::SourceChanged, "started anew"));
            }
            let mut bytes = frames(&state.disks[request.disk], request);
            if state.streams_left == 0 {
                bytes.truncate(bytes.len() / 2);
                state.visit += 1;
                let visit = state.visit;
                for (number, disk) in state.disks.iter_mut().enumerate() {
                    let at = (usize::try_from(visit).unwrap() * 1_000_003 + number * 70_000) % (SIZE - 100_000);
                    disk[at..at + 90_000].fill(u8::try_from(visit).unwrap());
                }
                state.streams_left = if visit < 4 { 1 } else { u32::MAX };
            } else {
                state.streams_left -= 1;
            }
            state.sent += bytes.len();
            Ok(Box::new(Canned(io::Cursor::new(bytes))))
        }
    }

    #[test]
    fn disks_that_were_copied_in_several_visits_are_of_the_last() {
        for (format, streams_left) in [(OutputFormat::Raw, 0), (OutputFormat::Qcow2, 0), (OutputFormat::Qcow2, 1)] {
            let folder = tempfile::tempdir().unwrap();
            let disks = [3_u8, 7]
                .map(|seed| (0..SIZE).map(|at| seed.wrapping_mul(u8::try_from(at / 256 % 251).unwrap())).collect());
            let machine = Arc::new(Restless(Mutex::new(State { disks, visit: 0, streams_left, sent: 0 })));
            let request = Request { name: "vm".into(), output: folder.path().into(), format, ..Request::default() };
            let (log, cancel) = (Mutex::new(Vec::new()), Cancel::default());
            let observer = |event: Event| {
                if let Event::Log { message } = event {
                    log.lock().unwrap().push(message);
                }
            };
            let windows = crate::WindowsGuests::default();
            let mut pipeline = Pipeline {
                windows: &windows,
                origin: Origin::Remote(Arc::clone(&machine) as Arc<dyn RemoteMachine>),
                workdir: Workdir::open(&request).unwrap(),
                record: Record::new(&request, &machine.machine(), vec![0, 1]),
                selection: Selection::of(&machine.machine(), &request).unwrap(),
                observer: &observer,
                cancel: &cancel,
            };
            pipeline.copy_in_visits().unwrap();
            let log = log.lock().unwrap();
            println!("{format:?}: {}", log.join("\n"));
            assert!(log.iter().any(|line| line.contains("had changed and were sent again")));
            let state = machine.0.lock().unwrap();
            assert_eq!((state.visit, pipeline.record.visit.clone()), (4, Some(visit_of(4))));
            for place in 0..2 {
                let mut bytes = vec![0; SIZE];
                pipeline.replica(place).source().unwrap().read_at(ByteOffset::ZERO, &mut bytes).unwrap();
                assert!(bytes == state.disks[place], "disk {place} is not of the last visit");
            }
            assert!(state.sent < 6 * SIZE, "{} bytes for two disks of {SIZE}", state.sent);
        }
    }
}
