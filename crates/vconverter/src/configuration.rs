//! The configuration file: TOML, by default `/etc/vconverter/vconverter.toml`.
//!
//! It sets what `serve` and `pxe` also take as options; these go before it. A key that is not known is an error with its
//! line: a setting that was misspelt would else be silently at its default.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use controller::mail::{MailEvent, MailTls};
use serde::Deserialize;
use toml::Spanned;

use crate::failure::{Code, Failure, Result};

/// Where it is looked for when nothing else is said; it need not be there.
pub(crate) const DEFAULT_PATH: &str = "/etc/vconverter/vconverter.toml";
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The file's settings; what is not in it is `None`.
#[derive(Debug, Default)]
pub(crate) struct Configuration {
    /// The file that was read, with its text.
    file: Option<(PathBuf, String)>,
    pub(crate) tables: Tables,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Tables {
    pub(crate) data_dir: Option<Spanned<PathBuf>>,
    pub(crate) listen: Option<Spanned<SocketAddr>>,
    pub(crate) passphrase_file: Option<Spanned<PathBuf>>,
    #[serde(default)]
    pub(crate) console: ConsoleTable,
    #[serde(default)]
    pub(crate) pxe: PxeTable,
    #[serde(default)]
    pub(crate) mail: MailTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ConsoleTable {
    pub(crate) enabled: Option<Spanned<bool>>,
    pub(crate) listen: Option<Spanned<SocketAddr>>,
    pub(crate) tls_cert: Option<Spanned<PathBuf>>,
    pub(crate) tls_key: Option<Spanned<PathBuf>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct PxeTable {
    pub(crate) enabled: Option<Spanned<bool>>,
    pub(crate) boot_image: Option<Spanned<PathBuf>>,
    pub(crate) interfaces: Option<Spanned<Vec<String>>>,
    pub(crate) http_port: Option<Spanned<u16>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct MailTable {
    pub(crate) server: Option<Spanned<String>>,
    pub(crate) port: Option<Spanned<u16>>,
    pub(crate) tls: Option<Spanned<MailTls>>,
    pub(crate) ca_file: Option<Spanned<PathBuf>>,
    pub(crate) user: Option<Spanned<String>>,
    pub(crate) password_file: Option<Spanned<PathBuf>>,
    pub(crate) from: Option<Spanned<String>>,
    pub(crate) to: Option<Spanned<Vec<String>>>,
    pub(crate) on: Option<Spanned<Vec<MailEvent>>>,
}

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An option of the command line.
    Option(&'static str),
    /// A variable of the environment.
    Environment(&'static str),
    /// A line of a file.
    File(PathBuf, usize),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(name) | Self::Environment(name) => f.write_str(name),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value, and where it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) origin: Origin,
}

impl Configuration {
    /// Reads the file that was named, or else the default one where it is there. `is_needed` says whether one that this
    /// user may not read matters: a client's user need not see the controller's secrets.
    ///
    /// # Errors
    /// What cannot be read, or is not understood, with its line.
    pub(crate) fn load(named: Option<&Path>, is_needed: bool) -> Result<Self> {
        let path = named.unwrap_or(Path::new(DEFAULT_PATH));
        match read(path) {
            Ok(text) => Self::parse(path, text),
            Err(error) if named.is_none() && error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) if named.is_none() && error.kind() == ErrorKind::PermissionDenied && !is_needed => {
                Ok(Self::default())
            }
            Err(error) => Err(Failure::file(&format!("configuration {}", path.display()), &error)),
        }
    }

    fn parse(path: &Path, text: String) -> Result<Self> {
        let tables = toml::from_str(&text).map_err(|error| {
            let line = error.span().map(|span| format!(":{}", line_of(&text, span.start))).unwrap_or_default();
            let said = error.message().replace('\n', " ");
            Failure::new(Code::Usage, format!("configuration {}{line}: {said}", path.display()))
        })?;
        Ok(Self { file: Some((path.to_owned(), text)), tables })
    }

    /// The file that was read.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|(path, _)| path.as_path())
    }

    /// What is in force: the option, else the file's value, else the default.
    pub(crate) fn setting<T: Clone>(
        &self,
        option: (&'static str, Option<T>),
        in_file: Option<&Spanned<T>>,
        default: impl FnOnce() -> T,
    ) -> Setting<T> {
        let (name, given) = option;
        match (given, in_file, &self.file) {
            (Some(value), ..) => Setting { value, origin: Origin::Option(name) },
            (None, Some(spanned), Some((path, text))) => {
                let origin = Origin::File(path.clone(), line_of(text, spanned.span().start));
                Setting { value: spanned.get_ref().clone(), origin }
            }
            _ => Setting { value: default(), origin: Origin::Default },
        }
    }

    /// What stands in the file alone, if it does.
    pub(crate) fn optional<T: Clone>(&self, in_file: Option<&Spanned<T>>) -> Setting<Option<T>> {
        match (in_file, &self.file) {
            (Some(spanned), Some((path, text))) => {
                let origin = Origin::File(path.clone(), line_of(text, spanned.span().start));
                Setting { value: Some(spanned.get_ref().clone()), origin }
            }
            _ => Setting { value: None, origin: Origin::Default },
        }
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    match text.len() as u64 > FILE_BYTES_MAX {
        true => Err(std::io::Error::other("longer than 1 MiB")),
        false => Ok(text),
    }
}

/// The line, from 1, of a byte of a text.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Configuration> {
        Configuration::parse(Path::new("/etc/x.toml"), text.into())
    }

    #[test]
    fn what_is_misspelt_is_told_with_its_line() {
        for (text, line, says) in [
            ("listen = \"0.0.0.0:7770\"\nlisen = \"0.0.0.0:1\"\n", 2, "unknown field `lisen`"),
            ("[pxe]\n\nhttp-port = 70000\n", 3, "70000"),
            ("listen = \"everywhere\"\n", 1, "socket address"),
            ("\n[pxe\n", 2, ""),
            ("[pxe]\nenabled = true\nenabled = true\n", 3, "duplicate key"),
        ] {
            let failure = parse(text).unwrap_err();
            assert_eq!(failure.code, Code::Usage);
            let begins = format!("configuration /etc/x.toml:{line}: ");
            assert!(failure.message.starts_with(&begins) && failure.message.contains(says), "{}", failure.message);
            assert_eq!(failure.message.lines().count(), 1, "{}", failure.message);
        }
    }

    #[test]
    fn the_option_goes_before_the_file_and_the_file_before_the_default() {
        let configuration = parse("# mine\n[pxe]\nhttp-port = 8080\n").unwrap();
        let port = |given| {
            let in_file = configuration.tables.pxe.http_port.as_ref();
            configuration.setting(("--http-port", given), in_file, || 80)
        };
        let (typed, written) = (port(Some(81)), port(None));
        assert_eq!((typed.value, typed.origin), (81, Origin::Option("--http-port")));
        assert_eq!((written.value, written.origin.to_string()), (8080, "/etc/x.toml:3".to_owned()));
        let listen = configuration.setting(("--listen", None), configuration.tables.listen.as_ref(), || {
            SocketAddr::from(([0, 0, 0, 0], 7770))
        });
        assert_eq!(listen.origin, Origin::Default);
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("absent.toml");
        assert_eq!(Configuration::load(Some(&missing), false).unwrap_err().code, Code::NotFound);
        let long = folder.path().join("long.toml");
        std::fs::write(&long, "#".repeat((1 << 20) + 1)).unwrap();
        let failure = Configuration::load(Some(&long), true).unwrap_err();
        assert!(failure.message.contains("longer than 1 MiB"), "{}", failure.message);
        std::fs::write(&long, "\n").unwrap();
        assert_eq!(Configuration::load(Some(&long), true).unwrap().path(), Some(long.as_path()));
    }
}
