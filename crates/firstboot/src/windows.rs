//! What calls Windows, a file per kind of call. Only functions that Windows 7 has: a test compares the program's imports.
//!
//! Each file says in its head what it needs unsafe code for. What Windows answers is copied out at once; what decides on it
//! is elsewhere.

mod adapters;
mod certificates;
mod devices;
mod disks;
mod process;
mod registry;
mod removal;
mod running;
mod serial;
mod service;
mod shutdown;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use machine::firstboot::PLAN_FILE;

use crate::adapters::parse_adapters;
use crate::plan::parse_plan;
use crate::run::{Places, dry_run};
use crate::{Error, Result};

const USAGE: &str = "vconverter-firstboot: the first start of a converted Windows

  --service                            run by Windows' service manager
  --run                                the same in this console
  --list-adapters                      print the adapters that are there, as JSON
  --dry-run --adapters FILE [--plan FILE]
                                       print what the plan would do on a machine with these adapters
  --install-driver INF                 install a driver package, where there is no pnputil
  --version";

/// The program.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["--service"] => service::dispatch(),
        ["--run"] => places().map(|places| {
            crate::run::run(&mut running::Windows::new(&places), &places);
        }),
        ["--list-adapters"] => adapters::adapters()
            .map(|adapters| println!("{}", serde_json::to_string_pretty(&adapters).unwrap_or_default())),
        ["--dry-run", "--adapters", file] => places().and_then(|places| show(file, &places.folder.join(PLAN_FILE))),
        ["--dry-run", "--adapters", file, "--plan", plan] => show(file, Path::new(plan)),
        ["--install-driver", inf] => return devices::install_driver(inf),
        ["--version"] => {
            println!("vconverter-firstboot {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.chain());
            ExitCode::FAILURE
        }
    }
}

fn show(adapters: &str, plan: &Path) -> Result<()> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| Error::io(path.display().to_string(), error));
    let (adapters, plan) = (parse_adapters(&read(Path::new(adapters))?)?, parse_plan(&read(plan)?)?);
    print!("{}", dry_run(&plan, &adapters));
    Ok(())
}

/// The folder that the program lies in, and Windows' own.
fn places() -> Result<Places> {
    let program = std::env::current_exe().map_err(|error| Error::io("this program's own path", error))?;
    let folder = program.parent().map(Path::to_owned).unwrap_or_default();
    Ok(Places { folder, system_root: system_root() })
}

fn system_root() -> PathBuf {
    std::env::var_os("SystemRoot").map_or_else(|| PathBuf::from(r"C:\Windows"), PathBuf::from)
}

/// `text` as Windows takes it, with its end.
fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

/// The text before the first zero.
fn from_wide(units: &[u16]) -> String {
    let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
    String::from_utf16_lossy(&units[..end])
}

/// The reason of a call that failed just now.
fn last_error(context: impl Into<String>) -> Error {
    Error::io(context, std::io::Error::last_os_error())
}

/// The reason of a call that returned its error code.
fn code_error(context: impl Into<String>, code: u32) -> Error {
    Error::io(context, std::io::Error::from_raw_os_error(code.cast_signed()))
}
