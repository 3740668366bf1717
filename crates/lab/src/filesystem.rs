//! Filesystems in files of their own, filled by their tools without being mounted.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;

use crate::tool::Tool;
use crate::{Error, Result};

/// Makes an ext4 of `size` bytes that holds the content of `tree`.
pub(crate) fn make_ext4(file: &Path, size: u64, uuid: &str, label: &str, tree: &Path) -> Result<()> {
    Tool::new("mkfs.ext4", "e2fsprogs")
        .args(["-q", "-F", "-U", uuid, "-L", label, "-E", "root_owner=0:0", "-d"])
        .args([tree, file])
        .arg(format!("{}k", size >> 10))
        .run()
        .map(drop)
}

/// Runs commands of debugfs(8) on an unmounted ext4.
pub(crate) fn edit_ext4(file: &Path, commands: &str) -> Result<String> {
    let script = tempfile::NamedTempFile::new().map_err(|e| Error::io("making a temporary file", e))?;
    fs::write(script.path(), commands).map_err(|e| Error::file(script.path(), e))?;
    Tool::new("debugfs", "e2fsprogs").args(["-w", "-f"]).args([script.path(), file]).run()
}

/// As the tools of e2fsprogs name a filesystem at `offset` of `disk`.
fn at_offset(disk: &Path, offset: u64) -> PathBuf {
    let mut file = disk.as_os_str().to_owned();
    file.push(format!("?offset={offset}"));
    file.into()
}

/// Copies a program into the unmounted ext4 at `offset` of `disk`.
pub(crate) fn put_program(disk: &Path, offset: u64, program: &Path, path: &str) -> Result<()> {
    let commands = format!("write {} {path}\nsif {path} mode 0100755\n", program.display());
    edit_ext4(&at_offset(disk, offset), &commands).map(drop)
}

/// Takes the last block of the unmounted ext4 at `offset` of `disk`.
pub(crate) fn fill_ext4(disk: &Path, offset: u64) -> Result<()> {
    let file = &at_offset(disk, offset);
    let free = || -> Result<u64> {
        let text = Tool::new("dumpe2fs", "e2fsprogs").arg("-h").arg(file).run()?;
        let free = text.lines().find_map(|line| line.strip_prefix("Free blocks:")?.trim().parse().ok());
        free.ok_or_else(|| Error::new("dumpe2fs: no free blocks"))
    };
    // It ends with a complaint: the blocks of the extent tree are taken from the same rest.
    edit_ext4(file, &format!("write /dev/null /full\nfallocate /full 0 {}\n", free()?.saturating_sub(1)))?;
    match free()? {
        0 => Ok(()),
        left => Err(Error::new(format!("{}: {left} blocks are still free", disk.display()))),
    }
}

/// Bytes in use of an ext4, by dumpe2fs: everything but its free blocks.
pub(crate) fn used_ext4(file: &Path) -> Result<u64> {
    let text = Tool::new("dumpe2fs", "e2fsprogs").arg("-h").arg(file).run()?;
    let field = |name: &str| -> Result<u64> {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            .ok_or_else(|| Error::new(format!("dumpe2fs of {}: no {name:?}", file.display())))
    };
    Ok((field("Block count:")? - field("Free blocks:")?) * field("Block size:")?)
}

/// Makes a FAT32 of `size` bytes with the content of `tree`; `volume_id` are 8 hexadecimal digits.
pub(crate) fn make_fat32(file: &Path, size: u64, volume_id: &str, label: &str, tree: &Path) -> Result<()> {
    create(file, size)?;
    Tool::new("mkfs.vfat", "dosfstools").args(["-F", "32", "-i", volume_id, "-n", label]).arg(file).run()?;
    for entry in fs::read_dir(tree).map_err(|e| Error::file(tree, e))? {
        let entry = entry.map_err(|e| Error::file(tree, e))?;
        Tool::new("mcopy", "mtools").arg("-s").arg("-i").args([file, &entry.path()]).arg("::/").run()?;
    }
    Ok(())
}

/// Makes a swap area with a UUID; what lies behind its header stays.
pub(crate) fn make_swap(file: &Path, uuid: &str) -> Result<()> {
    Tool::new("mkswap", "util-linux").args(["--uuid", uuid]).arg(file).run().map(drop)
}

/// A file of `size` bytes without content.
pub(crate) fn create(file: &Path, size: u64) -> Result<()> {
    File::create(file).and_then(|f| f.set_len(size)).map_err(|e| Error::file(file, e))
}

/// Copies what `part` holds into `whole` at `offset`; holes stay holes.
pub(crate) fn place(part: &Path, whole: &Path, offset: u64) -> Result<()> {
    let input = File::open(part).map_err(|e| Error::file(part, e))?;
    let output = File::options().write(true).open(whole).map_err(|e| Error::file(whole, e))?;
    let mut buffer = vec![0; 1 << 20];
    let mut position = 0;
    while let Ok(start) = rustix::fs::seek(&input, SeekFrom::Data(position)) {
        let end = rustix::fs::seek(&input, SeekFrom::Hole(start)).map_err(|e| Error::file(part, e.into()))?;
        position = start;
        while position < end {
            let wanted = usize::try_from(end - position).unwrap_or(usize::MAX).min(buffer.len());
            let read = input.read_at(&mut buffer[..wanted], position).map_err(|e| Error::file(part, e))?;
            output.write_all_at(&buffer[..read], offset + position).map_err(|e| Error::file(whole, e))?;
            position += read as u64;
        }
    }
    Ok(())
}
