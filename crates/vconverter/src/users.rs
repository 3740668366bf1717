//! `vconverter users`, `tokens` and `credentials`.

use controller::api::{MadeToken, NewToken};
use controller::store::{ApiToken, User};
use controller::trust::{Credential, CredentialKind};
use serde_json::{Value, json};

use crate::arguments::{CredentialsAction, SetCredential, TokensAction, UsersAction};
use crate::client::{Client, segment};
use crate::failure::Result;
use crate::secret_input::{read_all, read_line, read_new};
use crate::table::Table;

pub(crate) fn users(client: &Client, action: Option<UsersAction>, json: bool) -> Result<()> {
    let path = |name: &str| format!("/users/{}", segment(name));
    let user: User = match action {
        None => return list_users(client, json),
        Some(UsersAction::Add { name, role }) => {
            let password = read_new(&format!("password of {name}"))?;
            client.post("/users", &json!({ "name": name, "role": role, "password": password }))?
        }
        Some(UsersAction::Change { name, role, disable, enable, password }) => {
            let disabled = match (disable, enable) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                _ => None,
            };
            let password = if password { Some(read_new(&format!("new password of {name}"))?) } else { None };
            client.post(&path(&name), &json!({ "role": role, "disabled": disabled, "password": password }))?
        }
        Some(UsersAction::Remove { name }) => {
            client.delete::<()>(&path(&name))?;
            return told(json, &json!({ "removed": name }), &format!("{name} is removed\n"));
        }
    };
    let disabled = if user.disabled { ", disabled" } else { "" };
    told(json, &json!(user), &format!("{}: {}{disabled}\n", user.name, user.role))
}

fn list_users(client: &Client, json: bool) -> Result<()> {
    let users: Vec<User> = client.get("/users")?;
    if json {
        return crate::print_json(&users);
    }
    if users.is_empty() {
        return crate::print("no users: vconverter users add NAME --role administrator\n");
    }
    let mut table = Table::new(&["NAME", "ROLE", "LAST LOGIN", ""]);
    for user in users {
        let last = user.last_login_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
        table.row(vec![user.name, user.role.to_string(), last, if user.disabled { "disabled" } else { "" }.into()]);
    }
    crate::print(&table.to_string())
}

pub(crate) fn tokens(client: &Client, action: Option<TokensAction>, json: bool) -> Result<()> {
    match action {
        None => {
            let tokens: Vec<ApiToken> = client.get("/tokens")?;
            if json {
                return crate::print_json(&tokens);
            }
            if tokens.is_empty() {
                return crate::print("no tokens\n");
            }
            let mut table = Table::new(&["ID", "NAME", "USER", "ROLE", "UNTIL", "LAST USED", ""]);
            for token in tokens {
                let used = token.used_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
                let revoked = if token.revoked_at.is_some() { "revoked" } else { "" };
                let user = token.user.unwrap_or_default();
                let until = token.expires_at.to_string();
                table.row(vec![token.id, token.name, user, token.role.to_string(), until, used, revoked.into()]);
            }
            crate::print(&table.to_string())
        }
        Some(TokensAction::Make { name, role, days, user }) => {
            let made: MadeToken = client.post("/tokens", &NewToken { name, role, days, user })?;
            // The token alone: it goes into a file.
            told(json, &json!(made), &format!("{}\n", made.token))
        }
        Some(TokensAction::Revoke { id }) => {
            client.delete::<()>(&format!("/tokens/{}", segment(&id)))?;
            told(json, &json!({ "revoked": id }), &format!("{id} is revoked\n"))
        }
    }
}

pub(crate) fn credentials(client: &Client, action: Option<CredentialsAction>, json: bool) -> Result<()> {
    let path = |name: &str| format!("/credentials/{}", segment(name));
    match action {
        None => {
            let credentials: Vec<Credential> = client.get("/credentials")?;
            if json {
                return crate::print_json(&credentials);
            }
            if credentials.is_empty() {
                return crate::print("no credentials\n");
            }
            let mut table = Table::new(&["NAME", "KIND", "USER", "SET"]);
            for credential in credentials {
                let set = credential.changed_at.to_string();
                table.row(vec![credential.name, credential.kind.to_string(), credential.user, set]);
            }
            crate::print(&table.to_string())
        }
        Some(CredentialsAction::Set(SetCredential { name, kind, user })) => {
            let secret = match kind {
                CredentialKind::SshKey => read_all()?,
                _ => read_line(&format!("{kind} {name}"))?,
            };
            let body = json!({ "kind": kind, "user": user.unwrap_or_default(), "secret": secret });
            let set: Credential = client.put(&path(&name), &body)?;
            told(json, &json!(set), &format!("{} is set\n", set.name))
        }
        Some(CredentialsAction::Remove { name }) => {
            client.delete::<()>(&path(&name))?;
            told(json, &json!({ "removed": name }), &format!("{name} is removed\n"))
        }
    }
}

fn told(json: bool, value: &Value, text: &str) -> Result<()> {
    if json { crate::print_json(value) } else { crate::print(text) }
}
