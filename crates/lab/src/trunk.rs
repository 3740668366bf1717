//! A switch's port on which a LAN is one VLAN (IEEE 802.1Q), made of a thread for each direction: kernels as small as this
//! lab's have no VLANs of their own.
//!
//! QEMU sends and takes frames as datagrams on Unix sockets; the LAN's side is a tap interface. Frames from the machine lose
//! the VLAN's tag, and those without it go nowhere; frames to the machine get it.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{Error, Result};

// linux/if_tun.h
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const IFF_TAP: i16 = 2;
const IFF_NO_PI: i16 = 0x1000;

/// Longest frame in bytes, with some room.
const FRAME_BYTES_MAX: usize = 16 << 10;
/// Where the tag stands in a frame: behind both MAC addresses.
const TAG_AT: usize = 12;
/// Type of a tagged frame.
const TPID: [u8; 2] = [0x81, 0x00];
/// How often the threads look whether they are still wanted.
const LOOK: Duration = Duration::from_millis(200);

/// `struct ifreq` with its flags.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// The port; dropping it ends its threads.
#[derive(Debug)]
pub struct TrunkPort {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// The sockets of a machine's NIC: QEMU's and ours.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) machine: PathBuf,
    pub(crate) port: PathBuf,
}

impl TrunkPort {
    /// Joins a NIC and a tap interface of this thread's network namespace, which is there already.
    pub(crate) fn start(sockets: &Sockets, tap: &str, vlan: u16) -> Result<Self> {
        let (to_lan, from_lan) = open_tap(tap)?;
        let socket = UnixDatagram::bind(&sockets.port).map_err(|e| Error::file(&sockets.port, e))?;
        socket.set_read_timeout(Some(LOOK)).map_err(|e| Error::io("setting a time-out", e))?;
        let answering = socket.try_clone().map_err(|e| Error::io("sharing a socket", e))?;
        let ended = Arc::new(AtomicBool::new(false));
        let (machine, first, second) = (sockets.machine.clone(), Arc::clone(&ended), Arc::clone(&ended));
        let threads = vec![
            std::thread::spawn(move || pass_to_lan(&socket, to_lan, vlan, &first)),
            std::thread::spawn(move || pass_to_machine(from_lan, &answering, &machine, vlan, &second)),
        ];
        Ok(Self { ended, threads })
    }
}

impl Drop for TrunkPort {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// An existing tap interface, to write to and to read from.
fn open_tap(name: &str) -> Result<(File, File)> {
    let path = Path::new("/dev/net/tun");
    let tap = OpenOptions::new().read(true).write(true).open(path).map_err(|e| Error::file(path, e))?;
    let mut request = InterfaceRequest { name: [0; 16], flags: IFF_TAP | IFF_NO_PI, rest: [0; 22] };
    let short = name.as_bytes().get(..name.len().min(15)).unwrap_or_default();
    request.name[..short.len()].copy_from_slice(short);
    // SAFETY: `request` has the layout of the kernel's structure and lives through the call.
    if unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETIFF, &raw const request) } != 0 {
        return Err(Error::io(format!("opening {name}"), std::io::Error::last_os_error()));
    }
    let other = tap.try_clone().map_err(|e| Error::io(format!("opening {name}"), e))?;
    Ok((tap, other))
}

fn pass_to_lan(socket: &UnixDatagram, mut tap: File, vlan: u16, ended: &AtomicBool) {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    while !ended.load(Ordering::Relaxed) {
        // A time-out, or nobody there.
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        if let Some(frame) = without_tag(&buffer[..length], vlan) {
            let _ = tap.write_all(&frame);
        }
    }
}

fn pass_to_machine(mut tap: File, socket: &UnixDatagram, machine: &Path, vlan: u16, ended: &AtomicBool) {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let patience = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK.subsec_nanos()) };
    while !ended.load(Ordering::Relaxed) {
        let is_there = {
            let mut waiting = [PollFd::from_borrowed_fd(tap.as_fd(), PollFlags::IN)];
            poll(&mut waiting, Some(&patience)).is_ok_and(|ready| ready > 0)
        };
        if !is_there {
            continue;
        }
        let Ok(length) = tap.read(&mut buffer) else { return };
        if let Some(frame) = with_tag(&buffer[..length], vlan) {
            // A machine that is off takes nothing.
            let _ = socket.send_to(&frame, machine);
        }
    }
}

/// A frame of the VLAN without its tag.
fn without_tag(frame: &[u8], vlan: u16) -> Option<Vec<u8>> {
    let (addresses, tagged) = frame.split_at_checked(TAG_AT)?;
    let (tag, rest) = tagged.split_at_checked(4)?;
    // The upper bits are priority and drop eligibility.
    let id = u16::from_be_bytes([tag[2], tag[3]]) & 0x0fff;
    (tag[..2] == TPID && id == vlan).then(|| [addresses, rest].concat())
}

/// A frame with the VLAN's tag.
fn with_tag(frame: &[u8], vlan: u16) -> Option<Vec<u8>> {
    let (addresses, rest) = frame.split_at_checked(TAG_AT)?;
    Some([addresses, &TPID, &vlan.to_be_bytes(), rest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_and_go_and_foreign_frames_stay_out() {
        let frame = b"aaaaaabbbbbb\x08\x00content";
        let tagged = with_tag(frame, 77).unwrap();
        assert_eq!(tagged, b"aaaaaabbbbbb\x81\x00\x00\x4d\x08\x00content");
        assert_eq!(without_tag(&tagged, 77).unwrap(), frame);
        assert_eq!((without_tag(&tagged, 78), without_tag(frame, 77), without_tag(b"short", 77)), (None, None, None));
        let urgent = b"aaaaaabbbbbb\x81\x00\xe0\x4d\x08\x00";
        assert_eq!(without_tag(urgent, 77).unwrap(), b"aaaaaabbbbbb\x08\x00");
    }
}
