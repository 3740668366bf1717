//! The PXE service over the store's policies: within a controller, or alone in a branch office.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use machine::MacAddress;
use netboot::{BootFiles, Choice, Client, Finding, Interface, Policy, Ruling, Service};
use tokio::sync::oneshot;

use crate::api::pxe_router;
use crate::serve::{api_runtime, serve_api};
use crate::store::{PxePolicy, Store};
use crate::{DataDirectory, Error, ErrorKind, LockedDataDirectory, Result};

/// Machines whose rule is remembered until the boot image was sent to them.
const REMEMBERED_MAX: usize = 1024;

/// What the PXE service is started with.
#[derive(Clone, Debug)]
pub struct PxeConfig {
    /// The folder that `boot-image build` made.
    pub boot_image: PathBuf,
    /// Interfaces by name; none means all that can be used.
    pub interfaces: Vec<String>,
    /// Port of HTTP.
    pub http_port: u16,
}

/// The policies of a store.
struct StorePolicy {
    store: Arc<Store>,
    /// Alone, no report is ever seen: "boot once" ends some minutes after the whole boot image was sent.
    sent: Option<Mutex<HashMap<MacAddress, String>>>,
}

impl Policy for StorePolicy {
    fn rule(&self, client: &Client) -> Ruling {
        let mut names = vec![client.mac.to_string()];
        names.extend(client.uuids());
        let rule = match self.store.pxe_rule(&names) {
            Ok(Some(rule)) => rule,
            Ok(None) => return Ruling::UNKNOWN,
            Err(error) => {
                tracing::error!("{}", error.chain());
                return Ruling { choice: Choice::Ignore, why: "the policies cannot be read: see the log".into() };
            }
        };
        let choice = match rule.policy {
            PxePolicy::Ignore => Choice::Ignore,
            PxePolicy::BootOnce | PxePolicy::BootAlways => Choice::Boot,
        };
        let until = rule.expires_at.map(|until| format!(", until {until}")).unwrap_or_default();
        let why = format!("policy: {}, set by {}{until}", rule.policy, rule.actor).into();
        if let (PxePolicy::BootOnce, Some(sent)) = (rule.policy, &self.sent) {
            let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
            if sent.len() < REMEMBERED_MAX || sent.contains_key(&client.mac) {
                sent.insert(client.mac, rule.machine);
            }
        }
        Ruling { choice, why }
    }

    fn delivered(&self, mac: MacAddress) {
        let Some(sent) = &self.sent else { return };
        let rule = sent.lock().unwrap_or_else(PoisonError::into_inner).remove(&mac);
        if let Some(machine) = rule
            && let Err(error) = self.store.used_boot_once(&machine)
        {
            tracing::error!("{}", error.chain());
        }
    }
}

pub(crate) fn start_service(store: &Arc<Store>, config: &PxeConfig, is_alone: bool) -> Result<Service> {
    let failed = |error: netboot::Error| {
        let kind = match error.kind {
            netboot::ErrorKind::PortTaken => ErrorKind::Conflict,
            netboot::ErrorKind::NoFiles => ErrorKind::NotFound,
            netboot::ErrorKind::NoInterface | netboot::ErrorKind::Forbidden => ErrorKind::Network,
            netboot::ErrorKind::Io => ErrorKind::Io,
        };
        Error::with(kind, "PXE service", error)
    };
    let policy = StorePolicy { store: Arc::clone(store), sent: is_alone.then(Mutex::default) };
    Service::start(netboot::Options {
        interfaces: config.interfaces.clone(),
        http_port: config.http_port,
        files: BootFiles::from_folder(&config.boot_image).map_err(failed)?,
        policy: Arc::new(policy),
        findings: Box::new(tell),
    })
    .map_err(failed)
}

fn tell(finding: &Finding) {
    if finding.is_problem {
        tracing::warn!("PXE: {finding}");
    } else {
        tracing::info!("PXE: {finding}");
    }
}

/// A PXE service without a controller: its policies and its API, in a data directory of its own.
pub struct PxeStation {
    service: Service,
    stop_api: oneshot::Sender<()>,
    api: JoinHandle<()>,
    _directory: LockedDataDirectory,
}

impl PxeStation {
    /// Starts it; when it returns, machines are answered.
    ///
    /// # Errors
    /// Those of [`DataDirectory::lock`] and [`Store::open`]; [`ErrorKind::NotFound`] for boot files,
    /// [`ErrorKind::Conflict`] for a port that is taken, [`ErrorKind::Network`] for interfaces and privileges.
    pub fn start(directory: DataDirectory, config: &PxeConfig) -> Result<Self> {
        let directory = directory.lock()?;
        let store = Arc::new(Store::open(&directory.database())?);
        let service = start_service(&store, config, true)?;
        let (stop_api, stopped) = oneshot::channel();
        let router = pxe_router(store, Arc::clone(service.log()));
        let api = serve_api(api_runtime()?, &directory, router, None, stopped)?;
        Ok(Self { service, stop_api, api, _directory: directory })
    }

    /// Where it works.
    pub fn interfaces(&self) -> &[Interface] {
        self.service.interfaces()
    }

    /// Stops it.
    pub fn stop(self) {
        drop(self.service);
        let _ = self.stop_api.send(());
        let _ = self.api.join();
    }
}
