//! An archive with one file, in the format "newc" that the kernel unpacks as initramfs (Linux, `Documentation/driver-api/early-userspace/
//! buffer-format.rst`).

/// The archive that holds a file of this name, for nobody but its owner.
pub(crate) fn archive(name: &str, bytes: &[u8]) -> Vec<u8> {
    const REGULAR_0600: u32 = 0o100_600;
    let mut archive = Vec::new();
    append(&mut archive, name, REGULAR_0600, bytes);
    append(&mut archive, "TRAILER!!!", 0, &[]);
    archive
}

fn append(archive: &mut Vec<u8>, name: &str, mode: u32, bytes: &[u8]) {
    // Inode, mode, owner, group, links, time, size, device, device of the node, length of the name with its end, checksum.
    let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
    archive.extend(b"070701");
    for field in [1, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(name.bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(bytes);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn cpio_unpacks_it() {
        let folder = tempfile::tempdir().unwrap();
        for bytes in [&b"{}"[..], b"", b"abcd", b"abcde"] {
            let mut cpio = Command::new("cpio");
            let cpio = cpio.args(["-i", "-u", "--quiet"]).current_dir(&folder).stdin(Stdio::piped());
            let mut cpio = cpio.spawn().expect("cpio");
            cpio.stdin.take().unwrap().write_all(&archive("vconverter.record.json", bytes)).unwrap();
            assert!(cpio.wait().unwrap().success());
            let file = folder.path().join("vconverter.record.json");
            assert_eq!(std::fs::read(&file).unwrap(), bytes);
            let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}
