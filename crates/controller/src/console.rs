//! The console: the page application of `web/`, built into the program.
//!
//! Every file comes from the program itself; no path of a client touches the file system. The policy that goes with each lets
//! a browser run nothing but these files, and talk to nobody but this controller.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// What a browser may do with the console (Content Security Policy Level 3): no inline script or style, no other host.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Its name has a hash of what is in it.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// Asked again each time, by its tag.
const ASK: &str = "no-cache";
const HASHED: &str = "/assets/";
const MISSING: &str = "This program was built without its console: `make build` builds it with one. The command line \
     does everything that the console does: `vconverter --help`.\n";

include!(concat!(env!("OUT_DIR"), "/console.rs"));

/// A file of the console.
struct File {
    /// From the root of the site: `/index.html`.
    path: &'static str,
    /// Changes with the content; in quotation marks, as HTTP wants it.
    tag: &'static str,
    content: &'static [u8],
}

/// Answers a request for a page or one of its files. Pages have addresses of their own (`/tasks/t-1a2b3c4d`), and are all the
/// same file.
pub(crate) fn serve(method: &Method, path: &str, headers: &HeaderMap) -> Response {
    answer(FILES, method, path, headers)
}

fn answer(files: &[File], method: &Method, path: &str, headers: &HeaderMap) -> Response {
    let mut response = find(files, method, path, headers);
    let set = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in set {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn find(files: &[File], method: &Method, path: &str, headers: &HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")]).into_response();
    }
    let named = |path: &str| files.iter().find(|file| file.path == path);
    let Some(index) = named("/index.html") else {
        return (StatusCode::NOT_FOUND, MISSING).into_response();
    };
    let file = match named(path) {
        Some(file) => file,
        // An older page asks for a file that is no more, or somebody for one that never was.
        None if path.starts_with(HASHED) || path.rsplit('/').next().is_some_and(|name| name.contains('.')) => {
            return (StatusCode::NOT_FOUND, "no such file\n").into_response();
        }
        None => index,
    };
    let caching = if file.path.starts_with(HASHED) { FOR_EVER } else { ASK };
    let known = [(header::ETAG, file.tag), (header::CACHE_CONTROL, caching)];
    let tags = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok()).unwrap_or_default();
    if tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == file.tag) {
        return (StatusCode::NOT_MODIFIED, known).into_response();
    }
    let mut response = (known, [(header::CONTENT_TYPE, content_type(file.path))]).into_response();
    response.headers_mut().insert(header::CONTENT_LENGTH, file.content.len().into());
    if method == Method::GET {
        *response.body_mut() = Body::from(file.content);
    }
    response
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static SITE: &[File] = &[
        File { path: "/assets/index-0a1b2c.js", tag: "\"2\"", content: b"let page;" },
        File { path: "/index.html", tag: "\"1\"", content: b"<!doctype html>" },
    ];

    fn get(files: &[File], path: &str) -> Response {
        answer(files, &Method::GET, path, &HeaderMap::new())
    }

    fn said<'a>(response: &'a Response, name: &str) -> &'a str {
        response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("-")
    }

    #[test]
    fn every_page_is_the_same_file_and_no_other_path_is() {
        for path in ["/", "/tasks", "/tasks/t-1a2b3c4d", "/index.html", "/machines/../../etc/passwd"] {
            let response = get(SITE, path);
            assert_eq!(
                (response.status(), said(&response, "content-type")),
                (StatusCode::OK, "text/html; charset=utf-8"),
                "{path}"
            );
            assert_eq!(said(&response, "cache-control"), ASK, "{path}");
        }
        for path in ["/assets/index-older.js", "/assets/", "/favicon.ico", "/.env"] {
            assert_eq!(get(SITE, path).status(), StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn files_with_a_hash_in_their_name_are_kept_and_others_are_asked_for() {
        let script = get(SITE, "/assets/index-0a1b2c.js");
        assert_eq!(said(&script, "cache-control"), FOR_EVER);
        assert_eq!(said(&script, "content-type"), "text/javascript; charset=utf-8");
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"0\", W/\"1\""));
        let again = answer(SITE, &Method::GET, "/", &headers);
        assert_eq!((again.status(), said(&again, "etag")), (StatusCode::NOT_MODIFIED, "\"1\""));
    }

    #[test]
    fn the_policy_goes_with_every_answer_and_allows_nothing_inline() {
        for path in ["/", "/assets/index-0a1b2c.js", "/assets/none.js"] {
            let response = get(SITE, path);
            let policy = said(&response, "content-security-policy");
            assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
            assert_eq!(said(&response, "x-content-type-options"), "nosniff", "{path}");
        }
    }

    #[test]
    fn nothing_can_be_posted_to_a_page() {
        let response = answer(SITE, &Method::POST, "/", &HeaderMap::new());
        assert_eq!((response.status(), said(&response, "allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"));
    }

    #[tokio::test]
    async fn a_program_without_its_console_says_so() {
        let response = get(&[], "/");
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        let text = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        assert!(text.starts_with(b"This program was built without its console"));
    }

    #[test]
    fn the_console_that_was_built_in_has_its_page_and_only_files_of_known_types() {
        for file in FILES {
            assert_ne!(content_type(file.path), "application/octet-stream", "{}", file.path);
            assert!(!file.content.is_empty() && file.tag.len() == 18, "{}", file.path);
        }
        assert!(FILES.is_empty() || FILES.iter().any(|file| file.path == "/index.html"));
    }
}
