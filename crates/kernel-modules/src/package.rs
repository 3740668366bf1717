//! Files of a Debian package, without dpkg: the boot image has none, and a package that came over a network is not for a
//! program that writes wherever it says.
//!
//! A package (deb(5)) is an ar archive of `debian-binary`, `control.tar…` and `data.tar…`; the last is a tar archive
//! (POSIX.1-1988 ustar, with GNU's long names and the paths of pax headers), plain or compressed with gzip, xz or zstd.

use std::io::{self, Read};

use crate::driver::{DriverError, decompressor};

const AR_MAGIC: &[u8] = b"!<arch>\n";
const AR_HEADER: usize = 60;
const BLOCK: usize = 512;
/// Members of the ar archive: three, and room for extensions.
const MEMBERS_MAX: usize = 16;
/// The largest packages of kernel modules hold some thousand files, firmware-nonfree some ten thousand.
const ENTRIES_MAX: usize = 200_000;
/// All files together, wanted or not.
const UNPACKED_MAX: u64 = 4 << 30;
/// The largest module of Debian's kernels has 7 MiB, the largest firmware file 30.
const FILE_LENGTH_MAX: u64 = 64 << 20;
const PATH_LENGTH_MAX: u64 = 4096;

/// What stands at a path of a package.
pub(crate) enum Entry {
    /// A file with this content.
    File(Vec<u8>),
    /// A symbolic or hard link to this, as it is written; a hard link's begins with `/`.
    Link(String),
}

/// Calls `file` for each file and link of `package` whose path, without `./` before it, `wanted` takes.
pub(crate) fn read_package(
    package: &[u8],
    wanted: &dyn Fn(&str) -> bool,
    file: &mut dyn FnMut(&str, Entry) -> Result<(), DriverError>,
) -> Result<(), DriverError> {
    let mut rest = package.strip_prefix(AR_MAGIC).ok_or_else(|| wrong("it does not begin as one"))?;
    for _ in 0..MEMBERS_MAX {
        let Some((header, behind)) = rest.split_at_checked(AR_HEADER) else { break };
        let text = |range: std::ops::Range<usize>| std::str::from_utf8(&header[range]).unwrap_or_default().trim_end();
        let length: usize = text(48..58).parse().map_err(|_| wrong("its ar header is damaged"))?;
        let content = behind.get(..length).ok_or_else(|| wrong("it is cut off"))?;
        let name = text(0..16).trim_end_matches('/');
        if let Some(compression) = name.strip_prefix("data.tar") {
            let mut unpacked = decompressor(compression, content)?;
            return read_tar(&mut *unpacked, wanted, file);
        }
        rest = behind.get(length.next_multiple_of(2)..).unwrap_or_default();
    }
    Err(wrong("it holds no data.tar"))
}

fn wrong(what: &str) -> DriverError {
    DriverError::new(format!("no Debian package: {what}"))
}

/// A field of octal digits, or of base 256 for large values (GNU).
fn number(field: &[u8]) -> Option<u64> {
    if let [first, rest @ ..] = field
        && first & 0x80 != 0
    {
        let start = u64::from(first & 0x7f);
        return rest.iter().try_fold(start, |number, &byte| number.checked_mul(256)?.checked_add(byte.into()));
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

fn read_tar(
    input: &mut dyn Read,
    wanted: &dyn Fn(&str) -> bool,
    file: &mut dyn FnMut(&str, Entry) -> Result<(), DriverError>,
) -> Result<(), DriverError> {
    let mut budget = UNPACKED_MAX;
    let (mut long_path, mut long_target) = (None, None);
    for _ in 0..ENTRIES_MAX {
        let mut header = [0; BLOCK];
        input.read_exact(&mut header).map_err(|error| damaged(&error))?;
        if header == [0; BLOCK] {
            return Ok(());
        }
        let sum: u64 =
            header.iter().enumerate().map(|(at, &b)| u64::from(if (148..156).contains(&at) { b' ' } else { b })).sum();
        if number(&header[148..156]) != Some(sum) {
            return Err(wrong("a header of its tar archive is damaged"));
        }
        let size = number(&header[124..136]).ok_or_else(|| wrong("a size in its tar archive is damaged"))?;
        let padded = size.checked_next_multiple_of(BLOCK as u64);
        budget =
            padded.and_then(|padded| budget.checked_sub(padded)).ok_or_else(|| wrong("its files are too large"))?;
        let padding = padding_behind(size);
        match header[156] {
            b'L' => long_path = Some(text(&content(input, size, padding, PATH_LENGTH_MAX)?)),
            b'K' => long_target = Some(text(&content(input, size, padding, PATH_LENGTH_MAX)?)),
            b'x' => {
                let records = content(input, size, padding, 16 * PATH_LENGTH_MAX)?;
                long_path = pax(&records, "path").or(long_path);
                long_target = pax(&records, "linkpath").or(long_target);
            }
            kind => {
                let (path, target) = (long_path.take(), long_target.take());
                let path = path.unwrap_or_else(|| ustar_path(&header));
                let path = path.trim_start_matches("./");
                let is_wanted = !path.split('/').any(|part| matches!(part, "" | "." | "..")) && wanted(path);
                match kind {
                    b'0' | 0 | b'7' if is_wanted => {
                        file(path, Entry::File(content(input, size, padding, FILE_LENGTH_MAX)?))?;
                    }
                    b'1' | b'2' if is_wanted => {
                        let target = target.unwrap_or_else(|| text(&header[157..257]));
                        let target =
                            if kind == b'1' { format!("/{}", target.trim_start_matches("./")) } else { target };
                        skip(input, size + padding)?;
                        file(path, Entry::Link(target))?;
                    }
                    _ => skip(input, size + padding)?,
                }
            }
        }
    }
    Err(wrong("it holds too many files"))
}

/// Bytes behind a content of `size` up to the next block.
fn padding_behind(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn ustar_path(header: &[u8; BLOCK]) -> String {
    let (name, prefix) = (text(&header[..100]), text(&header[345..500]));
    // GNU's own format (magic with a blank) has other things where ustar has the prefix.
    if prefix.is_empty() || header[257..263] != *b"ustar\0" { name } else { format!("{prefix}/{name}") }
}

/// The value of a pax record, `LENGTH KEY=VALUE\n`.
fn pax(records: &[u8], wanted: &str) -> Option<String> {
    let mut rest = records;
    let mut found = None;
    while let Some(blank) = rest.iter().position(|&byte| byte == b' ') {
        let length: usize = std::str::from_utf8(&rest[..blank]).ok()?.parse().ok()?;
        let record = rest.get(blank + 1..length)?;
        if let Some((key, value)) = String::from_utf8_lossy(record).trim_end_matches('\n').split_once('=')
            && key == wanted
        {
            found = Some(value.to_owned());
        }
        rest = rest.get(length..)?;
    }
    found
}

fn content(input: &mut dyn Read, size: u64, padding: u64, size_max: u64) -> Result<Vec<u8>, DriverError> {
    if size > size_max {
        return Err(wrong(&format!("a file in it has {size} bytes, the limit is {size_max}")));
    }
    let mut bytes = Vec::new();
    // Grows with what is there, not with what is announced.
    input.take(size).read_to_end(&mut bytes).map_err(|error| damaged(&error))?;
    if (bytes.len() as u64) < size {
        return Err(wrong("it is cut off"));
    }
    skip(input, padding)?;
    Ok(bytes)
}

fn skip(input: &mut dyn Read, length: u64) -> Result<(), DriverError> {
    let skipped = io::copy(&mut input.take(length), &mut io::sink()).map_err(|error| damaged(&error))?;
    if skipped == length { Ok(()) } else { Err(wrong("it is cut off")) }
}

fn damaged(error: &io::Error) -> DriverError {
    wrong(&format!("its content is damaged: {error}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(path: &str, kind: u8, size: usize, target: &str) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..path.len()].copy_from_slice(path.as_bytes());
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        block[156] = kind;
        block[157..157 + target.len()].copy_from_slice(target.as_bytes());
        block[257..263].copy_from_slice(b"ustar\0");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }

    fn entry(path: &str, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = header(path, kind, content.len(), "");
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    /// A package with these files; a content of the form `-> x` makes a link.
    pub(crate) fn package(files: &[(&str, &[u8])], compression: &str) -> Vec<u8> {
        let mut tar = entry("./", b'5', b"");
        for (path, content) in files {
            let path = format!("./{path}");
            if path.len() > 100 {
                tar.extend(entry("././@LongLink", b'L', format!("{path}\0").as_bytes()));
            }
            let short = &path[..path.len().min(100)];
            match content.strip_prefix(b"-> ") {
                Some(target) => tar.extend(header(short, b'2', 0, std::str::from_utf8(target).unwrap())),
                None => tar.extend(entry(short, b'0', content)),
            }
        }
        tar.extend([0; 2 * BLOCK]);
        let data = match compression {
            "" => tar,
            ".zst" => zstd::encode_all(tar.as_slice(), 3).unwrap(),
            ".xz" => {
                let mut packed = Vec::new();
                liblzma::read::XzEncoder::new(tar.as_slice(), 1).read_to_end(&mut packed).unwrap();
                packed
            }
            _ => {
                let mut packed = Vec::new();
                flate2::read::GzEncoder::new(tar.as_slice(), flate2::Compression::fast())
                    .read_to_end(&mut packed)
                    .unwrap();
                packed
            }
        };
        let mut bytes = AR_MAGIC.to_vec();
        for (name, content) in
            [("debian-binary", b"2.0\n".as_slice()), ("control.tar", b"x"), (&format!("data.tar{compression}"), &data)]
        {
            bytes.extend(
                format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).as_bytes(),
            );
            bytes.extend(content);
            bytes.resize(bytes.len().next_multiple_of(2), b'\n');
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, DriverError> {
        let mut found = Vec::new();
        read_package(bytes, &|path| path.starts_with("lib/"), &mut |path, entry| {
            let content = match entry {
                Entry::File(content) => content,
                Entry::Link(target) => format!("-> {target}").into_bytes(),
            };
            found.push((path.to_owned(), content));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn files_are_read_whatever_they_are_compressed_with() {
        let long = format!("lib/modules/{}/x.ko", "a".repeat(200));
        let files: [(&str, &[u8]); 4] = [
            ("lib/firmware/a.bin", b"abc"),
            ("usr/share/doc/x", b"no"),
            (&long, &[7; 1000]),
            ("lib/firmware/b", b"-> a.bin"),
        ];
        for compression in ["", ".gz", ".xz", ".zst"] {
            let found = read(&package(&files, compression)).unwrap();
            let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["lib/firmware/a.bin", long.as_str(), "lib/firmware/b"], "{compression}");
            assert_eq!(
                (found[0].1.as_slice(), found[1].1.len(), found[2].1.as_slice()),
                (&b"abc"[..], 1000, &b"-> a.bin"[..])
            );
        }
    }

    #[test]
    fn paths_that_lead_out_are_passed_over_and_damage_is_told() {
        assert_eq!(read(&package(&[("lib/../etc/passwd", b"x"), ("lib//a", b"x")], "")).unwrap(), []);
        let whole = package(&[("lib/a", &[1; 5000])], ".zst");
        assert!(read(&whole[..whole.len() - 20]).unwrap_err().to_string().contains("cut off"));
        assert!(read(b"!<arch>\n").is_err() && read(b"MZ").is_err());
        let mut plain = package(&[("lib/a", &[1; 5000])], "");
        let at = plain.windows(5).position(|w| w == b"lib/a").unwrap();
        plain[at] = b'L';
        assert!(read(&plain).unwrap_err().to_string().contains("header"));
    }

    #[test]
    fn what_dpkg_makes_is_read() {
        let folder = std::env::temp_dir().join(format!("vconverter-package-{}", std::process::id()));
        let root = folder.join("root");
        std::fs::create_dir_all(root.join("DEBIAN")).unwrap();
        std::fs::create_dir_all(root.join("lib/firmware").join("d".repeat(120))).unwrap();
        std::fs::write(
            root.join("DEBIAN/control"),
            "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x.example>\nDescription: x\n",
        )
        .unwrap();
        std::fs::write(root.join("lib/firmware").join("d".repeat(120)).join("f.bin"), b"content").unwrap();
        let made = std::process::Command::new("dpkg-deb").arg("-b").arg(&root).arg(folder.join("x.deb")).output();
        let found = read(&std::fs::read(folder.join("x.deb")).unwrap()).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(made.is_ok_and(|made| made.status.success()));
        assert_eq!(found, [(format!("lib/firmware/{}/f.bin", "d".repeat(120)), b"content".to_vec())]);
    }

    proptest! {
        #[test]
        fn damage_anywhere_never_panics(at in 0usize..4000, value in any::<u8>(), cut in 0usize..4000) {
            let mut bytes = package(&[("lib/a", b"content"), ("lib/b", b"-> a")], "");
            let at = at % bytes.len();
            bytes[at] = value;
            bytes.truncate(cut.max(at));
            let _ = read(&bytes);
        }
    }
}
