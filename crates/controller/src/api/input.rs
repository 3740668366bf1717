//! What requests bring: bodies, parameters and names in the path. What cannot be read is answered with a problem.

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::Problem;
use super::problem::invalid;

/// A body of JSON.
pub(super) struct Body<T>(pub(super) T);

/// What follows the question mark.
pub(super) struct Parameters<T>(pub(super) T);

/// The parts of the path that name things.
pub(super) struct At<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Json::from_request(request, state).await;
        body.map(|Json(value)| Self(value)).map_err(|e| told(e.status(), &e.body_text()))
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Query::try_from_uri(&parts.uri).map(|Query(value)| Self(value)).map_err(|e| told(e.status(), &e.body_text()))
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for At<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(value)| Self(value)).map_err(|e| told(e.status(), &e.body_text()))
    }
}

fn told(status: StatusCode, text: &str) -> Problem {
    Problem { status: status.as_u16(), ..invalid(text) }
}

/// Documents an input as the library documents its own of the same kind.
macro_rules! documented_as {
    ($own:ident, $theirs:ident) => {
        impl<T: JsonSchema> aide::OperationInput for $own<T> {
            fn operation_input(context: &mut aide::generate::GenContext, operation: &mut aide::openapi::Operation) {
                $theirs::<T>::operation_input(context, operation);
            }
        }
    };
}

documented_as!(Body, Json);
documented_as!(Parameters, Query);
documented_as!(At, Path);
