//! Fetches one file by HTTP (RFC 9112), asked for as HTTP/1.0: the answer ends with the connection, and comes in one piece.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::installation::{DriverFile, FILE_BYTES_MAX};
use crate::network::reachability;
use crate::{Error, Result};

const HEAD_BYTES_MAX: usize = 16 << 10;
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// A server that says nothing for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// A file takes no longer than this.
const FETCH_MAX: Duration = Duration::from_secs(600);
const REDIRECTS_MAX: usize = 3;

/// Fetches the file at `url`.
///
/// # Errors
/// What is wrong with the URL, the way to the server, or its answer.
pub fn fetch(url: &str) -> Result<DriverFile> {
    let mut url = url.trim().to_owned();
    for _ in 0..=REDIRECTS_MAX {
        match ask(&parse_url(&url)?)? {
            Answer::File(content) => return Ok(DriverFile { name: parse_url(&url)?.file_name(), content }),
            Answer::Elsewhere(location) => url = location,
        }
    }
    Err(Error::new(format!("{url}: sent from one place to another more than {REDIRECTS_MAX} times")))
}

/// An URL in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Url {
    /// With brackets around an IPv6 address.
    host: String,
    port: u16,
    path: String,
}

impl Url {
    /// The last part of the path.
    fn file_name(&self) -> String {
        let path = self.path.split(['?', '#']).next().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default().to_owned()
    }
}

fn parse_url(url: &str) -> Result<Url> {
    let wrong = |what: &str| Error::new(format!("{url}: {what}"));
    let scheme_end = url.find("://").ok_or_else(|| wrong("expected http://SERVER/FILE"))?;
    let (scheme, rest) = (&url[..scheme_end], &url[scheme_end + 3..]);
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(wrong("only http:// is fetched here; the controller's library takes files from anywhere"));
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let has_port = authority.rfind(':').filter(|&colon| !authority[colon..].contains(']'));
    let (host, port) = has_port.map_or((authority, ""), |colon| (&authority[..colon], &authority[colon + 1..]));
    let port = if port.is_empty() { Some(80) } else { port.parse().ok().filter(|port| *port > 0) };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':');
    let sound = |c: char| c.is_ascii_graphic();
    match port {
        Some(port) if !host.is_empty() && host.chars().all(plain) && path.len() > 1 && path.chars().all(sound) => {
            Ok(Url { host: host.to_owned(), port, path: path.to_owned() })
        }
        _ => Err(wrong("expected http://SERVER/FILE or http://SERVER:PORT/FILE")),
    }
}

enum Answer {
    File(Vec<u8>),
    Elsewhere(String),
}

fn ask(url: &Url) -> Result<Answer> {
    let server = format!("{}:{}", url.host, url.port);
    let addresses = reachability::resolve(&server).map_err(|verdict| Error::new(verdict.to_string()))?;
    let address = addresses.first().ok_or_else(|| Error::new(format!("{server}: no address")))?;
    let failed = |e| Error::io(format!("{server}: no answer"), e);
    let mut socket = TcpStream::connect_timeout(address, CONNECT_MAX).map_err(failed)?;
    socket
        .set_read_timeout(Some(SILENCE_MAX))
        .and_then(|()| socket.set_write_timeout(Some(SILENCE_MAX)))
        .map_err(failed)?;
    let path = url.path.split('#').next().unwrap_or_default();
    let request =
        format!("GET {path} HTTP/1.0\r\nHost: {server}\r\nUser-Agent: vconverter\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).map_err(failed)?;
    read_answer(&mut socket, url)
}

fn read_answer(socket: &mut dyn Read, url: &Url) -> Result<Answer> {
    let failed = |e| Error::io(format!("{}: the connection broke", url.host), e);
    let started = Instant::now();
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    let mut head: Option<(Head, usize)> = None;
    loop {
        if head.is_none()
            && let Some((text, end)) = split_head(&bytes)
        {
            let parsed = parse_head(text).ok_or_else(|| Error::new(format!("{}: no answer in HTTP", url.host)))?;
            match (parsed.status, &parsed.location) {
                (200, _) => {}
                (301 | 302 | 303 | 307 | 308, Some(location)) => {
                    let whole = if location.starts_with('/') {
                        format!("http://{}:{}{location}", url.host, url.port)
                    } else {
                        location.clone()
                    };
                    return Ok(Answer::Elsewhere(whole));
                }
                (status, _) => {
                    return Err(Error::new(format!("{}{}: the server answers {status}", url.host, url.path)));
                }
            }
            if parsed.length.is_some_and(|length| length > FILE_BYTES_MAX) {
                return Err(too_large(url));
            }
            head = Some((parsed, end));
        }
        let end = head.as_ref().map_or(0, |(_, end)| *end);
        if head.is_none() && bytes.len() > HEAD_BYTES_MAX {
            return Err(Error::new(format!("{}: no answer in HTTP", url.host)));
        }
        if (bytes.len() - end) as u64 > FILE_BYTES_MAX {
            return Err(too_large(url));
        }
        if started.elapsed() > FETCH_MAX {
            return Err(Error::new(format!("{}: slower than {} s", url.host, FETCH_MAX.as_secs())));
        }
        let length = socket.read(&mut buffer).map_err(failed)?;
        bytes.extend_from_slice(&buffer[..length]);
        // A server may keep the connection, whatever it was asked.
        let complete = head.as_ref().and_then(|(head, end)| Some((bytes.len() - end) as u64 >= head.length?));
        if length == 0 || complete == Some(true) {
            let Some((head, end)) = head.or_else(|| {
                let (text, end) = split_head(&bytes)?;
                Some((parse_head(text).filter(|head| head.status == 200)?, end))
            }) else {
                return Err(Error::new(format!("{}: no answer in HTTP", url.host)));
            };
            let mut content = bytes.split_off(end);
            match head.length {
                Some(length) if (content.len() as u64) < length => {
                    return Err(Error::new(format!("{}: the file was cut off", url.host)));
                }
                Some(length) => content.truncate(usize::try_from(length).unwrap_or(usize::MAX)),
                None => {}
            }
            return Ok(Answer::File(content));
        }
    }
}

fn too_large(url: &Url) -> Error {
    Error::new(format!("{}{}: larger than {} MiB", url.host, url.path, FILE_BYTES_MAX >> 20))
}

/// The head of an answer, and where what follows begins.
fn split_head(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let start = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let at = start.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some((&bytes[..at], at + 4))
}

/// What is needed of an answer's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// `200`, …
    pub status: u16,
    /// Bytes that follow, where it says so.
    pub length: Option<u64>,
    /// Where else to look.
    pub location: Option<String>,
}

/// Reads an answer's head, without the empty line behind it.
pub fn parse_head(head: &[u8]) -> Option<Head> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let mut parsed = Head { status, length: None, location: None };
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => parsed.length = Some(value.parse().ok()?),
            "location" => parsed.location = Some(value.to_owned()),
            // Not in an answer to HTTP/1.0.
            "transfer-encoding" => return None,
            _ => {}
        }
    }
    Some(parsed)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server on this machine that answers each connection with the next of these.
    fn serve(answers: Vec<Vec<u8>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut socket, _) = listener.accept().unwrap();
                let mut asked = [0; 4096];
                let length = socket.read(&mut asked).unwrap();
                println!("{}", String::from_utf8_lossy(&asked[..length]));
                socket.write_all(&answer).unwrap();
            }
        });
        format!("http://{address}")
    }

    fn fetched(answers: &[&str]) -> Result<DriverFile> {
        let server = serve(answers.iter().map(|answer| answer.as_bytes().to_vec()).collect());
        fetch(&format!("{server}/drivers/raid.ko?x=1"))
    }

    #[test]
    fn a_file_is_fetched_under_its_name() {
        let file = fetched(&["HTTP/1.1 200 OK\r\nContent-Length: 6\r\nServer: x\r\n\r\nmodule and more"]).unwrap();
        assert_eq!((file.name.as_str(), file.content.as_slice()), ("raid.ko", &b"module"[..]));
        let file = fetched(&["HTTP/1.0 200 OK\r\n\r\nto the end"]).unwrap();
        assert_eq!(file.content, b"to the end");
        let elsewhere = "HTTP/1.1 302 Found\r\nLocation: /other/x.deb\r\nContent-Length: 0\r\n\r\n";
        let file = fetched(&[elsewhere, "HTTP/1.1 200 OK\r\n\r\npackage"]).unwrap();
        assert_eq!((file.name.as_str(), file.content.as_slice()), ("x.deb", &b"package"[..]));
    }

    #[test]
    fn what_goes_wrong_is_told() {
        let said = |answer: &str| fetched(&[answer]).map(|file| file.name).unwrap_err().chain();
        assert!(said("HTTP/1.1 404 Not Found\r\n\r\n").contains("the server answers 404"));
        assert!(said("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort").contains("cut off"));
        assert!(said("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n").contains("larger than 64 MiB"));
        assert!(said("SSH-2.0-x\r\n\r\n").contains("no answer in HTTP"));
        assert!(said("").contains("no answer in HTTP"));
        let away = "HTTP/1.1 301 x\r\nLocation: https://example.com/x\r\n\r\n";
        assert!(said(away).contains("only http://"));
    }

    #[test]
    fn urls_are_read_as_they_are_typed() {
        let url = |text: &str| parse_url(text).map(|url| (url.host.clone(), url.port, url.file_name()));
        assert_eq!(url("http://192.0.2.1/a/b.ko").unwrap(), ("192.0.2.1".into(), 80, "b.ko".into()));
        assert_eq!(url("HTTP://[2001:db8::1]:8080/x").unwrap(), ("[2001:db8::1]".into(), 8080, "x".into()));
        for wrong in [
            "",
            "192.0.2.1/x",
            "http://",
            "http://a",
            "http://a/",
            "http://a:0/x",
            "http://a:x/x",
            "ftp://a/x",
            "http://a b/x",
            "http://a/x y",
        ] {
            assert!(url(wrong).is_err(), "{wrong:?}");
        }
    }
}
