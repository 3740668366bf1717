//! Reads the one-time token that an operator gave this machine: from a file, standard input or the environment, never from
//! an argument, which every user of the machine can see.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use protocol::enrolment::{EnrolmentToken, TOKEN_TEXT_BYTES_MAX};

use crate::{Error, ErrorKind, Result};

/// The environment variable that may hold a token.
pub(crate) const VARIABLE: &str = "VCONVERTER_ENROL";

/// Reads a token from a file, or from standard input where it is `-`.
pub(crate) fn load_token(path: &Path) -> Result<EnrolmentToken> {
    let shown = path.display();
    let unread = |e| Error::new(ErrorKind::Config, format!("cannot read the enrolment token {shown}")).because(e);
    if path == Path::new("-") {
        return read_token(std::io::stdin().lock()).map_err(unread)?;
    }
    let file = File::open(path).map_err(unread)?;
    let metadata = file.metadata().map_err(unread)?;
    if metadata.is_file() && metadata.mode() & 0o077 != 0 {
        let text =
            format!("{shown}: expected mode 0600, found {:04o}: others may read the token", metadata.mode() & 0o7777);
        return Err(Error::new(ErrorKind::Config, text));
    }
    read_token(file).map_err(unread)?
}

/// The outer result is the reading's.
fn read_token(from: impl Read) -> std::io::Result<Result<EnrolmentToken>> {
    let mut text = String::new();
    from.take(TOKEN_TEXT_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    Ok(parse_token(&text))
}

/// Parses the text of a token, which no error repeats.
pub(crate) fn parse_token(text: &str) -> Result<EnrolmentToken> {
    text.parse().map_err(|e: protocol::Error| Error { kind: ErrorKind::Config, ..e.into() })
}
