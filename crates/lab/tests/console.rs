//! The console in a browser, from the first start to the boot proof: `web/e2e/console.mjs` with Debian's Chromium against
//! the example `console_site`, whose machines and conversions are made up.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn the_console_is_good_from_first_start_to_boot_proof() {
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../web");
    // `make test` brings them; they are not needed for anything else.
    for needed in [Path::new("/usr/bin/chromium"), &web.join("node_modules/playwright-core"), &web.join("dist/console")]
    {
        if !needed.exists() {
            println!("skipped: {} is not there: `make console` and `tools/setup test` bring it", needed.display());
            return;
        }
    }
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("console");
    let seen = Command::new("node")
        .current_dir(&web)
        .arg("e2e/console.mjs")
        .arg(site())
        .arg(&pictures)
        .output()
        .unwrap_or_else(|e| panic!("node: {e}"));
    println!("{}\npictures: {}", String::from_utf8_lossy(&seen.stdout), pictures.display());
    assert!(seen.status.success(), "{}", String::from_utf8_lossy(&seen.stderr));
}

/// The example beside this test: both are built together.
fn site() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().join("examples/console_site")
}
