//! `vconverter drivers`.

use std::path::PathBuf;

use controller::api::NewPush;
use controller::driver_library::{Driver, DriverOutcome, FILE_BYTES_MAX, FileName};
use guest::windows::drivers::Library;
use machine::ByteCount;

use crate::client::{Client, segment};
use crate::failure::{Code, Failure, Result};
use crate::table::{Table, plain};
use crate::windows_drivers;

pub(crate) fn list(client: &Client, json: bool) -> Result<()> {
    show(&client.get::<Vec<Driver>>("/drivers")?, json)
}

/// Each file into the library that it is for.
pub(crate) fn add_each(
    connect: &dyn Fn() -> Result<Client>,
    library: &Library,
    files: &[PathBuf],
    name: Option<String>,
    json: bool,
) -> Result<()> {
    let (windows, others): (Vec<PathBuf>, Vec<PathBuf>) =
        files.iter().cloned().partition(|file| windows_drivers::is_for_windows(file));
    if !windows.is_empty() && !others.is_empty() {
        let context = format!(
            "{} is for Windows, {} is not: add them one after the other",
            windows[0].display(),
            others[0].display()
        );
        return Err(Failure::new(Code::Usage, context));
    }
    if name.is_some() && windows.len() != 1 {
        return Err(Failure::new(Code::Usage, "--name is for one image, folder or INF file of drivers for Windows"));
    }
    if !others.is_empty() {
        return add(&connect()?, &others, json);
    }
    windows.iter().try_for_each(|path| windows_drivers::add(library, path, name.as_deref(), json))
}

fn add(client: &Client, files: &[PathBuf], json: bool) -> Result<()> {
    let mut added = Vec::new();
    for file in files {
        let shown = file.display();
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        parse_name(name)?;
        let length = std::fs::metadata(file).map_err(|e| Failure::io(&format!("read {shown}"), &e))?.len();
        if length > FILE_BYTES_MAX {
            let context = format!("{shown}: larger than {} MiB", FILE_BYTES_MAX >> 20);
            return Err(Failure::new(Code::Usage, context));
        }
        let content = std::fs::read(file).map_err(|e| Failure::io(&format!("read {shown}"), &e))?;
        added.push(client.put_file::<Driver>(&format!("/drivers/{}", segment(name)), content)?);
    }
    show(&added, json)
}

pub(crate) fn remove(client: &Client, names: &[String], json: bool) -> Result<()> {
    let mut left: Vec<Driver> = Vec::new();
    for name in names {
        parse_name(name)?;
        left = client.delete(&format!("/drivers/{}", segment(name)))?;
    }
    show(&left, json)
}

pub(crate) fn push(client: &Client, machine: &str, names: &[String], json: bool) -> Result<()> {
    let names = names.iter().map(|name| parse_name(name)).collect::<Result<_>>()?;
    let path = format!("/machines/{}/drivers", segment(machine));
    let outcomes: Vec<DriverOutcome> = client.post(&path, &NewPush { names })?;
    if json {
        crate::print_json(&outcomes)?;
    } else {
        for outcome in &outcomes {
            let word = if outcome.installed { "installed" } else { "refused" };
            crate::print(&plain(&format!("{} {word}: {}", outcome.name, outcome.text)))?;
            crate::print("\n")?;
        }
    }
    match outcomes.iter().filter(|outcome| !outcome.installed).count() {
        0 => Ok(()),
        refused => {
            Err(Failure::new(Code::Refused, format!("the machine refused {refused} of {} files", outcomes.len())))
        }
    }
}

fn show(drivers: &[Driver], json: bool) -> Result<()> {
    if json {
        return crate::print_json(&drivers);
    }
    let mut table = Table::new(&["NAME", "SIZE", "HOLDS", "FOR LINUX", "SIGNED BY", "ADDED"]);
    let words = |set: &std::collections::BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
    for driver in drivers {
        let modules = match driver.modules.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            several => Some(format!("{} modules", several.len())),
        };
        let firmware = (driver.firmware > 0).then(|| format!("{} firmware files", driver.firmware));
        table.row(vec![
            driver.name.to_string(),
            ByteCount(driver.size).to_string(),
            [modules, firmware].into_iter().flatten().collect::<Vec<_>>().join(", "),
            words(&driver.kernels),
            words(&driver.signers),
            driver.added_at.to_string(),
        ]);
    }
    let none = "no drivers in the library: vconverter drivers add FILE\n";
    crate::print(&if table.is_empty() { none.to_owned() } else { table.to_string() })
}

fn parse_name(name: &str) -> Result<FileName> {
    FileName::try_from(name.to_owned()).map_err(|what| Failure::new(Code::Usage, what))
}
