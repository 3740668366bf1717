//! `vconverter tasks`.

use std::time::Duration;

use controller::api::{NewClone, TaskRate, TaskReturn, TaskSchedule, TaskView};
use controller::progress::Progress;
use controller::rcc::Course;
use controller::schedule::Window;
use controller::store::{LogEntry, LogLevel, TaskState};
use conversion::Step;
use machine::push::BootPathReport;
use serde::Serialize;
use serde_json::json;

use crate::arguments::ScheduleTask;
use crate::client::{Client, segment};
use crate::conversion_settings::{Rate, Return};
use crate::failure::{Code, Failure, Result};
use crate::limits;
use crate::outcome;
use crate::progress_line::{ProgressLine, duration};
use crate::table::{Table, plain};

/// Steps as the log of a task names them.
const STEPS: [Step; 8] = Step::ALL;
/// Pause between two looks at a task.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// A controller that is started again is waited for this long.
const ABSENCE_MAX: u32 = 240;

pub(crate) fn list(client: &Client, json: bool) -> Result<()> {
    let tasks: Vec<TaskView> = client.list("/tasks")?;
    if json {
        return crate::print_json(&tasks);
    }
    let mut table = Table::new(&["ID", "BATCH", "NAME", "MACHINE", "STATE", "STEP", "PROGRESS", "LEFT", "CREATED"]);
    for task in &tasks {
        let running = task.state == TaskState::Running;
        let percent = task.progress.percent().filter(|_| running);
        table.row(vec![
            task.id.clone(),
            task.batch.clone().unwrap_or_else(|| "-".into()),
            task.name.clone(),
            task.machine.clone(),
            task.state.to_string(),
            task.step.clone().unwrap_or_default(),
            percent.map(|percent| format!("{percent} %")).unwrap_or_default(),
            task.progress.seconds_left.filter(|_| running).map(duration).unwrap_or_default(),
            task.created_at.to_string(),
        ]);
    }
    if table.is_empty() {
        return crate::print("no tasks\n");
    }
    let waiting: String = tasks.iter().filter_map(waiting).map(|line| plain(&line) + "\n").collect();
    let between = if waiting.is_empty() { "" } else { "\n" };
    crate::print(&format!("{table}{between}{waiting}"))
}

pub(crate) fn show(client: &Client, id: &str, json: bool) -> Result<()> {
    let task = get(client, id)?;
    if json {
        return crate::print_json(&task);
    }
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<12}{}\n", plain(&value)));
    line("task", task.id.clone());
    line("name", task.name.clone());
    line("machine", task.machine.clone());
    if let Some(batch) = &task.batch {
        line("batch", batch.clone());
    }
    line("state", task.state.to_string());
    if let Some(waiting) = waiting(&task) {
        line("", waiting);
    }
    if let Some(schedule) = &task.schedule {
        line("schedule", describe_schedule(schedule));
    }
    if let Some(back_by) = &task.back_by {
        line("back by", back_by.to_string());
    }
    if let Some(course) = &task.course {
        line("restart", describe_course(course));
        if let Some(downtime) = course.describe_downtime() {
            line("downtime", downtime);
        }
    }
    if let Some(bytes) = task.bytes_per_second {
        line("bandwidth", format!("at most {}", limits::rate(Some(bytes))));
    }
    for (number, step) in task.steps.iter().enumerate() {
        let took = step.started_at.zip(step.finished_at).map(|(from, to)| duration(to.millis_since(from) / 1000));
        let text = format!("{:<8}{:<12}{}", step.step.to_string(), step.state.as_str(), took.unwrap_or_default());
        line(if number == 0 { "steps" } else { "" }, text.trim_end().to_owned());
    }
    line("created", task.created_at.to_string());
    if let Some(finished) = task.finished_at {
        line("finished", finished.to_string());
    }
    if let Some(error) = &task.error {
        line("error", error.clone());
    }
    if let Some(made) = outcome_of(&task)? {
        text.push_str(&outcome::describe(&made, task.request.dry_run));
    }
    crate::print(&text)
}

pub(crate) fn log(client: &Client, id: &str, json: bool) -> Result<()> {
    follow_log(client, id, &mut 0, |entry| match json {
        true => crate::print_json_line(entry),
        false => crate::print(&format!("{} {:<7} {}\n", entry.at, entry.level, plain(&entry.message))),
    })
}

/// Shows each line of a task's log behind the line `after`, and moves that to the last one that was read.
pub(crate) fn follow_log(
    client: &Client,
    id: &str,
    after: &mut i64,
    mut show: impl FnMut(&LogEntry) -> Result<()>,
) -> Result<()> {
    loop {
        let entries: Vec<LogEntry> = client.get(&format!("/tasks/{}/log?after={after}", segment(id)))?;
        let Some(last) = entries.last() else { return Ok(()) };
        *after = last.id;
        entries.iter().try_for_each(&mut show)?;
    }
}

pub(crate) fn cancel(client: &Client, id: &str, json: bool) -> Result<()> {
    let task: TaskView = client.post(&format!("/tasks/{}/cancel", segment(id)), &json!({}))?;
    match json {
        true => crate::print_json(&task),
        false => crate::print(&format!("{} is cancelled at its next safe point; what is copied is kept\n", task.id)),
    }
}

pub(crate) fn retry(client: &Client, id: &str, json: bool) -> Result<()> {
    let task: TaskView = client.post(&format!("/tasks/{}/retry", segment(id)), &json!({}))?;
    match json {
        true => crate::print_json(&task),
        false => crate::print(&format!("{} goes on; vconverter tasks watch {}\n", task.id, task.id)),
    }
}

pub(crate) fn resume(client: &Client, id: &str, json: bool) -> Result<()> {
    let task: TaskView = client.post(&format!("/tasks/{}/resume", segment(id)), &json!({}))?;
    match json {
        true => crate::print_json(&task),
        false => {
            let text = waiting(&task).unwrap_or_else(|| format!("{id} goes on; vconverter tasks watch {id}"));
            crate::print(&format!("{}\n", plain(&text)))
        }
    }
}

pub(crate) fn pause(client: &Client, id: &str, json: bool) -> Result<()> {
    let task: TaskView = client.post(&format!("/tasks/{}/pause", segment(id)), &json!({}))?;
    match json {
        true => crate::print_json(&task),
        false => {
            let when = if task.pause_requested { "is paused at its next safe point" } else { "is paused" };
            crate::print(&format!("{id} {when}; vconverter tasks resume {id}\n"))
        }
    }
}

pub(crate) fn bandwidth(client: &Client, id: &str, rate: Rate, json: bool) -> Result<()> {
    let body = TaskRate { bytes_per_second: rate.0 };
    let task: TaskView = client.post(&format!("/tasks/{}/bandwidth", segment(id)), &body)?;
    match json {
        true => crate::print_json(&task),
        false => crate::print(&format!("{id}: {}\n", limits::rate(task.bytes_per_second))),
    }
}

pub(crate) fn back_by(client: &Client, id: &str, time: Return, json: bool) -> Result<()> {
    let body = TaskReturn { back_by: time.0 };
    let task: TaskView = client.post(&format!("/tasks/{}/back-by", segment(id)), &body)?;
    match json {
        true => crate::print_json(&task),
        false => {
            let text = task.back_by.map_or_else(|| "for as long as it takes".into(), |time| format!("back by {time}"));
            crate::print(&format!("{id}: {text}\n"))
        }
    }
}

pub(crate) fn clone(client: &Client, id: &str, name: String, json: bool) -> Result<()> {
    let task: TaskView = client.post(&format!("/tasks/{}/clone", segment(id)), &NewClone { name })?;
    match json {
        true => crate::print_json(&task),
        false => crate::print(&format!("{}\n", task.id)),
    }
}

pub(crate) fn delete(client: &Client, id: &str, discard: bool, json: bool) -> Result<()> {
    let task: TaskView = client.delete(&format!("/tasks/{}?discard={discard}", segment(id)))?;
    match json {
        true => crate::print_json(&task),
        false => crate::print(&format!("{} is forgotten\n", task.id)),
    }
}

/// As an operator typed it: the time, and the windows.
/// How far the restart into the boot image, and back, is.
fn describe_course(course: &Course) -> String {
    let differs =
        |report: &Option<BootPathReport>| report.as_ref().is_some_and(|report| !report.differences.is_empty());
    let state = if differs(&course.restored) || differs(&course.boot_path) {
        "the boot path differs from the record: see the log"
    } else if course.boot_path.is_some() && course.back_at.is_some() {
        "in its own system again, with the boot path as it was"
    } else if course.back_at.is_some() {
        "in its own system again"
    } else if course.released_at.is_some() {
        "given back"
    } else if course.arrived_at.is_some() {
        "in the boot image; the boot path is restored"
    } else if course.restarted_at.is_some() {
        "restarted into the boot image"
    } else if course.placed_at.is_some() {
        "the boot image is in place"
    } else {
        "not begun"
    };
    course.way.map_or_else(|| state.to_owned(), |way| format!("{state} ({way})"))
}

fn describe_schedule(schedule: &TaskSchedule) -> String {
    let windows: Vec<String> = schedule.windows.iter().map(Window::to_string).collect();
    let windows = (!windows.is_empty()).then(|| format!("in {}", windows.join(" or ")));
    let start_at = schedule.start_at.as_ref().map(|at| format!("not before {at}"));
    match (start_at, windows) {
        (None, None) => "as soon as there is room".into(),
        (one, other) => [one, other].into_iter().flatten().collect::<Vec<_>>().join(", "),
    }
}

pub(crate) fn schedule(client: &Client, change: &ScheduleTask, json: bool) -> Result<()> {
    let path = format!("/tasks/{}", segment(&change.id));
    let task: TaskView = if change.now {
        client.post(&format!("{path}/start"), &json!({}))?
    } else {
        let mut schedule = get(client, &change.id)?.schedule.unwrap_or_default();
        if change.start_at.is_some() || change.no_start_at {
            schedule.start_at = change.start_at.clone();
        }
        if !change.windows.is_empty() || change.no_window {
            schedule.windows = change.windows.clone();
        }
        client.post(&format!("{path}/schedule"), &schedule)?
    };
    if json {
        return crate::print_json(&task);
    }
    let text = waiting(&task).unwrap_or_else(|| format!("{} is {}", task.id, task.state));
    crate::print(&format!("{}\n", plain(&text)))
}

/// What a task waits for that is not begun, for people.
pub(crate) fn waiting(task: &TaskView) -> Option<String> {
    let (id, machine) = (&task.id, &task.machine);
    match task.state {
        TaskState::Scheduled => {
            let due = task.due_at.map(|at| at.to_string()).unwrap_or_default();
            let schedule = task.schedule.as_ref().map(describe_schedule).unwrap_or_default();
            Some(format!("{id}: begins {due} ({schedule}); before that: vconverter tasks schedule {id} --now"))
        }
        TaskState::Paused => Some(format!("{id} is paused: vconverter tasks resume {id}")),
        TaskState::Waiting => {
            Some(format!("{id} waits until {machine} is Cold Cloning Ready: start it from the boot image"))
        }
        TaskState::Unconfirmed => Some(format!("{id}: {machine} is Cold Cloning Ready: vconverter tasks resume {id}")),
        _ => None,
    }
}

/// A line of a watched task for programs; the same shapes as those of a local conversion.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Line<'a> {
    Step {
        step: String,
    },
    Progress {
        step: String,
        task: &'a str,
        #[serde(flatten)]
        progress: &'a Progress,
    },
    Log {
        message: &'a str,
    },
    Warning {
        message: &'a str,
    },
    Done {
        task: &'a str,
        outcome: &'a Option<serde_json::Value>,
    },
    Failed {
        task: &'a str,
        state: TaskState,
        error: &'a Option<String>,
    },
}

/// Follows a task to its end. A controller that is started again in between is waited for.
pub(crate) fn watch(client: &Client, id: &str, json: bool) -> Result<()> {
    let mut watched = Watched { line: ProgressLine::new(), json, after: 0, progress: None };
    let mut absent = 0;
    let mut task = get(client, id)?;
    loop {
        match watched.look(client, &task) {
            Ok(()) if task.state.is_final() => return watched.end(&task),
            Ok(()) => absent = 0,
            Err(failure) if failure.code == Code::Unreachable && absent < ABSENCE_MAX => {
                absent += 1;
                if absent == 1 {
                    watched.line.say("the controller is gone; waiting for it to come back");
                }
            }
            Err(failure) => return Err(failure),
        }
        std::thread::sleep(POLL_INTERVAL);
        match get(client, id) {
            Ok(current) => task = current,
            Err(failure) if failure.code == Code::Unreachable => {}
            Err(failure) => return Err(failure),
        }
    }
}

struct Watched {
    line: ProgressLine,
    json: bool,
    after: i64,
    progress: Option<Progress>,
}

impl Watched {
    /// Shows what is new. The log is asked for after the task, so that a final state has all of it.
    fn look(&mut self, client: &Client, task: &TaskView) -> Result<()> {
        let mut after = self.after;
        let shown = follow_log(client, &task.id, &mut after, |entry| self.show_entry(task, entry));
        self.after = after;
        shown?;
        let step = task.step.clone().unwrap_or_default();
        if task.state == TaskState::Running && self.progress.as_ref() != Some(&task.progress) {
            if self.json && task.progress.total > 0 {
                let step = step.replace(' ', "-");
                crate::print_json_line(&Line::Progress { step, task: &task.id, progress: &task.progress })?;
            }
            self.progress = Some(task.progress.clone());
        }
        if !self.json && task.state == TaskState::Running {
            self.line.update(&step, &task.progress);
        }
        Ok(())
    }

    fn show_entry(&mut self, task: &TaskView, entry: &LogEntry) -> Result<()> {
        let is_end = task.state.is_final() && task.error.as_deref() == Some(entry.message.as_str());
        match (self.json, entry.level) {
            // The error that ended the task is told at its end.
            _ if is_end => Ok(()),
            // The log holds a line for each step, however short; polling alone would miss some.
            (true, LogLevel::Info) if STEPS.iter().any(|step| step.to_string() == entry.message) => {
                crate::print_json_line(&Line::Step { step: entry.message.replace(' ', "-") })
            }
            (true, LogLevel::Info) => crate::print_json_line(&Line::Log { message: &entry.message }),
            (true, _) => crate::print_json_line(&Line::Warning { message: &entry.message }),
            (false, LogLevel::Info) => {
                self.line.say(&entry.message);
                Ok(())
            }
            (false, level) => {
                self.line.say(&format!("{level}: {}", entry.message));
                Ok(())
            }
        }
    }

    fn end(self, task: &TaskView) -> Result<()> {
        drop(self.line);
        if task.state == TaskState::Done {
            let made = outcome_of(task)?;
            match (&made, self.json) {
                (_, true) => crate::print_json_line(&Line::Done { task: &task.id, outcome: &task.outcome })?,
                (Some(made), false) => crate::print(&outcome::describe(made, task.request.dry_run))?,
                (None, false) => crate::print(&format!("{} is done\n", task.id))?,
            }
            return made.map_or(Ok(()), |made| outcome::reservations(&made, task.request.dry_run));
        }
        if self.json {
            crate::print_json_line(&Line::Failed { task: &task.id, state: task.state, error: &task.error })?;
        }
        let (code, why) = match (task.state, &task.error) {
            (TaskState::Cancelled, _) => (Code::Interrupted, "cancelled".to_owned()),
            (_, Some(error)) => (Code::Failed, error.clone()),
            (state, None) => (Code::Failed, state.to_string()),
        };
        Err(Failure::new(code, format!("task {} ({}): {why}", task.id, task.name)))
    }
}

fn get(client: &Client, id: &str) -> Result<TaskView> {
    client.get(&format!("/tasks/{}", segment(id)))
}

fn outcome_of(task: &TaskView) -> Result<Option<conversion::Outcome>> {
    let outcome = task.outcome.clone().map(serde_json::from_value).transpose();
    outcome.map_err(|e| Failure::new(Code::Failed, format!("outcome of task {}: {e}", task.id)))
}
