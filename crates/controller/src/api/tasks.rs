//! Tasks: asked for, looked at, changed and ended.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Deserialize;

use super::input::{At, Body, Parameters};
use super::machines::machine_id;
use super::page::PageQuery;
use super::problem::invalid;
use super::proof::Text;
use super::routes::{About, Answer, Created, Routes, about, blocking};
use super::{
    Api, BatchView, CONVERSIONS_MAX, Caller, NewBatches, NewClone, NewConversion, NewRequest, Page, Role, TaskRate,
    TaskReturn, TaskSchedule, TaskView,
};
use crate::Result;
use crate::store::{LogEntry, TaskRecord};
use crate::support::task_log_text;
use crate::tasks::{Batch, Wish};

/// Lines of a log that one answer holds.
const LOG_LINES_MAX: u32 = 1000;

/// A task of the path.
#[derive(Deserialize, JsonSchema)]
pub(super) struct OneTask {
    /// Its id.
    pub(super) id: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    /// Number of the last line that is known; 0 for all.
    #[serde(default)]
    after: i64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DeleteQuery {
    /// Whether what it left half-made goes too. A result that is whole stays.
    #[serde(default)]
    discard: bool,
}

pub(super) fn routes() -> Routes<Arc<Api>> {
    const fn operator(id: &'static str, summary: &'static str) -> About {
        about(Role::Operator, id, summary)
    }
    Routes::new()
        .get("/tasks", about(Role::Viewer, "list_tasks", "Tasks, the newest first"), list)
        .post("/tasks", operator("create_task", "Converts a machine"), create)
        .post(
            "/batches",
            operator(
                "create_batches",
                "Converts several machines, all or none: those in the boot image apart from live ones",
            ),
            create_batches,
        )
        .get("/tasks/{id}", about(Role::Viewer, "get_task", "One task"), one)
        .get("/tasks/{id}/log", about(Role::Viewer, "get_task_log", "Lines of a task's log, the oldest first"), log)
        .get("/tasks/{id}/log.txt", about(Role::Viewer, "get_task_log_text", "A task's log as a text"), log_text)
        .post("/tasks/{id}/cancel", operator("cancel_task", "Ends a task at its next safe point"), cancel)
        .post("/tasks/{id}/pause", operator("pause_task", "Pauses a task at its next safe point"), pause)
        .post("/tasks/{id}/clone", operator("clone_task", "Asks for the same for another VM of the machine"), clone)
        .delete("/tasks/{id}", operator("delete_task", "Forgets a task that is over"), delete)
        .post("/tasks/{id}/retry", operator("retry_task", "Begins a task again from what is durable"), retry)
        .post(
            "/tasks/{id}/resume",
            operator(
                "resume_task",
                "Goes on with a paused task, or says yes to the machine that a task has waited for",
            ),
            resume,
        )
        .post(
            "/tasks/{id}/bandwidth",
            operator("set_task_bandwidth", "Limits what comes in for a task, from now on"),
            set_rate,
        )
        .post(
            "/tasks/{id}/back-by",
            operator("set_task_return", "Sets by when a task's machine must be back in its own system, from now on"),
            set_back_by,
        )
        .post(
            "/tasks/{id}/schedule",
            operator("schedule_task", "Gives another time to a task that was not begun"),
            schedule,
        )
        .post(
            "/tasks/{id}/start",
            operator("start_task", "Begins a task that was not begun, whatever its schedule says"),
            start,
        )
}

async fn list(State(api): State<Arc<Api>>, Parameters(query): Parameters<PageQuery>) -> Answer<Json<Page<TaskView>>> {
    blocking(move || {
        let limit = query.limit();
        let found = api.store.tasks_page(query.after.as_deref(), limit + 1, query.search.as_deref())?;
        Page::of(found, limit, |last| last.id.clone()).map(|task| view(&api, task))
    })
    .await
}

async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(new): Body<NewConversion>,
) -> Answer<Created<TaskView>> {
    let created = blocking(move || {
        let id = api.tasks.create(&wish(&api, new)?, &caller.actor)?;
        find_task(&api, &id)
    });
    Ok(Created(created.await?.0))
}

async fn create_batches(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(new): Body<NewBatches>,
) -> Answer<Created<Vec<BatchView>>> {
    let conversions = new.conversions;
    if conversions.is_empty() || conversions.len() > CONVERSIONS_MAX {
        let count = conversions.len();
        return Err(invalid(&format!("conversions: expected 1 to {CONVERSIONS_MAX}, found {count}")));
    }
    let created = blocking(move || {
        let wishes = conversions.into_iter().map(|new| wish(&api, new)).collect::<Result<Vec<_>>>()?;
        let batches = api.tasks.create_batches(&wishes, &caller.actor)?;
        let view = |batch: Batch| {
            let tasks = batch.tasks.iter().map(|id| find_task(&api, id)).collect::<Result<_>>()?;
            Ok(BatchView { id: batch.id, kind: batch.kind, tasks })
        };
        batches.into_iter().map(view).collect()
    });
    Ok(Created(created.await?.0))
}

/// What is asked for, with the machine by its id, and the settings of its profile copied.
pub(super) fn wish(api: &Api, new: NewConversion) -> Result<Wish> {
    let machine = machine_id(api, &new.machine)?;
    let profile = match new.profile.as_deref() {
        Some("none") => None,
        name => api.store.profile(name)?,
    };
    let NewRequest { name, disks, choices, dry_run, settings } = new.request;
    let settings = settings.or(profile.map(|profile| profile.settings).unwrap_or_default());
    let windows = settings.windows.clone().filter(|windows| !windows.is_empty());
    let windows = windows.map(|windows| TaskSchedule { windows, ..TaskSchedule::default() });
    let schedule = new.schedule.or(windows).map(Into::into);
    let (bytes_per_second, back_by) = (settings.bytes_per_second, settings.back_by.clone());
    let request = settings.request(name, disks, choices, dry_run)?;
    let (wait, rcc, held) = (new.wait, new.rcc, new.held);
    Ok(Wish { machine, request, wait, schedule, bytes_per_second, back_by, rcc, held })
}

async fn one(State(api): State<Arc<Api>>, At(at): At<OneTask>) -> Answer<Json<TaskView>> {
    blocking(move || find_task(&api, &at.id)).await
}

async fn log(
    State(api): State<Arc<Api>>,
    At(at): At<OneTask>,
    Parameters(query): Parameters<LogQuery>,
) -> Answer<Json<Vec<LogEntry>>> {
    blocking(move || {
        find_task(&api, &at.id)?;
        api.store.task_log(&at.id, query.after, LOG_LINES_MAX)
    })
    .await
}

async fn log_text(State(api): State<Arc<Api>>, At(at): At<OneTask>) -> Answer<Text> {
    let text = blocking(move || {
        find_task(&api, &at.id)?;
        task_log_text(&api.store, &at.id)
    });
    Ok(Text(text.await?.0.into_bytes()))
}

async fn cancel(State(api): State<Arc<Api>>, caller: Caller, At(at): At<OneTask>) -> Answer<Json<TaskView>> {
    change(api, at, move |api, id| api.tasks.cancel(id, &caller.actor)).await
}

async fn pause(State(api): State<Arc<Api>>, caller: Caller, At(at): At<OneTask>) -> Answer<Json<TaskView>> {
    change(api, at, move |api, id| api.tasks.pause(id, &caller.actor)).await
}

async fn clone(
    State(api): State<Arc<Api>>,
    caller: Caller,
    At(at): At<OneTask>,
    Body(new): Body<NewClone>,
) -> Answer<Created<TaskView>> {
    let created = blocking(move || {
        let id = api.tasks.clone_task(&at.id, &new.name, &caller.actor)?;
        find_task(&api, &id)
    });
    Ok(Created(created.await?.0))
}

async fn delete(
    State(api): State<Arc<Api>>,
    caller: Caller,
    At(at): At<OneTask>,
    Parameters(query): Parameters<DeleteQuery>,
) -> Answer<Json<TaskView>> {
    blocking(move || {
        let task = find_task(&api, &at.id)?;
        api.tasks.delete(&at.id, query.discard, &caller.actor)?;
        api.events.task_gone(&at.id);
        Ok(task)
    })
    .await
}

async fn retry(State(api): State<Arc<Api>>, caller: Caller, At(at): At<OneTask>) -> Answer<Json<TaskView>> {
    change(api, at, move |api, id| api.tasks.retry(id, &caller.actor)).await
}

async fn resume(State(api): State<Arc<Api>>, caller: Caller, At(at): At<OneTask>) -> Answer<Json<TaskView>> {
    change(api, at, move |api, id| api.tasks.resume(id, &caller.actor)).await
}

async fn schedule(
    State(api): State<Arc<Api>>,
    caller: Caller,
    At(at): At<OneTask>,
    Body(schedule): Body<TaskSchedule>,
) -> Answer<Json<TaskView>> {
    change(api, at, move |api, id| api.tasks.schedule(id, schedule.into(), &caller.actor)).await
}

async fn set_rate(
    State(api): State<Arc<Api>>,
    caller: Caller,
    At(at): At<OneTask>,
    Body(rate): Body<TaskRate>,
) -> Answer<Json<TaskView>> {
    change(api, at, move |api, id| api.tasks.set_rate(id, rate.bytes_per_second, &caller.actor)).await
}

async fn set_back_by(
    State(api): State<Arc<Api>>,
    caller: Caller,
    At(at): At<OneTask>,
    Body(back): Body<TaskReturn>,
) -> Answer<Json<TaskView>> {
    change(api, at, move |api, id| api.tasks.set_back_by(id, back.back_by.as_ref(), &caller.actor)).await
}

async fn start(State(api): State<Arc<Api>>, caller: Caller, At(at): At<OneTask>) -> Answer<Json<TaskView>> {
    change(api, at, move |api, id| api.tasks.start_now(id, &caller.actor)).await
}

/// Changes a task and answers with what it is then.
async fn change(
    api: Arc<Api>,
    at: OneTask,
    change: impl FnOnce(&Api, &str) -> Result<()> + Send + 'static,
) -> Answer<Json<TaskView>> {
    blocking(move || {
        change(&api, &at.id)?;
        find_task(&api, &at.id)
    })
    .await
}

fn find_task(api: &Api, id: &str) -> Result<TaskView> {
    view(api, api.store.existing_task(id)?)
}

/// A task with its progress.
pub(super) fn view(api: &Api, task: TaskRecord) -> Result<TaskView> {
    let (progress, steps) = (api.tasks.progress(&task), api.store.task_steps(&task.id)?);
    TaskView::new(task, progress, steps)
}
