//! The agent's last status in a file, for whoever looks at an agent that has no screen: `vconverter-agent status`.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Takes status lines as a [`Screen`](crate::Screen) writes them, and keeps the last. In the journal, where systemd has
/// connected one to standard error, all are kept but those that only count.
pub struct StatusFile {
    path: PathBuf,
    journal: bool,
}

impl StatusFile {
    /// A file that is replaced with each status.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), journal: std::env::var_os("JOURNAL_STREAM").is_some() }
    }

    /// The agent ends: why.
    pub fn end(&self, detail: &str) {
        let status = serde_json::json!({ "status": "ended", "detail": detail });
        let _ = self.keep(status.to_string().as_bytes());
    }

    /// Whoever reads it finds the old or the new one.
    fn keep(&self, line: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("json.new");
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(line)?;
        fs::rename(&new, &self.path)
    }
}

/// A screen writes one line at a time.
impl Write for StatusFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let counts = [&b"{\"status\":\"copying\""[..], b"{\"status\":\"verifying\""];
        if self.journal && !counts.iter().any(|count| line.starts_with(count)) {
            let _ = io::stderr().write_all(line);
        }
        // A full disk keeps no agent from its work.
        let _ = self.keep(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Screen, Status};

    #[test]
    fn the_last_status_is_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.json");
        let read = || fs::read_to_string(&path).unwrap();
        let screen = Screen::new(StatusFile::new(&path));
        screen.show(Status::Connecting { detail: "x".into() });
        assert_eq!(read(), "{\"status\":\"connecting\",\"detail\":\"x\"}\n");
        screen.show(Status::Ready);
        assert_eq!(read(), "{\"status\":\"ready\"}\n");
        StatusFile::new(&path).end("no token");
        assert_eq!(read(), "{\"detail\":\"no token\",\"status\":\"ended\"}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
