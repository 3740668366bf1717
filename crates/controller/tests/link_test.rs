//! How long a copy takes, from a test of the machine's link: the agent is made of `protocol`, and sends frames on a real
//! connection at a rate that the test chose.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::time::Duration;

use machine::{ByteCount, ByteOffset, Volume};
use protocol::Connection;
use protocol::frame::{Codec, Header, Kind};
use protocol::message::{AgentMessage, ControllerMessage, ServeDisk, StreamMode};
use serde_json::{Value, json};
use support::*;

const FRAME: u64 = 1 << 20;

fn next_stream(connection: &Connection) -> ServeDisk {
    loop {
        if let ControllerMessage::ServeDisk(asked) = receive(connection) {
            return asked;
        }
    }
}

/// Sends `frames` of content, with a pause before each.
fn send_disk(agent: &Agent, asked: &ServeDisk, frames: u64, pause: Duration) {
    let connection = agent.open_stream(asked.stream).unwrap();
    let content = vec![7; usize::try_from(FRAME).unwrap()];
    let mut covered = 0;
    for number in 0..frames {
        std::thread::sleep(pause);
        let header = Header::data(ByteOffset(number * FRAME), &content, Codec::Stored, content.len());
        // The controller may have had enough.
        if (&connection).write_all(&header.to_bytes()).and_then(|()| (&connection).write_all(&content)).is_err() {
            return;
        }
        covered += FRAME;
    }
    let end = Header::bare(Kind::End, ByteOffset(asked.disk.size.0), ByteCount(covered));
    let _ = (&connection).write_all(&end.to_bytes());
    let _ = (&connection).flush();
    std::thread::sleep(Duration::from_secs(1));
}

#[test]
fn a_copys_time_is_told_from_what_is_in_use_and_how_fast_it_came() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let controller = start(&data, nothing());
    let agent = Agent::new(controller.status());
    let mut source = machine("B5BRN12");
    source.disks[0].layout.volumes = vec![Volume {
        offset: ByteOffset(1 << 20),
        size: ByteCount::mib(1000),
        kind: "ext4".into(),
        used_bytes: ByteCount::mib(900),
        ..Volume::default()
    }];
    let (connection, id) = agent.enrol(&data, &source);
    let request = json!({ "conversions": [{
        "machine": id,
        "request": { "name": "web1", "output": folder.path() },
    }] });
    let forecast = |request: &Value| {
        let (status, _, answer) = http(&data, "POST", "/preflight", &request.to_string());
        assert_eq!(status, 200, "{answer}");
        answer[0].clone()
    };
    assert_eq!(forecast(&request)["forecast"], Value::Null, "nothing is told that was not measured");

    let test = {
        let (data, path) = (data.clone(), format!("/machines/{id}/link-test"));
        std::thread::spawn(move || http(&data, "POST", &path, ""))
    };
    let asked = next_stream(&connection);
    println!("{} samples of {:?}", asked.scope.within.len(), asked.disk.identity.serial);
    assert!(asked.task == "link test" && asked.scope.within.len() > 30);
    assert!(matches!(asked.mode, StreamMode::Data { resume: ByteOffset(0), .. }));
    send_disk(&agent, &asked, 40, Duration::from_millis(25));
    let (status, _, tested) = test.join().unwrap();
    println!("{status}: {tested}");
    assert_eq!((status, &tested["bytes"]), (200, &json!(40 * FRAME)));
    let rate = tested["bytes_per_second"].as_u64().unwrap();
    assert!(rate < 41 << 20, "a second of pauses: {rate}");

    let told = forecast(&request);
    println!("{}", told["forecast"]);
    assert_eq!(told["forecast"]["copy_seconds"], json!((900u64 << 20).div_ceil(rate)));
    // A limit of a tenth of it.
    let mut limited = request.clone();
    limited["conversions"][0]["request"]["bytes_per_second"] = json!(rate / 10);
    let slower = forecast(&limited)["forecast"]["copy_seconds"].as_u64().unwrap();
    assert!((9..=11).contains(&(slower / (900u64 << 20).div_ceil(rate))), "{slower}");
    // One that cannot be over in time is told before it is scheduled.
    limited["conversions"][0]["request"]["bytes_per_second"] = json!(1000);
    limited["conversions"][0]["request"]["back_by"] = json!("06:00 UTC");
    let findings = forecast(&limited)["findings"].clone();
    let warned = findings.as_array().unwrap().iter().find(|finding| finding["rule"] == "back-by").unwrap();
    println!("{}: {}", warned["found"], warned["remedy"]);
    assert!(warned["found"].as_str().unwrap().contains("must be back by"));

    // What was measured is of this link: not of the next.
    drop(connection);
    eventually("the machine is gone", || get(&data, &format!("/machines/{id}"))["state"] == "offline");
    assert_eq!(http(&data, "POST", &format!("/machines/{id}/link-test"), "").0, 409);
    assert_eq!(forecast(&request)["forecast"], Value::Null);
    controller.stop();
}

#[test]
fn an_agent_that_cannot_read_its_disk_is_told_and_nothing_is_forecast() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let controller = start(&data, nothing());
    let (connection, id) = Agent::new(controller.status()).enrol(&data, &machine("B5BRN12"));
    let test = {
        let (data, path) = (data.clone(), format!("/machines/{id}/link-test"));
        std::thread::spawn(move || http(&data, "POST", &path, ""))
    };
    for _ in 0..3 {
        let stream = next_stream(&connection).stream;
        send(&connection, &AgentMessage::StreamFailed { stream, reason: "medium error".into() });
    }
    let (status, _, problem) = test.join().unwrap();
    println!("{status}: {}", problem["detail"]);
    assert!(status == 409 && problem["detail"].as_str().unwrap().contains("medium error"), "{status} {problem}");
    controller.stop();
}
