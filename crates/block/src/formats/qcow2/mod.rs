//! QEMU's qcow2, read in full and written uncompressed in one sequential append.
//!
//! Specification: QEMU `docs/interop/qcow2.txt` (versions 2 and 3, extended L2 entries, compression types).

mod layout;
mod writer;

pub(crate) use writer::Qcow2Writer;

/// `QFI\xfb`, the first bytes of an image.
pub(crate) const MAGIC: [u8; 4] = *b"QFI\xfb";
