//! Profiles: settings of tasks under a name.

use rusqlite::{Row, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Store, from_json, storage, to_json};
use crate::tasks::Settings;
use crate::{Error, ErrorKind, Result, Timestamp};

/// Profiles that are kept at most.
const PROFILES_MAX: i64 = 1000;
/// Longest name in bytes.
const NAME_BYTES_MAX: usize = 100;

/// Settings of tasks under a name. To apply them copies them: what is changed here later reaches no task that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What a task gets that says nothing else.
    pub settings: Settings,
    /// Whether new tasks get it that name none.
    pub is_default: bool,
    /// When it was changed last.
    pub changed_at: Timestamp,
}

impl Store {
    /// All profiles by name.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn profiles(&self) -> Result<Vec<Profile>> {
        self.find_profiles("1 ORDER BY name", [])
    }

    /// The profile with this name, or the default one for `None`, if there is one.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a name that none has, [`ErrorKind::Storage`].
    pub fn profile(&self, name: Option<&str>) -> Result<Option<Profile>> {
        match name {
            None => Ok(self.find_profiles("is_default", [])?.pop()),
            Some(name) => {
                let found = self.find_profiles("name = ?1", [name])?.pop();
                found.map(Some).ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no profile {name}")))
            }
        }
    }

    /// Makes a profile, or changes the one of this name, with a line in the audit log. Of the default ones there is one.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for the name, [`ErrorKind::Conflict`] where there are too many, [`ErrorKind::Storage`].
    pub fn set_profile(&self, name: &str, settings: &Settings, is_default: bool, actor: &str) -> Result<Profile> {
        let context = "profile cannot be written";
        let is_name = !name.trim().is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
        if !is_name || name == "none" {
            let context =
                format!("profile {name:?}: expected a name of at most {NAME_BYTES_MAX} bytes, other than none");
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        let value = to_json("profile", settings)?;
        let now = Timestamp::now();
        self.write(context, |transaction| {
            if is_default {
                let sql = "UPDATE profiles SET is_default = 0 WHERE is_default AND name <> ?1";
                transaction.execute(sql, [name]).map_err(|e| storage(context, e))?;
            }
            let sql =
                "INSERT INTO profiles SELECT ?1, ?2, ?3, ?4 WHERE (SELECT count(*) FROM profiles WHERE name <> ?1) < ?5
                       ON CONFLICT (name) DO UPDATE SET settings = ?2, is_default = ?3, changed_at = ?4";
            let values = params![name, value, is_default, now.0, PROFILES_MAX];
            if transaction.execute(sql, values).map_err(|e| storage(context, e))? == 0 {
                return Err(Error::new(ErrorKind::Conflict, format!("there are {PROFILES_MAX} profiles: delete some")));
            }
            super::logs::write_audit(transaction, now, actor, "profile set", name, &value)?;
            Ok(Profile { name: name.to_owned(), settings: settings.clone(), is_default, changed_at: now })
        })
    }

    /// Forgets a profile, with a line in the audit log. Tasks that it was applied to stay as they are.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Storage`].
    pub fn delete_profile(&self, name: &str, actor: &str) -> Result<()> {
        let context = "profile cannot be deleted";
        self.write(context, |transaction| {
            if transaction.execute("DELETE FROM profiles WHERE name = ?1", [name]).map_err(|e| storage(context, e))?
                == 0
            {
                return Err(Error::new(ErrorKind::NotFound, format!("no profile {name}")));
            }
            super::logs::write_audit(transaction, Timestamp::now(), actor, "profile deleted", name, "")?;
            Ok(())
        })
    }

    fn find_profiles(&self, filter: &str, values: impl rusqlite::Params) -> Result<Vec<Profile>> {
        let context = "profiles cannot be read";
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(&format!("SELECT name, settings, is_default, changed_at FROM profiles WHERE {filter}"))
            .map_err(|e| storage(context, e))?;
        let read = |row: &Row<'_>| -> rusqlite::Result<(String, String, bool, i64)> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        };
        let rows = statement.query_map(values, read).map_err(|e| storage(context, e))?;
        rows.map(|row| {
            let (name, settings, is_default, changed_at) = row.map_err(|e| storage(context, e))?;
            let settings = from_json("profile", &settings)?;
            Ok(Profile { name, settings, is_default, changed_at: Timestamp(changed_at) })
        })
        .collect()
    }
}
