//! Disks and images that fail on purpose, for the tests of every crate.
