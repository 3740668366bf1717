//! The API: HTTP under `/api/v1` on a Unix socket in the data directory, for its owner and root.
//!
//! | method and path | does |
//! | --- | --- |
//! | `GET /status` | version, agent port, CA fingerprint ([`Status`]) |
//! | `GET /machines`, `GET /machines/{machine}` | machines, known and waiting ([`MachineView`]) |
//! | `POST /machines/approve` | `{"code": "XXXX-XXXX"}` → [`crate::sessions::Approval`] |
//! | `GET /tasks`, `GET /tasks/{id}` | [`TaskView`] |
//! | `POST /tasks` | [`NewConversion`] → 201 with [`TaskView`] |
//! | `POST /batches` | several [`NewConversion`]s ([`NewBatches`]) → 201 with [`BatchView`]s |
//! | `GET /tasks/{id}/log?after=N` | lines of its log ([`crate::store::LogEntry`]) |
//! | `POST /tasks/{id}/cancel`, `POST /tasks/{id}/retry` | [`TaskView`] |
//! | `POST /tasks/{id}/schedule` | another time ([`TaskSchedule`]) for one that was not begun → [`TaskView`] |
//! | `POST /tasks/{id}/start` | begins one that was not begun, whatever its schedule says → [`TaskView`] |
//! | `POST /tasks/{id}/resume` | yes to the machine that the task has waited for → [`TaskView`] |
//! | `GET /pxe/rules`, `POST /pxe/rules` | what machines that start from the network get ([`crate::store::PxeRule`]); [`NewPxeRule`] sets it |
//! | `GET /pxe/log?after=N` | what they asked and were answered ([`netboot::Record`]) |
//! | `GET /drivers`, `PUT /drivers/{name}`, `DELETE /drivers/{name}` | the driver library ([`crate::driver_library::Driver`]); a file is put as it is |
//! | `POST /machines/{machine}/drivers` | pushes files of it ([`NewPush`]) → what became of them ([`crate::driver_library::DriverOutcome`]) |
//! | `GET /audit?limit=N` | the audit log, newest first |
//!
//! What fails is answered with a problem (RFC 9457), see [`Problem`].

mod drivers;
mod problem;
mod pxe;
mod routes;
mod socket;
mod views;

pub use drivers::NewPush;
pub use protocol::message::BootMedium;

pub use problem::{Problem, ProblemKind};
pub use pxe::NewPxeRule;
pub use views::{
    BatchView, CONVERSIONS_MAX, MachineState, MachineView, NewBatches, NewConversion, Status, TaskSchedule, TaskView,
};

pub(crate) use pxe::pxe_router;
pub(crate) use routes::{Api, router};
pub(crate) use socket::{Peer, bind};
