//! Sessions of the console: who holds which cookie, of which only the hash is kept.

use rusqlite::{OptionalExtension, params};

use super::users::role_of;
use super::{Store, storage};
use crate::trust::{Role, TokenHash};
use crate::{Error, ErrorKind, Result, Timestamp};

/// Sessions of one user; the oldest ends when there would be more.
const SESSIONS_PER_USER_MAX: i64 = 32;
/// How often a session's last use is written, in milliseconds: not each request is worth a write.
const USED_EVERY_MS: i64 = 60_000;

/// A session that is to begin.
#[derive(Clone, Copy, Debug)]
pub struct NewSession<'a> {
    /// What is kept of its token.
    pub token: &'a TokenHash,
    /// Whose it is.
    pub user: &'a str,
    /// The hash of the password that was right just now; where it was changed since, nothing begins.
    pub password: &'a str,
    /// Where they are, for the audit log.
    pub address: &'a str,
}

/// How long sessions last, as moments: those that began or were used before are over.
#[derive(Clone, Copy, Debug)]
pub struct SessionBounds {
    /// The earliest beginning.
    pub begun_after: Timestamp,
    /// The earliest last use.
    pub used_after: Timestamp,
}

impl Store {
    /// Begins a session, with a line in the audit log. Sessions that are over are forgotten.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`] where the user was disabled, removed, or has another password by now;
    /// [`ErrorKind::Storage`].
    pub fn begin_web_session(&self, new: NewSession<'_>, bounds: SessionBounds, now: Timestamp) -> Result<Role> {
        let context = "session cannot be written";
        self.write(context, |transaction| {
            let role: Option<String> = transaction
                .query_row(
                    "UPDATE users SET last_login_at = ?3 WHERE name = ?1 AND password = ?2 AND disabled = 0 RETURNING role",
                    params![new.user, new.password, now.0],
                    |row| row.get(0),
                )
                .optional()
                .map_err(|e| storage(context, e))?;
            let role = role.ok_or_else(|| Error::new(ErrorKind::Unauthenticated, "name or password is wrong"))?;
            transaction
                .execute(
                    "DELETE FROM web_sessions WHERE begun_at < ?1 OR used_at < ?2",
                    [bounds.begun_after.0, bounds.used_after.0],
                )
                .and_then(|_| {
                    transaction.execute(
                        "DELETE FROM web_sessions WHERE user = ?1 AND token NOT IN
                         (SELECT token FROM web_sessions WHERE user = ?1 ORDER BY begun_at DESC, token LIMIT ?2)",
                        params![new.user, SESSIONS_PER_USER_MAX - 1],
                    )
                })
                .and_then(|_| {
                    transaction.execute(
                        "INSERT INTO web_sessions (token, user, address, begun_at, used_at) VALUES (?1, ?2, ?3, ?4, ?4)",
                        params![new.token.0, new.user, new.address, now.0],
                    )
                })
                .map_err(|e| storage(context, e))?;
            let actor = format!("user {}", new.user);
            super::logs::write_audit(transaction, now, &actor, "logged in", new.user, &format!("from {}", new.address))?;
            role_of(&role)
        })
    }

    /// Whose session this is, and what they may do; `None` where it is none, or over. With `touch` it counts as used.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn web_session(
        &self,
        token: &TokenHash,
        bounds: SessionBounds,
        touch: Option<Timestamp>,
    ) -> Result<Option<(String, Role)>> {
        let context = "sessions cannot be read";
        let connection = self.connection();
        let found: Option<(String, String, i64)> = connection
            .query_row(
                "SELECT user, role, used_at FROM web_sessions JOIN users ON users.name = user
                 WHERE token = ?1 AND disabled = 0 AND begun_at >= ?2 AND used_at >= ?3",
                params![token.0, bounds.begun_after.0, bounds.used_after.0],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .optional()
            .map_err(|e| storage(context, e))?;
        let Some((user, role, used_at)) = found else { return Ok(None) };
        if let Some(now) = touch.filter(|now| now.0.saturating_sub(used_at) >= USED_EVERY_MS) {
            connection
                .execute("UPDATE web_sessions SET used_at = ?2 WHERE token = ?1", params![token.0, now.0])
                .map_err(|e| storage("session cannot be written", e))?;
        }
        Ok(Some((user, role_of(&role)?)))
    }

    /// Ends a session, with a line in the audit log; one that is over already is none.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn end_web_session(&self, token: &TokenHash) -> Result<()> {
        let context = "session cannot be ended";
        self.write(context, |transaction| {
            let user: Option<String> = transaction
                .query_row("DELETE FROM web_sessions WHERE token = ?1 RETURNING user", [&token.0], |row| row.get(0))
                .optional()
                .map_err(|e| storage(context, e))?;
            if let Some(user) = user {
                super::logs::write_audit(
                    transaction,
                    Timestamp::now(),
                    &format!("user {user}"),
                    "logged out",
                    &user,
                    "",
                )?;
            }
            Ok(())
        })
    }
}
