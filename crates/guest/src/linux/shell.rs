//! Shell assignments as configuration files use them: os-release(5), `/etc/default/grub`, initramfs-tools.
//!
//! Only what stands at the start of a line is read; nothing is expanded or run.

/// `NAME=value` lines, in order, with quotes and backslashes taken away. Lines that are none are skipped.
pub(crate) fn assignments(text: &str) -> Vec<(String, String)> {
    text.lines().filter_map(|line| assignment(line).map(|(name, value)| (name.to_owned(), value))).collect()
}

/// The value that is in force: that of the last assignment.
pub(crate) fn value(text: &str, name: &str) -> Option<String> {
    text.lines().rev().find_map(|line| assignment(line).filter(|(key, _)| *key == name)).map(|(_, value)| value)
}

fn assignment(line: &str) -> Option<(&str, String)> {
    let line = line.trim_start();
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let (name, value) = line.split_once('=')?;
    let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    valid.then(|| (name, unquote(value)))
}

/// One shell word without its quotes; it ends at unquoted white space, `;` or `#` behind white space.
fn unquote(text: &str) -> String {
    let mut word = String::new();
    let mut chars = text.chars();
    let mut quote = None;
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (Some('"') | None, '\\') => word.extend(chars.next()),
            (None, c) if c.is_whitespace() || c == ';' => break,
            (_, c) => word.push(c),
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lose_their_quotes() {
        let text = "# c\nA=\"x y\" # comment\nB='it'\\''s'\nexport C=z\n D=1;\nnot an assignment\nA=last\nE=\"open";
        let all = assignments(text);
        let expected = [("A", "x y"), ("B", "it's"), ("C", "z"), ("D", "1"), ("A", "last"), ("E", "open")];
        assert_eq!(all, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(value(text, "A").as_deref(), Some("last"));
    }
}
