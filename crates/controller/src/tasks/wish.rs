//! What is asked for, and whether it can be done.

use std::path::Path;

use conversion::Request;
use protocol::message::AgentKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Tasks;
use crate::rcc::{Rcc, choose};
use crate::schedule::{BackBy, Plan, Schedule, WINDOWS_MAX};
use crate::store::NewTask;
use crate::{Error, ErrorKind, Result, Timestamp};

/// A conversion that is asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Id of the machine.
    pub machine: String,
    /// What is to be made of it.
    pub request: Request,
    /// Where the machine is not Cold Cloning Ready: to wait until it is, and for an operator's yes then.
    pub wait: bool,
    /// When it is to be begun, where that is not as soon as there is room.
    pub schedule: Option<Schedule>,
    /// Bytes a second that may come in for it.
    pub bytes_per_second: Option<u64>,
    /// When the machine must have its own system again.
    pub back_by: Option<BackBy>,
    /// Where it runs its own system: how it is restarted into the boot image.
    pub rcc: Option<Rcc>,
    /// Whether it begins only when an operator says so.
    pub held: bool,
}

/// Tasks of one kind that were asked for together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `b-` and eight hexadecimal digits.
    pub id: String,
    /// Of what kind.
    pub kind: BatchKind,
    /// Their ids.
    pub tasks: Vec<String>,
}

/// How the machines of a batch are converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BatchKind {
    /// In the boot image, now or when they are there.
    ColdCloningReady,
    /// They are restarted into the boot image for it.
    RemoteColdCloning,
    /// While their own system runs.
    Live,
}

/// A wish that can be fulfilled.
pub(super) struct Checked {
    name: String,
    pub(super) machine: String,
    output: String,
    json: String,
    pub(super) waits: bool,
    pub(super) kind: BatchKind,
    plan: Option<Plan>,
    bytes_per_second: Option<u64>,
    back_by: Option<BackBy>,
    rcc: Option<Rcc>,
    held: bool,
}

impl Checked {
    pub(super) fn as_new(&self) -> NewTask<'_> {
        NewTask {
            name: &self.name,
            machine: &self.machine,
            output: &self.output,
            request: &self.json,
            waits: self.waits,
            plan: self.plan.as_ref(),
            bytes_per_second: self.bytes_per_second,
            back_by: self.back_by.as_ref(),
            rcc: self.rcc.as_ref(),
            held: self.held,
        }
    }
}

impl Tasks {
    /// What is wished, if it can be done.
    pub(super) fn check(&self, wish: &Wish) -> Result<Checked> {
        let machine = &wish.machine;
        self.0.store.existing_machine(machine)?.reported()?;
        let kind = self.0.sessions.kind_of(machine);
        if kind.is_none() && !wish.wait {
            let context = format!(
                "machine {machine} is not connected: start it from the boot image, or let the task wait for it (--wait)"
            );
            return Err(Error::new(ErrorKind::Conflict, context));
        }
        if let Some(rcc) = &wish.rcc {
            self.check_rcc(wish, rcc)?;
        }
        check_rate(wish.bytes_per_second)?;
        let plan = wish.schedule.clone().map(plan_of).transpose()?;
        let output = output_folder(&wish.request)?;
        let request = Request { output: output.clone().into(), ..wish.request.clone() };
        let json = serde_json::to_string(&request)
            .map_err(|e| Error::with(ErrorKind::Invalid, "request cannot be written as JSON", e))?;
        let is_ready = kind == Some(AgentKind::BootImage);
        Ok(Checked {
            name: request.name,
            machine: machine.clone(),
            output,
            json,
            waits: wish.wait && !is_ready,
            kind: match (&wish.rcc, is_ready || wish.wait) {
                (Some(_), _) => BatchKind::RemoteColdCloning,
                (None, true) => BatchKind::ColdCloningReady,
                (None, false) => BatchKind::Live,
            },
            plan,
            bytes_per_second: wish.bytes_per_second,
            back_by: wish.back_by.clone(),
            rcc: wish.rcc.clone(),
            held: wish.held,
        })
    }

    /// Whether a machine can be restarted into the boot image, as far as one knows now: it is asked, and nothing is changed.
    fn check_rcc(&self, wish: &Wish, rcc: &Rcc) -> Result<()> {
        rcc.check()?;
        if wish.wait {
            let context =
                "a machine that is restarted into the boot image is not waited for: leave --wait or --rcc out";
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        if wish.request.dry_run {
            let context = "a dry run restarts no machine: `vconverter preflight --rcc` shows what would be done";
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        if self.0.sessions.is_ready(&wish.machine) {
            return Ok(());
        }
        match choose(&self.survey(&wish.machine)?, rcc).blockers.into_iter().next() {
            None => Ok(()),
            Some(blocker) => Err(Error::new(ErrorKind::Conflict, blocker)),
        }
    }
}

pub(super) fn check_rate(rate: Option<u64>) -> Result<()> {
    match rate {
        Some(0) => {
            let context = "a rate of 0 bytes a second stops the task: pause it instead";
            Err(Error::new(ErrorKind::Invalid, context))
        }
        _ => Ok(()),
    }
}

fn plan_of(schedule: Schedule) -> Result<Plan> {
    check_schedule(&schedule)?;
    Ok(Plan::new(schedule, false, Timestamp::now()))
}

pub(super) fn check_schedule(schedule: &Schedule) -> Result<()> {
    if let Some(start_at) = schedule.start_at.as_ref().filter(|at| at.instant() <= Timestamp::now()) {
        let context = format!("time {start_at} has passed: leave it out for a start as soon as there is room");
        return Err(Error::new(ErrorKind::Invalid, context));
    }
    if schedule.every.is_some() {
        return Err(Error::new(ErrorKind::Invalid, "interval: a conversion is made once and not repeated"));
    }
    if schedule.windows.len() > WINDOWS_MAX {
        let found = schedule.windows.len();
        return Err(Error::new(ErrorKind::Invalid, format!("windows: expected at most {WINDOWS_MAX}, found {found}")));
    }
    Ok(())
}

/// The canonical path of the output folder, if the result's name is free in it.
pub(super) fn output_folder(request: &Request) -> Result<String> {
    let shown = request.output.display();
    if !request.output.is_absolute() {
        return Err(Error::new(ErrorKind::Invalid, format!("output folder {shown}: expected an absolute path")));
    }
    if let Some(folder) = request
        .choices
        .disk_settings
        .iter()
        .filter_map(|one| one.folder.as_ref())
        .find(|folder| !(folder.is_absolute() && folder.is_dir()))
    {
        let context = format!("target folder {}: expected the absolute path of an existing folder", folder.display());
        return Err(Error::new(ErrorKind::Invalid, context));
    }
    let output = request
        .output
        .canonicalize()
        .map_err(|e| Error::with(ErrorKind::Invalid, format!("output folder {shown} cannot be found"), e))?;
    if !output.is_dir() {
        return Err(Error::new(ErrorKind::Invalid, format!("output folder {shown} is no folder")));
    }
    let is_file_name = Path::new(&request.name).file_name() == Some(request.name.as_ref());
    if !is_file_name {
        return Err(Error::new(ErrorKind::Invalid, format!("name {:?}: expected a file name", request.name)));
    }
    if output.join(&request.name).symlink_metadata().is_ok() {
        let context = format!("{} exists already: choose another name", output.join(&request.name).display());
        return Err(Error::new(ErrorKind::Conflict, context));
    }
    output
        .into_os_string()
        .into_string()
        .map_err(|_| Error::new(ErrorKind::Invalid, format!("output folder {shown}: expected a name in UTF-8")))
}
