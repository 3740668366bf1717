//! Tokens of programs: a name, a role not above its owner's, an end.

use rusqlite::{OptionalExtension, Row, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::users::role_of;
use super::{Store, new_id, storage};
use crate::trust::{Role, TokenHash};
use crate::{Error, ErrorKind, Result, Timestamp};

/// Tokens of one user that are good.
const TOKENS_PER_USER_MAX: i64 = 100;
/// How often a token's last use is written, in milliseconds.
const USED_EVERY_MS: i64 = 60_000;
const COLUMNS: &str = "id, name, user, role, created_at, expires_at, used_at, revoked_at";

/// A token as the API shows it: everything but itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApiToken {
    /// `k-` and eight hexadecimal digits.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// Whose it is; `null` for one that was made on the controller's machine for nobody in particular.
    pub user: Option<String>,
    /// What it may do, where its owner still may.
    pub role: Role,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it was used last, to the minute.
    pub used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// A token that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewApiToken<'a> {
    /// What is kept of it.
    pub token: &'a TokenHash,
    /// What it is for.
    pub name: &'a str,
    /// Whose it is.
    pub user: Option<&'a str>,
    /// What it may do.
    pub role: Role,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl Store {
    /// Keeps a token, with a line in the audit log.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a user who is not there, [`ErrorKind::Forbidden`] for a role above theirs,
    /// [`ErrorKind::Conflict`] where they have too many, [`ErrorKind::Storage`].
    pub fn add_api_token(&self, new: NewApiToken<'_>, actor: &str) -> Result<ApiToken> {
        let context = "token cannot be written";
        let (id, now) = (new_id("k")?, Timestamp::now());
        self.write(context, |transaction| {
            if let Some(user) = new.user {
                let role: Option<String> = transaction
                    .query_row("SELECT role FROM users WHERE name = ?1", [user], |row| row.get(0))
                    .optional()
                    .map_err(|e| storage(context, e))?;
                let role = role.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no user {user}")))?;
                if new.role > role_of(&role)? {
                    let context = format!("a token of {user} cannot be {}: {user} is {role}", new.role);
                    return Err(Error::new(ErrorKind::Forbidden, context));
                }
            }
            let good: i64 = transaction
                .query_row(
                    "SELECT count(*) FROM api_tokens WHERE user IS ?1 AND revoked_at IS NULL AND expires_at > ?2",
                    params![new.user, now.0],
                    |row| row.get(0),
                )
                .map_err(|e| storage(context, e))?;
            if good >= TOKENS_PER_USER_MAX {
                return Err(Error::new(ErrorKind::Conflict, format!("there are {good} tokens already: revoke some")));
            }
            transaction
                .execute(
                    "INSERT INTO api_tokens (id, token, name, user, role, created_at, expires_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    params![id, new.token.0, new.name, new.user, new.role.as_str(), now.0, new.expires_at.0],
                )
                .map_err(|e| storage(context, e))?;
            let detail = format!("{} as {}, until {}", new.name, new.role, new.expires_at);
            super::logs::write_audit(transaction, now, actor, "token made", &id, &detail)?;
            Ok(ApiToken {
                id,
                name: new.name.into(),
                user: new.user.map(Into::into),
                role: new.role,
                created_at: now,
                expires_at: new.expires_at,
                used_at: None,
                revoked_at: None,
            })
        })
    }

    /// All tokens, or those of one user, the newest first.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn api_tokens(&self, user: Option<&str>) -> Result<Vec<ApiToken>> {
        let context = "tokens cannot be read";
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM api_tokens WHERE ?1 IS NULL OR user = ?1 ORDER BY created_at DESC, id"
            ))
            .map_err(|e| storage(context, e))?;
        let rows = statement.query_map([user], api_token).map_err(|e| storage(context, e))?;
        rows.map(|row| row.map_err(|e| storage(context, e)).and_then(checked)).collect()
    }

    /// The good token with this hash, and what it may do: not more than its owner by now. It counts as used.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn use_api_token(&self, token: &TokenHash, now: Timestamp) -> Result<Option<(ApiToken, Role)>> {
        let context = "tokens cannot be read";
        let connection = self.connection();
        let found = connection
            .query_row(
                &format!(
                    "SELECT {COLUMNS}, (SELECT users.role FROM users WHERE users.name = user AND disabled = 0)
                     FROM api_tokens WHERE token = ?1 AND revoked_at IS NULL AND expires_at > ?2"
                ),
                params![token.0, now.0],
                |row| Ok((api_token(row)?, row.get::<_, Option<String>>(8)?)),
            )
            .optional()
            .map_err(|e| storage(context, e))?;
        let Some((found, owners)) = found else { return Ok(None) };
        let found = checked(found)?;
        let role = match (&found.user, owners) {
            (None, _) => found.role,
            (Some(_), Some(owners)) => found.role.min(role_of(&owners)?),
            (Some(_), None) => return Ok(None),
        };
        if found.used_at.is_none_or(|used| now.0.saturating_sub(used.0) >= USED_EVERY_MS) {
            connection
                .execute("UPDATE api_tokens SET used_at = ?2 WHERE id = ?1", params![found.id, now.0])
                .map_err(|e| storage("token cannot be written", e))?;
        }
        Ok(Some((found, role)))
    }

    /// Revokes a token (of that user, if one is named), with a line in the audit log.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Conflict`] where it was revoked before; [`ErrorKind::Storage`].
    pub fn revoke_api_token(&self, id: &str, user: Option<&str>, actor: &str) -> Result<()> {
        let context = "token cannot be revoked";
        let now = Timestamp::now();
        self.write(context, |transaction| {
            let found: Option<(String, Option<i64>)> = transaction
                .query_row(
                    "SELECT name, revoked_at FROM api_tokens WHERE id = ?1 AND (?2 IS NULL OR user = ?2)",
                    params![id, user],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()
                .map_err(|e| storage(context, e))?;
            let (name, revoked) = found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no token {id}")))?;
            if revoked.is_some() {
                return Err(Error::new(ErrorKind::Conflict, format!("token {id} was revoked already")));
            }
            transaction
                .execute("UPDATE api_tokens SET revoked_at = ?2 WHERE id = ?1", params![id, now.0])
                .map_err(|e| storage(context, e))?;
            super::logs::write_audit(transaction, now, actor, "token revoked", id, &name)?;
            Ok(())
        })
    }
}

type Read = (String, String, Option<String>, String, i64, i64, Option<i64>, Option<i64>);

fn api_token(row: &Row<'_>) -> rusqlite::Result<Read> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?))
}

fn checked((id, name, user, role, created_at, expires_at, used_at, revoked_at): Read) -> Result<ApiToken> {
    Ok(ApiToken {
        id,
        name,
        user,
        role: role_of(&role)?,
        created_at: Timestamp(created_at),
        expires_at: Timestamp(expires_at),
        used_at: used_at.map(Timestamp),
        revoked_at: revoked_at.map(Timestamp),
    })
}
