//! The console's keymap: one of Debian's (package console-data), compiled for the kernel.

use std::path::{Path, PathBuf};

use crate::package::{files_below, find_folder};
use crate::tool::LOADKEYS;
use crate::{Error, ErrorKind, Result};

const FOLDER: (&str, &str) = ("/usr/share/keymaps/i386", "console-data");
const ENDING: &str = ".kmap.gz";
/// What `loadkeys --bkeymap` writes: its name, which of 256 tables follow, and those, of 128 keys each.
const MAGIC: &[u8] = b"bkeymap";
const TABLES: usize = 256;
const TABLE_BYTES: usize = 256;

/// Compiles the keymap of this name, `de-latin1`.
pub(crate) fn compile_keymap(name: &str, progress: &mut dyn FnMut(&str)) -> Result<Vec<u8>> {
    let source = find(name, &find_folder(FOLDER.0, FOLDER.1, progress)?)?;
    let mut command = LOADKEYS.command()?;
    let compiled = LOADKEYS.output(command.args(["--quiet", "--unicode", "--bkeymap"]).arg(&source))?;
    match is_keymap(&compiled) {
        true => Ok(compiled),
        false => Err(Error::new(ErrorKind::ToolFailed, format!("loadkeys made no keymap of {}", source.display()))),
    }
}

fn find(name: &str, folder: &Path) -> Result<PathBuf> {
    let wrong = |what: String| Error::new(ErrorKind::InvalidConfiguration, format!("keymap {name:?}: {what}"));
    let maps = files_below(folder, &|file| file.ends_with(ENDING))?;
    let named = |path: &PathBuf| path.file_name().is_some_and(|file| file == format!("{name}{ENDING}").as_str());
    match maps.iter().find(|path| named(path)) {
        Some(path) => Ok(path.clone()),
        None => {
            let names = maps.iter().filter_map(|path| path.file_name()?.to_str()?.strip_suffix(ENDING));
            let start: String = name.chars().take(2).collect();
            let like: Vec<&str> = names.filter(|known| !start.is_empty() && known.starts_with(&start)).collect();
            let examples = if like.is_empty() { "de-latin1, fr-latin9, uk or us".into() } else { like.join(", ") };
            Err(wrong(format!("there is none of this name: expected one as {examples}")))
        }
    }
}

fn is_keymap(bytes: &[u8]) -> bool {
    let tables = || bytes.strip_prefix(MAGIC)?.split_at_checked(TABLES);
    tables().is_some_and(|(present, tables)| {
        let count = present.iter().filter(|present| **present != 0).count();
        count > 0 && tables.len() == count * TABLE_BYTES
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_keymap_is_compiled_and_an_unknown_one_is_told_with_those_like_it() {
        let compiled = compile_keymap("de-latin1", &mut |line| println!("{line}")).unwrap();
        // The key that says y on an American keyboard (21) says z in the plain table, which is the first.
        let key = |number: usize| compiled[MAGIC.len() + TABLES + 2 * number];
        assert_eq!((key(21), key(44)), (b'z', b'y'));
        let unknown = compile_keymap("de-latin2", &mut |_| {}).unwrap_err();
        assert!(unknown.kind == ErrorKind::InvalidConfiguration && unknown.context.contains("de-latin1"), "{unknown}");
        for wrong in ["", "../../etc/passwd", "de*"] {
            assert_eq!(compile_keymap(wrong, &mut |_| {}).unwrap_err().kind, ErrorKind::InvalidConfiguration);
        }
    }
}
