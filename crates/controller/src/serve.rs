//! A running controller: data directory locked, store open, agent port and API served, tasks going on.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use netboot::Service;
use protocol::tls::ControllerTls;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::api::{Api, Events, Peer, Status, bind, for_everybody, for_the_owner, router};
use crate::cutover::Cutovers;
use crate::driver_library::DriverLibrary;
use crate::https::{ConsoleConfig, Https};
use crate::mail::{MailConfig, MailService, Mailer};
use crate::pxe::{PxeConfig, start_service};
use crate::search::Searches;
use crate::sessions::Sessions;
use crate::store::Store;
use crate::tasks::{Converter, Tasks};
use crate::trust::{Access, Clock, SetupCode, Unlock, Vault};
use crate::{DataDirectory, Error, ErrorKind, LockedDataDirectory, Result, Timestamp};

/// The lease of a controller: a machine that swaps or migrates stands still for seconds.
pub const LEASE: Duration = Duration::from_secs(30);

/// What a controller is started with.
pub struct Config {
    /// Everything that it keeps.
    pub data_directory: DataDirectory,
    /// Where it listens for agents; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What makes VMs.
    pub converter: Arc<dyn Converter>,
    /// How long it may stand still before it loses the tasks that it works on: [`LEASE`].
    pub lease: Duration,
    /// Brings machines to the boot image over the network.
    pub pxe: Option<PxeConfig>,
    /// The port of console and API; without it there is only the Unix socket.
    pub console: Option<ConsoleConfig>,
    /// What opens the credentials.
    pub unlock: Unlock,
    /// What time it is for sessions, tokens and certificates.
    pub clock: Clock,
    /// The program that reaches hypervisors.
    pub virsh: PathBuf,
}

impl Config {
    /// Without a PXE service and without a port for browsers.
    pub fn new(data_directory: DataDirectory, listen: SocketAddr, converter: Arc<dyn Converter>) -> Self {
        Self {
            data_directory,
            listen,
            converter,
            lease: LEASE,
            pxe: None,
            console: None,
            unlock: Unlock::default(),
            clock: Arc::new(Timestamp::now),
            virsh: "virsh".into(),
        }
    }
}

/// A running controller. It works until it is stopped; dropping it stops the API only.
pub struct Controller {
    status: Status,
    access: Arc<Access>,
    tasks: Tasks,
    stop_api: oneshot::Sender<()>,
    api: JoinHandle<()>,
    pxe: Option<Service>,
    store: Arc<Store>,
    mail: Option<MailService>,
    _directory: LockedDataDirectory,
}

impl Controller {
    /// Starts everything; when it returns, agents and clients can connect, and interrupted tasks go on.
    ///
    /// # Errors
    /// Those of [`DataDirectory::lock`] and [`Store::open`]; [`ErrorKind::Network`] where the agent port cannot be
    /// listened on; [`ErrorKind::Io`] for the controller's identity and the API's socket.
    pub fn start(config: Config) -> Result<Self> {
        let directory = config.data_directory.lock()?;
        let store = Arc::new(Store::open(&directory.database())?);
        let tls = load_identity(&directory)?;
        let vault = Vault::open(&directory, &store, &config.unlock)?;
        let access = Arc::new(Access::new(store.clone(), vault, config.clock.clone()));
        let listener = TcpListener::bind(config.listen)
            .map_err(|e| Error::with(ErrorKind::Network, format!("agent port {}: cannot listen", config.listen), e))?;
        let agent_address =
            listener.local_addr().map_err(|e| Error::with(ErrorKind::Network, "agent port has no address", e))?;
        let sessions = Sessions::new(store.clone(), tls, config.clock);
        let tasks = Tasks::new(store.clone(), sessions.clone(), config.converter, config.lease);
        let runtime = api_runtime()?;
        let https = config
            .console
            .map(|console| {
                let _inside = runtime.enter();
                Https::bind(&console, &directory)
            })
            .transpose()?;
        let (https, console_address) = https.map_or((None, None), |(https, address)| (Some(https), Some(address)));
        let status = Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            agent_address,
            console_address,
            ca_fingerprint: sessions.ca_fingerprint().to_string(),
            data_dir: directory.path().display().to_string(),
            started_at: Timestamp::now(),
        };
        let pxe = config.pxe.map(|config| start_service(&store, &config, false)).transpose()?;
        let api = Arc::new(Api {
            store: Arc::clone(&store),
            access: access.clone(),
            sessions: sessions.clone(),
            drivers: DriverLibrary::new(&directory),
            tasks: tasks.clone(),
            cutovers: Cutovers::new(store.clone(), sessions.clone(), config.virsh)?,
            searches: Searches::new(Arc::clone(&store)),
            status: status.clone(),
            pxe: pxe.as_ref().map(|pxe| pxe.log().clone()),
            events: Events::new(),
            requests: Arc::default(),
        });
        Events::follow(&api)?;
        let (stop_api, stopped) = oneshot::channel();
        let router = router(&api);
        let https = https.map(|https| (https, for_everybody(router.clone(), access.clone())));
        let api = serve_api(runtime, &directory, for_the_owner(router), https, stopped)?;
        sessions.listen(listener)?;
        tasks.take_up()?;
        tracing::info!(%agent_address, data_dir = %status.data_dir, "the controller works");
        Ok(Self { status, access, tasks, stop_api, api, pxe, store, mail: None, _directory: directory })
    }

    /// Where it listens, and what it is known by.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// The code that makes the first administrator on this start, for whoever started it; `None` where there is a user, or
    /// no console.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`], [`ErrorKind::Io`] without random numbers.
    pub fn make_setup_code(&self) -> Result<Option<SetupCode>> {
        if self.status.console_address.is_none() {
            return Ok(None);
        }
        self.access.make_setup_code()
    }

    /// Tells operators of tasks by e-mail from now on, with what was to be told before and could not be; `None`: no more.
    ///
    /// # Errors
    /// Those of [`Mailer::new`]; [`ErrorKind::Storage`].
    pub fn tell_by_mail(&mut self, config: Option<&MailConfig>) -> Result<()> {
        self.mail = None;
        match config {
            Some(config) => self.mail = Some(MailService::start(Arc::clone(&self.store), Mailer::new(config)?)?),
            None => self.store.want_mails(&[])?,
        }
        Ok(())
    }

    /// Brings tasks to a safe point and stops the API. Tasks go on with the next controller.
    pub fn stop(self) {
        drop(self.pxe);
        drop(self.mail);
        self.tasks.stop();
        let _ = self.stop_api.send(());
        let _ = self.api.join();
    }
}

/// The fingerprint of the CA that a data directory's controller has, or will have: it is made where it is missing.
///
/// # Errors
/// [`ErrorKind::Io`].
pub fn ca_fingerprint(directory: &DataDirectory) -> Result<String> {
    Ok(load_identity(directory)?.authority().to_string())
}

fn load_identity(directory: &DataDirectory) -> Result<ControllerTls> {
    ControllerTls::load_or_create(&directory.identity())
        .map_err(|e| Error::with(ErrorKind::Io, "the controller's identity", e))
}

/// The threads of the API.
pub(crate) fn api_runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .map_err(|e| Error::io("no threads for the API", e))
}

/// Serves `router` on the data directory's socket, and another on a port, until `stopped`.
pub(crate) fn serve_api(
    runtime: Runtime,
    directory: &LockedDataDirectory,
    router: Router,
    https: Option<(Https, Router)>,
    stopped: oneshot::Receiver<()>,
) -> Result<JoinHandle<()>> {
    let listener = {
        let _inside = runtime.enter();
        bind(directory)?
    };
    let service = router.into_make_service_with_connect_info::<Peer>();
    std::thread::Builder::new()
        .name("api".into())
        .spawn(move || {
            if let Some((https, router)) = https {
                runtime.spawn(https.serve(router));
            }
            let served = async {
                // Not the graceful end: a client that watches would hold it up, and every answer was durable before.
                tokio::select! {
                    served = axum::serve(listener, service).into_future() => served,
                    _ = stopped => Ok(()),
                }
            };
            if let Err(error) = runtime.block_on(served) {
                tracing::error!(%error, "the API ended");
            }
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        })
        .map_err(|e| Error::io("no thread for the API", e))
}
