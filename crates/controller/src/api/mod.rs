//! The API: HTTP under `/api/v1`, for the command line, the console and programs.
//!
//! Its document (OpenAPI 3.1) is made of the routes themselves and served as `/api/v1/openapi.json`; a copy of it is
//! `crates/controller/openapi.json`. On the Unix socket in the data directory it is for the controller's owner and root.
//! What fails is answered with a problem (RFC 9457), see [`Problem`].

mod agents;
mod authentication;
mod caller;
mod controller;
mod cutover;
mod drivers;
mod events;
mod input;
mod inventory;
mod limits;
mod login;
mod machines;
mod metrics;
mod page;
mod preflight;
mod problem;
mod profiles;
mod proof;
mod pxe;
mod routes;
mod search;
mod socket;
mod tasks;
mod users;
mod views;

use std::sync::Arc;

use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};

use self::problem::nothing_there;
use crate::console;
use crate::cutover::Cutovers;
use crate::driver_library::DriverLibrary;
use crate::metrics::Family;
use crate::search::Searches;
use crate::sessions::Sessions;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::trust::Access;

pub use crate::trust::Role;
pub use agents::{AgentView, MadeEnrolment, NewEnrolment, RevokedAgent};
pub use drivers::NewPush;
pub use inventory::{AddedMachines, GroupName, JoinedMachine, NewMachines};
pub use login::{SessionView, SetupState};
pub use machines::ForgottenMachine;
pub use page::{LIMIT_MAX, Page};
pub use preflight::PreflightView;
pub use problem::{Problem, ProblemKind};
pub use profiles::NewProfile;
pub use protocol::message::BootMedium;
pub use pxe::NewPxeRule;
pub use users::{MadeToken, NewToken};
pub use views::{
    BatchView, CONVERSIONS_MAX, MachineState, MachineView, NewBatches, NewClone, NewConversion, NewRequest, Status,
    TaskRate, TaskReturn, TaskSchedule, TaskView,
};

pub(crate) use crate::trust::Caller;
pub(crate) use authentication::Origin;
pub(crate) use events::Events;
pub(crate) use pxe::pxe_router;
pub(crate) use socket::{Peer, bind};

/// What the routes work on.
pub(crate) struct Api {
    pub(crate) store: Arc<Store>,
    pub(crate) access: Arc<Access>,
    pub(crate) sessions: Sessions,
    pub(crate) drivers: DriverLibrary,
    pub(crate) tasks: Tasks,
    pub(crate) cutovers: Cutovers,
    pub(crate) searches: Searches,
    pub(crate) status: Status,
    /// The log of the PXE service, where it runs.
    pub(crate) pxe: Option<Arc<netboot::Log>>,
    pub(crate) events: Events,
    /// What was asked, and how it was answered.
    pub(crate) requests: Arc<Family>,
}

/// The API, all of it, before it is known who asks.
pub(crate) fn router(api: &Arc<Api>) -> Router {
    let pxe = pxe::routes(api.store.clone(), api.pxe.clone());
    controller::routes()
        .merge_with(machines::routes())
        .merge_with(agents::routes())
        .merge_with(inventory::routes())
        .merge_with(search::routes())
        .merge_with(tasks::routes())
        .merge_with(proof::routes())
        .merge_with(cutover::routes())
        .merge_with(drivers::routes())
        .merge_with(preflight::routes())
        .merge_with(limits::routes())
        .merge_with(profiles::routes())
        .merge_with(events::routes())
        .merge_with(login::routes())
        .merge_with(users::routes())
        .with_state(Arc::clone(api))
        .merge_with(pxe)
        .finish()
        .fallback(elsewhere)
        .merge(metrics::router(api))
        .layer(middleware::from_fn(routes::with_whole_body))
        .layer(middleware::from_fn_with_state(Arc::clone(&api.requests), metrics::count))
}

/// What is no resource of the API is a page of the console, or one of its files.
async fn elsewhere(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    match uri.path().strip_prefix("/api") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => nothing_there().into_response(),
        _ => console::serve(&method, uri.path(), &headers),
    }
}

/// An API for those who reach the socket: its owner and root, who may do everything.
pub(crate) fn for_the_owner(router: Router) -> Router {
    router.layer(middleware::from_fn(socket::only_for_the_owner)).layer(middleware::from_fn(routes::with_whole_body))
}

/// An API for everybody who reaches it over the network: who they are is seen by cookie or token, and what they may do by
/// the role of each route.
pub(crate) fn for_everybody(router: Router, access: Arc<Access>) -> Router {
    router
        .layer(middleware::from_fn_with_state(access, authentication::authenticate))
        .layer(middleware::from_fn(authentication::with_security_headers))
        .layer(middleware::from_fn(routes::with_whole_body))
}
