//! The archive of a backup: tar (ustar, POSIX.1-1988) in zstd, so that `tar --zstd -tf` shows it.
//!
//! The manifest is the first member; the others are files in its order, with the sizes and the checksums that it says.
//! Nothing else is read: no link, folder or name of tar's own says where a file goes.

use std::io::{self, Read, Write};

use ring::digest::{Context, SHA256};
use tar::{Archive, Builder, EntryType, Header};

use super::manifest::{KeptFile, MANIFEST, MANIFEST_BYTES_MAX, Manifest};
use crate::{Error, ErrorKind, Result};

/// Of zstd: 3 is its own default.
const LEVEL: i32 = 3;
/// Largest window of zstd that is decoded: 128 MiB, what its own tool takes.
const WINDOW_LOG_MAX: u32 = 27;
/// What may follow the last member: zeros of a tar.
const TRAILER_BYTES_MAX: u64 = 64 << 10;
/// Longest name of a plain ustar member; a longer path stands in the manifest alone.
const NAME_BYTES_MAX: usize = 100;
const COPY_BYTES: usize = 256 << 10;

/// Writes an archive.
pub(super) struct Writer<W: Write>(Builder<zstd::Encoder<'static, W>>);

impl<W: Write> Writer<W> {
    /// Begins with the manifest.
    pub(super) fn new(output: W, manifest: &Manifest) -> io::Result<Self> {
        let mut encoder = zstd::Encoder::new(output, LEVEL)?;
        encoder.include_checksum(true)?;
        let mut writer = Self(Builder::new(encoder));
        let json = serde_json::to_vec_pretty(manifest)?;
        writer.append(MANIFEST, json.len() as u64, json.as_slice())?;
        Ok(writer)
    }

    /// Adds the next file of the manifest; its content must be what the manifest says.
    pub(super) fn file(&mut self, number: usize, file: &KeptFile, content: impl Read) -> io::Result<()> {
        let name = match file.path.len() <= NAME_BYTES_MAX {
            true => file.path.clone(),
            false => format!("file-{number}"),
        };
        // The header stands already: what is shorter would put the rest out of step.
        match self.append(&name, file.size, content)?.is(file) {
            true => Ok(()),
            false => Err(io::Error::other(format!("{} was changed meanwhile", file.path))),
        }
    }

    fn append<R: Read>(&mut self, name: &str, size: u64, content: R) -> io::Result<Summed<io::Take<R>>> {
        let mut header = Header::new_ustar();
        header.set_path(name)?;
        header.set_size(size);
        header.set_mode(0o600);
        header.set_entry_type(EntryType::Regular);
        header.set_cksum();
        let mut summed = Summed::new(content.take(size));
        self.0.append(&header, &mut summed)?;
        Ok(summed)
    }

    pub(super) fn finish(self) -> io::Result<W> {
        self.0.into_inner()?.finish()
    }
}

/// Takes what is in an archive.
pub(super) trait Sink {
    /// The next file; what it does not read is read for it. It is not to be believed before [`read`] returns.
    fn file(&mut self, file: &KeptFile, content: &mut dyn Read) -> Result<()>;
}

/// Reads an archive to its end. When it returns, every file was as the manifest says.
///
/// # Errors
/// [`ErrorKind::Storage`] for what is damaged or none, those of [`Manifest::parse`] and of `sink`.
pub(super) fn read(archive: impl Read, sink: &mut dyn Sink) -> Result<Manifest> {
    let mut decoder = zstd::Decoder::new(archive).map_err(damaged)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(damaged)?;
    read_tar(&mut decoder, sink)
}

/// Reads what is in the zstd.
pub(super) fn read_tar(tar: &mut dyn Read, sink: &mut dyn Sink) -> Result<Manifest> {
    let mut archive = Archive::new(tar);
    // Raw: extensions for long names and sparse files, whose lengths the archive says, are not looked at.
    let mut members = archive.entries().map_err(damaged)?.raw(true);
    let mut next = |named: &str| -> Result<_> {
        let member = members.next().ok_or_else(|| cut_short(named))?.map_err(damaged)?;
        if member.header().entry_type() != EntryType::Regular {
            return Err(Error::new(ErrorKind::Storage, format!("damaged: {named} is no file")));
        }
        Ok(member)
    };
    let first = next(MANIFEST)?;
    if first.path_bytes().as_ref() != MANIFEST.as_bytes() || first.size() > MANIFEST_BYTES_MAX {
        return Err(Error::new(ErrorKind::Storage, format!("expected a backup, which begins with {MANIFEST}")));
    }
    let mut json = Vec::new();
    first.take(MANIFEST_BYTES_MAX).read_to_end(&mut json).map_err(damaged)?;
    let manifest = Manifest::parse(&json)?;
    for file in &manifest.files {
        let member = next(&file.path)?;
        if member.size() != file.size {
            let context = format!("damaged: {}: expected {} bytes, found {}", file.path, file.size, member.size());
            return Err(Error::new(ErrorKind::Storage, context));
        }
        let mut summed = Summed::new(member);
        sink.file(file, &mut summed)?;
        io::copy(&mut summed, &mut io::sink()).map_err(damaged)?;
        if !summed.is(file) {
            return Err(Error::new(ErrorKind::Storage, format!("damaged: {}: wrong checksum", file.path)));
        }
    }
    if members.next().is_some() {
        return Err(Error::new(ErrorKind::Storage, "damaged: more in it than its manifest says"));
    }
    // The checksum of zstd stands at the very end.
    let rest = io::copy(&mut archive.into_inner().take(TRAILER_BYTES_MAX), &mut io::sink()).map_err(damaged)?;
    match rest < TRAILER_BYTES_MAX {
        true => Ok(manifest),
        false => Err(Error::new(ErrorKind::Storage, "damaged: more in it than its manifest says")),
    }
}

/// A reader that knows what it has read.
struct Summed<R> {
    inner: R,
    context: Context,
    bytes: u64,
}

impl<R: Read> Summed<R> {
    fn new(inner: R) -> Self {
        Self { inner, context: Context::new(&SHA256), bytes: 0 }
    }

    fn is(&self, file: &KeptFile) -> bool {
        self.bytes == file.size && hex(self.context.clone()) == file.sha256.to_ascii_lowercase()
    }
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.context.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

/// Size and SHA-256 of a content.
pub(super) fn sum(mut content: impl Read) -> io::Result<(u64, String)> {
    let mut summed = Summed::new(&mut content);
    let mut buffer = vec![0; COPY_BYTES];
    while summed.read(&mut buffer)? > 0 {}
    Ok((summed.bytes, hex(summed.context)))
}

fn hex(context: Context) -> String {
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn damaged(error: io::Error) -> Error {
    Error::with(ErrorKind::Storage, "damaged, or no backup", error)
}

fn cut_short(named: &str) -> Error {
    Error::new(ErrorKind::Storage, format!("damaged: it ends before {named}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps what it gets.
    #[derive(Default)]
    struct Kept(Vec<(String, Vec<u8>)>);

    impl Sink for Kept {
        fn file(&mut self, file: &KeptFile, content: &mut dyn Read) -> Result<()> {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).map_err(damaged)?;
            self.0.push((file.path.clone(), bytes));
            Ok(())
        }
    }

    fn archive(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let kept: Vec<KeptFile> = files
            .iter()
            .map(|(path, content)| {
                let (size, sha256) = sum(content.as_slice()).unwrap();
                KeptFile { path: (*path).into(), size, sha256 }
            })
            .collect();
        let manifest = Manifest::new(1, true, kept).unwrap();
        let mut writer = Writer::new(Vec::new(), &manifest).unwrap();
        for (number, (file, (_, content))) in manifest.files.iter().zip(files).enumerate() {
            writer.file(number, file, content.as_slice()).unwrap();
        }
        writer.finish().unwrap()
    }

    fn sample() -> Vec<(&'static str, Vec<u8>)> {
        let long = "drivers/".to_owned() + &"x".repeat(200);
        let noise: Vec<u8> = (0..3000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        vec![
            ("controller.db", noise),
            ("identity/ca.pem", Vec::new()),
            (Box::leak(long.into_boxed_str()), b"a driver of a long name".to_vec()),
        ]
    }

    #[test]
    fn what_was_put_in_comes_out() {
        let files = sample();
        let mut kept = Kept::default();
        let manifest = read(archive(&files).as_slice(), &mut kept).unwrap();
        assert_eq!(manifest.files.len(), 3);
        let expected: Vec<(String, Vec<u8>)> = files.into_iter().map(|(path, bytes)| (path.into(), bytes)).collect();
        assert_eq!(kept.0, expected);
    }

    #[test]
    fn tar_lists_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.tar.zst");
        std::fs::write(&path, archive(&sample())).unwrap();
        let listed = std::process::Command::new("sh")
            .args(["-c", "zstd -dc \"$1\" | tar -tf -", "sh", path.to_str().unwrap()])
            .output()
            .unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        assert_eq!(text.lines().collect::<Vec<_>>(), [MANIFEST, "controller.db", "identity/ca.pem", "file-2"]);
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_seen() {
        let whole = archive(&sample());
        let expected: Vec<(String, Vec<u8>)> = sample().into_iter().map(|(path, bytes)| (path.into(), bytes)).collect();
        for length in 0..whole.len() {
            assert!(read(&whole[..length], &mut Kept::default()).is_err(), "cut to {length} of {}", whole.len());
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x41;
            // What a decoder need not look at, such as the size of zstd's window, changes nothing.
            let mut kept = Kept::default();
            if read(changed.as_slice(), &mut kept).is_ok() {
                assert_eq!(kept.0, expected, "byte {at}");
            }
        }
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_no_backup() {
        let (size, sha256) = sum(b"before".as_slice()).unwrap();
        let file = KeptFile { path: "controller.db".into(), size, sha256 };
        let manifest = Manifest::new(1, true, vec![file.clone()]).unwrap();
        for content in ["behind", "bef", ""] {
            let mut writer = Writer::new(Vec::new(), &manifest).unwrap();
            let error = writer.file(0, &file, content.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("changed meanwhile"), "{error}");
        }
    }
}
