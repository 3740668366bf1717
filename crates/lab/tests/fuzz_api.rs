//! The API asked at random by its own document, beside a real machine and a real result: `tools/fuzz-api`.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

#[test]
fn no_answer_to_requests_at_random_is_a_server_error_or_one_that_the_document_does_not_know() {
    let executable = std::env::current_exe().unwrap();
    let programs = executable.ancestors().nth(2).unwrap();
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/fuzz-api");
    let output = Command::new("python3").arg(tool).arg("--programs").arg(programs).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}", output.status);
    let asked = said.lines().filter_map(|line| line.split_once(": ")?.1.split_once(" requests")?.0.parse().ok());
    assert!(
        asked.map(|count: u32| count.min(100)).sum::<u32>() == 300,
        "three roles, a hundred requests each at least"
    );
}
