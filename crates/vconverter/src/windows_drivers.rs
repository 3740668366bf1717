//! `vconverter drivers` for Windows: the library of driver packages, a folder of this machine.

use std::path::Path;
use std::sync::Arc;

use block::FileSource;
use controller::DataDirectory;
use guest::tree::{Directory, FileTree};
use guest::windows::drivers::catalog::Said;
use guest::windows::drivers::{Choice, Choices, Device, DriverRelease, Library, Refusal};
use guest::windows::inf::StartType;
use guest::windows::{Product, Release};
use machine::ByteCount;
use serde::Serialize;

use crate::arguments::MatchDriver;
use crate::failure::{Code, Failure, Result};
use crate::table::{Table, plain};

/// The library's folder in a data directory.
pub(crate) const FOLDER: &str = "windows-drivers";

/// The library in the folder that is named, else that of the data directory.
pub(crate) fn library(named: Option<&Path>, directory: &DataDirectory) -> Library {
    Library::new(named.map_or_else(|| directory.path().join(FOLDER), Path::to_owned))
}

/// Whether drivers of Windows are meant: a folder, an image of a medium, or an INF file.
pub(crate) fn is_for_windows(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    path.is_dir() || matches!(extension.as_deref(), Some("iso" | "inf"))
}

pub(crate) fn add(library: &Library, path: &Path, name: Option<&str>, json: bool) -> Result<()> {
    let shown = path.display().to_string();
    let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
    let default = stem.map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_else(|| "drivers".into());
    let good = |c: char| if c.is_ascii_alphanumeric() || "._+-".contains(c) { c } else { '-' };
    let default: String = default.trim_start_matches('.').chars().map(good).collect();
    let name = name.unwrap_or(&default);
    let (tree, inf) = open(path)?;
    let addition = library.add(&*tree, inf.as_deref(), name, &shown).map_err(|error| match error.path {
        Some(_) => Failure::from(error),
        None => {
            let failure = Failure::from(error);
            Failure::new(failure.code, format!("{shown}: {}", failure.message))
        }
    })?;
    if json {
        return crate::print_json(&addition);
    }
    let release = &addition.release;
    let word = if addition.was_there { "is there already" } else { "added" };
    let mut text = format!(
        "{} {word}: {} packages, {} written\n",
        release.name,
        release.packages.len(),
        ByteCount(addition.written)
    );
    for package in release.packages.iter().filter(|package| !package.problems.is_empty()) {
        let problems: Vec<String> = package.problems.iter().map(ToString::to_string).collect();
        text.push_str(&format!("warning: {}: {}\n", plain(&package.paths[0]), plain(&problems.join("; "))));
    }
    for left in &release.left_out {
        text.push_str(&format!("left out: {}: {}\n", plain(&left.path), plain(&left.why)));
    }
    crate::print(&text)
}

/// The files at `path`, and the INF file in them that is meant alone.
fn open(path: &Path) -> Result<(Box<dyn FileTree>, Option<String>)> {
    let metadata = path.metadata().map_err(|error| Failure::file(&path.display().to_string(), &error))?;
    if metadata.is_dir() {
        return Ok((Box::new(Directory::open(path)?), None));
    }
    let name = path.file_name().and_then(|name| name.to_str());
    if let Some(name) = name.filter(|name| name.to_ascii_lowercase().ends_with(".inf")) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return Ok((Box::new(Directory::open(folder)?), Some(format!("/{name}"))));
    }
    let failed = |why: String| {
        let context = format!("{}: no ISO 9660 medium whose files can be read: {why}", path.display());
        Failure::new(Code::Failed, context)
    };
    let source = FileSource::open(path, None).map_err(|error| failed(controller::chain(&error)))?;
    let files = volume::files::Files::open(Arc::new(source)).map_err(|error| failed(controller::chain(&error)))?;
    Ok((Box::new(files), None))
}

pub(crate) fn list(library: &Library, json: bool) -> Result<()> {
    show_all(&library.releases()?, json)
}

pub(crate) fn remove(library: &Library, names: &[String], json: bool) -> Result<()> {
    for name in names {
        library.remove(name)?;
    }
    list(library, json)
}

fn show_all(releases: &[DriverRelease], json: bool) -> Result<()> {
    if json {
        return crate::print_json(&releases);
    }
    let mut table = Table::new(&["RELEASE", "PACKAGES", "SIZE", "CLASSES", "FROM"]);
    for release in releases {
        let mut classes: Vec<&str> = release.packages.iter().filter_map(|package| package.class.as_deref()).collect();
        classes.sort_unstable();
        classes.dedup();
        let size = release.packages.iter().flat_map(|package| &package.files).map(|file| file.size).sum();
        table.row(vec![
            release.name.clone(),
            release.packages.len().to_string(),
            ByteCount(size).to_string(),
            classes.join(", "),
            release.source.clone(),
        ]);
    }
    let none = "no drivers for Windows in the library: vconverter drivers add virtio-win.iso\n";
    crate::print(&if table.is_empty() { none.to_owned() } else { table.to_string() })
}

pub(crate) fn show(library: &Library, name: &str, json: bool) -> Result<()> {
    let release = library.release(name)?;
    if json {
        return crate::print_json(&release);
    }
    let mut table = Table::new(&["PACKAGE", "CLASS", "PROVIDER", "DATE", "VERSION", "FOR", "FILES", "PROBLEMS"]);
    for package in &release.packages {
        let more = match package.paths.len() {
            0 | 1 => String::new(),
            several => format!(" (and {} more)", several - 1),
        };
        let problems: Vec<String> = package.problems.iter().map(ToString::to_string).collect();
        table.row(vec![
            format!("{}{more}", package.paths.first().map_or("", String::as_str)),
            package.class.clone().unwrap_or_default(),
            package.provider.clone().unwrap_or_default(),
            package.date.to_string(),
            package.version.to_string(),
            package.targets.join(", "),
            package.files.len().to_string(),
            problems.join("; "),
        ]);
    }
    let mut text = table.to_string();
    for left in &release.left_out {
        text.push_str(&format!("left out: {}: {}\n", plain(&left.path), plain(&left.why)));
    }
    crate::print(&text)
}

/// What programs are told of a choice.
#[derive(Serialize)]
struct Answer<'c> {
    windows: Release,
    hardware_ids: &'c [String],
    compatible_ids: &'c [String],
    fitting: Vec<Fitting<'c>>,
    refused: &'c [Refusal],
}

#[derive(Serialize)]
struct Fitting<'c> {
    release: &'c str,
    path: &'c str,
    description: &'c str,
    section: &'c str,
    target: String,
    rank: String,
    id: &'c str,
    identifier: guest::windows::drivers::Identifier,
    catalog: Said,
    date: String,
    version: String,
    service: Option<&'c str>,
    start: Option<StartType>,
    obstacles: &'c [String],
}

pub(crate) fn find(library: &Library, wanted: &MatchDriver, json: bool) -> Result<()> {
    let mut windows = Release::parse(&wanted.windows, wanted.arch).map_err(|what| Failure::new(Code::Usage, what))?;
    if wanted.server {
        windows.product = Product::Server;
    }
    let mut device = Device::from_id(&wanted.ids[0]);
    device.hardware_ids.extend(wanted.ids[1..].iter().cloned());
    device.compatible_ids.extend(wanted.compatible_ids.iter().cloned());
    let choices = library.choices(&device, &windows, wanted.release.as_deref())?;
    if json {
        crate::print_json(&Answer {
            windows,
            hardware_ids: &device.hardware_ids,
            compatible_ids: &device.compatible_ids,
            fitting: choices.fitting.iter().map(fitting).collect(),
            refused: &choices.refused,
        })?;
    } else {
        crate::print(&describe(&choices, &windows))?;
    }
    match choices.fitting.first().is_some_and(|first| first.obstacles.is_empty()) {
        true => Ok(()),
        false => Err(Failure::new(
            Code::NotFound,
            format!("no driver in the library that {windows} can load for this device"),
        )),
    }
}

fn fitting(choice: &Choice) -> Fitting<'_> {
    let service = choice.installation.service();
    Fitting {
        release: &choice.release,
        path: choice.package.paths.first().map_or("", String::as_str),
        description: &choice.found.model.description,
        section: &choice.installation.section,
        target: choice.found.target.to_string(),
        rank: format!("0x{:08x}", choice.found.ranking.rank()),
        id: &choice.found.id,
        identifier: choice.found.identifier,
        catalog: choice.found.said,
        date: choice.package.date.to_string(),
        version: choice.package.version.to_string(),
        service: service.map(|service| service.name.as_str()),
        start: service.map(|service| service.start),
        obstacles: &choice.obstacles,
    }
}

fn describe(choices: &Choices, windows: &Release) -> String {
    let mut text = String::new();
    for (at, choice) in choices.fitting.iter().enumerate() {
        let fitting = fitting(choice);
        let word = match at {
            _ if !choice.obstacles.is_empty() => "cannot be loaded",
            0 => "best",
            _ => "also fits",
        };
        let said = match fitting.catalog {
            Said::Named => "its catalog names this release",
            Said::OlderOnly => "its catalog names older releases only",
            Said::Nothing | Said::NewerOnly => "its catalog, if any, names no release",
        };
        let mut lines = vec![
            format!("{word}: {} {}: {}", fitting.release, fitting.path, fitting.description),
            format!("  rank {}: {} {}", fitting.rank, fitting.identifier, fitting.id),
            format!("  for {}; driver of {}, version {}; {said}", fitting.target, fitting.date, fitting.version),
        ];
        if let (Some(service), Some(start)) = (fitting.service, fitting.start) {
            let start = format!("{start:?}").to_lowercase();
            lines.push(format!("  service {service}, start {start}, by [{}]", fitting.section));
        }
        lines.extend(choice.obstacles.iter().map(|obstacle| format!("  {obstacle}")));
        text.extend(lines.iter().map(|line| format!("{}\n", plain(line))));
    }
    if !choices.refused.is_empty() {
        text.push_str(&format!("not for {windows}:\n"));
        for refusal in &choices.refused {
            text.push_str(&plain(&format!("  {} {}: {}", refusal.release, refusal.path, refusal.why)));
            text.push('\n');
        }
    }
    text
}
