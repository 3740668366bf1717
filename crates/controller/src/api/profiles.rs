//! Profiles of tasks.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::{At, Body};
use super::routes::{Answer, Routes, about, blocking};
use super::{Api, Caller, Role};
use crate::store::Profile;
use crate::tasks::Settings;

/// A profile as it is to be.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewProfile {
    /// What a task gets that says nothing else.
    pub settings: Settings,
    /// Whether new tasks get it that name none.
    #[serde(default)]
    pub is_default: bool,
}

/// A profile of the path.
#[derive(Deserialize, JsonSchema)]
struct OneProfile {
    /// Its name.
    name: String,
}

pub(super) fn routes() -> Routes<Arc<Api>> {
    Routes::new()
        .get("/profiles", about(Role::Viewer, "list_profiles", "Profiles of tasks, by name"), list)
        .put("/profiles/{name}", about(Role::Operator, "set_profile", "Makes a profile, or changes it"), set)
        .delete("/profiles/{name}", about(Role::Operator, "delete_profile", "Forgets a profile"), delete)
}

async fn list(State(api): State<Arc<Api>>) -> Answer<Json<Vec<Profile>>> {
    blocking(move || api.store.profiles()).await
}

async fn set(
    State(api): State<Arc<Api>>,
    caller: Caller,
    At(at): At<OneProfile>,
    Body(new): Body<NewProfile>,
) -> Answer<Json<Profile>> {
    blocking(move || {
        new.settings.check()?;
        api.store.set_profile(&at.name, &new.settings, new.is_default, &caller.actor)
    })
    .await
}

async fn delete(State(api): State<Arc<Api>>, caller: Caller, At(at): At<OneProfile>) -> Answer<Json<Vec<Profile>>> {
    blocking(move || {
        api.store.delete_profile(&at.name, &caller.actor)?;
        api.store.profiles()
    })
    .await
}
