//! The bundle that takes the fix-ups of a guest's registry back: a registration file for each hive with every old value, and a
//! list of the files that were made or replaced; and what the plan leaves to the operator. It lies with the VM.

use std::fs;
use std::path::Path;

use guest::windows::reg_text::usual_prefix;
use guest::{Change, Direction, RegistryChange, State, registration};
use serde::Serialize;

use crate::error::Context;
use crate::fixup::FixUps;
use crate::{ErrorKind, Result};

/// Its folder, in the result's.
pub(crate) const FOLDER: &str = "undo";
/// What the operator reads first.
const READ_ME: &str = "\
The fix-ups changed the registry of this guest. Each .reg file here holds every value as it was before.

To take all of them back in a running guest: regedit /s SYSTEM.reg (those below ControlSetNNN need no restart of the hive,
but one of Windows). To take them back in the hive of a disk that does not run: vconverter registry merge SYSTEM SYSTEM.reg

undo.json lists each change by fix-up, and the files that were made (remove them) or replaced; of bytes outside of files it has the
old and the new ones with their place on the disk. What a removed key had besides values, its class and who may do what with it, is
not brought back.
";

/// A fix-up that was made.
#[derive(Serialize)]
struct Made<'f> {
    id: &'f str,
    title: &'f str,
    changes: &'f [Change],
}

/// Writes the bundle into `folder`, which need not exist; nothing where only files were changed.
pub(crate) fn write(fixups: &FixUps, folder: &Path) -> Result<()> {
    let is_done = |id: &str| fixups.applied.iter().any(|outcome| outcome.id == id && outcome.state == State::Done);
    let made: Vec<Made<'_>> = fixups
        .plan
        .fixups
        .iter()
        .filter(|fixup| is_done(&fixup.id))
        .map(|fixup| Made { id: &fixup.id, title: &fixup.title, changes: &fixup.changes })
        .collect();
    let mut hives: Vec<(&str, Vec<RegistryChange>)> = Vec::new();
    for change in made.iter().flat_map(|made| made.changes) {
        let Change::Registry { path, changes, .. } = change else { continue };
        match hives.iter_mut().find(|(known, _)| known == path) {
            Some((_, all)) => all.extend(changes.iter().cloned()),
            None => hives.push((path, changes.clone())),
        }
    }
    // What an earlier try left is of other changes.
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context(ErrorKind::Target, || folder.display().to_string());
        }
        _ => {}
    }
    let is_patch = |change: &Change| matches!(change, Change::Patch { .. });
    if hives.is_empty() && !made.iter().flat_map(|made| made.changes).any(is_patch) {
        return Ok(());
    }
    let write = |name: &str, content: &[u8]| {
        let file = folder.join(name);
        fs::write(&file, content).context(ErrorKind::Target, || file.display().to_string())
    };
    fs::create_dir_all(folder).context(ErrorKind::Target, || folder.display().to_string())?;
    for (path, changes) in hives {
        let name = path.rsplit('/').next().unwrap_or(path);
        write(&format!("{name}.reg"), registration(&changes, &usual_prefix(name), Direction::Back).as_bytes())?;
    }
    let json = serde_json::to_vec_pretty(&made).context(ErrorKind::Internal, || "undo.json".into())?;
    write("undo.json", &json)?;
    write("README.txt", read_me(&fixups.plan.warnings).as_bytes())
}

/// [`READ_ME`], with what the plan warned of.
fn read_me(warnings: &[String]) -> String {
    let heading =
        if warnings.is_empty() { "" } else { "\nWhat no fix-up could do, and is left to you or to be known:\n\n" };
    let lines: String = warnings.iter().map(|warning| format!("- {warning}\n")).collect();
    format!("{READ_ME}{heading}{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_to_the_operator_lies_with_the_vm() {
        assert_eq!(read_me(&[]), READ_ME);
        let text = read_me(&["nothing runs at its first boot".into(), "by hand: set the addresses".into()]);
        let end = "left to you or to be known:\n\n- nothing runs at its first boot\n- by hand: set the addresses\n";
        assert!(text.starts_with(READ_ME) && text.ends_with(end), "{text}");
    }
}
