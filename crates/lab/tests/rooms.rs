//! The rules of `ARCHITECTURE.md`, compared with what `cargo metadata` says of the workspace: the table "The rooms" for
//! equality, and those lines of "What must never be" that are about dependencies.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

type Names = BTreeSet<String>;

const LICENCE: &str = "MIT OR Apache-2.0";
const ASYNC_RUNTIMES: &[&str] = &["tokio", "async-std", "smol", "async-io", "futures-executor"];
const HTTP: &[&str] = &["hyper", "hyper-util", "axum", "h2", "http", "reqwest", "ureq", "tower"];
const SQL: &[&str] = &["rusqlite", "libsqlite3-sys", "sqlx", "postgres", "tokio-postgres", "diesel"];
const COMMAND_LINE: &[&str] = &["clap", "clap_builder", "argh", "lexopt", "pico-args"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The workspace with its resolved dependencies, as they are on the one platform that programs are built for.
fn workspace() -> Metadata {
    let options = ["--offline", "--filter-platform", "x86_64-unknown-linux-gnu"].map(String::from);
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).other_options(options).exec().unwrap()
}

fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> Names {
    names.into_iter().map(str::to_owned).collect()
}

/// The table "The rooms": what each crate leans on.
fn parse_rooms(text: &str) -> BTreeMap<String, Names> {
    let (_, section) = text.split_once("\n## The rooms\n").expect("ARCHITECTURE.md has the section \"The rooms\"");
    let section = section.split("\n## ").next().unwrap();
    let mut rooms = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [room, responsibility, leans_on] = cells[..] else { panic!("a row has three cells: {line}") };
        assert!(!responsibility.is_empty(), "{room} has no responsibility");
        let leans_on = names(leans_on.split(',').map(str::trim).filter(|name| *name != "–"));
        let before = rooms.insert(room.trim_matches('`').to_owned(), leans_on);
        assert_eq!(before, None, "{room} stands twice");
    }
    rooms
}

/// The normal dependencies of each member among the members.
fn built_rooms(workspace: &Metadata) -> BTreeMap<String, Names> {
    let members = workspace.workspace_packages();
    let all = names(members.iter().map(|package| package.name.as_str()));
    let leans_on = |package: &Package| direct(package).intersection(&all).cloned().collect();
    members.iter().map(|package| (package.name.to_string(), leans_on(package))).collect()
}

fn direct(package: &Package) -> Names {
    let normal = package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
    names(normal.map(|dependency| dependency.name.as_str()))
}

fn member<'a>(workspace: &'a Metadata, name: &str) -> &'a Package {
    let members = workspace.workspace_packages();
    members.into_iter().find(|package| package.name.as_str() == name).unwrap_or_else(|| panic!("no crate {name}"))
}

/// All that is linked into a crate: the normal dependencies of its normal dependencies, and so on; itself is not in it.
fn linked<'a>(workspace: &'a Metadata, name: &str) -> Vec<&'a Package> {
    let nodes = &workspace.resolve.as_ref().expect("the dependencies are resolved").nodes;
    let nodes: BTreeMap<&PackageId, _> = nodes.iter().map(|node| (&node.id, node)).collect();
    let first = &member(workspace, name).id;
    let (mut seen, mut waiting) = (BTreeSet::from([first]), vec![first]);
    while let Some(id) = waiting.pop() {
        for dependency in &nodes[id].deps {
            let normal = dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
            if normal && seen.insert(&dependency.pkg) {
                waiting.push(&dependency.pkg);
            }
        }
    }
    seen.remove(first);
    seen.into_iter().map(|id| &workspace[id]).collect()
}

fn assert_links_none_of(workspace: &Metadata, name: &str, forbidden: &[&str]) {
    let linked = names(linked(workspace, name).iter().map(|package| package.name.as_str()));
    let found: Names = linked.intersection(&names(forbidden.iter().copied())).cloned().collect();
    assert!(found.is_empty(), "{name} must not link {found:?}");
}

#[test]
fn the_table_of_rooms_is_what_is_built() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (told, built) = (parse_rooms(&text), built_rooms(&workspace()));
    for (room, leans_on) in &built {
        assert_eq!(told.get(room), Some(leans_on), "the row of {room}: left ARCHITECTURE.md, right Cargo.toml");
    }
    assert!(told.keys().eq(built.keys()), "a row without a crate: {told:?}");
}

#[test]
fn a_row_that_is_wrong_is_seen() {
    let text = "# A\n\n## The rooms\n\n| crate | is | leans on |\n| --- | --- | --- |\n| `a` | x | – |\n| `b` | y | a, c |\n\n## B\n| `d` | z | – |\n";
    let rooms = parse_rooms(text);
    assert_eq!(rooms.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((rooms["a"].len(), &rooms["b"]), (0, &names(["a", "c"])));
}

#[test]
fn the_inner_rooms_know_no_runtime_no_http_no_sql_and_no_command_line() {
    let workspace = workspace();
    for name in ["machine", "block", "volume", "guest"] {
        for forbidden in [ASYNC_RUNTIMES, HTTP, SQL, COMMAND_LINE] {
            assert_links_none_of(&workspace, name, forbidden);
        }
    }
    // The search itself finds what is there, also at a distance.
    let linked = names(linked(&workspace, "vconverter").iter().map(|package| package.name.as_str()));
    assert!(linked.is_superset(&names(["tokio", "hyper", "libsqlite3-sys", "clap", "machine"])), "{linked:?}");
}

#[test]
fn programs_for_other_machines_stay_small() {
    let workspace = workspace();
    for name in ["agent", "bootenv", "firstboot"] {
        for forbidden in [ASYNC_RUNTIMES, HTTP, SQL, COMMAND_LINE] {
            assert_links_none_of(&workspace, name, forbidden);
        }
    }
    assert_links_none_of(&workspace, "agent", &["guest", "target"]);
}

#[test]
fn guest_and_target_never_meet() {
    let workspace = workspace();
    assert_links_none_of(&workspace, "guest", &["target"]);
    assert_links_none_of(&workspace, "target", &["guest"]);
}

#[test]
fn only_the_controller_holds_sql_and_only_programs_a_command_line() {
    let workspace = workspace();
    for package in workspace.workspace_packages() {
        let (name, direct) = (package.name.as_str(), direct(package));
        if name != "controller" {
            assert!(direct.is_disjoint(&names(SQL.iter().copied())), "{name} must not hold SQL");
        }
        if !package.targets.iter().any(cargo_metadata::Target::is_bin) {
            assert!(direct.is_disjoint(&names(COMMAND_LINE.iter().copied())), "{name} is no program");
        }
    }
}

#[test]
fn every_crate_has_the_lints_and_the_licence_of_the_workspace() {
    for package in workspace().workspace_packages() {
        assert_eq!(package.license.as_deref(), Some(LICENCE), "{}", package.name);
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        assert!(manifest.contains("\n[lints]\nworkspace = true\n"), "{} has other lints", package.name);
    }
}

#[test]
fn no_gpl_code_is_linked() {
    let workspace = workspace();
    for program in ["vconverter", "agent", "bootenv", "firstboot"] {
        for package in linked(&workspace, program) {
            let licence = package.license.as_deref().unwrap_or_else(|| panic!("{} names no licence", package.name));
            let permissive = licence.replace('/', " OR ").split(" OR ").any(|choice| !choice.contains("GPL"));
            assert!(permissive, "{} is under {licence}", package.name);
        }
    }
}
