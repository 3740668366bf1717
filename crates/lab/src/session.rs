//! A login on a machine's serial console: commands in, their output and status out.

use std::time::Duration;

use qemu::{Serial, SerialReader};

use crate::{Error, Result};

/// Generous: a loaded machine under translation takes minutes to its login prompt.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(300);

/// A shell of root.
#[derive(Debug)]
pub struct Session<'a> {
    serial: &'a Serial,
    reader: SerialReader,
    commands: u32,
}

/// What a command gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Exit status.
    pub status: i32,
    /// Standard output and standard error, with plain line ends.
    pub output: String,
}

impl<'a> Session<'a> {
    /// Waits up to `timeout` for `HOSTNAME login:` on the port and logs in as root.
    pub fn login(serial: &'a Serial, hostname: &str, password: &str, timeout: Duration) -> Result<Self> {
        Self::login_after(serial, serial.reader(), hostname, password, timeout)
    }

    /// The same with the first prompt behind what `reader` has read.
    pub fn login_after(
        serial: &'a Serial,
        mut reader: SerialReader,
        hostname: &str,
        password: &str,
        timeout: Duration,
    ) -> Result<Self> {
        reader.wait_for(&format!("{hostname} login: "), timeout)?;
        serial.write("root\n")?;
        reader.wait_for("Password: ", LOGIN_TIMEOUT)?;
        serial.write(&format!("{password}\n"))?;
        reader.wait_for("# ", LOGIN_TIMEOUT)?;
        // A shell that neither edits lines nor prompts, on a terminal that neither echoes nor sends control sequences.
        serial.write("exec env TERM=dumb PS1= sh\n")?;
        serial.write("stty -echo -onlcr; dmesg -n 1; echo READY\"\"-TO-WORK\n")?;
        reader.wait_for("READY-TO-WORK", LOGIN_TIMEOUT)?;
        Ok(Self { serial, reader, commands: 0 })
    }

    /// Runs a command line and waits up to `timeout` for its end.
    pub fn run(&mut self, command: &str, timeout: Duration) -> Result<Answer> {
        self.commands += 1;
        let number = self.commands;
        // Quotes inside the marks keep them from being found in an echo of the command.
        self.serial.write(&format!("echo BEGIN\"\"-{number}-; {{ {command}\n}} 2>&1; echo \"END\"-{number}-$?-\n"))?;
        self.reader.wait_for(&format!("BEGIN-{number}-"), timeout)?;
        self.reader.wait_for("\n", timeout)?;
        let output = self.reader.wait_for(&format!("END-{number}-"), timeout)?;
        let status = self.reader.wait_for("-", timeout)?;
        let status = status
            .trim_end_matches('-')
            .parse()
            .map_err(|_| Error::new(format!("serial session: expected an exit status, found {status:?}")))?;
        let output = output.trim_end_matches(&format!("END-{number}-")).replace('\r', "");
        Ok(Answer { status, output })
    }

    /// The output of a command that has to succeed.
    pub fn output(&mut self, command: &str, timeout: Duration) -> Result<String> {
        let answer = self.run(command, timeout)?;
        if answer.status == 0 {
            Ok(answer.output)
        } else {
            Err(Error::new(format!("{command}: exit status {}: {}", answer.status, answer.output.trim())))
        }
    }
}
