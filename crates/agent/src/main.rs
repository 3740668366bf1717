//! `vconverter-agent`: runs on the source machine until it is killed.

use std::process::ExitCode;

fn main() -> ExitCode {
    let config = match agent::Config::from_arguments(std::env::args().skip(1)) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("vconverter-agent: {}", error.chain());
            return ExitCode::from(2);
        }
    };
    let screen = agent::Screen::new(std::io::stdout());
    match agent::run(&config, &screen) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("vconverter-agent: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}
