//! One-time tokens that approve a machine: made by an operator, used once, by one agent's key.

use protocol::enrolment::EnrolmentSecret;
use rusqlite::{Connection, OptionalExtension, Row, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::agent_keys::approve;
use super::logs::write_audit;
use super::{Store, containing, new_id, storage};
use crate::{Error, ErrorKind, Result, Timestamp};

/// Tokens that are good at one time.
const GOOD_TOKENS_MAX: i64 = 1000;
/// How long one that is over, used or revoked is remembered, in milliseconds: so long a replay is told what became of it.
const REMEMBERED_MS: i64 = 90 * 24 * 60 * 60 * 1000;
const COLUMNS: &str = "id, label, actor, created_at, expires_at, used_at, used_by, revoked_at";

/// An enrolment token as the API shows it: everything but itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnrolmentRecord {
    /// `e-` and eight hexadecimal digits.
    pub id: String,
    /// What it is for.
    pub label: String,
    /// Who made it.
    pub actor: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it was used.
    pub used_at: Option<Timestamp>,
    /// Fingerprint of the agent's key that used it.
    pub used_by: Option<String>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// A token that is to be kept.
#[derive(Clone, Copy, Debug)]
pub struct NewEnrolmentToken<'a> {
    /// What only its holder knows; a hash of it is kept.
    pub secret: &'a EnrolmentSecret,
    /// What it is for.
    pub label: &'a str,
    /// From now.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// The one machine and task that it is good for; without it for any machine.
    pub bound: Option<Bound<'a>>,
}

/// What a token is bound to.
#[derive(Clone, Copy, Debug)]
pub struct Bound<'a> {
    /// Id of the machine: whatever comes with the token and is another is refused.
    pub machine: &'a str,
    /// Id of the task.
    pub task: &'a str,
}

/// Who comes with a token.
#[derive(Clone, Copy, Debug)]
pub struct Enrolling<'a> {
    /// Fingerprint of its key.
    pub key: &'a str,
    /// What its machine says of itself.
    pub label: &'a str,
    /// Where it comes from, for the audit log.
    pub from: &'a str,
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRefusal {
    /// There is none with this secret.
    Unknown,
    /// Another machine was enrolled with it.
    Used(Timestamp),
    /// It is over.
    Over(Timestamp),
    /// An operator revoked it.
    Revoked(Timestamp),
}

impl TokenRefusal {
    /// For the machine's screen and the audit log.
    pub fn reason(self) -> String {
        match self {
            Self::Unknown => "this controller made no such token".to_owned(),
            Self::Used(at) => format!("it was used before, at {at}"),
            Self::Over(at) => format!("it is over since {at}"),
            Self::Revoked(at) => format!("it was revoked at {at}"),
        }
    }
}

impl Store {
    /// Keeps a token, with a line in the audit log.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where there are too many, [`ErrorKind::Storage`].
    pub fn add_enrolment_token(&self, new: NewEnrolmentToken<'_>, actor: &str) -> Result<EnrolmentRecord> {
        let context = "enrolment token cannot be written";
        let (id, now) = (new_id("e")?, new.created_at);
        self.write(context, |transaction| {
            let good = "SELECT count(*) FROM enrolment_tokens
                        WHERE used_at IS NULL AND revoked_at IS NULL AND expires_at > ?1";
            let good: i64 = transaction.query_row(good, [now.0], |row| row.get(0)).map_err(|e| storage(context, e))?;
            if good >= GOOD_TOKENS_MAX {
                let context = format!("there are {good} enrolment tokens already: revoke some");
                return Err(Error::new(ErrorKind::Conflict, context));
            }
            transaction
                .execute(
                    "DELETE FROM enrolment_tokens
                     WHERE max(expires_at, coalesce(used_at, 0), coalesce(revoked_at, 0)) < ?1",
                    [now.0.saturating_sub(REMEMBERED_MS)],
                )
                .map_err(|e| storage(context, e))?;
            transaction
                .execute(
                    "INSERT INTO enrolment_tokens (id, secret, label, actor, created_at, expires_at, machine, task)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    params![
                        id,
                        new.secret.hash().to_string(),
                        new.label,
                        actor,
                        now.0,
                        new.expires_at.0,
                        new.bound.map(|bound| bound.machine),
                        new.bound.map(|bound| bound.task)
                    ],
                )
                .map_err(|e| storage(context, e))?;
            let detail = format!("{}, until {}", new.label, new.expires_at);
            write_audit(transaction, now, actor, "enrolment token made", &id, &detail)?;
            Ok(EnrolmentRecord {
                id: id.clone(),
                label: new.label.into(),
                actor: actor.into(),
                created_at: now,
                expires_at: new.expires_at,
                used_at: None,
                used_by: None,
                revoked_at: None,
            })
        })
    }

    /// At most `limit` tokens with ids after `after`, in the order of their ids; of those that are used, over or revoked the
    /// last ninety days'; only those that have the text `search` in their label.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn enrolment_tokens_page(
        &self,
        after: &str,
        limit: usize,
        search: Option<&str>,
    ) -> Result<Vec<EnrolmentRecord>> {
        let context = "enrolment tokens cannot be read";
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(&format!(
                r"SELECT {COLUMNS} FROM enrolment_tokens
                  WHERE id > ?1 AND (?2 IS NULL OR label LIKE ?2 ESCAPE '\') ORDER BY id LIMIT ?3"
            ))
            .map_err(|e| storage(context, e))?;
        let rows = statement
            .query_map(params![after, search.map(containing), limit], record)
            .map_err(|e| storage(context, e))?;
        rows.map(|row| row.map_err(|e| storage(context, e))).collect()
    }

    /// Revokes a token that was not used, with a line in the audit log.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Conflict`] where it was used or revoked before; [`ErrorKind::Storage`].
    pub fn revoke_enrolment_token(&self, id: &str, actor: &str) -> Result<()> {
        let context = "enrolment token cannot be revoked";
        let now = Timestamp::now();
        self.write(context, |transaction| {
            let found = find(transaction, "id", id)?;
            let found = found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no enrolment token {id}")))?;
            if let Some(at) = found.used_at {
                let context = format!("enrolment token {id} was used at {at}: revoke its agent instead");
                return Err(Error::new(ErrorKind::Conflict, context));
            }
            if found.revoked_at.is_some() {
                return Err(Error::new(ErrorKind::Conflict, format!("enrolment token {id} was revoked already")));
            }
            transaction
                .execute("UPDATE enrolment_tokens SET revoked_at = ?2 WHERE id = ?1", params![id, now.0])
                .map_err(|e| storage(context, e))?;
            write_audit(transaction, now, actor, "enrolment token revoked", id, &found.label)
        })
    }

    /// Revokes what is left of the tokens that are bound to a task.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn revoke_tokens_of(&self, task: &str) -> Result<()> {
        let context = "enrolment tokens cannot be revoked";
        let sql =
            "UPDATE enrolment_tokens SET revoked_at = ?2 WHERE task = ?1 AND used_at IS NULL AND revoked_at IS NULL";
        self.write(context, |transaction| {
            let now = Timestamp::now();
            let revoked = transaction.execute(sql, params![task, now.0]).map_err(|e| storage(context, e))?;
            match revoked {
                0 => Ok(()),
                _ => write_audit(transaction, now, "controller", "enrolment token revoked", task, "its task is over"),
            }
        })
    }

    /// Uses a token: it is used up and the key is approved in one transaction, with a line in the audit log. What is refused
    /// has its line too.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] for a key that was revoked; the token stays as it is. [`ErrorKind::Storage`].
    pub fn enrol(
        &self,
        secret: &EnrolmentSecret,
        who: Enrolling<'_>,
        now: Timestamp,
    ) -> Result<std::result::Result<(), TokenRefusal>> {
        let context = "enrolment cannot be written";
        self.write(context, |transaction| {
            let found = find(transaction, "secret", &secret.hash().to_string())?;
            let subject = found.as_ref().map_or("", |token| &token.id);
            if let Some(refusal) = refusal(found.as_ref(), now) {
                let detail = format!("{}: {}", who.from, refusal.reason());
                write_audit(transaction, now, "controller", "enrolment refused", subject, &detail)?;
                return Ok(Err(refusal));
            }
            transaction
                .execute(
                    "UPDATE enrolment_tokens SET used_at = ?2, used_by = ?3 WHERE id = ?1",
                    params![subject, now.0, who.key],
                )
                .map_err(|e| storage(context, e))?;
            approve(transaction, who.key, who.label, &format!("enrolment token {subject}"), now)?;
            // A report of another machine contradicts the one that the key belongs to, and is refused.
            let bind = "UPDATE agent_keys SET machine = token.machine FROM enrolment_tokens AS token
                        WHERE token.id = ?1 AND token.machine IS NOT NULL AND agent_keys.fingerprint = ?2";
            transaction.execute(bind, params![subject, who.key]).map_err(|e| storage(context, e))?;
            Ok(Ok(()))
        })
    }
}

fn refusal(found: Option<&EnrolmentRecord>, now: Timestamp) -> Option<TokenRefusal> {
    let Some(token) = found else { return Some(TokenRefusal::Unknown) };
    match (token.used_at, token.revoked_at) {
        (Some(at), _) => Some(TokenRefusal::Used(at)),
        (None, Some(at)) => Some(TokenRefusal::Revoked(at)),
        (None, None) => (token.expires_at <= now).then_some(TokenRefusal::Over(token.expires_at)),
    }
}

/// The token that has this in a column; a secret's hash tells nothing of it by the time that a comparison takes.
fn find(connection: &Connection, column: &str, value: &str) -> Result<Option<EnrolmentRecord>> {
    connection
        .query_row(&format!("SELECT {COLUMNS} FROM enrolment_tokens WHERE {column} = ?1"), [value], record)
        .optional()
        .map_err(|e| storage("enrolment tokens cannot be read", e))
}

fn record(row: &Row<'_>) -> rusqlite::Result<EnrolmentRecord> {
    Ok(EnrolmentRecord {
        id: row.get(0)?,
        label: row.get(1)?,
        actor: row.get(2)?,
        created_at: Timestamp(row.get(3)?),
        expires_at: Timestamp(row.get(4)?),
        used_at: row.get::<_, Option<i64>>(5)?.map(Timestamp),
        used_by: row.get(6)?,
        revoked_at: row.get::<_, Option<i64>>(7)?.map(Timestamp),
    })
}

#[cfg(test)]
mod tests {
    use protocol::enrolment::EnrolmentToken;
    use protocol::message::Bytes32;
    use protocol::tls::Fingerprint;

    use super::*;
    use crate::store::{KeyStanding, temporary_store};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn make(store: &Store, ends_in_ms: i64) -> (EnrolmentSecret, String) {
        let secret = EnrolmentToken::random(Fingerprint(Bytes32([1; 32]))).unwrap().secret();
        let new = NewEnrolmentToken {
            secret: &secret,
            label: "rack 4",
            created_at: NOW,
            bound: None,
            expires_at: Timestamp(NOW.0 + ends_in_ms),
        };
        (secret, store.add_enrolment_token(new, "user ada").unwrap().id)
    }

    fn enrol(
        store: &Store,
        secret: &EnrolmentSecret,
        key: &str,
        at: i64,
    ) -> Result<std::result::Result<(), TokenRefusal>> {
        let who = Enrolling { key, label: "web1", from: "from 192.0.2.7" };
        store.enrol(secret, who, Timestamp(NOW.0 + at))
    }

    #[test]
    fn a_token_is_good_once_whoever_comes_with_it_again() {
        let (_folder, store) = temporary_store();
        let (secret, id) = make(&store, 1000);
        assert_eq!(enrol(&store, &secret, "aa", 5).unwrap(), Ok(()));
        assert_eq!(store.key_standing("aa").unwrap(), KeyStanding::Approved { certified: false });
        for key in ["bb", "aa"] {
            assert_eq!(enrol(&store, &secret, key, 6).unwrap(), Err(TokenRefusal::Used(Timestamp(NOW.0 + 5))));
        }
        assert_eq!(store.key_standing("bb").unwrap(), KeyStanding::Unknown);
        let kept = store.enrolment_tokens_page("", 9, Some("RACK")).unwrap().pop().unwrap();
        assert_eq!((kept.used_by.as_deref(), kept.used_at), (Some("aa"), Some(Timestamp(NOW.0 + 5))));
        assert_eq!(store.revoke_enrolment_token(&id, "uid 0").unwrap_err().kind, ErrorKind::Conflict);
        let lines: Vec<(String, String)> =
            store.audit(9).unwrap().into_iter().map(|line| (line.action, line.detail)).collect();
        println!("{lines:?}");
        assert!(lines[0].0 == "enrolment refused" && lines[0].1.starts_with("from 192.0.2.7: it was used before"));
        assert!(lines.iter().any(|(action, _)| action == "machine approved"));
    }

    #[test]
    fn of_many_at_once_one_is_enrolled() {
        let (_folder, store) = temporary_store();
        let (secret, _) = make(&store, 1000);
        let enrolled: usize = std::thread::scope(|scope| {
            let store = &store;
            let tries: Vec<_> = (0..16)
                .map(|n| scope.spawn(move || usize::from(enrol(store, &secret, &format!("k{n}"), 0).unwrap().is_ok())))
                .collect();
            tries.into_iter().map(|tried| tried.join().unwrap()).sum()
        });
        assert_eq!(enrolled, 1);
    }

    #[test]
    fn over_revoked_and_unknown_tokens_are_refused_with_the_reason() {
        let (_folder, store) = temporary_store();
        let (secret, _) = make(&store, 1000);
        assert_eq!(enrol(&store, &secret, "aa", 1000).unwrap(), Err(TokenRefusal::Over(Timestamp(NOW.0 + 1000))));
        let (secret, id) = make(&store, 1000);
        store.revoke_enrolment_token(&id, "uid 0").unwrap();
        assert!(matches!(enrol(&store, &secret, "aa", 0).unwrap(), Err(TokenRefusal::Revoked(_))));
        assert_eq!(store.revoke_enrolment_token(&id, "uid 0").unwrap_err().kind, ErrorKind::Conflict);
        let unknown = EnrolmentToken::random(Fingerprint(Bytes32([1; 32]))).unwrap().secret();
        assert_eq!(enrol(&store, &unknown, "aa", 0).unwrap(), Err(TokenRefusal::Unknown));
        assert_eq!(store.key_standing("aa").unwrap(), KeyStanding::Unknown);
        assert_eq!(store.revoke_enrolment_token("e-0", "uid 0").unwrap_err().kind, ErrorKind::NotFound);
    }

    #[test]
    fn a_revoked_key_uses_no_token_up() {
        let (_folder, store) = temporary_store();
        let (secret, _) = make(&store, 1000);
        store.approve_key("aa", "", "uid 0").unwrap();
        store.revoke_key("aa", "uid 0").unwrap();
        assert_eq!(enrol(&store, &secret, "aa", 0).unwrap_err().kind, ErrorKind::Conflict);
        assert_eq!(enrol(&store, &secret, "bb", 0).unwrap(), Ok(()));
    }

    #[test]
    fn the_secret_itself_is_nowhere_in_the_store() {
        let (folder, store) = temporary_store();
        let (secret, _) = make(&store, 1000);
        let _ = enrol(&store, &secret, "aa", 0);
        drop(store);
        let text = String::from(secret);
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()));
        }
    }
}
