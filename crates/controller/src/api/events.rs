//! Server-sent events: machines and tasks as they change.
//!
//! | event | data |
//! | --- | --- |
//! | `machine` | a machine that is new or different ([`MachineView`]) |
//! | `machine-gone` | `{"key": …}`: one that waited and does not any more |
//! | `task` | a task that is new or different, or moved on ([`TaskView`](super::TaskView)) |
//! | `task-gone` | `{"id": …}`: it was deleted |
//! | `search` | a search of addresses that moved on ([`SearchView`](crate::search::SearchView)) |
//! | `resync` | `{}`: something was missed; read the lists again |
//!
//! A stream begins with what happens after its first event, `resync`: whoever reads the lists then misses nothing.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::convert::Infallible;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use aide::generate::GenContext;
use aide::openapi::{MediaType, Operation};
use aide::operation::OperationOutput;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;

use super::machines::waiting;
use super::routes::{Answer, Routes, about, blocking};
use super::{Api, MachineView, Problem, ProblemKind, Role, tasks};
use crate::sessions::LiveSession;
use crate::{Error, ErrorKind, Result};

/// Pause between two looks at what changed, while somebody watches.
const PAUSE: Duration = Duration::from_millis(500);
/// Silence after which a comment keeps a stream alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events that a slow reader may be behind; one that is further behind is told to read the lists again.
const BEHIND_MAX: usize = 1024;
/// Streams at a time.
const STREAMS_MAX: usize = 512;

pub(super) fn routes() -> Routes<Arc<Api>> {
    let summary = "Server-sent events `machine`, `machine-gone`, `task`, `task-gone`, `search` as things change, and `resync` when lists are to be read (again)";
    Routes::new().get("/events", about(Role::Viewer, "follow_events", summary), follow)
}

/// What is told to all who watch.
#[derive(Clone)]
struct News {
    event: &'static str,
    data: Arc<str>,
}

impl News {
    fn new(event: &'static str, data: &impl Serialize) -> Self {
        Self { event, data: serde_json::to_string(data).unwrap_or_default().into() }
    }
}

/// Tells what changed.
pub(crate) struct Events {
    sender: broadcast::Sender<News>,
    told: Mutex<Told>,
}

/// What was told last, as far as it is needed to know what is new.
#[derive(Default)]
struct Told {
    /// Sessions by key: their machine and a hash of the rest.
    sessions: HashMap<String, (Option<String>, u64)>,
    /// Machines by id, as hashes.
    machines: HashMap<String, u64>,
    /// Running tasks by id, as hashes.
    running: HashMap<String, u64>,
    /// The last search, as a hash.
    search: Option<u64>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self { sender: broadcast::Sender::new(BEHIND_MAX), told: Mutex::default() }
    }

    /// Looks at `api` as long as it lives.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where no thread can be started.
    pub(crate) fn follow(api: &Arc<Api>) -> Result<()> {
        let api: Weak<Api> = Arc::downgrade(api);
        let look = move || {
            while let Some(api) = api.upgrade() {
                if api.events.sender.receiver_count() > 0
                    && let Err(error) = api.events.look(&api)
                {
                    tracing::error!("changes cannot be told: {}", error.chain());
                }
                drop(api);
                std::thread::sleep(PAUSE);
            }
        };
        std::thread::Builder::new()
            .name("events".into())
            .spawn(look)
            .map(drop)
            .map_err(|e| Error::with(ErrorKind::Io, "no thread for events", e))
    }

    /// Everything that happens from now on.
    fn subscribe(&self, api: &Api) -> Result<broadcast::Receiver<News>> {
        let mut told = self.told();
        if self.sender.receiver_count() == 0 {
            // Nobody was told what changed before.
            api.store.take_changes()?;
            *told = Told {
                sessions: sessions(&api.sessions.live()),
                search: api.searches.last().as_ref().map(hash_of),
                ..Told::default()
            };
        }
        Ok(self.sender.subscribe())
    }

    /// Tells what changed since the last look.
    fn look(&self, api: &Api) -> Result<()> {
        let mut told = self.told();
        let changed = api.store.take_changes()?;
        if changed.overflowed {
            self.tell(News::new("resync", &json!({})));
        }
        let live = api.sessions.live();
        let now = sessions(&live);
        let mut machines: HashMap<String, MachineView> = changed
            .machines
            .into_iter()
            .map(|known| (known.id.clone(), MachineView::known_among(known, &live)))
            .collect();
        let new = |key: &&String, state: &(Option<String>, u64)| told.sessions.get(*key) != Some(state);
        for (key, (machine, _)) in now.iter().filter(|(key, state)| new(key, state)) {
            match machine {
                Some(id) => self.add(api, &mut machines, id, &live)?,
                None => {
                    let view = waiting(&live).into_iter().find(|view| view.key.as_ref() == Some(key));
                    view.iter().for_each(|view| self.tell(News::new("machine", view)));
                }
            }
        }
        for (key, (machine, _)) in &told.sessions {
            let is = now.get(key).map(|(machine, _)| machine);
            match machine {
                Some(id) if is.is_none() => self.add(api, &mut machines, id, &live)?,
                None if is != Some(&None) => self.tell(News::new("machine-gone", &json!({ "key": key }))),
                _ => {}
            }
        }
        told.sessions = now;
        for (id, view) in machines {
            let hash = hash_of(&view.without_clocks());
            if told.machines.insert(id, hash) != Some(hash) {
                self.tell(News::new("machine", &view));
            }
        }
        for task in changed.tasks {
            told.running.remove(&task.id);
            self.tell(News::new("task", &tasks::view(api, task)?));
        }
        let running = api.tasks.running_ids();
        told.running.retain(|id, _| running.contains(id));
        for id in running {
            let Some(task) = api.store.task(&id)? else { continue };
            let view = tasks::view(api, task)?;
            let hash = hash_of(&view);
            if told.running.insert(id, hash) != Some(hash) {
                self.tell(News::new("task", &view));
            }
        }
        let search = api.searches.last();
        let hash = search.as_ref().map(hash_of);
        if std::mem::replace(&mut told.search, hash) != hash {
            search.iter().for_each(|search| self.tell(News::new("search", search)));
        }
        Ok(())
    }

    /// A task was deleted.
    pub(super) fn task_gone(&self, id: &str) {
        self.tell(News::new("task-gone", &json!({ "id": id })));
    }

    /// Looks a machine up that was not written but came or went.
    fn add(
        &self,
        api: &Api,
        machines: &mut HashMap<String, MachineView>,
        id: &str,
        live: &[LiveSession],
    ) -> Result<()> {
        if !machines.contains_key(id)
            && let Some(known) = api.store.machine(id)?
        {
            machines.insert(id.to_owned(), MachineView::known_among(known, live));
        }
        Ok(())
    }

    fn tell(&self, news: News) {
        // Nobody listens any more: nothing is lost.
        let _ = self.sender.send(news);
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sessions(live: &[LiveSession]) -> HashMap<String, (Option<String>, u64)> {
    let state = |session: &LiveSession| {
        let hash = hash_of(&LiveSession { silent_seconds: 0, ..session.clone() });
        (session.key.clone(), (session.machine.clone(), hash))
    };
    live.iter().map(state).collect()
}

fn hash_of(value: &impl Serialize) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(value).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

/// A stream of server-sent events.
struct EventStream(broadcast::Receiver<News>);

impl IntoResponse for EventStream {
    fn into_response(self) -> Response {
        let first = News::new("resync", &json!({}));
        let rest = BroadcastStream::new(self.0).map(|news| news.unwrap_or_else(|_| News::new("resync", &json!({}))));
        let events = tokio_stream::once(first).chain(rest);
        let events =
            events.map(|news| Ok::<_, Infallible>(Event::default().event(news.event).data(news.data.as_ref())));
        Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
    }
}

impl OperationOutput for EventStream {
    type Inner = String;

    fn inferred_responses(_: &mut GenContext, _: &mut Operation) -> Vec<(Option<u16>, aide::openapi::Response)> {
        let stream = aide::openapi::Response {
            description: "Events, until the client leaves.".into(),
            content: [("text/event-stream".to_owned(), MediaType::default())].into_iter().collect(),
            ..aide::openapi::Response::default()
        };
        vec![(Some(200), stream)]
    }
}

async fn follow(State(api): State<Arc<Api>>) -> Answer<EventStream> {
    if api.events.sender.receiver_count() >= STREAMS_MAX {
        let detail = format!("{STREAMS_MAX} streams of events are open: close some");
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, ProblemKind::Conflict, detail));
    }
    let subscribed = blocking(move || api.events.subscribe(&api)).await?;
    Ok(EventStream(subscribed.0))
}
