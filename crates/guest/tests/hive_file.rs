//! A hive as a file with its logs: found in any case, and old or new after whatever stops its writing.

#![allow(clippy::unwrap_used)]

#[path = "../src/windows/hive/marvin32.rs"]
mod marvin32;
#[allow(unreachable_pub, reason = "fuzz targets share it")]
#[path = "../../../fuzz/small_hive.rs"]
mod small_hive;
mod support;

/// What the hash of entries reads its words with.
mod field {
    pub(super) fn le32(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }
}

use std::io;

use guest::windows::hive::{Data, Filetime, Hive, State, Unfinished, file};
use guest::{Directory, Error, ErrorKind, FileTree, MemoryTree, WritableTree};
use machine::files::{Entry, Metadata};
use support::{hive, logs, test_data, unpack};

const NOW: Filetime = Filetime(0x01db_0000_0000_0000);
const CONFIG: &str = "/Windows/System32/config/NTUSER.DAT";

/// A tree whose machine stops after some changes: nothing more is changed, every call says so.
struct Stops {
    tree: MemoryTree,
    left: usize,
}

impl Stops {
    fn step(&mut self) -> guest::Result<()> {
        let left = self.left.checked_sub(1).ok_or_else(|| Error::io("stopped", io::ErrorKind::BrokenPipe))?;
        self.left = left;
        Ok(())
    }
}

impl FileTree for Stops {
    fn metadata(&self, path: &str) -> io::Result<Option<Metadata>> {
        self.tree.metadata(path)
    }

    fn read(&self, path: &str, max: u64) -> io::Result<Option<Vec<u8>>> {
        self.tree.read(path, max)
    }

    fn read_at(&self, path: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.tree.read_at(path, offset, buffer)
    }

    fn list(&self, path: &str) -> io::Result<Vec<Entry>> {
        self.tree.list(path)
    }

    fn read_link(&self, path: &str) -> io::Result<Option<String>> {
        self.tree.read_link(path)
    }
}

impl WritableTree for Stops {
    fn replace(&mut self, path: &str, contents: &[u8], mode: u32) -> guest::Result<()> {
        self.step()?;
        self.tree.replace(path, contents, mode)
    }

    fn append(&mut self, path: &str, size: u64, contents: &[u8]) -> guest::Result<()> {
        self.step()?;
        self.tree.append(path, size, contents)
    }

    fn remove(&mut self, path: &str) -> guest::Result<()> {
        self.step()?;
        self.tree.remove(path)
    }

    fn symlink(&mut self, path: &str, target: &str) -> guest::Result<()> {
        self.step()?;
        self.tree.symlink(path, target)
    }

    fn sync(&mut self) -> guest::Result<()> {
        self.step()
    }
}

fn dirty_tree(data: &std::path::Path) -> MemoryTree {
    let name = "hives/NTUSER-dirty";
    let logs = logs(data, name);
    MemoryTree::new()
        .with(CONFIG, unpack(data, name))
        .with("/Windows/System32/config/ntuser.dat.Log1", &logs[0])
        .with("/Windows/System32/config/NTUSER.DAT.LOG2", &logs[1])
        .with("/Windows/System32/config/NTUSER.DAT.LOG12", "not a log")
        .with("/Windows/System32/config/ANTUSER.DAT.LOG1", "of another")
}

fn edited(tree: &dyn FileTree) -> Hive {
    let mut hive = file::open(tree, CONFIG, Unfinished::Refuse).unwrap();
    let mut edit = hive.edit(NOW).unwrap();
    edit.set_value("Software", "vconverter", &Data::sz("was here")).unwrap();
    assert!(edit.commit().unwrap());
    hive
}

fn mark(hive: &Hive) -> Option<String> {
    hive.open("Software").unwrap().unwrap().text("vconverter").unwrap()
}

#[test]
fn logs_are_found_in_any_case_and_are_empty_after_a_write() {
    let Some(data) = test_data() else { return };
    let mut tree = dirty_tree(&data);
    assert_eq!(file::log_paths(&tree, CONFIG).unwrap().len(), 2);
    let mut hive = edited(&tree);
    let State::Replayed(replay) = hive.state() else { panic!("{:?}", hive.state()) };
    file::write(&mut tree, CONFIG, &mut hive, NOW).unwrap();
    for log in file::log_paths(&tree, CONFIG).unwrap() {
        assert_eq!(tree.metadata(&log).unwrap().unwrap().size, 0, "{log}");
    }
    assert_eq!(tree.text("/Windows/System32/config/NTUSER.DAT.LOG12").unwrap().as_deref(), Some("not a log"));
    let again = file::open(&tree, CONFIG, Unfinished::Refuse).unwrap();
    assert_eq!((again.state(), mark(&again).as_deref()), (State::Clean, Some("was here")));
    assert!(again.sequences().0 > replay.sequence && again.sequences().0 == again.sequences().1);
}

#[test]
fn wherever_a_write_stops_the_hive_is_the_old_one_or_the_new_one() {
    let Some(data) = test_data() else { return };
    let before = dirty_tree(&data);
    let (mut old, mut new) = (0, 0);
    for left in 0.. {
        let mut tree = Stops { tree: before.clone(), left };
        let mut hive = edited(&tree);
        let written = file::write(&mut tree, CONFIG, &mut hive, NOW);
        let found = file::open(&tree.tree, CONFIG, Unfinished::Refuse).unwrap();
        match mark(&found) {
            None => {
                old += 1;
                assert!(matches!(found.state(), State::Replayed(_)), "its logs are still there");
            }
            Some(_) => {
                new += 1;
                assert_eq!(found.state(), State::Clean);
            }
        }
        if written.is_ok() {
            println!("{old} stops left the old hive, {new} the new one");
            break;
        }
    }
    assert!(old >= 1 && new >= 3);
}

#[test]
fn a_full_filesystem_leaves_the_old_hive_with_its_logs() {
    let Some(data) = test_data() else { return };
    let mut tree = dirty_tree(&data).with_room(0);
    let mut hive = edited(&tree);
    let mut edit = hive.edit(NOW).unwrap();
    edit.set_value("Software", "long", &Data::binary(vec![1; 1 << 20])).unwrap();
    edit.commit().unwrap();
    let error = file::write(&mut tree, CONFIG, &mut hive, NOW).unwrap_err();
    println!("{error}");
    let found = file::open(&tree, CONFIG, Unfinished::Refuse).unwrap();
    assert_eq!(mark(&found), None);
}

#[test]
fn what_an_earlier_crash_left_in_the_folder_is_no_hive() {
    let Some(data) = test_data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("BCD");
    let bytes = unpack(&data, "hives/BCD-win10-uefi");
    std::fs::write(&path, &bytes).unwrap();
    std::fs::write(folder.path().join(".BCD.new"), &bytes[..5000]).unwrap();
    let mut tree = Directory::open(folder.path()).unwrap();
    let mut hive = file::open(&tree, "/BCD", Unfinished::Refuse).unwrap();
    let mut edit = hive.edit(NOW).unwrap();
    edit.create_key("Objects\\x").unwrap();
    edit.commit().unwrap();
    file::write(&mut tree, "/BCD", &mut hive, NOW).unwrap();
    let found = file::open(&tree, "/BCD", Unfinished::Refuse).unwrap();
    assert!(found.open("Objects\\x").unwrap().is_some());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(file::open(&tree, "/none", Unfinished::Refuse).unwrap_err().kind, ErrorKind::Missing);
}

#[test]
fn a_written_hive_is_base_block_and_bins_and_nothing_else() {
    let Some(data) = test_data() else { return };
    let mut hive = hive(&data, "hives/SYSTEM-win7sp1-x86-clean");
    let (before, bins) = (hive.sequences().0, hive.bins_bytes().to_vec());
    let bytes = hive.to_file(NOW);
    assert_eq!(bytes.len(), 4096 + bins.len());
    assert!(bytes[4096..] == bins);
    let again = Hive::load(bytes, &[], Unfinished::Refuse).unwrap();
    assert_eq!((again.state(), again.sequences()), (State::Clean, (before + 1, before + 1)));
}

/// A log of `kind` (1: pages; 6: entries) that says how many bytes the bins of the small hive have.
fn log_of(kind: u8, bins_size: u32, small: &[u8]) -> Vec<u8> {
    let mut log = small[..512].to_vec();
    (log[4], log[8], log[28]) = (2, 2, kind);
    log[40..44].copy_from_slice(&bins_size.to_le_bytes());
    let sum = (0..508).step_by(4).fold(0, |sum, at| sum ^ field::le32(&log, at));
    log[508..512].copy_from_slice(&sum.to_le_bytes());
    if kind == 1 {
        log.extend(b"DIRT\x01");
        log.resize((516 + bins_size as usize / 4096).next_multiple_of(512), 0);
        log.extend(&small[4096..4608]);
        return log;
    }
    let mut head = b"HvLE".to_vec();
    for field in [512, 0, 2, bins_size, 0u32] {
        head.extend(field.to_le_bytes());
    }
    head.extend(marvin32::hash(&[0; 472]).to_le_bytes());
    head.extend(marvin32::hash(&head).to_le_bytes());
    head.resize(512, 0);
    [log, head].concat()
}

#[test]
fn a_short_log_takes_no_memory_for_a_long_hive() {
    let small = small_hive::small_hive();
    for kind in [1, 6] {
        let hive = Hive::load(small.clone(), &[log_of(kind, 4096, &small)], Unfinished::Refuse).unwrap();
        assert!(matches!(hive.state(), State::Replayed(_)), "{:?}", hive.state());
        for bins_size in [64 << 20, 512 << 20] {
            let log = log_of(kind, bins_size, &small);
            let error = Hive::load(small.clone(), &[log], Unfinished::Refuse).unwrap_err();
            println!("{kind}: {bins_size} bytes of bins: {error}");
            // Else it would be one that is damaged after its logs.
            assert_eq!(error.kind, ErrorKind::Missing);
        }
    }
}
