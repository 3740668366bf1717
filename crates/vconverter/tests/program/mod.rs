//! The program, as an operator starts it.
#![allow(dead_code)] // each test program uses its own part

use std::path::Path;
use std::process::{Command, Stdio};

/// `vconverter` with a data directory, and nothing on its standard input.
pub(crate) fn vconverter(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vconverter"));
    command.args(arguments).env("VCONVERTER_DATA", data).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs it and shows what was typed and said: exit code, and both outputs.
pub(crate) fn told(data: &Path, arguments: &[&str]) -> (i32, String, String) {
    println!("$ vconverter {}", arguments.join(" "));
    let output = vconverter(data, arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, error) = (text(output.stdout), text(output.stderr));
    println!("{out}{error}");
    (output.status.code().unwrap(), out, error)
}
