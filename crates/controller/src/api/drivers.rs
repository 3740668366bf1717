//! The routes of the driver library.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, State};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use protocol::driver::{DriverName, DriverOutcome, FILE_BYTES_MAX, FILES_MAX};
use serde::{Deserialize, Serialize};

use super::routes::{Answer, Api, blocking, find_machine, invalid, json};
use super::{Peer, Problem};
use crate::driver_library::Driver;
use crate::{Error, ErrorKind, Result};

/// Drivers that are to be pushed to a machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPush {
    /// Names of files of the library; none means all that are for the machine's kernel.
    pub names: Vec<DriverName>,
}

/// The routes below `/drivers`, and `/machines/{machine}/drivers`.
pub(super) fn routes(api: Arc<Api>) -> Router {
    // What is more than this is refused by the library, with a reason.
    let limit = usize::try_from(FILE_BYTES_MAX).unwrap_or(usize::MAX).saturating_add(1);
    Router::new()
        .route("/drivers", get(list))
        .route("/drivers/{name}", put(add).layer(DefaultBodyLimit::max(limit)).delete(remove))
        .route("/machines/{machine}/drivers", post(push))
        .with_state(api)
}

async fn list(State(api): State<Arc<Api>>) -> Answer<Json<Vec<Driver>>> {
    blocking(move || api.drivers.list()).await
}

async fn add(
    State(api): State<Arc<Api>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
    body: std::result::Result<Bytes, BytesRejection>,
) -> Answer<Json<Driver>> {
    let content = body.map_err(|e| Problem { status: e.status().as_u16(), ..invalid(&e.body_text()) })?;
    let name = parse_name(name)?;
    blocking(move || {
        let driver = api.drivers.add(&name, &content)?;
        api.store.write_audit(&peer.actor(), "driver added", name.as_str(), &describe(&driver))?;
        Ok(driver)
    })
    .await
}

async fn remove(
    State(api): State<Arc<Api>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
) -> Answer<Json<Vec<Driver>>> {
    let name = parse_name(name)?;
    blocking(move || {
        api.drivers.remove(&name)?;
        api.store.write_audit(&peer.actor(), "driver removed", name.as_str(), "")?;
        api.drivers.list()
    })
    .await
}

async fn push(
    State(api): State<Arc<Api>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(machine): Path<String>,
    body: std::result::Result<Json<NewPush>, JsonRejection>,
) -> Answer<Json<Vec<DriverOutcome>>> {
    let wish = json(body)?;
    blocking(move || push_to(&api, &machine, &wish.names, &peer.actor())).await
}

fn push_to(api: &Api, machine: &str, names: &[DriverName], actor: &str) -> Result<Vec<DriverOutcome>> {
    let machine = find_machine(api, machine)?;
    let id = machine
        .id
        .ok_or_else(|| Error::new(ErrorKind::Conflict, format!("machine {} is not approved yet", machine.name)))?;
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
fn names_for(api: &Api, machine: &str) -> Result<Vec<DriverName>> {
    let offline = || Error::new(ErrorKind::Conflict, format!("machine {machine}: it is not connected"));
    let kernel = api.sessions.kernel(machine).ok_or_else(offline)?;
    let all = api.drivers.list()?;
    let names: Vec<DriverName> =
        all.iter().filter(|driver| driver.is_for(&kernel)).map(|driver| driver.name.clone()).collect();
    if names.is_empty() {
        let context = format!("the library has no driver for Linux {kernel} of machine {machine}");
        return Err(Error::new(ErrorKind::NotFound, context));
    }
    Ok(names)
}

fn parse_name(name: String) -> Answer<DriverName> {
    DriverName::try_from(name).map_err(|what| invalid(&what))
}

fn describe(driver: &Driver) -> String {
    let kernels: Vec<&str> = driver.kernels.iter().map(String::as_str).collect();
    format!("{} modules for {}, {} firmware files", driver.modules.len(), kernels.join(" "), driver.firmware)
}
