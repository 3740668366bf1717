//! `vconverter registry`: the registry hives of Windows, as files.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use guest::windows::hive::{Check, Filetime, Hive, KeyPath, Severity, State, Unfinished, file};
use guest::windows::reg_text::{self, Action, Encoding, Export, Merge};
use serde_json::json;

use crate::failure::{Code, Failure, Result};
use crate::hive_file::{HiveFile, failure};
use crate::table::plain;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vconverter registry check SYSTEM
  vconverter registry export SYSTEM 'ControlSet001\\Services\\Disk'
  vconverter registry export SOFTWARE -o software.reg
  vconverter registry merge SYSTEM fix.reg --dry-run

A hive is a file such as Windows/System32/config/SYSTEM; its logs (.LOG, .LOG1, .LOG2, in any case) are found beside it
and replayed first. `check` and `export` change nothing. `merge` writes a new file that takes the hive's name when it is
whole, and then empties the logs.")]
pub(crate) struct Registry {
    #[command(subcommand)]
    pub(crate) action: RegistryAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RegistryAction {
    /// Print a key and everything below it as regedit exports it
    Export(ExportKey),
    /// Make the changes of a registration file (.reg)
    Merge(MergeFile),
    /// Look at a hive's whole structure; the exit code is 1 where it is damaged
    Check(CheckHive),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vconverter registry export SYSTEM 'ControlSet001\\Services\\Disk'
  vconverter registry export SYSTEM CurrentControlSet -o current.reg
  vconverter registry export ntuser.dat Software -o user.reg --prefix 'HKEY_USERS\\S-1-5-21-1'
  vconverter registry export broken --salvage -o whole.reg

A file is written as regedit does (UTF-16, CR LF); to the terminal it is UTF-8. CurrentControlSet stands for the control
set that the hive says was in use.")]
pub(crate) struct ExportKey {
    /// The hive's file
    #[arg(value_name = "HIVE")]
    hive: PathBuf,
    /// The key within the hive [default: all of it]
    #[arg(value_name = "KEY", default_value = "", hide_default_value = true)]
    key: String,
    /// Write to this file [default: print]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long, short)]
    force: bool,
    /// The place of the hive in the registry [default: the usual one for its file's name]
    #[arg(long, value_name = "KEY")]
    prefix: Option<String>,
    /// Export what can be read of a damaged hive, and say what cannot
    #[arg(long)]
    salvage: bool,
    /// Read a hive whose last write did not end and of which no log is there, if it is not damaged
    #[arg(long)]
    as_it_is: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vconverter registry merge SYSTEM fix.reg --dry-run
  vconverter registry merge SYSTEM fix.reg
  vconverter registry merge ntuser.dat user.reg --prefix 'HKEY_USERS\\S-1-5-21-1'

All changes are made, or none. Every key of the file has to be below the place of the hive; in a SYSTEM hive
HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet is the control set that was in use. A damaged hive is not changed.")]
pub(crate) struct MergeFile {
    /// The hive's file
    #[arg(value_name = "HIVE")]
    hive: PathBuf,
    /// The registration file, version 5 or REGEDIT4
    #[arg(value_name = "FILE.reg")]
    file: PathBuf,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// The place of the hive in the registry [default: the usual one for its file's name]
    #[arg(long, value_name = "KEY")]
    prefix: Option<String>,
    /// Change a hive whose last write did not end and of which no log is there, if it is not damaged
    #[arg(long)]
    as_it_is: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vconverter registry check SYSTEM
  vconverter registry check SOFTWARE --json

Damage is what Windows loses or misreads; such a hive is exported with --salvage and never changed. A note is what Windows
lives with.")]
pub(crate) struct CheckHive {
    /// The hive's file
    #[arg(value_name = "HIVE")]
    hive: PathBuf,
}

pub(crate) fn registry(registry: &Registry, json: bool) -> Result<()> {
    match &registry.action {
        RegistryAction::Export(arguments) => export(arguments),
        RegistryAction::Merge(arguments) => merge(arguments, json),
        RegistryAction::Check(arguments) => check(arguments, json),
    }
}

/// The place of the hive in the registry: as asked for, or the usual one for its file's name.
fn prefix(place: &HiveFile, asked: Option<&String>) -> KeyPath {
    asked.map_or_else(|| reg_text::usual_prefix(place.path.trim_start_matches('/')), reg_text::full_path)
}

fn export(arguments: &ExportKey) -> Result<()> {
    let place = HiveFile::of(&arguments.hive)?;
    let (hive, wrong) = if arguments.salvage {
        let files = place.files()?;
        Hive::salvage(files.primary, &files.logs).map_err(|e| failure(&place.shown, &e))?
    } else {
        (place.open(arguments.as_it_is)?, Vec::new())
    };
    let shown = |e: guest::Error| failure(&place.shown, &e);
    let key = hive.resolve(&arguments.key).map_err(shown)?;
    let Some(from) = hive.open(&key).map_err(shown)? else {
        return Err(Failure::new(Code::NotFound, format!("{}: no key {key}", place.shown)));
    };
    let prefix = prefix(&place, arguments.prefix.as_ref());
    let how = |encoding| Export { key: &key, prefix: &prefix, encoding, salvage: arguments.salvage };
    let losses = match &arguments.output {
        None => {
            let mut output = BufWriter::new(std::io::stdout().lock());
            let losses = reg_text::export(&hive, &from, &how(Encoding::Utf8), &mut output).map_err(shown)?;
            output.flush().map_err(|e| Failure::io("standard output", &e))?;
            losses
        }
        Some(path) => {
            let failed = |e: std::io::Error| Failure::io(&path.display().to_string(), &e);
            let mut options = File::options();
            options.write(true);
            match arguments.force {
                // Never the hive itself, whatever it is called.
                true if path
                    .canonicalize()
                    .is_ok_and(|path| arguments.hive.canonicalize().is_ok_and(|h| h == path)) =>
                {
                    return Err(Failure::new(Code::Usage, format!("{}: this is the hive", path.display())));
                }
                true => options.create(true).truncate(true),
                false => options.create_new(true),
            };
            let file = options.open(path).map_err(|e| match e.kind() {
                std::io::ErrorKind::AlreadyExists => {
                    Failure::new(Code::Refused, format!("{} is there; --force replaces it", path.display()))
                }
                _ => failed(e),
            })?;
            let mut output = BufWriter::new(file);
            let written = reg_text::export(&hive, &from, &how(Encoding::Utf16), &mut output)
                .map_err(shown)
                .and_then(|losses| output.flush().map_err(failed).map(|()| losses));
            if written.is_err() {
                // Half an export looks like a whole one.
                let _ = std::fs::remove_file(path);
            }
            written?
        }
    };
    for loss in wrong.iter().chain(&losses) {
        let _ = writeln!(std::io::stderr(), "left out: {}", plain(&loss.to_string()));
    }
    Ok(())
}

fn merge(arguments: &MergeFile, json: bool) -> Result<()> {
    let mut place = HiveFile::of(&arguments.hive)?;
    let text = HiveFile::of(&arguments.file)?;
    let bytes = guest::FileTree::read(&text.tree, &text.path, reg_text::TEXT_MAX)
        .map_err(|e| Failure::io(&text.shown, &e))?
        .unwrap_or_default();
    let sections = reg_text::parse(&bytes).map_err(|e| failure(&text.shown, &e))?;
    let mut hive = place.open(arguments.as_it_is)?;
    let prefix = prefix(&place, arguments.prefix.as_ref());
    let now = Filetime::now();
    let (merged, is_written) = {
        let mut edit = hive.edit(now).map_err(|e| failure(&place.shown, &e))?;
        let merged = reg_text::merge(&mut edit, &sections, &prefix).map_err(|e| failure(&text.shown, &e))?;
        // An edit that is not committed leaves the hive as it was.
        let is_written = !arguments.dry_run && edit.commit().map_err(|e| failure(&place.shown, &e))?;
        (merged, is_written)
    };
    if is_written {
        file::write(&mut place.tree, &place.path, &mut hive, now).map_err(|e| failure(&place.shown, &e))?;
    }
    if json {
        let actions: Vec<String> = merged.actions.iter().map(ToString::to_string).collect();
        return crate::print_json(&json!({ "actions": actions, "same": merged.same, "written": is_written }));
    }
    let mut lines: String = match arguments.dry_run {
        true => merged.actions.iter().map(|action| format!("{}\n", plain(&action.to_string()))).collect(),
        false => String::new(),
    };
    lines.push_str(&summary(&merged, is_written));
    crate::print(&lines)
}

fn summary(merged: &Merge, is_written: bool) -> String {
    let count = |is: fn(&Action) -> bool| merged.actions.iter().filter(|action| is(action)).count();
    let counts = [
        (count(|action| matches!(action, Action::MadeKey(_))), "keys made"),
        (count(|action| matches!(action, Action::RemovedKey(_))), "keys removed"),
        (count(|action| matches!(action, Action::SetValue(..))), "values set"),
        (count(|action| matches!(action, Action::RemovedValue(..))), "values removed"),
        (merged.same, "already so"),
    ];
    let parts: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let parts = if parts.is_empty() { "nothing to do".to_owned() } else { parts.join(", ") };
    let end = if is_written { "written" } else { "nothing was written" };
    format!("{parts}; {end}\n")
}

fn check(arguments: &CheckHive, json: bool) -> Result<()> {
    let place = HiveFile::of(&arguments.hive)?;
    let files = place.files()?;
    let (hive, problems) = match Hive::load(files.primary.clone(), &files.logs, Unfinished::Refuse) {
        Ok(hive) => (Some(hive), Vec::new()),
        // What can be looked at nevertheless.
        Err(error) => match Hive::salvage(files.primary, &files.logs) {
            Ok((hive, _)) => (Some(hive), vec![error.to_string()]),
            Err(_) => (None, vec![error.to_string()]),
        },
    };
    let check = hive.as_ref().map(Hive::check).unwrap_or_default();
    let is_whole = problems.is_empty() && check.is_whole();
    if json {
        crate::print_json(&described(hive.as_ref(), &check, &problems, is_whole))?;
    } else {
        crate::print(&shown(&place.shown, hive.as_ref(), &check, &problems, is_whole))?;
    }
    if is_whole { Ok(()) } else { Err(Failure::silent(Code::Failed)) }
}

fn described(hive: Option<&Hive>, check: &Check, problems: &[String], is_whole: bool) -> serde_json::Value {
    let replayed = hive.and_then(|hive| match hive.state() {
        State::Replayed(replay) => Some(json!({ "writes": replay.entries, "pages": replay.pages })),
        State::Clean | State::AsItIs => None,
    });
    json!({
        "whole": is_whole,
        "problems": problems,
        "version": hive.map(|hive| format!("{}.{}", hive.version().0, hive.version().1)),
        "file_name": hive.map(Hive::file_name),
        "replayed": replayed,
        "check": check,
    })
}

fn shown(file: &str, hive: Option<&Hive>, check: &Check, problems: &[String], is_whole: bool) -> String {
    let mut text = String::new();
    let mut line = |said: String| text.push_str(&format!("{}\n", plain(&said)));
    if let Some(hive) = hive {
        let (major, minor) = hive.version();
        line(format!(
            "{file}: version {major}.{minor}, {} keys, {} values, {} security descriptors, {} bytes free",
            check.keys, check.values, check.descriptors, check.free_bytes
        ));
        if let State::Replayed(replay) = hive.state() {
            line(format!("replayed from its logs: {} writes, {} pages", replay.entries, replay.pages));
        }
    }
    for problem in problems {
        line(format!("damage: {problem}"));
    }
    for finding in &check.findings {
        let kind = match finding.severity {
            Severity::Damage => "damage",
            Severity::Note => "note",
        };
        line(format!("{kind}: {finding}"));
    }
    if check.more > 0 {
        line(format!("and {} more", check.more));
    }
    line(if is_whole { "whole".into() } else { "not whole".into() });
    text
}
