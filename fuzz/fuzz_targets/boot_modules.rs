//! Any text as each index of modules in the boot image: every module is loaded once at most.
#![no_main]

use kernel_modules::{IndexText, parse_index};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut parts = text.splitn(5, '\0');
    let mut part = || parts.next().unwrap_or_default();
    let (alias, text) = (part(), IndexText { dep: part(), alias: part(), softdep: part(), builtin: part() });
    let index = parse_index(text);
    for name in index.resolve(alias).into_iter().chain([alias]) {
        let mut paths = index.load_order(name);
        let count = paths.len();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), count);
    }
});
