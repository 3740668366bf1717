//! Drivers that the controller pushed: the agent puts them into a folder, a number for each time, and finds what became of
//! them beside it.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use crate::console::log;
use crate::installation::{DriverFile, FILE_BYTES_MAX, FILES_MAX, Outcome, TOTAL_BYTES_MAX, install};
use crate::{Error, Result};

/// Where the agent puts them.
pub const FOLDER: &str = "/run/vconverter/agent/drivers";
const PAUSE: Duration = Duration::from_millis(500);

/// Installs what the agent puts into the folder, for ever; `done` is called with what became of it each time.
pub fn run(done: &dyn Fn(&[Outcome])) -> ! {
    loop {
        for number in numbers(Path::new(FOLDER)) {
            take(Path::new(FOLDER), number, &install, done);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Folders that are complete, by their numbers.
fn numbers(folder: &Path) -> Vec<u64> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut numbers: Vec<u64> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

fn take(folder: &Path, number: u64, install: &dyn Fn(Vec<DriverFile>) -> Vec<Outcome>, done: &dyn Fn(&[Outcome])) {
    let place = folder.join(number.to_string());
    let outcomes = match load(&place) {
        Ok(files) => install(files),
        Err(error) => vec![Outcome { name: String::new(), installed: false, text: error.chain() }],
    };
    // The agent reports anew what is there when it reads this.
    done(&outcomes);
    let (answer, new) = (folder.join(format!("{number}.json")), folder.join(format!("{number}.new")));
    let json = serde_json::to_vec(&outcomes).unwrap_or_default();
    let written =
        fs::remove_dir_all(&place).and_then(|()| fs::write(&new, json)).and_then(|()| fs::rename(&new, &answer));
    if let Err(error) = written {
        log(Error::path("answer in", &answer, error).chain());
    }
}

fn load(folder: &Path) -> Result<Vec<DriverFile>> {
    let (mut files, mut room) = (Vec::new(), TOTAL_BYTES_MAX);
    let entries = fs::read_dir(folder).map_err(|e| Error::path("list", folder, e))?;
    for entry in entries.flatten().take(FILES_MAX) {
        let path = entry.path();
        let mut content = Vec::new();
        let bound = FILE_BYTES_MAX.min(room);
        let read = fs::File::open(&path).and_then(|file| file.take(bound + 1).read_to_end(&mut content));
        read.map_err(|e| Error::path("read", &path, e))?;
        if content.len() as u64 > bound {
            return Err(Error::new(format!("{}: too large", path.display())));
        }
        room -= content.len() as u64;
        files.push(DriverFile { name: entry.file_name().to_string_lossy().into_owned(), content });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pushed_is_installed_once_and_answered() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        fs::create_dir(place("7")).unwrap();
        fs::create_dir(place("new-8")).unwrap();
        fs::write(place("7").join("b.ko"), b"b").unwrap();
        fs::write(place("7").join("a.ko"), b"a").unwrap();
        assert_eq!(numbers(folder.path()), [7]);
        let install = |files: Vec<DriverFile>| {
            let outcome = |file: DriverFile| Outcome { name: file.name, installed: true, text: "loaded".into() };
            files.into_iter().map(outcome).collect()
        };
        take(folder.path(), 7, &install, &|outcomes| assert_eq!(outcomes.len(), 2));
        assert_eq!(numbers(folder.path()), [0; 0]);
        let answer = fs::read_to_string(place("7.json")).unwrap();
        assert_eq!(
            answer,
            r#"[{"name":"a.ko","installed":true,"text":"loaded"},{"name":"b.ko","installed":true,"text":"loaded"}]"#
        );
    }
}
