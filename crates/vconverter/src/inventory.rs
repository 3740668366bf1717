//! `vconverter machines add`, `set`, `join`, `groups` and `history`: what operators say of machines.

use controller::api::{AddedMachines, GroupName, JoinedMachine, MachineView, NewMachines};
use controller::inventory::{MachineChange, NewMachine};
use controller::store::{HistoryEntry, MachineGroup};
use serde_json::json;

use crate::arguments::{AddMachines, GroupsAction, SetMachines};
use crate::client::{Client, segment};
use crate::failure::{Code, Failure, Result};
use crate::table::{Table, plain};

pub(crate) fn add(client: &Client, arguments: &AddMachines, json: bool) -> Result<()> {
    if arguments.addresses.len() > 1 && (arguments.name.is_some() || arguments.uuid.is_some()) {
        return Err(Failure::new(Code::Usage, "--name and --uuid are of one machine: add it alone"));
    }
    let machine = |address: &String| NewMachine {
        address: address.clone(),
        name: arguments.name.clone(),
        group: arguments.group.clone(),
        note: arguments.note.clone(),
        reach: arguments.reach,
        uuid: arguments.uuid.clone(),
    };
    let machines = arguments.addresses.iter().map(machine).collect();
    let added: AddedMachines = client.post("/machines", &NewMachines { machines, ..NewMachines::default() })?;
    match json {
        true => crate::print_json(&added),
        false => crate::print(&describe_added(&added)),
    }
}

/// A line for each machine that was added.
pub(crate) fn describe_added(added: &AddedMachines) -> String {
    let line = |machine: &MachineView| format!("{} {}\n", machine.id.as_deref().unwrap_or("-"), plain(&machine.name));
    added.added.iter().map(line).collect()
}

pub(crate) fn set(client: &Client, arguments: &SetMachines, json: bool) -> Result<()> {
    if arguments.machines.len() > 1 && arguments.name.is_some() {
        return Err(Failure::new(Code::Usage, "--name is of one machine: set it alone"));
    }
    let change = MachineChange {
        name: arguments.name.clone(),
        group: if arguments.no_group { Some(String::new()) } else { arguments.group.clone() },
        note: arguments.note.clone(),
        reach: arguments.reach,
    };
    let path = |machine: &String| format!("/machines/{}", segment(machine));
    let changed: Vec<MachineView> =
        arguments.machines.iter().map(|machine| client.post(&path(machine), &change)).collect::<Result<_>>()?;
    if json {
        return crate::print_json(&changed);
    }
    let line = |machine: &MachineView| {
        let group = machine.group.as_ref().map_or("in no group".to_owned(), |group| format!("in group {group}"));
        format!("{} {}, {}\n", machine.id.as_deref().unwrap_or("-"), plain(&machine.name), plain(&group))
    };
    crate::print(&changed.iter().map(line).collect::<String>())
}

pub(crate) fn join(client: &Client, added: &str, machine: &str, json: bool) -> Result<()> {
    let body = JoinedMachine { added: added.to_owned() };
    let joined: MachineView = client.post(&format!("/machines/{}/join", segment(machine)), &body)?;
    match json {
        true => crate::print_json(&joined),
        false => {
            let id = joined.id.as_deref().unwrap_or("-");
            crate::print(&format!("{} is {id} {}\n", plain(added), plain(&joined.name)))
        }
    }
}

pub(crate) fn groups(client: &Client, action: Option<GroupsAction>, json: bool) -> Result<()> {
    let path = |name: &str| format!("/groups/{}", segment(name));
    let groups: Vec<MachineGroup> = match action {
        None => client.get("/groups")?,
        Some(GroupsAction::Make { name }) => client.put(&path(&name), &json!({}))?,
        Some(GroupsAction::Rename { name, new }) => client.post(&path(&name), &GroupName { name: new })?,
        Some(GroupsAction::Delete { name }) => client.delete(&path(&name))?,
    };
    if json {
        return crate::print_json(&groups);
    }
    let mut table = Table::new(&["GROUP", "MACHINES"]);
    for group in &groups {
        table.row(vec![group.name.clone(), group.machines.to_string()]);
    }
    crate::print(&if table.is_empty() { "no groups\n".to_owned() } else { table.to_string() })
}

pub(crate) fn history(client: &Client, machine: &str, lines: u32, json: bool) -> Result<()> {
    let history = lines_of(client, machine, lines)?;
    if json {
        return crate::print_json(&history);
    }
    crate::print(&describe_history(&history))
}

/// The last lines of a machine's history, the newest first.
pub(crate) fn lines_of(client: &Client, machine: &str, lines: u32) -> Result<Vec<HistoryEntry>> {
    client.get(&format!("/machines/{}/history?limit={lines}", segment(machine)))
}

/// The oldest line first, as in a log.
pub(crate) fn describe_history(history: &[HistoryEntry]) -> String {
    let mut table = Table::new(&["TIME", "EVENT", "DETAIL"]);
    for entry in history.iter().rev() {
        table.row(vec![entry.at.to_string(), entry.event.as_str().to_owned(), entry.detail.clone()]);
    }
    if table.is_empty() { "nothing happened to it yet\n".to_owned() } else { table.to_string() }
}
