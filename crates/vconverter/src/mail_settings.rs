//! The settings of e-mail, which stand in the configuration file alone; `vconverter config test-mail`.

use std::path::PathBuf;

use controller::mail::{MailConfig, MailEvent, MailTls, Mailer};
use controller::trust::{SECRET_BYTES_MAX, Secret};
use serde_json::{Value, json};

use crate::configuration::{Configuration, Origin, Setting};
use crate::failure::{Code, Failure, Result};

/// How operators are told of tasks; without a server they are not.
pub(crate) struct MailSettings {
    pub(crate) server: Setting<Option<String>>,
    port: Setting<u16>,
    tls: Setting<MailTls>,
    ca_file: Setting<Option<PathBuf>>,
    user: Setting<Option<String>>,
    password_file: Setting<Option<PathBuf>>,
    from: Setting<Option<String>>,
    to: Setting<Vec<String>>,
    on: Setting<Vec<MailEvent>>,
}

impl MailSettings {
    pub(crate) fn of(configuration: &Configuration) -> Self {
        let table = &configuration.tables.mail;
        let tls = configuration.setting(("", None), table.tls.as_ref(), MailTls::default);
        let all = || vec![MailEvent::Done, MailEvent::Failed, MailEvent::Waiting];
        Self {
            server: configuration.optional(table.server.as_ref()),
            port: configuration.setting(("", None), table.port.as_ref(), || tls.value.port()),
            ca_file: configuration.optional(table.ca_file.as_ref()),
            user: configuration.optional(table.user.as_ref()),
            password_file: configuration.optional(table.password_file.as_ref()),
            from: configuration.optional(table.from.as_ref()),
            to: configuration.setting(("", None), table.to.as_ref(), Vec::new),
            on: configuration.setting(("", None), table.on.as_ref(), all),
            tls,
        }
    }

    /// What mail is sent with; `None`: none is sent.
    ///
    /// # Errors
    /// What is missing, and a password that cannot be read.
    pub(crate) fn config(&self) -> Result<Option<MailConfig>> {
        let Some(server) = self.server.value.clone() else { return Ok(None) };
        let login = match (&self.user.value, &self.password_file.value) {
            (Some(user), Some(file)) => Some((user.clone(), password(file)?)),
            (None, None) => None,
            _ => return Err(Failure::new(Code::Usage, "mail: expected both user and password-file, or neither")),
        };
        let from = self.from.value.clone().ok_or_else(|| {
            Failure::new(
                Code::Usage,
                format!("mail.server ({}): the sender, mail.from, is missing", self.server.origin),
            )
        })?;
        Ok(Some(MailConfig {
            server,
            port: self.port.value,
            tls: self.tls.value,
            ca_file: self.ca_file.value.clone(),
            login,
            from,
            to: self.to.value.clone(),
            on: self.on.value.clone(),
        }))
    }

    /// Why no mail could be sent.
    pub(crate) fn fault(&self) -> Option<String> {
        let made = self.config().and_then(|config| Ok(config.as_ref().map(Mailer::new).transpose()?));
        made.err().map(|failure| failure.message)
    }

    /// Name as in the file, value, and origin of each.
    pub(crate) fn all(&self) -> Vec<(&'static str, Option<Value>, &Origin)> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| json!(path));
        let text = |text: &Option<String>| text.as_ref().map(|text| json!(text));
        vec![
            ("mail.server", text(&self.server.value), &self.server.origin),
            ("mail.port", Some(json!(self.port.value)), &self.port.origin),
            ("mail.tls", Some(json!(self.tls.value)), &self.tls.origin),
            ("mail.ca-file", path(&self.ca_file.value), &self.ca_file.origin),
            ("mail.user", text(&self.user.value), &self.user.origin),
            ("mail.password-file", path(&self.password_file.value), &self.password_file.origin),
            ("mail.from", text(&self.from.value), &self.from.origin),
            ("mail.to", Some(json!(self.to.value)), &self.to.origin),
            ("mail.on", Some(json!(self.on.value)), &self.on.origin),
        ]
    }
}

/// `vconverter config test-mail`.
pub(crate) fn test(settings: &MailSettings, json: bool) -> Result<()> {
    let config = settings.config()?.ok_or_else(|| {
        Failure::new(Code::Usage, "no mail is sent: the configuration file has no mail.server (see config --help)")
    })?;
    Mailer::new(&config)?.send_test()?;
    match json {
        true => crate::print_json(&json!({ "server": config.server, "to": config.to })),
        false => crate::print(&format!("{} took a mail for {}\n", config.server, config.to.join(", "))),
    }
}

/// The first line of a file.
fn password(file: &std::path::Path) -> Result<Secret> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(SECRET_BYTES_MAX as u64).read_to_string(&mut text))
        .map_err(|e| Failure::io(&format!("mail.password-file {}", file.display()), &e))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Secret::new(line.to_owned())),
        _ => Err(Failure::new(Code::Usage, format!("mail.password-file {}: it is empty", file.display()))),
    }
}
