//! Who asks: a layer finds it out and puts it into the request; a request without a caller is nobody's.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{Problem, ProblemKind};
use crate::trust::{Caller, Role};

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
        Some(caller) => match caller.require(role) {
            Ok(()) => next.run(request).await,
            Err(error) => Problem::from(error).into_response(),
        },
    }
}

fn nobody() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, ProblemKind::Unauthenticated, "log in, or give a token")
}
