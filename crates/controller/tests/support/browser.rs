//! A browser in small: HTTP over TLS to the console's port, with the controller's CA pinned.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use controller::api::Status;
use controller::{Config, ConsoleConfig, Controller, DataDirectory};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;

/// A controller with a port for browsers.
pub(crate) fn start_with_console(data: &Path) -> Controller {
    let listen: SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut config = Config::new(DataDirectory::new(data), listen, super::nothing());
    config.console = Some(ConsoleConfig { listen, certificate: None });
    Controller::start(config).unwrap()
}

/// What one sends along, and what came back last.
#[derive(Clone)]
pub(crate) struct Browser {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    pub(crate) headers: Vec<(String, String)>,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Value,
    /// What comes after, where there was no length.
    pub(crate) rest: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Browser {
    pub(crate) fn new(status: &Status) -> Self {
        let tls = protocol::tls::pinned_client(status.ca_fingerprint.parse().unwrap()).unwrap();
        Self { address: status.console_address.unwrap(), tls: Arc::new(tls), headers: Vec::new() }
    }

    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut other = self.clone();
        other.headers.push((name.into(), value.into()));
        other
    }

    pub(crate) fn with_token(&self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    /// The cookie and the CSRF token of an answer to a login.
    pub(crate) fn logged_in(&self, answer: &Answer) -> Self {
        let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap();
        self.with("cookie", cookie).with("x-csrf-token", answer.body["csrf_token"].as_str().unwrap())
    }

    pub(crate) fn without(&self, name: &str) -> Self {
        let mut other = self.clone();
        other.headers.retain(|(header, _)| header != name);
        other
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &body.to_string())
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        self.try_send(method, path, body).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// Fails where the other end closes before it has answered.
    pub(crate) fn try_send(&self, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let name = ServerName::try_from("controller.invalid").unwrap();
        let connection = ClientConnection::new(self.tls.clone(), name).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        let mut head = format!("{method} /api/v1{path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .chain([("content-type", "application/json")])
        {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if line == "\r\n" {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines[1..]
            .iter()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value.parse().unwrap());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Ok(Answer { status, headers, body, rest: reader })
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}
