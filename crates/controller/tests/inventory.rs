//! The inventory as operators keep it: machines added by their address, groups, notes, history, and the search of a range.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use controller::Controller;
use machine::{IpNet, MacAddress, Machine, Nic};
use serde_json::{Value, json};
use support::*;

fn site() -> (tempfile::TempDir, PathBuf, Controller) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let controller = start(&data, nothing());
    (folder, data, controller)
}

fn ask(data: &Path, method: &str, path: &str, body: Value) -> (u16, Value) {
    let (status, _, answer) = http(data, method, path, &body.to_string());
    println!("{method} {path}: {status}");
    (status, answer)
}

fn web(address: &str) -> Machine {
    let mut web = machine("WEB");
    web.guest.hostname = Some("web1".into());
    web.guest.product = Some("Debian GNU/Linux 12 (bookworm)".into());
    web.nics = vec![Nic {
        name: "eth0".into(),
        mac: MacAddress([0x52, 0x54, 0, 0, 0, 1]),
        addresses: vec![IpNet { address: address.parse().unwrap(), prefix_length: 24 }],
        driver: None,
        link_up: true,
    }];
    web
}

/// The lines of a machine's history, the oldest first.
fn history(data: &Path, machine: &str) -> Vec<String> {
    let lines = get(data, &format!("/machines/{machine}/history?limit=1000"));
    let line = |line: &Value| format!("{} {}", line["event"].as_str().unwrap(), line["detail"].as_str().unwrap());
    lines.as_array().unwrap().iter().rev().map(line).collect()
}

#[test]
fn a_machine_that_was_added_is_kept_with_what_is_said_of_it_and_not_converted() {
    let (folder, data, _controller) = site();
    let rows = json!([
        { "address": "192.0.2.10", "name": "web1", "group": "dmz", "note": "rack 7", "reach": "ssh" },
        { "address": "db1.example.org" },
    ]);
    let (status, looked) = ask(&data, "POST", "/machines", json!({ "machines": rows, "dry_run": true }));
    assert_eq!((status, &looked["added"], &looked["new_groups"]), (200, &json!([]), &json!(["dmz"])));
    assert_eq!(list(&data, "/machines"), json!([]));
    let (status, added) = ask(&data, "POST", "/machines", json!({ "machines": rows }));
    assert_eq!(status, 200, "{added}");
    let (web, db) = (&added["added"][0], &added["added"][1]);
    assert_eq!((&web["state"], &web["name"], &web["group"]), (&json!("no-agent"), &json!("web1"), &json!("dmz")));
    assert_eq!((&db["name"], &db["report"]), (&json!("db1.example.org"), &Value::Null));
    for text in ["192.0.2.10", "rack%207", "dmz", "WEB1"] {
        let found = list(&data, &format!("/machines?search={text}"));
        assert_eq!((found.as_array().unwrap().len(), &found[0]["id"]), (1, &web["id"]), "{text}");
    }
    let (status, again) = ask(&data, "POST", "/machines", json!({ "machines": rows }));
    assert_eq!(status, 409);
    println!("{}", again["detail"]);

    let conversion =
        json!({ "machine": "192.0.2.10", "request": { "name": "vm", "output": folder.path() }, "wait": true });
    let (status, refused) = ask(&data, "POST", "/tasks", conversion.clone());
    println!("{}", refused["detail"]);
    assert_eq!(status, 409);
    assert!(refused["detail"].as_str().unwrap().contains("has no agent: start it from the boot image"), "{refused}");
    let (_, looked) = ask(&data, "POST", "/preflight", json!({ "conversions": [conversion] }));
    assert_eq!(
        (&looked[0]["findings"][0]["rule"], &looked[0]["findings"][0]["severity"]),
        (&json!("agent"), &json!("blocker"))
    );

    let change = json!({ "name": "the shop", "note": "two\nlines" });
    let (status, changed) = ask(&data, "POST", "/machines/web1", change);
    assert_eq!((status, &changed["name"], &changed["group"]), (200, &json!("the shop"), &json!("dmz")));
    assert_eq!(ask(&data, "POST", "/machines/192%2E0%2E2%2E10", json!({ "group": "nowhere" })).0, 404);
    assert_eq!(ask(&data, "POST", "/machines/web1", json!({ "note": "x" })).0, 404, "it has another name now");
    assert_eq!(ask(&data, "POST", "/groups/dmz", json!({ "name": "edge" })).1[0]["name"], "edge");
    assert_eq!(ask(&data, "DELETE", "/groups/edge", Value::Null), (200, json!([])));
    let id = web["id"].as_str().unwrap();
    assert_eq!(get(&data, &format!("/machines/{id}"))["group"], Value::Null, "its machine stays");
    assert_eq!(history(&data, id), ["added at 192.0.2.10 (by uid 0)", "edited name: the shop, note (by uid 0)"]);
    assert_eq!(ask(&data, "DELETE", &format!("/machines/{id}"), Value::Null).0, 200);
    assert_eq!(ask(&data, "GET", &format!("/machines/{id}"), Value::Null).0, 404);
}

#[test]
fn an_agent_takes_the_place_of_the_machine_that_was_added_and_its_coming_and_going_is_told() {
    let (_folder, data, controller) = site();
    let rows = json!([{ "address": "192.0.2.10", "name": "web1", "group": "dmz", "note": "rack 7" }, { "address": "192.0.2.99" }]);
    let (_, added) = ask(&data, "POST", "/machines", json!({ "machines": rows }));
    let agent = Agent::new(controller.status());
    let (connection, id) = agent.enrol(&data, &web("192.0.2.10"));
    let known = get(&data, &format!("/machines/{id}"));
    assert_eq!((&known["group"], &known["note"]), (&json!("dmz"), &json!("rack 7")));
    assert_eq!(list(&data, "/machines").as_array().unwrap().len(), 2, "the two are one");

    let other = added["added"][1]["id"].as_str().unwrap();
    drop(connection);
    eventually("it left", || history(&data, &id).last().unwrap() == "left ");
    // It is back at once, with another address: that of the other one, which is a sign and no proof.
    let connection = agent.hello().unwrap();
    assert_eq!(receive(&connection), protocol::message::ControllerMessage::Approved);
    report(&connection, &web("192.0.2.99"));
    eventually("it reported", || history(&data, &id).last().unwrap().starts_with("changed "));
    let told = history(&data, &id);
    println!("{told:#?}");
    assert_eq!(told[0], "added at 192.0.2.10 (by uid 0)");
    assert!(told[1].starts_with("approved key ") && told[1].ends_with("… by uid 0"), "{}", told[1]);
    assert_eq!(told[2], "connected in the boot image, started by pxe");
    assert!(
        told[3].ends_with("(192.0.2.10) is this machine: the same address and host name (by controller)"),
        "{}",
        told[3]
    );
    assert_eq!(told[4..], ["changed address of eth0 52:54:00:00:00:01: 192.0.2.10/24 → 192.0.2.99/24"]);

    let candidates = get(&data, &format!("/machines/{id}/candidates"));
    assert_eq!(candidates, json!([{ "machine": other, "signs": ["address"] }]));
    let (status, joined) = ask(&data, "POST", &format!("/machines/{id}/join"), json!({ "added": other }));
    assert_eq!((status, &joined["given_address"]), (200, &json!("192.0.2.99")), "{joined}");
    assert_eq!(list(&data, "/machines").as_array().unwrap().len(), 1);
    let (status, again) = ask(&data, "POST", &format!("/machines/{id}/join"), json!({ "added": id }));
    assert_eq!(status, 409, "{again}");
}

/// Servers on one port of two addresses of the loopback network.
fn servers(own: u8) -> (TcpListener, TcpListener, u16) {
    for _ in 0..100 {
        let first = TcpListener::bind((Ipv4Addr::new(127, 0, own, 17), 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = TcpListener::bind((Ipv4Addr::new(127, 0, own, 18), port)) {
            return (first, second, port);
        }
    }
    panic!("no port is free on two addresses");
}

#[test]
fn a_range_is_searched_and_what_it_found_is_added() {
    let (_folder, data, _controller) = site();
    let (ssh, silent, port) = servers(71);
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = ssh.accept() {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\x1b[2J\r\n");
        }
    });
    let mut events = events(&data);
    assert_eq!(events.next().unwrap().0, "resync");
    assert_eq!(get(&data, "/search"), Value::Null);
    let search = json!({ "range": "127.0.71.16/28", "ports": [port], "rate": 1000 });
    let (status, begun) = ask(&data, "POST", "/search", search);
    assert_eq!((status, &begun["total"], &begun["addresses"]), (201, &json!(14), &json!(14)), "{begun}");
    let (_, told) = events.find(|(event, told)| event == "search" && told["state"] == "done").unwrap();
    println!("{told}");
    assert_eq!((&told["done"], &told["found"], &told["actor"]), (&json!(14), &json!(2), &json!("uid 0")));
    let found = list(&data, "/search/hosts");
    println!("{found}");
    assert_eq!(found[0]["address"], "127.0.71.17");
    assert_eq!((&found[0]["ssh"], &found[0]["reach"]), (&json!("SSH-2.0-OpenSSH_9.2?[2J"), &json!("ssh")));
    assert_eq!(
        (&found[1]["ports"], &found[1]["ssh"], &found[1]["reach"]),
        (&json!([port]), &Value::Null, &json!("unknown"))
    );
    drop(silent);
    let page = get(&data, "/search/hosts?limit=1");
    let next = get(&data, &format!("/search/hosts?limit=1&after={}", page["next"].as_str().unwrap()));
    assert_eq!((&next["items"][0], &next["next"]), (&found[1], &Value::Null));
    let new = json!({ "machines": [{ "address": found[0]["address"], "reach": found[0]["reach"] }] });
    assert_eq!(ask(&data, "POST", "/machines", new).1["added"][0]["reach"], "ssh");

    let slow = json!({ "range": "127.0.72.0/24", "ports": [port], "rate": 1 });
    assert_eq!(ask(&data, "POST", "/search", slow.clone()).0, 201);
    assert_eq!(ask(&data, "POST", "/search", slow).0, 409);
    let (status, ended) = ask(&data, "DELETE", "/search", Value::Null);
    assert_eq!((status, &ended["state"]), (200, &json!("cancelled")));
    assert_eq!(ask(&data, "DELETE", "/search", Value::Null).0, 409);
    assert_eq!(ask(&data, "POST", "/search", json!({ "range": "10.0.0.0/8" })).0, 422);
    let audit = get(&data, "/audit?limit=5");
    let actions: Vec<&str> = audit.as_array().unwrap().iter().map(|line| line["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["search cancelled", "search started", "machine added", "search ended", "search started"]);
}
