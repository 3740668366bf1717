//! Cutovers: a VM takes its source's place, and gives it back.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::input::{At, Body};
use super::routes::{Answer, Routes, about, blocking};
use super::tasks::OneTask;
use super::{Api, Caller, Role};
use crate::cutover::CutoverWish;
use crate::store::Cutover;
use crate::{Error, ErrorKind};

pub(super) fn routes() -> Routes<Arc<Api>> {
    Routes::new()
        .get("/tasks/{id}/cutover", about(Role::Viewer, "get_cutover", "Where a task's cutover is"), one)
        .post(
            "/tasks/{id}/cutover",
            about(Role::Operator, "begin_cutover", "Switches the source off, then connects and starts its VM"),
            begin,
        )
        .post(
            "/tasks/{id}/cutover/undo",
            about(Role::Operator, "undo_cutover", "Stops and disconnects the VM, then wakes the source"),
            undo,
        )
}

async fn one(State(api): State<Arc<Api>>, At(at): At<OneTask>) -> Answer<Json<Cutover>> {
    blocking(move || {
        api.store.existing_task(&at.id)?;
        let none = || Error::new(ErrorKind::NotFound, format!("task {} has no cutover", at.id));
        api.store.cutover(&at.id)?.ok_or_else(none)
    })
    .await
}

async fn begin(
    State(api): State<Arc<Api>>,
    caller: Caller,
    At(at): At<OneTask>,
    Body(wish): Body<CutoverWish>,
) -> Answer<Json<Cutover>> {
    blocking(move || api.cutovers.begin(&at.id, &wish, &caller.actor)).await
}

async fn undo(State(api): State<Arc<Api>>, caller: Caller, At(at): At<OneTask>) -> Answer<Json<Cutover>> {
    blocking(move || api.cutovers.undo(&at.id, &caller.actor)).await
}
