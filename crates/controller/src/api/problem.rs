//! Errors as the API shows them: `application/problem+json` (RFC 9457).

use aide::generate::GenContext;
use aide::openapi::{MediaType, Operation, ReferenceOr, SchemaObject, StatusCode as DocumentedStatus};
use aide::operation::OperationOutput;
use aide::transform::TransformOperation;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind};

/// A problem (RFC 9457, section 3); `kind` is an extension member for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `about:blank`: the title says what the status means.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The error and its causes in one line.
    pub detail: String,
    /// What a client should do about it.
    pub kind: ProblemKind,
    /// Seconds to wait, where that is what to do; the header `Retry-After` says the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

/// What a client should do about a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// Correct the request.
    Invalid,
    /// Look for another id, name or code.
    NotFound,
    /// Wait for another state of things, or change it.
    Conflict,
    /// Log in, or give a token.
    Unauthenticated,
    /// The client may not.
    Forbidden,
    /// Wait, as the detail says.
    TooMany,
    /// See the controller's log.
    Internal,
}

impl Problem {
    pub(super) fn new(status: StatusCode, kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            type_uri: "about:blank".into(),
            title: status.canonical_reason().unwrap_or("Error").into(),
            status: status.as_u16(),
            detail: detail.into(),
            kind,
            retry_after: None,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (status, kind) = match error.kind {
            ErrorKind::NotFound => (StatusCode::NOT_FOUND, ProblemKind::NotFound),
            ErrorKind::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, ProblemKind::Invalid),
            ErrorKind::Conflict => (StatusCode::CONFLICT, ProblemKind::Conflict),
            ErrorKind::Unauthenticated => (StatusCode::UNAUTHORIZED, ProblemKind::Unauthenticated),
            ErrorKind::Forbidden => (StatusCode::FORBIDDEN, ProblemKind::Forbidden),
            ErrorKind::TooMany => (StatusCode::TOO_MANY_REQUESTS, ProblemKind::TooMany),
            _ => {
                tracing::error!("{}", error.chain());
                (StatusCode::INTERNAL_SERVER_ERROR, ProblemKind::Internal)
            }
        };
        Self { retry_after: error.retry_seconds, ..Self::new(status, kind, error.chain()) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after;
        let mut response = (status, Json(self)).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        let content_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}

/// What a route that slows down who guesses may answer (RFC 6585, section 4), with the time to wait (RFC 9110, section
/// 10.2.3).
pub(super) fn describe_too_many(mut operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation = operation.response::<429, Problem>();
    let schema = serde_json::json!({ "type": "integer", "minimum": 1 });
    let header = serde_json::from_value(serde_json::json!({
        "description": "Seconds to wait before the next try.", "required": true, "schema": schema
    }));
    let responses = operation.inner_mut().responses.as_mut();
    if let Some(ReferenceOr::Item(response)) =
        responses.and_then(|all| all.responses.get_mut(&DocumentedStatus::Code(429)))
        && let Ok(header) = header
    {
        response.headers.insert("Retry-After".to_owned(), ReferenceOr::Item(header));
    }
    operation
}

/// A request that cannot be understood.
pub(super) fn invalid(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, ProblemKind::Invalid, detail)
}

/// Nothing has this address.
pub(super) fn nothing_there() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, ProblemKind::NotFound, "no such resource")
}

impl OperationOutput for Problem {
    type Inner = Self;

    fn operation_response(context: &mut GenContext, _: &mut Operation) -> Option<aide::openapi::Response> {
        let schema = context.schema.subschema_for::<Self>();
        let schema = SchemaObject { json_schema: schema, example: None, external_docs: None };
        let media = MediaType { schema: Some(schema), ..MediaType::default() };
        Some(aide::openapi::Response {
            description: "A problem (RFC 9457).".into(),
            content: [("application/problem+json".to_owned(), media)].into_iter().collect(),
            ..aide::openapi::Response::default()
        })
    }

    fn inferred_responses(
        context: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, aide::openapi::Response)> {
        Self::operation_response(context, operation).map(|response| (None, response)).into_iter().collect()
    }
}
