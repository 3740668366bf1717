//! What makes each machine one of its own, and the files whose checksums prove a copy.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::tool::Tool;
use crate::{Error, Result};

/// Folder of the checksummed files in the machine; `SHA256SUMS` lies beside them.
pub const FILES: &str = "/srv/lab";

/// Where the deleted files lay whose blocks are free now and hold stale data.
const OLD: &str = "var/tmp/old";
const OLD_FILES: u32 = 768;
const OLD_SIZE: usize = 64 << 10;

/// A file of the machine and its checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedFile {
    /// Absolute path in the machine.
    pub path: String,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

/// Random bytes.
pub(crate) fn random(size: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    getrandom::fill(&mut bytes).map_err(|e| Error::new(format!("random bytes: {e}")))?;
    Ok(bytes)
}

pub(crate) fn write(tree: &Path, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
    let path = tree.join(name);
    let folder = path.parent().unwrap_or(tree);
    fs::create_dir_all(folder).and_then(|()| fs::write(&path, content)).map_err(|e| Error::file(&path, e))
}

/// Host name, network, ssh: what an installation asks for. Returns the SSH host keys (public, one a line).
pub(crate) fn write_identity(tree: &Path, hostname: &str, interface: &str) -> Result<Vec<String>> {
    write(tree, "etc/hostname", format!("{hostname}\n"))?;
    write(tree, "etc/hosts", format!("127.0.0.1\tlocalhost\n127.0.1.1\t{hostname}\n"))?;
    let id: String = random(16)?.iter().map(|b| format!("{b:02x}")).collect();
    write(tree, "etc/machine-id", format!("{id}\n"))?;
    let resolver = tree.join("etc/resolv.conf");
    let _ = fs::remove_file(&resolver); // may be a link of the build machine's
    write(tree, "etc/resolv.conf", "")?;
    write(
        tree,
        "etc/network/interfaces",
        format!(
            "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n\n\
             allow-hotplug {interface}\niface {interface} inet dhcp\n"
        ),
    )?;
    write(tree, "etc/ssh/sshd_config.d/root.conf", "PermitRootLogin yes\n")?;
    Tool::new("chroot", "coreutils").arg(tree).args(["ssh-keygen", "-A"]).run()?;
    let folder = tree.join("etc/ssh");
    let mut keys = Vec::new();
    for entry in fs::read_dir(&folder).map_err(|e| Error::file(&folder, e))? {
        let path = entry.map_err(|e| Error::file(&folder, e))?.path();
        if path.extension().is_some_and(|e| e == "pub") {
            let key = fs::read_to_string(&path).map_err(|e| Error::file(&path, e))?;
            keys.push(key.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
        }
    }
    keys.sort();
    Ok(keys)
}

/// Writes the checksummed files, and old files between which a fragmented one will be put. The fragmented file itself
/// is made in `work` and goes in by [`age_commands`].
pub(crate) fn write_files(tree: &Path, work: &Path) -> Result<Vec<CheckedFile>> {
    let folder = tree.join(FILES.trim_start_matches('/'));
    fs::create_dir_all(&folder).map_err(|e| Error::file(&folder, e))?;
    write(&folder, "random.bin", random(4 << 20)?)?;
    write(&folder, "empty", "")?;
    write(&folder, "text", "The quick brown fox jumps over the lazy dog.\n".repeat(4000))?;
    let sparse = folder.join("sparse.bin");
    let file = File::create(&sparse).map_err(|e| Error::file(&sparse, e))?;
    for offset in [1 << 20, 9 << 20, 24 << 20] {
        file.write_all_at(&random(64 << 10)?, offset).map_err(|e| Error::file(&sparse, e))?;
    }
    file.set_len(32 << 20).map_err(|e| Error::file(&sparse, e))?;
    write(work, "fragmented.bin", random(8 << 20)?)?;
    fs::set_permissions(work.join("fragmented.bin"), fs::Permissions::from_mode(0o644))
        .map_err(|e| Error::file(work, e))?;

    let mut sums =
        Tool::new("sha256sum", "coreutils").dir(&folder).args(["random.bin", "empty", "text", "sparse.bin"]).run()?;
    sums += &Tool::new("sha256sum", "coreutils").dir(work).arg("fragmented.bin").run()?;
    write(&folder, "SHA256SUMS", &sums)?;
    for number in 0..OLD_FILES {
        write(tree, &format!("{OLD}/{number:04}"), random(OLD_SIZE)?)?;
    }
    sums.lines()
        .map(|line| match line.split_once("  ") {
            Some((sum, name)) => Ok(CheckedFile { path: format!("{FILES}/{name}"), sha256: sum.into() }),
            None => Err(Error::new(format!("sha256sum: expected a sum and a name, found {line:?}"))),
        })
        .collect()
}

/// Commands of debugfs that age the filesystem: every second old file is deleted, the fragmented file goes into the
/// holes, then the other old files are deleted too. Their blocks stay as they were: free, and full of stale data.
pub(crate) fn age_commands(work: &Path) -> String {
    let delete = |parity: u32| -> String {
        (0..OLD_FILES).filter(|n| n % 2 == parity).map(|n| format!("rm /{OLD}/{n:04}\n")).collect()
    };
    let fragmented = work.join("fragmented.bin");
    format!("{}write {} {FILES}/fragmented.bin\n{}", delete(0), fragmented.display(), delete(1))
}
