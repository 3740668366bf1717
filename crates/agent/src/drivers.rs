//! Drivers that the controller pushes to a machine in the boot image: their pieces are put together in a folder, whose
//! name becomes a number when all files are there. The boot image installs them and leaves what became of them beside it.
//!
//! Nothing is kept but in the memory of the boot image, and no more of it than is named here.

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;

use protocol::driver::{DriverOutcome, FILE_BYTES_MAX, FILES_MAX, PUSH_BYTES_MAX};
use protocol::piece::FilePiece;

use crate::Config;
use crate::pieces::{Bounds, Incoming, discard};

/// What became of a push, as JSON.
const OUTCOME_BYTES_MAX: u64 = 48 << 10;

/// The pushes of a session.
pub(crate) struct Drivers {
    folder: PathBuf,
    /// The push whose pieces come in.
    coming: Option<Incoming>,
    /// Pushes that the boot image is at.
    waiting: Vec<u64>,
}

const BOUNDS: Bounds = Bounds { files: FILES_MAX, file_bytes: FILE_BYTES_MAX, bytes: PUSH_BYTES_MAX };

impl Drivers {
    /// None yet; what an earlier session left unfinished is removed.
    pub(crate) fn new(config: &Config) -> Self {
        let drivers = Self { folder: config.state_dir.join("drivers"), coming: None, waiting: Vec::new() };
        for entry in fs::read_dir(&drivers.folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("new-") {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        drivers
    }

    /// Whether the boot image is at something.
    pub(crate) fn are_awaited(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes a piece. The answer to a piece that cannot be taken; further ones of its push are passed over.
    pub(crate) fn take(&mut self, piece: &FilePiece) -> Option<Vec<DriverOutcome>> {
        if self.coming.as_ref().is_none_or(|coming| coming.push < piece.push) {
            self.abandon();
            self.coming = Some(Incoming::new(piece.push, BOUNDS));
        }
        let folder = self.place(piece.push, true);
        let coming = self.coming.as_mut().filter(|coming| coming.push == piece.push && !coming.is_refused())?;
        let text = coming.take(&folder, piece).err()?;
        discard(&folder);
        Some(vec![DriverOutcome { name: piece.name.to_string(), installed: false, text }])
    }

    /// All files of a push are there. The answer, where the boot image is not even asked.
    pub(crate) fn install(&mut self, push: u64) -> Option<Vec<DriverOutcome>> {
        let coming = self.coming.take().filter(|coming| coming.push == push)?;
        if coming.is_refused() {
            return None;
        }
        drop(coming);
        match fs::rename(self.place(push, true), self.place(push, false)) {
            Ok(()) => {
                self.waiting.push(push);
                None
            }
            Err(error) => Some(refused(format!("the boot image cannot be asked: {error}"))),
        }
    }

    /// What became of pushes that the boot image is done with.
    pub(crate) fn outcomes(&mut self) -> Vec<(u64, Vec<DriverOutcome>)> {
        let mut done = Vec::new();
        for push in std::mem::take(&mut self.waiting) {
            let path = self.folder.join(format!("{push}.json"));
            let mut text = Vec::new();
            let read = File::open(&path).and_then(|file| file.take(OUTCOME_BYTES_MAX).read_to_end(&mut text));
            if read.is_err() {
                self.waiting.push(push);
                continue;
            }
            let _ = fs::remove_file(&path);
            let outcomes = serde_json::from_slice(&text);
            done.push((
                push,
                outcomes.unwrap_or_else(|error| refused(format!("no answer of the boot image: {error}"))),
            ));
        }
        done
    }

    fn place(&self, push: u64, is_new: bool) -> PathBuf {
        let start = if is_new { "new-" } else { "" };
        self.folder.join(format!("{start}{push}"))
    }

    fn abandon(&mut self) {
        if let Some(coming) = self.coming.take() {
            discard(&self.place(coming.push, true));
        }
    }
}

impl Drop for Drivers {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// About all files of a push.
pub(crate) fn refused(text: String) -> Vec<DriverOutcome> {
    vec![DriverOutcome { name: String::new(), installed: false, text }]
}

#[cfg(test)]
mod tests {
    use protocol::piece::FileName;

    use super::*;

    fn config(folder: &std::path::Path) -> Config {
        Config {
            controller: "a:1".into(),
            ca_fingerprint: None,
            enrol: None,
            enrolment: None,
            state_dir: folder.to_owned(),
            guest_facts: None,
            status_file: None,
            machine_disks: None,
            boot_path: None,
            disks: None,
            boot_image: Some(true),
            boot_medium: None,
        }
    }

    fn piece(push: u64, name: &str, offset: u64, content: &[u8]) -> FilePiece {
        let name = FileName::try_from(name.to_owned()).unwrap();
        FilePiece { push, name, offset, content: content.into() }
    }

    #[test]
    fn files_appear_whole_and_what_became_of_them_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut drivers = Drivers::new(&config(folder.path()));
        for part in [piece(1, "a.ko", 0, b"ab"), piece(1, "a.ko", 2, b"c"), piece(1, "b.deb", 0, b"d")] {
            assert_eq!(drivers.take(&part), None);
        }
        assert!(!folder.path().join("drivers/1").exists());
        assert_eq!(drivers.install(1), None);
        assert_eq!(fs::read(folder.path().join("drivers/1/a.ko")).unwrap(), b"abc");
        assert_eq!(fs::read(folder.path().join("drivers/1/b.deb")).unwrap(), b"d");
        assert!(drivers.outcomes().is_empty() && drivers.are_awaited());
        let answer = r#"[{"name":"a.ko","installed":true,"text":"a is loaded"}]"#;
        fs::write(folder.path().join("drivers/1.json"), answer).unwrap();
        let outcomes = drivers.outcomes();
        assert_eq!((outcomes.len(), outcomes[0].0, outcomes[0].1[0].text.as_str()), (1, 1, "a is loaded"));
        assert!(!drivers.are_awaited() && drivers.outcomes().is_empty());
    }

    #[test]
    fn a_push_with_a_gap_or_without_end_is_refused_once_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut drivers = Drivers::new(&config(folder.path()));
        assert_eq!(drivers.take(&piece(3, "a.ko", 0, b"ab")), None);
        let refused = drivers.take(&piece(3, "a.ko", 5, b"c")).unwrap();
        assert!(refused[0].text.contains("expected one at 2, found 5"), "{refused:?}");
        assert_eq!(drivers.take(&piece(3, "a.ko", 2, b"c")), None, "passed over");
        assert_eq!(drivers.install(3), None);
        assert!(!drivers.are_awaited());
        for n in 0..FILES_MAX {
            assert_eq!(drivers.take(&piece(4, &format!("{n}.ko"), 0, b"x")), None);
        }
        assert!(drivers.take(&piece(4, "one-more.ko", 0, b"x")).unwrap()[0].text.contains("more than 64 files"));
        drivers.take(&piece(5, "a.ko", 0, b"x"));
        drop(drivers);
        assert_eq!(fs::read_dir(folder.path().join("drivers")).unwrap().count(), 0);
    }
}
