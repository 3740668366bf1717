//! E-mail about tasks, to a small SMTP server that wants TLS and a password.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use controller::mail::{MailConfig, MailEvent, MailTls, Mailer};
use controller::trust::Secret;
use controller::{Controller, ErrorKind};
use conversion::{Cancel, Observer, Source};
use protocol::message::ControllerMessage;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;
use support::*;

/// AUTH PLAIN of `robot` and `hunter2`.
const LOGIN: &str = "AHJvYm90AGh1bnRlcjI=";

/// A mail server; it takes mail until the test ends.
struct Server {
    port: u16,
    ca_file: PathBuf,
    /// Envelope and content of what came.
    mails: Arc<Mutex<Vec<String>>>,
    /// What it answers to a recipient.
    answer: Arc<AtomicU16>,
}

impl Server {
    fn start(folder: &Path, wrapped: bool) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let ca_file = folder.join(format!("ca-{wrapped}.pem"));
        std::fs::write(&ca_file, certificate.pem()).unwrap();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let listener = TcpListener::bind("localhost:0").unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            ca_file,
            mails: Arc::default(),
            answer: Arc::new(AtomicU16::new(250)),
        };
        let (mails, answer, tls) = (server.mails.clone(), server.answer.clone(), Arc::new(tls));
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                // A client that breaks off ends its own conversation only.
                let _ = converse(socket.unwrap(), &tls, wrapped, &mails, &answer);
            }
        });
        server
    }

    fn config(&self, tls: MailTls, on: &[MailEvent]) -> MailConfig {
        MailConfig {
            server: "localhost".into(),
            port: self.port,
            tls,
            ca_file: Some(self.ca_file.clone()),
            login: Some(("robot".into(), Secret::new("hunter2".into()))),
            from: "vconverter <vconverter@example.net>".into(),
            to: vec!["Ops <ops@example.net>".into(), "night@example.net".into()],
            on: on.to_vec(),
        }
    }

    fn mails(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }
}

fn converse(
    mut socket: TcpStream,
    tls: &Arc<ServerConfig>,
    wrapped: bool,
    mails: &Mutex<Vec<String>>,
    answer: &AtomicU16,
) -> io::Result<()> {
    if !wrapped {
        write!(socket, "220 localhost ESMTP\r\n")?;
        let mut plain = BufReader::new(socket.try_clone()?);
        loop {
            let mut line = String::new();
            if plain.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                line if line.starts_with("EHLO") => write!(socket, "250-localhost\r\n250 STARTTLS\r\n")?,
                "STARTTLS" => break,
                _ => write!(socket, "530 must issue a STARTTLS command first\r\n")?,
            }
        }
        write!(socket, "220 go on\r\n")?;
    }
    let connection = ServerConnection::new(tls.clone()).map_err(io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(connection, socket));
    if wrapped {
        write!(stream.get_mut(), "220 localhost ESMTP\r\n")?;
    }
    let (mut mail, mut is_known) = (String::new(), false);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let line = line.trim_end().to_owned();
        let code = answer.load(Ordering::SeqCst);
        let said = match line.split([' ', ':']).next().unwrap() {
            "EHLO" => "250-localhost\r\n250 AUTH PLAIN\r\n".to_owned(),
            "AUTH" => {
                is_known = line == format!("AUTH PLAIN {LOGIN}");
                if is_known { "235 welcome\r\n" } else { "535 who?\r\n" }.to_owned()
            }
            "MAIL" | "RCPT" if !is_known => "530 log in first\r\n".to_owned(),
            "RCPT" if code != 250 => format!("{code} not now\r\n"),
            "MAIL" | "RCPT" => {
                mail.push_str(&format!("{line}\n"));
                "250 good\r\n".to_owned()
            }
            "DATA" => {
                write!(stream.get_mut(), "354 tell\r\n")?;
                loop {
                    let mut line = String::new();
                    stream.read_line(&mut line)?;
                    if line == ".\r\n" {
                        break;
                    }
                    mail.push_str(&line);
                }
                mails.lock().unwrap().push(std::mem::take(&mut mail));
                "250 taken\r\n".to_owned()
            }
            "QUIT" => {
                write!(stream.get_mut(), "221 bye\r\n")?;
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest);
                return Ok(());
            }
            _ => {
                mail.clear();
                "250 good\r\n".to_owned()
            }
        };
        stream.get_mut().write_all(said.as_bytes())?;
    }
}

#[test]
fn a_test_mail_goes_over_both_kinds_of_tls_to_a_server_that_is_known() {
    let folder = tempfile::tempdir().unwrap();
    for (tls, wrapped) in [(MailTls::Tls, true), (MailTls::StartTls, false)] {
        let server = Server::start(folder.path(), wrapped);
        let config = server.config(tls, &[]);
        Mailer::new(&config).unwrap().send_test().unwrap();
        let mails = server.mails();
        assert_eq!(mails.len(), 1);
        for part in [
            "MAIL FROM:<vconverter@example.net>",
            "RCPT TO:<ops@example.net>",
            "RCPT TO:<night@example.net>",
            "Subject: [vconverter] test",
            "can send e-mail",
        ] {
            assert!(mails[0].contains(part), "{part}\n{}", mails[0]);
        }
        let stranger = MailConfig { ca_file: None, ..config.clone() };
        let error = Mailer::new(&stranger).and_then(|mailer| mailer.send_test()).unwrap_err();
        assert!(error.chain().contains("certificate") || error.chain().contains("Certificate"), "{}", error.chain());
        let wrong = MailConfig { login: Some(("robot".into(), Secret::new("guess".into()))), ..config.clone() };
        let error = Mailer::new(&wrong).unwrap().send_test().unwrap_err();
        assert!(error.kind == ErrorKind::Network && error.chain().contains("535"), "{}", error.chain());
        assert!(!error.chain().contains("guess"), "{}", error.chain());
        assert_eq!(server.mails().len(), 1);
    }
}

#[test]
fn what_cannot_be_right_is_refused_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let good = Server::start(folder.path(), true).config(MailTls::Tls, &[]);
    let text = folder.path().join("text");
    std::fs::write(&text, "no certificate").unwrap();
    for (config, says) in [
        (MailConfig { tls: MailTls::None, ..good.clone() }, "only sent with TLS"),
        (MailConfig { to: Vec::new(), ..good.clone() }, "1 to 50 recipients"),
        (MailConfig { to: vec!["a@b\r\nBcc: c@d".into()], ..good.clone() }, "e-mail address"),
        (MailConfig { from: "nobody".into(), ..good.clone() }, "e-mail address"),
        (MailConfig { ca_file: Some(text), ..good.clone() }, "expected PEM"),
    ] {
        let Err(error) = Mailer::new(&config) else { panic!("{says}") };
        assert!(error.kind == ErrorKind::Invalid && error.chain().contains(says), "{}", error.chain());
    }
}

/// A controller with a machine, whose conversions fail.
fn site(data: &Path) -> (Controller, Agent, protocol::Connection, String) {
    let converter = Fake(|_: Source, _: &dyn Observer, _: &Cancel| {
        Err(conversion::Error::new(conversion::ErrorKind::Refused, "the disk is too hot"))
    });
    let controller = start(data, Arc::new(converter));
    let agent = Agent::new(controller.status());
    let (connection, id) = agent.enrol(data, &machine("B5BRN12"));
    (controller, agent, connection, id)
}

#[test]
fn a_task_that_fails_is_told_also_after_a_kill_and_a_server_that_is_down_delays_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(folder.path(), false);
    let config = server.config(MailTls::StartTls, &[MailEvent::Failed]);
    let (mut controller, mut agent, connection, id) = site(&data);
    // Nobody listens there.
    let down = TcpListener::bind("localhost:0").unwrap().local_addr().unwrap().port();
    controller.tell_by_mail(Some(&MailConfig { port: down, ..config.clone() })).unwrap();
    let request = json!({ "machine": id, "request": { "name": "web1", "output": folder.path() } });
    let (status, _, task) = http(&data, "POST", "/tasks", &request.to_string());
    assert_eq!(status, 201, "{task}");
    let task = task["id"].as_str().unwrap().to_owned();
    eventually("it failed", || get(&data, &format!("/tasks/{task}"))["state"] == "failed");
    let ControllerMessage::Show { .. } = receive(&connection) else { panic!("the machine is told too") };
    let database = data.join("controller.db");
    eventually("it was tried", || {
        let connection = rusqlite::Connection::open(&database).unwrap();
        let tried = connection.query_row("SELECT max(attempts) FROM mails", [], |row| row.get::<_, Option<i64>>(0));
        tried.unwrap() == Some(1)
    });
    assert_eq!(get(&data, &format!("/tasks/{task}"))["state"], "failed", "the API answers meanwhile");
    drop(connection);
    controller.stop();

    // The next controller sends what is due: not before a minute has passed, so that moment is brought forward.
    let due = "UPDATE mails SET due_at = 0";
    rusqlite::Connection::open(&database).unwrap().execute(due, []).unwrap();
    let mut controller = start(&data, nothing());
    agent.follow(controller.status());
    controller.tell_by_mail(Some(&config)).unwrap();
    eventually("the mail is there", || !server.mails().is_empty());
    let mail = server.mails().remove(0).replace("=\r\n", "");
    for part in ["Subject: [vconverter] web1 failed", "the disk is too hot", &format!("vconverter tasks log {task}")] {
        assert!(mail.contains(part), "{part}\n{mail}");
    }
    assert_eq!(server.mails().len(), 1);
    controller.tell_by_mail(None).unwrap();
    controller.stop();
}
