//! What can be typed about tasks.

use clap::{ArgGroup, Args, Subcommand};
use controller::schedule::{StartAt, Window};

use crate::conversion_settings::{Rate, Return};

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  vconverter tasks
  vconverter tasks watch t-0b7d11c2
  vconverter tasks show t-0b7d11c2 --json
  vconverter tasks log t-0b7d11c2
  vconverter tasks cancel t-0b7d11c2      # what is copied is kept
  vconverter tasks retry t-0b7d11c2
  vconverter tasks resume t-0b7d11c2      # it is unconfirmed: its machine is there
  vconverter tasks schedule t-0b7d11c2 --start-at '2026-12-01T22:00[Europe/Berlin]'
  vconverter tasks schedule t-0b7d11c2 --now
  vconverter tasks bandwidth t-0b7d11c2 20M
  vconverter tasks back-by t-0b7d11c2 '06:00 Europe/Berlin'
  vconverter tasks pause t-0b7d11c2
  vconverter tasks clone t-0b7d11c2 --name web2
  vconverter tasks delete t-0b7d11c2 --discard"
)]
pub(crate) struct Tasks {
    #[command(subcommand)]
    pub(crate) action: Option<TasksAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TasksAction {
    /// Follow a task to its end; the exit code tells how it ended
    Watch {
        /// Id of the task
        id: String,
    },
    /// Show a task and what came out of it
    Show {
        /// Id of the task
        id: String,
    },
    /// Show what a task has said
    Log {
        /// Id of the task
        id: String,
    },
    /// End a task at its next safe point; what is copied is kept
    Cancel {
        /// Id of the task
        id: String,
    },
    /// Begin a failed or cancelled task again; it goes on from what is kept
    Retry {
        /// Id of the task
        id: String,
    },
    /// Set another time for a task that was not begun; what is not named stays
    Schedule(ScheduleTask),
    /// Limit how fast a task's data may come in, from now on
    Bandwidth {
        /// Id of the task
        id: String,
        /// Such as 20M (bytes a second), 200Mbit, or unlimited
        rate: Rate,
    },
    /// Set by when a task's machine must be back in its own system, from now on
    BackBy {
        /// Id of the task
        id: String,
        /// Such as 06:00 or '06:00 Europe/Berlin', or never
        time: Return,
    },
    /// Pause a task at its next safe point; what is copied is kept
    Pause {
        /// Id of the task
        id: String,
    },
    /// Go on with a paused task, or say yes to the machine that a task has waited for and that is Cold Cloning Ready now
    Resume {
        /// Id of the task
        id: String,
    },
    /// Ask for the same once more, for another VM of the machine
    Clone {
        /// Id of the task
        id: String,
        /// Name of the VM
        #[arg(long)]
        name: String,
    },
    /// Forget a task that is over, and its log
    Delete {
        /// Id of the task
        id: String,
        /// Remove what it left half-made, too; a result that is whole stays
        #[arg(long)]
        discard: bool,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct ScheduleTask {
    /// Id of the task
    pub(crate) id: String,
    /// Do not begin before this, such as 2026-12-01T22:00[Europe/Berlin]
    #[arg(long, value_name = "TIME", group = "change")]
    pub(crate) start_at: Option<StartAt>,
    /// Wait for no time
    #[arg(long, group = "change", conflicts_with = "start_at")]
    pub(crate) no_start_at: bool,
    /// Begin only in this window, such as "Sat 22:00-06:00 Europe/Berlin"; can be given more than once, and replaces all
    #[arg(long = "window", value_name = "WINDOW", group = "change")]
    pub(crate) windows: Vec<Window>,
    /// Wait for no window
    #[arg(long, group = "change", conflicts_with = "windows")]
    pub(crate) no_window: bool,
    /// Begin as soon as there is room, whatever the schedule says
    #[arg(long, group = "change", conflicts_with_all = ["start_at", "no_start_at", "windows", "no_window"])]
    pub(crate) now: bool,
}
