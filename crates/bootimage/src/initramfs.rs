//! Puts an initramfs together and compresses it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use kernel_modules::{module_name, parse_module};

use crate::added::Added;
use crate::cpio::Archive;
use crate::kernel::Kernel;
use crate::modules::Selection;
use crate::rescue::add_rescue;
use crate::{Error, ErrorKind, Result};

/// zstd level. The kernel takes windows up to 128 MiB, so any would do.
const LEVEL: i32 = 10;

/// What to put in.
pub(crate) struct Plan<'a> {
    pub(crate) kernel: &'a Kernel,
    /// `vconverter-bootenv`, stripped.
    pub(crate) bootenv: &'a Path,
    /// `vconverter-agent`, stripped; none in the appliance.
    pub(crate) agent: Option<&'a Path>,
    pub(crate) selection: &'a Selection,
    /// Where modules of the selection lie that are not the kernel package's own.
    pub(crate) added: &'a Added,
    /// Name below the firmware folder → where the content lies.
    pub(crate) firmware: &'a BTreeMap<String, PathBuf>,
    /// Name below `lib/vconverter` → content; none in the appliance.
    pub(crate) names: &'a [(&'static str, String)],
    /// Programs of Debian with their libraries, by their place.
    pub(crate) programs: &'a BTreeMap<String, PathBuf>,
    /// Programs of the rescue shell, by their place; none where there is no such shell.
    pub(crate) rescue: &'a BTreeMap<String, PathBuf>,
}

/// Sizes of what was made, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) unpacked: u64,
    pub(crate) compressed: u64,
}

impl Plan<'_> {
    fn module(&self, path: &str) -> PathBuf {
        self.added.content(path).map_or_else(|| self.kernel.modules.join(path), Path::to_owned)
    }
}

/// Which firmware files the modules of a selection name: file → names of modules.
pub(crate) fn firmware_of(
    kernel: &Kernel,
    selection: &Selection,
    added: &Added,
) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in &selection.paths {
        let file = added.content(path).map_or_else(|| kernel.modules.join(path), Path::to_owned);
        let bytes = fs::read(&file).map_err(|e| Error::path("read", &file, e))?;
        let info = parse_module(&bytes)
            .map_err(|error| Error::new(ErrorKind::NoKernel, format!("{}: {error}", file.display())))?;
        for name in info.firmware {
            wanted.entry(name).or_default().insert(module_name(path));
        }
    }
    Ok(wanted)
}

/// Writes the initramfs to `output`, padded to a multiple of 4 so that another archive can follow.
pub(crate) fn write_initramfs(plan: &Plan<'_>, output: &Path) -> Result<Sizes> {
    let archive = assemble(plan)?;
    let failed = |e| Error::path("write", output, e);
    let file = File::create(output).map_err(failed)?;
    let mut encoder = zstd::Encoder::new(BufWriter::new(file), LEVEL).map_err(failed)?;
    encoder.include_checksum(true).map_err(failed)?;
    let unpacked = archive.write_to(&mut encoder)?;
    let mut file = encoder.finish().map_err(failed)?.into_inner().map_err(|e| failed(e.into_error()))?;
    let written = file.metadata().map_err(failed)?.len();
    let compressed = written.next_multiple_of(4);
    file.write_all(&vec![0; usize::try_from(compressed - written).unwrap_or(0)]).map_err(failed)?;
    Ok(Sizes { unpacked, compressed })
}

fn assemble(plan: &Plan<'_>) -> Result<Archive> {
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
    for (name, from) in plan.programs {
        archive.add_file(name, 0o755, from)?;
    }
    if !plan.rescue.is_empty() {
        add_rescue(&mut archive, plan.rescue)?;
    }
    add_modules(&mut archive, plan)?;
    for (name, content) in plan.firmware {
        archive.add_file(&format!("lib/firmware/{name}"), 0o644, content)?;
    }
    for (name, content) in plan.names {
        archive.add_bytes(&format!("lib/vconverter/{name}"), 0o644, content.as_bytes())?;
    }
    Ok(archive)
}

fn add_modules(archive: &mut Archive, plan: &Plan<'_>) -> Result<()> {
    let (kernel, selection) = (plan.kernel, plan.selection);
    let folder = format!("lib/modules/{}", kernel.release);
    for path in &selection.paths {
        archive.add_file(&format!("{folder}/{path}"), 0o644, &plan.module(path))?;
    }
    archive.add_bytes(&format!("{folder}/modules.dep"), 0o644, selection.dep.as_bytes())?;
    archive.add_bytes(&format!("{folder}/modules.alias"), 0o644, selection.alias.as_bytes())?;
    archive.add_bytes(&format!("{folder}/modules.softdep"), 0o644, selection.softdep.as_bytes())?;
    if plan.agent.is_some() {
        archive.add_bytes(&format!("{folder}/modules.left-out"), 0o644, selection.left_out.as_bytes())?;
    }
    archive.add_file(&format!("{folder}/modules.builtin"), 0o644, &kernel.modules.join("modules.builtin"))
}
