//! Who gets in over the network, and what they may do there.
#![allow(clippy::unwrap_used)]

#[path = "support/browser.rs"]
mod browser;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use browser::{Answer, Browser, start_with_console};
use controller::Controller;
use controller::store::{NewApiToken, Store};
use controller::trust::{Role, Token};
use controller::{Config, ConsoleConfig, DataDirectory, ErrorKind, Timestamp};
use serde_json::{Value, json};
use support::*;

const GOOD: &str = "correct horse battery";

struct House {
    _folder: tempfile::TempDir,
    data: PathBuf,
    controller: Controller,
    browser: Browser,
}

fn house() -> House {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let controller = start_with_console(&data);
    let browser = Browser::new(controller.status());
    House { _folder: folder, data, controller, browser }
}

impl House {
    fn with_users(self) -> Self {
        for role in ["viewer", "operator", "administrator"] {
            let body = json!({ "name": role, "role": role, "password": GOOD }).to_string();
            let (status, _, made) = http(&self.data, "POST", "/users", &body);
            assert_eq!(status, 201, "{made}");
        }
        self
    }

    fn log_in(&self, name: &str) -> Browser {
        let answer = self.browser.post("/login", &json!({ "name": name, "password": GOOD }));
        assert_eq!(answer.status, 200, "{}", answer.body);
        self.browser.logged_in(&answer)
    }

    fn token(&self, role: &str) -> String {
        let body = json!({ "name": format!("for {role}"), "role": role, "user": role }).to_string();
        let (status, _, made) = http(&self.data, "POST", "/tokens", &body);
        assert_eq!(status, 201, "{made}");
        made["token"].as_str().unwrap().to_owned()
    }
}

#[test]
fn the_first_administrator_is_made_with_the_code_of_this_start() {
    let house = house();
    assert_eq!(house.browser.get("/setup").body, json!({ "needed": true }));
    let code = house.controller.make_setup_code().unwrap().unwrap().to_string();
    let wrong = json!({ "code": "0000-0000-0000-0000", "name": "ada", "password": GOOD });
    assert_eq!(house.browser.post("/setup", &wrong).status, 401);
    let answer = house.browser.post("/setup", &json!({ "code": code, "name": "ada", "password": GOOD }));
    assert_eq!((answer.status, &answer.body["role"]), (200, &json!("administrator")), "{}", answer.body);
    let cookie = answer.header("set-cookie").unwrap();
    println!("{}", cookie.split_once('=').unwrap().1.split_once(';').unwrap().1);
    for wanted in ["__Host-vconverter-session=", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict"] {
        assert!(cookie.contains(wanted), "{wanted}");
    }
    let ada = house.browser.logged_in(&answer);
    assert_eq!(ada.get("/session").body, answer.body);
    assert_eq!(house.browser.get("/setup").body, json!({ "needed": false }));
    assert_eq!(house.browser.post("/setup", &json!({ "code": code, "name": "eve", "password": GOOD })).status, 409);
    assert!(house.controller.make_setup_code().unwrap().is_none());
    let actions: Vec<String> =
        ada.get("/audit").body.as_array().unwrap().iter().map(|line| line["action"].as_str().unwrap().into()).collect();
    println!("{actions:?}");
    assert_eq!(actions[..3], ["logged in", "user added", "setup refused"].map(String::from));
}

#[test]
fn a_session_needs_its_csrf_token_to_change_anything_and_ends_by_logging_out() {
    let house = house().with_users();
    let ada = house.log_in("administrator");
    let user = json!({ "name": "eve", "role": "viewer", "password": GOOD });
    for sent in [ada.without("x-csrf-token"), ada.without("x-csrf-token").with("x-csrf-token", &"0".repeat(64))] {
        let answer = sent.post("/users", &user);
        assert_eq!((answer.status, &answer.body["kind"]), (403, &json!("forbidden")), "{}", answer.body);
        assert_eq!(sent.get("/users").status, 200, "to look changes nothing");
    }
    let other = house.log_in("administrator");
    let others = other.headers.iter().find(|(name, _)| name == "x-csrf-token").unwrap().1.clone();
    let mixed = ada.without("x-csrf-token").with("x-csrf-token", &others);
    assert_eq!(mixed.post("/users", &user).status, 403, "the CSRF token of another session");
    assert_eq!(ada.post("/users", &user).status, 201);

    assert_eq!(ada.without("x-csrf-token").post("/logout", &Value::Null).status, 403);
    let answer = ada.post("/logout", &Value::Null);
    assert_eq!(answer.status, 204);
    assert!(answer.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(ada.get("/session").status, 401);
    assert_eq!(other.get("/session").status, 200, "another session goes on");
    let again = ada.post("/login", &json!({ "name": "administrator", "password": GOOD }));
    assert_eq!(again.status, 200, "an old cookie keeps nobody from logging in");
}

#[test]
fn a_stream_of_events_ends_with_its_session() {
    let house = house().with_users();
    let viewer = house.log_in("viewer");
    let mut stream = viewer.get("/events");
    assert_eq!((stream.status, stream.header("content-type")), (200, Some("text/event-stream")));
    let mut first = [0; 5];
    stream.rest.read_exact(&mut first).unwrap();
    assert_eq!(viewer.post("/logout", &Value::Null).status, 204);
    let mut rest = Vec::new();
    stream
        .rest
        .read_to_end(&mut rest)
        .map(drop)
        .unwrap_or_else(|e| assert_eq!(e.kind(), std::io::ErrorKind::UnexpectedEof));
    assert!(rest.ends_with(b"0\r\n\r\n"), "the stream came to its end: {}", String::from_utf8_lossy(&rest));
}

#[test]
fn guesses_over_the_network_are_slowed_down_and_audited() {
    let house = house().with_users();
    let wrong = json!({ "name": "viewer", "password": "wrong horse battery" });
    let statuses: Vec<u16> = (0..7).map(|_| house.browser.post("/login", &wrong).status).collect();
    println!("{statuses:?}");
    assert_eq!(statuses[..5], [401; 5]);
    assert!(statuses[5..].contains(&429), "{statuses:?}");
    let refused = house.browser.post("/login", &wrong);
    assert_says_when_to_come_again(&refused);
    let (_, _, audit) = http(&house.data, "GET", "/audit?limit=1", "");
    assert_eq!((&audit[0]["action"], &audit[0]["detail"]), (&json!("login refused"), &json!("from 127.0.0.1")));
}

#[test]
fn credentials_are_set_listed_and_removed_and_never_come_back() {
    let house = house().with_users();
    let ada = house.log_in("administrator");
    let new = json!({ "kind": "ssh-password", "user": "root", "secret": "s3cret-of-web1" }).to_string();
    assert_eq!(ada.send("PUT", "/credentials/web1", &new).status, 200);
    assert_eq!(house.log_in("operator").send("PUT", "/credentials/web1", &new).status, 403);
    let listed = house.log_in("operator").get("/credentials").body;
    assert_eq!((&listed[0]["name"], &listed[0]["user"]), (&json!("web1"), &json!("root")));
    let seen = format!("{listed}{}", ada.get("/audit").body);
    assert!(seen.contains("credential set") && !seen.contains("s3cret"), "{seen}");
    assert_eq!(ada.send("DELETE", "/credentials/web1", "").status, 204);
    assert_eq!(ada.send("DELETE", "/credentials/web1", "").status, 404);
}

#[test]
fn an_own_password_is_changed_in_a_session_and_other_sessions_end() {
    let house = house().with_users();
    let (here, there) = (house.log_in("viewer"), house.log_in("viewer"));
    let change = json!({ "old": GOOD, "new": "another horse battery" });
    let token = house.browser.with_token(&house.token("viewer"));
    assert_eq!(token.post("/session/password", &change).status, 403, "a token changes no password");
    let answer = here.post("/session/password", &change);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!((here.get("/session").status, there.get("/session").status), (401, 401));
    assert_eq!(house.browser.logged_in(&answer).get("/session").status, 200);
}

/// RFC 6585, RFC 9110 and RFC 9457 together.
fn assert_says_when_to_come_again(answer: &Answer) {
    assert_eq!((answer.status, answer.header("content-type")), (429, Some("application/problem+json")));
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=900).contains(&seconds), "{seconds}");
    assert_eq!((&answer.body["kind"], &answer.body["retry_after"]), (&json!("too-many"), &json!(seconds)));
    assert!(answer.body["detail"].as_str().unwrap().contains(&format!("try again in {seconds} s")), "{}", answer.body);
}

#[test]
fn a_thousand_guesses_of_a_password_or_a_token_are_slowed_down_and_the_right_token_is_not() {
    let house = house().with_users();
    let good = house.browser.with_token(&house.token("viewer"));
    let (mut tried, mut last) = (0, None);
    for _ in 0..1000 {
        let answer = house.browser.with_token(Token::for_api().unwrap().expose()).get("/machines");
        tried += usize::from(answer.status == 401);
        last = Some(answer);
    }
    println!("{tried} of 1000 tokens were looked at");
    assert!((5..100).contains(&tried), "{tried}");
    assert_says_when_to_come_again(&last.unwrap());
    assert_eq!(good.get("/machines").status, 200, "who has a token is not slowed down by others behind their address");
    let wrong = json!({ "name": "viewer", "password": "wrong horse battery" });
    let (mut tried, mut last) = (0, None);
    for _ in 0..1000 {
        let answer = house.browser.post("/login", &wrong);
        tried += usize::from(answer.status == 401);
        last = Some(answer);
    }
    println!("{tried} of 1000 passwords were looked at");
    assert!((5..100).contains(&tried), "{tried}");
    assert_says_when_to_come_again(&last.unwrap());
    let document = get(&house.data, "/openapi.json");
    for path in ["/api/v1/login", "/api/v1/setup", "/api/v1/session/password"] {
        let told = &document["paths"][path]["post"]["responses"]["429"];
        assert_eq!(told["headers"]["Retry-After"]["schema"]["type"], "integer", "{path}: {told}");
        assert!(told["content"]["application/problem+json"].is_object(), "{path}: {told}");
    }
}

/// All operations of the API: role, method, path.
fn operations(data: &Path) -> Vec<(String, String, String)> {
    let document = get(data, "/openapi.json");
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let role = operation["x-role"].as_str().unwrap().to_owned();
            operations.push((role, method.to_uppercase(), path.clone()));
        }
    }
    operations.sort_by(|a, b| (&a.2, &a.1).cmp(&(&b.2, &b.1)));
    operations
}

/// A change of who may do what is seen in review. `UPDATE_GOLDEN=1` writes it anew.
#[test]
fn routes_and_roles_are_those_in_the_repository() {
    let house = house();
    let lines: Vec<String> = operations(&house.data)
        .into_iter()
        .map(|(role, method, path)| format!("{role:13}  {method:6}  {path}\n"))
        .collect();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/routes.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, lines.concat()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&golden).unwrap_or_default(), lines.concat());
}

#[test]
fn every_route_is_open_to_its_role_and_closed_to_all_below() {
    let house = house().with_users();
    let store = Store::open(&DataDirectory::new(&house.data).database()).unwrap();
    let over = Token::for_api().unwrap();
    let yesterday = Timestamp(Timestamp::now().0 - 1000);
    let new = NewApiToken {
        token: &over.hash(),
        name: "over",
        user: Some("administrator"),
        role: Role::Administrator,
        expires_at: yesterday,
    };
    store.add_api_token(new, "uid 0").unwrap();
    let revoked = house.token("administrator");
    let (_, _, tokens) = http(&house.data, "GET", "/tokens", "");
    let id = tokens.as_array().unwrap().iter().find(|token| token["name"] == "for administrator").unwrap();
    let (status, _, _) = http(&house.data, "DELETE", &format!("/tokens/{}", id["id"].as_str().unwrap()), "");
    assert_eq!(status, 204);

    let none = &house.browser;
    let with_cookie = house.log_in("administrator").without("x-csrf-token");
    let strangers = [
        ("nobody", none.clone()),
        ("expired token", none.with_token(over.expose())),
        ("revoked token", none.with_token(&revoked)),
        ("unknown token", none.with_token(Token::for_api().unwrap().expose())),
        ("session's cookie as a token", none.with_token(&"0".repeat(64))),
        ("no token at all", none.with("authorization", "Basic YTpi")),
        ("unknown cookie", none.with("cookie", &format!("__Host-vconverter-session={}", "0".repeat(64)))),
    ];
    let ranks = ["none", "viewer", "operator", "administrator"];
    let callers = ["viewer", "operator", "administrator"].map(|role| (role, none.with_token(&house.token(role))));
    let rank = |role: &str| ranks.iter().position(|known| *known == role).unwrap();
    let operations = operations(&house.data);
    let mut asked = 0;
    for (role, method, path) in &operations {
        let path = path.strip_prefix("/api/v1").unwrap();
        let path: Vec<&str> =
            path.split('/').map(|part| if part.starts_with('{') { "no-such-thing" } else { part }).collect();
        let path = path.join("/");
        let body = if method == "GET" { "" } else { "{}" };
        let mut ask = |who: &str, browser: &Browser| {
            asked += 1;
            let answer = browser.send(method, &path, body);
            let is_problem = answer.header("content-type") == Some("application/problem+json");
            assert!(answer.status < 400 || is_problem, "{method} {path} as {who}: {}", answer.status);
            assert!(answer.status < 500, "{method} {path} as {who}: {}", answer.body);
            answer.status
        };
        for (who, browser) in &strangers {
            let status = ask(who, browser);
            let is_open = role == "none" && !browser.headers.iter().any(|(name, _)| name == "authorization");
            // Whoever comes with wrong tokens again and again is told to wait.
            assert_eq!(
                matches!(status, 401 | 429),
                !is_open,
                "{method} {path} needs {role} and says {status} to {who}"
            );
        }
        for (who, browser) in &callers {
            let status = ask(who, browser);
            let may = rank(who) >= rank(role);
            assert_eq!(status == 403, !may, "{method} {path} needs {role} and says {status} to {who}");
            assert_ne!(status, 401, "{method} {path} to {who}");
        }
        let status = ask("administrator's cookie without CSRF token", &with_cookie);
        assert_eq!(status == 403, method != "GET", "{method} {path} says {status} to a cookie without CSRF token");
    }
    println!("{asked} requests on {} routes", operations.len());
    assert!(operations.len() > 25);
}

#[test]
fn answers_tell_browsers_to_be_careful() {
    let house = house();
    for path in ["/setup", "/nothing", "/machines"] {
        let answer = house.browser.get(path);
        for (name, wanted) in [
            ("strict-transport-security", "max-age="),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "frame-ancestors 'none'"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert!(answer.header(name).is_some_and(|value| value.contains(wanted)), "{path}: {name}");
        }
    }
}

#[test]
fn the_port_speaks_tls_only_and_bounds_what_it_reads() {
    let house = house();
    let mut plain = TcpStream::connect(house.controller.status().console_address.unwrap()).unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    plain.write_all(b"GET /api/v1/setup HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));

    // It may close before all of that was sent, and the answer is lost then.
    let refused = |answer: std::io::Result<browser::Answer>| answer.map_or(0, |answer| answer.status);
    let head = refused(house.browser.with("x-long", &"x".repeat(64 << 10)).try_send("GET", "/setup", ""));
    let long = json!({ "name": "x".repeat(300 << 10), "password": GOOD }).to_string();
    let body = refused(house.browser.try_send("POST", "/login", &long));
    println!("a long head: {head}; a long body: {body}");
    assert!(matches!(head, 0 | 431) && matches!(body, 0 | 413));
    assert_eq!(house.browser.get("/setup").status, 200, "others are served");
}

#[test]
fn the_consoles_certificate_stays_over_restarts_and_an_operators_own_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let controller = start_with_console(&data);
    let kept = data.join("identity/console.pem");
    let first = std::fs::read_to_string(&kept).unwrap();
    println!("{}", first.lines().next().unwrap());
    assert!(first.starts_with("names: localhost 127.0.0.1 ::1 "), "{first}");
    assert_eq!(kept.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    controller.stop();
    let controller = start_with_console(&data);
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), first, "what a browser was told to trust stays");
    assert_eq!(Browser::new(controller.status()).get("/setup").status, 200);
    controller.stop();
    std::fs::write(&kept, first.replacen("localhost", "elsewhere", 1)).unwrap();
    start_with_console(&data).stop();
    assert_ne!(std::fs::read_to_string(&kept).unwrap(), first, "other names, another certificate");

    let own = std::fs::read_to_string(&kept).unwrap();
    let start = |own: &str, mode: u32| {
        let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        std::fs::write(&chain, &own[own.find("-----BEGIN CERTIFICATE").unwrap()..]).unwrap();
        std::fs::write(&key, own).unwrap();
        std::fs::set_permissions(&key, PermissionsExt::from_mode(mode)).unwrap();
        let listen = ([127, 0, 0, 1], 0).into();
        let mut config = Config::new(DataDirectory::new(&data), listen, nothing());
        config.console = Some(ConsoleConfig { listen, certificate: Some(controller::CertificateFiles { chain, key }) });
        Controller::start(config)
    };
    let refused = start(&own, 0o644).err().unwrap();
    println!("{}", refused.chain());
    assert_eq!((refused.kind, refused.chain().contains("expected mode 0600")), (ErrorKind::Invalid, true));
    let controller = start(&own, 0o600).unwrap();
    assert_eq!(Browser::new(controller.status()).get("/setup").status, 200);
    controller.stop();
}
