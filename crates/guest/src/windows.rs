//! Windows guests: their registry, their releases, the files that describe their drivers, and which driver is for what.

pub mod drivers;
pub mod hive;
pub mod inf;
pub mod path;
pub mod reg_text;
mod release;
pub mod system;

pub use release::{Architecture, Product, Release};
pub use system::Windows;
