//! The controller itself: what it is, and what operators did.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Deserialize;

use super::input::Parameters;
use super::routes::{Answer, Routes, about, blocking};
use super::{Api, Role, Status};
use crate::store::AuditEntry;

/// Lines of the audit log that one answer holds.
const AUDIT_LINES_MAX: u32 = 1000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    /// Lines, at most 1000; 100 where it is not given.
    limit: Option<u32>,
}

pub(super) fn routes() -> Routes<Arc<Api>> {
    Routes::new()
        .get("/status", about(Role::Viewer, "get_status", "Version, agent port, fingerprint of the CA"), status)
        .get("/audit", about(Role::Administrator, "get_audit", "The audit log, the newest first"), audit)
}

async fn status(State(api): State<Arc<Api>>) -> Json<Status> {
    Json(api.status.clone())
}

async fn audit(
    State(api): State<Arc<Api>>,
    Parameters(query): Parameters<AuditQuery>,
) -> Answer<Json<Vec<AuditEntry>>> {
    blocking(move || api.store.audit(query.limit.unwrap_or(100).min(AUDIT_LINES_MAX))).await
}
