//! What Prometheus reads of a controller that works.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use conversion::{Cancel, Observer, Source, StreamMode, StreamRequest};
use machine::ByteOffset;
use protocol::message::ControllerMessage;
use serde_json::{Value, json};
use support::*;

/// Samples by name and labels; each line is one of the text format's.
fn scrape(data: &Path) -> BTreeMap<String, f64> {
    let mut stream = UnixStream::connect(data.join("controller.sock")).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let mut samples = BTreeMap::new();
    let mut typed = "";
    for line in body.lines() {
        if let Some(about) = line.strip_prefix("# TYPE ") {
            typed = about.split(' ').next().unwrap();
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(!typed.is_empty() && name.starts_with(typed), "{line} below the type of {typed}");
            assert!(samples.insert(name.to_owned(), value.parse().unwrap()).is_none(), "twice: {line}");
        }
    }
    samples
}

#[test]
fn tasks_sessions_streams_and_requests_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // Opens a stream, reads what the agent sends, and ends when the agent does.
    let read_all = Fake(|source: Source, _: &dyn Observer, cancel: &Cancel| {
        let Source::Remote(machine) = source else { panic!("a machine") };
        let mode = StreamMode::Data { skip_unreadable: false };
        let mut stream = machine.open_stream(&StreamRequest::whole(0, mode, ByteOffset(0)), cancel)?;
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink);
        Ok(json!({ "read": sink.len() }))
    });
    let controller = start(&data, Arc::new(read_all));
    let agent = Agent::new(controller.status());
    let (connection, id) = agent.enrol(&data, &machine("B5BRN12"));
    let first = scrape(&data);
    assert_eq!(first[&format!("vconverter_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))], 1.0);
    assert_eq!((first["vconverter_machines"], first["vconverter_agent_sessions{phase=\"ready\"}"]), (1.0, 1.0));
    assert_eq!((first["vconverter_tasks{state=\"running\"}"], first["vconverter_received_bytes_total"]), (0.0, 0.0));
    assert!(first["process_resident_memory_bytes"] > 1e6 && first["vconverter_store_seconds_count"] > 1.0);

    let request = json!({ "machine": id, "request": { "name": "web1", "output": folder.path() } });
    let (status, _, task) = http(&data, "POST", "/tasks", &request.to_string());
    assert_eq!(status, 201, "{task}");
    let ControllerMessage::ServeDisk(serve) = receive(&connection) else { panic!("no disk was asked for") };
    let stream = agent.open_stream(serve.stream).unwrap();
    (&stream).write_all(&[7; 5000]).unwrap();
    eventually("the stream is counted", || {
        let now = scrape(&data);
        now["vconverter_streams"] == 1.0
            && now["vconverter_tasks{state=\"running\"}"] == 1.0
            && now["vconverter_received_bytes_total"] >= 5000.0
    });
    stream.finish();
    stream.abort();
    eventually("the task is done", || scrape(&data)["vconverter_tasks{state=\"done\"}"] == 1.0);
    for _ in 0..3 {
        let (status, _, _): (u16, String, Value) = http(&data, "GET", "/tasks/t-00000000", "");
        assert_eq!(status, 404);
    }
    http(&data, "BREW", "/no/such/route", "");
    let last = scrape(&data);
    assert_eq!(last["vconverter_streams"], 0.0);
    let of = |method: &str, route: &str, status: u16| {
        let labels = format!("method=\"{method}\",route=\"{route}\",status=\"{status}\"");
        last.get(&format!("vconverter_api_requests_total{{{labels}}}")).copied().unwrap_or_default()
    };
    assert_eq!((of("GET", "/api/v1/tasks/{id}", 404), of("POST", "/api/v1/tasks", 201)), (3.0, 1.0), "{last:#?}");
    assert_eq!(of("any", "none", 404), 1.0, "{last:#?}");
    assert!(of("GET", "/metrics", 200) >= 3.0);
}
