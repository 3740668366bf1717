//! Any bytes as the certificate of a peer: a key, or an error.
#![no_main]

use rustls_pki_types::CertificateDer;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = protocol::tls::Fingerprint::of_key(&CertificateDer::from(bytes));
});
