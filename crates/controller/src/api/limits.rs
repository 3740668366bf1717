//! Limits of what runs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::input::Body;
use super::routes::{Answer, Routes, about, blocking};
use super::{Api, Caller, Role};
use crate::limits::Limits;

pub(super) fn routes() -> Routes<Arc<Api>> {
    Routes::new().get("/limits", about(Role::Viewer, "get_limits", "How much runs at once, and how fast"), limits).put(
        "/limits",
        about(Role::Administrator, "set_limits", "Limits what runs, from now on"),
        set,
    )
}

async fn limits(State(api): State<Arc<Api>>) -> Answer<Json<Limits>> {
    blocking(move || api.store.limits()).await
}

async fn set(State(api): State<Arc<Api>>, caller: Caller, Body(limits): Body<Limits>) -> Answer<Json<Limits>> {
    blocking(move || {
        api.tasks.set_limits(&limits, &caller.actor)?;
        Ok(limits)
    })
    .await
}
