//! The queue of e-mails about tasks; what is in it is written by triggers (`0008_mail.sql`).

use rusqlite::{OptionalExtension, params};

use super::{Store, storage};
use crate::mail::MailEvent;
use crate::{Result, Timestamp};

/// Tries of one e-mail, in ten hours.
const ATTEMPTS_MAX: u32 = 16;
/// Pause behind the first try; each is twice as long as the one before.
const PAUSE_MS: u64 = 60 * 1000;
const PAUSE_MS_MAX: u64 = 60 * 60 * 1000;
/// How long one that ended is remembered.
const KEPT_MS: i64 = 7 * 24 * 3600 * 1000;

/// An e-mail that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedMail {
    /// Its number.
    pub id: i64,
    /// About which task.
    pub task: String,
    /// What happened.
    pub event: MailEvent,
    /// When.
    pub created_at: Timestamp,
    /// Tries before.
    pub attempts: u32,
}

impl Store {
    /// Says which events are put into the queue from now on. Without any, what waits in it is forgotten.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage).
    pub fn want_mails(&self, events: &[MailEvent]) -> Result<()> {
        let context = "wanted e-mails cannot be written";
        self.write(context, |transaction| {
            let failed = |e| storage(context, e);
            transaction.execute("DELETE FROM mail_wanted", []).map_err(failed)?;
            for event in events {
                let insert = "INSERT OR IGNORE INTO mail_wanted (event) VALUES (?1)";
                transaction.execute(insert, [event.as_str()]).map_err(failed)?;
            }
            let old = Timestamp::now().0.saturating_sub(KEPT_MS);
            let forgotten = "DELETE FROM mails WHERE ended_at < ?1 OR NOT EXISTS (SELECT 1 FROM mail_wanted)";
            transaction.execute(forgotten, [old]).map(drop).map_err(failed)
        })
    }

    /// The e-mail that is due next, if there is one by `now`.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage).
    pub fn next_mail(&self, now: Timestamp) -> Result<Option<QueuedMail>> {
        let next = "SELECT id, task, event, created_at, attempts FROM mails
                    WHERE ended_at IS NULL AND due_at <= ?1 ORDER BY due_at, id LIMIT 1";
        let mail = self.connection().query_row(next, [now.0], |row| {
            let event: String = row.get(2)?;
            Ok(QueuedMail {
                id: row.get(0)?,
                task: row.get(1)?,
                event: MailEvent::parse(&event),
                created_at: Timestamp(row.get(3)?),
                attempts: row.get(4)?,
            })
        });
        mail.optional().map_err(|e| storage("e-mails cannot be read", e))
    }

    /// An e-mail was sent, or there is nothing to be said any more.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage).
    pub fn mail_ended(&self, id: i64, now: Timestamp) -> Result<()> {
        let sql = "UPDATE mails SET ended_at = ?2, attempts = attempts + 1, error = NULL WHERE id = ?1";
        self.connection().execute(sql, params![id, now.0]).map(drop).map_err(|e| storage("e-mail cannot be written", e))
    }

    /// An e-mail could not be sent. Returns when it is tried again; `None`: it was given up.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage).
    pub fn mail_failed(&self, mail: &QueuedMail, error: &str, now: Timestamp) -> Result<Option<Timestamp>> {
        let pause = PAUSE_MS.checked_shl(mail.attempts).unwrap_or(PAUSE_MS_MAX).min(PAUSE_MS_MAX);
        let again = Timestamp(now.0.saturating_add(pause.cast_signed()));
        let gives_up = mail.attempts.saturating_add(1) >= ATTEMPTS_MAX;
        let sql = "UPDATE mails SET attempts = attempts + 1, due_at = ?2, ended_at = ?3, error = ?4 WHERE id = ?1";
        self.connection()
            .execute(sql, params![mail.id, again.0, gives_up.then_some(now.0), error])
            .map_err(|e| storage("e-mail cannot be written", e))?;
        Ok((!gives_up).then_some(again))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{NewTask, Sighting, temporary_store};
    use super::*;
    use crate::store::tests::new_task;

    /// A task that waits for its machine.
    fn task(store: &Store, name: &str) -> (String, String) {
        store.approve_key("aa", "x", "uid 0").unwrap();
        let report = machine::Machine::default();
        let sighting =
            Sighting { key: "aa", report: &report, booted: "boot-image", agent_version: "0.1.0", boot_medium: None };
        let machine = store.machine_reported(&sighting).unwrap();
        let new = NewTask { name, waits: true, ..new_task(&machine) };
        (store.create_task(&new, "uid 0").unwrap(), machine)
    }

    fn set(store: &Store, task: &str, state: &str) {
        store.connection().execute("UPDATE tasks SET state = ?2 WHERE id = ?1", [task, state]).unwrap();
    }

    fn later(ms: i64) -> Timestamp {
        Timestamp(Timestamp::now().0 + ms)
    }

    #[test]
    fn a_task_that_ends_is_told_once_and_only_where_somebody_wants_it() {
        let (_folder, store) = temporary_store();
        let (id, _) = task(&store, "web1");
        set(&store, &id, "done");
        assert_eq!(store.next_mail(later(1000)).unwrap(), None, "nobody wants mail");
        store.want_mails(&[MailEvent::Failed]).unwrap();
        for state in ["queued", "running", "done", "running", "failed", "failed"] {
            set(&store, &id, state);
        }
        let mail = store.next_mail(later(1000)).unwrap().unwrap();
        assert_eq!((mail.task.as_str(), mail.event, mail.attempts), (id.as_str(), MailEvent::Failed, 0));
        assert!(mail.created_at.millis_since(later(-60_000)) < 70_000, "{:?}", mail.created_at);
        store.mail_ended(mail.id, later(0)).unwrap();
        assert_eq!(store.next_mail(later(1000)).unwrap(), None, "failed was told once");
        set(&store, &id, "queued");
        set(&store, &id, "failed");
        assert!(store.next_mail(later(1000)).unwrap().is_some(), "it failed again");
        store.want_mails(&[]).unwrap();
        assert_eq!(store.next_mail(later(1000)).unwrap(), None, "what waited is forgotten");
    }

    #[test]
    fn a_machine_that_comes_and_goes_asks_once() {
        let (_folder, store) = temporary_store();
        store.want_mails(&[MailEvent::Waiting]).unwrap();
        let (_, machine) = task(&store, "web1");
        for _ in 0..3 {
            store.machine_is_ready(&machine).unwrap();
            store.machine_has_left(Some(&machine)).unwrap();
        }
        let mail = store.next_mail(later(1000)).unwrap().unwrap();
        assert_eq!(mail.event, MailEvent::Waiting);
        store.mail_ended(mail.id, later(0)).unwrap();
        assert_eq!(store.next_mail(later(1000)).unwrap(), None);
    }

    #[test]
    fn a_mail_server_that_is_down_is_tried_less_and_less_often_and_given_up() {
        let (_folder, store) = temporary_store();
        store.want_mails(&[MailEvent::Done]).unwrap();
        let (id, _) = task(&store, "web1");
        set(&store, &id, "done");
        let (mut now, mut tries) = (later(1000), 0);
        let start = now;
        while let Some(mail) = store.next_mail(now).unwrap() {
            assert_eq!(mail.attempts, tries);
            tries += 1;
            let Some(again) = store.mail_failed(&mail, "connection refused", now).unwrap() else { break };
            assert_eq!(store.next_mail(Timestamp(again.0 - 1)).unwrap(), None);
            now = again;
        }
        let hours = now.millis_since(start) / 3_600_000;
        assert_eq!((tries, hours), (ATTEMPTS_MAX, 10));
        assert_eq!(store.next_mail(later(i64::from(u32::MAX))).unwrap(), None);
    }

    #[test]
    fn the_queue_is_bounded() {
        let (_folder, store) = temporary_store();
        store.want_mails(&[MailEvent::Done]).unwrap();
        let (id, _) = task(&store, "web1");
        for _ in 0..1010 {
            set(&store, &id, "running");
            set(&store, &id, "done");
        }
        let waiting = "SELECT count(*) FROM mails WHERE ended_at IS NULL";
        let waiting: i64 = store.connection().query_row(waiting, [], |row| row.get(0)).unwrap();
        assert_eq!(waiting, 1000);
    }
}
