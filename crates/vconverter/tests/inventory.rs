//! Machines from a table, from a search, and by hand, on the command line.
#![allow(clippy::unwrap_used)]

mod program;
#[path = "../../controller/tests/support/mod.rs"]
mod support;

use std::io::Write;
use std::net::TcpListener;

use program::told;
use serde_json::Value;
use support::{nothing, start};

#[test]
fn a_table_is_checked_and_added_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let _controller = start(&data, nothing());
    let file = folder.path().join("inventory.csv");
    let table = file.to_str().unwrap();
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let count = || {
        let (_, out, _) = told(&data, &["machines", "--json"]);
        serde_json::from_str::<Vec<Value>>(&out).unwrap().len()
    };

    write("address,name,reach\n192.0.2.10,web1,ssh\n192.0.2.300,web2,ssh\n192.0.2.12,web1,telnet\n");
    let (code, _, error) = told(&data, &["machines", "import", table]);
    assert_eq!(code, 2);
    for told in ["line 3, column 1 (address): expected a host name", "line 4, column 3 (reach): expected ssh"] {
        assert!(error.contains(told), "{told}");
    }
    write("address,name,group,note,reach\n192.0.2.10,web1,dmz,rack 7,ssh\n192.0.2.11,web2,,\"two\nlines\",\n");
    let (code, out, _) = told(&data, &["machines", "import", table, "--dry-run", "--group", "office"]);
    assert_eq!((code, out.as_str()), (0, "2 machines can be added, in new groups dmz, office; nothing was added\n"));
    assert_eq!(count(), 0);
    let (code, out, _) = told(&data, &["machines", "import", table, "--group", "office"]);
    assert_eq!((code, out.lines().count()), (0, 2));
    let id = out.split(' ').next().unwrap().to_owned();

    write("address\n192.0.2.99\n192.0.2.10\n");
    let (code, _, error) = told(&data, &["machines", "import", table]);
    assert_eq!(code, 4);
    assert!(error.contains(&format!("line 3: address 192.0.2.10 is that of {id}; nothing was added")), "{error}");
    assert_eq!(count(), 2);
    let (code, _, error) = told(&data, &["machines", "import", table, "--skip-known"]);
    assert!(code == 0 && error.starts_with("left out: line 3: "), "{error}");
    assert_eq!(count(), 3);

    let (code, out, _) = told(&data, &["machines", "show", "web2"]);
    assert_eq!(code, 0);
    for told in
        ["state       no agent", "group       office", "note\n  two\n  lines\n", "added  at 192.0.2.11 (by uid "]
    {
        assert!(out.contains(told), "{told:?}");
    }
    let (code, out, _) = told(&data, &["machines", "set", "web1", "web2", "--group", "DMZ", "--note", "moved"]);
    assert_eq!((code, out.matches("in group dmz").count()), (0, 2));
    let (_, out, _) = told(&data, &["machines", "history", "web1"]);
    assert!(out.contains("edited  note"), "{out}");
    assert_eq!(told(&data, &["machines", "groups", "rename", "dmz", "edge"]).0, 0);
    let (_, out, _) = told(&data, &["machines", "groups", "delete", "office"]);
    assert_eq!(out, "GROUP  MACHINES\nedge   2\n");
    assert_eq!(told(&data, &["machines", "join", "web1", "web2"]).0, 4, "neither has an agent");
    let output = folder.path().to_str().unwrap();
    let (code, _, error) = told(&data, &["convert", "web1", "--output", output, "--wait"]);
    assert!(code == 4 && error.contains("web1 has no agent: start it from the boot image"), "{error}");
}

#[test]
fn a_range_is_searched_shown_and_added_from() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let _controller = start(&data, nothing());
    let server = TcpListener::bind("127.0.81.4:0").unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = server.accept() {
            let _ = stream.write_all(b"SSH-2.0-test\r\n");
        }
    });
    let (code, _, error) = told(&data, &["machines", "search"]);
    assert!(code == 3 && error.contains("nothing was searched"), "{error}");
    let (code, out, _) = told(&data, &["machines", "search", "127.0.81.1-6", "--ports", &port, "--rate", "500/s"]);
    assert_eq!(code, 0);
    assert!(out.starts_with(&format!("127.0.81.1-127.0.81.6 ports {port}: done, 1 addresses answer\n")), "{out}");
    assert!(out.contains(&format!("127.0.81.4  ssh         {port}")) && out.contains("SSH-2.0-test"), "{out}");
    assert_eq!(told(&data, &["machines", "search", "--add", "127.0.81.5"]).0, 3);
    let (code, out, _) = told(&data, &["machines", "search", "--add", "all", "--group", "found", "--json"]);
    assert_eq!(code, 0);
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&found["added"][0]["group"], &found["added"][0]["reach"]), (&"found".into(), &"ssh".into()));
    let (code, out, _) = told(&data, &["machines", "search", "--add", "127.0.81.4"]);
    assert!(code == 0 && out.contains("address 127.0.81.4 is that of m-"), "{out}");
    assert_eq!(told(&data, &["machines", "search", "10.0.0.0/8"]).0, 2);
    let slow = ["machines", "search", "127.0.82.0/24", "--ports", &port, "--rate", "1/s", "--detach"];
    assert_eq!(told(&data, &slow).0, 0);
    let (code, out, _) = told(&data, &["machines", "search", "--cancel"]);
    assert!(code == 0 && out.contains("cancelled after"), "{out}");
    assert_eq!(told(&data, &["machines", "search", "--cancel"]).0, 4);
}
