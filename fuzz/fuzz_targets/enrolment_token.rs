//! Any text as an enrolment token and as a certificate that a controller sent: refused, or it reads back as the same.
#![no_main]

use std::sync::LazyLock;

use protocol::enrolment::EnrolmentToken;
use protocol::tls::Identity;

static AGENT: LazyLock<Identity> = LazyLock::new(|| Identity::create_agent().expect("a key"));

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(token) = text.parse::<EnrolmentToken>() {
        assert_eq!(token.expose().parse::<EnrolmentToken>().ok(), Some(token));
    }
    assert!(AGENT.certified(text).is_err(), "nobody has the agent's key");
});
