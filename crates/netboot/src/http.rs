//! HTTP/1.1 for boot files: GET and HEAD, with the one range that a boot loader asks for. Requests are parsed by hyper.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::Interface;
use crate::files::{BootPath, Content, parse_path};
use crate::loader::ISO;
use crate::log::Entry;
use crate::site::Site;

/// Connections at once; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 256;
/// Time for the head of a request, and between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// No connection lasts longer, whatever trickles out.
const CONNECTION_MAX: Duration = Duration::from_secs(3600);
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Bytes read from a file at a time.
const CHUNK: u64 = 256 << 10;

/// Answers connections on `listener` for ever.
pub(crate) async fn serve(listener: TcpListener, interface: Interface, site: Arc<Site>) {
    let permits = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(failure) => {
                tracing::debug!(%failure, "HTTP socket");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (interface, site) = (interface.clone(), Arc::clone(&site));
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(|request| {
                let response = answer(&request, client, &interface, &site);
                async { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(CONNECTION_MAX, connection).await;
        });
    }
}

fn answer(
    request: &Request<Incoming>,
    client: SocketAddr,
    interface: &Interface,
    site: &Arc<Site>,
) -> Response<FileBody> {
    let path = parse_path(request.uri().path());
    let entry = Entry {
        mac: path.as_ref().and_then(|path| path.machine),
        address: Some(client.ip()),
        interface: interface.name.clone(),
        request: format!("HTTP {} {}", request.method(), shown(request.uri().path())),
        ..Entry::default()
    };
    let log =
        |answer: &str, why: &str| site.log.write(Entry { answer: answer.into(), why: why.into(), ..entry.clone() });
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        log("method not allowed", "files are only read here");
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let opened = path.as_ref().and_then(|path| site.open(path));
    let (Some(path), Some(opened)) = (path, opened) else {
        log("not found", "no boot file has this name");
        return plain(StatusCode::NOT_FOUND);
    };
    let content = match opened {
        Ok(content) => content,
        Err(failure) => {
            log("an error", &failure.to_string());
            return plain(StatusCode::INTERNAL_SERVER_ERROR);
        }
    };
    let size = content.size();
    let range = match request.headers().get(RANGE).map(|value| parse_range(value.as_bytes(), size)) {
        None | Some(Wanted::Whole) => None,
        Some(Wanted::Part { first, last }) => Some((first, last)),
        Some(Wanted::Impossible) => {
            log("range not satisfiable", "the file is shorter");
            let mut response = plain(StatusCode::RANGE_NOT_SATISFIABLE);
            insert(&mut response, CONTENT_RANGE, format!("bytes */{size}"));
            return response;
        }
    };
    let (first, length) = range.map_or((0, size), |(first, last)| (first, last - first + 1));
    // EDK2 takes the content for a disk by this type (UEFI specification 2.10, section 24.7.3.1).
    let content_type = if path.file == ISO { "application/vnd.efi-iso" } else { "application/octet-stream" };
    let told =
        Told { site: Arc::clone(site), entry, path, length, start: Instant::now(), ends_file: first + length == size };
    let is_head = *request.method() == Method::HEAD;
    if is_head {
        told.write(&format!("{size} bytes long"), "it asked for the size only");
    }
    let body = if is_head { FileBody::empty() } else { FileBody::new(content, first, length, told) };
    let mut response = Response::new(body);
    if let Some((first, last)) = range {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        insert(&mut response, CONTENT_RANGE, format!("bytes {first}-{last}/{size}"));
    }
    insert(&mut response, CONTENT_LENGTH, length.to_string());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response
}

fn shown(path: &str) -> String {
    path.chars().take(120).collect()
}

fn insert(response: &mut Response<FileBody>, name: hyper::header::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::from_str(&value) {
        response.headers_mut().insert(name, value);
    }
}

/// An error. Its body is not empty: EDK2 waits for the end of the connection where it is (seen with shim's optional files).
fn plain(status: StatusCode) -> Response<FileBody> {
    let text = format!("{status}\n");
    let (content, length) = (Content::Bytes(text.as_bytes().into()), text.len() as u64);
    let mut response = Response::new(FileBody { content: Some(content), at: 0, left: length, told: None });
    *response.status_mut() = status;
    response
}

/// What a `Range` header asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// The whole file: also where the header is of a form that need not be known (RFC 9110, section 14.2).
    Whole,
    /// From `first` to `last`, which it includes.
    Part { first: u64, last: u64 },
    /// Behind the end.
    Impossible,
}

fn parse_range(header: &[u8], size: u64) -> Wanted {
    let range = std::str::from_utf8(header).ok().and_then(|text| text.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = range else { return Wanted::Whole };
    let Ok(first) = first.parse::<u64>() else { return Wanted::Whole };
    let last = match last {
        "" => u64::MAX,
        last => match last.parse::<u64>() {
            Ok(last) if last >= first => last,
            _ => return Wanted::Whole,
        },
    };
    if first >= size { Wanted::Impossible } else { Wanted::Part { first, last: last.min(size - 1) } }
}

/// The line of the log that a body writes when it ends.
struct Told {
    site: Arc<Site>,
    entry: Entry,
    path: BootPath,
    length: u64,
    start: Instant,
    ends_file: bool,
}

impl Told {
    fn write(&self, answer: &str, why: &str) {
        self.site.log.write(Entry { answer: answer.into(), why: why.into(), ..self.entry.clone() });
    }

    fn end(&self, left: u64) {
        if left > 0 {
            self.write(&format!("{} bytes, then it ended", self.length - left), "the connection was closed");
            return;
        }
        let seconds = self.start.elapsed().as_secs_f64();
        self.write(&format!("{} bytes in {seconds:.1} s", self.length), "it is a boot file");
        if self.ends_file {
            self.site.sent(&self.path);
        }
    }
}

/// A part of a file, read while it is sent.
struct FileBody {
    content: Option<Content>,
    at: u64,
    left: u64,
    told: Option<Told>,
}

impl FileBody {
    fn empty() -> Self {
        Self { content: None, at: 0, left: 0, told: None }
    }

    fn new(content: Content, at: u64, left: u64, told: Told) -> Self {
        Self { content: Some(content), at, left, told: Some(told) }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let length = self.left.min(CHUNK);
        let Some(content) = self.content.as_ref().filter(|_| length > 0) else { return Poll::Ready(None) };
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        // A boot file is in the page cache; this waits for no disk but the first time.
        if let Err(failure) = content.read_at(self.at, &mut bytes) {
            return Poll::Ready(Some(Err(failure)));
        }
        self.at += length;
        self.left -= length;
        Poll::Ready(Some(Ok(Frame::data(bytes.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Drop for FileBody {
    fn drop(&mut self) {
        if let Some(told) = &self.told {
            told.end(self.left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_a_boot_loader_writes_them() {
        let cases: [(&[u8], Wanted); 9] = [
            (b"bytes=4-", Wanted::Part { first: 4, last: 9 }),
            (b"bytes=0-3", Wanted::Part { first: 0, last: 3 }),
            (b"bytes=9-99", Wanted::Part { first: 9, last: 9 }),
            (b"bytes=10-", Wanted::Impossible),
            (b"bytes=-4", Wanted::Whole),
            (b"bytes=3-1", Wanted::Whole),
            (b"bytes=0-1,4-5", Wanted::Whole),
            (b"lines=0-1", Wanted::Whole),
            (b"bytes=\xff-", Wanted::Whole),
        ];
        for (header, wanted) in cases {
            assert_eq!(parse_range(header, 10), wanted, "{header:?}");
        }
        assert_eq!(parse_range(b"bytes=0-", 0), Wanted::Impossible);
    }
}
