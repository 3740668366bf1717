//! Takes away what was left for this start: keys, service, folder, and the program that runs.
//!
//! Windows deletes no program that runs, but renames one: it is moved to `Windows\Temp`, where the system's own shell
//! deletes it as soon as it has ended. Should that fail, Windows does at its next start.
#![allow(unsafe_code)]

use std::fs;
use std::os::windows::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use machine::firstboot::{FOLDER, PROGRAM, SERVICE, Scaffolding};
use windows_sys::Win32::Storage::FileSystem::{MOVEFILE_DELAY_UNTIL_REBOOT, MoveFileExW};
use windows_sys::Win32::System::Threading::CREATE_NO_WINDOW;

use super::{last_error, registry, service, wide};
use crate::Result;
use crate::run::Places;
use crate::scaffolding::without_folders;

const DEVICE_PATH_KEY: &str = r"SOFTWARE\Microsoft\Windows\CurrentVersion";
/// Control sets that Windows numbers.
const CONTROL_SETS_MAX: u32 = 32;

/// Takes all of it away, as far as it goes; a line for each thing.
pub(super) fn remove(scaffolding: &Scaffolding, places: &Places) -> Vec<String> {
    let mut lines = Vec::new();
    let mut tell = |what: String, result: Result<bool>| {
        lines.push(match result {
            Ok(true) => format!("removed: {what}"),
            Ok(false) => format!("not there: {what}"),
            Err(error) => format!("not removed: {what}: {}", error.chain()),
        });
    };
    for key in &scaffolding.keys {
        tell(format!("key {key}"), registry::delete_tree(key));
    }
    if !scaffolding.device_paths.is_empty() {
        tell("folders of DevicePath".to_owned(), clean_device_path(&scaffolding.device_paths));
    }
    tell(format!("service {SERVICE}"), service::delete().map(|()| true));
    for path in other_service_keys() {
        if let result @ (Ok(true) | Err(_)) = registry::delete_tree(&path) {
            tell(format!("key {path}"), result);
        }
    }
    tell(places.folder.display().to_string(), remove_folder(places));
    lines
}

fn clean_device_path(folders: &[String]) -> Result<bool> {
    let Some(old) = registry::Key::open(DEVICE_PATH_KEY)?.and_then(|key| key.text("DevicePath")) else {
        return Ok(false);
    };
    let new = without_folders(&old, folders);
    if new == old {
        return Ok(false);
    }
    registry::set_expandable(DEVICE_PATH_KEY, "DevicePath", &new).map(|()| true)
}

/// The service's keys in control sets that are not the current one: the service manager does not know of them.
fn other_service_keys() -> Vec<String> {
    let select = registry::Key::open(r"SYSTEM\Select").ok().flatten();
    let Some(current) = select.and_then(|key| key.number("Current")) else { return Vec::new() };
    let others = (1..=CONTROL_SETS_MAX).filter(|number| *number != current);
    others.map(|number| format!(r"SYSTEM\ControlSet{number:03}\Services\{SERVICE}")).collect()
}

fn remove_folder(places: &Places) -> Result<bool> {
    let folder = &places.folder;
    let shown = folder.to_string_lossy().replace('\\', "/");
    if !shown.to_ascii_lowercase().ends_with(&FOLDER.to_ascii_lowercase()) {
        let text = format!("it is not the folder that the converter makes: {shown}");
        return Err(crate::Error::new(crate::ErrorKind::Refused, text));
    }
    let failed = |what: &Path| {
        let what = what.display().to_string();
        move |error| crate::Error::io(what, error)
    };
    // A program's current folder cannot be removed, and this one may have been started in it.
    std::env::set_current_dir(&places.system_root).map_err(failed(&places.system_root))?;
    let program = folder.join(PROGRAM);
    let moved = places.system_root.join("Temp").join(format!("{SERVICE}-{}.exe", std::process::id()));
    fs::rename(&program, &moved).map_err(failed(&program))?;
    let removed = fs::remove_dir_all(folder).map_err(failed(folder));
    // `C:\Program Files\vconverter`, where nothing else is in it.
    if let Some(parent) = folder.parent() {
        let _ = fs::remove_dir(parent);
    }
    if delete_later(&moved, places).is_err() {
        delete_at_next_start(&moved)?;
    }
    removed.map(|()| true)
}

/// A shell that outlives this program and deletes it.
fn delete_later(program: &Path, places: &Places) -> std::io::Result<()> {
    let system = places.system_root.join("System32");
    let (wait, file) = (system.join("PING.EXE"), program.display());
    let line = format!(
        "/d /c for /l %i in (1,1,30) do @(\"{}\" -n 2 127.0.0.1 >nul & del /f /q \"{file}\" & if not exist \"{file}\" exit)",
        wait.display()
    );
    Command::new(system.join("cmd.exe"))
        .raw_arg(line)
        .current_dir(&system)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .creation_flags(CREATE_NO_WINDOW)
        .spawn()
        .map(drop)
}

fn delete_at_next_start(program: &Path) -> Result<()> {
    let path = wide(&program.to_string_lossy());
    // SAFETY: the text ends with a zero; no new name means deletion.
    let done = unsafe { MoveFileExW(path.as_ptr(), std::ptr::null(), MOVEFILE_DELAY_UNTIL_REBOOT) };
    if done == 0 { Err(last_error("deletion of the program at the next start")) } else { Ok(()) }
}
