//! Schedules: when a task is to run, decided from its schedule, what happened so far, and what the clock says now.
//!
//! Pure: nothing here waits, reads a clock or writes a store, so every rule is tested on a clock that a test sets. Times of
//! day mean those of a named zone (IANA), daylight saving included; the host's zone data are used, else those in the program.

mod back_by;
mod every;
mod grid;
mod plan;
mod start_at;
mod window;
mod zone;

use serde::{Deserialize, Serialize};

pub use back_by::BackBy;
pub use every::Every;
pub use plan::{Look, Plan, Run, Step};
pub use start_at::StartAt;
pub use window::{WINDOWS_MAX, Window, is_open};
pub use zone::Zone;

/// When a task is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Not before this. Once the initial step was begun, only one in the future means something: the next sync.
    #[serde(default)]
    pub start_at: Option<StartAt>,
    /// From one sync to the next.
    #[serde(default)]
    pub every: Option<Every>,
    /// A run begins only while one of these is open; none means always. What has begun is not ended by them.
    #[serde(default)]
    pub windows: Vec<Window>,
}
