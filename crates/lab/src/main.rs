//! `vconverter-lab`: makes and runs the lab's machines by hand.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use lab::{Boot, Kind, SourceMachine};
use qemu::NicBackend;

/// Physical machines made of QEMU, to develop and demonstrate with. Needs root.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Clones a source machine over a network into a VM that boots, and shows it.
    Demo {
        /// `a`, `b` or `c`.
        #[arg(default_value = "a")]
        machine: Kind,
        /// Folder for everything that is made; it must not exist. Without it a folder for temporary files.
        #[arg(long)]
        folder: Option<PathBuf>,
    },
    /// Makes a source machine in a folder: its disk, its firmware's variables, and `machine.json` with its facts.
    Make {
        /// `a`, `b` or `c`.
        machine: Kind,
        /// Folder, made if missing.
        folder: PathBuf,
    },
    /// Runs a source machine with its serial console on this terminal, until it switches itself off.
    Run {
        /// `a`, `b` or `c`.
        machine: Kind,
        /// Folder of `make`; made if missing.
        folder: PathBuf,
        /// Boot this ISO from the CD drive.
        #[arg(long)]
        iso: Option<PathBuf>,
        /// Save the screen there as PNG every five seconds.
        #[arg(long)]
        screen: Option<PathBuf>,
        /// End after so many seconds.
        #[arg(long, default_value_t = 600)]
        seconds: u64,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprint!("vconverter-lab: {e}");
            let mut cause = std::error::Error::source(&e);
            while let Some(inner) = cause {
                eprint!(": {inner}");
                cause = inner.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> lab::Result<()> {
    match arguments.command {
        Command::Demo { machine, folder } => demo(machine, folder),
        Command::Make { machine, folder } => {
            let machine = SourceMachine::make(machine, &folder)?;
            println!("{}", machine.disk.display());
            Ok(())
        }
        Command::Run { machine, folder, iso, screen, seconds } => {
            let machine = SourceMachine::make(machine, &folder)?;
            let boot = iso.as_deref().map_or(Boot::Disk, Boot::Iso);
            let network = NicBackend::User { restricted: false, forwards: Vec::new() };
            let vm = machine.hardware(boot, network).start()?;
            let mut reader = vm.serial(0).reader();
            let start = Instant::now();
            let mut shot = Instant::now();
            while start.elapsed() < Duration::from_secs(seconds) {
                print!("{}", reader.available());
                let _ = std::io::stdout().flush();
                if let Some(exit) = vm.wait(Duration::from_millis(200)) {
                    println!(
                        "\n{:?} after {:.0?}, {:.0?} of processor time",
                        exit.kind,
                        start.elapsed(),
                        vm.cpu_time()?
                    );
                    return Ok(());
                }
                if let Some(path) = screen.as_ref().filter(|_| shot.elapsed() > Duration::from_secs(5)) {
                    shot = Instant::now();
                    std::fs::write(path, vm.screenshot()?).map_err(|e| lab::Error::file(path, e))?;
                }
            }
            println!("\nended after {seconds} s, {:.0?} of processor time", vm.cpu_time()?);
            Ok(())
        }
    }
}

/// Everything for one machine, told step by step.
fn demo(kind: Kind, folder: Option<PathBuf>) -> lab::Result<()> {
    let start = Instant::now();
    let folder = folder.unwrap_or_else(|| std::env::temp_dir().join(format!("vconverter-demo-{}", std::process::id())));
    std::fs::create_dir(&folder).map_err(|e| lab::Error::file(&folder, e))?;
    let clone = lab::cold_clone(kind, &folder, &|line| println!("[{:>4} s] {line}", start.elapsed().as_secs()))?;
    println!();
    println!("The VM is in {}", clone.result.display());
    println!("  look at it in a window:  sh {}/look.sh", clone.result.display());
    println!("  give it to libvirt:      virsh define {}/{}.xml", clone.result.display(), clone.machine.hostname);
    println!("  what was seen of it:     {}/proof/screen.png and serial.log", clone.result.display());
    let program = std::env::current_exe().map_err(|e| lab::Error::file(&folder, e))?.with_file_name("vconverter");
    let data = folder.join("data");
    println!("Open the console, which shows the machine, the task and its boot proof:");
    println!(
        "  {} serve --data-dir {} --listen 127.0.0.1:0 --console 127.0.0.1:8443",
        program.display(),
        data.display()
    );
    println!("  then https://localhost:8443 with the setup code that it prints");
    println!(
        "Log in as root with the password {:?}. Remove {} when you have seen enough.",
        clone.machine.root_password,
        folder.display()
    );
    Ok(())
}
