//! Reads and writes in flight: io_uring where the kernel has it, a few threads with positioned I/O where not.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use machine::ByteOffset;

use crate::ring::Ring;
use crate::{Buffer, BufferMut, Error, Result};

/// What moves, and the memory it moves through.
#[derive(Debug)]
pub(crate) enum Transfer {
    /// That many bytes into the buffer.
    Read(BufferMut, usize),
    /// The bytes out of the buffer.
    Write(Buffer),
}

impl Transfer {
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Read(_, length) => *length,
            Self::Write(data) => data.len(),
        }
    }
}

/// A transfer that ended.
pub(crate) struct Done {
    /// The number it was submitted under.
    pub(crate) tag: u64,
    pub(crate) transfer: Transfer,
    /// Bytes moved; a read may end early at the end of a file, a write never.
    pub(crate) result: Result<usize>,
}

/// Does one transfer at once; what worker threads run.
pub(crate) type Perform = dyn Fn(ByteOffset, &mut Transfer) -> Result<usize> + Send + Sync;

/// Transfers in flight on one file or source.
pub(crate) enum Queue {
    Ring(Box<Ring>),
    Workers(Workers),
}

impl Queue {
    /// A queue on `file` by io_uring, or an error where the kernel does not have it.
    pub(crate) fn ring(file: File, depth: usize) -> io::Result<Self> {
        Ring::new(file, depth).map(|ring| Self::Ring(Box::new(ring)))
    }

    /// A queue of threads that call `perform`.
    pub(crate) fn workers(depth: usize, perform: Arc<Perform>) -> Self {
        Self::Workers(Workers::new(depth, perform))
    }

    /// Begins a transfer. No more than the queue's depth may be in flight.
    pub(crate) fn submit(&mut self, tag: u64, offset: ByteOffset, transfer: Transfer) -> Result<()> {
        match self {
            Self::Ring(ring) => {
                ring.submit(tag, offset, transfer).map_err(|e| Error::io("cannot submit to io_uring", e).at(offset))
            }
            Self::Workers(workers) => {
                workers.submit(tag, offset, transfer);
                Ok(())
            }
        }
    }

    /// Waits for a transfer to end; `None` if none is in flight.
    pub(crate) fn complete(&mut self) -> Result<Option<Done>> {
        match self {
            Self::Ring(ring) => ring.complete().map_err(|e| Error::io("cannot wait for io_uring", e)),
            Self::Workers(workers) => Ok(workers.complete()),
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        match self {
            Self::Ring(ring) => ring.in_flight(),
            Self::Workers(workers) => workers.in_flight,
        }
    }
}

/// The same open file for direct I/O, opened anew so that the first descriptor keeps its flags; `None` where the
/// filesystem does not have it.
pub(crate) fn open_direct(file: impl AsFd, write: bool) -> Option<File> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let flags = rustix::fs::OFlags::DIRECT.bits() as i32;
    std::fs::OpenOptions::new().read(!write).write(write).custom_flags(flags).open(path).ok()
}

type Job = (u64, ByteOffset, Transfer);

/// A few threads that take transfers in order. They are made when there is work for them and end with the queue.
pub(crate) struct Workers {
    perform: Arc<Perform>,
    jobs: Option<Sender<Job>>,
    taken: Arc<Mutex<Receiver<Job>>>,
    done: Receiver<Done>,
    finished: Sender<Done>,
    threads: Vec<std::thread::JoinHandle<()>>,
    threads_max: usize,
    in_flight: usize,
}

const THREADS_MAX: usize = 4;

impl Workers {
    fn new(depth: usize, perform: Arc<Perform>) -> Self {
        let (jobs, taken) = channel();
        let (finished, done) = channel();
        Self {
            perform,
            jobs: Some(jobs),
            taken: Arc::new(Mutex::new(taken)),
            done,
            finished,
            threads: Vec::new(),
            threads_max: if depth > 1 { depth.min(THREADS_MAX) } else { 0 },
            in_flight: 0,
        }
    }

    fn submit(&mut self, tag: u64, offset: ByteOffset, mut transfer: Transfer) {
        self.in_flight += 1;
        if self.threads.len() < self.threads_max.min(self.in_flight) {
            self.start_thread();
        }
        match &self.jobs {
            Some(jobs) if !self.threads.is_empty() => {
                jobs.send((tag, offset, transfer)).expect("this queue holds the receiver");
            }
            _ => {
                let result = (self.perform)(offset, &mut transfer);
                self.finished.send(Done { tag, transfer, result }).expect("this queue holds the receiver");
            }
        }
    }

    /// A thread more; without it the work is done by those that are there, or by the caller.
    fn start_thread(&mut self) {
        let (taken, finished, perform) = (Arc::clone(&self.taken), self.finished.clone(), Arc::clone(&self.perform));
        let work = move || {
            loop {
                let job = taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok((tag, offset, mut transfer)) = job else { return };
                let result = perform(offset, &mut transfer);
                if finished.send(Done { tag, transfer, result }).is_err() {
                    return;
                }
            }
        };
        self.threads.extend(std::thread::Builder::new().name("block-io".into()).spawn(work));
    }

    fn complete(&mut self) -> Option<Done> {
        if self.in_flight == 0 {
            return None;
        }
        let done = self.done.recv().expect("this queue holds a sender");
        self.in_flight -= 1;
        Some(done)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A panic in it was reported when it happened.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::Pool;

    /// Writes a file and reads it back, eight at a time.
    fn write_and_read(mut queue: Queue) {
        let pool = Pool::new(8);
        for tag in 0..20u8 {
            if queue.in_flight() == 8 {
                queue.complete().unwrap().unwrap().result.unwrap();
            }
            let mut buffer = pool.take();
            buffer[..4096].fill(tag);
            let write = Transfer::Write(buffer.freeze(4096));
            queue.submit(tag.into(), ByteOffset(u64::from(tag) * 4096), write).unwrap();
        }
        while let Some(done) = queue.complete().unwrap() {
            assert_eq!(done.result.unwrap(), 4096);
        }
        for tag in 0..8u64 {
            queue.submit(tag, ByteOffset(tag * 3 * 4096), Transfer::Read(pool.take(), 4096)).unwrap();
        }
        let mut seen = 0;
        while let Some(done) = queue.complete().unwrap() {
            assert_eq!((done.result.unwrap(), seen & 1 << done.tag), (if done.tag == 7 { 0 } else { 4096 }, 0));
            seen |= 1 << done.tag;
            if let Transfer::Read(buffer, _) = done.transfer {
                assert!(done.tag == 7 || buffer[..4096].iter().all(|&byte| u64::from(byte) == done.tag * 3));
            }
        }
        assert_eq!(seen, 0xff);
    }

    #[test]
    fn a_ring_and_threads_move_the_same_bytes() {
        let file = tempfile::tempfile().unwrap();
        match Queue::ring(file.try_clone().unwrap(), 8) {
            Ok(queue) => write_and_read(queue),
            Err(error) => println!("skipped: no io_uring here: {error}"),
        }
        for depth in [1, 8] {
            file.set_len(0).unwrap();
            let target = file.try_clone().unwrap();
            let perform = move |offset: ByteOffset, transfer: &mut Transfer| match transfer {
                Transfer::Read(buffer, length) => Ok(target.read_at(&mut buffer[..*length], offset.0).unwrap()),
                Transfer::Write(data) => Ok(target.write_at(data, offset.0).unwrap()),
            };
            write_and_read(Queue::workers(depth, Arc::new(perform)));
        }
    }

    #[test]
    fn a_queue_that_is_dropped_waits_for_what_is_in_flight() {
        let file = tempfile::tempfile().unwrap();
        let Ok(mut queue) = Queue::ring(file.try_clone().unwrap(), 8) else { return };
        for tag in 0..8 {
            let write = Transfer::Write(Buffer::copy_of(&[7; 4096]));
            queue.submit(tag, ByteOffset(tag * 4096), write).unwrap();
        }
        drop(queue);
        let mut bytes = [0; 8 * 4096];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes.iter().all(|&byte| byte == 7));
    }
}
