//! Credentials for sources and targets, as [`Vault`](crate::trust::Vault) sealed them.

use rusqlite::{OptionalExtension, params};

use super::{Store, storage};
use crate::trust::{Credential, CredentialKind};
use crate::{Error, ErrorKind, Result, Timestamp};

/// Credentials that there can be.
const CREDENTIALS_MAX: i64 = 10_000;

/// How the vault of this database is locked.
#[derive(Clone, Debug)]
pub struct VaultLock {
    /// Of the passphrase; `None`: a key file.
    pub salt: Option<Vec<u8>>,
    /// A known text, sealed with the key.
    pub proof: Vec<u8>,
}

/// A credential as it is kept.
#[derive(Clone, Debug)]
pub struct SealedCredential {
    /// What is known of it without the key.
    pub about: Credential,
    /// The secret, sealed.
    pub sealed: Vec<u8>,
}

impl Store {
    /// Keeps a credential, in the place of one of the same name, with a line in the audit log. Its times are those of now.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where there are too many, [`ErrorKind::Storage`].
    pub fn set_credential(&self, new: &SealedCredential, actor: &str) -> Result<Credential> {
        let context = "credential cannot be written";
        let now = Timestamp::now();
        let about = &new.about;
        self.write(context, |transaction| {
            let count: i64 = transaction
                .query_row("SELECT count(*) FROM credentials", [], |row| row.get(0))
                .map_err(|e| storage(context, e))?;
            if count >= CREDENTIALS_MAX {
                return Err(Error::new(ErrorKind::Conflict, format!("there are {count} credentials: remove some")));
            }
            let created_at = transaction
                .query_row(
                    "INSERT INTO credentials (name, kind, user, sealed, created_at, changed_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?5) ON CONFLICT (name) DO UPDATE SET
                     kind = excluded.kind, user = excluded.user, sealed = excluded.sealed, changed_at = excluded.changed_at
                     RETURNING created_at",
                    params![about.name, about.kind.as_str(), about.user, new.sealed, now.0],
                    |row| row.get(0),
                )
                .map_err(|e| storage(context, e))?;
            let detail = format!("{} {}", about.kind, about.user);
            super::logs::write_audit(transaction, now, actor, "credential set", &about.name, detail.trim_end())?;
            Ok(Credential { created_at: Timestamp(created_at), changed_at: now, ..about.clone() })
        })
    }

    /// All credentials by name.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn credentials(&self) -> Result<Vec<SealedCredential>> {
        let context = "credentials cannot be read";
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT name, kind, user, sealed, created_at, changed_at FROM credentials ORDER BY name")
            .map_err(|e| storage(context, e))?;
        let rows = statement
            .query_map([], |row| {
                let kind: String = row.get(1)?;
                let (created_at, changed_at) = (Timestamp(row.get(4)?), Timestamp(row.get(5)?));
                Ok((row.get(0)?, kind, row.get(2)?, row.get(3)?, created_at, changed_at))
            })
            .map_err(|e| storage(context, e))?;
        rows.map(|row| {
            let (name, kind, user, sealed, created_at, changed_at) = row.map_err(|e| storage(context, e))?;
            let kind: CredentialKind = kind
                .parse()
                .map_err(|e| Error::with(ErrorKind::Storage, "a credential in the database cannot be understood", e))?;
            Ok(SealedCredential { about: Credential { name, kind, user, created_at, changed_at }, sealed })
        })
        .collect()
    }

    /// Removes a credential, with a line in the audit log.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Storage`].
    pub fn remove_credential(&self, name: &str, actor: &str) -> Result<()> {
        let context = "credential cannot be removed";
        self.write(context, |transaction| {
            let removed = transaction
                .execute("DELETE FROM credentials WHERE name = ?1", [name])
                .map_err(|e| storage(context, e))?;
            if removed == 0 {
                return Err(Error::new(ErrorKind::NotFound, format!("no credential {name}")));
            }
            super::logs::write_audit(transaction, Timestamp::now(), actor, "credential removed", name, "")?;
            Ok(())
        })
    }

    /// How the vault is locked; `None` before its first use.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn vault_lock(&self) -> Result<Option<VaultLock>> {
        self.connection()
            .query_row("SELECT salt, proof FROM vault", [], |row| {
                Ok(VaultLock { salt: row.get(0)?, proof: row.get(1)? })
            })
            .optional()
            .map_err(|e| storage("the lock of the credentials cannot be read", e))
    }

    /// Locks the vault anew, with all credentials sealed anew: all of it or nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where a credential was changed in between, [`ErrorKind::Storage`].
    pub fn lock_vault(&self, lock: &VaultLock, sealed: &[SealedCredential]) -> Result<()> {
        let context = "the lock of the credentials cannot be written";
        self.write(context, |transaction| {
            for credential in sealed {
                let about = &credential.about;
                let changed = transaction
                    .execute(
                        "UPDATE credentials SET sealed = ?2 WHERE name = ?1 AND changed_at = ?3",
                        params![about.name, credential.sealed, about.changed_at.0],
                    )
                    .map_err(|e| storage(context, e))?;
                if changed != 1 {
                    return Err(Error::new(ErrorKind::Conflict, "credentials were changed in between: try again"));
                }
            }
            transaction
                .execute(
                    "INSERT OR REPLACE INTO vault (id, salt, proof) VALUES (1, ?1, ?2)",
                    params![lock.salt, lock.proof],
                )
                .map_err(|e| storage(context, e))?;
            let detail = if lock.salt.is_some() { "with a passphrase" } else { "with a key file" };
            super::logs::write_audit(transaction, Timestamp::now(), "controller", "credentials locked", "", detail)?;
            Ok(())
        })
    }

    /// Forgets all credentials and how they were locked, with a line in the audit log.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn forget_credentials(&self) -> Result<()> {
        let context = "credentials cannot be forgotten";
        self.write(context, |transaction| {
            let count = transaction.execute("DELETE FROM credentials", []).map_err(|e| storage(context, e))?;
            transaction.execute("DELETE FROM vault", []).map_err(|e| storage(context, e))?;
            let detail = format!("{count} credentials");
            super::logs::write_audit(
                transaction,
                Timestamp::now(),
                "controller",
                "credentials forgotten",
                "",
                &detail,
            )?;
            Ok(())
        })
    }
}
