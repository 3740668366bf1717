//! `vconverter-agent`: runs on the source machine until it is killed; or installs itself there, and removes itself.

use std::process::ExitCode;

use agent::{Config, Screen, StatusFile};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = agent::service::command(&arguments) {
        return code;
    }
    let config = match Config::from_arguments(arguments) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("vconverter-agent: {}", error.chain());
            return ExitCode::from(2);
        }
    };
    let status_file = config.status_file.as_deref().map(StatusFile::new);
    let screen = match config.status_file.as_deref().map(StatusFile::new) {
        Some(file) => Screen::new(file),
        None => Screen::new(std::io::stdout()),
    };
    match agent::run(&config, &screen) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("vconverter-agent: {}", error.chain());
            status_file.iter().for_each(|file| file.end(&error.chain()));
            ExitCode::FAILURE
        }
    }
}
