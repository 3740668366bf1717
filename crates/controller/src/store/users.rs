//! Users, and what ends their sessions.

use rusqlite::{Connection, OptionalExtension, Row, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Store, storage};
use crate::trust::Role;
use crate::{Error, ErrorKind, Result, Timestamp};

/// Users that there can be.
const USERS_MAX: i64 = 10_000;

/// A user as the API shows one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct User {
    /// What they log in with.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Whether they cannot log in for now; their tokens do not work either.
    pub disabled: bool,
    /// When they were made.
    pub created_at: Timestamp,
    /// When they logged in last.
    pub last_login_at: Option<Timestamp>,
}

/// What is changed of a user; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct UserChange {
    /// What they may do.
    pub role: Option<Role>,
    /// Whether they cannot log in.
    pub disabled: Option<bool>,
    /// The hash of a new password.
    pub password: Option<String>,
}

/// A user who is to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewUser<'a> {
    /// In lower case.
    pub name: &'a str,
    /// What they may do.
    pub role: Role,
    /// The hash of their password.
    pub password: &'a str,
}

impl Store {
    /// All users by name.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn users(&self) -> Result<Vec<User>> {
        let context = "users cannot be read";
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT name, role, disabled, created_at, last_login_at FROM users ORDER BY name")
            .map_err(|e| storage(context, e))?;
        let rows = statement.query_map([], user).map_err(|e| storage(context, e))?;
        rows.map(|row| row.map_err(|e| storage(context, e)).and_then(checked)).collect()
    }

    /// The user of that name, with the hash of their password.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn user(&self, name: &str) -> Result<Option<(User, String)>> {
        one(&self.connection(), name)
    }

    /// Whether there is any user.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn has_users(&self) -> Result<bool> {
        self.connection()
            .query_row("SELECT EXISTS (SELECT 1 FROM users)", [], |row| row.get(0))
            .map_err(|e| storage("users cannot be read", e))
    }

    /// Makes a user, with a line in the audit log.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where the name is taken, or where it is to be the `first` and is not; [`ErrorKind::Storage`].
    pub fn add_user(&self, new: NewUser<'_>, first: bool, actor: &str) -> Result<User> {
        let context = "user cannot be written";
        let now = Timestamp::now();
        self.write(context, |transaction| {
            let count: i64 = transaction
                .query_row("SELECT count(*) FROM users", [], |row| row.get(0))
                .map_err(|e| storage(context, e))?;
            if first && count > 0 {
                return Err(Error::new(ErrorKind::Conflict, "there are users already: log in"));
            }
            if count >= USERS_MAX {
                return Err(Error::new(ErrorKind::Conflict, format!("there are {count} users: remove some")));
            }
            if one(transaction, new.name)?.is_some() {
                return Err(Error::new(ErrorKind::Conflict, format!("there is a user {} already", new.name)));
            }
            transaction
                .execute(
                    "INSERT INTO users (name, role, password, created_at) VALUES (?1, ?2, ?3, ?4)",
                    params![new.name, new.role.as_str(), new.password, now.0],
                )
                .map_err(|e| storage(context, e))?;
            super::logs::write_audit(transaction, now, actor, "user added", new.name, new.role.as_str())?;
            let made = expect(transaction, new.name)?;
            Ok(made)
        })
    }

    /// Changes a user, with a line in the audit log. Their sessions end with anything but being enabled.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Conflict`] where no administrator would be left; [`ErrorKind::Storage`].
    pub fn change_user(&self, name: &str, change: &UserChange, actor: &str) -> Result<User> {
        let context = "user cannot be changed";
        let now = Timestamp::now();
        self.write(context, |transaction| {
            let before = expect(transaction, name)?;
            let (role, disabled) = (change.role.unwrap_or(before.role), change.disabled.unwrap_or(before.disabled));
            transaction
                .execute(
                    "UPDATE users SET role = ?2, disabled = ?3, password = coalesce(?4, password) WHERE name = ?1",
                    params![name, role.as_str(), disabled, change.password],
                )
                .map_err(|e| storage(context, e))?;
            let mut said = Vec::new();
            if role != before.role {
                said.push(format!("role {} → {role}", before.role));
            }
            if disabled != before.disabled {
                said.push(if disabled { "disabled".into() } else { "enabled".into() });
            }
            if change.password.is_some() {
                said.push("new password".into());
            }
            if role != before.role || (disabled && !before.disabled) || change.password.is_some() {
                transaction
                    .execute("DELETE FROM web_sessions WHERE user = ?1", [name])
                    .map_err(|e| storage(context, e))?;
            }
            keep_an_administrator(transaction)?;
            super::logs::write_audit(transaction, now, actor, "user changed", name, &said.join(", "))?;
            let after = expect(transaction, name)?;
            Ok(after)
        })
    }

    /// Removes a user with their sessions and tokens, with a line in the audit log.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Conflict`] where no administrator would be left; [`ErrorKind::Storage`].
    pub fn remove_user(&self, name: &str, actor: &str) -> Result<()> {
        let context = "user cannot be removed";
        self.write(context, |transaction| {
            expect(transaction, name)?;
            transaction.execute("DELETE FROM users WHERE name = ?1", [name]).map_err(|e| storage(context, e))?;
            keep_an_administrator(transaction)?;
            super::logs::write_audit(transaction, Timestamp::now(), actor, "user removed", name, "")?;
            Ok(())
        })
    }
}

/// Where nobody could make users any more, nothing is changed.
fn keep_an_administrator(connection: &Connection) -> Result<()> {
    let left: bool = connection
        .query_row("SELECT EXISTS (SELECT 1 FROM users WHERE role = 'administrator' AND disabled = 0)", [], |row| {
            row.get(0)
        })
        .map_err(|e| storage("users cannot be read", e))?;
    if left {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Conflict, "no administrator would be left: make another one first"))
}

fn expect(connection: &Connection, name: &str) -> Result<User> {
    let found = one(connection, name)?.map(|(user, _)| user);
    found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no user {name}")))
}

fn one(connection: &Connection, name: &str) -> Result<Option<(User, String)>> {
    let context = "users cannot be read";
    let found = connection
        .query_row(
            "SELECT name, role, disabled, created_at, last_login_at, password FROM users WHERE name = ?1",
            [name],
            |row| Ok((user(row)?, row.get(5)?)),
        )
        .optional()
        .map_err(|e| storage(context, e))?;
    found.map(|(found, password)| Ok((checked(found)?, password))).transpose()
}

type Read = (String, String, bool, i64, Option<i64>);

fn user(row: &Row<'_>) -> rusqlite::Result<Read> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
}

fn checked((name, role, disabled, created_at, last_login_at): Read) -> Result<User> {
    Ok(User {
        name,
        role: role_of(&role)?,
        disabled,
        created_at: Timestamp(created_at),
        last_login_at: last_login_at.map(Timestamp),
    })
}

/// A role of the database.
pub(super) fn role_of(text: &str) -> Result<Role> {
    text.parse().map_err(|e| Error::with(ErrorKind::Storage, "a role in the database cannot be understood", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::temporary_store;

    fn new(name: &str, role: Role) -> NewUser<'_> {
        NewUser { name, role, password: "$argon2id$" }
    }

    #[test]
    fn an_administrator_is_always_left() {
        let (_folder, store) = temporary_store();
        assert!(!store.has_users().unwrap());
        store.add_user(new("ada", Role::Administrator), true, "uid 0").unwrap();
        let again = store.add_user(new("eve", Role::Administrator), true, "uid 0").unwrap_err();
        assert_eq!(again.kind, ErrorKind::Conflict, "there is one first user");
        assert_eq!(store.add_user(new("ada", Role::Viewer), false, "uid 0").unwrap_err().kind, ErrorKind::Conflict);
        store.add_user(new("bob", Role::Administrator), false, "user ada").unwrap();

        let off = UserChange { disabled: Some(true), ..UserChange::default() };
        assert!(store.change_user("bob", &off, "user ada").unwrap().disabled);
        let demoted = UserChange { role: Some(Role::Operator), ..UserChange::default() };
        for refused in [
            store.change_user("ada", &demoted, "user ada").unwrap_err(),
            store.change_user("ada", &off, "user ada").unwrap_err(),
            store.remove_user("ada", "user ada").unwrap_err(),
        ] {
            assert_eq!(refused.kind, ErrorKind::Conflict, "bob is disabled: {refused}");
        }
        let (ada, _) = store.user("ada").unwrap().unwrap();
        assert_eq!((ada.role, ada.disabled), (Role::Administrator, false), "nothing was changed");
        let on = UserChange { disabled: Some(false), ..UserChange::default() };
        store.change_user("bob", &on, "user ada").unwrap();
        store.remove_user("ada", "user bob").unwrap();
        assert_eq!(store.remove_user("ada", "user bob").unwrap_err().kind, ErrorKind::NotFound);
        let lines: Vec<_> = store.audit(2).unwrap().into_iter().map(|l| (l.actor, l.action, l.detail)).collect();
        assert_eq!(lines[1], ("user ada".into(), "user changed".into(), "enabled".into()));
        assert_eq!((lines[0].0.as_str(), lines[0].1.as_str()), ("user bob", "user removed"));
    }
}
