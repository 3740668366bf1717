//! "INF Strings Section": `%strkey%` and what stands for it.
//!
//! One section is chosen by the language, and only that one is used: a string that it lacks is no string.

use std::collections::BTreeMap;

use super::{Section, TEXT_CHARACTERS_MAX, folded};

/// The primary language of a `LANGID`.
const PRIMARY: u16 = 0x3ff;
/// English (United States): what a file without undecorated strings is most likely to have.
const ENGLISH: u16 = 0x0409;

/// Strings by their folded keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Strings {
    by_key: BTreeMap<String, String>,
}

impl Strings {
    /// The strings of the section for a language: exactly that, its neutral form, its family, or undecorated.
    pub(super) fn of(sections: &[Section], language: Option<u16>) -> Self {
        let plain = sections.iter().find(|section| folded(&section.name) == "strings");
        let decorated: Vec<(u16, &Section)> = sections
            .iter()
            .filter_map(|section| {
                let name = folded(&section.name);
                let digits = name.strip_prefix("strings.")?;
                Some((u16::from_str_radix(digits.trim_start_matches("0x"), 16).ok()?, section))
            })
            .collect();
        let of = |fits: &dyn Fn(u16) -> bool| decorated.iter().find(|(id, _)| fits(*id)).map(|(_, section)| *section);
        let by_language = |wanted: u16| {
            of(&|id| id == wanted)
                .or_else(|| of(&|id| id == wanted & PRIMARY))
                .or_else(|| of(&|id| id & PRIMARY == wanted & PRIMARY))
        };
        let chosen =
            language.and_then(by_language).or(plain).or_else(|| by_language(ENGLISH)).or_else(|| of(&|_| true));
        let mut by_key = BTreeMap::new();
        for entry in chosen.map_or(&[][..], |section| section.entries.as_slice()) {
            if let Some(key) = &entry.key {
                let value = entry.values.first().cloned().unwrap_or_default();
                by_key.entry(folded(&key.replace("%%", "%"))).or_insert(value);
            }
        }
        Self { by_key }
    }

    /// A value with its tokens replaced, once; `%%` becomes `%`. `directory` answers for `%12%` and its like where no
    /// string has that key. What nothing stands for stays. Cut at Windows' limit.
    pub(super) fn expand(&self, value: &str, directory: &dyn Fn(&str) -> Option<String>) -> String {
        let mut text = String::new();
        let mut rest = value;
        while let Some(at) = rest.find('%') {
            text.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix('%') {
                text.push('%');
                rest = behind;
                continue;
            }
            let token = rest.find('%').map(|end| &rest[..end]);
            let found = token.and_then(|key| self.get(key).map(str::to_owned).or_else(|| directory(key)));
            match (token, found) {
                (Some(key), Some(found)) => {
                    text.push_str(&found);
                    rest = &rest[key.len() + 1..];
                }
                (Some(key), None) => {
                    text.push('%');
                    text.push_str(key);
                    text.push('%');
                    rest = &rest[key.len() + 1..];
                }
                (None, _) => text.push('%'),
            }
        }
        text.push_str(rest);
        if let Some((end, _)) = text.char_indices().nth(TEXT_CHARACTERS_MAX) {
            text.truncate(end);
        }
        text
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.by_key.get(&folded(key)).map(String::as_str)
    }

    /// Whether a string has this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.by_key.contains_key(&folded(key))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Inf, Locale};

    const FILE: &str = "[Strings.0407]\na = deutsch\n[Strings]\nA = plain, more\nb=\"say \"\"x\"\"; y\"\n12 = twelve\nlong = \
                        \"LONG\"\n[Strings.0009]\na = english\n[Strings.0809]\na = british\n";

    fn expanded(language: Option<u16>, value: &str) -> String {
        let long = "0123456789".repeat(300);
        let locale = Locale { language, ..Locale::default() };
        Inf::parse_in(FILE.replace("LONG", &long).as_bytes(), locale).unwrap().expand(value)
    }

    #[test]
    fn tokens_are_replaced_once_and_percent_signs_are_doubled() {
        assert_eq!(expanded(None, "<%a%|%B%>"), "<plain|say \"x\"; y>");
        assert_eq!(expanded(None, "%%SystemRoot%%\\x"), "%SystemRoot%\\x");
        assert_eq!(expanded(None, "%11%\\%nobody% %"), "%11%\\%nobody% %");
        // A string is asked before a directory.
        assert_eq!(expanded(None, "%12%"), "twelve");
        assert_eq!(expanded(None, "%long%%long%").len(), 4095);
    }

    #[test]
    fn the_strings_of_a_language_are_one_section_with_the_documented_order() {
        assert_eq!(expanded(Some(0x0407), "%a%"), "deutsch");
        assert_eq!(expanded(Some(0x0407), "%b%"), "%b%");
        assert_eq!(expanded(Some(0x0409), "%a%"), "english");
        assert_eq!(expanded(Some(0x0809), "%a%"), "british");
        assert_eq!(expanded(Some(0x0807), "%a%"), "deutsch");
        assert_eq!(expanded(Some(0x0411), "%a%"), "plain");
    }
}
