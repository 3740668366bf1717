//! `vconverter serve`.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bootimage::{FirmwareSources, KernelChoice, Programs};
use controller::api::Status;
use controller::tasks::{Converter, PushFiles, PushNeeds};
use controller::trust::SetupCode;
use controller::{Config, Controller, DataDirectory};
use conversion::{Cancel, Observer, Request, Source};
use serde::{Serialize, Serializer};

use crate::client::Client;
use crate::failure::Result;
use crate::readiness;
use crate::settings::Settings;
use crate::signals::Signals;
use crate::windows_guests;

/// The conversions of a controller.
struct Pipeline {
    data_dir: std::path::PathBuf,
}

impl Converter for Pipeline {
    fn convert(
        &self,
        source: Source,
        request: &Request,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> conversion::Result<serde_json::Value> {
        // Looked at anew for each: drivers and scripts may come while it runs.
        let windows = windows_guests::of_data_directory(&DataDirectory::new(&self.data_dir))?;
        let outcome = conversion::convert(&source, request, &windows, observer, cancel)?;
        serde_json::to_value(outcome).map_err(|e| {
            conversion::Error::because(conversion::ErrorKind::Internal, "outcome cannot be written as JSON", e)
        })
    }

    fn build_push(&self, needs: &PushNeeds<'_>) -> conversion::Result<PushFiles> {
        let wrong = |e: bootimage::Error| {
            conversion::Error::because(conversion::ErrorKind::Refused, "the boot image for this machine", e)
        };
        let options = bootimage::PushOptions {
            modaliases: needs.survey.modaliases.clone(),
            drivers: needs.survey.drivers.clone(),
            controller: needs.survey.controller.clone(),
            ca_fingerprint: needs.ca_fingerprint.clone(),
            network: needs.survey.network.clone(),
            token: needs.token.to_owned(),
            task: needs.task.to_owned(),
            contact_seconds: needs.contact_seconds,
            watchdog_seconds: needs.watchdog_seconds,
            kernel: KernelChoice::Newest,
            programs: Programs::beside_executable().map_err(wrong)?,
            firmware: FirmwareSources::default(),
            driver_files: Vec::new(),
            output: needs.output.to_path_buf(),
        };
        let push = bootimage::build_push(&options, &mut |line| tracing::info!("{line}")).map_err(wrong)?;
        let files = push.files.into_iter().map(|(name, path, _)| (name, path)).collect();
        Ok(PushFiles { files, command_line: push.command_line, missing: push.missing })
    }
}

/// What a controller says when it begins to work.
#[derive(Serialize)]
struct Started<'a> {
    #[serde(flatten)]
    status: &'a Status,
    /// Makes the first administrator; it is shown this once, and only while there is no user.
    #[serde(serialize_with = "shown", skip_serializing_if = "Option::is_none")]
    setup_code: Option<SetupCode>,
}

fn shown<S: Serializer>(code: &Option<SetupCode>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    match code {
        Some(code) => serializer.collect_str(code),
        None => serializer.serialize_none(),
    }
}

impl fmt::Display for Started<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, setup_code } = self;
        writeln!(f, "agents: {}", status.agent_address)?;
        if let Some(address) = status.console_address {
            writeln!(f, "console: {}", url(address))?;
        }
        writeln!(f, "CA fingerprint: {}\ndata directory: {}", status.ca_fingerprint, status.data_dir)?;
        if let Some(code) = setup_code {
            writeln!(f, "setup code: {code} (makes the first administrator in the console, within an hour)")?;
        }
        Ok(())
    }
}

/// Where a browser finds the console: by this machine's name where it listens on all addresses.
fn url(address: SocketAddr) -> String {
    let port = address.port();
    match address.ip().is_unspecified() {
        true => format!("https://{}:{port}/", rustix::system::uname().nodename().to_string_lossy()),
        false => format!("https://{address}/"),
    }
}

pub(crate) fn serve(settings: &Settings, json: bool) -> Result<()> {
    let directory = DataDirectory::new(&settings.data_dir.value);
    let config = Config {
        console: settings.console.config()?,
        unlock: settings.unlock()?,
        pxe: if settings.pxe_enabled.value { Some(settings.pxe.config()?) } else { None },
        ..Config::new(
            directory,
            settings.listen.value,
            Arc::new(Pipeline { data_dir: settings.data_dir.value.clone() }),
        )
    };
    let signals = Signals::listen()?;
    let mail = settings.mail.config()?;
    let mut controller = Controller::start(config)?;
    controller.tell_by_mail(mail.as_ref())?;
    let started = Started { status: controller.status(), setup_code: controller.make_setup_code()? };
    if json {
        crate::print_json_line(&started)?;
    } else {
        crate::print(&started.to_string())?;
    }
    readiness::notify(readiness::READY);
    let waited = signals.wait_to_stop();
    readiness::notify(readiness::STOPPING);
    controller.stop();
    waited
}

/// `vconverter status`.
pub(crate) fn status(client: &Client, json: bool) -> Result<()> {
    let status: Status = client.get("/status")?;
    if json {
        return crate::print_json(&status);
    }
    let console = status.console_address.map_or_else(|| "none".to_owned(), url);
    crate::print(&format!(
        "controller  version {}, process {}, since {}\nagents      {}\nconsole     {console}\nCA          {}\ndata        {}\n",
        status.version, status.pid, status.started_at, status.agent_address, status.ca_fingerprint, status.data_dir
    ))
}
