//! Windows guests: their registry, their releases, the files that describe their drivers, which driver is for what, and
//! what they start from.

pub mod bcd;
pub mod boot_ini;
pub mod boot_manager;
pub mod boot_sector;
pub mod drive_letters;
pub mod drivers;
mod fixups;
mod guid;
pub mod hive;
pub mod inf;
pub mod inspection;
mod loader_signature;
mod partition;
pub mod path;
pub mod reg_text;
mod registry_edit;
mod release;
pub mod system;
pub mod volumes;

pub use fixups::{Additions, FirstBoot, Script, SystemVolume, plan};
pub use guid::Guid;
pub use loader_signature::LoaderSignature;
pub use partition::{Partition, PartitionMove};
pub use registry_edit::RegistryEdit;
pub use release::{Architecture, Product, Release};
pub use system::Windows;
