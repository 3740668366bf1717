//! The machine type of an ELF file, from the first 20 bytes (System V gABI, "ELF Header").

/// Architecture name as `uname -m` of a 64- or 32-bit system gives it; `None` for other files and machines.
pub(crate) fn parse_machine(header: &[u8]) -> Option<&'static str> {
    if header.get(..4)? != b"\x7fELF" {
        return None;
    }
    let (class, endian) = (*header.get(4)?, *header.get(5)?);
    let raw = [*header.get(18)?, *header.get(19)?];
    let machine = if endian == 2 { u16::from_be_bytes(raw) } else { u16::from_le_bytes(raw) };
    Some(match (machine, class) {
        (3, _) => "i386",
        (62, 2) => "x86_64",
        (62, _) => "x32",
        (183, _) => "aarch64",
        (40, _) => "arm",
        (243, 2) => "riscv64",
        (21, _) => {
            if endian == 1 {
                "ppc64le"
            } else {
                "ppc64"
            }
        }
        (22, 2) => "s390x",
        (8, 2) => "mips64",
        (8, _) => "mips",
        (258, _) => "loongarch64",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::parse_machine;

    #[test]
    fn machine_is_read_and_short_or_foreign_files_are_not_taken_for_elf() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(parse_machine(&own), Some(std::env::consts::ARCH));
        assert_eq!(parse_machine(&own[..19]), None);
        assert_eq!(parse_machine(b"#!/bin/sh\n# no program at all"), None);
    }
}
