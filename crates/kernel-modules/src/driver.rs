//! A file that a driver comes in: a kernel module (`.ko`, also compressed), a Debian package of modules or firmware
//! (`.deb`), or a firmware file (any other name).

use std::fmt;
use std::io::{Cursor, Read};

use crate::info::{ModuleInfo, parse_module};
use crate::package::{Entry, read_package};

/// The largest module or firmware file, uncompressed.
const FILE_LENGTH_MAX: u64 = 64 << 20;
/// Memory that decompressing xz may take: `-9` takes 65 MiB.
const XZ_MEMORY_MAX: u64 = 128 << 20;
/// Longest name of a file.
pub const NAME_LENGTH_MAX: usize = 200;

/// What is in a file of a driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A kernel module.
    Module {
        /// Name of its file, not compressed: `megaraid_sas.ko`.
        file: String,
        /// What it says of itself.
        info: ModuleInfo,
        /// The file, not compressed.
        content: Vec<u8>,
    },
    /// A firmware file.
    Firmware {
        /// Below the firmware folder, or without a folder where that is not known.
        name: String,
        /// Not compressed.
        content: Vec<u8>,
    },
    /// Another name of a firmware file.
    FirmwareLink {
        /// Below the firmware folder.
        name: String,
        /// The file that is meant, below the firmware folder.
        target: String,
    },
}

/// A file that is no driver, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverError(String);

impl DriverError {
    /// An error in these words.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DriverError {}

/// Whether a name, without folders, can be that of a driver's file: it is stored, sent and typed under it.
pub fn is_driver_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '~' | '%' | ':');
    !name.is_empty() && name.len() <= NAME_LENGTH_MAX && !name.starts_with(['.', '-']) && name.chars().all(plain)
}

/// Whether a path below the firmware folder stays there.
pub fn is_firmware_name(name: &str) -> bool {
    name.len() <= 4096
        && !name.chars().any(char::is_control)
        && !name.split('/').any(|part| matches!(part, "" | "." | ".."))
}

/// Calls `part` for each module and firmware file in the file `name` with the content `bytes`.
///
/// # Errors
/// What it is instead of a driver; the first that `part` returns.
pub fn read_driver(
    name: &str,
    bytes: &[u8],
    part: &mut dyn FnMut(Part) -> Result<(), DriverError>,
) -> Result<(), DriverError> {
    if name.ends_with(".deb") {
        let mut found = false;
        let wanted = |path: &str| module_file(path).is_some() || firmware_path(path).is_some();
        read_package(bytes, &wanted, &mut |path, entry| {
            let Some(made) = part_of(path, entry)? else { return Ok(()) };
            found = true;
            part(made)
        })?;
        return match found {
            true => Ok(()),
            false => {
                Err(DriverError::new("it holds neither modules nor firmware (source for DKMS has to be built first)"))
            }
        };
    }
    match module_file(name) {
        Some(_) => part(module(name, bytes)?),
        None => {
            let (plain, content) = uncompressed(name, bytes)?;
            part(Part::Firmware { name: plain.to_owned(), content })
        }
    }
}

fn part_of(path: &str, entry: Entry) -> Result<Option<Part>, DriverError> {
    let file = path.rsplit('/').next().unwrap_or(path);
    Ok(Some(match (firmware_path(path), entry) {
        (Some(below), Entry::File(bytes)) => {
            let (name, content) = uncompressed(below, &bytes)?;
            Part::Firmware { name: name.to_owned(), content }
        }
        (Some(below), Entry::Link(target)) => {
            let target = link_target(below, &target);
            let Some(target) = target.as_deref().map(plain_name).filter(|target| is_firmware_name(target)) else {
                return Ok(None);
            };
            Part::FirmwareLink { name: plain_name(below).to_owned(), target: target.to_owned() }
        }
        (None, Entry::File(bytes)) => module(file, &bytes)?,
        (None, Entry::Link(_)) => return Ok(None),
    }))
}

fn module(file: &str, bytes: &[u8]) -> Result<Part, DriverError> {
    let (file, content) = uncompressed(file, bytes)?;
    if !is_driver_name(file) {
        return Err(DriverError::new(format!("{file:?}: no name for a module")));
    }
    let info = parse_module(&content).map_err(|error| DriverError::new(format!("{file}: {error}")))?;
    Ok(Part::Module { file: file.to_owned(), info, content })
}

/// The file of a module at `path`.
fn module_file(path: &str) -> Option<&str> {
    let file = path.rsplit('/').next().unwrap_or(path);
    [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().any(|end| file.ends_with(end)).then_some(file)
}

/// The part of a package's path below the firmware folder.
fn firmware_path(path: &str) -> Option<&str> {
    let below = path.strip_prefix("usr/").unwrap_or(path).strip_prefix("lib/firmware/")?;
    is_firmware_name(plain_name(below)).then_some(below)
}

/// Where a link at `from`, below the firmware folder, leads to below it.
fn link_target(from: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return firmware_path(target.trim_start_matches('/')).map(str::to_owned);
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            // Out of the firmware folder.
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// A name without the suffix of its compression.
fn plain_name(name: &str) -> &str {
    [".xz", ".zst", ".gz"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// Debian's kernels unpack `.xz` by themselves and not `.zst`, others the other way round; so it is done here.
fn uncompressed<'a>(name: &'a str, bytes: &[u8]) -> Result<(&'a str, Vec<u8>), DriverError> {
    let plain = plain_name(name);
    let damaged = |error: std::io::Error| DriverError::new(format!("{name}: it cannot be decompressed: {error}"));
    let mut content = Vec::new();
    let mut input = decompressor(&name[plain.len()..], bytes)?.take(FILE_LENGTH_MAX + 1);
    input.read_to_end(&mut content).map_err(damaged)?;
    if content.len() as u64 > FILE_LENGTH_MAX {
        return Err(DriverError::new(format!("{name}: larger than {} MiB", FILE_LENGTH_MAX >> 20)));
    }
    Ok((plain, content))
}

/// Reads what is compressed as the suffix says.
pub(crate) fn decompressor<'a>(suffix: &str, bytes: &'a [u8]) -> Result<Box<dyn Read + 'a>, DriverError> {
    let failed = |what: &dyn fmt::Display| DriverError::new(format!("it cannot be decompressed: {what}"));
    Ok(match suffix {
        "" => Box::new(Cursor::new(bytes)),
        ".gz" => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        ".xz" => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_MAX, liblzma::stream::CONCATENATED);
            Box::new(liblzma::bufread::XzDecoder::new_stream(bytes, stream.map_err(|e| failed(&e))?))
        }
        ".zst" => Box::new(zstd::Decoder::with_buffer(bytes).map_err(|e| failed(&e))?),
        other => return Err(failed(&format_args!("{other} is not known"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::info::tests::module as made;
    use crate::package::tests::package;

    fn read(name: &str, bytes: &[u8]) -> Result<Vec<Part>, DriverError> {
        let mut parts = Vec::new();
        read_driver(name, bytes, &mut |part| {
            parts.push(part);
            Ok(())
        })?;
        Ok(parts)
    }

    fn told(parts: &[Part]) -> Vec<String> {
        let tell = |part: &Part| match part {
            Part::Module { file, info, .. } => format!("{file} for {}", info.release()),
            Part::Firmware { name, content } => format!("{name}: {}", content.len()),
            Part::FirmwareLink { name, target } => format!("{name} -> {target}"),
        };
        parts.iter().map(tell).collect()
    }

    #[test]
    fn a_module_is_read_from_its_own_file_and_from_a_package() {
        let module = made(&["name=x", "vermagic=6.1.0-25-amd64 SMP"]);
        let packed = zstd::encode_all(module.as_slice(), 1).unwrap();
        assert_eq!(told(&read("x.ko", &module).unwrap()), ["x.ko for 6.1.0-25-amd64"]);
        assert_eq!(told(&read("x.ko.zst", &packed).unwrap()), ["x.ko for 6.1.0-25-amd64"]);
        let files: [(&str, &[u8]); 5] = [
            ("lib/modules/6.1.0-25-amd64/updates/x.ko.zst", &packed),
            ("usr/lib/firmware/a/b.bin", b"abc"),
            ("usr/lib/firmware/a/c.bin", b"-> ../a/b.bin"),
            ("usr/lib/firmware/a/d.bin", b"-> ../../../../etc/shadow"),
            ("usr/share/doc/readme", b"x"),
        ];
        let parts = read("x.deb", &package(&files, ".xz")).unwrap();
        assert_eq!(told(&parts), ["x.ko for 6.1.0-25-amd64", "a/b.bin: 3", "a/c.bin -> a/b.bin"]);
    }

    #[test]
    fn what_is_no_driver_is_refused_with_the_reason() {
        let said = |name: &str, bytes: &[u8]| read(name, bytes).unwrap_err().to_string();
        assert!(said("x.ko", b"text").contains("x.ko: no kernel module for x86-64"));
        assert!(said("x.ko.xz", b"text").contains("cannot be decompressed"));
        assert!(said("x.deb", b"text").contains("no Debian package"));
        assert!(said("x.deb", &package(&[("usr/src/x-1/dkms.conf", b"x")], ".gz")).contains("DKMS"));
        assert_eq!(told(&read("bnx2.fw", b"text").unwrap()), ["bnx2.fw: 4"]);
    }

    #[test]
    fn names_that_lead_elsewhere_are_none() {
        for name in ["x.ko", "firmware-bnx2_20230210-5_all.deb", "a+b~1%3a.deb"] {
            assert!(is_driver_name(name), "{name}");
        }
        for name in ["", ".", "..", "../x.ko", "a/b", "a b", "-x", "é", "a\n"] {
            assert!(!is_driver_name(name), "{name:?}");
        }
        assert!(is_firmware_name("bnx2/a.fw") && !is_firmware_name("bnx2/../../a") && !is_firmware_name("/a"));
    }

    #[test]
    fn what_unpacks_to_more_than_memory_is_refused() {
        let bomb = zstd::encode_all(std::io::repeat(0).take(FILE_LENGTH_MAX + 1), 1).unwrap();
        assert!(read("x.bin.zst", &bomb).unwrap_err().to_string().contains("larger than 64 MiB"));
    }
}
