//! QEMU's qcow2, read in full and written uncompressed in one sequential append.
//!
//! Specification: QEMU `docs/interop/qcow2.txt` (versions 2 and 3, extended L2 entries, compression types). Refused:
//! encryption, external data files, images marked corrupt, incompatible features that the specification did not know.

mod cluster;
mod header;
mod layout;
mod reader;
mod writer;

pub(crate) use header::BackingName;
pub(crate) use reader::Qcow2Source;
pub(crate) use writer::Qcow2Writer;

/// `QFI\xfb`, the first bytes of an image.
pub(crate) const MAGIC: [u8; 4] = *b"QFI\xfb";
