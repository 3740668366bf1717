//! Setting up, logging in and out, and who one is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::authentication::{COOKIE, Cookie, Origin};
use super::input::Body;
use super::routes::{Answer, Routes, about, blocking, open};
use super::{Api, Caller, Problem, Role};
use crate::trust::{Login, Proof, Secret};

/// Whether somebody has to make the first administrator.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SetupState {
    /// Whether there is no user yet.
    pub needed: bool,
}

/// The first administrator.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewSetup {
    /// As `vconverter serve` printed it.
    #[schemars(length(max = 64))]
    code: String,
    /// Letters, digits, or any of . _ - @
    #[schemars(length(max = 64))]
    name: String,
    /// At least 12 characters.
    password: Secret,
}

/// Who logs in.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewLogin {
    /// The user's name.
    #[schemars(length(max = 64))]
    name: String,
    /// The user's password.
    password: Secret,
}

/// Another password.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    /// The one until now.
    old: Secret,
    /// The one from now on; at least 12 characters.
    new: Secret,
}

/// Who asks.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SessionView {
    /// The user; on the Unix socket and for tokens, as the audit log names them.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// What `X-CSRF-Token` must say in requests that change something; `null` where no cookie was sent.
    pub csrf_token: Option<String>,
}

/// A session that begins: with its cookie.
struct Begun(Login);

impl IntoResponse for Begun {
    fn into_response(self) -> Response {
        let Login { token, name, role } = self.0;
        let view = SessionView { name, role, csrf_token: Some(token.csrf()) };
        let cookie = format!("{COOKIE}={}; Path=/; Secure; HttpOnly; SameSite=Strict", token.expose());
        with_cookie(Json(view).into_response(), &cookie)
    }
}

impl aide::OperationOutput for Begun {
    type Inner = SessionView;

    fn inferred_responses(
        context: &mut aide::generate::GenContext,
        operation: &mut aide::openapi::Operation,
    ) -> Vec<(Option<u16>, aide::openapi::Response)> {
        Json::<SessionView>::inferred_responses(context, operation)
    }
}

fn with_cookie(mut response: Response, cookie: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
    response
}

pub(super) fn routes() -> Routes<Arc<Api>> {
    Routes::new()
        .get("/setup", open("get_setup", "Whether the first administrator has to be made"), setup)
        .post(
            "/setup",
            open("set_up", "Make the first administrator, with the code of this start, and log in").throttled(),
            set_up,
        )
        .post("/login", open("log_in", "Log in: the answer sets the session's cookie").throttled(), log_in)
        .get("/session", about(Role::Viewer, "get_session", "Who I am, and the CSRF token"), session)
        .post("/logout", about(Role::Viewer, "log_out", "End the session"), log_out)
        .post(
            "/session/password",
            about(Role::Viewer, "change_own_password", "Change my password; my sessions end, and another begins")
                .throttled(),
            change_password,
        )
}

async fn setup(State(api): State<Arc<Api>>) -> Answer<Json<SetupState>> {
    blocking(move || Ok(SetupState { needed: api.access.needs_setup()? })).await
}

async fn set_up(State(api): State<Arc<Api>>, Origin(address): Origin, Body(new): Body<NewSetup>) -> Answer<Begun> {
    blocking(move || api.access.set_up(&new.code, &new.name, &new.password, address))
        .await
        .map(|Json(login)| Begun(login))
}

async fn log_in(State(api): State<Arc<Api>>, Origin(address): Origin, Body(new): Body<NewLogin>) -> Answer<Begun> {
    blocking(move || api.access.log_in(&new.name, &new.password, address)).await.map(|Json(login)| Begun(login))
}

async fn session(caller: Caller) -> Json<SessionView> {
    let csrf_token = match caller.proof {
        Proof::Session { csrf_token } => Some(csrf_token),
        Proof::Socket | Proof::Token => None,
    };
    let name = caller.user.filter(|_| csrf_token.is_some()).unwrap_or(caller.actor);
    Json(SessionView { name, role: caller.role, csrf_token })
}

/// A session that ended: its cookie is forgotten too.
struct Ended;

impl IntoResponse for Ended {
    fn into_response(self) -> Response {
        let cookie = format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0");
        with_cookie(axum::response::NoContent.into_response(), &cookie)
    }
}

impl aide::OperationOutput for Ended {
    type Inner = ();

    fn inferred_responses(
        context: &mut aide::generate::GenContext,
        operation: &mut aide::openapi::Operation,
    ) -> Vec<(Option<u16>, aide::openapi::Response)> {
        axum::response::NoContent::inferred_responses(context, operation)
    }
}

async fn log_out(State(api): State<Arc<Api>>, Cookie(token): Cookie) -> Answer<Ended> {
    let ended = blocking(move || token.map_or(Ok(()), |token| api.access.log_out(&token)));
    ended.await.map(|_| Ended)
}

async fn change_password(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Origin(address): Origin,
    Body(new): Body<NewPassword>,
) -> Answer<Begun> {
    let (Proof::Session { .. }, Some(user)) = (&caller.proof, caller.user) else {
        return Err(Problem::from(crate::Error::new(
            crate::ErrorKind::Forbidden,
            "only in a session: log in with the password that is to be changed",
        )));
    };
    blocking(move || api.access.change_own_password(&user, &new.old, &new.new, address))
        .await
        .map(|Json(login)| Begun(login))
}
