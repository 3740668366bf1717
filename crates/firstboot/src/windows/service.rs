//! The service: its one start, and how Windows stops it.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use machine::firstboot::SERVICE;
use windows_service::service::{
    ServiceAccess, ServiceControl, ServiceControlAccept, ServiceExitCode, ServiceState, ServiceStatus, ServiceType,
};
use windows_service::service_control_handler::{self, ServiceControlHandlerResult};
use windows_service::service_manager::{ServiceManager, ServiceManagerAccess};
use windows_service::{define_windows_service, service_dispatcher};

use super::running::Windows;
use crate::run::run;
use crate::{Error, Result};

define_windows_service!(service_entry, service_main);

/// Lets Windows' service manager call the service; back when it has stopped.
pub(super) fn dispatch() -> Result<()> {
    service_dispatcher::start(SERVICE, service_entry).map_err(|error| refused("the service manager", error))
}

/// Nobody can be told of a failure here but the service manager, which then sees a service that never ran.
fn service_main(_arguments: Vec<OsString>) {
    let stop = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&stop);
    let control = move |control| match control {
        ServiceControl::Stop | ServiceControl::Shutdown => {
            set.store(true, Ordering::Relaxed);
            ServiceControlHandlerResult::NoError
        }
        ServiceControl::Interrogate => ServiceControlHandlerResult::NoError,
        _ => ServiceControlHandlerResult::NotImplemented,
    };
    let (Ok(handle), Ok(places)) = (service_control_handler::register(SERVICE, control), super::places()) else {
        return;
    };
    let status = |current_state, controls_accepted| ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state,
        controls_accepted,
        exit_code: ServiceExitCode::Win32(0),
        checkpoint: 0,
        wait_hint: Duration::ZERO,
        process_id: None,
    };
    let accepted = ServiceControlAccept::STOP | ServiceControlAccept::SHUTDOWN;
    if handle.set_service_status(status(ServiceState::Running, accepted)).is_ok() {
        run(&mut Windows::stopped_by(&places, stop), &places);
    }
    let _ = handle.set_service_status(status(ServiceState::Stopped, ServiceControlAccept::empty()));
}

/// Takes the service out of the list; its key goes when it has stopped.
pub(super) fn delete() -> Result<()> {
    let manager = ServiceManager::local_computer(None::<&str>, ServiceManagerAccess::CONNECT);
    let service = manager.and_then(|manager| manager.open_service(SERVICE, ServiceAccess::DELETE));
    service.and_then(|service| service.delete()).map_err(|error| refused("the service", error))
}

fn refused(context: &str, error: windows_service::Error) -> Error {
    match error {
        windows_service::Error::Winapi(source) => Error::io(context, source),
        other => Error::new(crate::ErrorKind::Refused, format!("{context}: {other}")),
    }
}
