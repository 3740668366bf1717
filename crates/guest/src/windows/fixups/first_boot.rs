//! The program that does at the first boot what only a running Windows can do: installed as a service that removes itself.

use machine::firstboot::{
    self, FOLDER, PLAN_FILE, PROGRAM, SCRIPTS_FOLDER, SERVICE, SERVICE_ACCOUNT, SERVICE_DISPLAY_NAME,
    SERVICE_ERROR_CONTROL, SERVICE_IMAGE_PATH, SERVICE_NEEDS, SERVICE_START, SERVICE_TYPE,
};

use super::ground::Ground;
use super::registry::Registry;
use crate::plan::Fixup;
use crate::windows::FirstBoot;
use crate::windows::hive::Data;
use crate::{Error, ErrorKind, Result};

pub(super) fn plan(
    ground: &Ground<'_>,
    registry: &mut Registry<'_>,
    first_boot: &FirstBoot,
    plan: &firstboot::Plan,
) -> Result<Fixup> {
    let mut changes = Vec::new();
    changes.extend(ground.write(&format!("{FOLDER}/{PROGRAM}"), &first_boot.program)?);
    let json = serde_json::to_vec_pretty(plan)
        .map_err(|error| Error::new(ErrorKind::Malformed, format!("the plan of the first boot: {error}")))?;
    changes.extend(ground.write(&format!("{FOLDER}/{PLAN_FILE}"), &json)?);
    for script in &first_boot.scripts {
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
