//! What is different between the files of two disks: file by file, and key by key in hives.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{ran, vconverter};

pub(crate) fn is_hive(path: &str) -> bool {
    ["SYSTEM", "SOFTWARE", "BCD"].iter().any(|hive| path.ends_with(&format!("/{hive}")))
}

/// Every file below a folder with its content, hives as the text of a registration file.
pub(crate) fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(here) = folders.pop() {
        for entry in fs::read_dir(&here).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            let content = match is_hive(&name) {
                true => ran(vconverter().args(["registry", "export"]).arg(&path).output().unwrap()).into_bytes(),
                false => fs::read(&path).unwrap(),
            };
            found.insert(name, content);
        }
    }
    found
}

/// Files that were made, changed and removed; of hives, the lines that differ, under their keys.
pub(crate) fn differences(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) -> String {
    let mut text = String::new();
    for (name, content) in after {
        match before.get(name) {
            None => text.push_str(&format!("made {name}\n")),
            Some(old) if old == content => {}
            Some(_) if content.is_empty() => text.push_str(&format!("emptied {name}\n")),
            Some(old) => {
                text.push_str(&format!("changed {name}\n"));
                if is_hive(name) {
                    text.push_str(&lines(&String::from_utf8_lossy(old), &String::from_utf8_lossy(content)));
                }
            }
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        text.push_str(&format!("removed {name}\n"));
    }
    text
}

/// Values by their keys, of the text of a registration file.
pub(crate) fn values(text: &str) -> BTreeMap<&str, BTreeMap<&str, String>> {
    let (mut keys, mut key, mut last): (BTreeMap<&str, BTreeMap<&str, String>>, _, _) = (BTreeMap::new(), "", "");
    for line in text.lines().skip(1) {
        if line.starts_with('[') {
            key = line;
            keys.entry(key).or_default();
        } else if let Some(rest) = line.strip_prefix("  ") {
            keys.get_mut(key).unwrap().get_mut(last).unwrap().push_str(rest);
        } else if !line.is_empty() {
            let end = line.find("\"=").map_or(1, |at| at + 1);
            last = &line[..end];
            keys.get_mut(key).unwrap().insert(last, line[end..].to_owned());
        }
    }
    keys
}

pub(crate) fn lines(before: &str, after: &str) -> String {
    let (before, after) = (values(before), values(after));
    let mut text = String::new();
    for key in before.keys().chain(after.keys()).collect::<std::collections::BTreeSet<_>>() {
        let (old, new) = (before.get(key), after.get(key));
        if old == new {
            continue;
        }
        let sign = match (old, new) {
            (None, _) => "+",
            (_, None) => "-",
            _ => " ",
        };
        text.push_str(&format!("  {sign}{key}\n"));
        let empty = BTreeMap::new();
        let (old, new) = (old.unwrap_or(&empty), new.unwrap_or(&empty));
        for name in old.keys().chain(new.keys()).collect::<std::collections::BTreeSet<_>>() {
            if old.get(name) != new.get(name) {
                let show = |sign: &str, data: Option<&String>| {
                    data.map_or(String::new(), |data| format!("   {sign}{name}{data}\n"))
                };
                text.push_str(&show("-", old.get(name)));
                text.push_str(&show("+", new.get(name)));
            }
        }
    }
    text
}
