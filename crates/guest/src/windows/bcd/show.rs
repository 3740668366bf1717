//! A store as `bcdedit /enum all /v` shows it.
//!
//! Two things are other: partitions, for which a running Windows has drive letters, are shown by what names them in the
//! store; and bytes that no format explains are shown, where `bcdedit` leaves them out.

use std::fmt;

use super::names::number_name;
use super::{Bcd, Element, ElementClass, Object, Value, object};
use crate::hexadecimal;

/// Where values begin.
const COLUMN: usize = 24;

impl fmt::Display for Bcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut objects: Vec<&Object> = self.objects.iter().collect();
        objects.sort_by_key(|object| object::rank(object.guid, object.kind));
        for (at, object) in objects.into_iter().enumerate() {
            write!(f, "{}{object}", if at == 0 { "" } else { "\n" })?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "\nnote: {note}\n"))
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = object::heading(self.guid, self.kind);
        writeln!(f, "{heading}\n{}", "-".repeat(heading.len()))?;
        line(f, "identifier", &self.guid.to_string())?;
        for element in &self.elements {
            let mut name = self.name_of(element.kind);
            for shown in shown(&name, element) {
                line(f, &name, &shown)?;
                name.clear();
            }
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, value: &str) -> fmt::Result {
    writeln!(f, "{name:<width$}{}{value}", if name.len() < COLUMN { "" } else { " " }, width = COLUMN)
}

/// The lines of an element's value.
fn shown(name: &str, element: &Element) -> Vec<String> {
    // The store is the guest's: control characters must not reach a terminal.
    let plain = |text: &str| text.replace(char::is_control, "\u{fffd}");
    let is_known = element.kind.class() != ElementClass::Template && !name.starts_with("custom:");
    match &element.value {
        Value::Device(device) => vec![plain(&device.to_string())],
        Value::String(text) => vec![plain(text)],
        Value::Object(guid) => vec![guid.to_string()],
        Value::ObjectList(guids) if guids.is_empty() => vec![String::new()],
        Value::ObjectList(guids) => guids.iter().map(ToString::to_string).collect(),
        Value::Integer(number) => vec![number_name(name, *number).map_or_else(|| number.to_string(), str::to_owned)],
        Value::Boolean(true) => vec!["Yes".into()],
        Value::Boolean(false) => vec!["No".into()],
        Value::IntegerList(numbers) if numbers.is_empty() => vec![String::new()],
        Value::IntegerList(numbers) if is_known => numbers.iter().map(|number| format!("{number:#x}")).collect(),
        Value::IntegerList(numbers) => numbers.iter().map(ToString::to_string).collect(),
        Value::Binary(found) => vec![hexadecimal::text(found)],
    }
}
