//! Puts the built console (`web/dist/console`, made by `make console`) into the program, as a table of its files. Without it
//! the program is built too, and says so where the console would be.

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// A console has about ten files of some hundred kilobytes in all.
const FILES_MAX: usize = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    // The folder above is in the repository, so that it can always be watched.
    let built = manifest.join("../../web/dist");
    println!("cargo:rerun-if-changed={}", built.display());
    let root = built.join("console");
    let mut files = Vec::new();
    if root.is_dir() {
        list(&root, &mut files)?;
    }
    files.sort();
    let mut table = String::from("static FILES: &[File] = &[\n");
    for file in files {
        let path = file.strip_prefix(&root)?.to_str().ok_or("a file of the console has a name that is no UTF-8")?;
        let file = file.to_str().ok_or("the repository lies in a folder whose name is no UTF-8")?;
        let mut hasher = DefaultHasher::new();
        fs::read(file)?.hash(&mut hasher);
        let tag = format!("\"{:016x}\"", hasher.finish());
        writeln!(table, "    File {{ path: \"/{path}\", tag: {tag:?}, content: include_bytes!({file:?}) }},")?;
    }
    table.push_str("];\n");
    fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("console.rs"), table)?;
    Ok(())
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            return Err(format!("{}: more than {FILES_MAX} files are no console", folder.display()).into());
        }
    }
    Ok(())
}
