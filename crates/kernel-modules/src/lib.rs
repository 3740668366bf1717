//! Linux kernel modules: what a module file says of itself, what depmod wrote about all of them, and what is in the files
//! that drivers come in (modules, firmware, Debian packages of them).
//!
//! The builder of the boot image, the boot image itself and the controller's driver library ask the same questions (which
//! module serves this device, what must be loaded before it, which firmware does it name, for which kernel was it made,
//! who signed it), so the answers stand here once. Bytes and text in, values out: nothing is read from disk and nothing is
//! loaded.

mod driver;
mod index;
mod info;
mod package;
mod pattern;
mod signature;

pub use driver::{DriverError, NAME_LENGTH_MAX, Part, is_driver_name, is_firmware_name, read_driver};
pub use index::{Index, IndexText, MissingModule, module_name, parse_index};
pub use info::{InfoError, ModuleInfo, parse_module};
pub use pattern::matches;
pub use signature::{common_names, module_signer};
