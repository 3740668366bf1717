//! Takes secrets out of texts that leave the house. It would rather take too much.
//!
//! What is kept is chosen elsewhere, by name; this is the second net, for what a program or an operator wrote into a log.

use serde_json::Value;

/// What stands in a secret's place.
const REMOVED: &str = "[removed]";
/// Words that a secret follows, in lower case and without hyphens and underscores.
const NAMES: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "privatekey",
    "credential",
    "authorization",
    "cookie",
    "setupcode",
    "pwd",
];
/// What a secret begins with: tokens of this controller, and of others.
const PREFIXES: [&str; 6] = ["vct_", "vce_", "ghp_", "eyJ", "Bearer", "Basic"];

/// A text of several lines.
pub(crate) fn redact(text: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        if line.contains("-----BEGIN ") && line.contains("PRIVATE KEY") {
            in_key = true;
            redacted.push_str(REMOVED);
            redacted.push('\n');
        } else if in_key {
            // A log may put something before each line, so only the end is looked for.
            in_key = !line.contains("-----END ");
        } else {
            redacted.push_str(&redact_line(line));
        }
    }
    redacted
}

/// JSON: values of telling names, and every text in it.
pub(crate) fn redact_json(value: &mut Value) {
    match value {
        Value::String(text) => *text = redact(text),
        Value::Array(values) => values.iter_mut().for_each(redact_json),
        Value::Object(fields) => {
            for (name, value) in fields {
                match tells_a_secret(name) && !value.is_null() && !value.is_boolean() {
                    true => *value = REMOVED.into(),
                    false => redact_json(value),
                }
            }
        }
        _ => {}
    }
}

/// Whether a secret follows this name.
fn tells_a_secret(name: &str) -> bool {
    let plain: String = name.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect();
    NAMES.iter().any(|secret| plain.contains(secret))
}

fn redact_line(line: &str) -> String {
    let (mut redacted, mut rest) = (String::with_capacity(line.len()), line);
    // A name, then `=` or `:`, then the secret: to the end of the line, as a password may hold anything.
    if let Some(at) = line.char_indices().find_map(|(at, c)| is_assignment(line, at, c)) {
        let end = if line.ends_with('\n') { "\n" } else { "" };
        return format!("{}{REMOVED}{end}", redact_words(&line[..at]));
    }
    // `https://user:password@host`
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        redacted.push_str(&redact_words(before));
        let authority = after.find(|c: char| c == '/' || c.is_whitespace() || c == '"').unwrap_or(after.len());
        rest = match after[..authority].rfind('@') {
            Some(user) => {
                redacted.push_str(REMOVED);
                &after[user..]
            }
            None => after,
        };
    }
    redacted.push_str(&redact_words(rest));
    redacted
}

/// The byte behind an assignment to a telling name.
fn is_assignment(line: &str, at: usize, c: char) -> Option<usize> {
    if c != '=' && c != ':' {
        return None;
    }
    let before = line[..at].trim_end().trim_end_matches(['"', '\'', ']']);
    let name = before.rsplit(|c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))).next()?;
    // Two words: `setup code: …`, `API token: …`.
    let words = before.len() - before.rsplit(' ').take(2).map(|word| word.len() + 1).sum::<usize>().min(before.len());
    let follows = line[at + c.len_utf8()..].trim();
    ((tells_a_secret(name) || tells_a_secret(&before[words..])) && !follows.is_empty()).then_some(at + c.len_utf8())
}

/// Words that are secrets by how they look.
fn redact_words(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+' | '/');
    let (mut redacted, mut rest) = (String::with_capacity(text.len()), text);
    let mut follows_scheme = false;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let is_scheme = word == "Bearer" || word == "Basic";
        let is_secret = PREFIXES.iter().any(|prefix| word.starts_with(prefix) && word.len() > prefix.len() + 8);
        redacted.push_str(if is_secret || (follows_scheme && !word.is_empty()) { REMOVED } else { word });
        follows_scheme = is_scheme;
        let gap = after.find(is_part).unwrap_or(after.len());
        redacted.push_str(&after[..gap]);
        rest = &after[gap..];
    }
    redacted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRET: &str = "hunter2-Korrekt";

    #[test]
    fn what_follows_a_telling_name_is_removed() {
        for line in [
            "password=hunter2-Korrekt",
            "  smtp_password = \"hunter2-Korrekt\"  # mine",
            "PASSWD: hunter2-Korrekt with spaces, and hunter2-Korrekt",
            "Authorization: Basic hunter2-Korrekt",
            "the API token: hunter2-Korrekt",
            "{\"passphrase\":\"hunter2-Korrekt\"}",
            "setup code: hunter2-Korrekt",
            "env API_KEY=hunter2-Korrekt vconverter",
            "https://root:hunter2-Korrekt@example.net/x and http://hunter2-Korrekt@y",
            "curl -H Bearer hunter2-Korrekt",
            "vct_hunter2-Korrekt is there",
            "x -----BEGIN PRIVATE KEY-----\nhunter2-Korrekt\nx -----END PRIVATE KEY-----\nafter",
            "password=\u{e9}hunter2-Korrekt",
        ] {
            let redacted = redact(line);
            assert!(!redacted.contains(SECRET) && redacted.contains(REMOVED), "{line}\n{redacted}");
        }
    }

    #[test]
    fn what_an_operator_needs_stays() {
        for line in [
            "2026-11-23T05:00:00Z WARN task t-0b7d11c2: disk /dev/sda: 4096 bytes at 8192 could not be read\n",
            "agents: 0.0.0.0:7770\nCA fingerprint: 5f2c\n\nlast line",
            "GET https://example.net/x@y: 404",
            "wrong password\n",
            "credentials:\n",
        ] {
            assert_eq!(redact(line), line);
        }
        let after = redact("-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\nafter");
        assert_eq!(after, "[removed]\nafter");
    }

    #[test]
    fn json_loses_the_values_of_telling_names_at_any_depth() {
        let mut value =
            json!({ "a": [{ "userPassword": SECRET, "note": "token=hunter2-Korrekt", "n": 1 }], "has_token": true });
        redact_json(&mut value);
        assert_eq!(
            value,
            json!({ "a": [{ "userPassword": REMOVED, "note": "token=[removed]", "n": 1 }], "has_token": true })
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken(text in "\\PC*") {
            redact(&text);
        }
    }
}
