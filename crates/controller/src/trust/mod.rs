//! Who may do what: users, their sessions and tokens, the credentials that the controller keeps for them.
//!
//! No password, token or credential is kept as it is: passwords as argon2id, tokens as SHA-256, credentials encrypted.
//! None is ever returned or logged; [`Secret`] cannot be printed. Failed logins say nothing about what was wrong with
//! them, also not by the time they take, and cost more time with each one ([`Throttle`]). There is no default account:
//! the first administrator is made with the [`SetupCode`] of this start, or over the Unix socket.

mod access;
mod caller;
mod credential;
mod password;
mod role;
mod secret;
mod setup_code;
mod throttle;
mod token;
mod vault;

pub use access::{Access, Clock, Login};
pub use caller::{Caller, Proof};
pub use credential::{Credential, CredentialKind, NewCredential};
pub use password::{PASSWORD_BYTES_MAX, PASSWORD_CHARACTERS_MIN};
pub use role::Role;
pub use secret::{SECRET_BYTES_MAX, Secret};
pub use setup_code::SetupCode;
pub use throttle::Throttle;
pub use token::{Token, TokenHash};
pub use vault::{Unlock, Vault};

use password::hash_password;
pub(crate) use token::equal_in_constant_time;
