//! Puts an initramfs together and compresses it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::cpio::Archive;
use crate::kernel::Kernel;
use crate::modules::{self, Selection};
use crate::{Error, Result};

/// What to make.
pub(crate) struct Plan<'a> {
    pub(crate) kernel: &'a Kernel,
    /// `vconverter-bootenv`, stripped.
    pub(crate) bootenv: &'a Path,
    /// `vconverter-agent`, stripped; none in the appliance.
    pub(crate) agent: Option<&'a Path>,
    /// Path starts below `kernel/` of modules that are wanted, and of those that are not.
    pub(crate) modules: (&'a [&'a str], &'a [&'a str]),
    /// zstd level. The kernel takes windows up to 128 MiB, so any level.
    pub(crate) level: i32,
}

/// Sizes of what was made, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) modules: usize,
    pub(crate) unpacked: u64,
    pub(crate) compressed: u64,
}

/// Writes the initramfs to `output`, padded to a multiple of 4 so that another archive can follow.
pub(crate) fn write_initramfs(plan: &Plan<'_>, output: &Path) -> Result<Sizes> {
    let selection = modules::load_index(&plan.kernel.modules)?.select(plan.modules.0, plan.modules.1)?;
    let archive = assemble(plan, &selection)?;
    let failed = |e| Error::path("write", output, e);
    let file = File::create(output).map_err(failed)?;
    let mut encoder = zstd::Encoder::new(BufWriter::new(file), plan.level).map_err(failed)?;
    encoder.include_checksum(true).map_err(failed)?;
    let unpacked = archive.write_to(&mut encoder)?;
    let mut file = encoder.finish().map_err(failed)?.into_inner().map_err(|e| failed(e.into_error()))?;
    let written = file.metadata().map_err(failed)?.len();
    let compressed = written.next_multiple_of(4);
    file.write_all(&vec![0; usize::try_from(compressed - written).unwrap_or(0)]).map_err(failed)?;
    Ok(Sizes { modules: selection.paths.len(), unpacked, compressed })
}

fn assemble(plan: &Plan<'_>, selection: &Selection) -> Result<Archive> {
    let mut archive = Archive::new();
    archive.add_file("init", 0o755, plan.bootenv)?;
    // The kernel runs this path when it wants a module by alias (filesystems, hashes); bootenv answers to the name.
    archive.add_symlink("sbin/modprobe", "/init")?;
    if let Some(agent) = plan.agent {
        archive.add_file("usr/bin/vconverter-agent", 0o755, agent)?;
    }
    for folder in ["dev", "etc", "mnt", "proc", "run", "sys", "tmp", "vconverter"] {
        archive.add_directory(folder)?;
    }
    // Programs open descriptors 0 to 2 before bootenv has mounted anything.
    archive.add_character_device("dev/console", 0o600, 5, 1)?;
    archive.add_character_device("dev/null", 0o666, 1, 3)?;
    archive.add_bytes("etc/hostname", 0o644, *b"vconverter\n")?;
    archive.add_bytes("etc/hosts", 0o644, *b"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 vconverter\n")?;
    archive.add_bytes("etc/nsswitch.conf", 0o644, *b"passwd: files\ngroup: files\nhosts: files dns\n")?;
    archive.add_bytes("etc/passwd", 0o644, *b"root:x:0:0:root:/:/init\n")?;
    archive.add_bytes("etc/group", 0o644, *b"root:x:0:\n")?;
    add_modules(&mut archive, plan.kernel, selection)?;
    Ok(archive)
}

fn add_modules(archive: &mut Archive, kernel: &Kernel, selection: &Selection) -> Result<()> {
    let folder = format!("lib/modules/{}", kernel.release);
    for path in &selection.paths {
        archive.add_file(&format!("{folder}/{path}"), 0o644, &kernel.modules.join(path))?;
    }
    archive.add_bytes(&format!("{folder}/modules.dep"), 0o644, selection.dep.as_bytes())?;
    archive.add_bytes(&format!("{folder}/modules.alias"), 0o644, selection.alias.as_bytes())?;
    archive.add_bytes(&format!("{folder}/modules.softdep"), 0o644, selection.softdep.as_bytes())?;
    archive.add_file(&format!("{folder}/modules.builtin"), 0o644, &kernel.modules.join("modules.builtin"))
}
