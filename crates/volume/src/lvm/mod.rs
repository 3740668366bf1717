//! LVM2: physical volumes, the text metadata of their volume groups, logical volumes made of linear segments. Formats
//! as the lvm2 sources document them (`lib/format_text/layout.h`, `lib/label/label.h`).

mod group;
mod label;
mod text;

pub(crate) use group::{VolumeGroup, parse_group};
pub(crate) use label::{AreaText, PhysicalVolume};
