//! Who asks over the network: the layer that makes a [`Caller`] of a cookie or a token.
//!
//! A bearer token counts before a cookie. A request that changes something and comes with the cookie of a session needs
//! the session's CSRF token too: a page of another site can send the cookie, but has never seen the token. A cookie that
//! is no session any more makes nobody, so that one can log in again. A stream of events ends with the session that
//! opened it.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio_stream::Stream;

use super::routes::{Answer, blocking};
use super::{Caller, Problem, ProblemKind};
use crate::trust::{Access, Proof, Token, equal_in_constant_time};

/// The cookie of a session. The prefix makes browsers insist on `Secure` and on this very host.
pub(super) const COOKIE: &str = "__Host-vconverter-session";
const CSRF_HEADER: &str = "x-csrf-token";
/// Cookies that are looked at in one request, and sessions among them.
const COOKIES_MAX: usize = 64;
/// How often it is looked whether the session of an open stream is over.
const STREAM_CHECK: Duration = Duration::from_secs(5);

/// Where a request comes from: an address, or the Unix socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin(pub(crate) Option<IpAddr>);

/// The session that a request came with, good or not.
#[derive(Clone)]
pub(super) struct SessionCookie(pub(super) Token);

impl<S: Sync> FromRequestParts<S> for Origin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or(Self(None)))
    }
}

impl aide::OperationInput for Origin {}

/// The cookie itself, for the one route that ends its session.
pub(super) struct Cookie(pub(super) Option<Token>);

impl<S: Sync> FromRequestParts<S> for Cookie {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(parts.extensions.get::<SessionCookie>().map(|cookie| cookie.0.clone())))
    }
}

impl aide::OperationInput for Cookie {}

/// Finds out who asks.
pub(super) async fn authenticate(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    // Nobody brings these along.
    request.extensions_mut().remove::<Caller>();
    let address = request.extensions().get::<Origin>().and_then(|origin| origin.0);
    let caller = match caller_of(&access, request.headers(), request.method(), address).await {
        Ok(caller) => caller,
        Err(problem) => return refused(problem),
    };
    let Some((caller, token)) = caller else { return next.run(request).await };
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(SessionCookie(token.clone()));
    let response = next.run(request).await;
    let is_stream = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if !is_stream {
        return response;
    }
    let (head, body) = response.into_parts();
    let over = Box::pin(is_over(access, token));
    Response::from_parts(head, Body::from_stream(WhileLoggedIn { events: body.into_data_stream(), over }))
}

async fn caller_of(
    access: &Arc<Access>,
    headers: &HeaderMap,
    method: &Method,
    address: Option<IpAddr>,
) -> Answer<Option<(Caller, Token)>> {
    let access = Arc::clone(access);
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        let token = bearer(authorization).and_then(Token::parse_api);
        let used = token.clone();
        let look = move || match used.map_or(Ok(None), |token| access.caller_of_token(&token))? {
            Some(caller) => Ok(Some(caller)),
            None => access.note_wrong_token(address).map(|()| None),
        };
        let caller = blocking(look).await?.0.zip(token);
        return caller.map(Some).ok_or_else(|| unauthenticated("this token is unknown, over or revoked"));
    }
    let Some(token) = session_cookie(headers) else { return Ok(None) };
    let used = token.clone();
    let Some(caller) = blocking(move || access.caller_of_session(&used, true)).await?.0 else { return Ok(None) };
    if let Proof::Session { csrf_token } = &caller.proof
        && !method.is_safe()
    {
        let sent = headers.get(CSRF_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !equal_in_constant_time(sent, csrf_token) {
            let detail = "X-CSRF-Token is missing or wrong: it is in the answer of GET /api/v1/session";
            return Err(Problem::new(StatusCode::FORBIDDEN, ProblemKind::Forbidden, detail));
        }
    }
    Ok(Some((caller, token)))
}

fn bearer(authorization: &HeaderValue) -> Option<&str> {
    let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn session_cookie(headers: &HeaderMap) -> Option<Token> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let cookies = lines.flat_map(|line| line.split(';')).take(COOKIES_MAX);
    cookies
        .filter_map(|cookie| cookie.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .and_then(|(_, value)| Token::parse_session(value))
}

fn unauthenticated(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, ProblemKind::Unauthenticated, detail)
}

fn refused(problem: Problem) -> Response {
    let mut response = problem.into_response();
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Waits until a session or token is over. To watch is no use of a session: who only watches is logged out in time.
async fn is_over(access: Arc<Access>, token: Token) {
    loop {
        tokio::time::sleep(STREAM_CHECK).await;
        let (access, token) = (Arc::clone(&access), token.clone());
        let look = move || match access.caller_of_session(&token, false)? {
            Some(_) => Ok(true),
            None => access.caller_of_token(&token).map(|caller| caller.is_some()),
        };
        // A store that cannot be read just now logs nobody out.
        if let Ok(axum::Json(false)) = blocking(look).await {
            return;
        }
    }
}

/// A stream that ends when the login is over.
struct WhileLoggedIn {
    events: BodyDataStream,
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Stream for WhileLoggedIn {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.events).poll_next(context)
    }
}

/// Adds what browsers are to hold to. A page that says more of itself keeps that.
pub(super) async fn with_security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_among_others() {
        let token = Token::for_session().unwrap();
        let mut headers = HeaderMap::new();
        assert!(session_cookie(&headers).is_none());
        let line = format!("theme=dark; {COOKIE}={}; x", token.expose());
        headers.append(header::COOKIE, "a=b".parse().unwrap());
        headers.append(header::COOKIE, line.parse().unwrap());
        assert_eq!(session_cookie(&headers).unwrap().hash(), token.hash());
        headers.clear();
        headers.append(header::COOKIE, format!("{COOKIE}=../../etc").parse().unwrap());
        assert!(session_cookie(&headers).is_none());
        assert_eq!(bearer(&HeaderValue::from_static("bearer abc")), Some("abc"));
        assert_eq!(bearer(&HeaderValue::from_static("Basic abc")), None);
    }
}
