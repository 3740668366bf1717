//! The command line: a client of the controller's API, or the same pipeline on local disks.
//!
//! Results go to standard output, everything else to standard error. Each error is printed once, with all its causes.

mod agent_install;
mod agents;
mod arguments;
mod backup;
mod bcd;
mod boot_image;
mod boot_image_inspect;
mod choices;
mod client;
mod configuration;
mod conversion_settings;
mod convert;
mod cutover;
mod drivers;
mod failure;
mod help;
mod hive_file;
mod import;
mod inspect;
mod inventory;
mod limits;
mod link_tests;
mod machines;
mod mail_settings;
mod manual;
mod outcome;
mod place;
mod preflight;
mod profiles;
mod progress_line;
mod pxe;
mod readiness;
mod registry;
mod search;
mod secret_input;
mod serve;
mod settings;
mod signals;
mod support_bundle;
mod table;
mod tasks;
mod users;
mod waves;
mod windows_drivers;
mod windows_guests;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::FromArgMatches;
use controller::DataDirectory;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use arguments::{
    AgentsAction, Arguments, BootImageAction, Command, Config, ConfigAction, DriversAction, MachinesAction, PxeAction,
    Serve, TasksAction,
};
use client::Client;
use configuration::Configuration;
use failure::{Code, Failure, Result};
use place::Place;
use profiles::ProfilesAction;
use settings::{PxeSettings, Settings};

fn main() -> ExitCode {
    // Started by OpenSSH, for a password or a host key.
    if let Some(answered) = agent_install::answer() {
        return answered;
    }
    let arguments = match Arguments::from_arg_matches(&help::command().get_matches()) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let serves = match &arguments.command {
        Command::Serve(_) => true,
        Command::Pxe(pxe) => pxe.action.is_none(),
        _ => false,
    };
    let quiet = if serves { "info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(quiet));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                let _ = writeln!(std::io::stderr(), "vconverter: {}", table::plain(&failure.message));
            }
            ExitCode::from(failure.code as u8)
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let json = arguments.json;
    // These look at nothing that a configuration says; one that is broken is not in their way.
    match &arguments.command {
        Command::Inspect(inspect) => return inspect::inspect(inspect, json),
        Command::Registry(registry) => return registry::registry(registry, json),
        Command::Bcd(arguments) => return bcd::bcd(arguments, json),
        Command::Completions(completions) => return manual::completions(completions.shell),
        Command::Manual(manual) => return manual::write_pages(&manual.output, json),
        _ => {}
    }
    let (named, is_needed) = match &arguments.command {
        Command::Config(Config { action: ConfigAction::Check { file: Some(file) } }) => (Some(file), true),
        Command::Config(_) | Command::Serve(_) => (arguments.config.as_ref(), true),
        _ => (arguments.config.as_ref(), false),
    };
    let configuration = Configuration::load(named.map(PathBuf::as_path), is_needed)?;
    let data_dir = settings::data_dir(arguments.data_dir, &configuration);
    let directory = DataDirectory::new(&data_dir.value);
    let connect = || Client::new(&Place::of(&arguments.remote, &directory)?);
    match arguments.command {
        Command::Serve(serve) => serve::serve(&Settings::of(&serve, data_dir, &configuration), json),
        Command::SupportBundle(bundle) => {
            let settings = Settings::of(&Serve::default(), data_dir, &configuration);
            support_bundle::write(&bundle, &settings, &directory, json)
        }
        Command::Config(config) => {
            let settings = Settings::of(&Serve::default(), data_dir, &configuration);
            match config.action {
                ConfigAction::Check { .. } => settings::check(&settings, &configuration, json),
                ConfigAction::Show => settings::show(&settings, json),
                ConfigAction::TestMail => mail_settings::test(&settings.mail, json),
            }
        }
        Command::Status => serve::status(&connect()?, json),
        Command::Machines(machines) => {
            let client = connect()?;
            match machines.action {
                None => machines::list(&client, json),
                Some(MachinesAction::Approve { code }) => machines::approve(&client, &code, json),
                Some(MachinesAction::Forget { machine }) => machines::forget(&client, &machine, json),
                Some(MachinesAction::Show { machine }) => machines::show(&client, &machine, json),
                Some(MachinesAction::History { machine, lines }) => inventory::history(&client, &machine, lines, json),
                Some(MachinesAction::Add(new)) => inventory::add(&client, &new, json),
                Some(MachinesAction::Set(change)) => inventory::set(&client, &change, json),
                Some(MachinesAction::Join { added, machine }) => inventory::join(&client, &added, &machine, json),
                Some(MachinesAction::Groups(groups)) => inventory::groups(&client, groups.action, json),
                Some(MachinesAction::Import(table)) => import::import(&client, &table, json),
                Some(MachinesAction::Search(search)) => search::search(&client, &search, json),
            }
        }
        Command::Agents(agents) => match agents.action {
            Some(AgentsAction::Install(wish)) => {
                let place = Place::of(&arguments.remote, &directory)?;
                agent_install::install(&Client::new(&place)?, &wish, place.network_host(), json)
            }
            Some(AgentsAction::Remove { reach, dry_run }) => agent_install::remove(&reach, dry_run, json),
            Some(AgentsAction::Status { reach }) => agent_install::status(&reach, json),
            Some(AgentsAction::Revoke { key }) => agents::revoke(&connect()?, &key, json),
            Some(AgentsAction::Token { action }) => agents::tokens(&connect()?, action, json),
            None => agents::list(&connect()?, json),
        },
        Command::Convert(convert) => convert::convert(&convert, &directory, &connect, json),
        Command::Tasks(tasks) => {
            let client = connect()?;
            match tasks.action {
                None => tasks::list(&client, json),
                Some(TasksAction::Watch { id }) => tasks::watch(&client, &id, json),
                Some(TasksAction::Show { id }) => tasks::show(&client, &id, json),
                Some(TasksAction::Log { id }) => tasks::log(&client, &id, json),
                Some(TasksAction::Cancel { id }) => tasks::cancel(&client, &id, json),
                Some(TasksAction::Retry { id }) => tasks::retry(&client, &id, json),
                Some(TasksAction::Schedule(change)) => tasks::schedule(&client, &change, json),
                Some(TasksAction::Bandwidth { id, rate }) => tasks::bandwidth(&client, &id, rate, json),
                Some(TasksAction::BackBy { id, time }) => tasks::back_by(&client, &id, time, json),
                Some(TasksAction::Pause { id }) => tasks::pause(&client, &id, json),
                Some(TasksAction::Clone { id, name }) => tasks::clone(&client, &id, name, json),
                Some(TasksAction::Delete { id, discard }) => tasks::delete(&client, &id, discard, json),
                Some(TasksAction::Resume { id }) => tasks::resume(&client, &id, json),
            }
        }
        Command::Pxe(arguments) => match arguments.action {
            None => {
                let service = PxeSettings::of(&arguments.service, &configuration);
                pxe::serve(&service, arguments.controller.as_deref(), directory, json)
            }
            Some(PxeAction::Log { follow }) => pxe::log(&connect()?, follow, json),
            Some(PxeAction::Policy(policy)) => pxe::policy(&connect()?, &policy, json),
        },
        Command::Cutover(arguments) => cutover::cutover(&connect()?, &arguments, json),
        Command::Preflight(arguments) => preflight::preflight(&connect()?, &arguments, json),
        Command::Profiles(profiles) => {
            let client = connect()?;
            match profiles.action {
                None => profiles::list(&client, json),
                Some(ProfilesAction::Set(new)) => profiles::set(&client, &new, json),
                Some(ProfilesAction::Delete { name }) => profiles::delete(&client, &name, json),
            }
        }
        Command::Limits(change) => limits::limits(&connect()?, &change, json),
        Command::Drivers(arguments) => {
            let library = windows_drivers::library(arguments.library.as_deref(), &directory);
            match arguments.action {
                Some(DriversAction::List { windows: true }) => windows_drivers::list(&library, json),
                None | Some(DriversAction::List { .. }) => drivers::list(&connect()?, json),
                Some(DriversAction::Add { files, name }) => drivers::add_each(&connect, &library, &files, name, json),
                Some(DriversAction::Show { release }) => windows_drivers::show(&library, &release, json),
                Some(DriversAction::Match(wanted)) => windows_drivers::find(&library, &wanted, json),
                Some(DriversAction::Remove { names, windows: true }) => windows_drivers::remove(&library, &names, json),
                Some(DriversAction::Remove { names, .. }) => drivers::remove(&connect()?, &names, json),
                Some(DriversAction::Push { machine, names }) => drivers::push(&connect()?, &machine, &names, json),
            }
        }
        Command::Users(users) => users::users(&connect()?, users.action, json),
        Command::Tokens(tokens) => users::tokens(&connect()?, tokens.action, json),
        Command::Credentials(credentials) => users::credentials(&connect()?, credentials.action, json),
        Command::BootImage(boot_image) => match boot_image.action {
            BootImageAction::Build(build) => boot_image::build(&build, &directory, json),
            BootImageAction::Inspect(inspect) => boot_image_inspect::inspect(&inspect, json),
        },
        Command::Backup(arguments) => backup::backup(&arguments, &directory, json),
        Command::Restore(arguments) => backup::restore(&arguments, directory, json),
        Command::Inspect(_) | Command::Registry(_) | Command::Bcd(_) | Command::Completions(_) | Command::Manual(_) => {
            Ok(())
        }
    }
}

/// Prints a result for people.
fn print(text: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    write!(output, "{text}").and_then(|()| output.flush()).map_err(|e| Failure::io("standard output", &e))
}

/// Prints a result for programs, over several lines.
fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::new(Code::Failed, format!("JSON: {e}")))?;
    print(&format!("{text}\n"))
}

/// Prints one JSON object as one line.
fn print_json_line(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|e| Failure::new(Code::Failed, format!("JSON: {e}")))?;
    print(&format!("{text}\n"))
}
