//! `vconverter convert`: local sources through the pipeline here, a machine through its controller.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use controller::DataDirectory;
use controller::api::{
    BatchView, MachineState, MachineView, NewBatches, NewConversion, NewRequest, PreflightView, TaskSchedule, TaskView,
};
use controller::progress::Meter;
use controller::store::TaskState;
use controller::tasks::BatchKind;
use conversion::{Cancel, Event, Observer, Source};
use serde_json::json;

use crate::arguments::{Convert, Times};
use crate::client::{Client, segment};
use crate::failure::{Code, Failure, Result};
use crate::progress_line::ProgressLine;
use crate::signals::Signals;
use crate::table::plain;
use crate::{link_tests, outcome, preflight, tasks, waves};

/// What was typed, told apart.
#[derive(Debug, PartialEq, Eq)]
enum Meant {
    /// Files or block devices here.
    Local(Vec<PathBuf>),
    /// Machines of the controller.
    Machines(Vec<String>),
}

pub(crate) fn convert(
    arguments: &Convert,
    directory: &DataDirectory,
    connect: &dyn Fn() -> Result<Client>,
    json: bool,
) -> Result<()> {
    if let Some(file) = &arguments.from {
        return waves::convert(&connect()?, file, arguments, json);
    }
    match tell_apart(&arguments.sources)? {
        Meant::Local(paths) => convert_local(arguments, directory, paths, json),
        Meant::Machines(names) => convert_machines(arguments, &names, connect, json),
    }
}

/// A source holds a `/` or is here as a file; other words are machines, several with commas between.
fn tell_apart(sources: &[String]) -> Result<Meant> {
    let is_local = |source: &String| source.contains('/') || Path::new(source).exists();
    let (local, other): (Vec<&String>, Vec<&String>) = sources.iter().partition(|source| is_local(source));
    match (local.as_slice(), other.as_slice()) {
        (_, []) => {
            for source in &local {
                if let Err(error) = Path::new(source).metadata() {
                    return Err(Failure::file(&format!("source {source}"), &error));
                }
            }
            Ok(Meant::Local(local.iter().map(PathBuf::from).collect()))
        }
        ([], machines) => {
            let names = machines.iter().flat_map(|word| word.split(',')).map(str::trim);
            let mut all: Vec<String> = Vec::new();
            for name in names.filter(|name| !name.is_empty()) {
                if all.iter().any(|known| known == name) {
                    return Err(Failure::new(Code::Usage, format!("machine {name} is named twice")));
                }
                all.push(name.to_owned());
            }
            match all.is_empty() {
                true => Err(Failure::new(Code::Usage, "expected a source or a machine, found commas")),
                false => Ok(Meant::Machines(all)),
            }
        }
        ([local, ..], [other, ..]) => {
            let message = format!("{local} is a local source, {other} is no file or block device here");
            Err(Failure::new(Code::NotFound, message))
        }
    }
}

fn convert_local(arguments: &Convert, directory: &DataDirectory, paths: Vec<PathBuf>, json: bool) -> Result<()> {
    if arguments.wait {
        return Err(Failure::new(Code::Usage, "--wait is for machines of the controller: local disks are here"));
    }
    if arguments.test_links || arguments.no_link_test {
        let message = "--test-links and --no-link-test are for machines of the controller: local disks have no link";
        return Err(Failure::new(Code::Usage, message));
    }
    if arguments.rcc.rcc {
        return Err(Failure::new(Code::Usage, "--rcc is for machines of the controller: local disks are here"));
    }
    if arguments.times.start_at.is_some() || !arguments.times.windows.is_empty() {
        let message =
            "--start-at and --window are for machines of the controller: a local conversion runs in this process";
        return Err(Failure::new(Code::Usage, message));
    }
    if arguments.profile.is_some() || arguments.settings.bandwidth.is_some() || arguments.settings.back_by.is_some() {
        let message = "--profile, --bandwidth and --back-by are for machines of the controller";
        return Err(Failure::new(Code::Usage, message));
    }
    if arguments.detach {
        let message = "--detach: a local conversion runs in this process; only a machine's can be detached";
        return Err(Failure::new(Code::Usage, message));
    }
    let name = match (&arguments.name, paths.first().and_then(|path| path.file_stem())) {
        (Some(name), _) => name.clone(),
        (None, Some(stem)) => stem.to_string_lossy().into_owned(),
        (None, None) => return Err(Failure::new(Code::Usage, "--name is needed: the source has no file name")),
    };
    if arguments.settings.output.is_none() {
        return Err(Failure::new(Code::Usage, "--output is needed: the folder in which the result appears"));
    }
    let settings = arguments.settings.settings()?;
    let (disks, choices) = arguments.choices.choices()?;
    let request = settings
        .request(name, disks, choices, arguments.dry_run)
        .map_err(|e| Failure::new(Code::Usage, e.to_string()))?;
    let windows = arguments.windows.guests(directory)?;
    let teller = Teller::new(json);
    let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    teller.say(&format!("converting local disks: {}", shown.join(", ")));
    let cancel = Cancel::default();
    Signals::listen()?.cancel_in_background(cancel.clone())?;
    match conversion::convert(&Source::Local(paths), &request, &windows, &teller, &cancel) {
        Ok(made) => {
            drop(teller);
            match json {
                true => crate::print_json_line(&json!({ "event": "done", "outcome": made }))?,
                false => crate::print(&outcome::describe(&made, request.dry_run))?,
            }
            outcome::reservations(&made, request.dry_run)
        }
        Err(error) => {
            drop(teller);
            let failure = Failure::from(error);
            if json {
                // Even if its reader went away: the exit code tells how it ended.
                let _ = crate::print_json_line(&json!({ "event": "failed", "error": failure.message }));
            }
            Err(failure)
        }
    }
}

fn convert_machines(
    arguments: &Convert,
    names: &[String],
    connect: &dyn Fn() -> Result<Client>,
    json: bool,
) -> Result<()> {
    if !arguments.windows.is_empty() {
        let message = "--library, --hypervisors and --first-boot-script are for local disks: the controller has its own, in its data directory";
        return Err(Failure::new(Code::Usage, message));
    }
    let client = connect()?;
    if names.len() > 1 && (arguments.name.is_some() || !arguments.choices.is_empty()) {
        let message = "--name, and what is said of disks and volumes, are for one machine: several are named as they are, with all their disks";
        return Err(Failure::new(Code::Usage, message));
    }
    let machines: Vec<MachineView> = names.iter().map(|name| find_machine(&client, name)).collect::<Result<_>>()?;
    let mut conversions = Vec::new();
    for machine in &machines {
        let Some(id) = machine.id.clone() else {
            let message = format!("machine {} is {}: approve it first", machine.name, machine.state);
            return Err(Failure::new(Code::Refused, message));
        };
        if machine.state == MachineState::NoAgent {
            let name = plain(&machine.name);
            let remedy = "start it from the boot image, or run vconverter-agent on it, and approve it";
            return Err(Failure::new(Code::Refused, format!("machine {name} has no agent: {remedy}")));
        }
        let vm = match &arguments.name {
            Some(name) => name.clone(),
            None => default_name(machine)?,
        };
        let (disks, choices) = arguments.choices.choices()?;
        let dry_run = arguments.dry_run;
        let request = NewRequest { name: vm, disks, choices, dry_run, settings: arguments.settings.settings()? };
        let (profile, schedule) = (arguments.profile.clone(), schedule(&arguments.times));
        let (wait, rcc, held) = (arguments.wait, arguments.rcc.settings()?, arguments.rcc.confirm);
        conversions.push(NewConversion { machine: id, request, profile, wait, schedule, rcc, held });
    }
    if arguments.dry_run && arguments.rcc.rcc {
        // No machine is restarted to be looked at: what is known of it while it runs is all.
        let reports: Vec<PreflightView> = client.post("/preflight", &NewBatches { conversions })?;
        match json {
            true => crate::print_json(&reports)?,
            false => crate::print(&reports.iter().map(preflight::describe).collect::<String>())?,
        }
        return preflight::refuse_blocked(&reports);
    }
    let is_for_later = conversions.iter().any(|one| one.schedule.is_some() || one.rcc.is_some());
    if arguments.test_links || (is_for_later && !arguments.no_link_test) {
        let connected = machines.iter().filter(|machine| machine.state == MachineState::Ready);
        link_tests::test(&client, connected.filter_map(|machine| machine.id.as_deref()))?;
    }
    if is_for_later && !json {
        let request = NewBatches { conversions: conversions.clone() };
        let reports: Vec<PreflightView> = client.post("/preflight", &request)?;
        eprint!("{}", reports.iter().map(preflight::describe).collect::<String>());
    }
    match conversions.as_slice() {
        [one] => convert_one(&client, one, &machines[0], arguments.detach, json),
        _ => convert_several(&client, conversions, arguments.detach, json),
    }
}

pub(crate) fn schedule(times: &Times) -> Option<TaskSchedule> {
    let schedule = TaskSchedule { start_at: times.start_at.clone(), windows: times.windows.clone() };
    (schedule != TaskSchedule::default()).then_some(schedule)
}

fn find_machine(client: &Client, name: &str) -> Result<MachineView> {
    let found: Result<MachineView> = client.get(&format!("/machines/{}", segment(name)));
    found.map_err(|failure| match failure.code {
        Code::NotFound => {
            let message = format!("{name} is neither a file or block device here nor a machine of the controller");
            Failure::new(Code::NotFound, message)
        }
        Code::Unreachable => {
            let message =
                format!("{name} is no file or block device here, so it must be a machine; {}", failure.message);
            Failure::new(Code::Unreachable, message)
        }
        _ => failure,
    })
}

/// The name of a machine's VM where none was given: its host name. Product names, which several machines have, are none.
fn default_name(machine: &MachineView) -> Result<String> {
    let hostname = machine.report.as_ref().and_then(|report| report.guest.hostname.clone());
    hostname.ok_or_else(|| {
        let message = format!("--name is needed to convert machine {}: its host name is not known", machine.name);
        Failure::new(Code::Usage, message)
    })
}

fn convert_one(client: &Client, new: &NewConversion, machine: &MachineView, detach: bool, json: bool) -> Result<()> {
    let task: TaskView = client.post("/tasks", new)?;
    if detach {
        return match json {
            true => crate::print_json(&task),
            false => crate::print(&format!("{}\n", task.id)),
        };
    }
    if task.state == TaskState::Scheduled {
        // Nobody watches until then.
        return match json {
            true => crate::print_json_line(&json!({ "event": "scheduled", "task": task })),
            false => crate::print(&format!("{}\n", plain(&tasks::waiting(&task).unwrap_or_default()))),
        };
    }
    let teller = Teller::new(json);
    teller.say(&format!("converting machine {} ({}) as task {}", new.machine, machine.name, task.id));
    if let Some(waiting) = tasks::waiting(&task) {
        teller.say(&waiting);
    }
    drop(teller);
    if !json {
        eprintln!("Ctrl-C stops watching; the task goes on (vconverter tasks watch {})", task.id);
    }
    tasks::watch(client, &task.id, json)
}

/// Several at once: kept all or none, watched one after the other though they run together.
fn convert_several(client: &Client, conversions: Vec<NewConversion>, detach: bool, json: bool) -> Result<()> {
    let batches: Vec<BatchView> = client.post("/batches", &NewBatches { conversions })?;
    let tasks = batches.iter().flat_map(|batch| &batch.tasks).filter(|task| tasks::waiting(task).is_none());
    match (json, detach) {
        (true, true) => return crate::print_json(&batches),
        (true, false) => crate::print_json_line(&json!({ "event": "batches", "batches": batches }))?,
        (false, true) => return crate::print(&describe_batches(&batches)),
        (false, false) => {
            eprint!("{}", describe_batches(&batches));
            if tasks.clone().next().is_none() {
                return Ok(());
            }
            eprintln!("Ctrl-C stops watching; the tasks go on (vconverter tasks)");
        }
    }
    let mut worst: Option<Code> = None;
    for task in tasks {
        if !json {
            eprintln!("{} ({}):", task.id, plain(&task.name));
        }
        match tasks::watch(client, &task.id, json) {
            Ok(()) => {}
            Err(failure) if failure.code == Code::Unreachable => return Err(failure),
            Err(failure) => {
                if !failure.message.is_empty() {
                    eprintln!("vconverter: {}", plain(&failure.message));
                }
                // What failed outweighs what was made with reservations.
                if worst.is_none_or(|worst| worst == Code::Reservations) {
                    worst = Some(failure.code);
                }
            }
        }
    }
    worst.map_or(Ok(()), |code| Err(Failure::silent(code)))
}

pub(crate) fn describe_batches(batches: &[BatchView]) -> String {
    let mut text = String::new();
    if batches.len() > 1 {
        text.push_str("split into batches: machines in the boot image are converted apart from those that run\n");
    }
    for batch in batches {
        let kind = match batch.kind {
            BatchKind::ColdCloningReady => "Cold Cloning Ready",
            BatchKind::RemoteColdCloning => "restarted into the boot image",
            BatchKind::Live => "running their own system",
        };
        let count = batch.tasks.len();
        text.push_str(&format!("batch {} ({kind}, {count} machine{}):\n", batch.id, if count == 1 { "" } else { "s" }));
        for task in &batch.tasks {
            let waiting = tasks::waiting(task).map(|text| format!("; {text}")).unwrap_or_default();
            text.push_str(&plain(&format!("  {} {} from {}{waiting}", task.id, task.name, task.machine)));
            text.push('\n');
        }
    }
    text
}

/// Tells what a local conversion does.
struct Teller {
    json: bool,
    shown: Mutex<(ProgressLine, Meter)>,
}

impl Teller {
    fn new(json: bool) -> Self {
        Self { json, shown: Mutex::new((ProgressLine::new(), Meter::default())) }
    }

    fn say(&self, text: &str) {
        if !self.json {
            self.shown().0.say(text);
        }
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, (ProgressLine, Meter)> {
        self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Observer for Teller {
    fn event(&self, event: Event) {
        if self.json {
            // A reader that went away does not end the conversion.
            let _ = crate::print_json_line(&event);
            return;
        }
        let now = Instant::now();
        let mut shown = self.shown();
        let (line, meter) = &mut *shown;
        meter.event(&event, now);
        match &event {
            Event::Step { step } => line.say(&format!("{step} …")),
            Event::Progress { step, .. } => line.update(&step.to_string(), &meter.progress(now)),
            Event::Log { message } => line.say(message),
            Event::Warning { message } => line.say(&format!("warning: {message}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| word.to_string()).collect()
    }

    #[test]
    fn sources_and_machines_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("disk.img");
        std::fs::write(&file, "").unwrap();
        let (file, missing) = (file.to_str().unwrap(), folder.path().join("absent.img"));
        assert_eq!(tell_apart(&words(&[file])).unwrap(), Meant::Local(vec![file.into()]));
        assert_eq!(tell_apart(&words(&["m-4f9c21ab"])).unwrap(), Meant::Machines(words(&["m-4f9c21ab"])));
        let three = Meant::Machines(words(&["web1", "web2", "db1"]));
        assert_eq!(tell_apart(&words(&["web1,web2,", "db1"])).unwrap(), three);
        for wrong in [words(&[missing.to_str().unwrap()]), words(&[file, "web1"])] {
            assert_eq!(tell_apart(&wrong).unwrap_err().code, Code::NotFound, "{wrong:?}");
        }
        for wrong in [words(&["web1,web1"]), words(&[","])] {
            assert_eq!(tell_apart(&wrong).unwrap_err().code, Code::Usage, "{wrong:?}");
        }
    }
}
