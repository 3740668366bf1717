//! Users, API tokens, and credentials for sources and targets.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::NoContent;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::{At, Body};
use super::routes::{About, Answer, Created, Routes, about, blocking};
use super::{Api, Caller, Role};
use crate::store::{ApiToken, User};
use crate::trust::{Credential, NewCredential, Secret};

/// A user who is to be made.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewUser {
    /// Letters, digits, or any of . _ - @; kept in lower case.
    #[schemars(length(max = 64))]
    name: String,
    /// What they may do.
    role: Role,
    /// At least 12 characters.
    password: Secret,
}

/// What is changed of a user.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UserChange {
    /// What they may do from now on.
    #[serde(default)]
    role: Option<Role>,
    /// Whether they cannot log in.
    #[serde(default)]
    disabled: Option<bool>,
    /// Another password.
    #[serde(default)]
    password: Option<Secret>,
}

/// An API token that is to be made.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it is for.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// What it may do: not more than whoever makes it, nor than its user.
    pub role: Role,
    /// How long it lasts; 90 where it is not given.
    #[serde(default)]
    #[schemars(range(min = 1, max = 3650))]
    pub days: Option<u32>,
    /// Whose it is to be, where that is somebody else: for administrators.
    #[serde(default)]
    pub user: Option<String>,
}

/// An API token that was made.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MadeToken {
    /// The token itself. It is shown this once.
    pub token: String,
    /// What is kept of it.
    pub about: ApiToken,
}

/// Something of the path.
#[derive(Deserialize, JsonSchema)]
struct Named {
    /// Its name or id.
    name: String,
}

pub(super) fn routes() -> Routes<Arc<Api>> {
    const fn administrator(id: &'static str, summary: &'static str) -> About {
        about(Role::Administrator, id, summary)
    }
    Routes::new()
        .get("/users", administrator("list_users", "All users"), users)
        .post("/users", administrator("add_user", "Make a user"), add_user)
        .post(
            "/users/{name}",
            administrator("change_user", "Change a user's role or password, or disable them; their sessions end"),
            change_user,
        )
        .delete("/users/{name}", administrator("remove_user", "Remove a user with their tokens"), remove_user)
        .get("/tokens", about(Role::Viewer, "list_tokens", "My API tokens; all for administrators"), tokens)
        .post("/tokens", about(Role::Viewer, "make_token", "Make an API token; it is shown this once"), make_token)
        .delete("/tokens/{name}", about(Role::Viewer, "revoke_token", "Revoke an API token by its id"), revoke_token)
        .get(
            "/credentials",
            about(Role::Operator, "list_credentials", "Credentials for sources and targets, without their secrets"),
            credentials,
        )
        .put(
            "/credentials/{name}",
            administrator("set_credential", "Keep a credential, in the place of one of the same name"),
            set_credential,
        )
        .delete("/credentials/{name}", administrator("remove_credential", "Forget a credential"), remove_credential)
}

async fn users(State(api): State<Arc<Api>>) -> Answer<Json<Vec<User>>> {
    blocking(move || api.store.users()).await
}

async fn add_user(State(api): State<Arc<Api>>, caller: Caller, Body(new): Body<NewUser>) -> Answer<Created<User>> {
    blocking(move || api.access.add_user(&new.name, new.role, &new.password, &caller.actor))
        .await
        .map(|Json(user)| Created(user))
}

async fn change_user(
    State(api): State<Arc<Api>>,
    caller: Caller,
    At(Named { name }): At<Named>,
    Body(change): Body<UserChange>,
) -> Answer<Json<User>> {
    let UserChange { role, disabled, password } = change;
    blocking(move || api.access.change_user(&name, role, disabled, password.as_ref(), &caller.actor)).await
}

async fn remove_user(State(api): State<Arc<Api>>, caller: Caller, At(Named { name }): At<Named>) -> Answer<NoContent> {
    blocking(move || api.access.remove_user(&name, &caller.actor)).await.map(|_| NoContent)
}

async fn tokens(State(api): State<Arc<Api>>, caller: Caller) -> Answer<Json<Vec<ApiToken>>> {
    blocking(move || api.access.tokens(&caller)).await
}

async fn make_token(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(new): Body<NewToken>,
) -> Answer<Created<MadeToken>> {
    let made = blocking(move || {
        let (about, token) = api.access.make_token(&caller, &new.name, new.role, new.days, new.user.as_deref())?;
        Ok(MadeToken { token: token.expose().to_owned(), about })
    });
    made.await.map(|Json(made)| Created(made))
}

async fn revoke_token(State(api): State<Arc<Api>>, caller: Caller, At(Named { name }): At<Named>) -> Answer<NoContent> {
    blocking(move || api.access.revoke_token(&name, &caller)).await.map(|_| NoContent)
}

async fn credentials(State(api): State<Arc<Api>>) -> Answer<Json<Vec<Credential>>> {
    blocking(move || api.access.credentials()).await
}

async fn set_credential(
    State(api): State<Arc<Api>>,
    caller: Caller,
    At(Named { name }): At<Named>,
    Body(new): Body<NewCredential>,
) -> Answer<Json<Credential>> {
    blocking(move || api.access.set_credential(&name, &new, &caller.actor)).await
}

async fn remove_credential(
    State(api): State<Arc<Api>>,
    caller: Caller,
    At(Named { name }): At<Named>,
) -> Answer<NoContent> {
    blocking(move || api.store.remove_credential(&name, &caller.actor)).await.map(|_| NoContent)
}
