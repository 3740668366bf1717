//! Disk image formats, a module each.

pub(crate) mod qcow2;
pub(crate) mod raw;
