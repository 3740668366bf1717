//! Network settings as they are given to a build: a TOML file, or a short form on the command line.
//!
//! What they mean is the boot image's own affair: its program reads them, and checks them for the builder, too
//! (`check_configuration`), so that both agree.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::{Error, ErrorKind, Result};

/// Longest file in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Settings of a link; with a bond they are the bond's.
const LINK: &[&str] = &["mode", "address", "gateway", "address6", "gateway6", "vlan", "mtu", "speed"];
/// Argument by which our program for the inside checks a configuration.
const CHECK: &str = "--check-configuration";

/// The section `[network]` of the configuration; empty means DHCP on every interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Network(Table);

impl From<Table> for Network {
    fn from(table: Table) -> Self {
        Self(table)
    }
}

impl Network {
    /// What an operator gave: settings as `address=192.0.2.7/24,vlan=12`, or else the path of a file.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfiguration`].
    pub fn from_argument(text: &str) -> Result<Self> {
        match text == "dhcp" || text.contains('=') {
            true => Self::parse_words(text),
            false => Self::load(Path::new(text)),
        }
    }

    /// Reads the short form: `NAME=VALUE` with commas between. Several name servers have a `+` between them, and so have
    /// the members of a bond: `bond=active-backup:52:54:00:12:34:56+52:54:00:12:34:57`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfiguration`] with the word that is wrong.
    pub fn parse_words(text: &str) -> Result<Self> {
        let (mut all, mut link, mut bond) = (Table::new(), Table::new(), None);
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (name, value) = match word {
                "dhcp" => ("mode", "dhcp"),
                _ => word.split_once('=').ok_or_else(|| wrong(format!("{word:?}: expected NAME=VALUE")))?,
            };
            let text = || Value::String(value.to_owned());
            let number =
                || value.parse().map(Value::Integer).map_err(|_| wrong(format!("{word:?}: expected a number")));
            let list = |text: &str| text.split('+').map(|one| Value::String(one.to_owned())).collect::<Vec<_>>();
            let before = match name {
                "mode" | "address" | "gateway" | "address6" | "gateway6" | "speed" => link.insert(name.into(), text()),
                "vlan" | "mtu" => link.insert(name.into(), number()?),
                "hostname" | "interface" | "mac" => all.insert(name.into(), text()),
                "dns" => all.insert(name.into(), Value::Array(list(value))),
                "bond" => {
                    let expected = || wrong(format!("{word:?}: expected bond=POLICY:MAC+MAC"));
                    let (policy, members) = value.split_once(':').ok_or_else(expected)?;
                    let mut table = Table::new();
                    table.insert("policy".into(), Value::String(policy.to_owned()));
                    table.insert("members".into(), Value::Array(list(members)));
                    bond.replace(table).map(Value::Table)
                }
                _ => {
                    let known = [LINK, &["dns", "hostname", "interface", "mac", "bond"]].concat().join(", ");
                    return Err(wrong(format!("{name}: there is no such setting: expected one of {known}")));
                }
            };
            if before.is_some() {
                return Err(wrong(format!("{name} is given twice")));
            }
        }
        if link.contains_key("address") && !link.contains_key("mode") {
            link.insert("mode".into(), Value::String("static".into()));
        }
        match bond {
            None => all.extend(link),
            Some(mut bond) => {
                bond.extend(link);
                all.insert("bond".into(), Value::Table(bond));
            }
        }
        Ok(Self(all))
    }

    /// Reads a file: a configuration of a boot image, of which only the section `[network]` counts, as the Network
    /// Configurator saves one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfiguration`].
    pub fn load(path: &Path) -> Result<Self> {
        let shown = path.display();
        let unread = |e| Error { kind: ErrorKind::InvalidConfiguration, ..Error::path("read", path, e) };
        let length = fs::metadata(path).map_err(unread)?.len();
        if length > FILE_BYTES_MAX {
            return Err(wrong(format!("{shown}: expected at most {FILE_BYTES_MAX} bytes, found {length}")));
        }
        let text = fs::read_to_string(path).map_err(unread)?;
        let mut file: Table = text
            .parse()
            .map_err(|e: toml::de::Error| wrong(format!("{shown}: {}", e.to_string().replace('\n', " "))))?;
        match file.remove("network") {
            Some(Value::Table(network)) => Ok(Self(network)),
            _ => Err(wrong(format!("{shown}: expected a section [network]"))),
        }
    }

    /// Whether there is nothing to be checked.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Has our own program for the inside check a configuration: it is the one that will read it.
pub(crate) fn check_configuration(bootenv: &Path, file: &Path) -> Result<()> {
    let output = Command::new(bootenv).arg(CHECK).arg(file).stdin(Stdio::null()).output();
    let output = output.map_err(|e| Error::path("start", bootenv, e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(
        ErrorKind::InvalidConfiguration,
        said.lines().next().unwrap_or("the configuration is refused").trim(),
    ))
}

fn wrong(what: String) -> Error {
    Error::new(ErrorKind::InvalidConfiguration, format!("network: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        toml::to_string(&Network::parse_words(text).unwrap()).unwrap()
    }

    #[test]
    fn the_short_form_becomes_settings() {
        assert_eq!(words("dhcp"), "mode = \"dhcp\"\n");
        assert_eq!(
            words("address=192.0.2.7/24, gateway=192.0.2.1,dns=192.0.2.53+2001:db8::53,vlan=12,mtu=9000"),
            "address = \"192.0.2.7/24\"\ndns = [\"192.0.2.53\", \"2001:db8::53\"]\ngateway = \"192.0.2.1\"\n\
             mode = \"static\"\nmtu = 9000\nvlan = 12\n"
        );
        let bond = words("bond=802.3ad:52:54:00:12:34:56+52:54:00:12:34:57,address=192.0.2.7/24,hostname=web1");
        let bond: Table = bond.parse().unwrap();
        assert_eq!(bond["bond"]["policy"].as_str(), Some("802.3ad"));
        assert_eq!(bond["bond"]["members"][1].as_str(), Some("52:54:00:12:34:57"));
        assert_eq!(bond["bond"]["mode"].as_str(), Some("static"), "the settings of the link are the bond's");
        assert_eq!(bond["hostname"].as_str(), Some("web1"));
    }

    #[test]
    fn wrong_words_are_named() {
        for (text, named) in [
            ("adress=192.0.2.7/24", "adress: there is no such setting"),
            ("vlan=twelve", "\"vlan=twelve\": expected a number"),
            ("mtu=1500,mtu=9000", "mtu is given twice"),
            ("vlan=12,static", "\"static\": expected NAME=VALUE"),
            ("bond=802.3ad", "expected bond=POLICY:MAC+MAC"),
        ] {
            let error = Network::from_argument(text).unwrap_err();
            assert!(error.kind == ErrorKind::InvalidConfiguration && error.context.contains(named), "{error}");
        }
    }

    #[test]
    fn a_file_gives_its_section_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("saved");
        fs::write(&file, "controller = \"c:1\"\n[network]\nmode = \"dhcp\"\nvlan = 12\n").unwrap();
        let network = Network::from_argument(file.to_str().unwrap()).unwrap();
        assert_eq!(toml::to_string(&network).unwrap(), "mode = \"dhcp\"\nvlan = 12\n");
        for (text, named) in [("vlan = 12\n", "expected a section [network]"), ("=", "saved: ")] {
            fs::write(&file, text).unwrap();
            assert!(Network::load(&file).unwrap_err().context.contains(named));
        }
        let missing = Network::load(&folder.path().join("absent")).unwrap_err();
        assert_eq!(missing.kind, ErrorKind::InvalidConfiguration);
    }
}
