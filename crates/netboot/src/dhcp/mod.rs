//! DHCP messages (RFC 2131) as far as proxyDHCP needs them, with the options of PXE (RFC 4578, PXE 2.1 section 2.2).
//!
//! The reader takes what it needs and leaves the rest alone: firmware is old and cannot be mended, and one strange option
//! must not keep a machine from starting. That is why it is our own; the libraries refuse such messages.

mod message;
mod vendor;

pub(crate) use message::{BOOT_FILE, Options};
pub use message::{MESSAGE_LENGTH_MAX, MessageKind, Reply, Request, parse_request};
pub use vendor::{BOOT_IMAGE_ITEM, boot_item, boot_item_reply, direct_boot, menu};

/// Any bytes as a request, then through the responder: nothing may panic, and what is answered must be readable.
pub fn fuzz_message(bytes: &[u8]) {
    let Some(request) = parse_request(bytes) else { return };
    crate::proxy::fuzz_request(&request);
}
