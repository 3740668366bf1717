//! The code that makes the first administrator: printed by each start while there is no user, good for an hour.

use std::fmt;

use super::token::{equal_in_constant_time, random};
use crate::{Result, Timestamp};

/// Crockford's base 32: no I, L, O or U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// 80 bits.
const DIGITS: usize = 16;
/// How long it is good, in milliseconds.
const LIFE_MS: u64 = 60 * 60 * 1000;

/// `XXXX-XXXX-XXXX-XXXX`. Whoever reads the controller's output may be its first administrator.
#[derive(Clone)]
pub struct SetupCode {
    text: String,
    made_at: Timestamp,
}

impl SetupCode {
    /// A new one.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind) without random numbers.
    pub fn new(now: Timestamp) -> Result<Self> {
        let digits = random::<DIGITS>()?.map(|byte| char::from(ALPHABET[usize::from(byte & 31)]));
        let groups: Vec<String> = digits.chunks(4).map(|group| group.iter().collect()).collect();
        Ok(Self { text: groups.join("-"), made_at: now })
    }

    /// Whether this is what was typed, in time. Case, hyphens and spaces do not matter, nor letters that look like digits.
    pub fn fits(&self, typed: &str, now: Timestamp) -> bool {
        let typed = normal(typed.get(..64).unwrap_or(typed));
        let fits = equal_in_constant_time(&typed, &normal(&self.text));
        fits && !self.is_over(now)
    }

    /// Whether its hour has passed.
    pub fn is_over(&self, now: Timestamp) -> bool {
        now.millis_since(self.made_at) > LIFE_MS
    }
}

/// For the screen of whoever started the controller, and nobody else.
impl fmt::Display for SetupCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

fn normal(text: &str) -> String {
    text.chars()
        .filter(|c| !matches!(c, '-' | ' '))
        .map(|c| match c.to_ascii_uppercase() {
            'I' | 'L' => '1',
            'O' => '0',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setup_code_is_good_for_an_hour_however_it_is_typed() {
        let code = SetupCode::new(Timestamp(0)).unwrap();
        let shown = code.to_string();
        assert_eq!((shown.len(), shown.matches('-').count()), (19, 3), "{shown}");
        let sloppy = shown.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l");
        assert!(code.fits(&shown, Timestamp(3_600_000)) && code.fits(&sloppy, Timestamp(0)));
        assert!(!code.fits(&shown, Timestamp(3_600_001)));
        let other = SetupCode::new(Timestamp(0)).unwrap();
        assert!(!code.fits(&other.to_string(), Timestamp(0)) && !code.fits("", Timestamp(0)));
    }
}
