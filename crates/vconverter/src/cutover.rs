//! `vconverter cutover`: the VM of a task takes its source's place, or gives it back.

use std::time::Duration;

use controller::cutover::CutoverWish;
use controller::store::{Cutover, CutoverState};
use serde_json::json;

use crate::arguments::CutoverArguments;
use crate::client::{Client, segment};
use crate::failure::{Code, Failure, Result};
use crate::table::plain;
use crate::tasks::follow_log;

const PAUSE: Duration = Duration::from_millis(500);

pub(crate) fn cutover(client: &Client, arguments: &CutoverArguments, json: bool) -> Result<()> {
    let path = format!("/tasks/{}", segment(&arguments.task));
    // What the log had before is not ours to show.
    let mut shown = 0;
    follow_log(client, &arguments.task, &mut shown, |_| Ok(()))?;
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
        follow_log(client, &arguments.task, &mut shown, |line| {
            match json {
                true => crate::print_json_line(&json!({ "event": "log", "line": line }))?,
                false => eprintln!("{}", plain(&line.message)),
            }
            Ok(())
        })?;
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
