//! Security descriptors: shared by count, in a ring that a new one enters and an unused one leaves.

use super::super::bins::CellOffset;
use super::super::key::at as key_at;
use super::super::malformed;
use super::super::security::{DESCRIPTOR_MAX, Security, at, descriptor, record_bytes};
use super::Edit;
use crate::{Error, ErrorKind, Result};

impl Edit<'_> {
    pub(super) fn set_count(&mut self, security: CellOffset, count: u32) -> Result<()> {
        if Security::read(&self.hive.bins, security)?.count != count {
            self.hive.bins.write_cell(security, at::COUNT, &count.to_le_bytes())?;
        }
        Ok(())
    }

    /// One more key has it.
    pub(super) fn share_security(&mut self, security: CellOffset) -> Result<()> {
        if security == CellOffset::NONE {
            return Ok(());
        }
        let count = Security::read(&self.hive.bins, security)?.count;
        let more =
            count.checked_add(1).ok_or_else(|| malformed(security.position(), "security: too many keys have it"));
        self.set_count(security, more?)
    }

    /// One key less has it; without any it goes.
    pub(super) fn leave_security(&mut self, security: CellOffset) -> Result<()> {
        if security == CellOffset::NONE {
            return Ok(());
        }
        let found = Security::read(&self.hive.bins, security)?;
        if found.count > 1 {
            return self.set_count(security, found.count - 1);
        }
        let bins = &mut self.hive.bins;
        bins.write_cell(found.previous, at::NEXT, &found.next.0.to_le_bytes())?;
        bins.write_cell(found.next, at::PREVIOUS, &found.previous.0.to_le_bytes())?;
        self.space.release(bins, security)
    }

    pub(super) fn put_security(&mut self, key: CellOffset, wanted: &[u8]) -> Result<()> {
        if wanted.is_empty() || wanted.len() > DESCRIPTOR_MAX {
            let context = format!("a security descriptor of {} bytes, expected 1 to {DESCRIPTOR_MAX}", wanted.len());
            return Err(Error::new(ErrorKind::TooLarge, context));
        }
        let old = self.node(key)?.security;
        if descriptor(&self.hive.bins, old)? == wanted {
            return Ok(());
        }
        let found = match old {
            CellOffset::NONE => None,
            ring => self.descriptor_in_ring(ring, wanted)?,
        };
        let new = match found {
            Some(found) => {
                self.share_security(found)?;
                found
            }
            None => self.add_descriptor(old, wanted)?,
        };
        self.put(key, key_at::SECURITY, new.0)?;
        self.leave_security(old)?;
        self.touch(key)
    }

    /// The record of the ring around `start` that holds `wanted`.
    fn descriptor_in_ring(&self, start: CellOffset, wanted: &[u8]) -> Result<Option<CellOffset>> {
        let mut at = start;
        // The check at the beginning of the edit saw the ring close.
        loop {
            if descriptor(&self.hive.bins, at)? == wanted {
                return Ok(Some(at));
            }
            at = Security::read(&self.hive.bins, at)?.next;
            if at == start {
                return Ok(None);
            }
        }
    }

    /// Adds a record after `previous`, or as the first of all.
    fn add_descriptor(&mut self, previous: CellOffset, wanted: &[u8]) -> Result<CellOffset> {
        let ring = match previous {
            CellOffset::NONE => self.node(CellOffset(self.hive.base.root()))?.security,
            previous => previous,
        };
        let bins = &mut self.hive.bins;
        if ring == CellOffset::NONE {
            let alone = self.space.store(bins, &record_bytes(wanted, CellOffset::NONE, CellOffset::NONE))?;
            for link in [at::NEXT, at::PREVIOUS] {
                bins.write_cell(alone, link, &alone.0.to_le_bytes())?;
            }
            return Ok(alone);
        }
        let next = Security::read(bins, ring)?.next;
        let new = self.space.store(bins, &record_bytes(wanted, ring, next))?;
        bins.write_cell(ring, at::NEXT, &new.0.to_le_bytes())?;
        bins.write_cell(next, at::PREVIOUS, &new.0.to_le_bytes())?;
        Ok(new)
    }
}
