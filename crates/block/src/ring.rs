//! io_uring on one file. The ring owns the memory of a transfer until the kernel is done with it.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, squeue, types};
use machine::ByteOffset;

use crate::queue::{Done, Transfer};

pub(crate) struct Ring {
    ring: IoUring,
    file: File,
    slots: Vec<Option<Slot>>,
    in_flight: usize,
}

struct Slot {
    tag: u64,
    offset: ByteOffset,
    transfer: Transfer,
    /// Bytes moved by earlier, short attempts.
    moved: usize,
}

impl Ring {
    pub(crate) fn new(file: File, depth: usize) -> io::Result<Self> {
        let depth = depth.clamp(1, 128);
        let entries = u32::try_from(depth).expect("clamped").next_power_of_two();
        // Cooperative task running saves an interrupt a completion; kernels before 5.19 refuse the flag.
        let ring = IoUring::builder().setup_coop_taskrun().build(entries).or_else(|_| IoUring::new(entries))?;
        // Plain reads and writes came with 5.6; a ring without them (or without the probe) is of no use here.
        let mut probe = io_uring::Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Read::CODE) || !probe.is_supported(opcode::Write::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Self { ring, file, slots: (0..depth).map(|_| None).collect(), in_flight: 0 })
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) fn submit(&mut self, tag: u64, offset: ByteOffset, transfer: Transfer) -> io::Result<()> {
        let index = self.slots.iter().position(Option::is_none).expect("the caller keeps to the depth");
        self.slots[index] = Some(Slot { tag, offset, transfer, moved: 0 });
        self.in_flight += 1;
        self.start(index)
    }

    /// Hands what is left of a slot's transfer to the kernel.
    fn start(&mut self, index: usize) -> io::Result<()> {
        let slot = self.slots[index].as_mut().expect("a filled slot");
        let fd = types::Fd(self.file.as_raw_fd());
        let offset = slot.offset.0 + slot.moved as u64;
        let entry: squeue::Entry = match &mut slot.transfer {
            Transfer::Read(buffer, length) => {
                let rest = &mut buffer[slot.moved..*length];
                opcode::Read::new(fd, rest.as_mut_ptr(), length_u32(rest)).offset(offset).build()
            }
            Transfer::Write(data) => {
                let rest = &data[slot.moved..];
                opcode::Write::new(fd, rest.as_ptr(), length_u32(rest)).offset(offset).build()
            }
        };
        let entry = entry.user_data(index as u64);
        // SAFETY: the memory belongs to the slot (a `Buffer` is shared and never written, a `BufferMut` has no other
        // owner), does not move with it, and is dropped only after the completion was seen; `drop` waits for all.
        unsafe { self.ring.submission().push(&entry) }.expect("the queue has a place for each slot");
        // Where the kernel is short of memory for the moment, the entry stays queued and `complete` submits it.
        match self.ring.submit() {
            Err(e) if !is_transient(&e) => Err(e),
            _ => Ok(()),
        }
    }

    /// Waits for a transfer to end; short ones are gone on with unless a read has come to the end of the file.
    pub(crate) fn complete(&mut self) -> io::Result<Option<Done>> {
        while self.in_flight > 0 {
            let next = self.ring.completion().next();
            let Some(completion) = next else {
                match self.ring.submit_and_wait(1) {
                    Err(e) if !is_transient(&e) => return Err(e),
                    _ => continue,
                }
            };
            let index = usize::try_from(completion.user_data()).expect("an index of this ring");
            let slot = self.slots[index].as_mut().expect("a completion belongs to a filled slot");
            let result = match completion.result() {
                code if code == -rustix::io::Errno::INTR.raw_os_error()
                    || code == -rustix::io::Errno::AGAIN.raw_os_error() =>
                {
                    self.start(index)?;
                    continue;
                }
                code if code < 0 => Err(crate::Error::io(name(&slot.transfer), io::Error::from_raw_os_error(-code))),
                0 if matches!(slot.transfer, Transfer::Write(_)) && slot.transfer.length() > slot.moved => {
                    Err(crate::Error::io(name(&slot.transfer), io::ErrorKind::WriteZero.into()))
                }
                count => {
                    slot.moved += usize::try_from(count).expect("not negative");
                    // Direct I/O cannot go on from the middle of a sector: that is where a file ends.
                    if count > 0 && slot.moved < slot.transfer.length() && slot.moved.is_multiple_of(512) {
                        self.start(index)?;
                        continue;
                    }
                    Ok(slot.moved)
                }
            };
            let slot = self.slots[index].take().expect("still filled");
            self.in_flight -= 1;
            let result = result.map_err(|e| e.at(slot.offset));
            return Ok(Some(Done { tag: slot.tag, transfer: slot.transfer, result }));
        }
        Ok(None)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            match self.complete() {
                Ok(_) => {}
                Err(_) => {
                    // The kernel may still use the memory: losing it is the only safe way out.
                    std::mem::forget(std::mem::take(&mut self.slots));
                    return;
                }
            }
        }
    }
}

fn name(transfer: &Transfer) -> &'static str {
    match transfer {
        Transfer::Read(..) => "cannot read",
        Transfer::Write(_) => "cannot write the image",
    }
}

fn length_u32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a buffer is at most 1 MiB")
}

/// Interrupted, or out of resources for the moment.
fn is_transient(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::INTR, Errno::AGAIN, Errno::BUSY].iter().any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}
