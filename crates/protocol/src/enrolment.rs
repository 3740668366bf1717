//! One-time enrolment tokens: an operator's approval, given before the machine is there.
//!
//! `vce_`, the fingerprint of the controller's CA, `_`, a secret of 128 bits; both as hexadecimal digits. The fingerprint
//! tells the agent whom it may give the secret to: a token is sent to no other controller. The controller keeps a hash of
//! the secret. Whoever has the text can enrol one machine with it, once; so no error and no debug output repeats it.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::message::{Bytes32, fill_random, from_hex, to_hex};
use crate::tls::Fingerprint;
use crate::{Error, Result};

/// What a token begins with, so that tools that look for leaked secrets know it.
const PREFIX: &str = "vce_";
const SECRET_BYTES: usize = 16;
/// Longest text that is looked at, blanks around a token included.
pub const TOKEN_TEXT_BYTES_MAX: usize = 256;

/// A token as an operator hands it to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolmentToken {
    authority: Fingerprint,
    secret: EnrolmentSecret,
}

/// The part of a token that is sent; 32 hexadecimal digits in JSON. Debug output does not show it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnrolmentSecret([u8; SECRET_BYTES]);

impl EnrolmentToken {
    /// A fresh one for the controller of this CA.
    ///
    /// # Errors
    /// [`ErrorKind::Identity`](crate::ErrorKind) when the system gives no randomness.
    pub fn random(authority: Fingerprint) -> Result<Self> {
        let mut secret = [0; SECRET_BYTES];
        fill_random(&mut secret)?;
        Ok(Self { authority, secret: EnrolmentSecret(secret) })
    }

    /// Fingerprint of the CA of the controller that made it.
    pub fn authority(&self) -> Fingerprint {
        self.authority
    }

    /// What that controller, and nobody else, is told.
    pub fn secret(&self) -> EnrolmentSecret {
        self.secret
    }

    /// The text, for whoever made it. It must not be logged.
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}_{}", self.authority, to_hex(&self.secret.0))
    }
}

impl FromStr for EnrolmentToken {
    type Err = Error;

    /// Reads a token, with or without blanks around it.
    fn from_str(text: &str) -> Result<Self> {
        let wrong =
            || Error::malformed("enrolment token: expected vce_, 64 hexadecimal digits, _, 32 hexadecimal digits");
        let text = Some(text).filter(|text| text.len() <= TOKEN_TEXT_BYTES_MAX).ok_or_else(wrong)?.trim();
        let (authority, secret) = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).ok_or_else(wrong)?;
        let is_plain = authority.bytes().chain(secret.bytes()).all(|digit| digit.is_ascii_hexdigit());
        let parsed = from_hex(authority).ok().zip(from_hex(secret).ok()).filter(|_| is_plain);
        let (authority, secret) = parsed.ok_or_else(wrong)?;
        Ok(Self { authority: Fingerprint(Bytes32(authority)), secret: EnrolmentSecret(secret) })
    }
}

impl EnrolmentSecret {
    /// What a controller keeps of it: SHA-256, which nobody can go back from, for there are 2¹²⁸ secrets.
    pub fn hash(&self) -> Bytes32 {
        let mut text = b"vconverter enrolment ".to_vec();
        text.extend_from_slice(&self.0);
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &text).as_ref());
        Bytes32(hash)
    }
}

impl TryFrom<String> for EnrolmentSecret {
    type Error = String;
    fn try_from(text: String) -> std::result::Result<Self, String> {
        from_hex(&text).map(Self)
    }
}

impl From<EnrolmentSecret> for String {
    fn from(secret: EnrolmentSecret) -> String {
        to_hex(&secret.0)
    }
}

impl fmt::Debug for EnrolmentSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnrolmentSecret(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> EnrolmentToken {
        EnrolmentToken::random(Fingerprint(Bytes32([0xab; 32]))).unwrap()
    }

    #[test]
    fn a_token_is_read_as_it_was_shown() {
        let token = token();
        let text = token.expose();
        assert_eq!((text.len(), &text[..8]), (101, "vce_abab"));
        assert_eq!(text.parse::<EnrolmentToken>().unwrap(), token);
        assert_eq!(format!("\t{text}\r\n").parse::<EnrolmentToken>().unwrap(), token);
        assert_eq!(text.to_uppercase().replace("VCE_", "vce_").parse::<EnrolmentToken>().unwrap(), token);
    }

    #[test]
    fn what_is_no_token_is_refused_and_never_repeated() {
        let text = token().expose();
        let one_more = format!("{text}0");
        let colons = text.replace("abab", "ab:ab");
        let long = format!("{text}{}", " ".repeat(TOKEN_TEXT_BYTES_MAX));
        let no_hex = text.replace('a', "g");
        let wrong = ["", "vce_", "vce__", &text[1..], &text[..100], &one_more, &colons, &long, &no_hex, "vce_é_ü"];
        for wrong in wrong {
            let error = wrong.parse::<EnrolmentToken>().unwrap_err().chain();
            assert!(!error.contains("abab"), "{error}");
        }
        assert!(!format!("{:?}", token()).contains(&text[70..]));
    }

    #[test]
    fn the_hash_is_of_the_secret_alone() {
        let (one, other) = (token(), token());
        assert_eq!(one.secret().hash(), one.secret().hash());
        assert_ne!(one.secret().hash(), other.secret().hash());
        let zeros = EnrolmentSecret([0; SECRET_BYTES]).hash().to_string();
        let of_zeros = "bf7f984a51c2070e94ecd72ad454825b6b6b77f7bba77690f6a7ca1658e5c794";
        assert_eq!(zeros, of_zeros, "as sha256sum says");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_refused_or_reads_back(text: String) {
            if let Ok(token) = text.parse::<EnrolmentToken>() {
                assert_eq!(token.expose().parse::<EnrolmentToken>().unwrap(), token);
            }
        }
    }
}
