//! Kernel, command line and initramfs in one EFI program (UAPI specification "Unified Kernel Image"): sections behind
//! those of systemd's stub, which starts the kernel from them. Not signed, so for firmware without Secure Boot.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::netboot::Contents;
use crate::{Error, ErrorKind, Result};

const OS_RELEASE: &str = "ID=vconverter\nNAME=vconverter\nPRETTY_NAME=\"vconverter boot image\"\n";
/// `IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ`
const READABLE_DATA: u32 = 0x4000_0040;
const SECTION_HEADER: usize = 40;

/// Offsets within a PE file (Microsoft, "PE Format"), read from its headers.
struct Layout {
    /// Of the COFF header.
    coff: usize,
    sections: usize,
    section_count: usize,
    headers_end: usize,
    section_alignment: u32,
    file_alignment: u32,
    /// First free address behind the last section.
    next_address: u32,
}

/// Writes `output`: `stub` with the sections `.osrel`, `.cmdline`, `.linux` and `.initrd`.
pub(crate) fn write_uki(stub: &Path, contents: &Contents<'_>, command_line: &str, output: &Path) -> Result<()> {
    let read = |path: &Path| std::fs::read(path).map_err(|e| Error::path("read", path, e));
    let (linux, initrd) = (read(contents.vmlinuz)?, read(contents.initramfs)?);
    let parts: [(&[u8; 8], &[u8]); 4] = [
        (b".osrel\0\0", OS_RELEASE.as_bytes()),
        (b".cmdline", command_line.as_bytes()),
        (b".linux\0\0", &linux),
        (b".initrd\0", &initrd),
    ];
    let mut program = read(stub)?;
    let offsets = add_sections(&mut program, &parts).ok_or_else(|| {
        Error::new(ErrorKind::ToolFailed, format!("{}: no EFI program with room for 4 more sections", stub.display()))
    })?;
    let failed = |e| Error::path("write", output, e);
    let mut file = BufWriter::new(File::create(output).map_err(failed)?);
    file.write_all(&program).map_err(failed)?;
    let mut written = program.len();
    for ((_, content), (start, end)) in parts.iter().zip(offsets) {
        file.write_all(&vec![0; start - written]).map_err(failed)?;
        file.write_all(content).map_err(failed)?;
        file.write_all(&vec![0; end - start - content.len()]).map_err(failed)?;
        written = end;
    }
    file.flush().map_err(failed)
}

/// Puts the headers of further sections into `program`; returns where in the file each content begins and ends.
fn add_sections(program: &mut [u8], parts: &[(&[u8; 8], &[u8])]) -> Option<Vec<(usize, usize)>> {
    let layout = read_layout(program)?;
    let mut header = layout.sections.checked_add(layout.section_count.checked_mul(SECTION_HEADER)?)?;
    if header.checked_add(parts.len() * SECTION_HEADER)? > layout.headers_end {
        return None;
    }
    let mut offset = u32::try_from(program.len()).ok()?;
    let mut address = layout.next_address;
    let mut offsets = Vec::new();
    for (name, content) in parts {
        let length = u32::try_from(content.len()).ok()?;
        let start = offset.checked_next_multiple_of(layout.file_alignment)?;
        let raw = length.checked_next_multiple_of(layout.file_alignment)?;
        let fields = [length, address, raw, start, 0, 0, 0, READABLE_DATA];
        let bytes: Vec<u8> = name.iter().copied().chain(fields.iter().flat_map(|field| field.to_le_bytes())).collect();
        program.get_mut(header..header + SECTION_HEADER)?.copy_from_slice(&bytes);
        header += SECTION_HEADER;
        offset = start.checked_add(raw)?;
        address = address.checked_add(length)?.checked_next_multiple_of(layout.section_alignment)?;
        offsets.push((usize::try_from(start).ok()?, usize::try_from(offset).ok()?));
    }
    let count = u16::try_from(layout.section_count + parts.len()).ok()?;
    program.get_mut(layout.coff + 2..layout.coff + 4)?.copy_from_slice(&count.to_le_bytes());
    // SizeOfImage; the checksum beside it is not looked at for EFI programs.
    let optional = layout.coff + 20;
    program.get_mut(optional + 56..optional + 60)?.copy_from_slice(&address.to_le_bytes());
    Some(offsets)
}

fn read_layout(program: &[u8]) -> Option<Layout> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(program.get(at..at.checked_add(2)?)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(program.get(at..at.checked_add(4)?)?.try_into().ok()?));
    const PE32_PLUS: u16 = 0x20b;
    let pe = usize::try_from(u32_at(0x3c)?).ok()?;
    let coff = pe.checked_add(4)?;
    let optional = coff.checked_add(20)?;
    if program.get(pe..coff)? != b"PE\0\0" || u16_at(optional)? != PE32_PLUS {
        return None;
    }
    let section_count = usize::from(u16_at(coff + 2)?);
    let sections = optional.checked_add(usize::from(u16_at(coff + 16)?))?;
    let (section_alignment, file_alignment) = (u32_at(optional + 32)?, u32_at(optional + 36)?);
    if !section_alignment.is_power_of_two() || !file_alignment.is_power_of_two() {
        return None;
    }
    let mut next_address = 0;
    for index in 0..section_count {
        let at = sections.checked_add(index.checked_mul(SECTION_HEADER)?)?;
        next_address = next_address.max(u32_at(at + 12)?.checked_add(u32_at(at + 8)?)?);
    }
    Some(Layout {
        coff,
        sections,
        section_count,
        headers_end: usize::try_from(u32_at(optional + 60)?).ok()?,
        section_alignment,
        file_alignment,
        next_address: next_address.checked_next_multiple_of(section_alignment.max(4096))?,
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::package;

    #[test]
    fn binutils_finds_each_part_in_the_program() {
        let stub = package::find_file("/usr/lib/systemd/boot/efi/linuxx64.efi.stub", "systemd-boot-efi", &mut |_| {});
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("linux"), vec![1; 5001]).unwrap();
        std::fs::write(path("initrd"), vec![2; 70_000]).unwrap();
        let contents = Contents { vmlinuz: &path("linux"), initramfs: &path("initrd") };
        write_uki(&stub.unwrap(), &contents, "quiet x=1", &path("boot.efi")).unwrap();
        for (section, expected) in
            [(".linux", vec![1; 5001]), (".initrd", vec![2; 70_000]), (".cmdline", b"quiet x=1".to_vec())]
        {
            let mut command = Command::new("objcopy");
            command.args(["-O", "binary", "--only-section", section]).arg(path("boot.efi")).arg(path("out"));
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let found = std::fs::read(path("out")).unwrap();
            assert!(found.starts_with(&expected) && found[expected.len()..].iter().all(|&b| b == 0), "{section}");
        }
        let listed = Command::new("objdump").arg("-h").arg(path("boot.efi")).output().unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!([".text", ".osrel", ".initrd"].iter().all(|name| listed.contains(name)), "{listed}");
    }

    #[test]
    fn what_is_no_efi_program_is_refused() {
        let parts: [(&[u8; 8], &[u8]); 1] = [(b".linux\0\0", b"x")];
        assert_eq!(add_sections(&mut [0; 10], &parts), None);
        assert_eq!(add_sections(&mut [0xff; 4096], &parts), None);
    }
}
