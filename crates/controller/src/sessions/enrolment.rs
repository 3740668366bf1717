//! One-time tokens that approve a machine before it is there: making them, and machines that come with one.

use std::net::IpAddr;
use std::sync::PoisonError;
use std::time::Duration;

use protocol::enrolment::{EnrolmentSecret, EnrolmentToken};

use super::control::network;
use super::{Error, ErrorKind, Result, Sessions};
use crate::store::{Bound, Enrolling, EnrolmentRecord, NewEnrolmentToken, TokenRefusal};

/// Minutes that a token lasts where nothing is said, and at most.
const MINUTES_DEFAULT: u32 = 24 * 60;
/// Thirty days.
const MINUTES_MAX: u32 = 30 * 24 * 60;
/// Longest label in bytes.
const LABEL_BYTES_MAX: usize = 128;

/// Whether a token is taken now.
pub(super) enum Enrolled {
    /// The key is approved.
    Yes,
    /// The token is not good.
    No(TokenRefusal),
    /// Too many wrong ones came from that address: again after so many seconds.
    Later(u64),
}

impl Sessions {
    /// Makes a token that enrols one machine, and shows it this once.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a label or a time that cannot be, those of
    /// [`Store::add_enrolment_token`](crate::store::Store::add_enrolment_token).
    pub fn make_enrolment_token(
        &self,
        label: &str,
        minutes: Option<u32>,
        actor: &str,
    ) -> Result<(EnrolmentRecord, EnrolmentToken)> {
        let minutes = minutes.unwrap_or(MINUTES_DEFAULT);
        if !(1..=MINUTES_MAX).contains(&minutes) {
            let context = format!("minutes of an enrolment token: expected 1 to {MINUTES_MAX}, found {minutes}");
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        let label = label.trim();
        if label.len() > LABEL_BYTES_MAX || label.chars().any(char::is_control) {
            let context =
                format!("label of an enrolment token: expected at most {LABEL_BYTES_MAX} bytes, none of control");
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        let token = EnrolmentToken::random(self.ca_fingerprint())
            .map_err(|e| Error::with(ErrorKind::Io, "enrolment token cannot be made", e))?;
        let now = self.now();
        let expires_at = now.after(std::time::Duration::from_secs(u64::from(minutes) * 60));
        let secret = token.secret();
        let new = NewEnrolmentToken { secret: &secret, label, created_at: now, expires_at, bound: None };
        Ok((self.0.store.add_enrolment_token(new, actor)?, token))
    }

    /// Makes a token for one machine's boot image, for one task.
    ///
    /// # Errors
    /// Those of [`Store::add_enrolment_token`](crate::store::Store::add_enrolment_token).
    pub fn make_push_token(&self, bound: Bound<'_>, good_for: Duration) -> Result<EnrolmentToken> {
        let token = EnrolmentToken::random(self.ca_fingerprint())
            .map_err(|e| Error::with(ErrorKind::Io, "enrolment token cannot be made", e))?;
        let now = self.now();
        let (secret, label) = (token.secret(), format!("boot image of task {}", bound.task));
        let expires_at = now.after(good_for);
        let new = NewEnrolmentToken { secret: &secret, label: &label, created_at: now, expires_at, bound: Some(bound) };
        self.0.store.add_enrolment_token(new, "controller")?;
        Ok(token)
    }

    /// Tries a token that a machine came with.
    pub(super) fn enrol(&self, secret: &EnrolmentSecret, key: &str, label: &str, address: IpAddr) -> Result<Enrolled> {
        let now = self.now();
        let throttle = || self.0.enrolments.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(wait_ms) = throttle().attempt_from(address, now) {
            tracing::info!(%address, "an enrolment token came too soon after wrong ones");
            return Ok(Enrolled::Later(wait_ms.div_ceil(1000)));
        }
        let from = format!("from {}", address.to_canonical());
        match self.0.store.enrol(secret, Enrolling { key, label, from: &from }, now)? {
            Ok(()) => {
                throttle().succeeded_from(address);
                Ok(Enrolled::Yes)
            }
            Err(refusal) => Ok(Enrolled::No(refusal)),
        }
    }
}

pub(super) fn refused(reason: &str) -> Error {
    network(protocol::Error::new(protocol::ErrorKind::Refused, format!("its enrolment token was refused: {reason}")))
}
