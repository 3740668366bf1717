//! Completions and man pages, as a shell and `man` take them.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};

fn vconverter(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO_BIN_EXE_vconverter")).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// What bash offers for the last of `words`.
fn bash_offers(folder: &Path, words: &str) -> Vec<String> {
    let script = folder.join("vconverter.bash");
    std::fs::write(&script, vconverter(&["completions", "bash"])).unwrap();
    let ask = format!(
        "source {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
         last=${{COMP_WORDS[COMP_CWORD]}}; _vconverter vconverter \"$last\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display()
    );
    let output = Command::new("bash").args(["--norc", "-uc", &ask]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_options() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(bash_offers(folder.path(), "vconverter conv"), ["convert"]);
    assert_eq!(bash_offers(folder.path(), "vconverter machines app"), ["approve"]);
    assert_eq!(bash_offers(folder.path(), "vconverter convert --start"), ["--start-at"]);
    assert_eq!(bash_offers(folder.path(), "vconverter completions f"), ["fish"]);
}

#[test]
fn zsh_and_fish_have_completions() {
    for (shell, says) in [("zsh", "#compdef vconverter"), ("fish", "complete -c vconverter")] {
        let script = String::from_utf8(vconverter(&["completions", shell])).unwrap();
        assert!(
            script.contains(says) && script.contains("boot-image") && script.contains("start-at"),
            "{shell}: {} bytes",
            script.len()
        );
    }
}

#[test]
fn every_command_has_a_page_with_its_examples() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    let told = vconverter(&["manual", "--output", pages.to_str().unwrap(), "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    let told: Vec<&str> = told["pages"].as_array().unwrap().iter().map(|page| page.as_str().unwrap()).collect();
    for name in ["vconverter", "vconverter-convert", "vconverter-tasks-watch", "vconverter-pxe-policy"] {
        assert!(told.contains(&format!("{name}.1").as_str()), "{told:?}");
    }
    assert_eq!(std::fs::read_dir(&pages).unwrap().count(), told.len());
    for page in told {
        let text = std::fs::read_to_string(pages.join(page)).unwrap();
        let name = page.strip_suffix(".1").unwrap();
        assert!(text.contains(&format!(".TH {name} 1")) && text.contains("Example"), "{page}:\n{text}");
    }
}
