//! What can be typed about users, tokens and credentials, and to reach a controller on another machine.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use controller::api::Role;
use controller::trust::CredentialKind;

/// A controller on another machine.
#[derive(Debug, Args)]
#[command(next_help_heading = "Another controller")]
pub(crate) struct Remote {
    /// Speak to the controller at this URL, before the command: https://HOST:8443 [default: the data directory's socket]
    #[arg(long, value_name = "URL", env = "VCONVERTER_CONTROLLER", hide_env_values = true)]
    pub(crate) controller: Option<String>,
    /// The API token, in the first line of a file [default: the variable VCONVERTER_TOKEN]
    #[arg(long, value_name = "FILE", env = "VCONVERTER_TOKEN_FILE", hide_env_values = true)]
    pub(crate) token_file: Option<PathBuf>,
    /// Trust these authorities (PEM) [default: those of the system]
    #[arg(long, value_name = "FILE", env = "VCONVERTER_CA_FILE", hide_env_values = true)]
    pub(crate) ca_file: Option<PathBuf>,
    /// Trust the CA with this fingerprint, as `vconverter status` shows it, whatever the controller's name
    #[arg(long, value_name = "HEX", env = "VCONVERTER_CA_FINGERPRINT", hide_env_values = true)]
    pub(crate) ca_fingerprint: Option<String>,
}

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  vconverter users
  vconverter users add ada --role administrator
  vconverter users change bob --role viewer
  vconverter users change bob --password
  vconverter users remove bob

A viewer sees, an operator also approves machines and converts them, an administrator also makes users and credentials. A
password has at least 12 characters; it is asked for, or is the first line of standard input."
)]
pub(crate) struct Users {
    #[command(subcommand)]
    pub(crate) action: Option<UsersAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UsersAction {
    /// Make a user
    Add {
        /// Letters, digits, or any of . _ - @
        name: String,
        /// What they may do: viewer, operator, administrator
        #[arg(long)]
        role: Role,
    },
    /// Change a user; their sessions end
    Change {
        /// The user
        name: String,
        /// What they may do from now on
        #[arg(long)]
        role: Option<Role>,
        /// They cannot log in, and their tokens do not work
        #[arg(long, conflicts_with = "enable")]
        disable: bool,
        /// They can again
        #[arg(long)]
        enable: bool,
        /// Ask for another password
        #[arg(long)]
        password: bool,
    },
    /// Remove a user with their sessions and tokens
    Remove {
        /// The user
        name: String,
    },
}

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  vconverter tokens make backup --role viewer --days 365 > token
  vconverter --controller https://controller:8443 --token-file token --ca-fingerprint 5f2c… machines
  vconverter tokens revoke k-4f9c21ab"
)]
pub(crate) struct Tokens {
    #[command(subcommand)]
    pub(crate) action: Option<TokensAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokensAction {
    /// Make a token and print it, this once
    Make {
        /// What it is for
        name: String,
        /// What it may do: viewer, operator, administrator
        #[arg(long)]
        role: Role,
        /// How long it lasts [default: 90]
        #[arg(long, value_name = "DAYS")]
        days: Option<u32>,
        /// Whose it is; it may do no more than they may [default: whoever makes it]
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// Revoke a token
    Revoke {
        /// Its id, as the list shows it
        id: String,
    },
}

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  vconverter credentials set web1 --kind ssh-password --user root
  vconverter credentials set web2 --kind ssh-key --user root < ~/.ssh/id_ed25519
  vconverter credentials remove web1

The secret is asked for, or comes on standard input. Kinds: ssh-password, ssh-key, windows-password, hypervisor-password,
hypervisor-token, bmc-password, smtp-password."
)]
pub(crate) struct Credentials {
    #[command(subcommand)]
    pub(crate) action: Option<CredentialsAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CredentialsAction {
    /// Keep a credential, in the place of one of the same name
    Set(SetCredential),
    /// Forget a credential
    Remove {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SetCredential {
    /// Letters, digits, dots, hyphens, underscores
    pub(crate) name: String,
    /// What the secret is
    #[arg(long)]
    pub(crate) kind: CredentialKind,
    /// Who logs in with it
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
}
