//! The check of a hive's whole structure: every cell, what refers to it, and whether the numbers agree.
//!
//! *Damage* is what makes Windows lose or misread something, and what an edit could make worse: such a hive is read where
//! it can be, and never edited. A *note* is what Windows lives with: cells that nothing refers to, statistics that are
//! off. It changes nothing.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Serialize;

use super::Hive;
use super::bins::CellOffset;
use super::field::le32;
use super::index::{LeafKind, read_leaves};
use super::key::{FLAG_ROOT, NODE_SIZE, Node, at};
use super::name::{DEPTH_MAX, KEY_NAME_MAX, Name};
use super::security::Security;
use super::upcase::upcase;
use super::value::{DataPlace, Record};
use crate::Error;

/// Findings that are kept; more of them are counted.
pub const FINDINGS_MAX: usize = 1000;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Windows loses or misreads something; the hive is not edited.
    Damage,
    /// Windows lives with it.
    Note,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Bytes from the start of the file.
    pub position: u64,
    /// What was expected and found.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:#x}: {}", self.position, self.what)
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The first [`FINDINGS_MAX`] of them.
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub more: usize,
    /// Keys that were reached.
    pub keys: usize,
    /// Values that were reached.
    pub values: usize,
    /// Security descriptors.
    pub descriptors: usize,
    /// Bytes in cells that are in use.
    pub used_bytes: u64,
    /// Bytes in free cells.
    pub free_bytes: u64,
}

impl Check {
    /// What keeps the hive from being edited.
    pub fn damage(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Damage)
    }

    /// Whether there is no damage.
    pub fn is_whole(&self) -> bool {
        self.damage().next().is_none()
    }

    fn add(&mut self, severity: Severity, at: CellOffset, what: impl Into<String>) {
        self.push(Finding { severity, position: at.position(), what: what.into() });
    }

    fn push(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
            return;
        }
        self.more += 1;
        // Damage must be seen, however many notes there are.
        if finding.severity == Severity::Damage
            && let Some(note) = self.findings.iter_mut().rev().find(|kept| kept.severity == Severity::Note)
        {
            *note = finding;
        }
    }
}

/// A bit for every place where a cell can begin.
struct Cells(Vec<u64>);

impl Cells {
    fn of(length: usize) -> Self {
        Self(vec![0; length.div_ceil(512)])
    }

    fn place(at: CellOffset) -> (usize, u64) {
        (at.0 as usize / 512, 1 << (at.0 / 8 % 64))
    }

    fn has(&self, at: CellOffset) -> bool {
        let (word, bit) = Self::place(at);
        at.0.is_multiple_of(8) && self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    fn set(&mut self, at: CellOffset) {
        let (word, bit) = Self::place(at);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }
}

/// What is wrong, and how many keys have each security descriptor.
pub(super) fn check(hive: &Hive) -> (Check, BTreeMap<CellOffset, u32>) {
    let mut checker = Checker::new(hive);
    checker.look_at_cells();
    checker.look_at_keys();
    checker.look_at_ring();
    checker.look_for_lost_cells();
    (checker.check, checker.securities)
}

struct Checker<'h> {
    hive: &'h Hive,
    check: Check,
    in_use: Cells,
    reached: Cells,
    securities: BTreeMap<CellOffset, u32>,
    /// Keys still to be looked at: where, whose subkey, how deep.
    keys: Vec<(CellOffset, CellOffset, usize)>,
}

impl<'h> Checker<'h> {
    fn new(hive: &'h Hive) -> Self {
        let length = hive.bins.len();
        let (in_use, reached) = (Cells::of(length), Cells::of(length));
        Self { hive, check: Check::default(), in_use, reached, securities: BTreeMap::new(), keys: Vec::new() }
    }

    fn damage(&mut self, at: CellOffset, what: impl Into<String>) {
        self.check.add(Severity::Damage, at, what);
    }

    fn note(&mut self, at: CellOffset, what: impl Into<String>) {
        self.check.add(Severity::Note, at, what);
    }

    /// Damage that a reader met; it says its own position.
    fn met(&mut self, at: CellOffset, error: &Error) {
        let what = match error.context.split_once(": ") {
            Some((place, what)) if place.starts_with("at 0x") => {
                let position = u64::from_str_radix(&place[5..], 16).unwrap_or(at.position());
                self.check.push(Finding { severity: Severity::Damage, position, what: what.to_owned() });
                return;
            }
            _ => error.context.clone(),
        };
        self.damage(at, what);
    }

    fn look_at_cells(&mut self) {
        if let Some(at) = self.hive.bins.gap() {
            self.damage(at, "bin: expected one, found none");
        }
        for span in self.hive.bins.spans() {
            match span {
                Ok(span) if span.in_use => {
                    self.in_use.set(span.at);
                    self.check.used_bytes += u64::from(span.size);
                }
                Ok(span) => self.check.free_bytes += u64::from(span.size),
                Err(error) => self.met(CellOffset(0), &error),
            }
        }
    }

    /// Takes the cell at `at` for one thing; whether it is one that nothing else has.
    fn take(&mut self, at: CellOffset, role: &str) -> bool {
        if !self.in_use.has(at) {
            self.damage(at, format!("{role}: expected a cell in use, found none"));
            return false;
        }
        if self.reached.has(at) {
            self.damage(at, format!("{role}: the cell has another use as well"));
            return false;
        }
        self.reached.set(at);
        true
    }

    fn look_at_keys(&mut self) {
        let root = CellOffset(self.hive.base.root());
        self.keys.push((root, CellOffset::NONE, 0));
        while let Some((at, parent, depth)) = self.keys.pop() {
            if self.take(at, "key") {
                match Node::read(&self.hive.bins, at) {
                    Ok(node) => self.look_at_key(at, &node, parent, depth),
                    Err(error) => self.met(at, &error),
                }
            }
        }
    }

    fn look_at_key(&mut self, offset: CellOffset, node: &Node, parent: CellOffset, depth: usize) {
        self.check.keys += 1;
        let is_root = depth == 0;
        if is_root && node.flags & FLAG_ROOT == 0 {
            self.note(offset, "key: the root has no mark that it is one");
        }
        if !is_root && node.parent != parent {
            let (expected, found) = (parent.position(), node.parent.position());
            self.damage(offset, format!("key: expected the parent at {expected:#x}, found {found:#x}"));
        }
        if depth > DEPTH_MAX {
            self.damage(offset, format!("key: more than {DEPTH_MAX} levels below the root"));
            return;
        }
        if node.class_length > 0 && node.class != CellOffset::NONE && self.take(node.class, "class name") {
            let read = node.class_bytes(&self.hive.bins).map(drop);
            self.note_error(node.class, read);
        }
        self.look_at_security(offset, node);
        self.look_at_values(offset, node);
        self.look_at_subkeys(offset, node, depth);
    }

    fn note_error(&mut self, at: CellOffset, result: crate::Result<()>) {
        if let Err(error) = result {
            self.met(at, &error);
        }
    }

    fn look_at_security(&mut self, key: CellOffset, node: &Node) {
        if node.security == CellOffset::NONE {
            self.note(key, "key: it has no security descriptor");
        } else if let Some(count) = self.securities.get_mut(&node.security) {
            *count += 1;
        } else if self.take(node.security, "security") {
            match Security::read(&self.hive.bins, node.security) {
                Ok(_) => {
                    self.securities.insert(node.security, 1);
                }
                Err(error) => self.met(node.security, &error),
            }
        }
    }

    fn look_at_subkeys(&mut self, offset: CellOffset, node: &Node, depth: usize) {
        if node.subkeys == 0 {
            // A list without elements may be left over.
            if node.subkey_list != CellOffset::NONE && self.in_use.has(node.subkey_list) {
                let listed = read_leaves(&self.hive.bins, node.subkey_list);
                if listed.is_ok_and(|(_, leaves)| leaves.iter().any(|leaf| leaf.count > 0)) {
                    self.damage(offset, "key: no subkeys by its count, and a list of some");
                }
            }
            return;
        }
        let bins = &self.hive.bins;
        // A list that is met a second time is not read again.
        if !self.take(node.subkey_list, "list of subkeys") {
            return;
        }
        let (root, leaves) = match node.leaves(bins, offset) {
            Ok(found) => found,
            Err(error) => return self.met(offset, &error),
        };
        let (mut before, mut longest): (Option<Name>, usize) = (None, 0);
        for leaf in leaves {
            if root.is_some() && !self.take(leaf.at, "list of subkeys") {
                continue;
            }
            for index in 0..leaf.count {
                let found = leaf.key(bins, index).and_then(|key| {
                    let name = Node::read(bins, key)?.name(bins, key)?;
                    Ok((key, name, leaf.check_value(bins, index)?))
                });
                let (key, name, value) = match found {
                    Ok(found) => found,
                    Err(error) => {
                        self.met(leaf.at, &error);
                        continue;
                    }
                };
                if let Some(before) = &before {
                    match before.compare(&name) {
                        std::cmp::Ordering::Less => {}
                        std::cmp::Ordering::Equal => {
                            self.damage(leaf.at, format!("two subkeys named {}", shown(&name)))
                        }
                        std::cmp::Ordering::Greater => {
                            let what = format!("subkeys out of order: {} after {}", shown(&name), shown(before));
                            self.damage(leaf.at, what);
                        }
                    }
                }
                let expected = leaf.expected_value(&name);
                // Windows writes hints of other letters than ASCII's by a code page, or zero.
                let is_vague = leaf.kind == LeafKind::Hint && !name.units().iter().take(4).all(|&unit| unit < 0x80);
                if value != expected && !is_vague {
                    let (kind, found) = (leaf.kind, value.unwrap_or_default());
                    let expected = expected.unwrap_or_default();
                    let what = format!("{kind:?} of {}: expected {expected:#x}, found {found:#x}", shown(&name));
                    self.damage(leaf.at, what);
                }
                if name.is_empty() || name.units().len() > KEY_NAME_MAX || name.units().contains(&u16::from(b'\\')) {
                    self.note(key, format!("a key's name that Windows does not allow: {}", shown(&name)));
                }
                longest = longest.max(name.units().len() * 2);
                before = Some(name);
                self.keys.push((key, offset, depth + 1));
            }
        }
        // The upper half of the field has other uses.
        self.compare_longest(offset, at::SUBKEY_NAME_MAX, 0xffff, longest, "name of a subkey");
    }

    fn compare_longest(&mut self, key: CellOffset, field: usize, mask: u32, found: usize, what: &str) {
        let Ok(cell) = self.hive.bins.cell(key) else { return };
        let said = (le32(cell, field) & mask) as usize;
        if cell.len() >= NODE_SIZE && said < found {
            self.note(key, format!("key: the longest {what} has {found} bytes, {said} by its own word"));
        }
    }

    fn look_at_values(&mut self, offset: CellOffset, node: &Node) {
        if node.values == 0 {
            return;
        }
        if !self.take(node.value_list, "list of values") {
            return;
        }
        let bins = &self.hive.bins;
        let cells = match node.value_cells(bins) {
            Ok(cells) => cells,
            Err(error) => return self.met(offset, &error),
        };
        let mut names = HashSet::new();
        let (mut longest_name, mut longest_data) = (0, 0);
        for cell in cells {
            if !self.take(cell, "value") {
                continue;
            }
            self.check.values += 1;
            let read = Record::read(bins, cell).and_then(|record| {
                let name = record.name(bins, cell)?;
                Ok((name, record.length(), record.place(bins, self.hive.base.minor())?))
            });
            match read {
                Ok((name, length, place)) => {
                    longest_name = longest_name.max(name.units().len() * 2);
                    longest_data = longest_data.max(length);
                    let folded: Vec<u16> = name.units().iter().map(|&unit| upcase(unit)).collect();
                    if !names.insert(folded) {
                        self.damage(cell, format!("two values named {}", shown(&name)));
                    }
                    self.look_at_data(place);
                }
                Err(error) => self.met(cell, &error),
            }
        }
        self.compare_longest(offset, at::VALUE_NAME_MAX, u32::MAX, longest_name, "name of a value");
        self.compare_longest(offset, at::VALUE_DATA_MAX, u32::MAX, longest_data, "data of a value");
    }

    fn look_at_data(&mut self, place: DataPlace) {
        match place {
            DataPlace::Resident => {}
            DataPlace::Cell(at) => {
                self.take(at, "data");
            }
            DataPlace::Big { head, list, segments } => {
                self.take(head, "big data");
                self.take(list, "list of segments");
                for segment in segments {
                    self.take(segment, "segment of data");
                }
            }
        }
    }

    /// The ring of security descriptors, and how many keys have each.
    fn look_at_ring(&mut self) {
        self.check.descriptors = self.securities.len();
        let Some(&first) = self.securities.keys().next() else { return };
        let bins = &self.hive.bins;
        let (mut at, mut ring) = (first, HashSet::new());
        loop {
            let security = match Security::read(bins, at) {
                Ok(security) => security,
                Err(error) => return self.met(at, &error),
            };
            ring.insert(at);
            let counted = self.securities.get(&at).copied().unwrap_or(0);
            if counted != security.count {
                let what = format!("security: {counted} keys have it, {} by its own count", security.count);
                self.note(at, what);
            }
            if counted == 0 && !self.take(at, "security") {
                return;
            }
            match Security::read(bins, security.next) {
                Ok(next) if next.previous == at => {}
                Ok(next) => {
                    let (expected, found) = (at.position(), next.previous.position());
                    self.damage(security.next, format!("security: expected {expected:#x} before it, found {found:#x}"));
                    return;
                }
                Err(error) => return self.met(security.next, &error),
            }
            at = security.next;
            if at == first {
                break;
            }
            if ring.contains(&at) {
                return self.damage(at, "security: the ring of descriptors does not close");
            }
        }
        let outside: Vec<CellOffset> = self.securities.keys().filter(|at| !ring.contains(at)).copied().collect();
        for at in outside {
            self.damage(at, "security: not in the ring of descriptors");
        }
    }

    fn look_for_lost_cells(&mut self) {
        let (mut count, mut bytes, mut first) = (0, 0, None);
        for span in self.hive.bins.spans().flatten() {
            if span.in_use && !self.reached.has(span.at) {
                (count, bytes) = (count + 1, bytes + u64::from(span.size));
                first.get_or_insert(span.at);
            }
        }
        if let Some(first) = first {
            self.note(first, format!("{count} cells ({bytes} bytes) in use that nothing refers to, from here on"));
        }
    }
}

/// A name from the hive, for a message.
fn shown(name: &Name) -> String {
    name.to_string().escape_debug().to_string()
}
