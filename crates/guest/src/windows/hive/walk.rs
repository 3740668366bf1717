//! A walk through the keys of a hive, keys before their subkeys, without recursion.

use super::bins::CellOffset;
use super::key::Key;
use super::name::DEPTH_MAX;
use super::{Hive, malformed};
use crate::{Error, ErrorKind, Result};

/// A key met by a walk.
#[derive(Clone, Copy, Debug)]
pub struct Step<'h> {
    /// Levels below the key where the walk began.
    pub depth: usize,
    /// The key.
    pub key: Key<'h>,
}

/// The keys below one key, itself first. A hive in which keys meet themselves ends in an error, never in a loop.
#[derive(Debug)]
pub struct Walk<'h> {
    hive: &'h Hive,
    /// Subkeys still to come of each level, last first.
    levels: Vec<Vec<CellOffset>>,
    first: Option<Key<'h>>,
    /// Keys that a hive of this size has room for beside those that were listed so far.
    left: usize,
    losses: Option<Vec<Error>>,
}

impl<'h> Walk<'h> {
    pub(super) fn new(hive: &'h Hive, key: &Key<'h>) -> Self {
        let left = super::key::subkeys_max(&hive.bins);
        Self { hive, levels: Vec::new(), first: Some(*key), left, losses: None }
    }

    /// The same walk, which notes what cannot be read and goes on with the rest.
    #[must_use]
    pub fn lenient(self) -> Self {
        Self { losses: Some(Vec::new()), ..self }
    }

    /// What a lenient walk left out so far.
    pub fn losses(&self) -> &[Error] {
        self.losses.as_deref().unwrap_or_default()
    }

    /// What a lenient walk left out.
    pub fn into_losses(self) -> Vec<Error> {
        self.losses.unwrap_or_default()
    }

    /// Leaves `error` out and goes on, or ends the walk with it.
    fn lose(&mut self, error: Error) -> Result<()> {
        match &mut self.losses {
            Some(losses) => {
                if losses.len() < super::FINDINGS_MAX {
                    losses.push(error);
                }
                Ok(())
            }
            None => {
                self.levels.clear();
                Err(error)
            }
        }
    }

    fn enter(&mut self, key: Key<'h>) -> Result<Step<'h>> {
        let depth = self.levels.len();
        let position = key.at().position();
        let subkeys = if depth >= DEPTH_MAX && key.subkey_count() > 0 {
            Err(Error::new(ErrorKind::TooLarge, format!("at {position:#x}: keys of more than {DEPTH_MAX} levels")))
        } else {
            key.subkey_cells()
        };
        let mut cells = match subkeys {
            Ok(cells) => cells,
            Err(error) => {
                self.lose(error)?;
                key.readable_subkey_cells()
            }
        };
        if depth >= DEPTH_MAX {
            cells.clear();
        }
        if cells.len() > self.left {
            self.lose(malformed(position, "more keys than the hive has room for: keys meet themselves"))?;
            cells.clear();
        }
        self.left -= cells.len();
        cells.reverse();
        self.levels.push(cells);
        Ok(Step { depth, key })
    }
}

impl<'h> Iterator for Walk<'h> {
    type Item = Result<Step<'h>>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(key) = self.first.take() {
            return Some(self.enter(key));
        }
        loop {
            let Some(at) = self.levels.last_mut()?.pop() else {
                self.levels.pop();
                continue;
            };
            match Key::open(self.hive, at) {
                Ok(key) => return Some(self.enter(key)),
                Err(error) => {
                    if let Err(error) = self.lose(error) {
                        return Some(Err(error));
                    }
                }
            }
        }
    }
}
