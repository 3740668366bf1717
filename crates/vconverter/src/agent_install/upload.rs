//! The agent's program at the other end, for the time of a connection.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bootimage::Programs;

use super::login::Reached;
use super::said::plain;
use super::script::quoted;
use crate::failure::{Code, Failure, Result};

/// The program's name.
const AGENT: &str = "vconverter-agent";

/// Brings the agent's program to a folder in which it can run, and has it say that it came over whole.
pub(super) fn upload(reached: &mut Reached) -> Result<PathBuf> {
    let own = Programs::beside_executable()?.find(AGENT)?;
    let content = fs::read(&own).map_err(|e| Failure::file(&format!("{}", own.display()), &e))?;
    let expected =
        Command::new(&own).arg("--version").output().map_err(|e| Failure::io(&format!("{}", own.display()), &e))?;
    let expected = String::from_utf8_lossy(&expected.stdout).trim().to_owned();
    let folder = find_folder(reached, content.len())?;
    let program = folder.join(AGENT);
    reached.tell("copy", &format!("{} KiB to {}", content.len().div_ceil(1024), folder.display()))?;

    let name = quoted(&program.display().to_string());
    let ended = reached.connection.run(&format!("cat > {name}"), &content)?;
    if !ended.status.success() {
        return Err(uncopied(reached, &folder, &ended.said));
    }
    let ended = reached.connection.run(&format!("chmod 700 {name} && {name} --version"), b"")?;
    let said = ended.lines.join("\n");
    if said.trim() != expected {
        let why = if ended.said.trim().is_empty() { said } else { ended.said };
        let text =
            format!("{}: the agent's program did not come over whole, or does not run: {}", reached.host, plain(&why));
        return Err(Failure::new(Code::Failed, text));
    }
    Ok(program)
}

fn uncopied(reached: &Reached, folder: &Path, said: &str) -> Failure {
    let why = match said.contains("No space left") {
        true => format!("no space is left in {}", folder.display()),
        false => format!("the agent's program could not be copied to {}: {}", folder.display(), plain(said)),
    };
    Failure::new(Code::Failed, format!("{}: {why}", reached.host))
}

/// Has the keeper make a folder where a program of that size can be and run.
fn find_folder(reached: &mut Reached, bytes: usize) -> Result<PathBuf> {
    let unique = format!(
        "{:x}{:x}",
        std::process::id(),
        std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos()
    );
    let order = format!("place vconverter-{unique} {}", bytes.div_ceil(1024) + 64);
    let said = reached.connection.order(&order, &["place ", "nowhere"])?;
    let mut refused = Vec::new();
    for line in &said {
        if let Some(place) = line.strip_prefix("place ") {
            // What a script there says goes into commands: no more than a path.
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
            if place.starts_with('/') && place.chars().all(is_plain) {
                return Ok(place.into());
            }
            return Err(Failure::new(Code::Failed, format!("{}: a folder of a strange name: {place:?}", reached.host)));
        }
        if let Some(why) = line.strip_prefix("no ") {
            reached.tell("look", why)?;
            refused.push(why.to_owned());
        }
    }
    let text = format!(
        "{}: there is no folder in which the agent's program could be and run: {}",
        reached.host,
        refused.join("; ")
    );
    Err(Failure::new(Code::Refused, text))
}
