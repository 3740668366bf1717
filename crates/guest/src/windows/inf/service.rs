//! "INF AddService Directive": services, with their event logs.

use serde::Serialize;

use super::registry::{self, RegistryChange};
use super::{Directories, Entry, Location, Section, Texts, parse_number, wrong};
use crate::Result;

/// `SPSVCINST_ASSOCSERVICE`: the service is the device's own driver.
const ASSOCIATED: u32 = 0x2;

/// A service that is installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Its name; empty where a device is said to need none.
    pub name: String,
    /// `SPSVCINST_…`.
    pub flags: u32,
    /// What it is called.
    pub display_name: Option<String>,
    /// What it does.
    pub description: Option<String>,
    /// `ServiceType`: 1 for a driver.
    pub service_type: u32,
    /// When it starts.
    pub start: StartType,
    /// `ErrorControl`.
    pub error_control: u32,
    /// Its program.
    pub binary: Location,
    /// `LoadOrderGroup`.
    pub group: Option<String>,
    /// `Dependencies`; a group has a `+` before it.
    pub dependencies: Vec<String>,
    /// `StartName`.
    pub start_name: Option<String>,
    /// `Security`: a descriptor in its text form.
    pub security: Option<String>,
    /// What is changed below its key.
    pub registry: Vec<RegistryChange>,
    /// Its event log.
    pub event_log: Option<EventLog>,
}

/// When a service starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StartType {
    /// Loaded with the kernel.
    Boot = 0,
    /// While the kernel starts.
    System = 1,
    /// With the system's services.
    Automatic = 2,
    /// When its device is there, or somebody asks for it.
    Demand = 3,
    /// Never.
    Disabled = 4,
}

/// Where a service's events are described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventLog {
    /// The log: `System`, `Application` or `Security`.
    pub log: String,
    /// The source's name in it.
    pub source: String,
    /// What is changed below its key.
    pub registry: Vec<RegistryChange>,
}

impl Service {
    /// Whether it is the device's own driver.
    pub fn is_associated(&self) -> bool {
        self.flags & ASSOCIATED != 0
    }
}

/// All services of a `.Services` section.
pub(super) fn services(section: &Section, texts: &mut Texts<'_>) -> Result<Vec<Service>> {
    section.entries_of("AddService").map(|entry| service(entry, texts)).collect()
}

/// Names of the services that a `.Services` section removes.
pub(super) fn removed(section: &Section, texts: &mut Texts<'_>) -> Result<Vec<String>> {
    section.entries_of("DelService").map(|entry| texts.value(entry, 0)).collect()
}

/// `ServiceName,[flags],service-install-section[,event-log-install-section[,[EventLogType][,EventName]]]`
fn service(entry: &Entry, texts: &mut Texts<'_>) -> Result<Service> {
    let name = texts.value(entry, 0)?;
    let flags = texts.value(entry, 1)?;
    let flags = parse_number(&flags).ok_or_else(|| wrong(entry, format!("expected flags, found {flags:?}")))?;
    let mut service = Service {
        name,
        flags,
        display_name: None,
        description: None,
        service_type: 1,
        start: StartType::Demand,
        error_control: 0,
        binary: Location { directory: None, path: String::new() },
        group: None,
        dependencies: Vec::new(),
        start_name: None,
        security: None,
        registry: Vec::new(),
        event_log: None,
    };
    if service.name.is_empty() {
        return Ok(service);
    }
    let section = texts.value(entry, 2)?;
    let missing = || wrong(entry, format!("no section [{section}] for service {}", service.name));
    let install = texts.section(&section).ok_or_else(missing)?;
    let number = |key: &str, texts: &mut Texts<'_>| {
        let number = texts.number_of_key(install, key)?;
        number.ok_or_else(|| wrong(entry, format!("[{section}] has no {key}")))
    };
    service.service_type = number("ServiceType", texts)?;
    service.start = match number("StartType", texts)? {
        0 => StartType::Boot,
        1 => StartType::System,
        2 => StartType::Automatic,
        3 => StartType::Demand,
        4 => StartType::Disabled,
        other => return Err(wrong(entry, format!("[{section}] has the start type {other}, which is none"))),
    };
    service.error_control = number("ErrorControl", texts)?;
    service.binary =
        binary(install, texts)?.ok_or_else(|| wrong(entry, format!("[{section}] has no ServiceBinary")))?;
    service.display_name = texts.of_key(install, "DisplayName")?;
    service.description = texts.of_key(install, "Description")?;
    service.group = texts.of_key(install, "LoadOrderGroup")?;
    service.dependencies = texts.names(install, "Dependencies")?;
    service.start_name = texts.of_key(install, "StartName")?;
    service.security = texts.of_key(install, "Security")?;
    service.registry = registry::changes(install, texts)?;
    service.event_log = event_log(entry, &service.name, texts)?;
    Ok(service)
}

/// `%12%\viostor.sys`: the number stays a number, because only the guest knows its folders.
fn binary(install: &Section, texts: &mut Texts<'_>) -> Result<Option<Location>> {
    let Some(entry) = install.entry("ServiceBinary") else { return Ok(None) };
    let Some(written) = entry.values.first() else { return Ok(None) };
    let place = Directories::locate(written, |key| texts.inf.strings.has(key));
    Ok(Some(match place {
        Some((number, rest)) => Location { directory: Some(number), path: texts.expand(&rest)? },
        None => Location { directory: None, path: texts.expand(written)? },
    }))
}

fn event_log(entry: &Entry, service: &str, texts: &mut Texts<'_>) -> Result<Option<EventLog>> {
    let Some(name) = texts.present(entry, 3)? else { return Ok(None) };
    let Some(section) = texts.section(&name) else { return Ok(None) };
    Ok(Some(EventLog {
        log: texts.present(entry, 4)?.unwrap_or_else(|| "System".into()),
        source: texts.present(entry, 5)?.unwrap_or_else(|| service.to_owned()),
        registry: registry::changes(section, texts)?,
    }))
}
