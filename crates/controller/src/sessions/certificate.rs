//! Certificates of agents, over their sessions: the first soon after the approval, the next ones long before the end.
//!
//! The controller offers, by its own clock, for a machine's may be wrong; the agent says when it keeps the certificate, and
//! from then on its key alone is nothing. No connection ends for that: the next ones show the new certificate.

use std::time::{Duration, Instant};

use protocol::Version;
use protocol::certificate::AgentCertificate;
use protocol::message::{AgentKind, ControllerMessage, write_message};
use protocol::tls::Fingerprint;

use super::control::network;
use super::entry::moment;
use super::registry::Caller;
use super::{Link, Result, Sessions};
use crate::Timestamp;

/// Of an agent that keeps its key on disk.
const LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// Of the boot image, whose key is gone with the next restart.
const BOOT_IMAGE_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Pause before an offer that was not answered is made again.
const OFFER_PAUSE: Duration = Duration::from_secs(60);

/// The certificate of one session's agent.
pub(super) struct Certification {
    /// The end of what it keeps; `None` where it keeps none.
    until: Option<Timestamp>,
    offer: Option<Offer>,
}

struct Offer {
    fingerprint: Fingerprint,
    until: Timestamp,
    made_at: Instant,
}

impl Certification {
    /// Of a session that begins.
    pub(super) fn new(until: Option<Timestamp>) -> Self {
        Self { until, offer: None }
    }

    /// Whether what the agent showed has ended meanwhile.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until < now)
    }

    /// Offers a certificate to an approved agent where it has none, or half of its life has passed.
    pub(super) fn offer_where_due(&mut self, sessions: &Sessions, caller: &Caller, link: &Link) -> Result<()> {
        let life = if caller.kind == AgentKind::Agent { LIFE } else { BOOT_IMAGE_LIFE };
        let now = sessions.now();
        let is_due = self.until.is_none_or(|until| until < now.after(life / 2));
        let is_offered = self.offer.as_ref().is_some_and(|offer| offer.made_at.elapsed() < OFFER_PAUSE);
        if caller.protocol < Version::V3 || !is_due || is_offered {
            return Ok(());
        }
        let until = Duration::from_millis(now.after(life).0.unsigned_abs());
        let until = Duration::from_secs(until.as_secs());
        let made = sessions.0.tls.issue(link.peer_certificate(), until).map_err(network)?;
        let AgentCertificate { pem, fingerprint } = made;
        self.offer = Some(Offer { fingerprint, until: moment(until), made_at: Instant::now() });
        write_message(&**link, &ControllerMessage::Certificate { certificate: pem }).map_err(network)
    }

    /// The agent says that it keeps a certificate; one that was not offered last is not spoken of.
    pub(super) fn kept(&mut self, sessions: &Sessions, caller: &Caller, fingerprint: Fingerprint) -> Result<()> {
        let Some(offer) = self.offer.take_if(|offer| offer.fingerprint == fingerprint) else { return Ok(()) };
        sessions.0.store.certificate_kept(&caller.key.to_string(), offer.until)?;
        tracing::info!(key = %caller.key, until = %offer.until, "the agent keeps its certificate");
        self.until = Some(offer.until);
        Ok(())
    }
}
