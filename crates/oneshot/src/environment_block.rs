//! GRUB's environment block (GRUB manual 2.06, "The GRUB environment block"; `grub-core/lib/envblk.c` says the bytes): a file of 1024 bytes, a
//! signature line, lines `name=value` in which a backslash guards itself and the end of a line, then `#` up to the end.
//!
//! GRUB writes it through a list of blocks that it made when it read the file, so it is only ever changed in place here.

use crate::{Error, ErrorKind, Result};

/// Size of the file.
pub(crate) const BLOCK_BYTES: usize = 1024;
const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";
/// Most variables in one.
const VARIABLES_MAX: usize = 512;

/// The variable that says which entry is started next, once.
pub(crate) const NEXT_ENTRY: &[u8] = b"next_entry";
/// Variables that GRUB, and what tells it of a good start, write by themselves.
const BOOKKEEPING: [&[u8]; 7] = [
    b"prev_saved_entry",
    b"recordfail",
    b"boot_once",
    b"boot_success",
    b"boot_indeterminate",
    b"menu_show_once",
    b"menu_hide_ok",
];

/// The variables of a block, in its order. Comment lines are kept as names without a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EnvironmentBlock {
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Variable(Vec<u8>, Vec<u8>),
    /// Anything else, as it was.
    Other(Vec<u8>),
}

/// Reads a block.
///
/// # Errors
/// Its size, its signature, or lines without end.
pub(crate) fn parse(block: &[u8]) -> Result<EnvironmentBlock> {
    if block.len() != BLOCK_BYTES {
        return Err(malformed(format!("expected {BLOCK_BYTES} bytes, found {}", block.len())));
    }
    let Some(mut rest) = block.strip_prefix(SIGNATURE) else {
        return Err(malformed("at 0: expected its signature line".to_owned()));
    };
    let mut lines = Vec::new();
    while !rest.is_empty() {
        // The filling has no end of line.
        if rest.iter().all(|b| *b == b'#') {
            break;
        }
        if lines.len() == VARIABLES_MAX {
            return Err(malformed(format!("expected at most {VARIABLES_MAX} lines")));
        }
        let at = BLOCK_BYTES - rest.len();
        let end = line_end(rest).ok_or_else(|| malformed(format!("at {at}: expected the end of a line")))?;
        lines.push(parse_line(&rest[..end]));
        rest = &rest[end + 1..];
    }
    Ok(EnvironmentBlock { lines })
}

/// Where the line ends that `bytes` begin with: a guarded end of line belongs to it.
fn line_end(bytes: &[u8]) -> Option<usize> {
    let mut is_guarded = false;
    bytes.iter().position(|byte| {
        let ends = *byte == b'\n' && !is_guarded;
        is_guarded = *byte == b'\\' && !is_guarded;
        ends
    })
}

fn parse_line(line: &[u8]) -> Line {
    let equals = line.iter().position(|b| *b == b'=');
    match equals {
        Some(equals) if line[0] != b'#' => {
            let mut value = Vec::new();
            let mut is_guarded = false;
            for byte in &line[equals + 1..] {
                if *byte == b'\\' && !is_guarded {
                    is_guarded = true;
                } else {
                    is_guarded = false;
                    value.push(*byte);
                }
            }
            Line::Variable(line[..equals].to_vec(), value)
        }
        _ => Line::Other(line.to_vec()),
    }
}

impl EnvironmentBlock {
    /// The value of a variable.
    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.lines.iter().find_map(|line| match line {
            Line::Variable(n, value) if n == name => Some(value.as_slice()),
            _ => None,
        })
    }

    /// Gives a variable a value; a new one comes last, as GRUB does it.
    pub(crate) fn set(&mut self, name: &[u8], value: &[u8]) {
        let old = self.lines.iter_mut().find_map(|line| match line {
            Line::Variable(n, old) if n == name => Some(old),
            _ => None,
        });
        match old {
            Some(old) => *old = value.to_vec(),
            None => self.lines.push(Line::Variable(name.to_vec(), value.to_vec())),
        }
    }

    /// Takes a variable away.
    pub(crate) fn remove(&mut self, name: &[u8]) {
        self.lines.retain(|line| !matches!(line, Line::Variable(n, _) if n == name));
    }

    /// As it is in the file.
    ///
    /// # Errors
    /// It does not fit into 1024 bytes.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut block = SIGNATURE.to_vec();
        for line in &self.lines {
            match line {
                Line::Variable(name, value) => {
                    block.extend(name);
                    block.push(b'=');
                    for byte in value {
                        if matches!(byte, b'\\' | b'\n') {
                            block.push(b'\\');
                        }
                        block.push(*byte);
                    }
                }
                Line::Other(line) => block.extend(line),
            }
            block.push(b'\n');
        }
        if block.len() > BLOCK_BYTES {
            return Err(malformed(format!("expected at most {BLOCK_BYTES} bytes, found {}", block.len())));
        }
        block.resize(BLOCK_BYTES, b'#');
        Ok(block)
    }

    /// Names of the variables whose values differ, `next_entry` and what GRUB keeps there for itself left out.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let names = |block: &Self| -> Vec<Vec<u8>> {
            let names = block.lines.iter().filter_map(|line| match line {
                Line::Variable(name, _) => Some(name.clone()),
                Line::Other(_) => None,
            });
            names.collect()
        };
        let mut all = names(self);
        all.extend(names(other));
        all.sort_unstable();
        all.dedup();
        all.retain(|name| name != NEXT_ENTRY && !BOOKKEEPING.contains(&name.as_slice()));
        all.retain(|name| self.get(name) != other.get(name));
        all.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }
}

fn malformed(what: String) -> Error {
    Error::new(ErrorKind::Malformed, format!("environment block: {what}"))
}

/// For the fuzzer: what is read can be written, and says the same again.
pub fn fuzz_environment_block(bytes: &[u8]) {
    let Ok(mut block) = parse(bytes) else { return };
    let written = block.to_bytes().ok();
    if let Some(written) = &written {
        assert!(parse(written).is_ok_and(|again| again == block));
    }
    block.set(NEXT_ENTRY, b"vconverter-boot-image");
    if let Ok(written) = block.to_bytes() {
        assert_eq!(parse(&written).ok().as_ref().and_then(|b| b.get(NEXT_ENTRY)), Some(&b"vconverter-boot-image"[..]));
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn editenv(file: &std::path::Path, arguments: &[&str]) -> String {
        let output =
            Command::new("grub-editenv").arg(file).args(arguments).output().expect("grub-editenv (grub-common)");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn grub_reads_what_is_written_and_what_it_writes_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("grubenv");
        editenv(&file, &["create"]);
        editenv(&file, &["set", "saved_entry=Debian GNU/Linux \\ \\\\x", "a=b=c"]);
        let theirs = std::fs::read(&file).unwrap();
        let mut block = parse(&theirs).unwrap();
        assert_eq!(block.to_bytes().unwrap(), theirs);
        assert_eq!(block.get(b"a"), Some(&b"b=c"[..]));
        block.set(NEXT_ENTRY, b"vconverter-boot-image");
        std::fs::write(&file, block.to_bytes().unwrap()).unwrap();
        let listed = editenv(&file, &["list"]);
        println!("{listed}");
        assert!(listed.contains("next_entry=vconverter-boot-image\n") && listed.contains("saved_entry=Debian"));
        editenv(&file, &["unset", "next_entry"]);
        assert_eq!(std::fs::read(&file).unwrap(), theirs);
        block.remove(NEXT_ENTRY);
        assert_eq!(block.to_bytes().unwrap(), theirs);
    }

    #[test]
    fn a_full_block_takes_no_more() {
        let mut block = parse(&[SIGNATURE, &[b'#'; 999]].concat()).unwrap();
        block.set(b"saved_entry", &[b'x'; 970]);
        assert!(block.to_bytes().is_ok());
        block.set(NEXT_ENTRY, b"vconverter-boot-image");
        assert!(block.to_bytes().unwrap_err().chain().contains("at most 1024"));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let block = [SIGNATURE, b"a=b", &[b'#'; 996]].concat();
        for wrong in [&block[..], &block[..1023], &[b'#'; 1024], b""] {
            println!("{}", parse(wrong).unwrap_err().chain());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_parse_without_panic(lines: Vec<u8>, fill in 0_usize..1024) {
            let mut block = [SIGNATURE, &lines, b"\nsaved_entry=a\\\\b\n"].concat();
            block.resize(fill.max(block.len()).min(1024), b'#');
            block.resize(1024, b'#');
            fuzz_environment_block(&block);
            fuzz_environment_block(&lines);
        }
    }
}
