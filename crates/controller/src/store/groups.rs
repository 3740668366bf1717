//! Groups of machines. A machine is in one at most; groups hold no groups.

use rusqlite::{Connection, OptionalExtension, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Store, storage};
use crate::inventory::check_name;
use crate::{Error, ErrorKind, Result, Timestamp};

/// Groups that there are at most.
const GROUPS_MAX: i64 = 1000;

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MachineGroup {
    /// Its name; another one that differs by case alone is the same.
    pub name: String,
    /// How many machines are in it.
    pub machines: u32,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Store {
    /// All groups by name.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn machine_groups(&self) -> Result<Vec<MachineGroup>> {
        let context = "groups cannot be read";
        let connection = self.connection();
        let sql = "SELECT name, (SELECT count(*) FROM machines WHERE group_name = name), created_at
                   FROM machine_groups ORDER BY name";
        let mut statement = connection.prepare_cached(sql).map_err(|e| storage(context, e))?;
        let rows = statement
            .query_map([], |row| {
                Ok(MachineGroup { name: row.get(0)?, machines: row.get(1)?, created_at: Timestamp(row.get(2)?) })
            })
            .map_err(|e| storage(context, e))?;
        rows.collect::<rusqlite::Result<_>>().map_err(|e| storage(context, e))
    }

    /// Makes a group, with a line in the audit log; one that is there stays as it is.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for the name, [`ErrorKind::Conflict`] where there are too many, [`ErrorKind::Storage`].
    pub fn make_group(&self, name: &str, actor: &str) -> Result<()> {
        let name = checked(name)?;
        self.write("group cannot be made", |transaction| make(transaction, &name, Timestamp::now(), actor)).map(drop)
    }

    /// Gives a group another name, with a line in the audit log; its machines stay in it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Conflict`] where another one has that name; [`ErrorKind::Invalid`];
    /// [`ErrorKind::Storage`].
    pub fn rename_group(&self, name: &str, new: &str, actor: &str) -> Result<()> {
        let context = "group cannot be renamed";
        let new = checked(new)?;
        self.write(context, |transaction| {
            let old = existing(transaction, name)?;
            if let Some(other) = find(transaction, &new)?
                && other != old
            {
                return Err(Error::new(ErrorKind::Conflict, format!("there is a group {other} already")));
            }
            transaction
                .execute("UPDATE machine_groups SET name = ?2 WHERE name = ?1", params![old, new])
                // The reference does not follow where only the case differs.
                .and_then(|_| {
                    let sql = "UPDATE machines SET group_name = ?2 WHERE group_name IN (?1, ?2)";
                    transaction.execute(sql, params![old, new])
                })
                .map_err(|e| storage(context, e))?;
            super::logs::write_audit(transaction, Timestamp::now(), actor, "group renamed", &old, &new)
        })
    }

    /// Deletes a group, with a line in the audit log. Its machines stay, in no group.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Storage`].
    pub fn delete_group(&self, name: &str, actor: &str) -> Result<()> {
        let context = "group cannot be deleted";
        self.write(context, |transaction| {
            let name = existing(transaction, name)?;
            let left = transaction
                .execute("UPDATE machines SET group_name = NULL WHERE group_name = ?1", [&name])
                .map_err(|e| storage(context, e))?;
            transaction
                .execute("DELETE FROM machine_groups WHERE name = ?1", [&name])
                .map_err(|e| storage(context, e))?;
            let detail = format!("{left} machines were in it");
            super::logs::write_audit(transaction, Timestamp::now(), actor, "group deleted", &name, &detail)
        })
    }
}

fn checked(name: &str) -> Result<String> {
    check_name(name).map_err(|why| Error::new(ErrorKind::Invalid, format!("group: {why}")))
}

/// The group of this name, as it is written.
pub(super) fn find(connection: &Connection, name: &str) -> Result<Option<String>> {
    connection
        .query_row("SELECT name FROM machine_groups WHERE name = ?1", [name], |row| row.get(0))
        .optional()
        .map_err(|e| storage("groups cannot be read", e))
}

pub(super) fn existing(connection: &Connection, name: &str) -> Result<String> {
    find(connection, name)?.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no group {name}")))
}

/// Makes a group where there is none of this name; whether it did.
pub(super) fn make(connection: &Connection, name: &str, now: Timestamp, actor: &str) -> Result<bool> {
    let context = "group cannot be made";
    if find(connection, name)?.is_some() {
        return Ok(false);
    }
    let made = connection
        .execute(
            "INSERT INTO machine_groups SELECT ?1, ?2 WHERE (SELECT count(*) FROM machine_groups) < ?3",
            params![name, now.0, GROUPS_MAX],
        )
        .map_err(|e| storage(context, e))?;
    if made == 0 {
        return Err(Error::new(ErrorKind::Conflict, format!("there are {GROUPS_MAX} groups: delete some")));
    }
    super::logs::write_audit(connection, now, actor, "group made", name, "")?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::tests::store_with_machine;
    use super::*;
    use crate::inventory::MachineChange;

    fn names(store: &Store) -> Vec<(String, u32)> {
        store.machine_groups().unwrap().into_iter().map(|group| (group.name, group.machines)).collect()
    }

    #[test]
    fn a_machine_stays_in_its_group_when_that_is_renamed_and_stays_when_it_is_deleted() {
        let (_folder, store, machine) = store_with_machine();
        let group = |store: &Store| store.machine(&machine).unwrap().unwrap().particulars.group;
        let to = |group: &str| MachineChange { group: Some(group.into()), ..MachineChange::default() };
        let error = store.change_machine(&machine, to("dmz"), "uid 0").unwrap_err();
        assert_eq!((error.kind, error.context.as_str()), (ErrorKind::NotFound, "no group dmz"));
        for name in ["dmz", "DMZ", " office "] {
            store.make_group(name, "uid 0").unwrap();
        }
        store.change_machine(&machine, to("DMZ"), "uid 0").unwrap();
        assert_eq!(names(&store), [("dmz".to_owned(), 1), ("office".to_owned(), 0)]);
        for (old, new) in [("dmz", "Dmz"), ("dmz", "edge")] {
            store.rename_group(old, new, "uid 0").unwrap();
            assert_eq!(group(&store).as_deref(), Some(new));
        }
        assert_eq!(store.rename_group("edge", "OFFICE", "uid 0").unwrap_err().kind, ErrorKind::Conflict);
        assert_eq!(store.rename_group("none", "more", "uid 0").unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(store.make_group("a\nb", "uid 0").unwrap_err().kind, ErrorKind::Invalid);
        store.change_machine(&machine, to("office"), "uid 0").unwrap();
        assert_eq!(names(&store), [("edge".to_owned(), 0), ("office".to_owned(), 1)], "it is in one group");
        store.delete_group("office", "uid 0").unwrap();
        assert_eq!((group(&store), names(&store)), (None, vec![("edge".to_owned(), 0)]));
        assert_eq!(store.delete_group("office", "uid 0").unwrap_err().kind, ErrorKind::NotFound);
        let told: Vec<String> = store.audit(4).unwrap().into_iter().map(|line| line.action).collect();
        assert_eq!(told, ["group deleted", "machine changed", "group renamed", "group renamed"]);
    }
}
