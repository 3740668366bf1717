//! What a rescue shell needs: an SSH server and a shell as programs of Debian's packages, with the libraries that they
//! name. In the image only where the operator gave a public key.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::cpio::Archive;
use crate::package::find_file;
use crate::tool::OBJDUMP;
use crate::{Error, ErrorKind, Result};

/// Where the SSH server lies in an image that has one.
pub(crate) const SERVER: &str = "usr/sbin/dropbear";
/// Programs: path here and in the image, package.
const PROGRAMS: &[(&str, &str)] = &[
    ("/usr/sbin/dropbear", "dropbear-bin"),
    ("/usr/bin/dropbearkey", "dropbear-bin"),
    // The static one: it needs nothing else, and finds its applets in itself.
    ("/bin/busybox", "busybox-static"),
];
/// Libraries that those programs may name, and their packages.
const LIBRARIES: &[(&str, &str)] = &[
    ("ld-linux-x86-64.so.2", "libc6"),
    ("libc.so.6", "libc6"),
    ("libcrypt.so.1", "libcrypt1"),
    ("libgmp.so.10", "libgmp10"),
    ("libtomcrypt.so.1", "libtomcrypt1"),
    ("libtommath.so.1", "libtommath1"),
    ("libz.so.1", "zlib1g"),
];
const LIBRARY_FOLDERS: &[&str] = &["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"];
const LOADER: &str = "ld-linux-x86-64.so.2";
/// Kinds of keys that the server knows.
const KEY_KINDS: &[&str] = &[
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];
/// Longest file of a key in bytes.
const KEY_BYTES_MAX: u64 = 16 << 10;

/// Reads the file of a public key: kind, key and comment on one line.
///
/// # Errors
/// [`ErrorKind::InvalidConfiguration`] for anything else: a private key, several, or one with options in front.
pub fn load_ssh_key(path: &Path) -> Result<String> {
    let wrong = |what: &str| Error::new(ErrorKind::InvalidConfiguration, format!("SSH key {}: {what}", path.display()));
    let unread = |e| Error { kind: ErrorKind::InvalidConfiguration, ..Error::path("read", path, e) };
    if fs::metadata(path).map_err(unread)?.len() > KEY_BYTES_MAX {
        return Err(wrong("too long for a public key"));
    }
    let text = fs::read_to_string(path).map_err(unread)?;
    if text.contains("PRIVATE KEY") {
        return Err(wrong(
            "this is a private key, which must not leave its place: expected the public one beside it (.pub)",
        ));
    }
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (Some(key), None) = (lines.next(), lines.next()) else { return Err(wrong("expected one public key")) };
    let mut words = key.split_ascii_whitespace();
    let kind = words.next().unwrap_or_default();
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    let is_key = words.next().is_some_and(|data| data.starts_with("AAAA") && data.chars().all(is_base64));
    if !KEY_KINDS.contains(&kind) || !is_key || key.chars().any(char::is_control) {
        return Err(wrong("expected a public key as `ssh-ed25519 AAAA… comment`, without options in front"));
    }
    Ok(key.to_owned())
}

/// The files of the rescue shell: path in the image → where it lies here.
pub(crate) fn find_programs(progress: &mut dyn FnMut(&str)) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut open = Vec::new();
    for (path, package) in PROGRAMS {
        let file = find_file(path, package, progress)?;
        open.push(file.clone());
        found.insert(path.trim_start_matches('/').to_owned(), file);
    }
    let mut seen = BTreeSet::new();
    while let Some(file) = open.pop() {
        for library in needed(&file)? {
            if seen.insert(library.clone()) {
                let from = find_library(&library, progress)?;
                open.push(from.clone());
                // The loader's place stands in every program.
                let folder = if library == LOADER { "lib64" } else { "lib/x86_64-linux-gnu" };
                found.insert(format!("{folder}/{library}"), from);
            }
        }
    }
    // Every program that has libraries names the loader, and not as one of them.
    let loader = find_library(LOADER, progress)?;
    found.insert(format!("lib64/{LOADER}"), loader);
    Ok(found)
}

fn find_library(name: &str, progress: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let unknown =
        || Error::new(ErrorKind::MissingTool, format!("rescue shell: the library {name} is of no known package"));
    let (_, package) = LIBRARIES.iter().find(|(library, _)| *library == name).ok_or_else(unknown)?;
    let mut missing = unknown();
    for folder in LIBRARY_FOLDERS {
        match find_file(&format!("{folder}/{name}"), package, progress) {
            Ok(file) => return Ok(file),
            Err(error) => missing = error,
        }
    }
    Err(missing)
}

/// Names of the libraries that a program asks for; none for a static one.
fn needed(program: &Path) -> Result<Vec<String>> {
    let mut command = OBJDUMP.command()?;
    let headers = OBJDUMP.run(command.arg("-p").arg(program))?;
    let names = headers.lines().filter_map(|line| line.trim_start().strip_prefix("NEEDED"));
    Ok(names.map(|name| name.trim().to_owned()).collect())
}

/// Puts the programs into an archive; root's shell is theirs then.
pub(crate) fn add_rescue(archive: &mut Archive, programs: &BTreeMap<String, PathBuf>) -> Result<()> {
    for (name, from) in programs {
        archive.add_file(name, 0o755, from)?;
    }
    archive.add_symlink("bin/sh", "busybox")?;
    archive.add_directory("root")?;
    archive.add_bytes("etc/shells", 0o644, *b"/bin/sh\n")?;
    archive.add_bytes("etc/passwd", 0o644, *b"root:x:0:0:root:/root:/bin/sh\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_taken_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let load = |text: &str| {
            let file = folder.path().join("key.pub");
            fs::write(&file, text).unwrap();
            load_ssh_key(&file)
        };
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ admin@example.org";
        assert_eq!(load(&format!("# mine\n\n{key}\n")).unwrap(), key);
        for wrong in [
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
            "",
            "ssh-ed25519",
            "ssh-dss AAAAB3NzaC1kc3M admin",
            &format!("command=\"sh\" {key}"),
            &format!("{key}\n{key}\n"),
            "ssh-ed25519 AAAA\u{1b}[2J x",
        ] {
            assert_eq!(load(wrong).unwrap_err().kind, ErrorKind::InvalidConfiguration, "{wrong:?}");
        }
    }

    #[test]
    fn debians_programs_come_with_every_library_that_they_name() {
        let programs = find_programs(&mut |line| println!("{line}")).unwrap();
        for name in [SERVER, "usr/bin/dropbearkey", "bin/busybox", "lib64/ld-linux-x86-64.so.2"] {
            assert!(programs.contains_key(name), "{name}");
        }
        let size: u64 = programs.values().map(|file| fs::metadata(file).unwrap().len()).sum();
        println!("{} files, {} KiB: {:?}", programs.len(), size >> 10, programs.keys());
        assert!(size < 12 << 20);
        for file in programs.values() {
            for library in needed(file).unwrap() {
                assert!(programs.keys().any(|name| name.ends_with(&format!("/{library}"))), "{library}");
            }
        }
        let mut archive = Archive::new();
        add_rescue(&mut archive, &programs).unwrap();
    }
}
