//! `vconverter pxe`: the PXE service alone, its policies and its log.

use std::io::{BufRead, IsTerminal, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use controller::api::NewPxeRule;
use controller::store::{PxePolicy, PxeRule};
use controller::{DataDirectory, PxeStation};
use netboot::Record;
use serde_json::json;

use crate::arguments::{PolicyName, PxePolicyArguments};
use crate::client::Client;
use crate::failure::{Code, Failure, Result};
use crate::settings::PxeSettings;
use crate::signals::Signals;
use crate::table::{Table, plain};

/// How often the log is asked for news.
const LOG_INTERVAL: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// `vconverter pxe --boot-image DIR`.
pub(crate) fn serve(service: &PxeSettings, wanted: Option<&str>, directory: DataDirectory, json: bool) -> Result<()> {
    let config = service.config()?;
    let controller = controller_of(&config.boot_image);
    check_controller(controller.as_deref(), wanted)?;
    let signals = Signals::listen()?;
    let station = PxeStation::start(directory, &config)?;
    if json {
        let interfaces: Vec<_> =
            station.interfaces().iter().map(|it| json!({ "name": it.name, "address": it.address })).collect();
        crate::print_json_line(&json!({ "interfaces": interfaces, "controller": controller }))?;
    } else {
        for interface in station.interfaces() {
            crate::print(&format!("PXE: {} {}\n", interface.name, interface.address))?;
        }
        let shown = controller.as_deref().unwrap_or("asked on the machine's screen");
        crate::print(&format!("controller: {shown}\n"))?;
    }
    if let Some(controller) = &controller
        && let Err(why) = reach(controller)
    {
        tracing::warn!("PXE: the boot image's controller {controller} cannot be reached from here: {why}");
    }
    let waited = signals.wait_to_stop();
    station.stop();
    waited
}

/// The controller that a boot image calls.
fn controller_of(boot_image: &Path) -> Option<String> {
    let text = std::fs::read_to_string(boot_image.join("vconverter.toml")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("controller = \"")?.strip_suffix('"'))?;
    Some(value.to_owned())
}

/// A boot image that calls another controller than the one wanted is refused, with the command that makes the right one.
fn check_controller(found: Option<&str>, wanted: Option<&str>) -> Result<()> {
    let Some(wanted) = wanted.filter(|wanted| found != Some(wanted)) else { return Ok(()) };
    let found = found.map_or_else(|| "asks for its controller".to_owned(), |found| format!("calls {found}"));
    let remedy = format!("vconverter boot-image build --output DIR --controller {wanted} --ca-fingerprint HEX");
    Err(Failure::new(Code::Refused, format!("the boot image {found}, expected {wanted}: make one by `{remedy}`")))
}

fn reach(controller: &str) -> std::result::Result<(), String> {
    let addresses = controller.to_socket_addrs().map_err(|e| e.to_string())?;
    let mut why = "it has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(_) => return Ok(()),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

/// `vconverter pxe log`. An answer holds a part of the log: it is asked until it holds nothing more.
pub(crate) fn log(client: &Client, follow: bool, json: bool) -> Result<()> {
    let (mut after, mut all) = (0, Vec::new());
    loop {
        let records: Vec<Record> = client.get(&format!("/pxe/log?after={after}"))?;
        let is_end = records.is_empty();
        after = records.last().map_or(after, |record| record.number);
        for record in records {
            match (json, follow) {
                (true, false) => all.push(record),
                (true, true) => crate::print_json_line(&record)?,
                (false, _) => crate::print(&line(&record))?,
            }
        }
        match (is_end, follow) {
            (false, _) => {}
            (true, true) => std::thread::sleep(LOG_INTERVAL),
            (true, false) if json => return crate::print_json(&all),
            (true, false) => {
                if after == 0 {
                    eprintln!("no machine has asked yet");
                }
                return Ok(());
            }
        }
    }
}

fn line(record: &Record) -> String {
    let at = record.at;
    let address = record.address.map(|address| format!(" {address}")).unwrap_or_default();
    let mac = record.mac.as_deref().unwrap_or("-");
    let text = format!(
        "{} {:02}:{:02}:{:02}Z {} {mac}{address}  {} → {}  ({})",
        at.date(),
        at.hour(),
        at.minute(),
        at.second(),
        record.interface,
        record.request,
        record.answer,
        record.why
    );
    format!("{}\n", plain(&text))
}

/// `vconverter pxe policy`.
pub(crate) fn policy(client: &Client, arguments: &PxePolicyArguments, json: bool) -> Result<()> {
    let rules: Vec<PxeRule> = match (&arguments.machine, arguments.policy) {
        (Some(machine), Some(policy)) => {
            let policy = match policy {
                PolicyName::Ignore => Some(PxePolicy::Ignore),
                PolicyName::BootOnce => Some(PxePolicy::BootOnce),
                PolicyName::BootAlways => Some(PxePolicy::BootAlways),
                PolicyName::Menu => None,
            };
            if policy == Some(PxePolicy::BootAlways) && !arguments.yes {
                confirm(machine)?;
            }
            client.post("/pxe/rules", &NewPxeRule { machine: machine.clone(), policy })?
        }
        _ => client.get("/pxe/rules")?,
    };
    if json {
        return crate::print_json(&rules);
    }
    let mut table = Table::new(&["MACHINE", "POLICY", "UNTIL", "SET BY", "SET AT"]);
    for rule in &rules {
        let until = match (rule.policy, rule.expires_at) {
            (_, Some(until)) => until.to_string(),
            (PxePolicy::BootOnce, None) => "the boot image reports in".into(),
            _ => String::new(),
        };
        table.row(vec![
            rule.machine.clone(),
            rule.policy.to_string(),
            until,
            rule.actor.clone(),
            rule.set_at.to_string(),
        ]);
    }
    let others = "every other machine: the menu, whose choice after 10 s is its own disk\n";
    crate::print(&if table.is_empty() { others.to_owned() } else { format!("{table}{others}") })
}

fn confirm(machine: &str) -> Result<()> {
    let question = format!(
        "{machine} will start the boot image instead of its own system at every start from the network, for 24 hours"
    );
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Code::Refused, format!("{question}: say so with --yes")));
    }
    let mut error = std::io::stderr().lock();
    let _ = write!(error, "{question}. Type yes to go on: ");
    let _ = error.flush();
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|e| Failure::io("standard input", &e))?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(Failure::new(Code::Refused, "not confirmed: nothing was changed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_image_for_another_controller_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(controller_of(folder.path()), None);
        std::fs::write(folder.path().join("vconverter.toml"), "# x\ncontroller = \"192.0.2.1:7770\"\n").unwrap();
        let found = controller_of(folder.path());
        assert_eq!(found.as_deref(), Some("192.0.2.1:7770"));
        check_controller(found.as_deref(), None).unwrap();
        check_controller(found.as_deref(), Some("192.0.2.1:7770")).unwrap();
        let refused = check_controller(found.as_deref(), Some("c.example:7770")).unwrap_err();
        assert_eq!(refused.code, Code::Refused);
        assert!(refused.message.contains("calls 192.0.2.1:7770, expected c.example:7770"), "{}", refused.message);
        assert!(check_controller(None, Some("c.example:7770")).is_err());
    }
}
