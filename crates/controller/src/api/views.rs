//! What the API shows and takes; the command line reads the same types.

use std::net::SocketAddr;

use conversion::{Choices, Request};
use machine::Machine;
use protocol::message::{BootMedium, HEARTBEAT_SECONDS};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::inventory::{Particulars, Reach};
use crate::progress::Progress;
use crate::rcc::{Course, Rcc};
use crate::schedule::{BackBy, Schedule, StartAt, Window};
use crate::sessions::{LivePhase, LiveSession};
use crate::store::{KnownMachine, TaskRecord, TaskState, TaskStep};
use crate::tasks::{BatchKind, Settings};
use crate::{Error, ErrorKind, Result, Timestamp};

/// The controller itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Version of the controller.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Where it listens for agents.
    pub agent_address: SocketAddr,
    /// Where it listens for browsers and programs, if it does.
    #[serde(default)]
    pub console_address: Option<SocketAddr>,
    /// Fingerprint of its CA: `boot-image build --ca-fingerprint`.
    pub ca_fingerprint: String,
    /// Its data directory.
    pub data_dir: String,
    /// When it was started.
    pub started_at: Timestamp,
}

/// Where a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MachineState {
    /// Connected; the pairing code is being made.
    Pairing,
    /// Shows its pairing code and waits for an operator.
    WaitingForApproval,
    /// Approved and connected; its report is on the way.
    Approved,
    /// Connected and reported: it can be converted. In the boot image that is Cold Cloning Ready.
    Ready,
    /// Known and not connected.
    Offline,
    /// Added by its address; no agent of it came yet.
    NoAgent,
}

/// A machine: waiting, connected or known.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MachineView {
    /// `None` until it was approved and reported.
    pub id: Option<String>,
    /// As operators call it, else host name, else product, else address.
    pub name: String,
    /// What operators call it.
    pub given_name: Option<String>,
    /// The group that it is in.
    pub group: Option<String>,
    /// What operators noted of it.
    pub note: String,
    /// Where operators said that it is: an IP address or a host name. Only of machines that were added.
    pub given_address: Option<String>,
    /// How it can be reached there.
    pub reach: Reach,
    /// Where it is.
    pub state: MachineState,
    /// Whether it stands in the boot image, ready to be cloned.
    pub cold_cloning_ready: bool,
    /// Cold Cloning Ready: what the boot image was started from, where that is known.
    pub boot_medium: Option<BootMedium>,
    /// Cold Cloning Ready: since when; a link that was cut in between begins nothing anew.
    pub ready_since: Option<Timestamp>,
    /// Seconds since its agent was heard last, while it is connected. Past [`SILENCE_SECONDS_MAX`](protocol::message::SILENCE_SECONDS_MAX) it is gone.
    pub silent_seconds: Option<u64>,
    /// Whether it is connected and said something within the time of two heartbeats.
    pub answers: bool,
    /// `boot-image` or `live`.
    pub booted: String,
    /// The agent's address, while it is connected.
    pub address: Option<SocketAddr>,
    /// Fingerprint of the agent's key, while it is connected.
    pub key: Option<String>,
    /// Version of the agent.
    pub agent_version: String,
    /// When it connected, was known first, or was added.
    pub since: Timestamp,
    /// When it was last heard; of one without an agent when it was added.
    pub last_seen: Timestamp,
    /// What was odd about its disks.
    pub warnings: Vec<String>,
    /// Everything that its agent reported; `None` while it waits, and where it has none.
    pub report: Option<Machine>,
}

/// A conversion that is asked for.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewConversion {
    /// Id of a machine, or its host name where only one has it.
    pub machine: String,
    /// What is to be made of it.
    pub request: NewRequest,
    /// Name of the profile whose settings are copied where the request says nothing; the default profile without it, and
    /// `none` for none.
    #[serde(default)]
    pub profile: Option<String>,
    /// Where the machine is not Cold Cloning Ready: to wait until it is, and for an operator's yes then.
    #[serde(default)]
    pub wait: bool,
    /// When it is to be begun, where that is not as soon as there is room.
    #[serde(default)]
    pub schedule: Option<TaskSchedule>,
    /// Where the machine runs its own system: how it is restarted into the boot image, and given back (automated Remote Cold
    /// Cloning).
    #[serde(default)]
    pub rcc: Option<Rcc>,
    /// Whether it begins only when an operator says so (`resume`).
    #[serde(default)]
    pub held: bool,
}

/// What is to be made of a machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct NewRequest {
    /// Name of the VM; the result is the folder of this name in `output`. Letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Which disks to take, by path (`/dev/sda`), serial, WWN or position (`0`); empty: all.
    #[serde(default)]
    pub disks: Vec<String>,
    /// What of them is left out, and what is said of single ones.
    #[serde(flatten)]
    pub choices: Choices,
    /// Plan and show, write nothing that stays.
    #[serde(default)]
    pub dry_run: bool,
    /// What a profile can say, too.
    #[serde(flatten)]
    pub settings: Settings,
}

/// How fast data may come in for a task.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskRate {
    /// Bytes a second; as fast as it goes without it.
    #[schemars(range(min = 1))]
    pub bytes_per_second: Option<u64>,
}

/// By when a task's machine must be back in its own system.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskReturn {
    /// The time; as long as it takes without it.
    pub back_by: Option<BackBy>,
}

/// When a conversion is to be begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskSchedule {
    /// Not before this: `2026-12-01T22:00[Europe/Berlin]`.
    #[serde(default)]
    pub start_at: Option<StartAt>,
    /// Only while one of these is open: `Sat 22:00-06:00 Europe/Berlin`. None means always.
    #[serde(default)]
    pub windows: Vec<Window>,
}

impl From<TaskSchedule> for Schedule {
    fn from(schedule: TaskSchedule) -> Self {
        Self { start_at: schedule.start_at, every: None, windows: schedule.windows }
    }
}

impl From<&Schedule> for TaskSchedule {
    fn from(schedule: &Schedule) -> Self {
        Self { start_at: schedule.start_at.clone(), windows: schedule.windows.clone() }
    }
}

/// The same for another VM.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewClone {
    /// Its name.
    pub name: String,
}

/// Conversions that are asked for together.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBatches {
    /// At most [`CONVERSIONS_MAX`].
    pub conversions: Vec<NewConversion>,
}

/// Conversions that can be asked for together.
pub const CONVERSIONS_MAX: usize = 200;

/// Tasks of one kind that were asked for together: machines in the boot image are converted apart from those that run
/// their own system.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BatchView {
    /// `b-` and eight hexadecimal digits.
    pub id: String,
    /// Of what kind.
    pub kind: BatchKind,
    /// Its tasks, in the order in which they were asked for.
    pub tasks: Vec<TaskView>,
}

/// A pairing code that an operator typed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TypedCode {
    pub(super) code: String,
}

/// A task.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TaskView {
    /// `t-` and eight hexadecimal digits.
    pub id: String,
    /// Name of the VM.
    pub name: String,
    /// Id of the machine.
    pub machine: String,
    /// Folder that holds the result's folder.
    pub output: String,
    /// The tasks of one batch were asked for together and are of one kind.
    pub batch: Option<String>,
    /// Where it stands.
    pub state: TaskState,
    /// Whether an operator asked for its end.
    pub cancel_requested: bool,
    /// Whether an operator asked for a pause, and it is on its way to a safe point.
    pub pause_requested: bool,
    /// The step it is in or ended in.
    pub step: Option<String>,
    /// All its steps in their order; none before it was begun first.
    pub steps: Vec<TaskStep>,
    /// How far the step is.
    pub progress: Progress,
    /// Why it failed, the whole chain.
    pub error: Option<String>,
    /// What came out of it.
    #[schemars(with = "Option<conversion::Outcome>")]
    pub outcome: Option<serde_json::Value>,
    /// What was asked for.
    pub request: Request,
    /// When it is to be begun, where that is not as soon as there is room.
    pub schedule: Option<TaskSchedule>,
    /// While it is scheduled: when that is.
    pub due_at: Option<Timestamp>,
    /// Bytes a second that may come in for it; as fast as it goes without.
    pub bytes_per_second: Option<u64>,
    /// When its machine must have its own system again.
    pub back_by: Option<BackBy>,
    /// How its live machine is restarted into the boot image.
    pub rcc: Option<Rcc>,
    /// How that went so far.
    pub course: Option<Course>,
    /// Seconds for which the machine did not serve, once it is back.
    pub downtime_seconds: Option<u64>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was begun first.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl MachineView {
    pub(super) fn waiting(live: &LiveSession) -> Self {
        let about = live.about.clone().unwrap_or_default();
        let said = [about.hostname, about.product].into_iter().find(|text| !text.is_empty());
        Self {
            id: None,
            name: said.unwrap_or_else(|| live.address.ip().to_string()),
            given_name: None,
            group: None,
            note: String::new(),
            given_address: None,
            reach: Reach::Unknown,
            state: live.phase.into(),
            cold_cloning_ready: false,
            boot_medium: None,
            ready_since: None,
            silent_seconds: Some(live.silent_seconds),
            answers: answers(live),
            booted: live.booted().into(),
            address: Some(live.address),
            key: Some(live.key.clone()),
            agent_version: live.program.clone(),
            since: live.since,
            last_seen: heard(live),
            warnings: Vec::new(),
            report: None,
        }
    }

    /// Of two sessions of one machine the newest counts.
    pub(super) fn known_among(machine: KnownMachine, live: &[LiveSession]) -> Self {
        let session = live.iter().rev().find(|session| session.machine.as_deref() == Some(machine.id.as_str()));
        Self::known(machine, session)
    }

    /// Whether a text is in one of its names, numbers or addresses, as the store finds it in those of known machines.
    pub(super) fn has(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let address = self.address.map(|address| address.ip().to_string()).unwrap_or_default();
        [&self.name, &address].into_iter().any(|own| own.to_lowercase().contains(&text))
    }

    /// Whether it is what somebody means who says `name`.
    pub(super) fn is_called(&self, name: &str) -> bool {
        let hostname = self.report.as_ref().and_then(|report| report.guest.hostname.as_deref());
        [Some(self.name.as_str()), hostname, self.given_address.as_deref()].contains(&Some(name))
    }

    /// With the clocks stopped: what is equal but for them did not change.
    pub(super) fn without_clocks(&self) -> Self {
        Self { silent_seconds: None, last_seen: Timestamp(0), ..self.clone() }
    }

    fn known(machine: KnownMachine, live: Option<&LiveSession>) -> Self {
        let Particulars { name: given_name, group, note, address, reach } = machine.particulars;
        let given_address = address.map(String::from);
        let has_report = machine.report.is_some();
        let of_report = |report: &Machine| report.guest.hostname.clone().or_else(|| report.smbios.product.clone());
        let name = given_name.clone().or_else(|| machine.report.as_ref().and_then(of_report));
        let name = name.or_else(|| given_address.clone()).unwrap_or_else(|| machine.id.clone());
        let absent = if has_report { MachineState::Offline } else { MachineState::NoAgent };
        let booted = live.map_or_else(|| machine.booted.clone(), |live| live.booted().to_owned());
        let is_ready = live.is_some() && booted == "boot-image";
        Self {
            id: Some(machine.id),
            name,
            given_name,
            group,
            note,
            given_address,
            reach,
            state: live.map_or(absent, |live| live.phase.into()),
            cold_cloning_ready: is_ready,
            boot_medium: machine.boot_medium.filter(|_| is_ready),
            ready_since: machine.ready_since.filter(|_| is_ready),
            silent_seconds: live.map(|live| live.silent_seconds),
            answers: live.is_some_and(answers),
            booted,
            address: live.map(|live| live.address),
            key: live.map(|live| live.key.clone()),
            agent_version: machine.agent_version,
            since: live.map_or(machine.first_seen, |live| live.since),
            last_seen: live.map_or(machine.last_seen, heard),
            warnings: live.map(|live| live.warnings.clone()).unwrap_or_default(),
            report: machine.report,
        }
    }
}

fn answers(live: &LiveSession) -> bool {
    live.silent_seconds <= 2 * HEARTBEAT_SECONDS
}

fn heard(live: &LiveSession) -> Timestamp {
    let ago = i64::try_from(live.silent_seconds).unwrap_or(i64::MAX).saturating_mul(1000);
    Timestamp(Timestamp::now().0.saturating_sub(ago))
}

impl From<LivePhase> for MachineState {
    fn from(phase: LivePhase) -> Self {
        match phase {
            LivePhase::Pairing => Self::Pairing,
            LivePhase::WaitingForApproval => Self::WaitingForApproval,
            LivePhase::Approved => Self::Approved,
            LivePhase::Ready => Self::Ready,
        }
    }
}

impl std::fmt::Display for MachineState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Pairing => "pairing",
            Self::WaitingForApproval => "waiting for approval",
            Self::Approved => "approved",
            Self::Ready => "ready",
            Self::Offline => "offline",
            Self::NoAgent => "no agent",
        })
    }
}

impl TaskView {
    pub(super) fn new(task: TaskRecord, progress: Progress, steps: Vec<TaskStep>) -> Result<Self> {
        let broken =
            |e| Error::with(ErrorKind::Storage, format!("task {} in the database cannot be understood", task.id), e);
        let (plan, back_by) = (task.plan()?, task.back_by()?);
        let (rcc, course) = (task.rcc()?, task.course()?);
        Ok(Self {
            schedule: plan.as_ref().map(|plan| TaskSchedule::from(plan.schedule())),
            due_at: task.due_at.filter(|_| task.state == TaskState::Scheduled),
            request: task.request()?,
            outcome: task.outcome.as_deref().map(serde_json::from_str).transpose().map_err(broken)?,
            id: task.id,
            name: task.name,
            machine: task.machine,
            output: task.output,
            batch: task.batch,
            state: task.state,
            cancel_requested: task.cancel_requested,
            pause_requested: task.pause_requested,
            step: task.step,
            steps,
            progress,
            error: task.error,
            bytes_per_second: task.bytes_per_second,
            back_by,
            downtime_seconds: course.downtime_seconds(),
            course: rcc.is_some().then_some(course),
            rcc,
            created_at: task.created_at,
            started_at: task.started_at,
            finished_at: task.finished_at,
        })
    }
}
