//! What the boot image was told: `/vconverter.toml`, handed over by the boot loader from the medium.

use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::network::settings::Network;
use crate::{Error, Result};

/// Where the boot loader puts the file.
pub const PATH: &str = "/vconverter.toml";
/// Longer ones are no configuration.
const LENGTH_MAX: u64 = 64 << 10;

/// Longer ones name no task.
const TASK_LENGTH_MAX: usize = 256;
/// A switch needs half a minute to let a card speak; nobody waits for longer than a day.
const CONTACT_SECONDS: std::ops::RangeInclusive<u32> = 30..=86_400;
/// What is fed every few seconds, and the longest time of a BMC (IPMI 2.0, section 27.6).
const WATCHDOG_SECONDS: std::ops::RangeInclusive<u32> = 20..=6553;

/// Argument by which the builder has a file checked.
pub const CHECK: &str = "--check-configuration";

/// Contents of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The controller as `HOST:PORT`; asked where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
    /// SHA-256 of the controller's CA, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_fingerprint: Option<String>,
    /// Name of the console's keymap, which lies beside this file, compiled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keymap: Option<String>,
    /// The public key that the rescue shell's SSH server accepts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rescue_key: Option<String>,
    /// What an image is told that was pushed onto its machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push: Option<Push>,
    /// How the network comes up.
    #[serde(default)]
    pub network: Network,
}

/// The section `[push]`: nobody stands in front of the machine, which is to be back in its own system whatever happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// Which task it is for.
    pub task: String,
    /// Seconds without the controller after which the machine's own system is started again.
    #[serde(default = "default_contact_seconds")]
    pub contact_seconds: u32,
    /// Seconds after which the watchdog resets a machine that hangs; none where no watchdog is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog_seconds: Option<u32>,
}

impl Default for Push {
    fn default() -> Self {
        Self { task: String::new(), contact_seconds: default_contact_seconds(), watchdog_seconds: None }
    }
}

fn default_contact_seconds() -> u32 {
    900
}

impl Push {
    fn check(&self) -> Result<()> {
        let wrong = |name: &str, range: &std::ops::RangeInclusive<u32>, found: u32| {
            let (least, most) = (range.start(), range.end());
            Err(Error::new(format!("push.{name}: expected seconds from {least} to {most}, found {found}")))
        };
        if self.task.len() > TASK_LENGTH_MAX {
            return Err(Error::new(format!("push.task: expected at most {TASK_LENGTH_MAX} bytes")));
        }
        if !CONTACT_SECONDS.contains(&self.contact_seconds) {
            return wrong("contact_seconds", &CONTACT_SECONDS, self.contact_seconds);
        }
        match self.watchdog_seconds.filter(|seconds| !WATCHDOG_SECONDS.contains(seconds)) {
            Some(found) => wrong("watchdog_seconds", &WATCHDOG_SECONDS, found),
            None => Ok(()),
        }
    }
}

/// Reads the file at `path`; without one everything is left to DHCP and the screen.
///
/// # Errors
/// A file that cannot be read or understood. What follows then is the same as without one.
pub fn load_configuration(path: &Path) -> Result<Configuration> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Configuration::default()),
        Ok(metadata) if metadata.len() > LENGTH_MAX => Err(Error::new(format!(
            "{}: expected at most {LENGTH_MAX} bytes, found {}",
            path.display(),
            metadata.len()
        ))),
        _ => parse_configuration(&std::fs::read_to_string(path).map_err(|e| Error::path("read", path, e))?),
    }
}

/// Checks the file that the builder is about to put into an image: what is wrong is told there, and so is a setting that
/// nobody would read, as its name is misspelt.
///
/// # Errors
/// Those of [`parse_configuration`], and a setting of no meaning, by its name.
pub fn check_file(path: &Path) -> Result<()> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::path("read", path, e))?;
    let configuration = parse_configuration(&text)?;
    let wrong = |e: &dyn std::fmt::Display| Error::new(format!("configuration: {e}").replace('\n', " "));
    let given: Table = text.parse().map_err(|e: toml::de::Error| wrong(&e))?;
    let read = Table::try_from(&configuration).map_err(|e| wrong(&e))?;
    match unread("", &given, &read) {
        None => Ok(()),
        Some(name) => Err(Error::new(format!("{name}: there is no such setting"))),
    }
}

/// The first setting of `given` that did not become one of `read`. Empty lists are settings that say nothing.
fn unread(within: &str, given: &Table, read: &Table) -> Option<String> {
    given.iter().find_map(|(name, value)| {
        let name_within = format!("{within}{name}");
        let inner = format!("{name_within}.");
        match (value, read.get(name)) {
            (Value::Array(list), None) if list.is_empty() => None,
            (_, None) => Some(name_within),
            (Value::Table(given), Some(Value::Table(read))) => unread(&inner, given, read),
            // One bond alone is written as a table.
            (Value::Array(given), Some(Value::Table(read))) => match given.as_slice() {
                [Value::Table(given)] => unread(&inner, given, read),
                _ => None,
            },
            (Value::Array(given), Some(Value::Array(read))) => given.iter().zip(read).find_map(|pair| match pair {
                (Value::Table(given), Value::Table(read)) => unread(&inner, given, read),
                _ => None,
            }),
            _ => None,
        }
    })
}

/// Reads the file's text.
///
/// # Errors
/// Text that is not TOML, or a value that is of no use, with its name.
pub fn parse_configuration(text: &str) -> Result<Configuration> {
    // A boot loader may hand the file over with its last block filled up.
    let text = text.trim_end_matches('\0');
    let configuration: Configuration =
        toml::from_str(text).map_err(|e| Error::new(format!("configuration: {}", e.to_string().replace('\n', " "))))?;
    if let Some(controller) = &configuration.controller {
        parse_controller(controller)?;
    }
    if let Some(fingerprint) = &configuration.ca_fingerprint
        && !(fingerprint.len() == 64 && fingerprint.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return Err(Error::new("configuration: ca_fingerprint: expected 64 hexadecimal digits"));
    }
    configuration.push.as_ref().map_or(Ok(()), Push::check)?;
    configuration.network.check()?;
    Ok(configuration)
}

/// Checks what was typed or configured as the controller's address; the text without blanks around it.
///
/// # Errors
/// What is wrong with it, for the screen.
pub fn parse_controller(text: &str) -> Result<String> {
    let text = text.trim();
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| Error::new(format!("controller: expected HOST:PORT, found {text:?} without a colon")))?;
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let host_is_fine = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.len() <= 253 && host.chars().all(named),
    };
    if !host_is_fine {
        return Err(Error::new(format!("controller: expected a name or an address before the colon, found {host:?}")));
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(text.to_owned()),
        _ => Err(Error::new(format!("controller: expected a port from 1 to 65535 behind the colon, found {port:?}"))),
    }
}

/// For the fuzzer: of a text that is taken every setting is of use, and what is saved of it is the same when it is read again.
pub fn fuzz_configuration(bytes: &[u8]) {
    let Ok(configuration) = std::str::from_utf8(bytes).map_err(drop).and_then(|t| parse_configuration(t).map_err(drop))
    else {
        return;
    };
    let network = &configuration.network;
    let nics = network.nic.iter().map(|nic| &nic.link);
    let links = nics.chain(network.bond.iter().map(|bond| &bond.link)).chain([&network.all]);
    for link in links {
        assert!(link.static_addresses().is_ok() && link.routes.iter().all(|route| route.destination().is_ok()));
    }
    for nic in &network.nic {
        assert!(network.links_of("eth0", nic.mac).len() <= network.nic.len());
    }
    assert!(network.bonds().len() <= network.bond.len());
    let again = toml::to_string(&configuration).map(|text| parse_configuration(&text));
    assert!(again.is_ok_and(|again| again.is_ok_and(|again| again == configuration)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_file_of_the_builder_is_understood() {
        let text = "# Configuration\ncontroller = \"c.example:8443\"\nca_fingerprint = \"\
            00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"\n\n[network]\nmode = \"static\"\n\
            address = \"192.0.2.7/24\"\ngateway = \"192.0.2.1\"\ndns = [\"192.0.2.53\"]\nmac = \"52:54:00:12:34:56\"\n\0\0";
        let configuration = parse_configuration(text).unwrap();
        assert_eq!(configuration.controller.as_deref(), Some("c.example:8443"));
        let mac = |text: &str| text.parse().unwrap();
        let settings = configuration.network.settings_of("eth3", mac("52:54:00:12:34:56")).unwrap();
        assert_eq!(settings.static_addresses().unwrap()[0].to_string(), "192.0.2.7/24");
        assert_eq!(configuration.network.settings_of("eth3", mac("52:54:00:12:34:57")), None);
    }

    #[test]
    fn a_misspelt_setting_is_told_to_the_builder() {
        let folder = tempfile::tempdir().unwrap();
        let check = |text: &str| {
            let file = folder.path().join("vconverter.toml");
            std::fs::write(&file, text).unwrap();
            check_file(&file).map_err(|error| error.context)
        };
        let whole = "controller = \"c:1\"\nkeymap = \"de\"\nrescue_key = \"ssh-ed25519 A\"\n[network]\nmode = \"dhcp\"\n\
            dns = []\nhostname = \"web1\"\nvlan = 12\n[[network.nic]]\nmac = \"52:54:00:12:34:56\"\nmtu = 9000\n[network.bond]\n\
            policy = \"802.3ad\"\nmembers = [\"52:54:00:12:34:01\"]\n";
        assert_eq!(check(whole), Ok(()));
        for (wrong, name) in [
            ("controler = \"c:1\"", "controler"),
            ("[network]\nadress = \"192.0.2.7/24\"", "network.adress"),
            ("[[network.nic]]\nmac = \"52:54:00:12:34:56\"\nvlanid = 1", "network.nic.vlanid"),
            (
                "[network.bond]\npolicy = \"802.3ad\"\nmembers = [\"52:54:00:12:34:01\"]\nmode = \"dhcp\"\nx = 1",
                "network.bond.x",
            ),
        ] {
            assert_eq!(check(wrong), Err(format!("{name}: there is no such setting")), "{wrong}");
        }
        for (wrong, said) in [
            ("[push]\ntask = \"t\"\ncontact = 1", "push.contact: there is no such setting"),
            (
                "[push]\ntask = \"t\"\ncontact_seconds = 1",
                "push.contact_seconds: expected seconds from 30 to 86400, found 1",
            ),
            (
                "[push]\ntask = \"t\"\nwatchdog_seconds = 7000",
                "push.watchdog_seconds: expected seconds from 20 to 6553, found 7000",
            ),
            (
                "[[network.bond]]\npolicy = \"balance-xor\"\nmembers = [\"52:54:00:12:34:01\"]\nx = 1",
                "network.bond.x: there is no such setting",
            ),
            (
                "[[network.nic]]\nmac = \"52:54:00:12:34:56\"\n[[network.nic.routes]]\nto = \"0.0.0.0/0\"\nvia = \"192.0.2.1\"\nmetrik = 1",
                "network.nic.routes.metrik: there is no such setting",
            ),
        ] {
            assert_eq!(check(wrong), Err(said.to_owned()), "{wrong}");
        }
        assert!(check("[network]\nvlan = 4095").unwrap_err().starts_with("network.vlan: expected"));
    }

    /// One with every setting that there is.
    const WHOLE: &str = "controller = \"[2001:db8::1]:8443\"\nca_fingerprint = \"\
        00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"\nkeymap = \"de\"\n\
        [push]\ntask = \"t\"\ncontact_seconds = 600\nwatchdog_seconds = 300\n\
        [network]\nhostname = \"web1\"\ndns = [\"192.0.2.53\"]\nmode = \"off\"\n\
        [[network.nic]]\nmac = \"52:54:00:12:34:56\"\nmode = \"static\"\naddresses = [\"192.0.2.7/24\", \"2001:db8::7/64\"]\n\
        mtu = 9000\nspeed = \"100/full\"\n[[network.nic.routes]]\nto = \"0.0.0.0/0\"\nvia = \"192.0.2.1\"\nmetric = 100\n\
        [[network.nic]]\nmac = \"52:54:00:12:34:56\"\nvlan = 12\naddress6 = \"2001:db8:1::7/64\"\ngateway6 = \"fe80::1\"\n\
        [[network.bond]]\npolicy = \"balance-xor\"\nmembers = [\"52:54:00:12:34:01\"]\n\
        [[network.bond]]\npolicy = \"802.3ad\"\nmembers = [\"52:54:00:12:34:02\"]\nvlan = 7\n";

    proptest! {
        #[test]
        fn whatever_is_read_is_of_use(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            fuzz_configuration(&bytes);
            bytes.retain(|byte| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\n'));
            fuzz_configuration(&bytes);
        }

        #[test]
        fn a_whole_one_that_was_meddled_with_is_of_use_or_refused(
            changes in prop::collection::vec((0..WHOLE.len(), any::<prop::sample::Index>(), 0_usize..40), 0..4),
        ) {
            prop_assert!(parse_configuration(WHOLE).is_ok());
            let mut bytes = WHOLE.as_bytes().to_vec();
            // A piece from elsewhere in it takes the place of another.
            for (at, from, length) in changes {
                let from = from.index(WHOLE.len());
                let piece = WHOLE.as_bytes()[from..(from + length).min(WHOLE.len())].to_vec();
                let at = at.min(bytes.len());
                let end = (at + length / 2).min(bytes.len());
                bytes.splice(at..end, piece);
            }
            fuzz_configuration(&bytes);
        }
    }

    #[test]
    fn nothing_told_means_dhcp_and_a_question() {
        assert_eq!(parse_configuration("").unwrap(), Configuration::default());
        assert_eq!(load_configuration(Path::new("/nonexistent")).unwrap(), Configuration::default());
    }

    #[test]
    fn wrong_values_are_named() {
        let error = |text: &str| parse_configuration(text).unwrap_err().context;
        assert!(error("controller = \"c\"").contains("HOST:PORT"));
        assert!(error("ca_fingerprint = \"c\"").contains("ca_fingerprint"));
        assert!(error("[network]\nmode = \"static\"").contains("network.address"));
        assert!(error("[network]\nmode = \"manual\"").contains("expected one of `dhcp`, `static`, `off`"));
        assert!(error("=").starts_with("configuration"));
    }

    #[test]
    fn typed_controllers_are_checked() {
        assert_eq!(parse_controller(" 192.0.2.1:8443 \r").unwrap(), "192.0.2.1:8443");
        assert_eq!(parse_controller("[2001:db8::1]:1").unwrap(), "[2001:db8::1]:1");
        for wrong in
            ["", "host", "host:", "host:0", "host:65536", ":1", "ho st:1", "ho/st:1", "[::g]:1", "2001:db8::1:x"]
        {
            assert!(parse_controller(wrong).is_err(), "{wrong:?}");
        }
    }
}
