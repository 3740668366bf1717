//! Any text as a pairing code and as a fingerprint: refused, or what is shown of it reads back as the same.
#![no_main]

use protocol::pairing::PairingCode;
use protocol::tls::Fingerprint;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(code) = text.parse::<PairingCode>() {
        assert_eq!(code.to_string().parse(), Ok(code));
    }
    if let Ok(fingerprint) = text.parse::<Fingerprint>() {
        assert_eq!(fingerprint.to_string().parse::<Fingerprint>().ok(), Some(fingerprint));
    }
});
