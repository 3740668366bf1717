//! `vconverter completions` and `vconverter manual`: what shells and `man` know of the command line.

use std::path::Path;

use clap_complete::Shell;
use serde_json::json;

use crate::failure::{Code, Failure, Result};
use crate::help;

pub(crate) fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut help::command(), "vconverter", &mut script);
    let script = String::from_utf8(script)
        .map_err(|_| Failure::new(Code::Failed, format!("completions for {shell} are no UTF-8")))?;
    crate::print(&script)
}

/// Writes a page for each command: `vconverter.1`, `vconverter-convert.1`, `vconverter-tasks-watch.1`, …
pub(crate) fn write_pages(folder: &Path, json: bool) -> Result<()> {
    let failed = |e: std::io::Error| Failure::io(&format!("man pages in {}", folder.display()), &e);
    std::fs::create_dir_all(folder).map_err(failed)?;
    // What `--help` asks of the terminal is of no use on a page, and `help` has none of its own.
    let mut command = help::command().disable_help_subcommand(true).disable_help_flag(true);
    command.build();
    let mut pages = Vec::new();
    write_page(&command, folder, &mut pages).map_err(failed)?;
    match json {
        true => crate::print_json(&json!({ "pages": pages })),
        false => crate::print(&format!("{} pages in {}\n", pages.len(), folder.display())),
    }
}

fn write_page(command: &clap::Command, folder: &Path, pages: &mut Vec<String>) -> std::io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let file = format!("{name}.1");
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).title(name).render(&mut page)?;
    std::fs::write(folder.join(&file), page)?;
    pages.push(file);
    for inner in command.get_subcommands() {
        write_page(inner, folder, pages)?;
    }
    Ok(())
}
