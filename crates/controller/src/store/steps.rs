//! The steps of a task: which there are, and how each stands.

use conversion::Step;
use rusqlite::{Connection, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::leases::End;
use super::{Store, storage};
use crate::{Result, Timestamp};

/// How a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StepState {
    /// Not begun.
    Pending,
    /// Works.
    Running,
    /// Ended well.
    Done,
    /// Ended with the task's error.
    Failed,
    /// Came to a safe point, and goes on from there.
    Interrupted,
    /// There was nothing to do.
    Skipped,
}

/// A step of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskStep {
    /// Which.
    pub step: Step,
    /// How it stands.
    pub state: StepState,
    /// When it was begun last.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl StepState {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Skipped => "skipped",
        }
    }

    fn parse(text: &str) -> Self {
        let all = [Self::Pending, Self::Running, Self::Done, Self::Failed, Self::Interrupted];
        all.into_iter().find(|state| state.as_str() == text).unwrap_or(Self::Skipped)
    }
}

impl Store {
    /// The steps of a task in their order; none before it was begun first.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage).
    pub fn task_steps(&self, task: &str) -> Result<Vec<TaskStep>> {
        let context = "steps cannot be read";
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(
                "SELECT step, state, started_at, finished_at FROM task_steps WHERE task = ?1 ORDER BY position",
            )
            .map_err(|e| storage(context, e))?;
        let rows = statement
            .query_map([task], |row| {
                let (step, state): (String, String) = (row.get(0)?, row.get(1)?);
                let moment = |column| row.get::<_, Option<i64>>(column).map(|at| at.map(Timestamp));
                let step = serde_json::from_value(step.into()).unwrap_or(Step::Check);
                Ok(TaskStep { step, state: StepState::parse(&state), started_at: moment(2)?, finished_at: moment(3)? })
            })
            .map_err(|e| storage(context, e))?;
        rows.collect::<rusqlite::Result<_>>().map_err(|e| storage(context, e))
    }
}

/// The task is begun, with these steps. What is known of them from before is kept.
pub(super) fn plan(connection: &Connection, task: &str, steps: &[Step]) -> Result<()> {
    let context = "steps cannot be written";
    let names: Vec<String> = steps.iter().map(|step| name(*step)).collect();
    let list = serde_json::to_string(&names).unwrap_or_default();
    // Other steps than before: the task was changed, and its order is written anew.
    connection
        .execute(
            "DELETE FROM task_steps WHERE task = ?1
             AND (SELECT group_concat(step) FROM (SELECT step FROM task_steps WHERE task = ?1 ORDER BY position))
                 <> (SELECT group_concat(value) FROM json_each(?2))",
            params![task, list],
        )
        .and_then(|_| {
            connection.execute(
                "INSERT INTO task_steps (task, position, step, state) SELECT ?1, key, value, 'pending' FROM json_each(?2)
                 WHERE true ON CONFLICT DO NOTHING",
                params![task, list],
            )
        })
        .map(drop)
        .map_err(|e| storage(context, e))
}

/// A step begins: those before it are done, and what an earlier try left of those after it is to be done again.
pub(super) fn begin(connection: &Connection, task: &str, step: Step) -> Result<()> {
    let context = "steps cannot be written";
    let now = Timestamp::now().0;
    let position = "(SELECT position FROM task_steps WHERE task = ?1 AND step = ?2)";
    let before = format!(
        "UPDATE task_steps SET state = 'done', finished_at = coalesce(finished_at, ?3)
         WHERE task = ?1 AND position < {position} AND state <> 'done'"
    );
    let after = format!(
        "UPDATE task_steps SET state = 'pending', finished_at = NULL
         WHERE task = ?1 AND position > {position} AND state IN ('running', 'failed', 'interrupted', 'skipped')"
    );
    let this =
        "UPDATE task_steps SET state = 'running', started_at = ?3, finished_at = NULL WHERE task = ?1 AND step = ?2";
    connection
        .execute(&before, params![task, name(step), now])
        .and_then(|_| connection.execute(&after, params![task, name(step)]))
        .and_then(|_| connection.execute(this, params![task, name(step), now]))
        .map(drop)
        .map_err(|e| storage(context, e))
}

/// The task ends so, or comes to a safe point.
pub(super) fn end(connection: &Connection, task: &str, end: &End<'_>) -> Result<()> {
    let (running, pending) = match end {
        End::Done(_) => (StepState::Done, StepState::Skipped),
        End::Failed(_) => (StepState::Failed, StepState::Pending),
        End::Cancelled | End::Paused | End::Interrupted => (StepState::Interrupted, StepState::Pending),
    };
    let now = Timestamp::now().0;
    // What a run before this one did, which was killed before it could tell, is not begun again by this one.
    let before = "UPDATE task_steps SET state = 'done', finished_at = coalesce(finished_at, ?2)
                  WHERE task = ?1 AND state IN ('pending', 'interrupted') AND started_at IS NOT NULL";
    if matches!(end, End::Done(_)) {
        connection.execute(before, params![task, now]).map_err(|e| storage("steps cannot be written", e))?;
    }
    connection
        .execute(
            "UPDATE task_steps SET finished_at = CASE state WHEN 'running' THEN ?4 ELSE finished_at END,
             state = CASE state WHEN 'running' THEN ?2 ELSE ?3 END WHERE task = ?1 AND state IN ('running', 'pending')",
            params![task, running.as_str(), pending.as_str(), now],
        )
        .map(drop)
        .map_err(|e| storage("steps cannot be written", e))
}

/// As it is kept: what serde makes of it.
fn name(step: Step) -> String {
    serde_json::to_value(step).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::tests::{STEPS, store_with_task};

    #[test]
    fn steps_that_were_done_before_a_kill_are_done_when_nothing_is_left_for_the_next_run() {
        let (folder, store, id) = store_with_task();
        let lease = store.begin_task(&id, None, &STEPS, Duration::from_secs(30)).unwrap().unwrap();
        for step in STEPS {
            assert!(store.step_begins(&lease, step).unwrap());
        }
        // Killed here: the proof was made, and only giving the result its name was left.
        let next = Store::open(&folder.path().join("controller.db")).unwrap();
        next.end_foreign_leases().unwrap();
        let lease = next.begin_task(&id, None, &STEPS, Duration::from_secs(30)).unwrap().unwrap();
        assert!(next.step_begins(&lease, Step::Check).unwrap());
        next.end_task(&lease, &End::Done("{}")).unwrap();
        let states: Vec<StepState> = next.task_steps(&id).unwrap().into_iter().map(|step| step.state).collect();
        assert_eq!(states, [StepState::Done; 5]);
    }

    #[test]
    fn steps_follow_what_the_conversion_tells_over_a_failure_and_another_try() {
        let (_folder, store, id) = store_with_task();
        let begin = || store.begin_task(&id, None, &STEPS, Duration::from_secs(30)).unwrap().unwrap();
        let states = || -> String {
            let initial = |step: TaskStep| step.state.as_str()[..1].to_owned();
            store.task_steps(&id).unwrap().into_iter().map(initial).collect()
        };
        assert_eq!(states(), "");
        let lease = begin();
        assert_eq!(states(), "ppppp");
        for (step, expected) in [(Step::Check, "rpppp"), (Step::Copy, "drppp"), (Step::FixUp, "ddrpp")] {
            assert!(store.step_begins(&lease, step).unwrap());
            assert_eq!(states(), expected);
        }
        store.end_task(&lease, &End::Failed("no room")).unwrap();
        assert_eq!(states(), "ddfpp");
        store.retry_task(&id, true, "uid 0").unwrap();
        let lease = begin();
        store.step_begins(&lease, Step::Check).unwrap();
        assert_eq!(states(), "rdppp", "what was copied is");
        store.step_begins(&lease, Step::FixUp).unwrap();
        assert_eq!(states(), "ddrpp");
        store.pause_task(&id, "uid 0").unwrap();
        store.end_task(&lease, &End::Paused).unwrap();
        assert_eq!(states(), "ddipp");
        store.resume_task(&id, "uid 0").unwrap();
        let lease = begin();
        store.step_begins(&lease, Step::Prove).unwrap();
        store.end_task(&lease, &End::Done("{}")).unwrap();
        assert_eq!(states(), "ddddd");
        let times = store.task_steps(&id).unwrap();
        assert!(times.iter().all(|step| step.finished_at.is_some()), "{times:?}");
    }
}
