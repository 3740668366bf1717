//! Passwords: argon2id with the parameters of OWASP's Password Storage Cheat Sheet, length as the only rule (NIST SP
//! 800-63B, 5.1.1.2: no composition rules).

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use argon2::password_hash::phc::{PasswordHash, Salt};
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};

use super::Secret;
use crate::{Error, ErrorKind, Result};

/// Shortest password in characters.
pub const PASSWORD_CHARACTERS_MIN: usize = 12;
/// Longest password in bytes.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Memory of one hash in KiB, passes, lanes.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Hashes at one time: what strangers can take of memory (76 MiB) and of the threads that answer everybody else.
const HASHES_MAX: usize = 4;

static HASHES: AtomicUsize = AtomicUsize::new(0);

/// A place among the hashes that are made just now.
struct Place;

impl Place {
    fn take() -> Result<Self> {
        HASHES
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| (count < HASHES_MAX).then_some(count + 1))
            .map(|_| Self)
            .map_err(|_| Error::too_many("too many logins at this moment", 1000))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        HASHES.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The hash of a new password, as a PHC string.
///
/// # Errors
/// [`ErrorKind::Invalid`] for one that is too short or too long, [`ErrorKind::TooMany`] while many are hashed.
pub(super) fn hash_password(password: &Secret) -> Result<String> {
    check(password)?;
    let _place = Place::take()?;
    hash(password.expose().as_bytes())
}

/// Whether `password` is the one of `phc`. Without a hash, for a user that is not there, it takes the same time and is
/// `false`.
///
/// # Errors
/// [`ErrorKind::TooMany`] while many are hashed, [`ErrorKind::Storage`] for a hash that is none.
pub(super) fn verify_password(phc: Option<&str>, password: &Secret) -> Result<bool> {
    static NOBODY: LazyLock<Option<String>> = LazyLock::new(|| hash(b"nobody has this password").ok());
    let _place = Place::take()?;
    let nobody = NOBODY.as_deref().unwrap_or_default();
    let broken = |e| Error::with(ErrorKind::Storage, "a password's hash cannot be understood", e);
    let parsed = PasswordHash::new(phc.unwrap_or(nobody)).map_err(broken)?;
    let bytes = password.expose().as_bytes();
    // What is longer was never a password; it is not worth the time of reading it all.
    let fits = argon2()?.verify_password(&bytes[..bytes.len().min(PASSWORD_BYTES_MAX)], &parsed).is_ok();
    Ok(fits && phc.is_some() && bytes.len() <= PASSWORD_BYTES_MAX)
}

fn check(password: &Secret) -> Result<()> {
    let (characters, bytes) = (password.expose().chars().count(), password.len());
    if characters < PASSWORD_CHARACTERS_MIN {
        let context = format!("password: expected at least {PASSWORD_CHARACTERS_MIN} characters, found {characters}");
        return Err(Error::new(ErrorKind::Invalid, context));
    }
    if bytes > PASSWORD_BYTES_MAX {
        let context = format!("password: expected at most {PASSWORD_BYTES_MAX} bytes, found {bytes}");
        return Err(Error::new(ErrorKind::Invalid, context));
    }
    Ok(())
}

fn argon2() -> Result<Argon2<'static>> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)
        .map_err(|e| Error::new(ErrorKind::Invalid, format!("argon2 parameters: {e}")))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &[u8]) -> Result<String> {
    let failed = |e: String| Error::new(ErrorKind::Io, format!("password cannot be hashed: {e}"));
    let salt = super::token::random::<{ Salt::RECOMMENDED_LENGTH }>()?;
    let hash: PasswordHash = argon2()?.hash_password_with_salt(password, &salt).map_err(|e| failed(e.to_string()))?;
    Ok(hash.to_string())
}

/// A key of 256 bits from a passphrase, with the same parameters.
///
/// # Errors
/// [`ErrorKind::Io`].
pub(super) fn derive_key(passphrase: &Secret, salt: &[u8]) -> Result<zeroize::Zeroizing<[u8; 32]>> {
    let mut key = zeroize::Zeroizing::new([0; 32]);
    argon2()?
        .hash_password_into(passphrase.expose().as_bytes(), salt, &mut *key)
        .map_err(|e| Error::new(ErrorKind::Io, format!("no key can be derived from the passphrase: {e}")))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.into())
    }

    #[test]
    fn a_password_fits_its_own_hash_only_and_nobody_has_one() {
        let phc = hash_password(&secret("correct horse battery")).unwrap();
        println!("{phc}");
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert!(verify_password(Some(&phc), &secret("correct horse battery")).unwrap());
        assert!(!verify_password(Some(&phc), &secret("correct horse batterx")).unwrap());
        assert!(!verify_password(None, &secret("nobody has this password")).unwrap());
        assert_eq!(verify_password(Some("plain"), &secret("plain")).unwrap_err().kind, ErrorKind::Storage);
        assert_ne!(phc, hash_password(&secret("correct horse battery")).unwrap(), "each has its salt");
    }

    #[test]
    fn length_is_the_only_rule() {
        for good in ["aaaaaaaaaaaa", "žluťoučký kůň", &"x".repeat(PASSWORD_BYTES_MAX)] {
            check(&secret(good)).unwrap();
        }
        for bad in ["", "elevenchars", &"x".repeat(PASSWORD_BYTES_MAX + 1)] {
            let error = check(&secret(bad)).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid);
            assert!(bad.is_empty() || !error.to_string().contains(bad), "{error}");
        }
    }
}
