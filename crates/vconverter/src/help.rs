//! What `--help` says: each command shows examples, and those of a command's parent stand in one place.

use clap::{Command, CommandFactory};

use crate::arguments::Arguments;

/// The command line; a command that has no text of its own below its options has its parent's examples of it.
pub(crate) fn command() -> Command {
    with_examples(Arguments::command(), "vconverter", "")
}

fn with_examples(mut command: Command, path: &str, of_parent: &str) -> Command {
    if command.get_after_help().is_none() && !of_parent.is_empty() {
        command = command.after_help(of_parent.to_owned());
    }
    let said = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    command.mut_subcommands(|inner| {
        let path = format!("{path} {}", inner.get_name());
        let examples = examples_of(&said, &path);
        with_examples(inner, &path, &examples)
    })
}

/// The lines of a text that begin with a command.
fn examples_of(text: &str, path: &str) -> String {
    let is_one = |line: &&str| {
        let rest = line.trim_start().strip_prefix(path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    let lines: Vec<&str> = text.lines().filter(is_one).collect();
    match lines.len() {
        0 => String::new(),
        1 => format!("Example:\n{}", lines[0]),
        _ => format!("Examples:\n{}", lines.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each command below, by its path, with its long help.
    fn helps(command: &mut Command, path: &str, into: &mut Vec<(String, String)>) {
        into.push((path.to_owned(), command.render_long_help().to_string()));
        // `help` is clap's own.
        for inner in command.get_subcommands_mut().filter(|inner| inner.get_name() != "help") {
            let path = format!("{path} {}", inner.get_name());
            helps(inner, &path, into);
        }
    }

    #[test]
    fn the_help_of_every_command_shows_how_it_is_typed() {
        let mut all = Vec::new();
        helps(&mut command(), "vconverter", &mut all);
        assert!(all.len() > 25, "{}", all.len());
        let without: Vec<&String> = all
            .iter()
            .filter(|(path, help)| {
                let after = help.split_once("Example").map_or("", |(_, after)| after);
                !after.lines().any(|line| line.trim_start().starts_with(path.as_str()))
            })
            .map(|(path, _)| path)
            .collect();
        assert!(without.is_empty(), "no example of its own: {without:?}");
    }

    #[test]
    fn an_example_is_of_the_command_that_it_begins_with() {
        let text = "Examples:\n  vconverter a show x\n  vconverter a shower\n  vconverter a show y # z\n";
        assert_eq!(
            examples_of(text, "vconverter a show"),
            "Examples:\n  vconverter a show x\n  vconverter a show y # z"
        );
        assert_eq!(examples_of(text, "vconverter b"), "");
    }
}
