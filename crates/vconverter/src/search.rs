//! `vconverter machines search`: the search of a range of addresses, which the controller does.

use std::net::IpAddr;
use std::time::Duration;

use controller::api::{AddedMachines, NewMachines};
use controller::inventory::{NEW_MACHINES_MAX, NewMachine};
use controller::search::{FoundHost, NewSearch, SearchState, SearchView};
use serde_json::json;

use crate::arguments::Search;
use crate::client::Client;
use crate::failure::{Code, Failure, Result};
use crate::progress_line::{ProgressLine, duration};
use crate::table::{Table, plain};

const POLL_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) fn search(client: &Client, arguments: &Search, json: bool) -> Result<()> {
    if arguments.cancel {
        let view: SearchView = client.delete("/search")?;
        return match json {
            true => crate::print_json(&json!({ "search": view })),
            false => crate::print(&format!("{}\n", describe(&view))),
        };
    }
    let view = match &arguments.range {
        Some(range) => {
            let new = NewSearch { range: range.clone(), ports: arguments.ports.clone(), rate: Some(arguments.rate) };
            let begun: SearchView = client.post("/search", &new)?;
            if arguments.detach {
                return match json {
                    true => crate::print_json(&json!({ "search": begun })),
                    false => crate::print(&format!("{}; see vconverter machines search\n", describe(&begun))),
                };
            }
            follow(client, begun, json)?
        }
        None => last(client)?,
    };
    let hosts: Vec<FoundHost> = client.list("/search/hosts")?;
    if !json {
        crate::print(&format!("{}\n{}", describe(&view), table(&hosts)))?;
    }
    let chosen = chosen(&hosts, &arguments.add)?;
    let mut added: Vec<AddedMachines> = Vec::new();
    for some in chosen.chunks(NEW_MACHINES_MAX) {
        let machines = some.iter().map(|host| new_machine(host, arguments.group.as_deref())).collect();
        added.push(client.post("/machines", &NewMachines { machines, skip_known: true, dry_run: false })?);
    }
    if json {
        let known: usize = added.iter().map(|some| some.known.len()).sum();
        let machines: Vec<_> = added.into_iter().flat_map(|some| some.added).collect();
        return crate::print_json(&json!({ "search": view, "hosts": hosts, "added": machines, "known": known }));
    }
    for some in &added {
        for known in &some.known {
            crate::print(&format!("{} is that of {}: left out\n", plain(&known.by), plain(&known.machine)))?;
        }
        crate::print(&crate::inventory::describe_added(some))?;
    }
    Ok(())
}

fn last(client: &Client) -> Result<SearchView> {
    let view: Option<SearchView> = client.get("/search")?;
    let nothing = "nothing was searched since the controller was started: vconverter machines search 192.0.2.0/24";
    view.ok_or_else(|| Failure::new(Code::NotFound, nothing))
}

/// Shows how far a search is until its end.
fn follow(client: &Client, begun: SearchView, json: bool) -> Result<SearchView> {
    let mut line = ProgressLine::new();
    let mut view = begun;
    while view.state == SearchState::Running {
        if !json {
            line.show(&describe(&view));
        }
        std::thread::sleep(POLL_INTERVAL);
        view = last(client)?;
    }
    Ok(view)
}

fn describe(view: &SearchView) -> String {
    let ports: Vec<String> = view.ports.iter().map(u16::to_string).collect();
    let state = match view.state {
        SearchState::Running => {
            let percent = u64::from(view.done) * 100 / u64::from(view.total.max(1));
            let left = view.seconds_left.map(|seconds| format!(", {} left", duration(seconds))).unwrap_or_default();
            let rate = view.connects_per_second.map(|rate| format!(", {rate}/s")).unwrap_or_default();
            format!("{percent} %, {} of {} connects{rate}{left}", view.done, view.total)
        }
        SearchState::Done => "done".into(),
        SearchState::Cancelled => format!("cancelled after {} of {} connects", view.done, view.total),
    };
    let mut text = format!("{} ports {}: {state}, {} addresses answer", view.range, ports.join(","), view.found);
    if view.not_kept > 0 {
        text.push_str(&format!(", of which {} are too many to be kept: search it in parts", view.not_kept));
    }
    if view.unreachable > 0 {
        text.push_str(&format!(", {} connects could not be tried (no route?)", view.unreachable));
    }
    plain(&text)
}

fn table(hosts: &[FoundHost]) -> String {
    let mut table = Table::new(&["ADDRESS", "REACHED BY", "OPEN PORTS", "SSH SERVER"]);
    for host in hosts {
        let ports: Vec<String> = host.ports.iter().map(u16::to_string).collect();
        let ssh = host.ssh.clone().unwrap_or_default();
        table.row(vec![host.address.to_string(), host.reach.to_string(), ports.join(","), ssh]);
    }
    if table.is_empty() { String::new() } else { format!("\n{table}") }
}

/// What is to be added of what was found.
fn chosen<'a>(hosts: &'a [FoundHost], wanted: &[String]) -> Result<Vec<&'a FoundHost>> {
    if wanted.iter().any(|one| one == "all") {
        return Ok(hosts.iter().collect());
    }
    let find = |wanted: &String| {
        let address: Option<IpAddr> = wanted.trim().parse().ok();
        let found = address.and_then(|address| hosts.iter().find(|host| host.address == address));
        found.ok_or_else(|| {
            Failure::new(Code::NotFound, format!("{wanted} is not among what was found; nothing was added"))
        })
    };
    wanted.iter().map(find).collect()
}

fn new_machine(host: &FoundHost, group: Option<&str>) -> NewMachine {
    let ports: Vec<String> = host.ports.iter().map(u16::to_string).collect();
    let ssh = host.ssh.as_ref().map(|ssh| format!(", {ssh}")).unwrap_or_default();
    NewMachine {
        address: host.address.to_string(),
        group: group.map(str::to_owned),
        note: Some(format!("found with open ports {}{ssh}", ports.join(", "))),
        reach: host.reach,
        ..NewMachine::default()
    }
}
