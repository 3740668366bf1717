//! `vconverter serve`.

use std::sync::Arc;

use controller::api::Status;
use controller::tasks::Converter;
use controller::{Config, Controller, DataDirectory, LEASE};
use conversion::{Cancel, Observer, Request, Source};

use crate::client::Client;
use crate::failure::Result;
use crate::readiness;
use crate::settings::Settings;
use crate::signals::Signals;

/// The conversions of a controller.
struct Pipeline;

impl Converter for Pipeline {
    fn convert(
        &self,
        source: Source,
        request: &Request,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> conversion::Result<serde_json::Value> {
        let outcome = conversion::convert(&source, request, observer, cancel)?;
        serde_json::to_value(outcome).map_err(|e| {
            conversion::Error::because(conversion::ErrorKind::Internal, "outcome cannot be written as JSON", e)
        })
    }
}

pub(crate) fn serve(settings: &Settings, json: bool) -> Result<()> {
    let config = Config {
        data_directory: DataDirectory::new(&settings.data_dir.value),
        listen: settings.listen.value,
        converter: Arc::new(Pipeline),
        lease: LEASE,
        pxe: if settings.pxe_enabled.value { Some(settings.pxe.config()?) } else { None },
    };
    let signals = Signals::listen()?;
    let controller = Controller::start(config)?;
    let status = controller.status();
    if json {
        crate::print_json_line(status)?;
    } else {
        crate::print(&format!(
            "agents: {}\nCA fingerprint: {}\ndata directory: {}\n",
            status.agent_address, status.ca_fingerprint, status.data_dir
        ))?;
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
    crate::print(&format!(
        "controller  version {}, process {}, since {}\nagents      {}\nCA          {}\ndata        {}\n",
        status.version, status.pid, status.started_at, status.agent_address, status.ca_fingerprint, status.data_dir
    ))
}
