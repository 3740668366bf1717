//! Machines that were approved or added, and the agent keys that speak for them.

use machine::Machine;
use protocol::message::BootMedium;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::history::{self, HistoryEvent};
use super::{Store, containing, from_json, new_id, storage, to_json};
use crate::identity::MachineIdentity;
use crate::inventory::{Particulars, changed_facts};
use crate::{Error, ErrorKind, Result, Timestamp};

const COLUMNS: &str =
    "id, report, booted, agent_version, first_seen, last_seen, boot_medium, ready_since, reported, smbios_uuid,
    given_name, group_name, note, address, reach";

/// What is to be done with a machine that has no agent.
pub(crate) const NO_AGENT_REMEDY: &str =
    "start it from the boot image (ISO, USB stick or network), or run vconverter-agent on it, and approve it";

/// A machine of the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KnownMachine {
    /// `m-` and eight hexadecimal digits.
    pub id: String,
    /// What its agent reported last; `None`: it was added by its address, and no agent of it came yet.
    pub report: Option<Machine>,
    /// Its SMBIOS UUID, lower case: as reported, or as an operator said it of one that was added.
    pub uuid: Option<String>,
    /// What operators say of it.
    pub particulars: Particulars,
    /// How the agent was started that reported last: `boot-image` or `live`.
    pub booted: String,
    /// Version of that agent.
    pub agent_version: String,
    /// When it was approved first, or added.
    pub first_seen: Timestamp,
    /// When its agent was last heard.
    pub last_seen: Timestamp,
    /// Boot image only: what it was started from, where that is known.
    pub boot_medium: Option<BootMedium>,
    /// Boot image only: since when it is there; a cut link begins nothing anew, another start does.
    pub ready_since: Option<Timestamp>,
}

/// What an agent says when it connects.
#[derive(Clone, Debug)]
pub struct Sighting<'a> {
    /// SHA-256 of the agent's key, lower-case hexadecimal.
    pub key: &'a str,
    /// Its machine.
    pub report: &'a Machine,
    /// `boot-image` or `live`.
    pub booted: &'a str,
    /// Version of the agent.
    pub agent_version: &'a str,
    /// Boot image only: what it was started from.
    pub boot_medium: Option<BootMedium>,
}

impl Store {
    /// All machines, the last seen first.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn machines(&self) -> Result<Vec<KnownMachine>> {
        query(&self.connection(), "1 ORDER BY last_seen DESC, id", [])
    }

    /// At most `limit` machines with ids after `after`, in the order of their ids; only those that have the text `search` in
    /// host name, maker, product, serial number, UUID, operating system, an address, or the id, or in what operators say of it.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn machines_page(&self, after: &str, limit: usize, search: Option<&str>) -> Result<Vec<KnownMachine>> {
        let filter = r"id > ?1 AND (?2 IS NULL OR
                concat_ws(char(10), id, macs, smbios_uuid, given_name, group_name, note, address, facts) LIKE ?2 ESCAPE '\'
            ) ORDER BY id LIMIT ?3";
        query(&self.connection(), filter, params![after, search.map(containing), limit])
    }

    /// The machine with this id.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn machine(&self, id: &str) -> Result<Option<KnownMachine>> {
        Ok(query(&self.connection(), "id = ?1", [id])?.pop())
    }

    /// The machine with this id, which must be there.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Storage`].
    pub fn existing_machine(&self, id: &str) -> Result<KnownMachine> {
        one(&self.connection(), id)
    }

    /// The machine that an approved key speaks for.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn machine_of_key(&self, key: &str) -> Result<Option<KnownMachine>> {
        let filter = "id = (SELECT machine FROM agent_keys WHERE fingerprint = ?1)";
        Ok(query(&self.connection(), filter, [key])?.pop())
    }

    /// Revokes all keys that speak for a machine, with a line in the audit log, and forgets the machine, unless tasks
    /// tell of it: then its record stays. Returns the keys.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Conflict`] where a task of it is not over; [`ErrorKind::Storage`].
    pub fn forget_machine(&self, id: &str, actor: &str) -> Result<Vec<String>> {
        let context = "machine cannot be forgotten";
        let now = Timestamp::now();
        self.write(context, |transaction| {
            one(transaction, id)?;
            let unfinished: Option<String> = transaction
                .query_row(
                    "SELECT id FROM tasks WHERE machine = ?1 AND state NOT IN ('done', 'failed', 'cancelled') LIMIT 1",
                    [id],
                    |row| row.get(0),
                )
                .optional()
                .map_err(|e| storage(context, e))?;
            if let Some(task) = unfinished {
                let context = format!("task {task} of machine {id} is not over: cancel it first");
                return Err(Error::new(ErrorKind::Conflict, context));
            }
            let mut statement = transaction
                .prepare(
                    "UPDATE agent_keys SET machine = NULL, revoked_at = ?2 WHERE machine = ?1 AND revoked_at IS NULL
                     RETURNING fingerprint",
                )
                .map_err(|e| storage(context, e))?;
            let keys = statement
                .query_map(params![id, now.0], |row| row.get(0))
                .and_then(Iterator::collect::<rusqlite::Result<Vec<String>>>)
                .map_err(|e| storage(context, e))?;
            drop(statement);
            transaction
                .execute(
                    "DELETE FROM machines WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM tasks WHERE machine = ?1)",
                    [id],
                )
                .map_err(|e| storage(context, e))?;
            let detail = format!("{} keys revoked", keys.len());
            super::logs::write_audit(transaction, now, actor, "machine forgotten", id, &detail)?;
            Ok(keys)
        })
    }

    /// Keeps what an approved agent reported. Its machine is the one that its key speaks for already, else the one with
    /// the same identity, else a new record. Returns the machine's id.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where the key speaks for a machine with another identity (an agent's key was copied),
    /// [`ErrorKind::NotFound`] for a key that was not approved, [`ErrorKind::Storage`].
    pub fn machine_reported(&self, sighting: &Sighting<'_>) -> Result<String> {
        let context = "machine cannot be written";
        let now = Timestamp::now();
        let identity = MachineIdentity::of(sighting.report);
        self.write(context, |transaction| {
            let owner: Option<String> = transaction
                .query_row(
                    "SELECT machine FROM agent_keys WHERE fingerprint = ?1 AND revoked_at IS NULL",
                    [sighting.key],
                    |row| row.get(0),
                )
                .optional()
                .map_err(|e| storage(context, e))?
                .ok_or_else(|| Error::new(ErrorKind::NotFound, "the agent's key was not approved"))?;
            let is_first = owner.is_none();
            let id = match owner {
                Some(id) => {
                    if let Some(report) = query(transaction, "id = ?1", [&id])?.pop().and_then(|known| known.report)
                        && identity.contradicts(&MachineIdentity::of(&report))
                    {
                        let context =
                            format!("the agent's key belongs to {id}, which has another UUID or serial number");
                        return Err(Error::new(ErrorKind::Conflict, context));
                    }
                    id
                }
                None => match find_identity(transaction, &identity)? {
                    Some(id) => id,
                    None => {
                        let id = new_id("m")?;
                        transaction
                            .execute(
                                "INSERT INTO machines (id, macs, report, booted, agent_version, first_seen, last_seen, reported)
                                 VALUES (?1, '[]', '{}', '', '', ?2, ?2, 0)",
                                params![id, now.0],
                            )
                            .map_err(|e| storage(context, e))?;
                        id
                    }
                },
            };
            transaction
                .execute("UPDATE agent_keys SET machine = ?2 WHERE fingerprint = ?1", params![sighting.key, id])
                .map_err(|e| storage(context, e))?;
            let before = one(transaction, &id)?;
            write_report(transaction, &id, sighting, now)?;
            write_history(transaction, &before, sighting, is_first, now)?;
            super::particulars::join_certain(transaction, &id)?;
            if sighting.is_in_boot_image() {
                super::pxe::reported_in(transaction, &identity)?;
            }
            Ok(id)
        })
    }

    /// Notes that a machine's agent was heard just now.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn machine_seen(&self, id: &str) -> Result<()> {
        self.connection()
            .execute("UPDATE machines SET last_seen = ?2 WHERE id = ?1", params![id, Timestamp::now().0])
            .map(drop)
            .map_err(|e| storage("machine cannot be updated", e))
    }
}

fn missing(id: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("no machine {id}"))
}

pub(super) fn one(connection: &Connection, id: &str) -> Result<KnownMachine> {
    query(connection, "id = ?1", [id])?.pop().ok_or_else(|| missing(id))
}

impl KnownMachine {
    /// What its agent reported.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where none came yet, with what is to be done about that.
    pub fn reported(&self) -> Result<&Machine> {
        self.report.as_ref().ok_or_else(|| {
            let address = self.particulars.address.as_ref().map(|at| format!(" ({at})")).unwrap_or_default();
            let context =
                format!("machine {}{address} was added by its address and has no agent: {NO_AGENT_REMEDY}", self.id);
            Error::new(ErrorKind::Conflict, context)
        })
    }
}

impl Sighting<'_> {
    fn is_in_boot_image(&self) -> bool {
        self.booted == "boot-image"
    }
}

fn write_report(connection: &Connection, id: &str, sighting: &Sighting<'_>, now: Timestamp) -> Result<()> {
    let identity = MachineIdentity::of(sighting.report);
    let in_image = sighting.is_in_boot_image();
    let changed = connection
        .execute(
            "UPDATE machines SET smbios_uuid = ?2, smbios_serial = ?3, macs = ?4, report = ?5, booted = ?6,
             facts = (SELECT coalesce(group_concat(atom, char(10)), '') FROM json_tree(?5)
                      WHERE path IN ('$.smbios', '$.guest') OR path LIKE '$.nics%.addresses%'),
             agent_version = ?7, last_seen = ?8, boot_medium = ?9, ready_key = ?10, reported = 1,
             ready_since = CASE WHEN ?10 IS NULL THEN NULL WHEN ready_key = ?10 THEN ready_since ELSE ?8 END
             WHERE id = ?1",
            params![
                id,
                identity.uuid,
                identity.serial,
                to_json("MAC addresses", &identity.macs)?,
                to_json("machine", sighting.report)?,
                sighting.booted,
                sighting.agent_version,
                now.0,
                sighting.boot_medium.filter(|_| in_image).and_then(medium_name),
                in_image.then_some(sighting.key),
            ],
        )
        .map_err(|e| storage("machine cannot be written", e))?;
    if changed == 1 { Ok(()) } else { Err(missing(id)) }
}

/// What a report says of a machine that was not so before; `is_first`: its key speaks for the first time.
fn write_history(
    connection: &Connection,
    before: &KnownMachine,
    sighting: &Sighting<'_>,
    is_first: bool,
    now: Timestamp,
) -> Result<()> {
    if is_first {
        let approved: (i64, Option<String>) = connection
            .query_row(
                "SELECT approved_at, (SELECT actor FROM audit_log WHERE subject = ?1 AND at >= approved_at ORDER BY id LIMIT 1)
                 FROM agent_keys WHERE fingerprint = ?1",
                [sighting.key],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .map_err(|e| storage("agent keys cannot be read", e))?;
        let actor = approved.1.map(|actor| format!(" by {actor}")).unwrap_or_default();
        let key: String = sighting.key.chars().take(16).collect();
        let detail = format!("key {key}…{actor}");
        history::write(connection, &before.id, Timestamp(approved.0), HistoryEvent::Approved, &detail)?;
    }
    let medium = sighting.boot_medium.filter(|_| sighting.is_in_boot_image()).and_then(medium_name);
    let how = match (sighting.booted, medium) {
        ("boot-image", Some(medium)) => format!("in the boot image, started by {medium}"),
        ("boot-image", None) => "in the boot image".to_owned(),
        ("live", _) => "in its own system".to_owned(),
        _ => "in a system that is not known".to_owned(),
    };
    history::connected(connection, &before.id, now, before.last_seen, &how)?;
    let changed =
        before.report.as_ref().map(|report| changed_facts(report, sighting.report, before.booted == sighting.booted));
    for line in changed.unwrap_or_default() {
        history::write(connection, &before.id, now, HistoryEvent::Changed, &line)?;
    }
    Ok(())
}

/// As it is kept; one that is not known says nothing.
fn medium_name(medium: BootMedium) -> Option<&'static str> {
    match medium {
        BootMedium::Iso => Some("iso"),
        BootMedium::Pxe => Some("pxe"),
        BootMedium::UefiHttp => Some("uefi-http"),
        BootMedium::Push => Some("push"),
        BootMedium::Unknown => None,
    }
}

fn parse_medium(name: &str) -> Option<BootMedium> {
    let known = [BootMedium::Iso, BootMedium::Pxe, BootMedium::UefiHttp, BootMedium::Push];
    known.into_iter().find(|one| medium_name(*one) == Some(name))
}

/// The id of the last seen machine whose identity is the same; candidates are few, so they are compared here and not in SQL.
fn find_identity(connection: &Connection, identity: &MachineIdentity) -> Result<Option<String>> {
    let context = "machines cannot be read";
    let mut statement = connection
        .prepare_cached("SELECT id, smbios_uuid, smbios_serial, macs FROM machines ORDER BY last_seen DESC")
        .map_err(|e| storage(context, e))?;
    let mut rows = statement.query([]).map_err(|e| storage(context, e))?;
    while let Some(row) = rows.next().map_err(|e| storage(context, e))? {
        let read = |row: &Row<'_>| -> rusqlite::Result<(String, Option<String>, Option<String>, String)> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        };
        let (id, uuid, serial, macs) = read(row).map_err(|e| storage(context, e))?;
        let known = MachineIdentity { uuid, serial, macs: from_json("MAC addresses", &macs)? };
        if identity.is_same_machine(&known) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

pub(super) fn query(connection: &Connection, filter: &str, values: impl rusqlite::Params) -> Result<Vec<KnownMachine>> {
    let context = "machines cannot be read";
    let mut statement = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM machines WHERE {filter}"))
        .map_err(|e| storage(context, e))?;
    let rows = statement
        .query_map(values, |row| {
            let report: String = row.get(1)?;
            let has_reported: bool = row.get(8)?;
            let (address, reach): (Option<String>, String) = (row.get(13)?, row.get(14)?);
            let particulars = Particulars {
                name: row.get(10)?,
                group: row.get(11)?,
                note: row.get(12)?,
                address: address.and_then(|address| address.parse().ok()),
                reach: reach.parse().unwrap_or_default(),
            };
            let known = KnownMachine {
                id: row.get(0)?,
                report: None,
                uuid: row.get(9)?,
                particulars,
                booted: row.get(2)?,
                agent_version: row.get(3)?,
                first_seen: Timestamp(row.get(4)?),
                last_seen: Timestamp(row.get(5)?),
                boot_medium: row.get::<_, Option<String>>(6)?.as_deref().and_then(parse_medium),
                ready_since: row.get::<_, Option<i64>>(7)?.map(Timestamp),
            };
            Ok((known, has_reported.then_some(report)))
        })
        .map_err(|e| storage(context, e))?;
    rows.map(|row| {
        let (known, report) = row.map_err(|e| storage(context, e))?;
        let report = report.map(|report| from_json("machine", &report)).transpose()?;
        Ok(KnownMachine { report, ..known })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use machine::Smbios;

    use super::*;
    use crate::store::temporary_store;

    fn machine(uuid: &str, serial: &str) -> Machine {
        Machine {
            smbios: Smbios { uuid: Some(uuid.into()), serial: Some(serial.into()), ..Smbios::default() },
            ..Machine::default()
        }
    }

    #[test]
    fn two_keys_of_one_machine_are_one_record() {
        let (_folder, store) = temporary_store();
        for key in ["aa", "bb", "cc"] {
            store.approve_key(key, "PowerEdge", "uid 0").unwrap();
        }
        let uuid = "4c4c4544-0042-3510-8052-b4c04f4e3132";
        let report = machine(uuid, "B5BRN12");
        let sighting =
            Sighting { key: "aa", report: &report, booted: "boot-image", agent_version: "0.1.0", boot_medium: None };
        let id = store.machine_reported(&sighting).unwrap();
        assert_eq!(store.machine_reported(&Sighting { key: "bb", ..sighting.clone() }).unwrap(), id);
        assert_eq!(store.machine_of_key("bb").unwrap().unwrap().id, id);
        let other = machine(uuid, "ANOTHER");
        let third = Sighting { key: "cc", report: &other, ..sighting.clone() };
        assert_ne!(store.machine_reported(&third).unwrap(), id);
        assert_eq!(store.machines().unwrap().len(), 2);
        assert_eq!(store.audit(10).unwrap().len(), 3);

        let copied = store.machine_reported(&Sighting { report: &other, ..sighting.clone() }).unwrap_err();
        assert_eq!(copied.kind, ErrorKind::Conflict, "a key speaks for one machine");
        let unknown = store.machine_reported(&Sighting { key: "dd", ..sighting }).unwrap_err();
        assert_eq!(unknown.kind, ErrorKind::NotFound);
    }
}
