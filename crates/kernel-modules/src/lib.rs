//! Linux kernel modules: what a module file says of itself, and what depmod wrote about all of them.
//!
//! The builder of the boot image and the boot image itself ask the same questions (which module serves this device,
//! what must be loaded before it, which firmware does it name, for which kernel was it made, who signed it), so the
//! answers stand here once. Bytes and text in, values out: nothing is read from disk and nothing is loaded.

mod index;
mod info;
mod pattern;
mod signature;

pub use index::{Index, IndexText, module_name, parse_index};
pub use info::{InfoError, ModuleInfo, parse_module};
pub use pattern::matches;
pub use signature::{common_names, module_signer};
