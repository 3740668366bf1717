//! What can be typed to install the agent, to remove it and to look at it.

use std::path::PathBuf;
use std::time::Duration;

use protocol::tls::Fingerprint;

use super::USAGE;
use crate::{Error, ErrorKind, Result};

/// A command line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) action: Action,
    /// Only show what would be done.
    pub(super) dry_run: bool,
    /// One JSON object a line.
    pub(super) json: bool,
    /// A mounted system, in which nothing runs, instead of this one.
    pub(super) root: Option<PathBuf>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    Install(Wish),
    Remove,
    Status,
    /// Start the agent of this configuration in the background, unless it runs; for init scripts.
    Background {
        config: PathBuf,
    },
    /// End the agent of this configuration; for init scripts.
    End {
        config: PathBuf,
    },
    Version,
}

/// What is to be installed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// `HOST:PORT`.
    pub(super) controller: String,
    pub(super) ca_fingerprint: Option<Fingerprint>,
    /// Where the one-time token is; `-` is the first line of standard input.
    pub(super) enrol: Option<PathBuf>,
    /// The token, once it was read.
    pub(super) token: Option<String>,
    /// Run it, but install nothing that outlives a restart.
    pub(super) once: bool,
    /// Serve these instead of the machine's disks.
    pub(super) disks: Vec<PathBuf>,
    /// Undo everything unless standard input says `keep` in this time.
    pub(super) keep_within: Option<Duration>,
}

impl Arguments {
    /// Reads what stands behind the word that begins it.
    pub(super) fn parse(word: &str, rest: &[String]) -> Result<Self> {
        let wrong = |text: String| Error::new(ErrorKind::Config, format!("{text}\n{USAGE}"));
        let (mut wish, mut config, mut root) = (Wish::default(), None, None);
        let (mut dry_run, mut json) = (false, false);
        let mut rest = rest.iter();
        while let Some(flag) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| wrong(format!("{flag} needs a value")));
            match (word, flag.as_str()) {
                ("install", "--controller") => wish.controller = value()?.clone(),
                ("install", "--ca-fingerprint") => {
                    let parsed = value()?.parse().map_err(|e| wrong(format!("--ca-fingerprint: {e}")))?;
                    wish.ca_fingerprint = Some(parsed);
                }
                ("install", "--enrol") => wish.enrol = Some(value()?.into()),
                ("install", "--once") => wish.once = true,
                ("install", "--disk") => wish.disks.push(value()?.into()),
                ("install", "--keep-within") => {
                    let seconds = value()?.parse().map_err(|e| wrong(format!("--keep-within: {e}")))?;
                    wish.keep_within = Some(Duration::from_secs(seconds));
                }
                ("install" | "remove", "--dry-run") => dry_run = true,
                ("install" | "remove", "--json") => json = true,
                ("install" | "remove" | "status", "--root") => root = Some(value()?.into()),
                ("background" | "end", "--config") => config = Some(PathBuf::from(value()?)),
                _ => return Err(wrong(format!("unknown argument {flag:?}"))),
            }
        }
        let config = || config.ok_or_else(|| wrong("--config is missing".into()));
        let action = match word {
            "install" => {
                let port = wish.controller.rsplit_once(':').filter(|(host, _)| !host.is_empty());
                if port.and_then(|(_, port)| port.parse::<u16>().ok()).is_none() {
                    return Err(wrong(format!("--controller {:?}: expected HOST:PORT", wish.controller)));
                }
                if wish.once && root.is_some() {
                    return Err(wrong("--once runs the agent here, and --root is another system".into()));
                }
                Action::Install(wish)
            }
            "remove" => Action::Remove,
            "status" => Action::Status,
            "background" => Action::Background { config: config()? },
            "end" => Action::End { config: config()? },
            _ => Action::Version,
        };
        Ok(Self { action, dry_run, json, root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Arguments::parse(&words[0], &words[1..])
    }

    #[test]
    fn what_can_be_typed_is_understood() {
        let parsed =
            parse("install --controller [::1]:7770 --enrol - --once --keep-within 90 --json --disk /d").unwrap();
        let wish = Wish {
            controller: "[::1]:7770".into(),
            ca_fingerprint: None,
            enrol: Some("-".into()),
            token: None,
            once: true,
            disks: vec!["/d".into()],
            keep_within: Some(Duration::from_secs(90)),
        };
        assert_eq!(parsed, Arguments { action: Action::Install(wish), dry_run: false, json: true, root: None });
        let parsed = parse("remove --dry-run --root /mnt").unwrap();
        assert_eq!((parsed.action, parsed.dry_run, parsed.root), (Action::Remove, true, Some("/mnt".into())));
        assert_eq!(parse("end --config /c").unwrap().action, Action::End { config: "/c".into() });
    }

    #[test]
    fn wrong_arguments_are_told_with_the_usage() {
        for wrong in [
            "install",
            "install --controller host",
            "install --controller :1",
            "install --controller a:1 --ca-fingerprint 12",
            "install --controller a:1 --token vce_",
            "install --controller a:1 --once --root /mnt",
            "install --controller",
            "remove --controller a:1",
            "background",
            "status --dry-run",
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(error.kind == ErrorKind::Config && error.context.contains("usage: "), "{wrong}: {error}");
        }
    }
}
