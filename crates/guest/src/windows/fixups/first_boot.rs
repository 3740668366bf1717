//! The program that does at the first boot what only a running Windows can do: installed as a service that removes itself.

use machine::firstboot::{
    self, FOLDER, PLAN_FILE, PROGRAM, SCRIPTS_FOLDER, SERVICE, SERVICE_ACCOUNT, SERVICE_DISPLAY_NAME,
    SERVICE_ERROR_CONTROL, SERVICE_IMAGE_PATH, SERVICE_NEEDS, SERVICE_START, SERVICE_TYPE,
};

use super::ground::Ground;
use super::registry::Registry;
use crate::plan::Fixup;
use crate::windows::drivers::pe_machine;
use crate::windows::hive::Data;
use crate::windows::{FirstBoot, Release, Script};
use crate::{Error, ErrorKind, Result};

/// Windows 7 and Server 2008 R2: the program needs functions that came with them.
const FIRST_VERSION: (u16, u16) = (6, 1);

/// The program for a release, or why there is none.
pub(super) fn program<'f>(first_boot: &'f FirstBoot, release: &Release) -> std::result::Result<&'f [u8], String> {
    let architecture = release.architecture;
    if release.version() < FIRST_VERSION {
        return Err("the program for it needs Windows 7, Server 2008 R2 or later".into());
    }
    if !FirstBoot::PROGRAMS.iter().any(|(built, _)| *built == architecture) {
        return Err(format!("there is no program for {architecture}"));
    }
    match first_boot.programs.get(&architecture) {
        Some(program) if pe_machine(program) == Some(architecture.pe_machine()) => Ok(program),
        Some(_) => Err(format!("what lies there as the program for {architecture} is none")),
        None => Err(format!("the program for {architecture} is not here")),
    }
}

pub(super) fn plan(
    ground: &Ground<'_>,
    registry: &mut Registry<'_>,
    program: &[u8],
    scripts: &[Script],
    plan: &firstboot::Plan,
) -> Result<Fixup> {
    let mut changes = Vec::new();
    changes.extend(ground.write(&format!("{FOLDER}/{PROGRAM}"), program)?);
    let json = serde_json::to_vec_pretty(plan)
        .map_err(|error| Error::new(ErrorKind::Malformed, format!("the plan of the first boot: {error}")))?;
    changes.extend(ground.write(&format!("{FOLDER}/{PLAN_FILE}"), &json)?);
    for script in scripts {
        changes.extend(ground.write(&format!("{FOLDER}/{SCRIPTS_FOLDER}/{}", script.name), &script.contents)?);
    }
    let key = format!("Services\\{SERVICE}");
    registry.set(&key, "Type", &Data::of_dword(SERVICE_TYPE))?;
    registry.set(&key, "Start", &Data::of_dword(SERVICE_START))?;
    registry.set(&key, "ErrorControl", &Data::of_dword(SERVICE_ERROR_CONTROL))?;
    registry.set(&key, "ImagePath", &Data::expand_sz(SERVICE_IMAGE_PATH))?;
    registry.set(&key, "DisplayName", &Data::sz(SERVICE_DISPLAY_NAME))?;
    registry.set(&key, "ObjectName", &Data::sz(SERVICE_ACCOUNT))?;
    registry.set(&key, "DependOnService", &Data::multi_sz(SERVICE_NEEDS))?;
    changes.extend(registry.take());
    Ok(Fixup::new(
        "first-boot",
        "a service for the first boot, which removes itself",
        "drivers are installed, addresses and letters given back only by a running Windows",
        changes,
    ))
}
