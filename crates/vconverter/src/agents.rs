//! `vconverter agents`.

use controller::api::{AgentView, MadeEnrolment, NewEnrolment, RevokedAgent};
use controller::store::EnrolmentRecord;
use serde_json::json;

use crate::arguments::TokenAction;
use crate::client::{Client, segment};
use crate::failure::Result;
use crate::table::Table;

/// Digits of a fingerprint that a list shows: enough to name the key with.
const KEY_DIGITS: usize = 16;

/// Ends an agent's key for ever.
pub(crate) fn revoke(client: &Client, key: &str, json: bool) -> Result<()> {
    let revoked: RevokedAgent = client.delete(&format!("/agents/{}", segment(&key.to_ascii_lowercase())))?;
    if json {
        return crate::print_json(&revoked);
    }
    crate::print(&format!("{} is revoked\n", revoked.key))
}

/// `vconverter agents token`.
pub(crate) fn tokens(client: &Client, action: TokenAction, json: bool) -> Result<()> {
    match action {
        TokenAction::List => list_tokens(client, json),
        TokenAction::Create { label, expires } => {
            let new = NewEnrolment { label, minutes: Some(expires.minutes) };
            let made: MadeEnrolment = client.post("/enrolment-tokens", &new)?;
            if json {
                return crate::print_json(&made);
            }
            // The token alone: it goes into a file.
            crate::print(&format!("{}\n", made.token))
        }
        TokenAction::Revoke { id } => {
            client.delete::<()>(&format!("/enrolment-tokens/{}", segment(&id)))?;
            if json {
                return crate::print_json(&json!({ "revoked": id }));
            }
            crate::print(&format!("{id} is revoked\n"))
        }
    }
}

/// All agents.
pub(crate) fn list(client: &Client, json: bool) -> Result<()> {
    let agents: Vec<AgentView> = client.list("/agents")?;
    if json {
        return crate::print_json(&agents);
    }
    if agents.is_empty() {
        return crate::print("no agents: start a machine from the boot image, or `vconverter agents token create`\n");
    }
    let mut table = Table::new(&["KEY", "MACHINE", "SAYS", "APPROVED", "CERTIFICATE UNTIL", ""]);
    for AgentView { about, connected } in agents {
        let until = about.certified_until.map_or_else(|| "none".to_owned(), |until| until.to_string());
        let state = match (about.revoked_at, connected) {
            (Some(_), _) => "revoked",
            (None, true) => "connected",
            (None, false) => "",
        };
        let key = about.key.get(..KEY_DIGITS).unwrap_or(&about.key).to_owned();
        let machine = about.machine.unwrap_or_else(|| "-".into());
        table.row(vec![key, machine, about.label, about.approved_at.to_string(), until, state.into()]);
    }
    crate::print(&table.to_string())
}

fn list_tokens(client: &Client, json: bool) -> Result<()> {
    let tokens: Vec<EnrolmentRecord> = client.list("/enrolment-tokens")?;
    if json {
        return crate::print_json(&tokens);
    }
    if tokens.is_empty() {
        return crate::print("no enrolment tokens\n");
    }
    let mut table = Table::new(&["ID", "LABEL", "BY", "MADE", "UNTIL", ""]);
    for token in tokens {
        let state = match (token.used_at, token.revoked_at) {
            (Some(at), _) => format!("used {at}"),
            (None, Some(at)) => format!("revoked {at}"),
            (None, None) => String::new(),
        };
        let (made, until) = (token.created_at.to_string(), token.expires_at.to_string());
        table.row(vec![token.id, token.label, token.actor, made, until, state]);
    }
    crate::print(&table.to_string())
}
