//! Who trusts whom, over real sockets.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::thread;

use protocol::pairing::{Binding, Pairing, PairingCode, Role};
use protocol::tls::{AgentTls, ControllerTls, Identity, Trust};
use protocol::{Connection, ErrorKind, Result};

/// Two connected sockets.
fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (dialled, listener.accept().unwrap().0)
}

fn connect(agent: &AgentTls, controller: &ControllerTls) -> (Result<Connection>, Result<Connection>) {
    let (dialled, accepted) = sockets();
    let controller = controller.clone();
    let accepting = thread::spawn(move || Connection::accept(accepted, &controller));
    let connected = Connection::connect(dialled, agent);
    (connected, accepting.join().unwrap())
}

fn agent(trust: Trust) -> AgentTls {
    AgentTls::new(&Identity::create_agent().unwrap(), trust).unwrap()
}

fn code(role: Role, binding: &Binding, link: &Connection) -> PairingCode {
    use protocol::message::{read_message, write_message};
    let pairing = Pairing::start(role, binding.clone()).unwrap();
    write_message(link, &pairing.commitment()).unwrap();
    let committed = pairing.receive_commitment(read_message(link, 1000).unwrap());
    write_message(link, &committed.nonce()).unwrap();
    committed.receive_nonce(read_message(link, 1000).unwrap()).unwrap()
}

#[test]
fn the_pinned_controller_is_trusted_and_both_ends_know_the_agents_key() {
    let controller = ControllerTls::create().unwrap();
    let agent = agent(Trust::Authority(controller.authority()));
    let (ours, theirs) = connect(&agent, &controller);
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    assert_eq!(theirs.agent_key(), agent.key());
    assert_eq!(ours.binding(), theirs.binding());
    (&ours).write_all(b"hello").unwrap();
    let mut text = [0; 5];
    (&theirs).read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello");
}

#[test]
fn another_controller_is_refused_with_a_plain_reason() {
    let expected = ControllerTls::create().unwrap();
    let (ours, theirs) = connect(&agent(Trust::Authority(expected.authority())), &ControllerTls::create().unwrap());
    let error = ours.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Untrusted);
    assert!(error.to_string().contains("not signed by the CA"), "{error}");
    assert_eq!(theirs.unwrap_err().kind, ErrorKind::Untrusted);
}

/// Somebody who shows the right CA's certificate behind a leaf that it never signed: nobody may borrow the name of a CA
/// that is pinned, nor of one that a pairing code was compared for.
#[test]
fn a_leaf_that_the_ca_behind_it_did_not_sign_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (real, fake) = (folder.path().join("real"), folder.path().join("fake"));
    let pin = ControllerTls::load_or_create(&real).unwrap().authority();
    ControllerTls::load_or_create(&fake).unwrap();
    // The fake's server key and leaf, with the real CA's certificate for a CA.
    let certificate = |path: &std::path::Path, nth: usize| {
        let text = std::fs::read_to_string(path).unwrap();
        let found = text.split_inclusive("-----END CERTIFICATE-----\n").nth(nth).unwrap().to_owned();
        found[found.find("-----BEGIN CERTIFICATE").unwrap()..].to_owned()
    };
    let server = fake.join("server.pem");
    let text = std::fs::read_to_string(&server).unwrap();
    let forged = text.replace(&certificate(&server, 1), &certificate(&real.join("ca.pem"), 0));
    assert_ne!(forged, text);
    std::fs::write(&server, forged).unwrap();
    std::fs::copy(real.join("ca.pem"), fake.join("ca.pem")).unwrap();
    let forger = ControllerTls::load_or_create(&fake).unwrap();
    assert_eq!(forger.authority(), pin, "the forger shows the real CA");
    for trust in [Trust::Authority(pin), Trust::Pairing] {
        let error = connect(&agent(trust), &forger).0.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Untrusted);
    }
}

#[test]
fn a_peer_without_certificate_is_refused() {
    use rustls::pki_types::ServerName;
    let controller = ControllerTls::create().unwrap();
    let (mut dialled, accepted) = sockets();
    let accepting = thread::spawn(move || Connection::accept(accepted, &controller));
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(std::sync::Arc::new(Anyone))
        .with_no_client_auth();
    let name = ServerName::try_from("x.invalid").unwrap();
    let mut session = rustls::ClientConnection::new(config.into(), name).unwrap();
    let _ = session.complete_io(&mut dialled);
    assert_eq!(accepting.join().unwrap().unwrap_err().kind, ErrorKind::Untrusted);
}

#[test]
fn keys_survive_a_restart_and_are_for_their_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("deep/state");
    let first = Identity::load_or_create_agent(&state).unwrap().key().unwrap();
    assert_eq!(Identity::load_or_create_agent(&state).unwrap().key().unwrap(), first);
    let authority = ControllerTls::load_or_create(&state).unwrap().authority();
    assert_eq!(ControllerTls::load_or_create(&state).unwrap().authority(), authority);
    // A lost server certificate is made anew under the same CA.
    std::fs::remove_file(state.join("server.pem")).unwrap();
    let again = ControllerTls::load_or_create(&state).unwrap();
    assert_eq!(again.authority(), authority);
    let (ours, theirs) = connect(&agent(Trust::Authority(authority)), &again);
    assert!(ours.is_ok() && theirs.is_ok());
    for name in ["agent.pem", "ca.pem", "server.pem"] {
        let mode = std::fs::metadata(state.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    std::fs::set_permissions(state.join("agent.pem"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = Identity::load_or_create_agent(&state).err().unwrap();
    assert!(error.to_string().contains("expected mode 0600"), "{error}");
}

/// The verifier is asked with a clock in the year 2000, as on a machine with a dead battery.
#[test]
fn a_clock_in_the_year_2000_changes_nothing() {
    for pinned in [true, false] {
        let controller = ControllerTls::create().unwrap();
        let trust = if pinned { Trust::Authority(controller.authority()) } else { Trust::Pairing };
        let agent = agent(trust).with_clock_for_tests(std::time::Duration::from_secs(946_684_800));
        let (ours, theirs) = connect(&agent, &controller);
        ours.unwrap();
        theirs.unwrap();
    }
}

#[test]
fn pairing_gives_one_code_on_both_screens() {
    let controller = ControllerTls::create().unwrap();
    let (ours, theirs) = connect(&agent(Trust::Pairing), &controller);
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    let there = thread::spawn(move || code(Role::Controller, theirs.binding(), &theirs));
    assert_eq!(code(Role::Agent, ours.binding(), &ours), there.join().unwrap());
}

fn pass(mut from: &Connection, mut to: &Connection) {
    let mut buffer = [0; 4096];
    while let Ok(length) = from.read(&mut buffer) {
        if length == 0 || to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// A relay ends TLS on both sides and passes every message on as it is: the two screens show different codes.
#[test]
fn a_relay_in_the_middle_makes_the_codes_differ() {
    let controller = ControllerTls::create().unwrap();
    let (ours, relay_in) = connect(&agent(Trust::Pairing), &ControllerTls::create().unwrap());
    let (relay_out, theirs) = connect(&agent(Trust::Pairing), &controller);
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    let (relay_in, relay_out) = (relay_in.unwrap(), relay_out.unwrap());
    let codes = thread::scope(|scope| {
        scope.spawn(|| pass(&relay_in, &relay_out));
        scope.spawn(|| pass(&relay_out, &relay_in));
        let there = scope.spawn(|| code(Role::Controller, theirs.binding(), &theirs));
        let codes = (code(Role::Agent, ours.binding(), &ours), there.join().unwrap());
        relay_in.abort();
        relay_out.abort();
        codes
    });
    assert_ne!(codes.0, codes.1);
}

#[test]
fn a_pinned_agent_does_not_talk_to_a_relay_at_all() {
    let controller = ControllerTls::create().unwrap();
    let (ours, _) = connect(&agent(Trust::Authority(controller.authority())), &ControllerTls::create().unwrap());
    assert_eq!(ours.unwrap_err().kind, ErrorKind::Untrusted);
}

#[test]
fn both_ends_may_send_much_at_once_and_a_cut_is_no_end() {
    let (ours, theirs) = connect(&agent(Trust::Pairing), &ControllerTls::create().unwrap());
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    let sent: Vec<u8> = (0..40_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24).to_be_bytes()[3]).collect();
    thread::scope(|scope| {
        for (from, to) in [(&ours, &theirs), (&theirs, &ours)] {
            let sent = &sent;
            scope.spawn(move || from.write_parts(&[&sent[..10], &sent[10..]]).unwrap());
            scope.spawn(move || {
                let mut got = vec![0; sent.len()];
                let mut to = to;
                to.read_exact(&mut got).unwrap();
                assert!(got == *sent);
            });
        }
    });
    ours.finish();
    let mut buffer = [0; 1];
    assert_eq!((&theirs).read(&mut buffer).unwrap(), 0, "a proper end");
    theirs.abort();
    assert!((&ours).read(&mut buffer).is_err(), "a cut is told from an end");
}

#[test]
fn silence_ends_a_read() {
    let (ours, _theirs) = connect(&agent(Trust::Pairing), &ControllerTls::create().unwrap());
    let ours = ours.unwrap();
    ours.set_read_timeout(Some(std::time::Duration::from_millis(50)));
    let error = protocol::message::read_message::<String>(&ours, 100).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut);
}

#[derive(Debug)]
struct Anyone;

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> std::result::Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> std::result::Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> std::result::Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
