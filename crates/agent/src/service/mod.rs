//! The agent installs itself on a machine's own system, or runs once without being installed, and takes itself away again.
//!
//! Everything is a [`plan::Plan`] first: files, folders, links and commands, which can be shown and which is applied as a
//! whole or not at all. What is made: the program, a folder with configuration and state, and what the init system wants
//! (`systemd`, `sysv`, `openrc`). Nothing else of the machine is changed, no package manager is asked, and no disk is looked at.

mod arguments;
mod background;
mod installation;
mod openrc;
mod plan;
mod removal;
mod state;
mod system;
mod systemd;
mod sysv;
#[cfg(test)]
mod tests;
mod transaction;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::error::chain;
use crate::{Error, ErrorKind, Result};
use arguments::{Action, Arguments};
use system::System;

/// The words that begin a command line of this module; any other is that of the agent at work.
const WORDS: [&str; 6] = ["install", "remove", "status", "background", "end", "--version"];

/// How it is called.
const USAGE: &str =
    "usage: vconverter-agent install --controller HOST:PORT [--ca-fingerprint HEX] [--enrol FILE|-] [--once]
                                [--dry-run] [--root DIR] [--disk PATH]... [--keep-within SECONDS] [--json]
       vconverter-agent remove [--dry-run] [--root DIR] [--json]
       vconverter-agent status [--root DIR]
       vconverter-agent --version";

/// Does what the command line (without the program's name) says where that is about installing; `None` where the agent is
/// to work.
pub fn command(arguments: &[String]) -> Option<ExitCode> {
    let word = arguments.first().filter(|word| WORDS.contains(&word.as_str()))?;
    let parsed = Arguments::parse(word, &arguments[1..]);
    let json = parsed.as_ref().is_ok_and(|parsed| parsed.json);
    let outcome = parsed.and_then(|parsed| run(&parsed));
    Some(match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if json {
                say(&serde_json::json!({ "event": "failed", "message": chain(&error) }).to_string());
            }
            let _ = writeln!(std::io::stderr(), "vconverter-agent: {}", error.chain());
            ExitCode::from(if error.kind == ErrorKind::Config { 2 } else { 1 })
        }
    })
}

fn run(arguments: &Arguments) -> Result<()> {
    let system = System::new(arguments.root.as_deref());
    match &arguments.action {
        Action::Install(wish) if arguments.dry_run => {
            let plan = installation::plan(&system, wish)?;
            told(arguments, &plan.to_string(), &plan.steps.iter().map(ToString::to_string).collect::<Vec<_>>())
        }
        Action::Install(wish) => transaction::install(&system, wish, arguments.json),
        Action::Remove if arguments.dry_run => {
            let steps: Vec<String> = removal::plan(&system)?.iter().map(ToString::to_string).collect();
            told(arguments, &steps.iter().map(|step| format!("{step}\n")).collect::<String>(), &steps)
        }
        Action::Remove => remove(&system, arguments.json),
        Action::Status => {
            let status = serde_json::to_string_pretty(&state::Installed::load(&system));
            say(&status.map_err(|e| Error::new(ErrorKind::Service, "status").because(e))?);
            Ok(())
        }
        Action::Background { config } => background::start_unless_running(&system.program(), config),
        Action::End { config } => background::end_all(config).map(drop),
        Action::Version => {
            say(&state::version(Path::new("/proc/self/exe")));
            Ok(())
        }
    }
}

/// A dry run: the plan, for people or for programs.
fn told(arguments: &Arguments, text: &str, steps: &[String]) -> Result<()> {
    match arguments.json {
        true => say(&serde_json::json!({ "event": "plan", "steps": steps }).to_string()),
        false => say(text.trim_end()),
    }
    Ok(())
}

fn remove(system: &System, json: bool) -> Result<()> {
    let removed = removal::apply(&removal::plan(system)?, system)?;
    if json {
        say(&serde_json::json!({ "event": "removed", "removed": removed }).to_string());
    } else if removed.is_empty() {
        say("nothing of the agent is here");
    } else {
        removed.iter().for_each(|step| say(step));
    }
    Ok(())
}

/// One line on standard output; nobody listening (the connection was cut) is no error.
fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}
