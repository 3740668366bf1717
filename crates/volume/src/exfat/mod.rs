//! exFAT (Microsoft's exFAT file system specification, revision 1.00): boot sector, allocation map, label.

mod boot;
mod map;

pub(crate) use boot::Boot;
pub(crate) use map::ExfatMap;
