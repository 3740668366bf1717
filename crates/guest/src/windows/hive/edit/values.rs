//! Values being set and removed.

use super::super::bins::CellOffset;
use super::super::field::to_u32;
use super::super::key::at;
use super::super::name::{Name, VALUE_NAME_MAX};
use super::super::value::{DATA_MAX, Data, DataPlace, RESIDENT, Record, SEGMENT, record_bytes};
use super::Edit;
use super::space::roomy;
use crate::{Error, ErrorKind, Result};

/// Longest data in one cell, which is what hives before minor version 4 have for all data.
const CELL_DATA_MAX: usize = 1 << 20;

impl Edit<'_> {
    fn find_value(&self, cells: &[CellOffset], name: &Name) -> Result<Option<usize>> {
        for (index, &cell) in cells.iter().enumerate() {
            if Record::read(&self.hive.bins, cell)?.name(&self.hive.bins, cell)?.is(name) {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    pub(super) fn put_value(&mut self, key: CellOffset, name: &Name, data: &Data) -> Result<bool> {
        let node = self.require_values(key)?;
        let longest = if self.hive.base.minor() < 4 { CELL_DATA_MAX } else { DATA_MAX };
        let length = data.bytes.len();
        if length > longest {
            let context = format!("a value with {length} bytes of data, expected up to {longest}");
            return Err(Error::new(ErrorKind::TooLarge, context));
        }
        let cells = node.value_cells(&self.hive.bins)?;
        match self.find_value(&cells, name)? {
            Some(index) => {
                let cell = cells[index];
                let record = Record::read(&self.hive.bins, cell)?;
                let old = record.bytes(&self.hive.bins, cell, self.hive.base.minor())?;
                if record.kind == data.kind && *old == data.bytes && !record.is_tombstone() {
                    return Ok(false);
                }
                self.free_data(&record)?;
                self.write_data(cell, data)?;
            }
            None => {
                if name.units().len() > VALUE_NAME_MAX {
                    let context = format!("a value's name of more than {VALUE_NAME_MAX} characters");
                    return Err(Error::new(ErrorKind::TooLarge, context));
                }
                let cell = self.space.store(&mut self.hive.bins, &record_bytes(name))?;
                self.write_data(cell, data)?;
                let count = cells.len() + 1;
                let list = match cells.len() {
                    0 => self.space.allocate(&mut self.hive.bins, 4)?,
                    _ if self.hive.bins.cell(node.value_list)?.len() >= count * 4 => node.value_list,
                    _ => self.space.widen(&mut self.hive.bins, node.value_list, roomy(count * 4))?,
                };
                self.hive.bins.write_cell(list, cells.len() * 4, &cell.0.to_le_bytes())?;
                self.put(key, at::VALUES, to_u32(count))?;
                self.put(key, at::VALUE_LIST, list.0)?;
                self.raise(key, at::VALUE_NAME_MAX, u32::MAX, name.units().len() * 2)?;
            }
        }
        self.raise(key, at::VALUE_DATA_MAX, u32::MAX, length)?;
        self.touch(key)?;
        Ok(true)
    }

    pub(super) fn remove_value(&mut self, key: CellOffset, name: &Name) -> Result<bool> {
        let node = self.require_values(key)?;
        let mut cells = node.value_cells(&self.hive.bins)?;
        let Some(index) = self.find_value(&cells, name)? else { return Ok(false) };
        self.free_value(cells.remove(index))?;
        let mut list = node.value_list;
        if cells.is_empty() {
            self.space.release(&mut self.hive.bins, list)?;
            list = CellOffset::NONE;
        } else {
            let bytes: Vec<u8> = cells.iter().flat_map(|cell| cell.0.to_le_bytes()).collect();
            self.hive.bins.write_cell(list, 0, &bytes)?;
        }
        self.put(key, at::VALUES, to_u32(cells.len()))?;
        self.put(key, at::VALUE_LIST, list.0)?;
        self.touch(key)?;
        Ok(true)
    }

    /// Writes type and data into a record without data.
    fn write_data(&mut self, cell: CellOffset, data: &Data) -> Result<()> {
        let bytes = data.bytes.as_slice();
        let mut size = to_u32(bytes.len());
        let place = if bytes.len() <= 4 {
            size |= RESIDENT;
            let mut resident = [0; 4];
            resident[..bytes.len()].copy_from_slice(bytes);
            u32::from_le_bytes(resident)
        } else if bytes.len() > SEGMENT && self.hive.base.minor() >= 4 {
            self.store_segments(bytes)?.0
        } else {
            self.space.store(&mut self.hive.bins, bytes)?.0
        };
        let fields: Vec<u8> = [size, place, data.kind.0].iter().flat_map(|field| field.to_le_bytes()).collect();
        self.hive.bins.write_cell(cell, 4, &fields)?;
        // It is no tombstone any more, if it was one.
        let flags = self.hive.bins.cell(cell)?[16] & 1;
        self.hive.bins.write_cell(cell, 16, &[flags])
    }

    fn store_segments(&mut self, bytes: &[u8]) -> Result<CellOffset> {
        let bins = &mut self.hive.bins;
        let mut list = Vec::new();
        for segment in bytes.chunks(SEGMENT) {
            // Windows gives each the same cell, the last one too, with four bytes to spare.
            let at = self.space.allocate(bins, SEGMENT + 4)?;
            bins.write_cell(at, 0, segment)?;
            list.extend(at.0.to_le_bytes());
        }
        let count = u16::try_from(list.len() / 4).unwrap_or(u16::MAX);
        let list = self.space.store(bins, &list)?;
        let mut head = b"db".to_vec();
        head.extend(count.to_le_bytes());
        head.extend(list.0.to_le_bytes());
        head.extend([0; 4]);
        self.space.store(bins, &head)
    }

    /// Frees the cells of a record's data; the record still names them.
    pub(super) fn free_data(&mut self, record: &Record) -> Result<()> {
        let cells = match record.place(&self.hive.bins, self.hive.base.minor())? {
            DataPlace::Resident => Vec::new(),
            DataPlace::Cell(at) => vec![at],
            DataPlace::Big { head, list, mut segments } => {
                segments.extend([list, head]);
                segments
            }
        };
        cells.into_iter().try_for_each(|cell| self.space.release(&mut self.hive.bins, cell))
    }
}
