//! Who asks, and what they may.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Problem, ProblemKind};

/// What somebody may do; each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees everything but secrets, users and the audit log.
    Viewer,
    /// Approves machines; makes, changes and ends tasks.
    Operator,
    /// Everything.
    Administrator,
}

impl Role {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Who asks. A layer finds it out and puts it into the request; a request without one is nobody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// As the audit log names them.
    pub(crate) actor: String,
    /// What they may.
    pub(crate) role: Role,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(nobody)
    }
}

impl aide::OperationInput for Caller {}

/// Lets through who has the role.
pub(super) async fn require(State(role): State<Role>, request: Request, next: Next) -> Response {
    match request.extensions().get::<Caller>() {
        None => nobody().into_response(),
        Some(caller) if caller.role < role => {
            let detail = format!("this needs the role {role}; {} is {}", caller.actor, caller.role);
            Problem::new(StatusCode::FORBIDDEN, ProblemKind::Forbidden, detail).into_response()
        }
        Some(_) => next.run(request).await,
    }
}

fn nobody() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, ProblemKind::Unauthenticated, "log in, or give a token")
}
