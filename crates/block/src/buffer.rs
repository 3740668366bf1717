//! Page-aligned buffers of 1 MiB that go from the reader to the writer without being copied.
//!
//! A [`Pool`] keeps what was given back and makes new buffers when it has none, so a consumer that holds on to buffers
//! never blocks the producer; who bounds the work in flight bounds the memory.
#![allow(unsafe_code)]

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Bytes in one buffer, and the largest read or write that the engine makes.
pub const BUFFER_SIZE: usize = 1 << 20;

/// The alignment of a buffer in memory, enough for direct I/O on every sector size up to 4096.
pub const BUFFER_ALIGNMENT: usize = 4096;

#[repr(C, align(4096))]
#[derive(Clone, Copy)]
struct Page([u8; BUFFER_ALIGNMENT]);

type Pages = Box<[Page]>;

struct Shelf {
    free: Mutex<Vec<Pages>>,
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
        let recycled = self.shelf.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let pages =
            recycled.unwrap_or_else(|| vec![Page([0; BUFFER_ALIGNMENT]); BUFFER_SIZE / BUFFER_ALIGNMENT].into());
        BufferMut { slab: Slab { pages, shelf: Arc::downgrade(&self.shelf) } }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("keep", &self.shelf.keep).finish_non_exhaustive()
    }
}

/// The memory of one buffer; goes back to its pool when the last holder lets go.
struct Slab {
    pages: Pages,
    shelf: Weak<Shelf>,
}

impl Slab {
    fn bytes(&self) -> &[u8] {
        // SAFETY: `Page` is `repr(C)` around bytes without padding, so the pages are that many initialised bytes.
        unsafe { std::slice::from_raw_parts(self.pages.as_ptr().cast(), size_of_val(&*self.pages)) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes this the only view of them.
        unsafe { std::slice::from_raw_parts_mut(self.pages.as_mut_ptr().cast(), size_of_val(&*self.pages)) }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        if let Some(shelf) = self.shelf.upgrade() {
            let mut free = shelf.free.lock().unwrap_or_else(PoisonError::into_inner);
            if free.len() < shelf.keep {
                free.push(std::mem::take(&mut self.pages));
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
        let mut slab = Slab { pages, shelf: Weak::new() };
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
        let pool = Pool::new(4);
        let mut filled = pool.take();
        filled[..3].copy_from_slice(b"abc");
        let address = filled.as_ptr();
        assert!(address.addr().is_multiple_of(BUFFER_ALIGNMENT));
        let whole = filled.freeze(3);
        let tail = whole.slice(1..3);
        assert_eq!(&*tail.slice(1..2), b"c");
        assert_eq!(tail.as_ptr(), address.wrapping_add(1));
        drop(whole);
        assert!(pool.shelf.free.lock().unwrap().is_empty());
        drop(tail);
        assert_eq!(pool.take().as_ptr(), address);
    }

    #[test]
    fn a_pool_keeps_no_more_than_it_was_told() {
        let pool = Pool::new(2);
        drop((0..5).map(|_| pool.take()).collect::<Vec<_>>());
        assert_eq!(pool.shelf.free.lock().unwrap().len(), 2);
    }
}
