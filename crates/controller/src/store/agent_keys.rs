//! Keys of agents: which were approved, until when they are certified, and which were revoked.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::logs::write_audit;
use super::{Store, containing, storage};
use crate::{Error, ErrorKind, Result, Timestamp};

const COLUMNS: &str = "fingerprint, machine, label, approved_at, certified_until, revoked_at";

/// What a key of an agent may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStanding {
    /// It can wait for an operator's approval.
    Unknown,
    /// An operator approved it, by its pairing code or with a token.
    Approved {
        /// Whether it ever kept a certificate: then it is nothing without one.
        certified: bool,
    },
    /// It was approved once and never will be again.
    Revoked,
}

/// An agent that was approved, as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentKey {
    /// Fingerprint of its key.
    pub key: String,
    /// Its machine, once it reported.
    pub machine: Option<String>,
    /// What the machine said of itself when it was approved.
    pub label: String,
    /// When it was approved last.
    pub approved_at: Timestamp,
    /// The end of its newest certificate, where it keeps one.
    pub certified_until: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl Store {
    /// Approves a key; `label` is what its machine said of itself. The approval and its line in the audit log are one
    /// transaction. A key whose certificate is over or lost comes without one again.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] for a key that was revoked, [`ErrorKind::Storage`], [`ErrorKind::ReadOnly`].
    pub fn approve_key(&self, key: &str, label: &str, actor: &str) -> Result<()> {
        self.write("approval cannot be written", |transaction| {
            approve(transaction, key, label, actor, Timestamp::now())
        })
    }

    /// What a key may do.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn key_standing(&self, key: &str) -> Result<KeyStanding> {
        standing(&self.connection(), key)
    }

    /// Notes that an agent keeps a certificate that is good until then.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn certificate_kept(&self, key: &str, until: Timestamp) -> Result<()> {
        self.connection()
            .execute(
                "UPDATE agent_keys SET certified_until = ?2 WHERE fingerprint = ?1 AND revoked_at IS NULL",
                params![key, until.0],
            )
            .map(drop)
            .map_err(|e| storage("certificate cannot be noted", e))
    }

    /// At most `limit` keys after `after`, in their order: those that were approved, and those that were revoked since; only
    /// those that have the text `search` in the key, the machine's id or what it said of itself.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn agent_keys_page(&self, after: &str, limit: usize, search: Option<&str>) -> Result<Vec<AgentKey>> {
        let context = "agent keys cannot be read";
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(&format!(
                r"SELECT {COLUMNS} FROM agent_keys WHERE fingerprint > ?1 AND (?2 IS NULL OR fingerprint LIKE ?2 ESCAPE '\'
                  OR machine LIKE ?2 ESCAPE '\' OR label LIKE ?2 ESCAPE '\') ORDER BY fingerprint LIMIT ?3"
            ))
            .map_err(|e| storage(context, e))?;
        let rows = statement
            .query_map(params![after, search.map(containing), limit], agent_key)
            .map_err(|e| storage(context, e))?;
        rows.map(|row| row.map_err(|e| storage(context, e))).collect()
    }

    /// Revokes a key, named by its fingerprint or the beginning of it, for ever, with a line in the audit log. Returns the
    /// whole fingerprint.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Conflict`] where several keys begin so, or it was revoked before;
    /// [`ErrorKind::Storage`].
    pub fn revoke_key(&self, key: &str, actor: &str) -> Result<String> {
        let context = "agent key cannot be revoked";
        let now = Timestamp::now();
        self.write(context, |transaction| {
            let found = beginning_with(transaction, key)?;
            if found.revoked_at.is_some() {
                let context = format!("the key {} was revoked already", found.key);
                return Err(Error::new(ErrorKind::Conflict, context));
            }
            transaction
                .execute("UPDATE agent_keys SET revoked_at = ?2 WHERE fingerprint = ?1", params![found.key, now.0])
                .map_err(|e| storage(context, e))?;
            write_audit(transaction, now, actor, "agent revoked", &found.key, &found.label)?;
            Ok(found.key)
        })
    }
}

/// The one key that is this or begins so.
fn beginning_with(connection: &Connection, key: &str) -> Result<AgentKey> {
    let context = "agent keys cannot be read";
    let mut statement = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM agent_keys WHERE substr(fingerprint, 1, length(?1)) = ?1 ORDER BY fingerprint LIMIT 2"
        ))
        .map_err(|e| storage(context, e))?;
    let rows = statement.query_map([key], agent_key).and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>);
    let mut rows = rows.map_err(|e| storage(context, e))?;
    match (rows.len(), rows.pop()) {
        (1, Some(one)) => Ok(one),
        (0, _) | (_, None) => Err(Error::new(ErrorKind::NotFound, format!("no agent with the key {key}"))),
        _ => Err(Error::new(ErrorKind::Conflict, format!("several keys begin with {key}: say more of it"))),
    }
}

/// Approves a key within what else is to be written with it.
pub(super) fn approve(
    transaction: &Transaction<'_>,
    key: &str,
    label: &str,
    actor: &str,
    now: Timestamp,
) -> Result<()> {
    if standing(transaction, key)? == KeyStanding::Revoked {
        let context = "the key of this machine was revoked: it needs another (restart it from the boot image)";
        return Err(Error::new(ErrorKind::Conflict, context));
    }
    transaction
        .execute(
            "INSERT INTO agent_keys (fingerprint, label, approved_at) VALUES (?1, ?2, ?3) ON CONFLICT (fingerprint)
             DO UPDATE SET label = excluded.label, approved_at = excluded.approved_at, certified_until = NULL",
            params![key, label, now.0],
        )
        .map_err(|e| storage("approval cannot be written", e))?;
    write_audit(transaction, now, actor, "machine approved", key, label)
}

fn standing(connection: &Connection, key: &str) -> Result<KeyStanding> {
    let found: Option<(Option<i64>, Option<i64>)> = connection
        .query_row("SELECT revoked_at, certified_until FROM agent_keys WHERE fingerprint = ?1", [key], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()
        .map_err(|e| storage("agent keys cannot be read", e))?;
    Ok(match found {
        None => KeyStanding::Unknown,
        Some((None, certified_until)) => KeyStanding::Approved { certified: certified_until.is_some() },
        Some((Some(_), _)) => KeyStanding::Revoked,
    })
}

fn agent_key(row: &Row<'_>) -> rusqlite::Result<AgentKey> {
    Ok(AgentKey {
        key: row.get(0)?,
        machine: row.get(1)?,
        label: row.get(2)?,
        approved_at: Timestamp(row.get(3)?),
        certified_until: row.get::<_, Option<i64>>(4)?.map(Timestamp),
        revoked_at: row.get::<_, Option<i64>>(5)?.map(Timestamp),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MIGRATIONS, migrate, temporary_store};

    #[test]
    fn a_key_that_was_approved_before_there_were_certificates_works_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("controller.db");
        let mut earlier = Connection::open(&path).unwrap();
        migrate(&mut earlier, &MIGRATIONS[..8]).unwrap();
        let keys = "INSERT INTO agent_keys (fingerprint, label, approved_at, revoked_at)
                    VALUES ('aa', 'web1', 1, NULL), ('bb', 'web2', 1, 2)";
        earlier.execute(keys, []).unwrap();
        drop(earlier);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.key_standing("aa").unwrap(), KeyStanding::Approved { certified: false });
        assert_eq!(store.key_standing("bb").unwrap(), KeyStanding::Revoked);
    }

    #[test]
    fn a_key_that_kept_a_certificate_is_nothing_without_one_until_it_is_approved_again() {
        let (_folder, store) = temporary_store();
        store.approve_key("aa", "web1", "uid 0").unwrap();
        assert_eq!(store.key_standing("aa").unwrap(), KeyStanding::Approved { certified: false });
        store.certificate_kept("aa", Timestamp(5)).unwrap();
        assert_eq!(store.key_standing("aa").unwrap(), KeyStanding::Approved { certified: true });
        store.approve_key("aa", "web1", "uid 0").unwrap();
        assert_eq!(store.key_standing("aa").unwrap(), KeyStanding::Approved { certified: false });
    }

    #[test]
    fn a_key_is_revoked_by_the_beginning_of_its_fingerprint_once_and_for_ever() {
        let (_folder, store) = temporary_store();
        for key in ["aabb01", "aabb02", "cc"] {
            store.approve_key(key, key, "uid 0").unwrap();
        }
        let kind = |key: &str| store.revoke_key(key, "uid 0").unwrap_err().kind;
        assert_eq!(
            (kind("aabb"), kind("dd"), kind("aabb0_")),
            (ErrorKind::Conflict, ErrorKind::NotFound, ErrorKind::NotFound)
        );
        assert_eq!(store.revoke_key("aabb02", "uid 0").unwrap(), "aabb02");
        assert_eq!(kind("aabb02"), ErrorKind::Conflict);
        assert_eq!(store.key_standing("aabb02").unwrap(), KeyStanding::Revoked);
        store.certificate_kept("aabb02", Timestamp(5)).unwrap();
        assert_eq!(store.key_standing("aabb02").unwrap(), KeyStanding::Revoked);
        assert_eq!(store.approve_key("aabb02", "", "uid 0").unwrap_err().kind, ErrorKind::Conflict);
        let pages: Vec<usize> =
            ["", "aabb01", "cc"].map(|after| store.agent_keys_page(after, 9, None).unwrap().len()).into();
        assert_eq!(pages, [3, 2, 0]);
        let found = store.agent_keys_page("", 9, Some("BB02")).unwrap();
        assert_eq!(found.iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), ["aabb02"]);
    }
}
