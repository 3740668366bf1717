//! Random tokens of 256 bits, of which only the hash is kept. They need no slow hash: nobody can guess one.

use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

use crate::{Error, ErrorKind, Result};

/// What an API token begins with, so that tools that look for leaked secrets know it.
const API_PREFIX: &str = "vct_";
const DIGITS: usize = 64;

/// A token as its holder has it.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

/// SHA-256 of a token, in hexadecimal: what the store keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenHash(pub(crate) String);

impl Token {
    /// A new token of a session.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] without random numbers.
    pub fn for_session() -> Result<Self> {
        Self::new("")
    }

    /// A new API token: `vct_…`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] without random numbers.
    pub fn for_api() -> Result<Self> {
        Self::new(API_PREFIX)
    }

    /// Reads the token of a session; `None` for what cannot be one.
    pub fn parse_session(text: &str) -> Option<Self> {
        Self::parse(text, "")
    }

    /// Reads an API token; `None` for what cannot be one.
    pub fn parse_api(text: &str) -> Option<Self> {
        Self::parse(text, API_PREFIX)
    }

    fn new(prefix: &str) -> Result<Self> {
        Ok(Self(Zeroizing::new(format!("{prefix}{}", hex(&*Zeroizing::new(random::<32>()?))))))
    }

    fn parse(text: &str, prefix: &str) -> Option<Self> {
        let digits = text.strip_prefix(prefix)?;
        let is_hex = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        (digits.len() == DIGITS && is_hex).then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The token itself, for its holder.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn hash(&self) -> TokenHash {
        TokenHash(hex(digest(&SHA256, self.0.as_bytes()).as_ref()))
    }

    /// The CSRF token of a session: whoever knows it has seen an answer that only the session gets. It is no way back to
    /// the session's own token, and not what the store keeps.
    pub fn csrf(&self) -> String {
        let mut input = Zeroizing::new(b"vconverter csrf ".to_vec());
        input.extend_from_slice(self.0.as_bytes());
        hex(digest(&SHA256, &input).as_ref())
    }
}

/// Compares in a time that does not tell where two texts differ.
pub(crate) fn equal_in_constant_time(a: &str, b: &str) -> bool {
    let difference =
        a.bytes().zip(b.bytes()).fold(0_u8, |difference, (a, b)| std::hint::black_box(difference | (a ^ b)));
    a.len() == b.len() && difference == 0
}

/// Random bytes of the operating system.
pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::with(ErrorKind::Io, "no random numbers from the operating system", e.to_string()))?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_back_and_their_hashes_are_sha_256() {
        let token = Token::for_api().unwrap();
        assert_eq!(Token::parse_api(token.expose()).unwrap().hash(), token.hash());
        assert_ne!(token.hash(), Token::for_api().unwrap().hash());
        let zeros = Token::parse_session(&"0".repeat(64)).unwrap();
        let of_zeros = "60e05bd1b195af2f94112fa7197a5c88289058840ce7c6df9693756bc6250f55";
        assert_eq!(zeros.hash().0, of_zeros, "as sha256sum says");
        assert_ne!(zeros.csrf(), of_zeros);
    }

    #[test]
    fn what_is_no_token_is_not_looked_up() {
        let token = Token::for_api().unwrap();
        let digits = &token.expose()[4..];
        for wrong in
            ["", "vct_", digits, &token.expose()[..67], &token.expose().to_uppercase(), &format!("vct_{digits}0")]
        {
            assert!(Token::parse_api(wrong).is_none(), "{wrong}");
        }
        assert!(Token::parse_session(token.expose()).is_none());
    }

    #[test]
    fn texts_are_equal_or_not() {
        assert!(equal_in_constant_time("abc", "abc"));
        assert!(!equal_in_constant_time("abc", "abd") && !equal_in_constant_time("abc", "ab"));
    }
}
