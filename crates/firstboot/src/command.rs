//! A program with its arguments, as it is started and as it is shown: one text, so that what was printed is what ran.
//!
//! Arguments are quoted by the rules of `CommandLineToArgvW` (Microsoft Learn, "Parsing C command-line arguments"). Of
//! `name=value` the value alone is quoted, as netsh's own examples have it.

use std::fmt::{self, Write};

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// A program of Windows by its name (`netsh.exe`, found in the system folder alone), or a whole path.
    pub program: String,
    /// Its arguments, unquoted.
    pub arguments: Vec<String>,
}

impl CommandLine {
    /// `program` with `arguments`.
    pub fn new<T: Into<String>>(program: impl Into<String>, arguments: impl IntoIterator<Item = T>) -> Self {
        Self { program: program.into(), arguments: arguments.into_iter().map(Into::into).collect() }
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        quote(f, &self.program)?;
        for argument in &self.arguments {
            f.write_char(' ')?;
            match argument.split_once('=') {
                Some((name, value)) if !needs_quotes(name) && needs_quotes(value) => {
                    write!(f, "{name}=")?;
                    quote(f, value)?;
                }
                _ => quote(f, argument)?,
            }
        }
        Ok(())
    }
}

fn needs_quotes(text: &str) -> bool {
    text.is_empty() || text.contains([' ', '\t', '"', '&', '|', '<', '>', '^', '%', '(', ')'])
}

fn quote(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    if !needs_quotes(text) {
        return f.write_str(text);
    }
    f.write_char('"')?;
    // Backslashes count only before a quotation mark: there each is doubled.
    let mut backslashes = 0;
    for character in text.chars() {
        match character {
            '\\' => backslashes += 1,
            '"' => {
                (0..=backslashes).try_for_each(|_| f.write_char('\\'))?;
                backslashes = 0;
            }
            _ => backslashes = 0,
        }
        f.write_char(character)?;
    }
    (0..backslashes).try_for_each(|_| f.write_char('\\'))?;
    f.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The rules, read from the other side.
    fn parse(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
        let mut rest = line.chars().peekable();
        while let Some(character) = rest.next() {
            match character {
                '\\' => {
                    let mut count = 1;
                    while rest.next_if_eq(&'\\').is_some() {
                        count += 1;
                    }
                    if rest.peek() == Some(&'"') {
                        word.extend(std::iter::repeat_n('\\', count / 2));
                        if count % 2 == 1 {
                            word.extend(rest.next());
                        }
                    } else {
                        word.extend(std::iter::repeat_n('\\', count));
                    }
                    begun = true;
                }
                '"' => (quoted, begun) = (!quoted, true),
                ' ' | '\t' if !quoted => {
                    if begun {
                        words.push(std::mem::take(&mut word));
                    }
                    begun = false;
                }
                other => {
                    word.push(other);
                    begun = true;
                }
            }
        }
        if begun {
            words.push(word);
        }
        words
    }

    #[test]
    fn values_with_spaces_are_quoted_and_nothing_else() {
        let line = CommandLine::new("netsh.exe", ["interface", "name=Local Area Connection", "address=192.0.2.7"]);
        assert_eq!(line.to_string(), r#"netsh.exe interface name="Local Area Connection" address=192.0.2.7"#);
        let line = CommandLine::new(r"C:\Windows\cmd.exe", ["/d", "/c", r"C:\Program Files\a\10-x.cmd"]);
        assert_eq!(line.to_string(), r#"C:\Windows\cmd.exe /d /c "C:\Program Files\a\10-x.cmd""#);
    }

    proptest! {
        #[test]
        fn any_argument_arrives_as_it_was(arguments in proptest::collection::vec("[a-z\"\\\\ =&\u{e4}-]{0,9}", 0..6)) {
            let line = CommandLine::new("a.exe", arguments.clone());
            let mut words = parse(&line.to_string());
            prop_assert_eq!(words.remove(0), "a.exe");
            prop_assert_eq!(words, arguments);
        }
    }
}
