//! Agents that were approved, and one-time tokens that approve one.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::NoContent;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::{At, Body, Parameters};
use super::page::PageQuery;
use super::routes::{Answer, Created, Routes, about, blocking};
use super::{Api, Caller, Page, Role};
use crate::store::{AgentKey, EnrolmentRecord};

/// An agent that was approved.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AgentView {
    /// Its key and certificate.
    #[serde(flatten)]
    pub about: AgentKey,
    /// Whether it is connected.
    pub connected: bool,
}

/// An agent whose key was revoked.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RevokedAgent {
    /// Fingerprint of its key.
    pub key: String,
}

/// An enrolment token that is to be made.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEnrolment {
    /// What it is for.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub label: String,
    /// How many minutes it is good; a day where it is not given.
    #[serde(default)]
    #[schemars(range(min = 1, max = 43200))]
    pub minutes: Option<u32>,
}

/// An enrolment token that was made.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MadeEnrolment {
    /// The token itself, with the fingerprint of this controller's CA in it. It is shown this once.
    pub token: String,
    /// What is kept of it.
    pub about: EnrolmentRecord,
}

/// An agent of the path.
#[derive(Deserialize, JsonSchema)]
struct OneAgent {
    /// Fingerprint of its key, or the beginning of it where no other begins so.
    #[schemars(length(min = 1, max = 64))]
    key: String,
}

/// A token of the path.
#[derive(Deserialize, JsonSchema)]
struct OneToken {
    /// Its id.
    id: String,
}

pub(super) fn routes() -> Routes<Arc<Api>> {
    Routes::new()
        .get(
            "/agents",
            about(Role::Viewer, "list_agents", "Agents that were approved, with their certificates"),
            agents,
        )
        .delete(
            "/agents/{key}",
            about(
                Role::Operator,
                "revoke_agent",
                "Revokes an agent's key for ever; its session and streams end at once",
            ),
            revoke_agent,
        )
        .get(
            "/enrolment-tokens",
            about(Role::Operator, "list_enrolment_tokens", "One-time tokens that approve a machine"),
            tokens,
        )
        .post(
            "/enrolment-tokens",
            about(Role::Operator, "make_enrolment_token", "Make a one-time token; it is shown this once"),
            make_token,
        )
        .delete(
            "/enrolment-tokens/{id}",
            about(Role::Operator, "revoke_enrolment_token", "Revokes a token that was not used"),
            revoke_token,
        )
}

async fn agents(
    State(api): State<Arc<Api>>,
    Parameters(query): Parameters<PageQuery>,
) -> Answer<Json<Page<AgentView>>> {
    blocking(move || {
        let (limit, after) = (query.limit(), query.after.as_deref().unwrap_or_default());
        let found = api.store.agent_keys_page(after, limit + 1, query.search.as_deref())?;
        let connected = api.sessions.connected_keys();
        let view = |about: AgentKey| AgentView { connected: connected.contains(&about.key), about };
        Page::of(found, limit, |last| last.key.clone()).map(|about| Ok(view(about)))
    })
    .await
}

async fn revoke_agent(State(api): State<Arc<Api>>, caller: Caller, At(at): At<OneAgent>) -> Answer<Json<RevokedAgent>> {
    blocking(move || Ok(RevokedAgent { key: api.sessions.revoke(&at.key, &caller.actor)? })).await
}

async fn tokens(
    State(api): State<Arc<Api>>,
    Parameters(query): Parameters<PageQuery>,
) -> Answer<Json<Page<EnrolmentRecord>>> {
    blocking(move || {
        let (limit, after) = (query.limit(), query.after.as_deref().unwrap_or_default());
        let found = api.store.enrolment_tokens_page(after, limit + 1, query.search.as_deref())?;
        Ok(Page::of(found, limit, |last| last.id.clone()))
    })
    .await
}

async fn make_token(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(new): Body<NewEnrolment>,
) -> Answer<Created<MadeEnrolment>> {
    blocking(move || {
        let (about, token) = api.sessions.make_enrolment_token(&new.label, new.minutes, &caller.actor)?;
        Ok(MadeEnrolment { token: token.expose(), about })
    })
    .await
    .map(|Json(made)| Created(made))
}

async fn revoke_token(State(api): State<Arc<Api>>, caller: Caller, At(at): At<OneToken>) -> Answer<NoContent> {
    blocking(move || api.store.revoke_enrolment_token(&at.id, &caller.actor)).await.map(|_| NoContent)
}
