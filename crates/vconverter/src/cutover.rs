//! `vconverter cutover`: the VM of a task takes its source's place, or gives it back.

use std::time::Duration;

use controller::cutover::CutoverWish;
use controller::store::{Cutover, CutoverState, LogEntry};
use serde_json::json;

use crate::arguments::CutoverArguments;
use crate::client::{Client, segment};
use crate::failure::{Code, Failure, Result};
use crate::table::plain;

const PAUSE: Duration = Duration::from_millis(500);

pub(crate) fn cutover(client: &Client, arguments: &CutoverArguments, json: bool) -> Result<()> {
    let path = format!("/tasks/{}", segment(&arguments.task));
    // What the log had before is not ours to show.
    let mut shown = log(client, &path, 0)?.last().map_or(0, |line| line.id);
    let begun: Cutover = match arguments.undo {
        true => client.post(&format!("{path}/cutover/undo"), &json!({}))?,
        false => {
            let wish = CutoverWish {
                connection: arguments.hypervisor.clone(),
                source_is_off: arguments.source_is_off,
                lose_changes: arguments.lose_changes,
                unproven: arguments.unproven,
            };
            client.post(&format!("{path}/cutover"), &wish)?
        }
    };
    if arguments.detach {
        return if json { crate::print_json(&begun) } else { crate::print(&format!("{}\n", arguments.task)) };
    }
    loop {
        // First where it is: what is said before its end is in the log then.
        let now: Cutover = client.get(&format!("{path}/cutover"))?;
        for line in log(client, &path, shown)? {
            shown = line.id;
            match json {
                true => crate::print_json_line(&json!({ "event": "log", "line": line }))?,
                false => eprintln!("{}", plain(&line.message)),
            }
        }
        if now.state.is_busy() {
            std::thread::sleep(PAUSE);
            continue;
        }
        if json {
            crate::print_json_line(&json!({ "event": now.state, "cutover": now }))?;
        }
        return match now.state {
            CutoverState::Failed => Err(Failure::new(Code::Failed, now.error.unwrap_or_default())),
            _ => Ok(()),
        };
    }
}

fn log(client: &Client, path: &str, after: i64) -> Result<Vec<LogEntry>> {
    let mut lines: Vec<LogEntry> = Vec::new();
    loop {
        let last = lines.last().map_or(after, |line| line.id);
        let more: Vec<LogEntry> = client.get(&format!("{path}/log?after={last}"))?;
        if more.is_empty() {
            return Ok(lines);
        }
        lines.extend(more);
    }
}
