//! The settings in force, made of options, environment and configuration file; `vconverter config`.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use controller::trust::{SECRET_BYTES_MAX, Secret, Unlock};
use controller::{CertificateFiles, ConsoleConfig, DataDirectory, PxeConfig};
use serde_json::{Value, json};

use crate::arguments::{PxeService, Serve};
use crate::configuration::{Configuration, Origin, Setting};
use crate::failure::{Code, Failure, Result};
use crate::mail_settings::MailSettings;

/// Variable of the environment for the data directory.
const DATA_VARIABLE: &str = "VCONVERTER_DATA";

/// Name of the systemd credential that holds the passphrase.
const PASSPHRASE_CREDENTIAL: &str = "vconverter-passphrase";

/// What `serve` works with.
pub(crate) struct Settings {
    pub(crate) data_dir: Setting<PathBuf>,
    pub(crate) listen: Setting<SocketAddr>,
    pub(crate) console: ConsoleSettings,
    passphrase_file: Setting<Option<PathBuf>>,
    forget_credentials: bool,
    pub(crate) pxe_enabled: Setting<bool>,
    pub(crate) pxe: PxeSettings,
    pub(crate) mail: MailSettings,
}

/// The port of console and API.
pub(crate) struct ConsoleSettings {
    enabled: Setting<bool>,
    listen: Setting<SocketAddr>,
    tls_cert: Setting<Option<PathBuf>>,
    tls_key: Setting<Option<PathBuf>>,
}

/// What the PXE service works with.
pub(crate) struct PxeSettings {
    boot_image: Setting<Option<PathBuf>>,
    interfaces: Setting<Vec<String>>,
    http_port: Setting<u16>,
}

/// The data directory: the option, else the environment, else the file, else that of the user.
pub(crate) fn data_dir(given: Option<PathBuf>, configuration: &Configuration) -> Setting<PathBuf> {
    let variable = std::env::var_os(DATA_VARIABLE).filter(|value| !value.is_empty());
    let mut setting = configuration.setting(("--data-dir", given), configuration.tables.data_dir.as_ref(), || {
        DataDirectory::from_environment().path().to_owned()
    });
    if setting.origin == Origin::Option("--data-dir") && variable.is_some_and(|value| setting.value == value) {
        setting.origin = Origin::Environment(DATA_VARIABLE);
    }
    setting
}

impl Settings {
    pub(crate) fn of(serve: &Serve, data_dir: Setting<PathBuf>, configuration: &Configuration) -> Self {
        let tables = &configuration.tables;
        let everywhere = || SocketAddr::from(([0, 0, 0, 0], controller::sessions::AGENT_PORT));
        Self {
            data_dir,
            listen: configuration.setting(("--listen", serve.listen), tables.listen.as_ref(), everywhere),
            console: ConsoleSettings::of(serve, configuration),
            passphrase_file: optional(
                configuration,
                ("--passphrase-file", serve.passphrase_file.as_ref()),
                tables.passphrase_file.as_ref(),
            ),
            forget_credentials: serve.forget_credentials,
            pxe_enabled: configuration.setting(("--pxe", serve.pxe), tables.pxe.enabled.as_ref(), || false),
            pxe: PxeSettings::of(&serve.pxe_service, configuration),
            mail: MailSettings::of(configuration),
        }
    }

    /// Name as in the file, value, and origin of each; `None` where nothing is set.
    fn all(&self) -> Vec<(&'static str, Option<Value>, &Origin)> {
        let (pxe, console) = (&self.pxe, &self.console);
        let path = |setting: &Setting<Option<PathBuf>>| setting.value.as_ref().map(|path| json!(path));
        let mut all = vec![
            ("data-dir", Some(json!(self.data_dir.value)), &self.data_dir.origin),
            ("listen", Some(json!(self.listen.value)), &self.listen.origin),
            ("passphrase-file", path(&self.passphrase_file), &self.passphrase_file.origin),
            ("console.enabled", Some(json!(console.enabled.value)), &console.enabled.origin),
            ("console.listen", Some(json!(console.listen.value)), &console.listen.origin),
            ("console.tls-cert", path(&console.tls_cert), &console.tls_cert.origin),
            ("console.tls-key", path(&console.tls_key), &console.tls_key.origin),
            ("pxe.enabled", Some(json!(self.pxe_enabled.value)), &self.pxe_enabled.origin),
            ("pxe.boot-image", path(&pxe.boot_image), &pxe.boot_image.origin),
            ("pxe.interfaces", Some(json!(pxe.interfaces.value)), &pxe.interfaces.origin),
            ("pxe.http-port", Some(json!(pxe.http_port.value)), &pxe.http_port.origin),
        ];
        all.extend(self.mail.all());
        all
    }

    /// What cannot work, each in a line that says what to do.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |name: &str, origin: &Origin, why: String| faults.push(format!("{name} ({origin}): {why}"));
        let (data_dir, pxe) = (&self.data_dir, &self.pxe);
        if !data_dir.value.is_absolute() {
            fault("data-dir", &data_dir.origin, "expected a path that begins with /".into());
        }
        let console = &self.console;
        for (name, setting) in [
            ("passphrase-file", &self.passphrase_file),
            ("console.tls-cert", &console.tls_cert),
            ("console.tls-key", &console.tls_key),
        ] {
            if let Some(path) = setting.value.as_ref().filter(|path| !path.is_file()) {
                fault(name, &setting.origin, format!("{} is no file", path.display()));
            }
        }
        if let (Some(_), None, alone) | (None, Some(_), alone) =
            (&console.tls_cert.value, &console.tls_key.value, &console.tls_cert)
        {
            fault("console.tls-cert", &alone.origin, "it goes with console.tls-key".into());
        }
        match &pxe.boot_image.value {
            Some(path) if !path.is_dir() => {
                let why = format!("{} is no folder: make it by `vconverter boot-image build --output`", path.display());
                fault("pxe.boot-image", &pxe.boot_image.origin, why);
            }
            None if self.pxe_enabled.value => {
                let why = "the PXE service needs pxe.boot-image: the folder that `vconverter boot-image build` made";
                fault("pxe.enabled", &self.pxe_enabled.origin, why.into());
            }
            _ => {}
        }
        for name in &pxe.interfaces.value {
            // A name is one segment, whatever is written there.
            if name.contains('/') || !PathBuf::from("/sys/class/net").join(name).exists() {
                fault("pxe.interfaces", &pxe.interfaces.origin, format!("this machine has no interface {name:?}"));
            }
        }
        faults.extend(self.mail.fault());
        faults
    }
}

impl Settings {
    /// What opens the credentials: the passphrase of a file, or of systemd's credential.
    pub(crate) fn unlock(&self) -> Result<Unlock> {
        let of_systemd = || {
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)?;
            Some(folder.join(PASSPHRASE_CREDENTIAL)).filter(|path| path.is_file())
        };
        let file = self.passphrase_file.value.clone().or_else(of_systemd);
        let passphrase = file.map(|path| read_secret(&path)).transpose()?;
        Ok(Unlock { passphrase, forget: self.forget_credentials })
    }
}

/// A secret in the first line of a file.
pub(crate) fn read_secret(path: &Path) -> Result<Secret> {
    let unreadable = |e| Failure::io(&format!("{}", path.display()), &e);
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(SECRET_BYTES_MAX as u64).read_to_string(&mut text).map_err(unreadable)?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(Failure::new(Code::Usage, format!("{}: its first line is empty", path.display())));
    }
    Ok(Secret::new(line.to_owned()))
}

fn optional(
    configuration: &Configuration,
    (name, given): (&'static str, Option<&PathBuf>),
    in_file: Option<&toml::Spanned<PathBuf>>,
) -> Setting<Option<PathBuf>> {
    if given.is_none() && in_file.is_none() {
        return Setting { value: None, origin: Origin::Default };
    }
    let found = configuration.setting((name, given.cloned()), in_file, PathBuf::new);
    Setting { value: Some(found.value), origin: found.origin }
}

impl ConsoleSettings {
    fn of(serve: &Serve, configuration: &Configuration) -> Self {
        let table = &configuration.tables.console;
        let everywhere = || SocketAddr::from(([0, 0, 0, 0], controller::CONSOLE_PORT));
        let off = serve.no_console.then_some(false);
        // Whoever says where it is to be wants one.
        let on = serve.console.map(|_| true);
        let option = if off.is_some() { ("--no-console", off) } else { ("--console", on) };
        Self {
            enabled: configuration.setting(option, table.enabled.as_ref(), || true),
            listen: configuration.setting(("--console", serve.console), table.listen.as_ref(), everywhere),
            tls_cert: optional(configuration, ("--tls-cert", serve.tls_cert.as_ref()), table.tls_cert.as_ref()),
            tls_key: optional(configuration, ("--tls-key", serve.tls_key.as_ref()), table.tls_key.as_ref()),
        }
    }

    /// What the port is started with; `None` where there is to be none.
    pub(crate) fn config(&self) -> Result<Option<ConsoleConfig>> {
        let certificate = match (&self.tls_cert.value, &self.tls_key.value) {
            (Some(chain), Some(key)) => Some(CertificateFiles { chain: chain.clone(), key: key.clone() }),
            (None, None) => None,
            _ => {
                let message = "console.tls-cert and console.tls-key go together: a certificate and its key";
                return Err(Failure::new(Code::Usage, message));
            }
        };
        Ok(self.enabled.value.then_some(ConsoleConfig { listen: self.listen.value, certificate }))
    }
}

impl PxeSettings {
    pub(crate) fn of(service: &PxeService, configuration: &Configuration) -> Self {
        let table = &configuration.tables.pxe;
        let boot_image = match (&service.boot_image, &table.boot_image) {
            (None, None) => Setting { value: None, origin: Origin::Default },
            (given, in_file) => {
                let found = configuration.setting(("--boot-image", given.clone()), in_file.as_ref(), PathBuf::new);
                Setting { value: Some(found.value), origin: found.origin }
            }
        };
        let named = (!service.interfaces.is_empty()).then(|| service.interfaces.clone());
        Self {
            boot_image,
            interfaces: configuration.setting(("--interface", named), table.interfaces.as_ref(), Vec::new),
            http_port: configuration
                .setting(("--http-port", service.http_port), table.http_port.as_ref(), || netboot::HTTP_PORT),
        }
    }

    /// What the service is started with; it needs a boot image.
    pub(crate) fn config(&self) -> Result<PxeConfig> {
        let boot_image = self.boot_image.value.clone().ok_or_else(|| {
            let message = "--boot-image DIR is needed: the folder that `vconverter boot-image build` made";
            Failure::new(Code::Usage, message)
        })?;
        Ok(PxeConfig { boot_image, interfaces: self.interfaces.value.clone(), http_port: self.http_port.value })
    }
}

/// `vconverter config check`.
pub(crate) fn check(settings: &Settings, configuration: &Configuration, json: bool) -> Result<()> {
    let faults = settings.faults();
    let path = configuration.path().map(|path| path.display().to_string());
    if json {
        crate::print_json(&json!({ "file": path, "good": faults.is_empty(), "faults": faults }))?;
    } else {
        let shown = path.unwrap_or_else(|| "no configuration file; defaults".into());
        let verdict = if faults.is_empty() { "good" } else { "this cannot work" };
        let told: String = faults.iter().map(|fault| format!("  {fault}\n")).collect();
        crate::print(&format!("{shown}: {verdict}\n{told}"))?;
    }
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Failure::silent(Code::Failed)),
    }
}

/// `vconverter config show`.
pub(crate) fn show(settings: &Settings, json: bool) -> Result<()> {
    if json {
        let values: serde_json::Map<String, Value> = settings
            .all()
            .into_iter()
            .map(|(name, value, origin)| (name.into(), json!({ "value": value, "from": origin.to_string() })))
            .collect();
        return crate::print_json(&values);
    }
    crate::print(&shown(settings))
}

/// All settings as a configuration file again, with where each value comes from.
pub(crate) fn shown(settings: &Settings) -> String {
    let mut lines: Vec<(String, &Origin)> = Vec::new();
    let mut table = "";
    let mut text = String::new();
    for (name, value, origin) in settings.all() {
        let (its_table, key) = name.split_once('.').unwrap_or(("", name));
        if its_table != table {
            text.push_str(&aligned(&std::mem::take(&mut lines)));
            text.push_str(&format!("\n[{its_table}]\n"));
            table = its_table;
        }
        let line = match value {
            Some(value) => format!("{key} = {}", literal(&value)),
            None => format!("# {key} ="),
        };
        lines.push((line, origin));
    }
    text.push_str(&aligned(&lines));
    text
}

fn aligned(lines: &[(String, &Origin)]) -> String {
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
    lines.iter().map(|(line, origin)| format!("{line:<width$}  # {origin}\n")).collect()
}

/// A value as TOML writes it; our values are texts, numbers, truths and lists of texts.
fn literal(value: &Value) -> String {
    toml::Value::try_from(value).map_or_else(|_| value.to_string(), |value| value.to_string())
}
