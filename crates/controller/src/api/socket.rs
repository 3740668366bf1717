//! The API's Unix socket: mode 0600, and only for its owner and root.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use tokio::net::UnixListener;

use super::{Caller, Problem, ProblemKind};

use crate::{Error, ErrorKind, LockedDataDirectory, Result};

/// Who is on the other end of a connection, as the kernel says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    uid: Option<u32>,
}

impl Peer {
    /// This process's user, or root; nobody else is let in.
    fn caller(self) -> Option<Caller> {
        let uid = self.uid.filter(|uid| *uid == 0 || *uid == rustix::process::geteuid().as_raw())?;
        Some(Caller::on_socket(uid))
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self { uid: stream.io().peer_cred().ok().map(|credentials| credentials.uid()) }
    }
}

/// Lets the controller's owner and root do everything, and others nothing.
pub(super) async fn only_for_the_owner(
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(caller) = peer.caller() {
        request.extensions_mut().insert(caller);
        return next.run(request).await;
    }
    tracing::warn!(uid = peer.uid, "refused on the API's socket");
    Problem::new(StatusCode::FORBIDDEN, ProblemKind::Forbidden, "only for the owner of the controller").into_response()
}

/// Listens on the data directory's socket. Its lock is held, so a socket that is there belongs to no living controller
/// and is replaced. It gets its name only when its mode is set.
///
/// # Errors
/// [`ErrorKind::Invalid`] where something else than a socket has its name, [`ErrorKind::ReadOnly`], [`ErrorKind::Io`].
pub(crate) fn bind(directory: &LockedDataDirectory) -> Result<UnixListener> {
    let path = directory.socket();
    let shown = path.display();
    if path.symlink_metadata().is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(Error::new(ErrorKind::Invalid, format!("API socket {shown}: something else has this name")));
    }
    let fresh = path.with_extension("new");
    let _ = std::fs::remove_file(&fresh);
    let listener =
        UnixListener::bind(&fresh).map_err(|e| Error::io(format!("API socket {shown}: cannot listen"), e))?;
    std::fs::set_permissions(&fresh, PermissionsExt::from_mode(0o600))
        .and_then(|()| std::fs::rename(&fresh, &path))
        .map_err(|e| Error::io(format!("API socket {shown}: cannot be put in place"), e))?;
    Ok(listener)
}
