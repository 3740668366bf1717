//! A text that must not be seen: it cannot be printed or serialized, and its memory is overwritten.

use std::fmt;

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// Longest secret in bytes: a private key fits.
pub const SECRET_BYTES_MAX: usize = 64 << 10;

/// A password, a key or a token, as somebody typed it.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text over; the caller keeps no copy.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself. Whoever asks for it must not let it out.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Types that hold a secret can still be printed, without it.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let secret = String::deserialize(deserializer).map(Self::new)?;
        if secret.len() > SECRET_BYTES_MAX {
            return Err(serde::de::Error::custom(format!("a secret has at most {SECRET_BYTES_MAX} bytes")));
        }
        Ok(secret)
    }
}

impl schemars::JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string", "format": "password", "writeOnly": true, "maxLength": SECRET_BYTES_MAX
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed_and_is_bounded() {
        let secret: Secret = serde_json::from_str("\"hunter2 hunter2\"").unwrap();
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "(secret) Some((secret))");
        let long = format!("\"{}\"", "x".repeat(SECRET_BYTES_MAX + 1));
        let error = serde_json::from_str::<Secret>(&long).unwrap_err().to_string();
        assert!(error.contains("at most") && !error.contains("xxx"), "{error}");
    }
}
