//! PID 1 of the boot image and of the appliance; see the library.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use bootenv::{appliance, boot_image, configuration, console, modules, mounts, operator};
use rustix::system::RebootCommand;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.first().is_some_and(|name| name.ends_with("/modprobe")) {
        return ExitCode::from(modules::run_modprobe(&arguments[1..]));
    }
    // The builder asks whether a configuration is one: what is checked there and what is read here are the same.
    if let [_, flag, file] = arguments.as_slice()
        && flag == configuration::CHECK
    {
        return match configuration::check_file(Path::new(file)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{}", error.chain());
                ExitCode::FAILURE
            }
        };
    }
    if !rustix::process::getpid().is_init() {
        eprintln!("vconverter-bootenv is the first process of the boot image and of nothing else");
        return ExitCode::from(2);
    }
    operator::block_interrupts();
    if let Err(error) = mounts::mount_kernel_filesystems() {
        console::log(error.chain());
    }
    if Path::new(appliance::JOB).exists() {
        for failure in modules::load_for_hardware().failures {
            console::log(failure.chain());
        }
        if let Err(error) = appliance::run() {
            console::log(format!("appliance: {}", error.chain()));
        }
        power_off();
    }
    boot_image::run()
}

fn power_off() -> ! {
    rustix::fs::sync();
    console::drain(Duration::from_secs(2));
    loop {
        if let Err(errno) = rustix::system::reboot(RebootCommand::PowerOff) {
            console::log(format!("power off: {errno}"));
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}
