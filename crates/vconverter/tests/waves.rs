//! A hundred and twenty machines, from a table to their schedule.
#![allow(clippy::unwrap_used)]

mod program;
#[path = "../../controller/tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use support::{Agent, machine, nothing, start};

const MACHINES: usize = 120;

fn vconverter(data: &Path, arguments: &[&str]) -> Output {
    println!("$ vconverter {}", arguments.join(" "));
    program::vconverter(data, arguments).output().unwrap()
}

#[test]
fn a_hundred_and_twenty_machines_go_from_a_table_to_their_schedule_in_five_commands() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let controller = start(&data, nothing());
    let enrol = |number: usize| {
        let mut machine = machine(&format!("S{number:03}"));
        machine.guest.hostname = Some(format!("web{number:03}"));
        Agent::new(controller.status()).enrol(&data, &machine)
    };
    let _connections: Vec<_> = (0..MACHINES).map(enrol).collect();
    let rows: String =
        (0..MACHINES).map(|number| format!("web{number:03},{}\n", if number % 2 == 0 { "yes" } else { "" })).collect();
    let table = folder.path().join("wave1.csv");
    std::fs::write(&table, format!("machine,verify\n{rows}")).unwrap();
    let (table, output) = (table.to_str().unwrap(), folder.path().to_str().unwrap());

    let window = "Sat 22:00-06:00 Europe/Berlin";
    let listed = vconverter(&data, &["machines", "--json"]);
    let listed: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed.len(), MACHINES);
    assert!(vconverter(&data, &["profiles", "set", "wave1", "-o", output, "--window", window]).status.success());
    let dry = ["convert", "--from", table, "--profile", "wave1", "--wait", "--dry-run", "--json"];
    let report = vconverter(&data, &dry);
    assert!(report.status.success(), "{}", String::from_utf8_lossy(&report.stderr));
    let report: Vec<Value> = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report.len(), MACHINES);
    assert_eq!(vconverter(&data, &["tasks"]).stdout, b"no tasks\n", "nothing was asked for");
    let asked = vconverter(&data, &["convert", "--from", table, "--profile", "wave1", "--wait"]);
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));

    let tasks = vconverter(&data, &["tasks", "--json"]);
    let tasks: Vec<Value> = serde_json::from_slice(&tasks.stdout).unwrap();
    assert_eq!(tasks.len(), MACHINES);
    assert!(tasks.iter().all(|task| task["schedule"]["windows"][0] == window), "{}", tasks[0]);
    assert_eq!(tasks.iter().filter(|task| task["request"]["verify"] == true).count(), MACHINES / 2);
    println!("{} tasks, the first: {} is {}", tasks.len(), tasks[0]["name"], tasks[0]["state"]);

    let again = vconverter(&data, &["convert", "--from", table, "--profile", "wave1", "--wait"]);
    let told = String::from_utf8(again.stderr).unwrap();
    assert_eq!(again.status.code(), Some(4), "{told}");
    assert!(told.contains("120 of 120 machines cannot be converted like this"), "{told}");
}
