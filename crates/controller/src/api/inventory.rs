//! What operators say of machines: some are added by their address, named, put into groups, joined with their agents; and
//! what happened to each.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::{At, Body, Parameters};
use super::machines::{OneMachine, find_machine, machine_id};
use super::routes::{Answer, Routes, about, blocking};
use super::{Api, Caller, MachineView, Role};
use crate::Result;
use crate::inventory::{MachineChange, NewMachine};
use crate::store::{Adding, Addition, Candidate, FaultyRow, HistoryEntry, KnownRow, MachineGroup};

/// Longest body of a request that adds machines, in bytes: a thousand with long notes.
const NEW_MACHINES_BYTES_MAX: usize = 8 << 20;
/// Lines of a history where nothing else is asked for.
const HISTORY_LINES: u32 = 100;
/// Lines of a history.
const HISTORY_LINES_MAX: u32 = 1000;

/// Machines that are to be added.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMachines {
    /// Which: 1 to 1000, all or none.
    pub machines: Vec<NewMachine>,
    /// Look only, and add nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Leave out those that are known; without this one of them keeps all from being added.
    #[serde(default)]
    pub skip_known: bool,
}

/// What came of that.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AddedMachines {
    /// Those that were added, in their order.
    pub added: Vec<MachineView>,
    /// Those that were known before.
    pub known: Vec<KnownRow>,
    /// Groups that were made, or would be.
    pub new_groups: Vec<String>,
    /// Where it was looked only: those that cannot be added, and keep all from it.
    pub faults: Vec<FaultyRow>,
}

/// A machine that was added, and is this one.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinedMachine {
    /// Its id or name; it is gone then.
    pub added: String,
}

/// A group's other name.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupName {
    /// The name.
    #[schemars(length(min = 1, max = 100))]
    pub name: String,
}

/// How much of a history.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    /// Lines, at most 1000; 100 where it is not given.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

/// A group of the path.
#[derive(Deserialize, JsonSchema)]
struct OneGroup {
    /// Its name.
    name: String,
}

pub(super) fn routes() -> Routes<Arc<Api>> {
    let add_machines =
        about(Role::Operator, "add_machines", "Adds machines by their addresses, which have no agent yet")
            .with_body(NEW_MACHINES_BYTES_MAX);
    let change = "Names a machine, notes something of it, puts it into a group or takes it out";
    let join = "Says that a machine which was added is this one";
    let candidates = "Machines with agents that an added one may be, or added ones that a machine may be";
    Routes::new()
        .post("/machines", add_machines, add)
        .post("/machines/{machine}", about(Role::Operator, "change_machine", change), change_machine)
        .post("/machines/{machine}/join", about(Role::Operator, "join_machine", join), join_machine)
        .get("/machines/{machine}/candidates", about(Role::Viewer, "list_candidates", candidates), list_candidates)
        .get(
            "/machines/{machine}/history",
            about(Role::Viewer, "get_machine_history", "What happened to a machine, the newest first"),
            history,
        )
        .get("/groups", about(Role::Viewer, "list_groups", "Groups of machines, by name"), groups)
        .put(
            "/groups/{name}",
            about(Role::Operator, "make_group", "Makes a group, if there is none of this name"),
            make,
        )
        .post("/groups/{name}", about(Role::Operator, "rename_group", "Gives a group another name"), rename)
        .delete("/groups/{name}", about(Role::Operator, "delete_group", "Deletes a group; its machines stay"), delete)
}

async fn add(State(api): State<Arc<Api>>, caller: Caller, Body(new): Body<NewMachines>) -> Answer<Json<AddedMachines>> {
    blocking(move || {
        let adding = Adding { dry_run: new.dry_run, skip_known: new.skip_known };
        let addition = api.store.add_machines(&new.machines, adding, &caller.actor)?;
        let added = addition.added.iter().map(|id| find_machine(&api, id)).collect::<Result<_>>()?;
        let Addition { known, new_groups, faults, .. } = addition;
        Ok(AddedMachines { added, known, new_groups, faults })
    })
    .await
}

async fn change_machine(
    State(api): State<Arc<Api>>,
    caller: Caller,
    At(at): At<OneMachine>,
    Body(change): Body<MachineChange>,
) -> Answer<Json<MachineView>> {
    blocking(move || {
        let id = machine_id(&api, &at.machine)?;
        api.store.change_machine(&id, change, &caller.actor)?;
        find_machine(&api, &id)
    })
    .await
}

async fn join_machine(
    State(api): State<Arc<Api>>,
    caller: Caller,
    At(at): At<OneMachine>,
    Body(joined): Body<JoinedMachine>,
) -> Answer<Json<MachineView>> {
    blocking(move || {
        let id = |name: &str| machine_id(&api, name);
        let (machine, added) = (id(&at.machine)?, id(&joined.added)?);
        api.store.join_machines(&added, &machine, &caller.actor)?;
        find_machine(&api, &machine)
    })
    .await
}

async fn list_candidates(State(api): State<Arc<Api>>, At(at): At<OneMachine>) -> Answer<Json<Vec<Candidate>>> {
    blocking(move || api.store.candidates(&machine_id(&api, &at.machine)?)).await
}

async fn history(
    State(api): State<Arc<Api>>,
    At(at): At<OneMachine>,
    Parameters(query): Parameters<HistoryQuery>,
) -> Answer<Json<Vec<HistoryEntry>>> {
    let limit = query.limit.unwrap_or(HISTORY_LINES).clamp(1, HISTORY_LINES_MAX);
    blocking(move || api.store.machine_history(&machine_id(&api, &at.machine)?, limit)).await
}

async fn groups(State(api): State<Arc<Api>>) -> Answer<Json<Vec<MachineGroup>>> {
    blocking(move || api.store.machine_groups()).await
}

async fn make(State(api): State<Arc<Api>>, caller: Caller, At(at): At<OneGroup>) -> Answer<Json<Vec<MachineGroup>>> {
    blocking(move || {
        api.store.make_group(&at.name, &caller.actor)?;
        api.store.machine_groups()
    })
    .await
}

async fn rename(
    State(api): State<Arc<Api>>,
    caller: Caller,
    At(at): At<OneGroup>,
    Body(new): Body<GroupName>,
) -> Answer<Json<Vec<MachineGroup>>> {
    blocking(move || {
        api.store.rename_group(&at.name, &new.name, &caller.actor)?;
        api.store.machine_groups()
    })
    .await
}

async fn delete(State(api): State<Arc<Api>>, caller: Caller, At(at): At<OneGroup>) -> Answer<Json<Vec<MachineGroup>>> {
    blocking(move || {
        api.store.delete_group(&at.name, &caller.actor)?;
        api.store.machine_groups()
    })
    .await
}
