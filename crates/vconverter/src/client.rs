//! A client of the controller's API: one connection for each request, so that a controller may come and go.

use std::time::Duration;

use controller::api::{LIMIT_MAX, Page, Problem};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, Uri, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use crate::failure::{Code, Failure, Result};
use crate::place::Place;

/// Longest wait for an answer. An approval waits for the machine's report, which takes seconds.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest answer in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Speaks to a controller.
pub(crate) struct Client {
    place: Place,
    runtime: Runtime,
}

impl Client {
    pub(crate) fn new(place: &Place) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::io("no runtime", &e))?;
        Ok(Self { place: place.clone(), runtime })
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.request(Method::GET, path, Bytes::new())
    }

    /// All items of a list, page after page.
    pub(crate) fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>> {
        let mut items = Vec::new();
        let mut after = String::new();
        loop {
            let page: Page<T> = self.get(&format!("{path}?limit={LIMIT_MAX}{after}"))?;
            items.extend(page.items);
            match page.next {
                Some(next) => after = format!("&after={}", segment(&next)),
                None => return Ok(items),
            }
        }
    }

    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.request(Method::POST, path, json(body)?)
    }

    /// Puts a value as JSON.
    pub(crate) fn put<T: DeserializeOwned>(&self, path: &str, value: &impl Serialize) -> Result<T> {
        self.request(Method::PUT, path, json(value)?)
    }

    /// Puts a file as it is.
    pub(crate) fn put_file<T: DeserializeOwned>(&self, path: &str, content: Vec<u8>) -> Result<T> {
        self.request(Method::PUT, path, content.into())
    }

    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.request(Method::DELETE, path, Bytes::new())
    }

    fn request<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T> {
        self.runtime.block_on(async {
            match tokio::time::timeout(TIMEOUT, self.exchange(method, path, body)).await {
                Ok(answer) => answer,
                Err(_) => Err(self.place.unreachable(&format!("no answer within {} s", TIMEOUT.as_secs()))),
            }
        })
    }

    async fn exchange<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T> {
        let lost = |e: hyper::Error| self.place.unreachable(&controller::chain(&e));
        let stream = self.place.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        tokio::spawn(connection);
        let uri: Uri = format!("/api/v1{path}")
            .parse()
            .map_err(|e| Failure::new(Code::Usage, format!("{path} cannot be asked for: {e}")))?;
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::HOST, self.place.host())
            .header(header::CONTENT_TYPE, "application/json");
        let request = match self.place.authorization() {
            Some(authorization) => request.header(header::AUTHORIZATION, authorization),
            None => request,
        };
        let request = request.body(Full::new(body)).map_err(|e| Failure::new(Code::Failed, format!("request: {e}")))?;
        let response = sender.send_request(request).await.map_err(lost)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|e| self.place.unreachable(&e.to_string()))?.to_bytes();
        let strange = |e| self.place.unreachable(&format!("an answer of another version: {e}"));
        match status.is_success() {
            // No content (204) is nothing.
            true if body.is_empty() => serde_json::from_slice(b"null").map_err(strange),
            true => serde_json::from_slice(&body).map_err(strange),
            false => Err(serde_json::from_slice::<Problem>(&body).map_err(strange)?.into()),
        }
    }
}

fn json(value: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|e| Failure::new(Code::Failed, format!("request: {e}")))
}

/// A path segment: what an operator typed cannot become another path.
pub(crate) fn segment(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => encoded.push(char::from(byte)),
            // Dots too: `..` would be another path.
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_stays_one_segment() {
        assert_eq!(segment("m-4f9c21ab"), "m-4f9c21ab");
        assert_eq!(segment("../tasks?x=1 é"), "%2E%2E%2Ftasks%3Fx%3D1%20%C3%A9");
    }
}
