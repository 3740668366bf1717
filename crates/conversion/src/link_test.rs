//! How fast the content of a machine's disks comes over its link: samples of one disk are sent as a copy would send them,
//! and thrown away.

use std::time::{Duration, Instant};

use machine::{ByteCount, ByteOffset, Disk};
use protocol::frame::{HEADER_BYTES, Header, Kind};
use protocol::message::Scope;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::receive::{Contents, Failure, read_error, source_failed};
use crate::{Cancel, DataStream, Error, ErrorKind, RemoteMachine, Result, StreamMode, StreamRequest};

/// Time for which content is received.
const TIME_MAX: Duration = Duration::from_secs(4);
/// Content that is enough.
const BYTES_MAX: ByteCount = ByteCount::mib(512);
/// Content that is too little to tell a rate of a disk whose samples held hardly any.
const BYTES_MIN: ByteCount = ByteCount::mib(8);
/// Samples, each of this length at most.
const SAMPLES: u64 = 64;
const SAMPLE_BYTES: ByteCount = ByteCount::mib(16);
/// Samples begin at multiples of this.
const ALIGNMENT: u64 = 1 << 20;

/// What a test measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LinkTest {
    /// Content of the disk that was read, compressed, sent and unpacked.
    pub bytes: ByteCount,
    /// Bytes that came over the link for it.
    pub sent: ByteCount,
    /// From the first content to the last.
    pub milliseconds: u64,
}

impl LinkTest {
    /// Content a second, in bytes, where no more than `limit` bytes a second may come over the link.
    pub fn rate(&self, limit: Option<u64>) -> u64 {
        let scale = |number: u64, times: u64, parts: u64| {
            let scaled = u128::from(number) * u128::from(times) / u128::from(parts.max(1));
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        let rate = scale(self.bytes.0, 1000, self.milliseconds);
        limit.map_or(rate, |limit| rate.min(scale(limit, self.bytes.0, self.sent.0))).max(1)
    }
}

/// Measures. Nothing is kept of what comes, and nothing is written on either side.
///
/// # Errors
/// [`ErrorKind::Refused`] for a machine without disks, [`ErrorKind::Source`] where its disk or link fails,
/// [`ErrorKind::Cancelled`].
pub fn test_link(machine: &dyn RemoteMachine, cancel: &Cancel) -> Result<LinkTest> {
    let disks = machine.machine().disks;
    let fullest = disks.iter().enumerate().max_by_key(|(index, disk)| (used(disk), std::cmp::Reverse(*index)));
    let Some((index, disk)) = fullest else {
        return Err(Error::new(ErrorKind::Refused, "the machine reported no disk"));
    };
    let mode = StreamMode::Data { skip_unreadable: true };
    let whole = StreamRequest::whole(index, mode, ByteOffset(0));
    let scope = Scope { within: samples(disk), ..Scope::default() };
    let sampled = measure(machine.open_stream(&StreamRequest { scope, ..whole.clone() }, cancel)?, cancel)?;
    if sampled.bytes >= BYTES_MIN {
        return Ok(sampled);
    }
    let all = measure(machine.open_stream(&whole, cancel)?, cancel)?;
    match all.bytes.max(sampled.bytes) {
        ByteCount::ZERO => Err(Error::new(ErrorKind::Source, format!("{}: nothing on it is in use", disk.path))),
        _ if all.bytes > sampled.bytes => Ok(all),
        _ => Ok(sampled),
    }
}

fn used(disk: &Disk) -> ByteCount {
    disk.layout.volumes.iter().map(|volume| volume.used_bytes).sum()
}

/// Places all over the volumes of a disk, more of them where more is used; ascending.
fn samples(disk: &Disk) -> Vec<(ByteOffset, ByteCount)> {
    let total = used(disk).0.max(1);
    let mut all = Vec::new();
    for volume in disk.layout.volumes.iter().filter(|volume| !volume.used_bytes.is_zero()) {
        let share = u128::from(volume.used_bytes.0) * u128::from(SAMPLES) / u128::from(total);
        let count = u64::try_from(share).unwrap_or(SAMPLES).clamp(1, SAMPLES);
        let pitch = volume.size.0 / count;
        for number in 0..count {
            let start = volume.offset.0.saturating_add(number * pitch).next_multiple_of(ALIGNMENT);
            let end = volume.offset.0.saturating_add((number + 1) * pitch).min(start.saturating_add(SAMPLE_BYTES.0));
            if start < end {
                all.push((ByteOffset(start), ByteCount(end - start)));
            }
        }
    }
    all.sort_unstable_by_key(|(start, _)| *start);
    // Volumes of a table that lies may overlap.
    let mut reached = 0;
    all.retain(|(start, length)| {
        let is_behind = start.0 >= reached;
        reached = if is_behind { start.0.saturating_add(length.0) } else { reached };
        is_behind
    });
    all.truncate(protocol::message::WITHIN_MAX);
    all
}

fn measure(mut stream: Box<dyn DataStream>, cancel: &Cancel) -> Result<LinkTest> {
    let mut contents = Contents::new()?;
    let mut test = LinkTest::default();
    // Before the first content the agent looks what is in use: that is no part of the rate.
    let mut begun: Option<Instant> = None;
    let failed = |failure| match failure {
        Failure::Stop(error) => error,
        Failure::Again(error) => Error::because(ErrorKind::Source, "the stream was cut", error),
    };
    loop {
        cancel.check()?;
        let header = Header::read_from(&mut stream).map_err(|e| failed(e.into()))?;
        let start = match header.kind {
            Kind::Idle => continue,
            Kind::End => return Ok(test),
            _ => *begun.get_or_insert_with(Instant::now),
        };
        match header.kind {
            Kind::Data(codec) => {
                contents.read(&mut stream, &header, codec).map_err(failed)?;
                test.bytes += header.length;
            }
            Kind::Zero | Kind::Unreadable => test.bytes += header.length,
            Kind::Error => {
                let error = read_error(&mut stream, &header).map_err(failed)?;
                return Err(source_failed(header.offset, &error));
            }
            Kind::Hash | Kind::End | Kind::Idle => {
                return Err(failed(protocol::Error::malformed("a hash in a stream of data").into()));
            }
        }
        test.sent += ByteCount(HEADER_BYTES as u64 + u64::from(header.payload_bytes));
        test.milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        if start.elapsed() >= TIME_MAX || test.bytes >= BYTES_MAX {
            return Ok(test);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read, Write};

    use machine::{DiskIdentity, DiskLayout, Machine, SectorSize, Volume};
    use protocol::frame::Codec;

    use super::*;
    use crate::Visit;

    struct Sent(Cursor<Vec<u8>>);

    impl Read for Sent {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Sent {
        fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
            Ok(buffer.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// An agent that sends frames of 1 MiB: `data` of content and `zeros`; all of the disk where no samples are asked for.
    struct Agent {
        disk: Disk,
        data: u64,
        zeros: u64,
        samples_hold_nothing: bool,
    }

    impl RemoteMachine for Agent {
        fn machine(&self) -> Machine {
            Machine { disks: vec![self.disk.clone()], ..Machine::default() }
        }

        fn visit(&self, _: Option<&Visit>, _: &Cancel) -> Result<Option<Visit>> {
            Ok(None)
        }

        fn open_stream(&self, request: &StreamRequest, _: &Cancel) -> Result<Box<dyn DataStream>> {
            let is_empty = self.samples_hold_nothing && !request.scope.within.is_empty();
            let (data, zeros) = if is_empty { (0, 0) } else { (self.data, self.zeros) };
            let content = vec![7; 1 << 20];
            let mut bytes = Vec::new();
            for number in 0..data + zeros {
                let offset = ByteOffset(number << 20);
                if number < data {
                    bytes.extend(Header::data(offset, &content, Codec::Stored, content.len()).to_bytes());
                    bytes.extend(&content);
                } else {
                    bytes.extend(Header::bare(Kind::Zero, offset, ByteCount::mib(1)).to_bytes());
                }
            }
            bytes.extend(Header::bare(Kind::End, ByteOffset(1 << 40), ByteCount::mib(data + zeros)).to_bytes());
            Ok(Box::new(Sent(Cursor::new(bytes))))
        }
    }

    fn disk(volumes: &[(u64, u64, u64)]) -> Disk {
        let volume = |&(offset, size, used): &(u64, u64, u64)| Volume {
            offset: ByteOffset(offset << 20),
            size: ByteCount::mib(size),
            used_bytes: ByteCount::mib(used),
            ..Volume::default()
        };
        Disk {
            path: "/dev/sda".into(),
            format: "raw".into(),
            virtual_size: ByteCount::gib(1024),
            logical_sector_size: SectorSize::B512,
            identity: DiskIdentity::default(),
            layout: DiskLayout { volumes: volumes.iter().map(volume).collect(), ..DiskLayout::default() },
        }
    }

    #[test]
    fn samples_lie_in_volumes_ascend_and_are_as_many_as_a_scope_takes() {
        let volumes = [(1, 512, 40), (513, 200_000, 90_000), (300_000, 700_000, 0), (200_600, 90_000, 10_000)];
        let samples = samples(&disk(&volumes));
        println!("{} samples, {:?} to {:?}", samples.len(), samples.first(), samples.last());
        assert!((32..=protocol::message::WITHIN_MAX).contains(&samples.len()));
        assert!(samples.windows(2).all(|pair| pair[0].0.0 + pair[0].1.0 <= pair[1].0.0));
        let within = |start: u64| {
            volumes.iter().any(|(at, size, used)| *used > 0 && (at << 20..(at + size) << 20).contains(&start))
        };
        assert!(samples.iter().all(|(start, length)| within(start.0) && within(start.0 + length.0 - 1)));
        // A table that lies, and none.
        let overlapping = super::samples(&disk(&[(1, 1000, 500), (1, 1000, 500), (u64::MAX >> 21, u64::MAX >> 20, 9)]));
        assert!(overlapping.windows(2).all(|pair| pair[0].0.0 + pair[0].1.0 <= pair[1].0.0));
        assert_eq!(super::samples(&disk(&[])), []);
    }

    #[test]
    fn content_counts_whether_it_is_zeros_or_not_and_a_limit_counts_what_is_sent() {
        let agent = Agent { disk: disk(&[(1, 64, 64)]), data: 16, zeros: 16, samples_hold_nothing: false };
        let test = test_link(&agent, &Cancel::default()).unwrap();
        println!("{test:?}: {} bytes a second", test.rate(None));
        assert_eq!(test.bytes, ByteCount::mib(32));
        assert_eq!(test.sent, ByteCount((16 << 20) + 32 * HEADER_BYTES as u64));
        let rate = LinkTest { bytes: ByteCount(3000), sent: ByteCount(1000), milliseconds: 100 };
        assert_eq!((rate.rate(None), rate.rate(Some(5000)), rate.rate(Some(50_000))), (30_000, 15_000, 30_000));
    }

    #[test]
    fn where_samples_hold_nothing_the_disk_is_read_from_its_beginning() {
        let agent = Agent { disk: disk(&[(1, 64, 64)]), data: 2, zeros: 0, samples_hold_nothing: true };
        assert_eq!(test_link(&agent, &Cancel::default()).unwrap().bytes, ByteCount::mib(2));
        let empty = Agent { data: 0, ..agent };
        let error = test_link(&empty, &Cancel::default()).unwrap_err();
        assert!(error.to_string().contains("nothing on it is in use"), "{error}");
    }
}
