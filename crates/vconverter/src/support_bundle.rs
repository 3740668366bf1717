//! `vconverter support-bundle`: what the command line knows of the machine goes to what the controller gathers.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use controller::DataDirectory;
use controller::api::Status;
use controller::support::{Part, write_bundle};
use machine::ByteCount;

use crate::arguments::SupportBundle;
use crate::client::Client;
use crate::failure::Result;
use crate::place::Place;
use crate::settings::{Settings, shown};

/// Programs whose versions matter, with what makes them tell.
const PROGRAMS: [(&str, &[&str]); 7] = [
    ("qemu-system-x86_64", &["--version"]),
    ("qemu-img", &["--version"]),
    ("xorriso", &["-version"]),
    ("dpkg-query", &["-W", "ovmf", "seabios", "shim-signed", "grub-efi-amd64-signed", "linux-image-amd64", "ipxe"]),
    ("systemctl", &["status", "--no-pager", "--lines=0", "vconverter.service"]),
    ("ip", &["-brief", "address"]),
    ("timedatectl", &["show"]),
];
/// Files that tell about the machine.
const FILES: [&str; 5] = ["/etc/os-release", "/proc/version", "/proc/meminfo", "/proc/loadavg", "/proc/uptime"];
/// A program that takes longer is left alone.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(20);
const OUTPUT_BYTES_MAX: u64 = 8 << 20;

pub(crate) fn write(
    arguments: &SupportBundle,
    settings: &Settings,
    directory: &DataDirectory,
    json: bool,
) -> Result<()> {
    let part = |name: &str, text: String| Part { name: name.into(), text };
    let status = Client::new(&Place::socket(directory))?.get::<Status>("/status");
    let status = match &status {
        Ok(status) => serde_json::to_string_pretty(status).unwrap_or_default(),
        Err(failure) => failure.message.clone(),
    };
    let log =
        ["-u", "vconverter.service", "-u", "vconverter-pxe.service", "--no-pager", "-n", "5000", "-o", "short-iso"];
    let parts = vec![
        part("versions.txt", format!("vconverter {}\n{}", env!("CARGO_PKG_VERSION"), files())),
        part("settings.toml", shown(settings)),
        part("controller.txt", status),
        part("programs.txt", PROGRAMS.iter().map(|(name, options)| said(name, options)).collect()),
        part("journal.txt", said("journalctl", &log)),
    ];
    let made = write_bundle(directory, &arguments.file, parts, arguments.force)?;
    if json {
        return crate::print_json(&made);
    }
    let missing: String = made.missing.iter().map(|why| format!("not in it: {why}\n")).collect();
    let (shown, size, parts) = (made.file.display(), ByteCount(made.size), made.parts.len());
    crate::print(&format!("{shown}: {size}, {parts} parts; look through it before you send it\n{missing}"))
}

fn files() -> String {
    let read = |path: &str| match std::fs::read_to_string(path) {
        Ok(text) => format!("\n# {path}\n{text}"),
        Err(error) => format!("\n# {path}: {error}\n"),
    };
    FILES.into_iter().map(read).collect()
}

/// What a program says, with its name; or why it says nothing.
fn said(program: &str, options: &[&str]) -> String {
    let heading = format!("# {program} {}\n", options.join(" "));
    let output = match run(program, options) {
        Ok(output) => output,
        Err(error) => format!("{error}\n"),
    };
    format!("{heading}{output}\n")
}

fn run(program: &str, options: &[&str]) -> std::io::Result<String> {
    let mut command = Command::new(program);
    command.args(options).env("LC_ALL", "C.UTF-8").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // Read by threads, as a full pipe would hold the program up.
    let (output, complaints) = (child.stdout.take(), child.stderr.take());
    let readers = [reader(output), reader(complaints)];
    let deadline = Instant::now() + PROGRAM_TIMEOUT;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(std::io::Error::other(format!("it takes longer than {} s", PROGRAM_TIMEOUT.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let texts: Vec<String> = readers.into_iter().map(|reader| reader.join().unwrap_or_default()).collect();
    Ok(texts.concat())
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            let _ = pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
