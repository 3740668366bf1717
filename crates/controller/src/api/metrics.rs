//! `GET /metrics`: what Prometheus reads; for whoever may see the tasks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::caller::require;
use super::routes::blocking;
use super::{Api, Role};
use crate::Result;
use crate::metrics::{Family, Page};
use crate::sessions::LivePhase;

/// States that are told even where no task is in them: what is absent cannot be watched.
const STATES: [&str; 9] =
    ["waiting", "unconfirmed", "scheduled", "queued", "running", "paused", "done", "failed", "cancelled"];

/// The route, outside the API's versions: Prometheus looks for it there.
pub(super) fn router(api: &Arc<Api>) -> Router {
    let methods = get(metrics).route_layer(middleware::from_fn_with_state(Role::Viewer, require));
    Router::new().route("/metrics", methods).with_state(Arc::clone(api))
}

/// Counts what was asked and how it was answered, by the route and not by what stood in its place.
pub(super) async fn count(State(requests): State<Arc<Family>>, request: Request, next: Next) -> Response {
    let method = request.method().as_str().to_owned();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    // A method can be any word that a client makes up.
    let method = if route == "none" { "any" } else { &method };
    requests.count(&[method, &route, response.status().as_str()]);
    response
}

async fn metrics(State(api): State<Arc<Api>>) -> Response {
    match blocking(move || page(&api)).await {
        Ok(Json(text)) => ([(header::CONTENT_TYPE, Page::MEDIA_TYPE)], text).into_response(),
        Err(problem) => problem.into_response(),
    }
}

fn page(api: &Api) -> Result<String> {
    let mut page = Page::default();
    page.gauges("vconverter_build_info", "The version.", "version", &[(env!("CARGO_PKG_VERSION"), 1)]);
    let started = u64::try_from(api.status.started_at.0 / 1000).unwrap_or(0);
    page.gauge("process_start_time_seconds", "Start of the controller, seconds since 1970.", started);
    if let Some(bytes) = resident_bytes() {
        page.gauge("process_resident_memory_bytes", "Memory of the controller.", bytes);
    }
    let mut tasks: BTreeMap<String, u64> = STATES.iter().map(|state| ((*state).to_owned(), 0)).collect();
    tasks.extend(api.store.task_counts()?);
    let tasks: Vec<(&str, u64)> = tasks.iter().map(|(state, count)| (state.as_str(), *count)).collect();
    page.gauges("vconverter_tasks", "Tasks by state.", "state", &tasks);
    page.gauge("vconverter_machines", "Machines that are known.", api.store.machine_count()?);
    let live = api.sessions.live();
    let phase = |phase| live.iter().filter(|session| session.phase == phase).count() as u64;
    let phases = [
        ("pairing", phase(LivePhase::Pairing)),
        ("waiting-for-approval", phase(LivePhase::WaitingForApproval)),
        ("approved", phase(LivePhase::Approved)),
        ("ready", phase(LivePhase::Ready)),
    ];
    page.gauges("vconverter_agent_sessions", "Agents that are connected, by how far they are.", "phase", &phases);
    let traffic = api.sessions.traffic();
    page.gauge("vconverter_streams", "Disks that are being received.", traffic.open.load(Relaxed));
    let received = traffic.received.load(Relaxed);
    page.counter("vconverter_received_bytes_total", "Bytes received on data connections.", received);
    let labels = ["method", "route", "status"];
    page.family("vconverter_api_requests_total", "Requests of the API that were answered.", labels, &api.requests);
    page.latency("vconverter_store_seconds", "Time for which a caller of the store had it.", api.store.latency());
    if let Some(log) = &api.pxe {
        let answers = log.records(0, usize::MAX).last().map_or(0, |record| record.number);
        page.counter("vconverter_pxe_requests_total", "Requests of machines that start from the network.", answers);
    }
    Ok(page.finish())
}

/// From `/proc/self/status`, which says it in KiB.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
