//! What a module says of itself: the strings of its `.modinfo` section, as modinfo(8) shows them.
//!
//! A module is a relocatable ELF-64 object for x86-64 (System V ABI, "Object Files"). Its section `.modinfo` holds
//! `key=value` strings, each with a NUL behind it (Linux, `include/linux/moduleparam.h`, `__MODULE_INFO`).

use std::fmt;

use crate::signature::module_signer;

/// Sections of one object: real modules have some hundreds, with a section for each function some thousands.
const SECTIONS_MAX: usize = 65_535;
/// Strings of one module: drivers with many devices have some thousands of aliases.
const STRINGS_MAX: usize = 100_000;
const SECTION_HEADER: usize = 64;

/// A module's own account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleInfo {
    /// Its name, `-` written as `_`; empty where the module does not say it (kernels before 4.13).
    pub name: String,
    /// Kernel release and options it was built for: `6.1.0-25-amd64 SMP preempt mod_unload modversions`.
    pub vermagic: String,
    /// Files it may ask for, below the firmware folder; a name may hold `*` (brcmfmac).
    pub firmware: Vec<String>,
    /// Names of modules that have to be there before.
    pub depends: Vec<String>,
    /// Soft dependencies as they are written: `pre: a b post: c`.
    pub softdep: Vec<String>,
    /// Patterns of devices and other names that it serves.
    pub aliases: Vec<String>,
    /// What it is, in the words of its author.
    pub description: String,
    /// Who signed it; `None` without a signature.
    pub signer: Option<String>,
}

impl ModuleInfo {
    /// The kernel it was built for, as `uname -r` prints it.
    pub fn release(&self) -> &str {
        self.vermagic.split(' ').next().unwrap_or_default()
    }
}

/// A file that is no kernel module for x86-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InfoError(&'static str);

impl fmt::Display for InfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no kernel module for x86-64: {}", self.0)
    }
}

impl std::error::Error for InfoError {}

/// Reads an uncompressed module.
///
/// # Errors
/// Bytes that are no ELF-64 object for x86-64, or one without `.modinfo`.
pub fn parse_module(bytes: &[u8]) -> Result<ModuleInfo, InfoError> {
    let section = modinfo_section(bytes)?;
    let mut info = ModuleInfo::default();
    for string in section.split(|&byte| byte == 0).filter(|string| !string.is_empty()).take(STRINGS_MAX) {
        let text = String::from_utf8_lossy(string);
        let Some((key, value)) = text.split_once('=') else { continue };
        let value = value.to_owned();
        match key {
            "name" => info.name = value.replace('-', "_"),
            "vermagic" => info.vermagic = value,
            "firmware" => info.firmware.push(value),
            "depends" => info.depends.extend(value.split(',').filter(|name| !name.is_empty()).map(str::to_owned)),
            "softdep" => info.softdep.push(value),
            "alias" => info.aliases.push(value),
            "description" => info.description = value,
            _ => {}
        }
    }
    info.signer = module_signer(bytes);
    Ok(info)
}

fn modinfo_section(bytes: &[u8]) -> Result<&[u8], InfoError> {
    const RELOCATABLE: usize = 1;
    const X86_64: usize = 62;
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return Err(InfoError("it is no 64-bit little-endian ELF file"));
    }
    let cut = InfoError("its ELF headers point behind its end");
    if number(bytes, 0x10, 2) != Some(RELOCATABLE) || number(bytes, 0x12, 2) != Some(X86_64) {
        return Err(InfoError("it is an ELF file of another type or for another processor"));
    }
    let headers = number(bytes, 0x28, 8).ok_or(cut)?;
    let (size, count) = (number(bytes, 0x3a, 2).ok_or(cut)?, number(bytes, 0x3c, 2).ok_or(cut)?);
    let names = number(bytes, 0x3e, 2).ok_or(cut)?;
    if size != SECTION_HEADER || names >= count || count > SECTIONS_MAX {
        return Err(InfoError("its ELF section headers are damaged"));
    }
    let section = |index: usize| -> Option<(usize, &[u8])> {
        let at = headers.checked_add(index.checked_mul(SECTION_HEADER)?)?;
        let (name, offset) = (number(bytes, at, 4)?, number(bytes, at.checked_add(0x18)?, 8)?);
        // A section without content in the file (.bss) may have any size.
        const NO_BITS: usize = 8;
        if number(bytes, at.checked_add(4)?, 4)? == NO_BITS {
            return Some((name, &[]));
        }
        let length = number(bytes, at.checked_add(0x20)?, 8)?;
        Some((name, bytes.get(offset..offset.checked_add(length)?)?))
    };
    let (_, strings) = section(names).ok_or(cut)?;
    for index in 0..count {
        let (name, content) = section(index).ok_or(cut)?;
        if strings.get(name..).is_some_and(|rest| rest.starts_with(b".modinfo\0")) {
            return Ok(content);
        }
    }
    Err(InfoError("it has no section .modinfo"))
}

/// A little-endian number of `size` bytes at offset `at`.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<usize> {
    let field = bytes.get(at..at.checked_add(size)?)?;
    let value = field.iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
    usize::try_from(value).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The smallest object with these strings: header, `.modinfo`, names, three section headers.
    pub(crate) fn module(strings: &[&str]) -> Vec<u8> {
        let modinfo: Vec<u8> = strings.iter().flat_map(|s| s.bytes().chain([0])).collect();
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[0x10] = 1;
        bytes[0x12] = 62;
        let headers = (64 + modinfo.len() + names.len()) as u64;
        bytes[0x28..0x30].copy_from_slice(&headers.to_le_bytes());
        (bytes[0x3a], bytes[0x3c], bytes[0x3e]) = (64, 3, 2);
        bytes.extend(&modinfo);
        bytes.extend(names);
        let mut header = |name: u8, offset: usize, length: usize| {
            let mut section = [0; 64];
            section[0] = name;
            section[0x18..0x20].copy_from_slice(&(offset as u64).to_le_bytes());
            section[0x20..0x28].copy_from_slice(&(length as u64).to_le_bytes());
            bytes.extend(section);
        };
        header(0, 0, 0);
        header(1, 64, modinfo.len());
        header(10, 64 + modinfo.len(), names.len());
        bytes
    }

    #[test]
    fn a_module_tells_its_kernel_and_its_firmware() {
        let info = parse_module(&module(&[
            "firmware=bnx2/bnx2-mips-09-6.2.1b.fw",
            "firmware=bnx2/bnx2-mips-06-6.2.3.fw",
            "alias=pci:v000014E4d0000163Csv*sd*bc*sc*i*",
            "depends=a,b-c",
            "name=bnx2",
            "vermagic=6.1.0-25-amd64 SMP preempt mod_unload modversions ",
            "odd",
        ]))
        .unwrap();
        assert_eq!(info.release(), "6.1.0-25-amd64");
        assert_eq!(info.firmware, ["bnx2/bnx2-mips-09-6.2.1b.fw", "bnx2/bnx2-mips-06-6.2.3.fw"]);
        assert_eq!((info.name.as_str(), info.depends.as_slice()), ("bnx2", &["a".to_owned(), "b-c".into()][..]));
        assert_eq!((info.aliases.len(), info.signer), (1, None));
    }

    #[test]
    fn what_is_no_module_is_refused_with_the_reason() {
        let reason = |bytes: &[u8]| parse_module(bytes).unwrap_err().to_string();
        assert!(reason(b"#!/bin/sh").contains("no 64-bit"));
        assert!(reason(&std::fs::read(std::env::current_exe().unwrap()).unwrap()).contains("another type"));
        let mut plain = module(&[]);
        let at = plain.windows(8).position(|w| w == b".modinfo").unwrap();
        plain[at + 1] = b'X';
        assert!(reason(&plain).contains("no section .modinfo"));
    }

    proptest! {
        #[test]
        fn damage_anywhere_never_panics(at in 0usize..300, value in any::<u8>(), cut in 0usize..400) {
            let mut bytes = module(&["name=x", "firmware=y"]);
            let at = at % bytes.len();
            bytes[at] = value;
            bytes.truncate(cut);
            let _ = parse_module(&bytes);
        }
    }
}
