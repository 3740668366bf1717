//! What operators say of machines: they add some by their address, name them, put them into groups, and join those that were
//! added with those whose agents came.

use std::collections::HashMap;

use machine::Machine;
use rusqlite::{Connection, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::history::{self, HistoryEvent};
use super::machines::{one, query};
use super::{KnownMachine, Store, groups, logs, new_id, storage};
use crate::inventory::{AddedMachine, MachineChange, NEW_MACHINES_MAX, NOTE_BYTES_MAX, NewMachine, Resemblance};
use crate::{Error, ErrorKind, Result, Timestamp};

/// Machines that wait for their agents at most.
const ADDED_MAX: usize = 10_000;
/// Rows that an error names.
const NAMED_MAX: usize = 5;

/// How machines are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adding {
    /// Look only.
    pub dry_run: bool,
    /// Leave out those that are known; without this one of them keeps all from being added.
    pub skip_known: bool,
}

/// What came of adding machines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addition {
    /// Ids of those that were added, in their order.
    pub added: Vec<String>,
    /// Those that were known before.
    pub known: Vec<KnownRow>,
    /// Groups that were made, or would be.
    pub new_groups: Vec<String>,
    /// Where it was looked only: those that cannot be added.
    pub faults: Vec<FaultyRow>,
}

/// A machine that cannot be added as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FaultyRow {
    /// Which one, from 0.
    pub row: usize,
    /// What of it: `address`, `name`, `group`, `note` or `uuid`.
    pub part: String,
    /// What was expected and found.
    pub why: String,
    /// Where another one of them is the same machine: which one, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin: Option<usize>,
}

/// A machine that was to be added and is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KnownRow {
    /// Which one, from 0.
    pub row: usize,
    /// Id of the machine that is it.
    pub machine: String,
    /// By what: `address 192.0.2.10`.
    pub by: String,
}

/// A machine that another one may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// Its id.
    pub machine: String,
    /// What agrees: address, host name, UUID.
    pub signs: Vec<String>,
}

impl Store {
    /// Adds machines that have no agent yet, all or none, with a line in the audit log for each.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a part that cannot be, or two of them that are one machine; [`ErrorKind::Conflict`] for one that
    /// is known, unless those are to be left out or nothing is to be done; [`ErrorKind::Storage`].
    pub fn add_machines(&self, new: &[NewMachine], adding: Adding, actor: &str) -> Result<Addition> {
        let context = "machines cannot be added";
        let Checked { machines: new, faults } = check_all(new)?;
        if let Some(FaultyRow { row, part, why, twin }) = faults.first().filter(|_| !adding.dry_run) {
            let by = twin.map(|twin| format!(" by machine {}", twin + 1)).unwrap_or_default();
            return Err(Error::new(ErrorKind::Invalid, format!("machine {}: {part}: {why}{by}", row + 1)));
        }
        self.write(context, |transaction| {
            let all = query(transaction, "1", [])?;
            let waiting = all.iter().filter(|known| known.report.is_none()).count();
            let index = Index::of(&all);
            let mut addition = Addition { faults, ..Addition::default() };
            let mut fresh = Vec::new();
            for (row, machine) in &new {
                match index.find(machine) {
                    Some((id, by)) => addition.known.push(KnownRow { row: *row, machine: id.to_owned(), by }),
                    None => fresh.push(machine),
                }
            }
            if waiting + fresh.len() > ADDED_MAX {
                let context = format!("{waiting} machines wait for their agents: expected at most {ADDED_MAX} in all");
                return Err(Error::new(ErrorKind::Conflict, context));
            }
            let now = Timestamp::now();
            for group in fresh.iter().filter_map(|machine| machine.particulars.group.as_deref()) {
                let is_new = match adding.dry_run {
                    true => groups::find(transaction, group)?.is_none(),
                    false => groups::make(transaction, group, now, actor)?,
                };
                if is_new && !addition.new_groups.iter().any(|other| other.eq_ignore_ascii_case(group)) {
                    addition.new_groups.push(group.to_owned());
                }
            }
            if adding.dry_run {
                return Ok(addition);
            }
            if !adding.skip_known && !addition.known.is_empty() {
                return Err(Error::new(ErrorKind::Conflict, describe_known(&addition.known)));
            }
            for machine in fresh {
                addition.added.push(add(transaction, machine, now, actor)?);
            }
            Ok(addition)
        })
    }

    /// Says something else of a machine, with a line in the audit log and one in its history.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the machine or the group, [`ErrorKind::Invalid`], [`ErrorKind::Storage`].
    pub fn change_machine(&self, id: &str, change: MachineChange, actor: &str) -> Result<()> {
        let context = "machine cannot be changed";
        let change = change.check()?;
        self.write(context, |transaction| {
            let known = one(transaction, id)?;
            let had = known.particulars;
            let mut is = had.clone();
            let some = |text: String| (!text.is_empty()).then_some(text);
            if let Some(name) = change.name {
                is.name = some(name);
            }
            if let Some(group) = change.group {
                is.group = some(group).map(|group| groups::existing(transaction, &group)).transpose()?;
            }
            if let Some(note) = change.note {
                is.note = note;
            }
            if let Some(reach) = change.reach {
                is.reach = reach;
            }
            let mut said = Vec::new();
            let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".into());
            if is.name != had.name {
                said.push(format!("name: {}", shown(&is.name)));
            }
            if is.group != had.group {
                said.push(format!("group: {}", shown(&is.group)));
            }
            if is.note != had.note {
                said.push("note".to_owned());
            }
            if is.reach != had.reach {
                said.push(format!("reached by: {}", is.reach));
            }
            if said.is_empty() {
                return Ok(());
            }
            let sql = "UPDATE machines SET given_name = ?2, group_name = ?3, note = ?4, reach = ?5 WHERE id = ?1";
            transaction
                .execute(sql, params![id, is.name, is.group, is.note, is.reach.as_str()])
                .map_err(|e| storage(context, e))?;
            let (now, said) = (Timestamp::now(), said.join(", "));
            history::write(transaction, id, now, HistoryEvent::Edited, &format!("{said} (by {actor})"))?;
            logs::write_audit(transaction, now, actor, "machine changed", id, &said)
        })
    }

    /// Makes one machine of one that was added and one whose agent came. The latter's id stays, with what was said of the
    /// former where nothing was said of it; notes and histories are put together.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Conflict`] where the first was not added or the second never reported, where their
    /// UUIDs differ, or where both notes are too long for one; [`ErrorKind::Storage`].
    pub fn join_machines(&self, added: &str, machine: &str, actor: &str) -> Result<()> {
        let conflict = |context: String| Err(Error::new(ErrorKind::Conflict, context));
        self.write("machines cannot be joined", |transaction| {
            let (added, machine) = (one(transaction, added)?, one(transaction, machine)?);
            if added.report.is_some() {
                return conflict(format!(
                    "machine {} has an agent of its own: only one that was added is joined",
                    added.id
                ));
            }
            let Some(report) = &machine.report else {
                return conflict(format!("machine {} has no agent yet: join when it came", machine.id));
            };
            if resemblance(&added, report).is_some_and(Resemblance::is_impossible) {
                let context = format!("machine {} has another UUID than {}: they are two", machine.id, added.id);
                return conflict(context);
            }
            join(transaction, &added, &machine, actor, "")
        })
    }

    /// Machines with agents that an added one may be; of one with an agent: added ones that it may be.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Storage`].
    pub fn candidates(&self, id: &str) -> Result<Vec<Candidate>> {
        let connection = self.connection();
        let this = one(&connection, id)?;
        let others = query(&connection, "reported <> ?1 ORDER BY id", [this.report.is_some()])?;
        let candidate = |other: KnownMachine| {
            let found = match (&this.report, &other.report) {
                (None, Some(report)) => resemblance(&this, report),
                (Some(report), None) => resemblance(&other, report),
                _ => None,
            };
            let signs = found.filter(|found| found.is_possible())?.signs().into_iter().map(str::to_owned).collect();
            Some(Candidate { machine: other.id, signs })
        };
        Ok(others.into_iter().filter_map(candidate).collect())
    }
}

/// A machine reported: the one that was added and certainly is it becomes one with it, if there is just one, and nobody else
/// may be that.
pub(super) fn join_certain(connection: &Connection, id: &str) -> Result<()> {
    let added = query(connection, "reported = 0", [])?;
    if added.is_empty() {
        return Ok(());
    }
    let machine = one(connection, id)?;
    let is_certain = |added: &KnownMachine, machine: &KnownMachine| {
        let found = machine.report.as_ref().and_then(|report| resemblance(added, report));
        found.is_some_and(Resemblance::is_certain)
    };
    let mut certain = added.iter().filter(|added| is_certain(added, &machine));
    let (Some(added), None) = (certain.next(), certain.next()) else { return Ok(()) };
    // It was joined before, or the notes are for an operator to shorten.
    if machine.particulars.address.is_some() || joined_note(added, &machine).is_none() {
        return Ok(());
    }
    let others = query(connection, "reported = 1 AND id <> ?1", [id])?;
    if others.iter().any(|other| is_certain(added, other)) {
        return Ok(());
    }
    let signs = added.particulars.address.as_ref().zip(machine.report.as_ref());
    let signs = signs.and_then(|(_, report)| resemblance(added, report)).map(Resemblance::signs).unwrap_or_default();
    join(connection, added, &machine, "controller", &format!(": the same {}", signs.join(" and ")))
}

fn join(connection: &Connection, added: &KnownMachine, machine: &KnownMachine, actor: &str, why: &str) -> Result<()> {
    let context = "machines cannot be joined";
    let Some(note) = joined_note(added, machine) else {
        let context = format!("the notes of {} and {} are too long for one: shorten them", added.id, machine.id);
        return Err(Error::new(ErrorKind::Conflict, context));
    };
    let (of_added, own) = (&added.particulars, &machine.particulars);
    let values = params![
        machine.id,
        own.name.as_ref().or(of_added.name.as_ref()),
        own.group.as_ref().or(of_added.group.as_ref()),
        note,
        of_added.address.as_ref().map(|address| address.as_str()),
        of_added.reach.as_str(),
    ];
    let sql = "UPDATE machines SET given_name = ?2, group_name = ?3, note = ?4, address = ?5, reach = ?6 WHERE id = ?1";
    connection
        .execute(sql, values)
        .and_then(|_| {
            let sql = "UPDATE machine_history SET machine = ?2 WHERE machine = ?1";
            connection.execute(sql, [&added.id, &machine.id])
        })
        .and_then(|_| connection.execute("DELETE FROM machines WHERE id = ?1", [&added.id]))
        .map_err(|e| storage(context, e))?;
    let address = of_added.address.as_ref().map_or("", |address| address.as_str());
    let (now, detail) = (Timestamp::now(), format!("{} ({address}) is this machine{why}", added.id));
    history::write(connection, &machine.id, now, HistoryEvent::Joined, &format!("{detail} (by {actor})"))?;
    logs::write_audit(connection, now, actor, "machines joined", &machine.id, &detail)
}

/// Both notes, if there is room for them.
fn joined_note(added: &KnownMachine, machine: &KnownMachine) -> Option<String> {
    let notes = [machine.particulars.note.as_str(), added.particulars.note.as_str()];
    let note = notes.into_iter().filter(|note| !note.is_empty()).collect::<Vec<_>>().join("\n");
    (note.len() <= NOTE_BYTES_MAX).then_some(note)
}

fn resemblance(added: &KnownMachine, report: &Machine) -> Option<Resemblance> {
    let said = &added.particulars;
    Some(Resemblance::of(said.address.as_ref()?, said.name.as_deref(), added.uuid.as_deref(), report))
}

/// What was looked at of machines that are to be added.
#[derive(Default)]
struct Checked {
    /// Those that can be, by their rows.
    machines: Vec<(usize, AddedMachine)>,
    /// What is wrong with the others.
    faults: Vec<FaultyRow>,
}

fn check_all(new: &[NewMachine]) -> Result<Checked> {
    if new.is_empty() || new.len() > NEW_MACHINES_MAX {
        let context = format!("machines: expected 1 to {NEW_MACHINES_MAX} at once, found {}", new.len());
        return Err(Error::new(ErrorKind::Invalid, context));
    }
    let (mut checked, mut seen) = (Checked::default(), HashMap::new());
    for (row, machine) in new.iter().enumerate() {
        let machine = match machine.check() {
            Ok(machine) => machine,
            Err(misfit) => {
                checked.faults.push(FaultyRow { row, part: misfit.part.into(), why: misfit.why, twin: None });
                continue;
            }
        };
        let mut twin = None;
        for (what, value) in traits(&machine) {
            let first = *seen.entry((what, value.clone())).or_insert(row);
            if first != row && twin.is_none() {
                let (part, why) = (what.to_lowercase(), format!("{value} is taken"));
                twin = Some(FaultyRow { row, part, why, twin: Some(first) });
            }
        }
        match twin {
            Some(twin) => checked.faults.push(twin),
            None => checked.machines.push((row, machine)),
        }
    }
    Ok(checked)
}

/// What no two machines share. A host name is a name, too.
fn traits(machine: &AddedMachine) -> Vec<(&'static str, String)> {
    let mut traits = Vec::new();
    let mut add = |what, value: Option<&str>| {
        if let Some(value) = value {
            traits.push((what, value.to_lowercase()));
        }
    };
    add("address", machine.address.ip().map(|_| machine.address.as_str()));
    add("name", machine.address.host_name());
    add("name", machine.particulars.name.as_deref());
    add("UUID", machine.uuid.as_deref());
    traits
}

/// Known machines by what no two share.
struct Index<'a>(HashMap<(&'static str, String), &'a str>);

impl<'a> Index<'a> {
    fn of(all: &'a [KnownMachine]) -> Self {
        let mut index = HashMap::new();
        for known in all {
            let mut add = |what, value: Option<String>| {
                if let Some(value) = value {
                    index.entry((what, value.to_lowercase())).or_insert(known.id.as_str());
                }
            };
            let said = &known.particulars;
            let address = said.address.as_ref();
            add("address", address.filter(|own| own.ip().is_some()).map(ToString::to_string));
            add("name", address.and_then(|own| own.host_name()).map(str::to_owned));
            add("name", said.name.clone());
            add("UUID", known.uuid.clone());
            let Some(report) = &known.report else { continue };
            add("name", report.guest.hostname.clone());
            for net in report.nics.iter().flat_map(|nic| &nic.addresses) {
                add("address", Some(net.address.to_canonical().to_string()));
            }
        }
        Self(index)
    }

    fn find(&self, machine: &AddedMachine) -> Option<(&'a str, String)> {
        traits(machine).into_iter().find_map(|(what, value)| {
            let by = format!("{what} {value}");
            self.0.get(&(what, value)).map(|id| (*id, by))
        })
    }
}

fn describe_known(known: &[KnownRow]) -> String {
    let named: Vec<String> = known
        .iter()
        .take(NAMED_MAX)
        .map(|row| format!("machine {}: {} is that of {}", row.row + 1, row.by, row.machine))
        .collect();
    let more = known.len().saturating_sub(NAMED_MAX);
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    format!("known already: {}{more}; nothing was added", named.join(", "))
}

fn add(connection: &Connection, machine: &AddedMachine, now: Timestamp, actor: &str) -> Result<String> {
    let id = new_id("m")?;
    let said = &machine.particulars;
    let sql = "INSERT INTO machines (id, smbios_uuid, macs, report, booted, agent_version, first_seen, last_seen, given_name,
                   group_name, note, address, reach, reported)
               VALUES (?1, ?2, '[]', '{}', '', '', ?3, ?3, ?4, (SELECT name FROM machine_groups WHERE name = ?5), ?6, ?7, ?8, 0)";
    let values = params![
        id,
        machine.uuid,
        now.0,
        said.name,
        said.group,
        said.note,
        machine.address.as_str(),
        said.reach.as_str()
    ];
    connection.execute(sql, values).map_err(|e| storage("machine cannot be added", e))?;
    let detail = format!("at {}", machine.address);
    history::write(connection, &id, now, HistoryEvent::Added, &format!("{detail} (by {actor})"))?;
    logs::write_audit(connection, now, actor, "machine added", &id, &detail)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use machine::{IpNet, MacAddress, Nic, Smbios};

    use super::super::{Sighting, temporary_store};
    use super::*;
    use crate::inventory::Reach;

    const UUID: &str = "4c4c4544-0042-3510-8052-b4c04f4e3132";

    fn new(address: &str, name: &str) -> NewMachine {
        NewMachine { address: address.into(), name: Some(name.into()), ..NewMachine::default() }
    }

    fn report(number: u8, address: &str, hostname: &str) -> Machine {
        let nic = Nic {
            name: "eth0".into(),
            mac: MacAddress([0x52, 0x54, 0, 0, 0, number]),
            addresses: vec![IpNet { address: address.parse().unwrap(), prefix_length: 24 }],
            driver: None,
            link_up: true,
        };
        let uuid = format!("4c4c4544-0042-3510-8052-b4c04f4e{number:04x}");
        let smbios = Smbios { uuid: Some(uuid), serial: Some(format!("S{number}")), ..Smbios::default() };
        let mut report = Machine { smbios, nics: vec![nic], ..Machine::default() };
        report.guest.hostname = Some(hostname.into());
        report
    }

    /// The agent of a machine comes; its id.
    fn comes(store: &Store, key: &str, report: &Machine) -> String {
        store.approve_key(key, "", "user ada").unwrap();
        let sighting = Sighting { key, report, booted: "live", agent_version: "0.1.0", boot_medium: None };
        store.machine_reported(&sighting).unwrap()
    }

    fn add_all(store: &Store, new: &[NewMachine]) -> Vec<String> {
        store.add_machines(new, Adding::default(), "user ada").unwrap().added
    }

    #[test]
    fn machines_are_added_all_or_none() {
        let (_folder, store) = temporary_store();
        let wrong = [new("192.0.2.1", "a"), new("192.0.2.300", "b")];
        let error = store.add_machines(&wrong, Adding::default(), "user ada").unwrap_err();
        assert!(error.context.starts_with("machine 2: address: expected a host name"), "{error}");
        for (one, other, why) in [
            (new("192.0.2.1", "a"), new("192.0.2.1", "b"), "machine 2: address: 192.0.2.1 is taken by machine 1"),
            (new("192.0.2.1", "a"), new("192.0.2.2", "A"), "machine 2: name: a is taken by machine 1"),
            (new("web1", ""), new("192.0.2.2", "web1"), "machine 2: name: web1 is taken by machine 1"),
        ] {
            let error = store.add_machines(&[one, other], Adding::default(), "user ada").unwrap_err();
            assert_eq!((error.kind, error.context.as_str()), (ErrorKind::Invalid, why));
        }
        assert!(store.machines().unwrap().is_empty() && store.machine_groups().unwrap().is_empty());

        let mut first = new("192.0.2.1", "a");
        (first.group, first.note, first.reach) = (Some("dmz".into()), Some("rack 7".into()), Reach::Ssh);
        let dry = Adding { dry_run: true, ..Adding::default() };
        let looked = store.add_machines(&[first.clone()], dry, "user ada").unwrap();
        assert_eq!((looked.added.len(), looked.new_groups.as_slice()), (0, ["dmz".to_owned()].as_slice()));
        assert!(store.machine_groups().unwrap().is_empty());
        let several = [first.clone(), new("192.0.2.300", "b"), new("192.0.2.3", "A"), new("192.0.2.4", "c")];
        let looked = store.add_machines(&several, dry, "user ada").unwrap();
        let faults: Vec<_> = looked.faults.iter().map(|fault| (fault.row, fault.part.as_str(), fault.twin)).collect();
        assert_eq!(faults, [(1, "address", None), (2, "name", Some(0))], "each is told: {:?}", looked.faults);
        let id = add_all(&store, &[first.clone()]).remove(0);
        let known = store.machine(&id).unwrap().unwrap();
        assert!(known.report.is_none() && known.reported().is_err());
        assert_eq!(known.particulars, first.check().unwrap().particulars);

        let both = [new("192.0.2.1", "c"), new("192.0.2.2", "b")];
        let error = store.add_machines(&both, Adding::default(), "user ada").unwrap_err();
        println!("{error}");
        assert_eq!(
            error.context,
            format!("known already: machine 1: address 192.0.2.1 is that of {id}; nothing was added")
        );
        assert_eq!(store.machines().unwrap().len(), 1);
        let skipping = Adding { skip_known: true, ..Adding::default() };
        let added = store.add_machines(&both, skipping, "user ada").unwrap();
        assert_eq!((added.added.len(), added.known.len(), added.known[0].row), (1, 1, 0));
        store.forget_machine(&id, "user ada").unwrap();
        assert!(store.machine(&id).unwrap().is_none());
    }

    #[test]
    fn a_machine_whose_agent_is_here_is_known_by_address_name_and_uuid() {
        let (_folder, store) = temporary_store();
        let id = comes(&store, "aa", &report(1, "192.0.2.1", "web1"));
        let by_uuid = NewMachine { uuid: Some("4C4C4544-0042-3510-8052-B4C04F4E0001".into()), ..new("10.0.0.1", "x") };
        let rows = [new("192.0.2.1", "a"), new("WEB1", ""), by_uuid, new("192.0.2.2", "b")];
        let dry = Adding { dry_run: true, ..Adding::default() };
        let known = store.add_machines(&rows, dry, "user ada").unwrap().known;
        println!("{known:?}");
        let by: Vec<&str> = known.iter().map(|row| row.by.as_str()).collect();
        assert_eq!(by, ["address 192.0.2.1", "name web1", "UUID 4c4c4544-0042-3510-8052-b4c04f4e0001"]);
        assert!(known.iter().all(|row| row.machine == id));
    }

    #[test]
    fn an_added_machine_becomes_the_one_that_certainly_is_it() {
        let (_folder, store) = temporary_store();
        let mut web = new("192.0.2.1", "web1");
        (web.group, web.note, web.reach) = (Some("dmz".into()), Some("rack 7".into()), Reach::Ssh);
        let added = add_all(&store, &[web, new("192.0.2.9", "other")]);
        let id = comes(&store, "aa", &report(1, "192.0.2.1", "web1.example.org"));
        let known = store.machine(&id).unwrap().unwrap();
        println!("{:#?}", store.machine_history(&id, 10).unwrap());
        assert_eq!(known.particulars.group.as_deref(), Some("dmz"));
        assert_eq!((known.particulars.note.as_str(), known.particulars.reach), ("rack 7", Reach::Ssh));
        assert_eq!(known.particulars.address.unwrap().as_str(), "192.0.2.1");
        assert!(store.machine(&added[0]).unwrap().is_none() && store.machine(&added[1]).unwrap().is_some());
        let history: Vec<HistoryEvent> =
            store.machine_history(&id, 10).unwrap().iter().map(|line| line.event).collect();
        assert_eq!(
            history,
            [HistoryEvent::Joined, HistoryEvent::Connected, HistoryEvent::Approved, HistoryEvent::Added]
        );
        let told = store.audit(1).unwrap().remove(0);
        assert_eq!((told.actor.as_str(), told.action.as_str(), &told.subject), ("controller", "machines joined", &id));
        assert!(told.detail.contains("the same address and host name"), "{}", told.detail);
    }

    #[test]
    fn what_may_be_another_machine_is_only_shown() {
        let (_folder, store) = temporary_store();
        // One sign only, another UUID, and an address that two machines have.
        let by_address = new("192.0.2.1", "shop");
        let other_uuid = NewMachine { uuid: Some(UUID.into()), ..new("192.0.2.2", "db1") };
        let twice = new("10.0.0.1", "pc");
        let added = add_all(&store, &[by_address, other_uuid, twice]);
        let web = comes(&store, "aa", &report(1, "192.0.2.1", "web1"));
        let db = comes(&store, "bb", &report(2, "192.0.2.2", "db1"));
        assert_eq!(store.machines().unwrap().len(), 5, "nothing was joined");
        let candidates = |id: &str| -> Vec<(String, Vec<String>)> {
            store.candidates(id).unwrap().into_iter().map(|found| (found.machine, found.signs)).collect()
        };
        assert_eq!(candidates(&web), [(added[0].clone(), vec!["address".to_owned()])]);
        assert_eq!(candidates(&added[0]), [(web.clone(), vec!["address".to_owned()])]);
        assert_eq!(candidates(&db), []);
        let joins = |added: &str, machine: &str| store.join_machines(added, machine, "user ada");
        assert_eq!(joins(&added[1], &db).unwrap_err().kind, ErrorKind::Conflict, "two UUIDs are two machines");
        assert_eq!(joins(&web, &db).unwrap_err().kind, ErrorKind::Conflict, "both have agents");
        assert_eq!(joins(&added[0], &added[2]).unwrap_err().kind, ErrorKind::Conflict, "none has an agent");
        assert_eq!(joins("m-0", &db).unwrap_err().kind, ErrorKind::NotFound);

        // Two machines could be the third: an operator says which.
        let first = comes(&store, "cc", &report(3, "10.0.0.8", "pc"));
        let moved = serde_json::to_string(&report(3, "10.0.0.1", "pc")).unwrap();
        store.connection().execute("UPDATE machines SET report = ?2 WHERE id = ?1", [&first, &moved]).unwrap();
        comes(&store, "dd", &report(4, "10.0.0.1", "pc"));
        assert!(store.machine(&added[2]).unwrap().is_some(), "either could be it");
        joins(&added[2], &first).unwrap();
        assert!(store.machine(&added[2]).unwrap().is_none());
        assert_eq!(store.audit(1).unwrap()[0].actor, "user ada");
    }

    #[test]
    fn what_is_said_of_a_machine_stays_when_it_reports_again() {
        let (_folder, store) = temporary_store();
        let id = comes(&store, "aa", &report(1, "192.0.2.1", "web1"));
        let change = MachineChange {
            name: Some("the shop".into()),
            note: Some("ask Ada\nbefore Monday".into()),
            ..MachineChange::default()
        };
        store.change_machine(&id, change.clone(), "user ada").unwrap();
        store.change_machine(&id, change, "user ada").unwrap();
        comes(&store, "aa", &report(1, "192.0.2.2", "web1"));
        let known = store.machine(&id).unwrap().unwrap();
        assert_eq!(known.particulars.name.as_deref(), Some("the shop"));
        assert_eq!(known.particulars.note, "ask Ada\nbefore Monday");
        let history: Vec<String> = store
            .machine_history(&id, 10)
            .unwrap()
            .iter()
            .map(|line| format!("{} {}", line.event.as_str(), line.detail))
            .collect();
        println!("{history:#?}");
        assert_eq!(history[0], "changed address of eth0 52:54:00:00:00:01: 192.0.2.1/24 → 192.0.2.2/24");
        assert_eq!(history[1], "edited name: the shop, note (by user ada)");
        assert_eq!(history.len(), 4, "the same said twice is one line");
        let gone = MachineChange { name: Some(String::new()), ..MachineChange::default() };
        store.change_machine(&id, gone, "user ada").unwrap();
        assert_eq!(store.machine(&id).unwrap().unwrap().particulars.name, None);
        let long = MachineChange { note: Some("x".repeat(5000)), ..MachineChange::default() };
        assert_eq!(store.change_machine(&id, long, "user ada").unwrap_err().kind, ErrorKind::Invalid);
    }
}
