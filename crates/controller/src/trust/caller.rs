//! Who a request comes from, once that was seen.

use super::Role;
use crate::{Error, ErrorKind, Result};

/// Somebody who was let in.
#[derive(Clone, Debug)]
pub struct Caller {
    /// As the audit log names them: `uid 0`, `user ada`, `user ada, token backup`.
    pub actor: String,
    /// What they may do.
    pub role: Role,
    /// The user; `None` for the owner of the Unix socket and for tokens of nobody in particular.
    pub user: Option<String>,
    /// How that was seen.
    pub proof: Proof,
}

/// How somebody was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The kernel says who is at the other end of the Unix socket.
    Socket,
    /// The cookie of a session; a request that changes something needs its CSRF token too.
    Session {
        /// What `X-CSRF-Token` must say.
        csrf_token: String,
    },
    /// An API token.
    Token,
}

impl Caller {
    /// The owner of the controller, or root, on its Unix socket.
    pub fn on_socket(uid: u32) -> Self {
        Self { actor: format!("uid {uid}"), role: Role::Administrator, user: None, proof: Proof::Socket }
    }

    /// Whether they have at least this role.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`].
    pub fn require(&self, role: Role) -> Result<()> {
        if self.role >= role {
            return Ok(());
        }
        let context = format!("this needs the role {role}; {} has the role {}", self.actor, self.role);
        Err(Error::new(ErrorKind::Forbidden, context))
    }
}
