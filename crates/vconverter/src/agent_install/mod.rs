//! `vconverter agents install|remove|status ssh://…`: the agent on a machine that runs its own system.
//!
//! Everything is done over one connection of OpenSSH, in steps that are told. Until the controller has seen the machine,
//! nothing of it stays: the agent's own installation waits for the word, and whatever ends the connection undoes it.

mod address;
mod connection;
mod elevation;
mod helper;
mod installing;
mod login;
mod said;
mod script;
mod session;
mod steps;
mod upload;

use serde_json::Value;

use crate::arguments::{InstallAgent, ReachAgent};
use crate::client::Client;
use crate::failure::{Code, Failure, Result};
use crate::table::plain;

pub(crate) use address::{Address, Target};
pub(crate) use helper::answer;
use login::Reached;

/// Installs the agent, or runs it once.
pub(crate) fn install(client: &Client, wish: &InstallAgent, at: Option<&str>, json: bool) -> Result<()> {
    installing::install(client, wish, at, json)
}

/// Takes everything of the agent away.
pub(crate) fn remove(reach: &ReachAgent, dry_run: bool, json: bool) -> Result<()> {
    let mut reached = Reached::open(reach, json)?;
    let program = reached.agent_program()?;
    let arguments = if dry_run { "remove --json --dry-run" } else { "remove --json" };
    let ended = reached.run_agent(&program, arguments)?;
    let mut said = ended.lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let event = said.next_back().unwrap_or_default();
    if !ended.status.success() {
        let why = event["message"].as_str().map_or_else(|| said::plain(&ended.said), str::to_owned);
        return Err(Failure::new(Code::Failed, format!("{}: {why}", reached.host)));
    }
    let list = if dry_run { &event["steps"] } else { &event["removed"] };
    let removed: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for step in &removed {
        reached.steps.tell(if dry_run { "would" } else { "remove" }, step)?;
    }
    let detail = match (removed.is_empty(), dry_run) {
        (true, _) => format!("nothing of the agent is on {}", reached.host),
        (false, true) => "nothing was done".to_owned(),
        (false, false) => format!(
            "nothing of the agent is left on {}; `vconverter machines forget` forgets the machine",
            reached.host
        ),
    };
    reached.steps.done(&detail, serde_json::json!({ "removed": removed }))
}

/// Tells what of the agent is there.
pub(crate) fn status(reach: &ReachAgent, json: bool) -> Result<()> {
    let mut reached = Reached::quietly(reach, json)?;
    let program = reached.agent_program()?;
    let ended = reached.run_agent(&program, "status")?;
    let status: Value = serde_json::from_str(&ended.lines.join("\n")).map_err(|_| {
        let text = format!("{}: no status: {}", reached.host, said::plain(&ended.said));
        Failure::new(Code::Failed, text)
    })?;
    if json {
        return crate::print_json(&status);
    }
    let text = |name: &str| status[name].as_str().unwrap_or("-").to_owned();
    let state = match (status["installed"] == true, status["once"] == true, status["running"] == true) {
        (true, _, true) => format!("installed ({}), running", text("init")),
        (true, _, false) => format!("installed ({}), not running", text("init")),
        (false, true, _) => "running once, not installed".to_owned(),
        (false, false, _) => "not there".to_owned(),
    };
    let last = &status["last"];
    let last =
        [&last["status"], &last["detail"]].iter().filter_map(|word| word.as_str()).collect::<Vec<_>>().join(": ");
    let mut lines = format!("agent       {state}\n");
    if status["installed"] == true || status["once"] == true {
        let (version, controller, key) = (text("version"), text("controller"), text("key"));
        lines += &format!("version     {version}\ncontroller  {controller}\nkey         {key}\nlast        {last}\n");
    }
    crate::print(&lines.lines().map(|line| plain(line) + "\n").collect::<String>())
}
