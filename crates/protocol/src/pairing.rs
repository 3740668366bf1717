//! Pairing: how an operator sees that machine and controller talk to each other and to nobody in between.
//!
//! Each side picks a nonce and sends a hash of it (the commitment). Only when it holds the other's commitment does it
//! reveal its nonce. Both then hash the TLS exporter, both public keys and both nonces into a code of 40 bits. A relay
//! in the middle ends two TLS sessions with two exporters and at least one foreign key, and because it is bound to its
//! nonces before it sees the honest ones it cannot search for a pair of equal codes: it has one guess in 2⁴⁰. The code
//! is shown and typed, never sent.
//!
//! The types are pure and carry the order of steps: a nonce cannot be had before the peer's commitment is there.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::message::Bytes32;
use crate::tls::Fingerprint;
use crate::{Error, Result};

/// Label of the TLS exporter (RFC 8446, section 7.5) that a code is bound to.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-vconverter-pairing-1";

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The machine: it dialled.
    Agent,
    /// The controller.
    Controller,
}

/// What a code is bound to besides the nonces; both ends compute it from their own view of the connection
/// ([`crate::Connection::binding`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// TLS exporter of this connection.
    pub exporter: [u8; 32],
    /// Public key of the agent: SHA-256 of its SubjectPublicKeyInfo.
    pub agent_key: Fingerprint,
    /// Public key of the controller.
    pub controller_key: Fingerprint,
    /// The controller's CA: SHA-256 of the last certificate that it presents.
    pub controller_authority: Fingerprint,
}

/// The hash of a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Commitment(pub Bytes32);

/// A nonce, once it may be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(pub Bytes32);

/// First step: a nonce is chosen and its commitment can be sent.
pub struct Pairing {
    role: Role,
    binding: Binding,
    nonce: Nonce,
}

/// Second step: the peer is committed, so the own nonce may be revealed.
pub struct Committed {
    pairing: Pairing,
    peer: Commitment,
}

/// The code that both screens show: 40 bits, `XXXX-XXXX` in Crockford's base 32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PairingCode([u8; 5]);

impl Pairing {
    /// Begins a pairing on a connection with a fresh random nonce.
    ///
    /// # Errors
    /// [`ErrorKind::Identity`](crate::ErrorKind) when the system gives no randomness.
    pub fn start(role: Role, binding: Binding) -> Result<Self> {
        Ok(Self { role, binding, nonce: Nonce(Bytes32::random()?) })
    }

    /// What is sent first.
    pub fn commitment(&self) -> Commitment {
        commit(self.role, self.nonce)
    }

    /// Takes the peer's commitment.
    pub fn receive_commitment(self, peer: Commitment) -> Committed {
        Committed { pairing: self, peer }
    }
}

impl Committed {
    /// What is sent second.
    pub fn nonce(&self) -> Nonce {
        self.pairing.nonce
    }

    /// Takes the peer's nonce and computes the code.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`](crate::ErrorKind) when the nonce is not the one that the peer committed to.
    pub fn receive_nonce(self, theirs: Nonce) -> Result<PairingCode> {
        let Pairing { role, binding, nonce: ours } = self.pairing;
        let (peer_role, agent, controller) = match role {
            Role::Agent => (Role::Controller, ours, theirs),
            Role::Controller => (Role::Agent, theirs, ours),
        };
        if commit(peer_role, theirs) != self.peer {
            let text = "pairing: the nonce that was revealed is not the one that was committed to";
            return Err(Error::new(crate::ErrorKind::Untrusted, text));
        }
        // Every part has a fixed length, so no two inputs hash the same text.
        let mut text = b"vconverter pairing code 1".to_vec();
        text.extend_from_slice(&binding.exporter);
        for part in [binding.agent_key.0, binding.controller_key.0, binding.controller_authority.0] {
            text.extend_from_slice(&part.0);
        }
        text.extend_from_slice(&agent.0.0);
        text.extend_from_slice(&controller.0.0);
        let hash = digest(&SHA256, &text);
        let mut code = [0; 5];
        code.copy_from_slice(&hash.as_ref()[..5]);
        Ok(PairingCode(code))
    }
}

/// The role is hashed too, so that a peer cannot send a commitment back as its own.
fn commit(role: Role, nonce: Nonce) -> Commitment {
    let mut text = match role {
        Role::Agent => b"vconverter pairing nonce agent     ".to_vec(),
        Role::Controller => b"vconverter pairing nonce controller".to_vec(),
    };
    text.extend_from_slice(&nonce.0.0);
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, &text).as_ref());
    Commitment(Bytes32(hash))
}

/// Crockford's alphabet: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl fmt::Display for PairingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        for place in 0..8 {
            if place == 4 {
                f.write_str("-")?;
            }
            let digit = usize::try_from(bits >> (35 - 5 * place) & 31).unwrap_or_default();
            write!(f, "{}", char::from(ALPHABET[digit]))?;
        }
        Ok(())
    }
}

impl fmt::Debug for PairingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairingCode(not shown)")
    }
}

/// Text that is no pairing code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pairing code: expected eight letters and digits as XXXX-XXXX, found {0:?}")]
pub struct ParsePairingCodeError(pub String);

impl FromStr for PairingCode {
    type Err = ParsePairingCodeError;

    /// Reads what an operator types: any case, with or without dash and blanks, O as 0, I and L as 1.
    fn from_str(text: &str) -> std::result::Result<Self, ParsePairingCodeError> {
        let wrong = || ParsePairingCodeError(text.chars().take(20).collect());
        let (mut bits, mut digits) = (0_u64, 0);
        for letter in text.chars().filter(|c| !matches!(c, '-' | ' ' | '\t')) {
            let letter = match letter.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                other => other,
            };
            let digit = ALPHABET.iter().position(|known| char::from(*known) == letter).ok_or_else(wrong)?;
            digits += 1;
            if digits > 8 {
                return Err(wrong());
            }
            bits = bits << 5 | digit as u64;
        }
        if digits != 8 {
            return Err(wrong());
        }
        let [_, _, _, code @ ..] = bits.to_be_bytes();
        Ok(Self(code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(exporter: u8) -> Binding {
        let key = |n| Fingerprint(Bytes32([n; 32]));
        Binding { exporter: [exporter; 32], agent_key: key(1), controller_key: key(2), controller_authority: key(3) }
    }

    fn codes(agent: Binding, controller: Binding) -> (PairingCode, PairingCode) {
        let agent = Pairing::start(Role::Agent, agent).unwrap();
        let controller = Pairing::start(Role::Controller, controller).unwrap();
        let (a, c) = (agent.commitment(), controller.commitment());
        let (agent, controller) = (agent.receive_commitment(c), controller.receive_commitment(a));
        let (a, c) = (agent.nonce(), controller.nonce());
        (agent.receive_nonce(c).unwrap(), controller.receive_nonce(a).unwrap())
    }

    #[test]
    fn both_ends_compute_one_code_and_each_pairing_another() {
        let (agent, controller) = codes(binding(7), binding(7));
        assert_eq!(agent, controller);
        assert_ne!(codes(binding(7), binding(7)).0, agent);
    }

    #[test]
    fn every_part_of_the_binding_changes_the_code() {
        let other = Fingerprint(Bytes32([9; 32]));
        for changed in [
            binding(8),
            Binding { agent_key: other, ..binding(7) },
            Binding { controller_key: other, ..binding(7) },
            Binding { controller_authority: other, ..binding(7) },
        ] {
            let (agent, controller) = codes(binding(7), changed);
            assert_ne!(agent, controller);
        }
    }

    #[test]
    fn a_nonce_that_was_not_committed_is_refused() {
        let agent = Pairing::start(Role::Agent, binding(7)).unwrap();
        let controller = Pairing::start(Role::Controller, binding(7)).unwrap();
        let committed = agent.receive_commitment(controller.commitment());
        let other = Pairing::start(Role::Controller, binding(7)).unwrap();
        let error = committed.receive_nonce(other.nonce).unwrap_err();
        assert_eq!(error.kind, crate::ErrorKind::Untrusted);
    }

    #[test]
    fn a_commitment_sent_back_is_refused() {
        let agent = Pairing::start(Role::Agent, binding(7)).unwrap();
        let (mirrored, nonce) = (agent.commitment(), agent.nonce);
        assert!(agent.receive_commitment(mirrored).receive_nonce(nonce).is_err());
    }

    #[test]
    fn codes_print_and_parse_as_an_operator_types_them() {
        let code = PairingCode([0xff, 0x00, 0x10, 0x20, 0x03]);
        let shown = code.to_string();
        assert_eq!(shown.len(), 9);
        assert_eq!(shown.as_bytes()[4], b'-');
        assert_eq!(shown.parse(), Ok(code));
        assert_eq!(shown.to_lowercase().replace('-', "").parse(), Ok(code));
        assert_eq!("OIL0-0000".parse::<PairingCode>(), "0110-0000".parse());
        for wrong in ["", "0000-000", "0000-00000", "0000-000U", "0000-000é", "🦀🦀🦀🦀🦀🦀🦀🦀"] {
            assert!(wrong.parse::<PairingCode>().is_err(), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_code_survives_its_text(bytes: [u8; 5]) {
            let code = PairingCode(bytes);
            proptest::prop_assert_eq!(code.to_string().parse(), Ok(code));
        }

        #[test]
        fn any_text_parses_without_panic(text: String) {
            let _ = text.parse::<PairingCode>();
        }
    }
}
