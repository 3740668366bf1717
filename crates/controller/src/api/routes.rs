//! How routes are made: each says who may use it and what it does, and the OpenAPI document is made of the same words.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use aide::axum::ApiRouter;
use aide::axum::routing::{ApiMethodRouter, delete_with, get_with, post_with, put_with};
use aide::openapi::OpenApi;
use aide::operation::{OperationHandler, OperationInput, OperationOutput};
use aide::transform::TransformOperation;
use axum::body::HttpBody;
use axum::extract::{DefaultBodyLimit, Request};
use axum::handler::Handler;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use schemars::JsonSchema;

use super::caller::require;
use super::problem::{describe_too_many, invalid, nothing_there};
use super::{Problem, ProblemKind, Role};

/// Longest body of a request in bytes, where a route has no other bound.
const BODY_BYTES_MAX: usize = 256 << 10;

/// Time for a short body to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) type Answer<T> = std::result::Result<T, Problem>;

/// What a route is.
#[derive(Clone, Copy)]
pub(super) struct About {
    /// Who may use it; `None` is everybody who reaches it.
    role: Option<Role>,
    /// Its name for programs, `snake_case`.
    id: &'static str,
    /// What it does, in a sentence.
    summary: &'static str,
    /// Longest body in bytes.
    body_bytes_max: usize,
    /// Whether it slows down who guesses.
    is_throttled: bool,
}

/// A route for whoever has a role.
pub(super) const fn about(role: Role, id: &'static str, summary: &'static str) -> About {
    About { role: Some(role), id, summary, body_bytes_max: BODY_BYTES_MAX, is_throttled: false }
}

/// A route for everybody who reaches it.
pub(super) const fn open(id: &'static str, summary: &'static str) -> About {
    About { role: None, id, summary, body_bytes_max: BODY_BYTES_MAX, is_throttled: false }
}

impl About {
    /// With longer bodies.
    pub(super) const fn with_body(self, bytes_max: usize) -> Self {
        Self { body_bytes_max: bytes_max, ..self }
    }

    /// One that slows down who guesses.
    pub(super) const fn throttled(self) -> Self {
        Self { is_throttled: true, ..self }
    }

    fn describe(self, operation: TransformOperation<'_>) -> TransformOperation<'_> {
        let mut operation = operation.id(self.id).summary(self.summary);
        let role = self.role.map_or("none", Role::as_str);
        operation.inner_mut().extensions.insert("x-role".into(), role.into());
        if self.is_throttled { describe_too_many(operation) } else { operation }
    }
}

/// Routes that work on an `S`.
pub(super) struct Routes<S>(ApiRouter<S>);

/// A method of [`Routes`] for each method of HTTP.
macro_rules! methods {
    ($($method:ident $with:ident),*) => {$(
        pub(super) fn $method<H, I, O, T>(self, path: &str, about: About, handler: H) -> Self
        where
            H: Handler<T, S> + OperationHandler<I, O>,
            I: OperationInput,
            O: OperationOutput,
            T: 'static,
        {
            self.route(path, about, $with(handler, |operation| about.describe(operation)))
        }
    )*};
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub(super) fn new() -> Self {
        Self(ApiRouter::new())
    }

    methods!(get get_with, post post_with, put put_with, delete delete_with);

    fn route(self, path: &str, about: About, methods: ApiMethodRouter<S, Infallible>) -> Self {
        let methods = methods.route_layer(DefaultBodyLimit::max(about.body_bytes_max));
        let methods = match about.role {
            Some(role) => methods.route_layer(middleware::from_fn_with_state(role, require)),
            None => methods,
        };
        Self(self.0.api_route(path, methods))
    }

    /// These and others.
    pub(super) fn merge_with(self, other: Self) -> Self {
        Self(self.0.merge(other.0))
    }

    /// Working on `state`.
    pub(super) fn with_state(self, state: S) -> Routes<()> {
        Routes(self.0.with_state(state))
    }
}

impl Routes<()> {
    /// As an API of its own: below its version, with its document, and with problems for what is not there.
    pub(super) fn finish(self) -> Router {
        let mut document = OpenApi::default();
        let router = ApiRouter::new().nest("/api/v1", self.0).finish_api_with(&mut document, |document| {
            document
                .title("vconverter")
                .version(env!("CARGO_PKG_VERSION"))
                .description(include_str!("description.md"))
                .default_response::<Problem>()
        });
        let document: Arc<str> = serde_json::to_string_pretty(&document).unwrap_or_default().into();
        let openapi = async move || ([(header::CONTENT_TYPE, "application/json")], document.to_string());
        router
            .route("/api/v1/openapi.json", get(openapi))
            .fallback(async || nothing_there())
            .method_not_allowed_fallback(async || {
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, ProblemKind::Invalid, "this resource has no such method")
            })
    }
}

/// A resource that wants no body, or that refuses, answers after a short one is here too: a client that is still sending
/// when the connection is closed loses the answer.
pub(super) async fn with_whole_body(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    if body.size_hint().upper().is_none_or(|bytes| bytes > BODY_BYTES_MAX as u64) {
        return next.run(Request::from_parts(head, body)).await;
    }
    match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(head, bytes.into())).await,
        Ok(Err(e)) => invalid(&format!("the body breaks off: {e}")).into_response(),
        Err(_) => {
            let detail = format!("the body did not come within {} s", BODY_TIMEOUT.as_secs());
            Problem::new(StatusCode::REQUEST_TIMEOUT, ProblemKind::Invalid, detail).into_response()
        }
    }
}

/// Something new (201).
pub(super) struct Created<T>(pub(super) T);

impl<T: serde::Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, Json(self.0)).into_response()
    }
}

impl<T: JsonSchema> OperationOutput for Created<T> {
    type Inner = T;

    fn operation_response(
        context: &mut aide::generate::GenContext,
        operation: &mut aide::openapi::Operation,
    ) -> Option<aide::openapi::Response> {
        Json::<T>::operation_response(context, operation)
    }

    fn inferred_responses(
        context: &mut aide::generate::GenContext,
        operation: &mut aide::openapi::Operation,
    ) -> Vec<(Option<u16>, aide::openapi::Response)> {
        Self::operation_response(context, operation).map(|response| (Some(201), response)).into_iter().collect()
    }
}

/// Does what may block, on the store or an agent, on the pool for that.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> crate::Result<T> + Send + 'static,
) -> Answer<Json<T>> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(Json(done?)),
        Err(_) => {
            let detail = "the controller failed: see its log";
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, ProblemKind::Internal, detail))
        }
    }
}
