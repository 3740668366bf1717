//! The routes. Everything that may block on the store or an agent runs on the blocking pool.

use std::sync::Arc;

use axum::body::HttpBody;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::views::TypedCode;
use super::{
    BatchView, CONVERSIONS_MAX, MachineView, NewBatches, NewConversion, Peer, Problem, ProblemKind, Status,
    TaskSchedule, TaskView,
};
use super::{drivers, pxe};
use crate::driver_library::DriverLibrary;
use crate::sessions::{Approval, Sessions};
use crate::store::{AuditEntry, LogEntry, Store};
use crate::tasks::{Batch, Tasks, Wish};
use crate::{Error, ErrorKind};

/// Longest body of a request in bytes.
const BODY_BYTES_MAX: usize = 256 << 10;
/// Lines of a log that one answer holds.
const LOG_LINES_MAX: u32 = 1000;

/// What the routes work on.
pub(crate) struct Api {
    pub(crate) store: Arc<Store>,
    pub(crate) sessions: Sessions,
    pub(crate) drivers: DriverLibrary,
    pub(crate) tasks: Tasks,
    pub(crate) status: Status,
    /// The log of the PXE service, where it runs.
    pub(crate) pxe: Option<Arc<netboot::Log>>,
}

type Shared = State<Arc<Api>>;
pub(super) type Answer<T> = std::result::Result<T, Problem>;

#[derive(Deserialize)]
struct LogQuery {
    #[serde(default)]
    after: i64,
}

#[derive(Deserialize)]
struct AuditQuery {
    limit: Option<u32>,
}

/// The API, all of it.
pub(crate) fn router(api: Arc<Api>) -> Router {
    let pxe = pxe::routes(api.store.clone(), api.pxe.clone());
    let drivers = drivers::routes(api.clone());
    let v1 = Router::new()
        .route("/status", get(status))
        .route("/machines", get(machines))
        .route("/machines/approve", post(approve))
        .route("/machines/{machine}", get(machine))
        .route("/tasks", get(tasks).post(create_task))
        .route("/tasks/{id}", get(task))
        .route("/tasks/{id}/log", get(task_log))
        .route("/tasks/{id}/cancel", post(cancel_task))
        .route("/tasks/{id}/retry", post(retry_task))
        .route("/tasks/{id}/resume", post(resume_task))
        .route("/tasks/{id}/schedule", post(schedule_task))
        .route("/tasks/{id}/start", post(start_task))
        .route("/batches", post(create_batches))
        .route("/audit", get(audit))
        .with_state(api);
    finish(v1.merge(pxe).merge(drivers))
}

/// Routes as an API of its own: below its version, for its owner, with problems for what is not there.
pub(super) fn finish(v1: Router) -> Router {
    Router::new()
        .nest("/api/v1", v1)
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, ProblemKind::NotFound, "no such resource"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, ProblemKind::Invalid, "this resource has no such method")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(with_whole_body))
        .layer(middleware::from_fn(only_for_the_owner))
}

/// A resource that wants no body, or that refuses, answers after a short one is here too: a client that is still sending
/// when the connection is closed loses the answer.
async fn with_whole_body(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    if body.size_hint().upper().is_none_or(|bytes| bytes > BODY_BYTES_MAX as u64) {
        return next.run(Request::from_parts(head, body)).await;
    }
    match axum::body::to_bytes(body, BODY_BYTES_MAX).await {
        Ok(bytes) => next.run(Request::from_parts(head, bytes.into())).await,
        Err(e) => invalid(&format!("the body breaks off: {e}")).into_response(),
    }
}

async fn only_for_the_owner(ConnectInfo(peer): ConnectInfo<Peer>, request: Request, next: Next) -> Response {
    if peer.may_use() {
        return next.run(request).await;
    }
    tracing::warn!(peer = peer.actor(), "refused on the API's socket");
    Problem::new(StatusCode::FORBIDDEN, ProblemKind::Forbidden, "only for the owner of the controller").into_response()
}

async fn status(State(api): Shared) -> Json<Status> {
    Json(api.status.clone())
}

async fn machines(State(api): Shared) -> Answer<Json<Vec<MachineView>>> {
    blocking(move || all_machines(&api)).await
}

async fn machine(State(api): Shared, Path(name): Path<String>) -> Answer<Json<MachineView>> {
    blocking(move || find_machine(&api, &name)).await
}

async fn approve(
    State(api): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: std::result::Result<Json<TypedCode>, JsonRejection>,
) -> Answer<Json<Approval>> {
    let typed = json(body)?;
    blocking(move || api.sessions.approve(&typed.code, &peer.actor())).await
}

async fn tasks(State(api): Shared) -> Answer<Json<Vec<TaskView>>> {
    blocking(move || {
        let all = api.store.tasks()?;
        all.into_iter()
            .map(|task| {
                let progress = api.tasks.progress(&task);
                TaskView::new(task, progress)
            })
            .collect()
    })
    .await
}

async fn create_task(
    State(api): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: std::result::Result<Json<NewConversion>, JsonRejection>,
) -> Answer<(StatusCode, Json<TaskView>)> {
    let new = json(body)?;
    let created = blocking(move || {
        let id = api.tasks.create(&wish(&api, new)?, &peer.actor())?;
        find_task(&api, &id)
    });
    Ok((StatusCode::CREATED, created.await?))
}

async fn create_batches(
    State(api): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: std::result::Result<Json<NewBatches>, JsonRejection>,
) -> Answer<(StatusCode, Json<Vec<BatchView>>)> {
    let conversions = json(body)?.conversions;
    if conversions.is_empty() || conversions.len() > CONVERSIONS_MAX {
        let count = conversions.len();
        return Err(invalid(&format!("conversions: expected 1 to {CONVERSIONS_MAX}, found {count}")));
    }
    let created = blocking(move || {
        let wishes = conversions.into_iter().map(|new| wish(&api, new)).collect::<crate::Result<Vec<_>>>()?;
        let batches = api.tasks.create_batches(&wishes, &peer.actor())?;
        let view = |batch: Batch| {
            let tasks = batch.tasks.iter().map(|id| find_task(&api, id)).collect::<crate::Result<_>>()?;
            Ok(BatchView { id: batch.id, kind: batch.kind, tasks })
        };
        batches.into_iter().map(view).collect()
    });
    Ok((StatusCode::CREATED, created.await?))
}

/// What is asked for, with the machine by its id.
fn wish(api: &Api, new: NewConversion) -> crate::Result<Wish> {
    let machine = find_machine(api, &new.machine)?;
    let id = machine
        .id
        .ok_or_else(|| Error::new(ErrorKind::Conflict, format!("machine {} is not approved yet", machine.name)))?;
    Ok(Wish { machine: id, request: new.request, wait: new.wait, schedule: new.schedule.map(Into::into) })
}

async fn task(State(api): Shared, Path(id): Path<String>) -> Answer<Json<TaskView>> {
    blocking(move || find_task(&api, &id)).await
}

async fn task_log(
    State(api): Shared,
    Path(id): Path<String>,
    query: std::result::Result<Query<LogQuery>, QueryRejection>,
) -> Answer<Json<Vec<LogEntry>>> {
    let Query(query) = query.map_err(|e| invalid(&e.body_text()))?;
    blocking(move || {
        find_task(&api, &id)?;
        api.store.task_log(&id, query.after, LOG_LINES_MAX)
    })
    .await
}

async fn cancel_task(
    State(api): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(id): Path<String>,
) -> Answer<Json<TaskView>> {
    blocking(move || {
        api.tasks.cancel(&id, &peer.actor())?;
        find_task(&api, &id)
    })
    .await
}

async fn retry_task(
    State(api): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(id): Path<String>,
) -> Answer<Json<TaskView>> {
    blocking(move || {
        api.tasks.retry(&id, &peer.actor())?;
        find_task(&api, &id)
    })
    .await
}

async fn resume_task(
    State(api): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(id): Path<String>,
) -> Answer<Json<TaskView>> {
    blocking(move || {
        api.tasks.confirm(&id, &peer.actor())?;
        find_task(&api, &id)
    })
    .await
}

async fn schedule_task(
    State(api): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(id): Path<String>,
    body: std::result::Result<Json<TaskSchedule>, JsonRejection>,
) -> Answer<Json<TaskView>> {
    let schedule = json(body)?;
    blocking(move || {
        api.tasks.schedule(&id, schedule.into(), &peer.actor())?;
        find_task(&api, &id)
    })
    .await
}

async fn start_task(
    State(api): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(id): Path<String>,
) -> Answer<Json<TaskView>> {
    blocking(move || {
        api.tasks.start_now(&id, &peer.actor())?;
        find_task(&api, &id)
    })
    .await
}

async fn audit(
    State(api): Shared,
    query: std::result::Result<Query<AuditQuery>, QueryRejection>,
) -> Answer<Json<Vec<AuditEntry>>> {
    let Query(query) = query.map_err(|e| invalid(&e.body_text()))?;
    blocking(move || api.store.audit(query.limit.unwrap_or(100).min(LOG_LINES_MAX))).await
}

/// Waiting machines first, then the known ones, the last seen first.
fn all_machines(api: &Api) -> crate::Result<Vec<MachineView>> {
    let live = api.sessions.live();
    let mut all: Vec<MachineView> =
        live.iter().filter(|session| session.machine.is_none()).map(MachineView::waiting).collect();
    for known in api.store.machines()? {
        // Of two sessions of one machine the newest counts.
        let session = live.iter().rev().find(|session| session.machine.as_deref() == Some(known.id.as_str()));
        all.push(MachineView::known(known, session));
    }
    Ok(all)
}

/// By id, or by a name that only one machine has.
pub(super) fn find_machine(api: &Api, name: &str) -> crate::Result<MachineView> {
    let all = all_machines(api)?;
    if let Some(found) = all.iter().find(|machine| machine.id.as_deref() == Some(name)) {
        return Ok(found.clone());
    }
    let named: Vec<&MachineView> = all.iter().filter(|machine| machine.name == name).collect();
    match named.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Error::new(ErrorKind::NotFound, format!("no machine {name}"))),
        several => {
            let count = several.len();
            Err(Error::new(ErrorKind::Conflict, format!("{count} machines are named {name}: use the id")))
        }
    }
}

fn find_task(api: &Api, id: &str) -> crate::Result<TaskView> {
    let task = api.store.task(id)?.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no task {id}")))?;
    let progress = api.tasks.progress(&task);
    TaskView::new(task, progress)
}

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

pub(super) fn json<T>(body: std::result::Result<Json<T>, JsonRejection>) -> Answer<T> {
    body.map(|Json(value)| value).map_err(|e| Problem { status: e.status().as_u16(), ..invalid(&e.body_text()) })
}

pub(super) fn invalid(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, ProblemKind::Invalid, detail)
}
