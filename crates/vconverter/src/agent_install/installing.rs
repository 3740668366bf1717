//! The installation: token, program, service, and the controller that sees the machine.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use controller::api::{AgentView, MadeEnrolment, NewEnrolment, Status};
use serde_json::{Value, json};

use super::login::Reached;
use super::said::plain;
use super::script::Facts;
use super::session::{Line, Session};
use super::upload::upload;
use crate::arguments::InstallAgent;
use crate::client::{Client, segment};
use crate::failure::{Code, Failure, Result};

/// How long the token is good: the installation, and a slow machine.
const TOKEN_MINUTES: u32 = 60;
/// How much longer the agent waits for the word than we for the controller.
const SPARE_SECONDS: u64 = 60;
/// How often the controller is asked.
const POLL: Duration = Duration::from_millis(500);
/// Time for one step of the installation at the other end.
const STEP: Duration = Duration::from_secs(180);

/// Installs the agent; what fails leaves nothing there. `at` is the host of the controller's URL, where it is not here.
pub(super) fn install(client: &Client, wish: &InstallAgent, at: Option<&str>, json: bool) -> Result<()> {
    // Without a controller nothing need be begun.
    let status: Status = client.get("/status")?;
    let mut reached = Reached::open(&wish.reach, json)?;
    let named = wish.controller.as_deref().filter(|named| !named.starts_with("https://"));
    let controller = match named {
        Some(address) => checked(address)?,
        None => address_for_agents(&status, at, &reached.facts, reached.is_behind_jump)?,
    };
    let program = upload(&mut reached)?;
    let what = if wish.once { "--once " } else { "" };
    let within = wish.timeout + SPARE_SECONDS;
    let arguments =
        format!("install {what}--controller {controller} --ca-fingerprint {} --enrol - --json", status.ca_fingerprint);
    if wish.dry_run {
        let ended = reached.run_agent(&program, &format!("{arguments} --dry-run"))?;
        return show_plan(&reached, &ended);
    }
    let token = Token::make(client, &reached.host)?;
    let line = reached.elevation.command(&format!("{} {arguments} --keep-within {within}", program.display()));
    let mut session = reached.connection.start(&line)?;
    session.write(reached.elevation.input().as_bytes())?;
    session.write(format!("{}\n", token.text).as_bytes())?;
    reached.tell("install", &format!("for the controller at {controller}"))?;

    let seen = follow(&mut session, &reached, client, wish.timeout, &controller);
    let (machine, key) = match seen {
        Ok(seen) => seen,
        // The end of its input has the agent undo everything; how that went is told.
        Err(failure) => return Err(undone(session, failure)),
    };
    session.write(b"keep\n")?;
    let ended = session.end()?;
    let events: Vec<Value> = ended.lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let Some(done) = events.iter().find(|event| event["event"] == "done") else {
        let why = events.iter().find_map(|event| event["message"].as_str()).unwrap_or("it did not say that it is done");
        let text = format!("{}: {why}; see vconverter agents status ssh://{}", reached.host, reached.host);
        return Err(Failure::new(Code::Failed, text));
    };
    let done = done["done"].as_str().unwrap_or_default();
    let detail = format!("the agent is {done} on {}: machine {machine}", reached.host);
    reached.steps.done(&detail, json!({ "machine": machine, "key": key, "controller": controller, "outcome": done }))
}

/// `HOST:PORT`, of which nothing is special to a shell.
fn checked(address: &str) -> Result<String> {
    let port = address.rsplit_once(':').and_then(|(host, port)| port.parse::<u16>().ok().filter(|_| !host.is_empty()));
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-:[]".contains(c);
    match port.is_some() && address.chars().all(fits) && !address.starts_with('-') {
        // Brackets are patterns to a shell.
        true => Ok(if address.contains('[') { format!("'{address}'") } else { address.to_owned() }),
        false => Err(Failure::new(Code::Usage, format!("--controller {address:?}: expected HOST:PORT"))),
    }
}

/// Where the machine finds the controller.
fn address_for_agents(status: &Status, at: Option<&str>, facts: &Facts, is_behind_jump: bool) -> Result<String> {
    let listens: SocketAddr = status.agent_address;
    let say = |why: &str| {
        let text = format!("{why}: say with --controller HOST:PORT where the machine finds the controller");
        Err(Failure::new(Code::Usage, text))
    };
    if !listens.ip().is_unspecified() {
        return match listens.ip().is_loopback() && facts.seen_from.is_none_or(|from| !from.is_loopback()) {
            true => say(&format!("the controller listens for agents on {listens} alone")),
            false => checked(&listens.to_string()),
        };
    }
    if let Some(host) = at {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        return checked(&format!("{host}:{}", listens.port()));
    }
    match facts.seen_from.map(|from| from.to_canonical()) {
        _ if is_behind_jump => say("behind a jump host it is not seen which address this machine has"),
        Some(from @ IpAddr::V6(_)) if listens.is_ipv4() => {
            say(&format!("the connection is from {from}, and the controller listens on IPv4 alone"))
        }
        Some(from) => checked(&SocketAddr::new(from, listens.port()).to_string()),
        None => say("the machine does not say where the connection is from"),
    }
}

/// Tells the agent's steps, and returns the machine's id and the agent's key as soon as the controller works with it.
fn follow(
    session: &mut Session,
    reached: &Reached,
    client: &Client,
    timeout: u64,
    controller: &str,
) -> Result<(String, String)> {
    let failed = |text: String| Failure::new(Code::Failed, format!("{}: {text}", reached.host));
    let (mut key, mut last, mut waiting_since) = (None::<String>, String::new(), None::<Instant>);
    let mut step_began = Instant::now();
    loop {
        match session.line(POLL)? {
            Line::Said(line) => {
                let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
                step_began = Instant::now();
                match event["event"].as_str().unwrap_or_default() {
                    "step" => reached.tell("", event["step"].as_str().unwrap_or_default())?,
                    "agent" => {
                        if waiting_since.is_none() {
                            reached.tell("wait", "for the agent to reach the controller")?;
                            waiting_since = Some(Instant::now());
                        }
                        key = event["key"].as_str().map(str::to_owned).or(key);
                        last = described(&event["agent"]);
                        if event["agent"]["status"] == "ended" {
                            return Err(failed(format!("the agent ended: {last}")));
                        }
                        if event["agent"]["status"] == "waiting_for_approval" {
                            return Err(failed(
                                "the controller did not take the agent's token, and wants an operator's approval"
                                    .into(),
                            ));
                        }
                    }
                    "failed" => return Err(failed(event["message"].as_str().unwrap_or_default().to_owned())),
                    _ => {}
                }
            }
            Line::Ended => return Err(Failure::new(Code::Failed, "")),
            Line::Late => {}
        }
        if let Some(key) = &key
            && let Some(machine) = connected_machine(client, key)?
        {
            return Ok((machine, key.clone()));
        }
        if waiting_since.is_some_and(|since| since.elapsed() > Duration::from_secs(timeout)) {
            let text = format!(
                "the agent was started, and could not reach the controller at {controller} within {timeout} s; it says: {last}"
            );
            return Err(failed(text));
        }
        if waiting_since.is_none() && step_began.elapsed() > STEP {
            return Err(failed(format!("no step was done within {} s", STEP.as_secs())));
        }
    }
}

/// The machine of an agent that is connected, once it has reported.
fn connected_machine(client: &Client, key: &str) -> Result<Option<String>> {
    let agents: Vec<AgentView> = client.list("/agents")?;
    let agent = agents.into_iter().find(|agent| agent.connected && agent.about.key == key);
    Ok(agent.and_then(|agent| agent.about.machine))
}

fn described(agent: &Value) -> String {
    let words = [&agent["status"], &agent["detail"]];
    words.iter().filter_map(|word| word.as_str()).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(": ")
}

/// Ends an installation that failed, and says what the other end says of its undoing.
fn undone(session: Session, failure: Failure) -> Failure {
    let Ok(ended) = session.end() else { return failure };
    let told = ended.lines.iter().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let told = told.into_iter().find_map(|event| event["message"].as_str().map(str::to_owned));
    let message = match (failure.message.is_empty(), told) {
        // It ended by itself: its own words are the reason.
        (true, Some(told)) => told,
        (true, None) => match ended.status.code() {
            Some(255) | None => "the connection was lost; what was begun there undoes itself".to_owned(),
            _ => plain(&ended.said),
        },
        (false, Some(told)) if !failure.message.contains("undone") => match told.rsplit_once("; ") {
            Some((_, end)) => format!("{}; {end}", failure.message),
            None => failure.message,
        },
        (false, _) => failure.message,
    };
    Failure::new(failure.code, message)
}

fn show_plan(reached: &Reached, ended: &super::session::Ended) -> Result<()> {
    let event = ended.lines.iter().find_map(|line| serde_json::from_str::<Value>(line).ok()).unwrap_or_default();
    if !ended.status.success() {
        let why = event["message"].as_str().map_or_else(|| plain(&ended.said), str::to_owned);
        return Err(Failure::new(Code::Failed, format!("{}: {why}", reached.host)));
    }
    let steps = event["steps"].as_array().cloned().unwrap_or_default();
    for step in steps.iter().filter_map(Value::as_str) {
        reached.tell("would", step)?;
    }
    reached.steps.done("nothing was done", json!({ "steps": steps }))
}

/// An enrolment token for this installation; afterwards it is good for nothing.
struct Token<'a> {
    client: &'a Client,
    id: String,
    text: String,
}

impl<'a> Token<'a> {
    fn make(client: &'a Client, host: &str) -> Result<Self> {
        let new = NewEnrolment { label: host.to_owned(), minutes: Some(TOKEN_MINUTES) };
        let made: MadeEnrolment = client.post("/enrolment-tokens", &new)?;
        Ok(Self { client, id: made.about.id, text: made.token })
    }
}

impl Drop for Token<'_> {
    fn drop(&mut self) {
        // One that was used cannot be revoked, and needs not be; an agent that was updated may not have needed it.
        let _ = self.client.delete::<()>(&format!("/enrolment-tokens/{}", segment(&self.id)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(listens: &str) -> Status {
        let value = json!({
            "version": "1", "pid": 1, "agent_address": listens, "ca_fingerprint": "", "data_dir": "",
            "started_at": "2026-11-24T00:00:00Z",
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_machine_is_told_where_it_finds_the_controller_or_the_operator_is_asked() {
        let facts = |from: &str| Facts { seen_from: from.parse().ok(), ..Facts::default() };
        let told = |listens: &str, at: Option<&str>, from: &str, jump: bool| {
            address_for_agents(&status(listens), at, &facts(from), jump).unwrap_or_else(|failure| failure.message)
        };
        assert_eq!(told("192.0.2.10:7770", None, "198.51.100.1", false), "192.0.2.10:7770");
        assert_eq!(told("0.0.0.0:7770", None, "198.51.100.1", false), "198.51.100.1:7770");
        assert_eq!(told("[::]:7770", None, "::ffff:198.51.100.1", false), "198.51.100.1:7770");
        assert_eq!(told("[::]:7770", None, "2001:db8::1", false), "'[2001:db8::1]:7770'");
        assert_eq!(told("0.0.0.0:7770", Some("vc.example.net"), "198.51.100.1", true), "vc.example.net:7770");
        for (listens, from, jump) in [
            ("0.0.0.0:1", "198.51.100.1", true),
            ("0.0.0.0:1", "2001:db8::1", false),
            ("0.0.0.0:1", "", false),
            ("127.0.0.1:1", "198.51.100.1", false),
        ] {
            let why = told(listens, None, from, jump);
            assert!(why.contains("--controller HOST:PORT"), "{why}");
        }
    }

    #[test]
    fn an_address_is_nothing_special_to_a_shell() {
        assert_eq!(checked("vc.example.net:7770").unwrap(), "vc.example.net:7770");
        for wrong in ["vc", "vc:x", ":1", "a b:1", "$(id):1", "-x:1", "a;b:1", "a'b:1"] {
            assert_eq!(checked(wrong).unwrap_err().code, Code::Usage, "{wrong}");
        }
    }
}
