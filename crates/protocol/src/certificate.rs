//! Client certificates: what a controller gives to an agent that was approved, and what the agent shows from then on.
//!
//! A certificate says that this controller approved this key, and for how long; who the agent is follows from the key
//! alone, and whether the key was revoked from the controller's memory. Its end is looked at by the controller's clock
//! only: the source's may stand in the year 2000, so the agent shows what it has and the controller renews it in time.
//! The controller sees the key in the TLS handshake, where its owner proved to hold it (RFC 8446, section 4.4.3): no
//! signing request is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{ExtendedKeyUsagePurpose, IsCa, SerialNumber, SubjectPublicKeyInfo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};

use crate::message::{Bytes32, MESSAGE_BYTES_MAX};
use crate::tls::{ControllerTls, Fingerprint, Identity, named, pem, unmade, write_secret};
use crate::{Error, ErrorKind, Result};

/// What an agent shows with its key, as a controller sees it. Times are since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A certificate that the agent made itself: it says nothing.
    SelfMade,
    /// One that this controller's CA issued for an agent.
    Issued {
        /// Its last moment.
        until: Duration,
    },
    /// One that this controller's CA issued, and that is over.
    Over {
        /// What was its last moment.
        until: Duration,
    },
    /// Another CA's, or one that is no agent's.
    Foreign,
}

/// A certificate that was made for an agent.
#[derive(Clone, Debug)]
pub struct AgentCertificate {
    /// Its text.
    pub pem: String,
    /// SHA-256 of it.
    pub fingerprint: Fingerprint,
}

/// The year 10000: no certificate lasts until then (RFC 5280, section 4.1.2.5).
const NEVER: Duration = Duration::from_secs(253_402_300_800);
/// Longest text of a certificate in bytes; it fits into a message.
pub const CERTIFICATE_TEXT_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;

impl ControllerTls {
    /// What the certificate of a connection is worth at this time since 1970.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] for something that is no certificate.
    pub fn examine(&self, certificate: &CertificateDer<'_>, now: Duration) -> Result<Shown> {
        let broken = |e| Error::new(ErrorKind::Untrusted, "certificate is not understood").because(e);
        let leaf = webpki::EndEntityCert::try_from(certificate).map_err(broken)?;
        let anchor = webpki::anchor_from_trusted_cert(self.ca.certificate()?).map_err(broken)?;
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
        let verify = |at| {
            let (at, usage) = (UnixTime::since_unix_epoch(at), webpki::KeyUsage::client_auth());
            leaf.verify_for_usage(algorithms, std::slice::from_ref(&anchor), &[], at, usage, None, None).map(drop)
        };
        let seconds = |time: UnixTime| Duration::from_secs(time.as_secs());
        // Dates are compared before signatures, so a date alone proves nothing.
        Ok(match verify(now) {
            Ok(()) => match verify(NEVER) {
                Err(webpki::Error::CertExpired { not_after, .. }) => Shown::Issued { until: seconds(not_after) },
                _ => Shown::Foreign,
            },
            Err(webpki::Error::CertExpired { not_after, .. }) if verify(seconds(not_after)).is_ok() => {
                Shown::Over { until: seconds(not_after) }
            }
            Err(_) if leaf.issuer() == leaf.subject() => Shown::SelfMade,
            Err(_) => Shown::Foreign,
        })
    }

    /// A certificate for the key in the certificate that its owner shows, good until this time since 1970.
    ///
    /// # Errors
    /// [`ErrorKind::Identity`] where it cannot be made, [`ErrorKind::Untrusted`] for something that is no certificate.
    pub fn issue(&self, to: &CertificateDer<'_>, until: Duration) -> Result<AgentCertificate> {
        let broken = |e| Error::new(ErrorKind::Untrusted, "certificate is not understood").because(e);
        let key = webpki::EndEntityCert::try_from(to).map_err(broken)?.subject_public_key_info();
        let key = SubjectPublicKeyInfo::from_der(key.as_ref()).map_err(unmade)?;
        let mut params = named("vconverter agent", ExtendedKeyUsagePurpose::ClientAuth)?;
        params.is_ca = IsCa::ExplicitNoCa;
        // Positive, and another for each (RFC 5280, section 4.1.2.2).
        let mut serial = Bytes32::random()?.0;
        serial[0] = serial[0] & 0x7f | 1;
        params.serial_number = Some(SerialNumber::from_slice(&serial[..16]));
        params.not_after = (SystemTime::UNIX_EPOCH + until).into();
        let certificate = params.signed_by(&key, &self.ca.issuer()?).map_err(unmade)?;
        let der = certificate.der();
        Ok(AgentCertificate { pem: pem("CERTIFICATE", der), fingerprint: Fingerprint::of(der) })
    }
}

impl Identity {
    /// The same key with a certificate that a controller sent: PEM.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] for a text that is no certificate of this key.
    pub fn certified(&self, certificate: &str) -> Result<Self> {
        let wrong = || Error::malformed("the certificate that the controller sent is not one of this agent's key");
        if certificate.len() > CERTIFICATE_TEXT_BYTES_MAX {
            return Err(wrong());
        }
        let leaf = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|e| wrong().because(e))?;
        if Fingerprint::of_key(&leaf)? != self.key()? {
            return Err(wrong());
        }
        Ok(self.with_certificate(leaf))
    }

    /// The same key with the certificate that the controller of this CA gave it, where one is kept in `state_dir`. One that
    /// cannot be read is none: the machine waits for approval then.
    pub fn with_kept_certificate(&self, state_dir: &Path, authority: Fingerprint) -> Option<Self> {
        let path = kept(state_dir, authority);
        let is_short = fs::metadata(&path).ok()?.len() <= CERTIFICATE_TEXT_BYTES_MAX as u64;
        let text = is_short.then(|| fs::read_to_string(&path).ok())??;
        self.certified(&text).ok()
    }

    /// Keeps a certificate of the controller of this CA in `state_dir`, in the place of an earlier one, and gives the same
    /// key with it. When this returns, it is on disk.
    ///
    /// # Errors
    /// Those of [`Identity::certified`]; [`ErrorKind::Identity`], naming the file.
    pub fn keep_certificate(&self, state_dir: &Path, authority: Fingerprint, certificate: &str) -> Result<Self> {
        let certified = self.certified(certificate)?;
        write_secret(&kept(state_dir, authority), certificate.as_bytes())?;
        Ok(certified)
    }

    /// Forgets the certificate of the controller of this CA.
    pub fn forget_certificate(state_dir: &Path, authority: Fingerprint) {
        let _ = fs::remove_file(kept(state_dir, authority));
    }
}

fn kept(state_dir: &Path, authority: Fingerprint) -> PathBuf {
    state_dir.join(format!("certificate-{authority}.pem"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn issued(controller: &ControllerTls, agent: &Identity, until: Duration) -> Identity {
        agent.certified(&controller.issue(agent.certificate().unwrap(), until).unwrap().pem).unwrap()
    }

    fn shown(controller: &ControllerTls, agent: &Identity, now: Duration) -> Shown {
        controller.examine(agent.certificate().unwrap(), now).unwrap()
    }

    #[test]
    fn a_certificate_is_good_until_its_end_and_over_from_then_on() {
        let (controller, agent) = (ControllerTls::create().unwrap(), Identity::create_agent().unwrap());
        assert_eq!(shown(&controller, &agent, NOW), Shown::SelfMade);
        let (certified, until) = (issued(&controller, &agent, NOW + HOUR), NOW + HOUR);
        assert_eq!(certified.key().unwrap(), agent.key().unwrap());
        for now in [Duration::ZERO + HOUR * 24 * 3650, NOW, NOW + HOUR] {
            assert_eq!(shown(&controller, &certified, now), Shown::Issued { until }, "{now:?}");
        }
        for now in [NOW + HOUR + Duration::from_secs(1), NOW * 2] {
            assert_eq!(shown(&controller, &certified, now), Shown::Over { until }, "{now:?}");
        }
        let again = issued(&controller, &certified, NOW + 2 * HOUR);
        assert_eq!(shown(&controller, &again, NOW), Shown::Issued { until: NOW + 2 * HOUR });
        let serial = |identity: &Identity| {
            webpki::EndEntityCert::try_from(identity.certificate().unwrap()).unwrap().serial().to_vec()
        };
        assert_ne!(serial(&again), serial(&certified));
    }

    #[test]
    fn what_another_ca_signed_is_foreign_whatever_its_dates() {
        let (controller, other) = (ControllerTls::create().unwrap(), ControllerTls::create().unwrap());
        let agent = Identity::create_agent().unwrap();
        for until in [NOW - HOUR, NOW, NOW + HOUR] {
            assert_eq!(shown(&controller, &issued(&other, &agent, until), NOW), Shown::Foreign, "{until:?}");
        }
        // The controller's own certificate is no agent's, nor is its CA's.
        let folder = tempfile::tempdir().unwrap();
        let controller = ControllerTls::load_or_create(folder.path()).unwrap();
        let pem = fs::read(folder.path().join("server.pem")).unwrap();
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).map(|one| one.unwrap()).collect();
        assert_eq!(controller.examine(&chain[0], NOW).unwrap(), Shown::Foreign);
        assert_ne!(controller.examine(&chain[1], NOW).unwrap(), Shown::Issued { until: NOW });
        assert!(controller.examine(&CertificateDer::from(&b"no certificate"[..]), NOW).is_err());
    }

    #[test]
    fn only_the_owner_of_the_key_takes_a_certificate() {
        let (controller, agent) = (ControllerTls::create().unwrap(), Identity::create_agent().unwrap());
        let theirs = Identity::create_agent().unwrap();
        let pem = controller.issue(theirs.certificate().unwrap(), NOW).unwrap().pem;
        for wrong in [pem.as_str(), "", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(agent.certified(wrong).is_err(), "{wrong}");
        }
        assert!(theirs.certified(&format!("{pem}{}", " ".repeat(CERTIFICATE_TEXT_BYTES_MAX))).is_err());
    }

    #[test]
    fn a_kept_certificate_is_shown_to_its_controller_only() {
        let (controller, other) = (ControllerTls::create().unwrap(), ControllerTls::create().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let agent = Identity::load_or_create_agent(folder.path()).unwrap();
        let load = |controller: &ControllerTls| agent.with_kept_certificate(folder.path(), controller.authority());
        assert!(load(&controller).is_none());
        let pem = controller.issue(agent.certificate().unwrap(), NOW).unwrap().pem;
        agent.keep_certificate(folder.path(), controller.authority(), &pem).unwrap();
        assert_eq!(shown(&controller, &load(&controller).unwrap(), NOW), Shown::Issued { until: NOW });
        assert!(load(&other).is_none());
        fs::write(kept(folder.path(), controller.authority()), &pem[..pem.len() / 2]).unwrap();
        assert!(load(&controller).is_none(), "half a file is none");
        Identity::forget_certificate(folder.path(), controller.authority());
        assert!(load(&controller).is_none());
    }
}
