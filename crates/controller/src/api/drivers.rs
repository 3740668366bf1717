//! The routes of the driver library.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use protocol::driver::{DriverOutcome, FILE_BYTES_MAX, FILES_MAX};
use protocol::piece::FileName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::{At, Body};
use super::machines::{OneMachine, machine_id};
use super::problem::invalid;
use super::routes::{Answer, Routes, about, blocking};
use super::{Api, Caller, Problem, Role};
use crate::driver_library::Driver;
use crate::{Error, ErrorKind, Result};

/// Drivers that are to be pushed to a machine.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPush {
    /// Names of files of the library; none means all that are for the machine's kernel.
    pub names: Vec<FileName>,
}

/// The routes below `/drivers`, and `/machines/{machine}/drivers`.
pub(super) fn routes() -> Routes<Arc<Api>> {
    // What is more than this is refused by the library, with a reason.
    const BYTES_MAX: usize = (64 << 20) + 1;
    const { assert!(BYTES_MAX as u64 == FILE_BYTES_MAX + 1) };
    Routes::new()
        .get("/drivers", about(Role::Viewer, "list_drivers", "The driver library"), list)
        .put(
            "/drivers/{name}",
            about(Role::Administrator, "add_driver", "Adds a file to the driver library").with_body(BYTES_MAX),
            add,
        )
        .delete(
            "/drivers/{name}",
            about(Role::Administrator, "remove_driver", "Removes a file from the driver library"),
            remove,
        )
        .post(
            "/machines/{machine}/drivers",
            about(
                Role::Operator,
                "push_drivers",
                "Installs files of the driver library into a machine's running boot image",
            ),
            push,
        )
}

/// A file of the path.
#[derive(Deserialize, JsonSchema)]
struct OneDriver {
    /// Its name.
    name: String,
}

async fn list(State(api): State<Arc<Api>>) -> Answer<Json<Vec<Driver>>> {
    blocking(move || api.drivers.list()).await
}

async fn add(
    State(api): State<Arc<Api>>,
    caller: Caller,
    At(at): At<OneDriver>,
    body: std::result::Result<Bytes, BytesRejection>,
) -> Answer<Json<Driver>> {
    let content = body.map_err(|e| Problem { status: e.status().as_u16(), ..invalid(&e.body_text()) })?;
    let name = parse_name(at.name)?;
    blocking(move || {
        let driver = api.drivers.add(&name, &content)?;
        api.store.write_audit(&caller.actor, "driver added", name.as_str(), &describe(&driver))?;
        Ok(driver)
    })
    .await
}

async fn remove(State(api): State<Arc<Api>>, caller: Caller, At(at): At<OneDriver>) -> Answer<Json<Vec<Driver>>> {
    let name = parse_name(at.name)?;
    blocking(move || {
        api.drivers.remove(&name)?;
        api.store.write_audit(&caller.actor, "driver removed", name.as_str(), "")?;
        api.drivers.list()
    })
    .await
}

async fn push(
    State(api): State<Arc<Api>>,
    caller: Caller,
    At(at): At<OneMachine>,
    Body(wish): Body<NewPush>,
) -> Answer<Json<Vec<DriverOutcome>>> {
    blocking(move || push_to(&api, &at.machine, &wish.names, &caller.actor)).await
}

fn push_to(api: &Api, machine: &str, names: &[FileName], actor: &str) -> Result<Vec<DriverOutcome>> {
    let id = machine_id(api, machine)?;
    let names = if names.is_empty() { names_for(api, &id)? } else { names.to_vec() };
    if names.len() > FILES_MAX {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("expected at most {FILES_MAX} files, found {}", names.len()),
        ));
    }
    let files =
        names.into_iter().map(|name| Ok((name.clone(), api.drivers.load(&name)?.1))).collect::<Result<Vec<_>>>()?;
    let pushed = files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ");
    // Before, for it may be half done when it fails.
    api.store.write_audit(actor, "drivers pushed", &id, &pushed)?;
    let outcomes = api.sessions.push_drivers(&id, &files)?;
    for outcome in outcomes.iter().filter(|outcome| !outcome.installed) {
        tracing::warn!(machine = %id, driver = %outcome.name, "the boot image refused a driver: {}", outcome.text);
    }
    Ok(outcomes)
}

/// All files that are of use to a machine.
fn names_for(api: &Api, machine: &str) -> Result<Vec<FileName>> {
    let offline = || Error::new(ErrorKind::Conflict, format!("machine {machine}: it is not connected"));
    let kernel = api.sessions.kernel(machine).ok_or_else(offline)?;
    let all = api.drivers.list()?;
    let names: Vec<FileName> =
        all.iter().filter(|driver| driver.is_for(&kernel)).map(|driver| driver.name.clone()).collect();
    if names.is_empty() {
        let context = format!("the library has no driver for Linux {kernel} of machine {machine}");
        return Err(Error::new(ErrorKind::NotFound, context));
    }
    Ok(names)
}

fn parse_name(name: String) -> Answer<FileName> {
    FileName::try_from(name).map_err(|what| invalid(&what))
}

fn describe(driver: &Driver) -> String {
    let kernels: Vec<&str> = driver.kernels.iter().map(String::as_str).collect();
    format!("{} modules for {}, {} firmware files", driver.modules.len(), kernels.join(" "), driver.firmware)
}
