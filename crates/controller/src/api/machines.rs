//! Machines: waiting, connected and known.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::{At, Body, Parameters};
use super::page::PageQuery;
use super::routes::{Answer, Routes, about, blocking};
use super::views::TypedCode;
use super::{Api, Caller, MachineView, Page, Role};
use crate::sessions::{Approval, LiveSession};
use crate::{Error, ErrorKind, Result};

/// A machine of the path.
#[derive(Deserialize, JsonSchema)]
pub(super) struct OneMachine {
    /// Its id, or its name, host name or given address where only one machine has it.
    pub(super) machine: String,
}

/// A machine that was forgotten.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ForgottenMachine {
    /// Its id.
    pub machine: String,
    /// The keys that were revoked.
    pub keys: Vec<String>,
}

pub(super) fn routes() -> Routes<Arc<Api>> {
    Routes::new()
        .get(
            "/machines",
            about(Role::Viewer, "list_machines", "Machines: those that wait for approval, then the known ones"),
            list,
        )
        .get("/machines/{machine}", about(Role::Viewer, "get_machine", "One machine"), one)
        .delete(
            "/machines/{machine}",
            about(Role::Operator, "forget_machine", "Revokes the keys of a machine's agents and forgets it"),
            forget,
        )
        .post(
            "/machines/approve",
            about(Role::Operator, "approve_machine", "Approves the machine that shows this pairing code"),
            approve,
        )
}

async fn list(
    State(api): State<Arc<Api>>,
    Parameters(query): Parameters<PageQuery>,
) -> Answer<Json<Page<MachineView>>> {
    blocking(move || page(&api, &query)).await
}

async fn one(State(api): State<Arc<Api>>, At(at): At<OneMachine>) -> Answer<Json<MachineView>> {
    blocking(move || find_machine(&api, &at.machine)).await
}

async fn forget(State(api): State<Arc<Api>>, caller: Caller, At(at): At<OneMachine>) -> Answer<Json<ForgottenMachine>> {
    blocking(move || {
        let machine = machine_id(&api, &at.machine)?;
        let keys = api.sessions.forget(&machine, &caller.actor)?;
        Ok(ForgottenMachine { machine, keys })
    })
    .await
}

async fn approve(State(api): State<Arc<Api>>, caller: Caller, Body(typed): Body<TypedCode>) -> Answer<Json<Approval>> {
    blocking(move || api.sessions.approve(&typed.code, &caller.actor)).await
}

/// Those that wait are in the order of their keys, those that are known in that of their ids.
fn page(api: &Api, query: &PageQuery) -> Result<Page<MachineView>> {
    let (limit, live) = (query.limit(), api.sessions.live());
    let after = query.after.as_deref().unwrap_or_default();
    let is_known = after.starts_with("m-");
    let mut found: Vec<MachineView> = Vec::new();
    if !is_known {
        let matches = |machine: &MachineView| query.search.as_deref().is_none_or(|text| machine.has(text));
        found.extend(waiting(&live).into_iter().filter(|machine| machine.key.as_deref() > Some(after)).filter(matches));
    }
    if found.len() <= limit {
        let known_after = if is_known { after } else { "" };
        let room = limit + 1 - found.len();
        for known in api.store.machines_page(known_after, room, query.search.as_deref())? {
            found.push(MachineView::known_among(known, &live));
        }
    }
    Ok(Page::of(found, limit, |last| last.id.clone().or_else(|| last.key.clone()).unwrap_or_default()))
}

/// Machines that are connected and not known yet, in the order of their keys.
pub(super) fn waiting(live: &[LiveSession]) -> Vec<MachineView> {
    let mut waiting: Vec<MachineView> =
        live.iter().filter(|session| session.machine.is_none()).map(MachineView::waiting).collect();
    waiting.sort_by(|a, b| a.key.cmp(&b.key));
    waiting
}

/// By id, or by a name, host name or given address that only one machine has.
pub(super) fn find_machine(api: &Api, name: &str) -> Result<MachineView> {
    let live = api.sessions.live();
    if let Some(known) = api.store.machine(name)? {
        return Ok(MachineView::known_among(known, &live));
    }
    let known = api.store.machines()?.into_iter().map(|known| MachineView::known_among(known, &live));
    let mut named = waiting(&live).into_iter().chain(known).filter(|machine| machine.is_called(name));
    match (named.next(), named.count()) {
        (Some(one), 0) => Ok(one),
        (None, _) => Err(Error::new(ErrorKind::NotFound, format!("no machine {name}"))),
        (Some(_), others) => {
            Err(Error::new(ErrorKind::Conflict, format!("{} machines are named {name}: use the id", others + 1)))
        }
    }
}

/// The id of a machine that was approved, by whatever it is called.
pub(super) fn machine_id(api: &Api, name: &str) -> Result<String> {
    let machine = find_machine(api, name)?;
    let not_yet = || Error::new(ErrorKind::Conflict, format!("machine {} is not approved yet", machine.name));
    machine.id.clone().ok_or_else(not_yet)
}
