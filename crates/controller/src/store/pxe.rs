//! What machines that start from the network get, as operators said.

use std::fmt;

use rusqlite::{Connection, OptionalExtension, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Store, storage};
use crate::identity::MachineIdentity;
use crate::{Error, ErrorKind, Result, Timestamp};

/// How long "boot always" holds: a machine that is forgotten in it would never start its own system again.
const BOOT_ALWAYS_MS: i64 = 24 * 3600 * 1000;
/// How long "boot once" holds after the boot image was sent, where nobody hears whether it came up.
const BOOT_ONCE_USED_MS: i64 = 180 * 1000;
/// Rules that are kept.
const RULES_MAX: i64 = 10_000;

/// What a machine gets that starts from the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PxePolicy {
    /// No answer.
    Ignore,
    /// The boot image, until it has reported in.
    BootOnce,
    /// The boot image, for 24 hours.
    BootAlways,
}

impl fmt::Display for PxePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ignore => "ignore",
            Self::BootOnce => "boot once",
            Self::BootAlways => "boot always",
        })
    }
}

impl PxePolicy {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::BootOnce => "boot-once",
            Self::BootAlways => "boot-always",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "boot-once" => Self::BootOnce,
            "boot-always" => Self::BootAlways,
            _ => Self::Ignore,
        }
    }
}

/// A policy and the machine that it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PxeRule {
    /// MAC address or SMBIOS UUID, lower case.
    pub machine: String,
    /// What it gets.
    pub policy: PxePolicy,
    /// Who said so.
    pub actor: String,
    /// When.
    pub set_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
}

impl Store {
    /// All rules that hold, by machine.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn pxe_rules(&self) -> Result<Vec<PxeRule>> {
        let context = "PXE policies cannot be read";
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(
                "SELECT machine, policy, actor, set_at, expires_at FROM pxe_rules
                 WHERE expires_at IS NULL OR expires_at > ?1 ORDER BY machine",
            )
            .map_err(|e| storage(context, e))?;
        let rows = statement.query_map([Timestamp::now().0], rule).map_err(|e| storage(context, e))?;
        rows.collect::<rusqlite::Result<_>>().map_err(|e| storage(context, e))
    }

    /// The rule for the first of `names` that has one.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn pxe_rule(&self, names: &[String]) -> Result<Option<PxeRule>> {
        let context = "PXE policies cannot be read";
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(
                "SELECT machine, policy, actor, set_at, expires_at FROM pxe_rules
                 WHERE machine = ?1 AND (expires_at IS NULL OR expires_at > ?2)",
            )
            .map_err(|e| storage(context, e))?;
        for name in names {
            let found = statement.query_row(params![name, Timestamp::now().0], rule).optional();
            if let Some(found) = found.map_err(|e| storage(context, e))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Sets the policy of a machine under each of its names in `set` (MAC address or UUID, lower case); `None` forgets it,
    /// and what its names in `forget` had is forgotten in any case. The change and its lines in the audit log are one
    /// transaction.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where there are too many, [`ErrorKind::Storage`].
    pub fn set_pxe_rule(
        &self,
        set: &[String],
        forget: &[String],
        policy: Option<PxePolicy>,
        actor: &str,
    ) -> Result<()> {
        let context = "PXE policy cannot be written";
        let now = Timestamp::now();
        self.write(context, |transaction| {
            for machine in set.iter().chain(forget) {
                transaction
                    .execute("DELETE FROM pxe_rules WHERE machine = ?1 OR expires_at <= ?2", params![machine, now.0])
                    .map_err(|e| storage(context, e))?;
            }
            for machine in set {
                if let Some(policy) = policy {
                    let count: i64 = transaction
                        .query_row("SELECT count(*) FROM pxe_rules", [], |row| row.get(0))
                        .map_err(|e| storage(context, e))?;
                    if count >= RULES_MAX {
                        let context = format!("there are {count} PXE policies: forget some");
                        return Err(Error::new(ErrorKind::Conflict, context));
                    }
                    let expires_at = (policy == PxePolicy::BootAlways).then(|| now.0.saturating_add(BOOT_ALWAYS_MS));
                    transaction
                        .execute(
                            "INSERT INTO pxe_rules (machine, policy, actor, set_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                            params![machine, policy.as_str(), actor, now.0, expires_at],
                        )
                        .map_err(|e| storage(context, e))?;
                }
                let action = policy.map_or("menu".to_owned(), |policy| policy.to_string());
                super::logs::write_audit(transaction, now, actor, "PXE policy", machine, &action)?;
            }
            Ok(())
        })
    }

    /// "Boot once" of a machine has been used, and ends in some minutes: firmware that refuses what it got (Secure Boot)
    /// goes on to its next way of starting from the network.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn used_boot_once(&self, machine: &str) -> Result<()> {
        let end = Timestamp::now().0.saturating_add(BOOT_ONCE_USED_MS);
        self.connection()
            .execute(
                "UPDATE pxe_rules SET expires_at = ?2
                 WHERE machine = ?1 AND policy = 'boot-once' AND expires_at IS NULL",
                params![machine, end],
            )
            .map(drop)
            .map_err(|e| storage("PXE policy cannot be written", e))
    }
}

/// Ends "boot once" of a machine that reported from the boot image.
pub(super) fn reported_in(connection: &Connection, identity: &MachineIdentity) -> Result<()> {
    // The operator may have typed the UUID as its firmware shows it.
    let other = identity.uuid.as_deref().map(netboot::swapped_uuid);
    for machine in identity.macs.iter().chain(&identity.uuid).chain(&other) {
        let changed = connection
            .execute("DELETE FROM pxe_rules WHERE machine = ?1 AND policy = 'boot-once'", [machine])
            .map_err(|e| storage("PXE policy cannot be written", e))?;
        if changed > 0 {
            let (now, why) = (Timestamp::now(), "the boot image reported in");
            super::logs::write_audit(connection, now, "controller", "PXE boot once used", machine, why)?;
        }
    }
    Ok(())
}

fn rule(row: &rusqlite::Row<'_>) -> rusqlite::Result<PxeRule> {
    let policy: String = row.get(1)?;
    Ok(PxeRule {
        machine: row.get(0)?,
        policy: PxePolicy::parse(&policy),
        actor: row.get(2)?,
        set_at: Timestamp(row.get(3)?),
        expires_at: row.get::<_, Option<i64>>(4)?.map(Timestamp),
    })
}

#[cfg(test)]
mod tests {
    use machine::{MacAddress, Machine, Nic, Smbios};

    use super::super::{Sighting, temporary_store};
    use super::*;

    const MAC: &str = "52:54:00:12:34:56";
    const UUID: &str = "4c4c4544-0042-3510-8052-b4c04f4e3132";
    /// The same as some firmware shows it.
    const SWAPPED: &str = "44454c4c-4200-1035-8052-b4c04f4e3132";

    #[test]
    fn boot_once_ends_when_the_boot_image_reports_in_and_not_before() {
        let (_folder, store) = temporary_store();
        store.set_pxe_rule(&[MAC.into()], &[], Some(PxePolicy::BootOnce), "uid 0").unwrap();
        store.set_pxe_rule(&[UUID.into()], &[], Some(PxePolicy::Ignore), "uid 0").unwrap();
        store.set_pxe_rule(&[SWAPPED.into()], &[], Some(PxePolicy::BootOnce), "uid 0").unwrap();
        let names = [MAC.to_owned(), UUID.to_owned()];
        assert_eq!(store.pxe_rule(&names).unwrap().unwrap().policy, PxePolicy::BootOnce);
        store.approve_key("aa", "x", "uid 0").unwrap();
        let mac: MacAddress = MAC.parse().unwrap();
        let report = Machine {
            smbios: Smbios { uuid: Some(UUID.to_uppercase()), ..Smbios::default() },
            nics: vec![Nic { name: "eth0".into(), mac, driver: None, link_up: true, addresses: Vec::new() }],
            ..Machine::default()
        };
        let live = Sighting { key: "aa", report: &report, booted: "live", agent_version: "0.1.0", boot_medium: None };
        store.machine_reported(&live).unwrap();
        assert_eq!(store.pxe_rules().unwrap().len(), 3, "a live agent is no boot image");
        store.machine_reported(&Sighting { booted: "boot-image", ..live }).unwrap();
        let left = store.pxe_rules().unwrap();
        assert_eq!((left.len(), left[0].machine.as_str(), left[0].policy), (1, UUID, PxePolicy::Ignore));
        assert_eq!(store.audit(1).unwrap()[0].action, "PXE boot once used");
    }

    #[test]
    fn a_policy_by_one_name_takes_the_place_of_those_by_others() {
        let (_folder, store) = temporary_store();
        store.set_pxe_rule(&[MAC.into()], &[], Some(PxePolicy::BootOnce), "uid 0").unwrap();
        store.set_pxe_rule(&[UUID.into()], &[MAC.into()], Some(PxePolicy::Ignore), "uid 0").unwrap();
        let rule = store.pxe_rule(&[MAC.to_owned(), UUID.to_owned()]).unwrap().unwrap();
        assert_eq!(
            (rule.machine.as_str(), rule.policy, store.pxe_rules().unwrap().len()),
            (UUID, PxePolicy::Ignore, 1)
        );
        store.set_pxe_rule(&[UUID.into()], &[MAC.into()], None, "uid 0").unwrap();
        assert!(store.pxe_rules().unwrap().is_empty());
    }

    #[test]
    fn boot_always_ends_after_a_day() {
        let (_folder, store) = temporary_store();
        store.set_pxe_rule(&[MAC.into()], &[], Some(PxePolicy::BootAlways), "uid 0").unwrap();
        let rule = store.pxe_rule(&[MAC.into()]).unwrap().unwrap();
        assert_eq!(rule.expires_at.unwrap().millis_since(rule.set_at), 86_400_000);
        store.used_boot_once(MAC).unwrap();
        assert_eq!(store.pxe_rule(&[MAC.into()]).unwrap().unwrap(), rule);
        let past = Timestamp::now().0 - 1;
        store.connection().execute("UPDATE pxe_rules SET expires_at = ?1", [past]).unwrap();
        assert_eq!((store.pxe_rule(&[MAC.into()]).unwrap(), store.pxe_rules().unwrap().len()), (None, 0));
        store.set_pxe_rule(&[MAC.into()], &[], None, "uid 0").unwrap();
        assert_eq!(store.audit(1).unwrap()[0].detail, "menu");
    }

    #[test]
    fn boot_once_that_was_sent_ends_in_minutes() {
        let (_folder, store) = temporary_store();
        store.set_pxe_rule(&[MAC.into()], &[], Some(PxePolicy::BootOnce), "uid 0").unwrap();
        store.used_boot_once(MAC).unwrap();
        let end = store.pxe_rule(&[MAC.into()]).unwrap().unwrap().expires_at.unwrap();
        store.used_boot_once(MAC).unwrap();
        assert_eq!(store.pxe_rule(&[MAC.into()]).unwrap().unwrap().expires_at, Some(end), "it is not put off");
        assert!(end.millis_since(Timestamp::now()) <= 180_000);
    }
}
