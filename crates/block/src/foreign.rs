//! Formats that are known and not read: taking one for a raw disk would copy its container instead of its content.
#![forbid(unsafe_code)]

use std::fmt;

use machine::ByteOffset;

use crate::{BlockSource, Result};

/// A format that is recognised to be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    Vmdk,
    VmdkDescriptor,
    DynamicVhd,
    FixedVhd,
    Vhdx,
    Vdi,
    Qed,
    Parallels,
    Ewf,
    Compressed(&'static str),
}

impl Foreign {
    /// What the operator can do.
    pub(crate) fn advice(self) -> String {
        let convert = |format: &str| format!("convert it by `qemu-img convert -f {format} -O qcow2` first");
        match self {
            Self::Vmdk | Self::VmdkDescriptor => convert("vmdk"),
            Self::DynamicVhd | Self::FixedVhd => convert("vpc"),
            Self::Vhdx => convert("vhdx"),
            Self::Vdi => convert("vdi"),
            Self::Qed => convert("qed"),
            Self::Parallels => convert("parallels"),
            Self::Ewf => "export it as a raw image by `ewfexport` first".to_owned(),
            Self::Compressed(program) => format!("unpack it by `{program} -d` first"),
        }
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vmdk => "a VMDK image",
            Self::VmdkDescriptor => "the descriptor of a VMDK image",
            Self::DynamicVhd => "a VHD image",
            Self::FixedVhd => "a fixed VHD image (a disk with a VHD footer behind it)",
            Self::Vhdx => "a VHDX image",
            Self::Vdi => "a VDI image",
            Self::Qed => "a QED image",
            Self::Parallels => "a Parallels image",
            Self::Ewf => "an EWF (EnCase) image",
            Self::Compressed(program) => return write!(f, "a file compressed by {program}"),
        })
    }
}

/// Signatures at the start of a file.
const AT_START: [(&[u8], Foreign); 13] = [
    (b"KDMV", Foreign::Vmdk),
    (b"COWD", Foreign::Vmdk),
    (b"# Disk DescriptorFile", Foreign::VmdkDescriptor),
    (b"vhdxfile", Foreign::Vhdx),
    (b"conectix", Foreign::DynamicVhd),
    (b"QED\0", Foreign::Qed),
    (b"WithoutFreeSpace", Foreign::Parallels),
    (b"WithouFreSpacExt", Foreign::Parallels),
    (b"EVF\x09\x0d\x0a\xff\x00", Foreign::Ewf),
    (b"EVF2\x0d\x0a\x81\x00", Foreign::Ewf),
    (b"\x1f\x8b\x08", Foreign::Compressed("gzip")),
    (b"\x28\xb5\x2f\xfd", Foreign::Compressed("zstd")),
    (b"\xfd7zXZ\0", Foreign::Compressed("xz")),
];

/// VDI has its signature behind a line of text.
const VDI_SIGNATURE: (u64, [u8; 4]) = (0x40, 0xbeda_107f_u32.to_le_bytes());

/// The size of a VHD footer (Microsoft, "Virtual Hard Disk Image Format Specification", section "Hard Disk Footer");
/// images of Virtual PC before 2004 end one byte earlier.
const VHD_FOOTER_SIZES: [usize; 2] = [512, 511];

/// The foreign format of `file`, if it is one.
pub(crate) fn detect_foreign(file: &dyn BlockSource) -> Result<Option<Foreign>> {
    for (signature, format) in AT_START {
        if starts_with(file, signature)? {
            return Ok(Some(format));
        }
    }
    if holds(file, VDI_SIGNATURE.0, &VDI_SIGNATURE.1)? {
        return Ok(Some(Foreign::Vdi));
    }
    for size in VHD_FOOTER_SIZES {
        let Some(at) = file.size().0.checked_sub(size as u64) else { continue };
        let mut footer = [0; 512];
        file.read_at(ByteOffset(at), &mut footer[..size])?;
        if is_vhd_footer(&footer) {
            return Ok(Some(Foreign::FixedVhd));
        }
    }
    Ok(None)
}

/// Whether `file` begins with `signature`.
pub(crate) fn starts_with(file: &dyn BlockSource, signature: &[u8]) -> Result<bool> {
    holds(file, 0, signature)
}

fn holds(file: &dyn BlockSource, at: u64, signature: &[u8]) -> Result<bool> {
    let mut found = [0; 32];
    let found = &mut found[..signature.len()];
    if file.size().0 < at + signature.len() as u64 {
        return Ok(false);
    }
    file.read_at(ByteOffset(at), found)?;
    Ok(found == signature)
}

/// The cookie and the checksum: the ones' complement of the sum of all bytes but its own.
fn is_vhd_footer(footer: &[u8; 512]) -> bool {
    let sum: u32 = footer.iter().enumerate().filter(|(at, _)| !(64..68).contains(at)).map(|(_, &b)| u32::from(b)).sum();
    let stored = u32::from_be_bytes([footer[64], footer[65], footer[66], footer[67]]);
    footer.starts_with(b"conectix") && stored == !sum
}
