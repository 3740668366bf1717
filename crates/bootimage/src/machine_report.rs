//! What a machine is made of, for a boot image with its drivers alone: the modaliases of its devices.
//!
//! On the machine itself: `cat /sys/bus/*/devices/*/modalias`. A report may be that text, one modalias a line, or
//! JSON: a list of them, or an object that holds such a list as `modaliases`, at whatever place.

use serde_json::Value;

use crate::{Error, ErrorKind, Result};

/// More devices than any machine has.
const DEVICES_MAX: usize = 65_536;

/// The modaliases in a report, in their order, each once.
///
/// # Errors
/// [`ErrorKind::InvalidConfiguration`] for text that holds none, or JSON that is damaged.
pub fn parse_report(text: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if text.trim_start().starts_with(['{', '[']) {
        let value: Value = serde_json::from_str(text)
            .map_err(|e| Error::new(ErrorKind::InvalidConfiguration, format!("the report of the machine: {e}")))?;
        // The parser bounds the depth at 128, and so the recursion.
        collect(&value, value.is_array(), &mut found);
    } else {
        found.extend(text.lines().map(str::trim).filter(|line| is_modalias(line)).map(str::to_owned));
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|alias| seen.insert(alias.clone()));
    found.truncate(DEVICES_MAX);
    if found.is_empty() {
        let what = "the report of the machine names no device: expected modaliases as pci:v00008086d0000100E…, one a \
                    line, or JSON with a list \"modaliases\"";
        return Err(Error::new(ErrorKind::InvalidConfiguration, what));
    }
    Ok(found)
}

fn collect(value: &Value, is_list: bool, found: &mut Vec<String>) {
    match value {
        Value::String(text) if is_list && is_modalias(text) => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| collect(value, is_list, found)),
        Value::Object(fields) => {
            for (name, value) in fields {
                collect(value, name == "modaliases" && value.is_array(), found);
            }
        }
        _ => {}
    }
}

/// `bus:…` without blanks.
fn is_modalias(text: &str) -> bool {
    let bus = text.split_once(':').map(|(bus, _)| bus);
    bus.is_some_and(|bus| !bus.is_empty() && bus.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')))
        && !text.contains(char::is_whitespace)
        && text.len() < 4096
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARD: &str = "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00";

    #[test]
    fn a_report_is_text_or_json() {
        let expected = vec![CARD.to_owned(), "scsi:t-0x00".into()];
        assert_eq!(parse_report(&format!("{CARD}\nscsi:t-0x00\n{CARD}\n\nnot one\n")).unwrap(), expected);
        assert_eq!(parse_report(&format!("[\"{CARD}\", \"scsi:t-0x00\"]")).unwrap(), expected);
        let nested =
            format!("{{\"machine\": {{\"modaliases\": [\"{CARD}\", \"scsi:t-0x00\", 7], \"x\": \"usb:v1\"}}}}");
        assert_eq!(parse_report(&nested).unwrap(), expected);
    }

    #[test]
    fn a_report_without_devices_is_refused() {
        for text in ["", "{}", "[]", "{\"modaliases\": \"pci:v1\"}", "{", "[\"a b:c\"]"] {
            assert_eq!(parse_report(text).unwrap_err().kind, ErrorKind::InvalidConfiguration, "{text}");
        }
    }
}
