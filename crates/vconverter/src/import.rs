//! `vconverter machines import FILE`: machines from a table.

use std::collections::HashMap;
use std::path::Path;

use controller::api::{AddedMachines, NewMachines};
use controller::inventory::{AddedMachine, NEW_MACHINES_MAX, NewMachine};
use csv::StringRecord;

use crate::arguments::Import;
use crate::client::Client;
use crate::failure::{Code, Failure, Result};
use crate::inventory::describe_added;
use crate::table::plain;

/// Columns of the table; all but the first may be missing, and so may values.
const COLUMNS: [&str; 6] = ["address", "name", "group", "note", "reach", "uuid"];
/// Largest table in bytes.
const BYTES_MAX: u64 = 8 << 20;
/// Faults that are told of one table.
const FAULTS_MAX: usize = 20;

/// A machine of the table, and in which line it begins.
#[derive(Debug)]
struct Row {
    line: u64,
    machine: NewMachine,
}

/// Checks a table, and adds its machines: all or none.
pub(crate) fn import(client: &Client, arguments: &Import, json: bool) -> Result<()> {
    let (file, shown) = (&arguments.file, arguments.file.display());
    let rows = parse(&read(file)?, arguments.group.as_deref()).map_err(|faults| {
        Failure::new(Code::Usage, format!("table {shown}: {}; nothing was added", faults.join("; ")))
    })?;
    let machines: Vec<NewMachine> = rows.iter().map(|row| row.machine.clone()).collect();
    let mut request = NewMachines { machines, dry_run: true, skip_known: arguments.skip_known };
    let looked: AddedMachines = client.post("/machines", &request)?;
    if !looked.faults.is_empty() {
        let line = |row: usize| rows.get(row).map_or(0, |row| row.line);
        let faults = looked.faults.iter().take(FAULTS_MAX);
        let named: Vec<String> = faults
            .map(|fault| {
                let by = fault.twin.map(|twin| format!(" by line {}", line(twin))).unwrap_or_default();
                format!("line {} ({}): {}{by}", line(fault.row), plain(&fault.part), plain(&fault.why))
            })
            .collect();
        return Err(Failure::new(Code::Usage, format!("table {shown}: {}; nothing was added", named.join("; "))));
    }
    let known: Vec<String> = looked
        .known
        .iter()
        .map(|known| {
            let line = rows.get(known.row).map_or(0, |row| row.line);
            format!("line {line}: {} is that of {}", plain(&known.by), plain(&known.machine))
        })
        .collect();
    if !arguments.skip_known && !known.is_empty() {
        let named = known.iter().take(FAULTS_MAX).cloned().collect::<Vec<_>>().join("; ");
        let message = format!(
            "table {shown}: {} of {} machines are known already: {named}; nothing was added (--skip-known adds the others)",
            known.len(),
            rows.len()
        );
        return Err(Failure::new(Code::Refused, message));
    }
    if !json {
        known.iter().for_each(|line| eprintln!("left out: {line}"));
    }
    if arguments.dry_run {
        return match json {
            true => crate::print_json(&looked),
            false => {
                let groups = looked.new_groups.join(", ");
                let groups =
                    if groups.is_empty() { String::new() } else { format!(", in new groups {}", plain(&groups)) };
                let count = rows.len() - known.len();
                crate::print(&format!("{count} machines can be added{groups}; nothing was added\n"))
            }
        };
    }
    request.dry_run = false;
    let added: AddedMachines = client.post("/machines", &request)?;
    match json {
        true => crate::print_json(&added),
        false => crate::print(&describe_added(&added)),
    }
}

fn read(file: &Path) -> Result<String> {
    let context = format!("table {}", file.display());
    let length = file.metadata().map_err(|e| Failure::io(&context, &e))?.len();
    if length > BYTES_MAX {
        return Err(Failure::new(
            Code::Usage,
            format!("{context}: expected at most {BYTES_MAX} bytes, found {length}"),
        ));
    }
    std::fs::read_to_string(file).map_err(|e| Failure::io(&context, &e))
}

/// The machines of a table, or all that is wrong with it. Columns are counted from 1, as lines are.
fn parse(text: &str, group: Option<&str>) -> std::result::Result<Vec<Row>, Vec<String>> {
    let text = text.trim_start_matches('\u{feff}');
    let mut table = csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(text.as_bytes());
    let header = table.headers().map_err(|e| vec![e.to_string()])?.clone();
    let place = |name: &str| header.iter().position(|column| column == name);
    for (column, name) in header.iter().enumerate() {
        let column = column + 1;
        if !COLUMNS.contains(&name) {
            let known = COLUMNS.join(", ");
            return Err(vec![format!("line 1, column {column}: {name:?} is not known; the columns are {known}")]);
        }
        if place(name) != Some(column - 1) {
            return Err(vec![format!("line 1, column {column}: {name} stands twice")]);
        }
    }
    if place("address").is_none() {
        return Err(vec!["line 1: expected a heading with the column address".into()]);
    }
    let at = |line: u64, name: &str| match place(name) {
        Some(column) => format!("line {line}, column {} ({name})", column + 1),
        None => format!("line {line} ({name})"),
    };
    let (mut rows, mut faults, mut seen) = (Vec::new(), Vec::new(), HashMap::new());
    for row in table.records() {
        let row = row.map_err(|e| vec![e.to_string()])?;
        let line = line_of(text, &row);
        if rows.len() + faults.len() >= NEW_MACHINES_MAX {
            return Err(vec![format!(
                "line {line}: expected at most {NEW_MACHINES_MAX} machines; make several tables of it"
            )]);
        }
        match machine(&row, &place, group) {
            Err((name, why)) => faults.push(format!("{}: {why}", at(line, name))),
            Ok((machine, checked)) => {
                for (name, what, value) in traits(&checked) {
                    if let Some(first) = seen.insert((what, value.clone()), line)
                        && first != line
                    {
                        faults.push(format!("{}: {value} stands in line {first}, too", at(line, name)));
                    }
                }
                rows.push(Row { line, machine });
            }
        }
        if faults.len() >= FAULTS_MAX {
            faults.push("and perhaps more".into());
            break;
        }
    }
    match (faults.is_empty(), rows.is_empty()) {
        (false, _) => Err(faults),
        (true, true) => Err(vec!["it names no machine".into()]),
        (true, false) => Ok(rows),
    }
}

/// The line that a row begins in. The position of a row is the end of the one before: comments and empty lines may follow.
pub(crate) fn line_of(text: &str, row: &StringRecord) -> u64 {
    let Some(position) = row.position() else { return 0 };
    let rest = usize::try_from(position.byte()).ok().and_then(|byte| text.get(byte..)).unwrap_or_default();
    let is_none = |line: &&str| line.starts_with('#') || line.trim_end_matches(['\r', '\n']).is_empty();
    position.line() + rest.split_inclusive('\n').take_while(is_none).count() as u64
}

fn machine(
    row: &StringRecord,
    place: &impl Fn(&str) -> Option<usize>,
    group: Option<&str>,
) -> std::result::Result<(NewMachine, AddedMachine), (&'static str, String)> {
    let value = |name: &str| {
        let value = place(name).and_then(|place| row.get(place)).filter(|text| !text.is_empty());
        value.map(str::to_owned)
    };
    let machine = NewMachine {
        address: value("address").unwrap_or_default(),
        name: value("name"),
        group: value("group").or_else(|| group.map(str::to_owned)),
        note: value("note"),
        reach: value("reach")
            .map(|text| text.to_ascii_lowercase().parse())
            .transpose()
            .map_err(|e| ("reach", e))?
            .unwrap_or_default(),
        uuid: value("uuid"),
    };
    let checked = machine.check().map_err(|misfit| (misfit.part, misfit.why))?;
    Ok((machine, checked))
}

/// The column, what it is and its value, of what no two machines share; a host name is a name, too.
fn traits(machine: &AddedMachine) -> Vec<(&'static str, &'static str, String)> {
    let address = if machine.address.ip().is_some() { "address" } else { "name" };
    let mut traits = vec![("address", address, machine.address.to_string())];
    traits.extend(machine.particulars.name.iter().map(|name| ("name", "name", name.to_lowercase())));
    traits.extend(machine.uuid.iter().map(|uuid| ("uuid", "uuid", uuid.clone())));
    traits
}

#[cfg(test)]
mod tests {
    use controller::inventory::Reach;

    use super::*;

    #[test]
    fn a_line_is_a_machine() {
        let text = "\u{feff}address, name, group, note, reach\n\
                    # the first rack\n\
                    192.0.2.10,web1,dmz,\"rack 7,\nask Ada\",SSH\n\
                    dc1.example.org,,,,\n";
        let rows = parse(text, Some("office")).unwrap();
        assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [3, 5]);
        let (web, dc) = (&rows[0].machine, &rows[1].machine);
        assert_eq!((web.name.as_deref(), web.group.as_deref(), web.reach), (Some("web1"), Some("dmz"), Reach::Ssh));
        assert_eq!(web.note.as_deref(), Some("rack 7,\nask Ada"));
        assert_eq!((dc.name.as_deref(), dc.group.as_deref(), dc.reach), (None, Some("office"), Reach::Unknown));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_column() {
        for (text, expected) in [
            ("", "line 1: expected a heading"),
            ("name\nweb\n", "line 1: expected a heading"),
            ("address,colour\nweb,red\n", "line 1, column 2: \"colour\" is not known"),
            ("address,address\nweb,web\n", "line 1, column 2: address stands twice"),
            ("address\n", "it names no machine"),
            ("name,address\nweb,\n", "line 2, column 2 (address): expected a host name"),
            ("address\n192.0.2.1\n192.0.2.300\n", "line 3, column 1 (address): expected a host name"),
            ("address,reach\nweb,telnet\n", "line 2, column 2 (reach): expected ssh, winrm or unknown"),
            ("address,uuid\nweb,1234\n", "line 2, column 2 (uuid): expected a UUID"),
            ("address\nweb\n\n#x\nWEB.\n", "line 5, column 1 (address): web stands in line 2, too"),
            ("address,name\n192.0.2.1,web\nweb,\n", "line 3, column 1 (address): web stands in line 2, too"),
            ("name,address\na,192.0.2.1\nA,192.0.2.2\n", "line 3, column 1 (name): a stands in line 2, too"),
            ("address,name\nweb\n", "line: 2"),
        ] {
            let found = parse(text, None).unwrap_err().join("; ");
            assert!(found.contains(expected), "{text:?}: {found}");
        }
        let two = parse("address\n-\n192.0.2.1\n+\n", None).unwrap_err();
        assert_eq!(two.len(), 2, "both are told: {two:?}");
        let many: String =
            std::iter::once("address\n".to_owned()).chain((0..1001).map(|n| format!("m{n}\n"))).collect();
        assert!(parse(&many, None).unwrap_err()[0].contains("line 1002"));
        let wrong: String = std::iter::once("address\n".to_owned()).chain((0..900).map(|_| "-\n".to_owned())).collect();
        assert_eq!(parse(&wrong, None).unwrap_err().len(), FAULTS_MAX + 1);
    }
}
