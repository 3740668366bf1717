//! Page-aligned buffers of 1 MiB that go from the reader to the writer without being copied.
//!
//! A [`Pool`] keeps what was given back and makes new buffers when it has none, so a consumer that holds on to buffers
//! never blocks the producer; who bounds the work in flight bounds the memory.
#![allow(unsafe_code)]

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// Bytes in one buffer, and the largest read or write that the engine makes.
pub const BUFFER_SIZE: usize = 1 << 20;

/// The alignment of a buffer in memory, enough for direct I/O on every sector size up to 4096.
pub const BUFFER_ALIGNMENT: usize = 4096;

/// Buffers in one huge page. Direct I/O looks up each page of a buffer: in a huge page that is one look, which halves
/// the cost of a transfer.
const BUFFERS_PER_ARENA: usize = 2;
const ARENA_SIZE: usize = BUFFERS_PER_ARENA * BUFFER_SIZE;

struct Shelf {
    free: Mutex<Vec<Part>>,
    keep: usize,
}

/// A stock of [`BUFFER_SIZE`] buffers; clones share it.
#[derive(Clone)]
pub struct Pool {
    shelf: Arc<Shelf>,
}

impl Pool {
    /// A pool that keeps at most `keep` unused buffers for later.
    pub fn new(keep: usize) -> Self {
        Self { shelf: Arc::new(Shelf { free: Mutex::new(Vec::new()), keep }) }
    }

    /// A buffer of [`BUFFER_SIZE`] bytes with any (initialised) content.
    pub fn take(&self) -> BufferMut {
        let mut free = self.shelf.free.lock().unwrap_or_else(PoisonError::into_inner);
        let part = free.pop().unwrap_or_else(|| {
            let mut parts = Arena::parts();
            let part = parts.next().expect("an arena has parts");
            free.extend(parts);
            part
        });
        drop(free);
        BufferMut { slab: Slab { memory: Memory::Part(Some(part)), shelf: Arc::downgrade(&self.shelf) } }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("keep", &self.shelf.keep).finish_non_exhaustive()
    }
}

/// A huge page (where the kernel has one to give) that some buffers share.
struct Arena {
    mapping: NonNull<u8>,
    length: usize,
    start: NonNull<u8>,
}

// SAFETY: the arena itself only maps and unmaps; its memory is reached through `Part`s, which do not overlap.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// A new arena, cut into buffers.
    fn parts() -> impl Iterator<Item = Part> {
        let length = 2 * ARENA_SIZE;
        // SAFETY: a fresh private mapping at an address of the kernel's choice touches nothing else.
        let mapping = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        };
        // As with every allocation: no memory, no way to go on.
        let mapping = NonNull::new(mapping.expect("memory for a buffer").cast::<u8>()).expect("a mapping is not null");
        // SAFETY: the mapping is twice as long as an arena, so the aligned start and the arena behind it lie in it.
        let start = unsafe { mapping.add(mapping.align_offset(ARENA_SIZE)) };
        // SAFETY: only advice, on memory of this mapping. Where it is refused, pages stay small.
        let _ = unsafe { rustix::mm::madvise(start.as_ptr().cast(), ARENA_SIZE, Advice::LinuxHugepage) };
        let arena = Arc::new(Self { mapping, length, start });
        (0..BUFFERS_PER_ARENA).map(move |index| Part { arena: Arc::clone(&arena), index })
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the parts that reach into this mapping keep the arena alive; there are none any more.
        let _ = unsafe { rustix::mm::munmap(self.mapping.as_ptr().cast(), self.length) };
    }
}

/// One buffer of an arena. No two parts of one arena have the same index.
struct Part {
    arena: Arc<Arena>,
    index: usize,
}

impl Part {
    fn start(&self) -> NonNull<u8> {
        // SAFETY: the index is below `BUFFERS_PER_ARENA`, so the result lies in the arena.
        unsafe { self.arena.start.add(self.index * BUFFER_SIZE) }
    }
}

/// Memory of its own, a page at a time.
#[repr(C, align(4096))]
#[derive(Clone, Copy)]
struct Page([u8; BUFFER_ALIGNMENT]);

enum Memory {
    /// Out of a pool; taken out when it goes back.
    Part(Option<Part>),
    Own(Box<[Page]>),
}

/// The memory of one buffer; goes back to its pool when the last holder lets go.
struct Slab {
    memory: Memory,
    shelf: Weak<Shelf>,
}

impl Slab {
    fn view(&self) -> (NonNull<u8>, usize) {
        match &self.memory {
            Memory::Part(Some(part)) => (part.start(), BUFFER_SIZE),
            Memory::Part(None) => (NonNull::dangling(), 0),
            Memory::Own(pages) => (NonNull::from_ref(&**pages).cast(), size_of_val(&**pages)),
        }
    }

    fn bytes(&self) -> &[u8] {
        let (start, length) = self.view();
        // SAFETY: that many initialised bytes (an anonymous mapping begins as zeros; `Page` is plain bytes without
        // padding) which live as long as the slab and are written only through `&mut self`.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), length) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let start = match &mut self.memory {
            Memory::Own(pages) => NonNull::from_mut(&mut **pages).cast(),
            Memory::Part(_) => self.view().0,
        };
        let length = self.view().1;
        // SAFETY: as above, and `&mut self` makes this the only view: a part is in one slab at a time.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), length) }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        if let (Memory::Part(part), Some(shelf)) = (&mut self.memory, self.shelf.upgrade()) {
            let mut free = shelf.free.lock().unwrap_or_else(PoisonError::into_inner);
            if free.len() < shelf.keep {
                free.extend(part.take());
            }
        }
    }
}

/// A buffer with one owner, to be filled.
pub struct BufferMut {
    slab: Slab,
}

impl BufferMut {
    /// The first `length` bytes as a shareable buffer, without copying. `length` is at most [`BUFFER_SIZE`].
    pub fn freeze(self, length: usize) -> Buffer {
        assert!(length <= self.len(), "{length} bytes were put into a buffer of {}", self.len());
        Buffer { slab: Arc::new(self.slab), range: 0..length }
    }
}

impl Deref for BufferMut {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.slab.bytes()
    }
}

impl DerefMut for BufferMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.slab.bytes_mut()
    }
}

impl fmt::Debug for BufferMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferMut").field("length", &self.len()).finish_non_exhaustive()
    }
}

/// Bytes of a filled buffer; clones and slices share its memory.
#[derive(Clone)]
pub struct Buffer {
    slab: Arc<Slab>,
    range: Range<usize>,
}

impl Buffer {
    /// A buffer of its own that holds a copy of `bytes`, for small things and tests.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let pages = vec![Page([0; BUFFER_ALIGNMENT]); bytes.len().div_ceil(BUFFER_ALIGNMENT)].into();
        let mut slab = Slab { memory: Memory::Own(pages), shelf: Weak::new() };
        slab.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        Self { slab: Arc::new(slab), range: 0..bytes.len() }
    }

    /// A part of this buffer, sharing its memory. `range` is within it.
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.range.len(), "slice {range:?} of {} bytes", self.len());
        Self { slab: Arc::clone(&self.slab), range: self.range.start + range.start..self.range.start + range.end }
    }

    /// Whether it begins at a multiple of [`BUFFER_ALIGNMENT`] in memory, as direct I/O wants.
    pub(crate) fn is_aligned(&self) -> bool {
        self.range.start.is_multiple_of(BUFFER_ALIGNMENT)
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.slab.bytes()[self.range.clone()]
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("length", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_share_memory_and_a_buffer_returns_to_its_pool_after_the_last_of_them() {
        let pool = Pool::new(1);
        let mut filled = pool.take();
        filled[..3].copy_from_slice(b"abc");
        let address = filled.as_ptr();
        assert!(address.addr().is_multiple_of(BUFFER_ALIGNMENT));
        let whole = filled.freeze(3);
        let tail = whole.slice(1..3);
        assert_eq!(&*tail.slice(1..2), b"c");
        assert_eq!(tail.as_ptr(), address.wrapping_add(1));
        let other = pool.take(); // the other half of the arena
        assert_ne!(other.as_ptr(), address);
        drop(whole);
        assert!(pool.shelf.free.lock().unwrap().is_empty());
        drop(tail);
        assert_eq!(pool.take().as_ptr(), address);
        drop(pool);
        assert_eq!((other.len(), other[BUFFER_SIZE - 1]), (BUFFER_SIZE, 0));
    }

    #[test]
    fn a_pool_keeps_no_more_than_it_was_told_and_buffers_never_overlap() {
        let pool = Pool::new(2);
        let mut taken: Vec<_> = (0..7).map(|_| pool.take()).collect();
        for (fill, buffer) in (1..).zip(&mut taken) {
            buffer.fill(fill);
        }
        for (fill, buffer) in (1..).zip(&taken) {
            assert!(buffer.iter().all(|&byte| byte == fill));
        }
        drop(taken);
        assert_eq!(pool.shelf.free.lock().unwrap().len(), 2);
        let own = Buffer::copy_of(&[5; 5000]);
        assert!(own.is_aligned() && *own == [5; 5000]);
    }
}
