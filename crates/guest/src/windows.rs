//! Windows guests: their registry.

pub mod hive;
