//! The routes of the PXE service.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::{Router, middleware};
use machine::MacAddress;
use netboot::{Log, Record};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::{Body, Parameters};
use super::routes::{Answer, Routes, about, blocking, with_whole_body};
use super::{Caller, Problem, Role, for_the_owner};
use crate::identity::MachineIdentity;
use crate::store::{PxePolicy, PxeRule, Store};
use crate::{Error, ErrorKind, Result};

/// Records that one answer holds.
const RECORDS_MAX: usize = 1000;

/// A policy that is set.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPxeRule {
    /// MAC address, SMBIOS UUID, or the id of a known machine.
    pub machine: String,
    /// What it gets; nothing forgets it, so that it gets the menu.
    pub policy: Option<PxePolicy>,
}

/// What the routes work on.
struct Pxe {
    store: Arc<Store>,
    log: Option<Arc<Log>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    /// Number of the last record that is known; 0 for all.
    #[serde(default)]
    after: u64,
}

/// The routes below `/pxe`; without a log where no service runs.
pub(super) fn routes(store: Arc<Store>, log: Option<Arc<Log>>) -> Routes<()> {
    Routes::new()
        .get(
            "/pxe/rules",
            about(Role::Viewer, "list_pxe_rules", "What machines that start from the network get"),
            rules,
        )
        .post(
            "/pxe/rules",
            about(Role::Operator, "set_pxe_rule", "Sets or forgets what a machine that starts from the network gets"),
            set_rule,
        )
        .get(
            "/pxe/log",
            about(Role::Viewer, "get_pxe_log", "What machines asked over the network, and what they were answered"),
            log_records,
        )
        .with_state(Arc::new(Pxe { store, log }))
}

/// The API of a PXE service alone.
pub(crate) fn pxe_router(store: Arc<Store>, log: Arc<Log>) -> Router {
    for_the_owner(routes(store, Some(log)).finish().layer(middleware::from_fn(with_whole_body)))
}

async fn rules(State(pxe): State<Arc<Pxe>>) -> Answer<Json<Vec<PxeRule>>> {
    blocking(move || pxe.store.pxe_rules()).await
}

async fn set_rule(
    State(pxe): State<Arc<Pxe>>,
    caller: Caller,
    Body(new): Body<NewPxeRule>,
) -> Answer<Json<Vec<PxeRule>>> {
    blocking(move || {
        let (set, forget) = names_of(&pxe.store, &new.machine)?;
        pxe.store.set_pxe_rule(&set, &forget, new.policy, &caller.actor)?;
        pxe.store.pxe_rules()
    })
    .await
}

async fn log_records(
    State(pxe): State<Arc<Pxe>>,
    Parameters(query): Parameters<LogQuery>,
) -> Answer<Json<Vec<Record>>> {
    let log = pxe.log.as_ref().ok_or_else(|| {
        let context = "no PXE service runs here: start it with `vconverter serve --pxe` or `vconverter pxe`";
        Problem::from(Error::new(ErrorKind::Conflict, context))
    })?;
    Ok(Json(log.records(query.after, RECORDS_MAX)))
}

/// What a machine is known by to its firmware: one name where it is typed so; of a known machine its UUID, else the
/// addresses of its cards. Second, its names by which an older policy would still be found.
fn names_of(store: &Store, typed: &str) -> Result<(Vec<String>, Vec<String>)> {
    if let Ok(mac) = typed.parse::<MacAddress>() {
        return Ok((vec![mac.to_string()], Vec::new()));
    }
    if is_uuid(typed) {
        return Ok((vec![typed.to_ascii_lowercase()], Vec::new()));
    }
    let known = store.machine(typed)?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("expected a MAC address, a UUID or a machine's id, found {typed:?}"))
    })?;
    let identity = MachineIdentity::of(known.reported()?);
    match identity.uuid {
        Some(uuid) => Ok((vec![uuid], identity.macs)),
        None if identity.macs.is_empty() => {
            Err(Error::new(ErrorKind::Conflict, format!("{typed} reported neither a UUID nor a network card")))
        }
        None => Ok((identity.macs, Vec::new())),
    }
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_told_from_names() {
        assert!(is_uuid("4C4C4544-0042-3510-8052-b4c04f4e3132"));
        for text in ["", "m-4f9c21ab", "4c4c4544-0042-3510-8052-b4c04f4e313", "4c4c4544-0042-3510-8052-b4c04f4e313g"] {
            assert!(!is_uuid(text), "{text}");
        }
    }
}
