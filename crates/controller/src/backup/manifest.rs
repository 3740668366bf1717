//! The manifest of a backup: its first member, which says what follows.

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result, Timestamp};

/// The member's name.
pub(super) const MANIFEST: &str = "manifest.json";
/// What the database is called in an archive.
pub(super) const DATABASE: &str = "controller.db";
/// Longest manifest.
pub(super) const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// Files of an archive: the driver library, and some keys.
pub(super) const FILES_MAX: usize = 2048;
/// All their contents.
const CONTENT_BYTES_MAX: u64 = 96 << 30;
/// Longest path of a file.
const PATH_BYTES_MAX: usize = 255;
/// Folders of a path, with the file.
const PATH_DEPTH_MAX: usize = 4;
/// Revision of the archive. 1: tar in zstd, the manifest first, then the files in its order.
const FORMAT: u32 = 1;

/// What is in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Revision of the archive's format.
    pub vconverter_backup: u32,
    /// The program that made it.
    pub program: String,
    /// Version of the database's schema.
    pub schema: u32,
    /// When.
    pub created_at: Timestamp,
    /// Whether the driver library is in it; otherwise a restore leaves the one that is there.
    pub drivers: bool,
    /// The files, in the order in which they follow.
    pub files: Vec<KeptFile>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFile {
    /// Below the data directory, such as `identity/ca.pem`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the content, lower case.
    pub sha256: String,
}

impl Manifest {
    pub(super) fn new(schema: u32, drivers: bool, files: Vec<KeptFile>) -> Result<Self> {
        let program = env!("CARGO_PKG_VERSION").to_owned();
        let manifest =
            Self { vconverter_backup: FORMAT, program, schema, created_at: Timestamp::now(), drivers, files };
        manifest.check().map_err(|why| Error::new(ErrorKind::Conflict, format!("backup: {why}")))?;
        Ok(manifest)
    }

    /// A manifest that this program can read and whose files lie where those of a controller do.
    ///
    /// # Errors
    /// [`ErrorKind::NewerSchema`] for a format or a schema of the future, [`ErrorKind::Storage`] for what is none.
    pub(super) fn parse(json: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Revision {
            vconverter_backup: u32,
            program: String,
        }
        let wrong =
            |why: String| Error::new(ErrorKind::Storage, format!("{MANIFEST}: expected that of a backup: {why}"));
        let revision: Revision = serde_json::from_slice(json).map_err(|e| wrong(e.to_string()))?;
        if revision.vconverter_backup != FORMAT {
            let context = format!(
                "expected archive format {FORMAT}, found {}: it was written by vconverter {}",
                revision.vconverter_backup,
                revision.program.escape_default()
            );
            return Err(Error::new(ErrorKind::NewerSchema, context));
        }
        let manifest: Self = serde_json::from_slice(json).map_err(|e| wrong(e.to_string()))?;
        manifest.check().map_err(wrong)?;
        let known = crate::store::schema_known();
        if manifest.schema > known {
            let context = format!(
                "expected schema version {known} or older, found {}: it was written by vconverter {}",
                manifest.schema,
                manifest.program.escape_default()
            );
            return Err(Error::new(ErrorKind::NewerSchema, context));
        }
        Ok(manifest)
    }

    fn check(&self) -> std::result::Result<(), String> {
        if self.files.len() > FILES_MAX {
            return Err(format!("{} files, at most {FILES_MAX} are read", self.files.len()));
        }
        let mut seen = std::collections::HashSet::new();
        let mut size: u64 = 0;
        for file in &self.files {
            let shown = file.path.escape_default();
            if !is_kept(&file.path) {
                return Err(format!("{shown} is no file of a controller's state"));
            }
            if file.path.starts_with("drivers/") && !self.drivers {
                return Err(format!("{shown} in an archive without drivers"));
            }
            let is_hash = file.sha256.len() == 64 && file.sha256.bytes().all(|b| b.is_ascii_hexdigit());
            if !is_hash {
                return Err(format!("{shown} without a checksum"));
            }
            if !seen.insert(&file.path) {
                return Err(format!("{shown} stands twice"));
            }
            size = size.checked_add(file.size).filter(|size| *size <= CONTENT_BYTES_MAX).ok_or("it is too large")?;
        }
        match seen.contains(&DATABASE.to_owned()) {
            true => Ok(()),
            false => Err("there is no database in it".into()),
        }
    }
}

/// Whether a path is one of a controller's state, and leads nowhere else.
fn is_kept(path: &str) -> bool {
    if path == DATABASE {
        return true;
    }
    let parts: Vec<&str> = path.split('/').collect();
    let sound = |part: &&str| {
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    path.len() <= PATH_BYTES_MAX
        && parts.len() <= PATH_DEPTH_MAX
        && parts.iter().all(sound)
        && parts.first().is_some_and(|top| crate::data_directory::KEPT.contains(top))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> KeptFile {
        KeptFile { path: path.into(), size: 1, sha256: "a".repeat(64) }
    }

    fn parse(files: Vec<KeptFile>) -> Result<Manifest> {
        let mut manifest = Manifest::new(1, true, vec![file(DATABASE)]).unwrap();
        manifest.files = files;
        Manifest::parse(&serde_json::to_vec(&manifest).unwrap())
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        parse(vec![file(DATABASE), file("identity/ca.pem"), file("drivers/a.ko"), file("credentials.key")]).unwrap();
        for path in [
            "../etc/passwd",
            "/etc/passwd",
            "identity/../../x",
            "identity//x",
            "identity/",
            "identity/.x",
            "controller.lock",
            "controller.db-wal",
            "identity/a\0b",
            "drivers/a/b/c/d",
            "",
        ] {
            let error = parse(vec![file(DATABASE), file(path)]).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Storage, "{path:?}: {error}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let large = KeptFile { size: u64::MAX, ..file("drivers/a") };
        let unsummed = KeptFile { sha256: "x".repeat(64), ..file("drivers/a") };
        for files in [
            vec![],
            vec![file("identity/ca.pem")],
            vec![file(DATABASE), file(DATABASE)],
            vec![file(DATABASE), large],
            vec![file(DATABASE), unsummed],
            (0..=FILES_MAX).map(|n| file(&format!("drivers/{n}"))).chain([file(DATABASE)]).collect(),
        ] {
            let error = parse(files).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Storage, "{error}");
        }
    }

    #[test]
    fn one_of_the_future_is_named_as_such() {
        let mut manifest = Manifest::new(1, true, vec![file(DATABASE)]).unwrap();
        manifest.schema = 1000;
        let error = Manifest::parse(&serde_json::to_vec(&manifest).unwrap()).unwrap_err();
        assert!(error.kind == ErrorKind::NewerSchema && error.to_string().contains("found 1000"), "{error}");
        let error = Manifest::parse(br#"{"vconverter_backup": 2, "program": "9.0", "other": []}"#).unwrap_err();
        assert!(error.kind == ErrorKind::NewerSchema && error.to_string().contains("vconverter 9.0"), "{error}");
    }
}
