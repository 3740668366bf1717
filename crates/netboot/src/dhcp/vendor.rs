//! Option 43 between PXE client and server: options within the option (PXE 2.1, table 2-1).

use std::net::Ipv4Addr;

const DISCOVERY_CONTROL: u8 = 6;
const BOOT_SERVERS: u8 = 8;
const BOOT_MENU: u8 = 9;
const MENU_PROMPT: u8 = 10;
const BOOT_ITEM: u8 = 71;
const END: u8 = 255;

/// No search for boot servers: the boot file of this very message is taken.
const TAKE_BOOT_FILE: u8 = 0b1000;
/// Only the servers of the list are asked; neither broadcast nor multicast.
const ASK_LISTED_SERVERS: u8 = 0b0111;

/// The menu's item that returns to the firmware, which goes on in its own order (type 0 by the specification).
const LOCAL_BOOT_ITEM: u16 = 0;
/// The menu's item of the boot image; types from 0x8000 on are a vendor's own.
pub const BOOT_IMAGE_ITEM: u16 = 0x8077;

/// The boot file of this message is taken at once.
pub fn direct_boot() -> Vec<u8> {
    vec![DISCOVERY_CONTROL, 1, TAKE_BOOT_FILE, END]
}

/// A menu shown by the firmware: the first item is taken after `seconds`, F8 shows them all. 255 seconds would wait for
/// ever.
pub fn menu(server: Ipv4Addr, seconds: u8, prompt: &str, local: &str, image: &str) -> Vec<u8> {
    let mut bytes = vec![DISCOVERY_CONTROL, 1, ASK_LISTED_SERVERS];
    let servers = [&BOOT_IMAGE_ITEM.to_be_bytes()[..], &[1], &server.octets()].concat();
    option(&mut bytes, BOOT_SERVERS, &servers);
    let mut items = Vec::new();
    for (item, text) in [(LOCAL_BOOT_ITEM, local), (BOOT_IMAGE_ITEM, image)] {
        items.extend_from_slice(&item.to_be_bytes());
        items.extend_from_slice(&counted(text));
    }
    option(&mut bytes, BOOT_MENU, &items);
    option(&mut bytes, MENU_PROMPT, &[&[seconds], prompt.as_bytes()].concat());
    bytes.push(END);
    bytes
}

/// The item that a client chose from the menu.
pub fn boot_item(vendor: &[u8]) -> Option<u16> {
    let mut rest = vendor;
    loop {
        match rest.split_first()? {
            (0, behind) => rest = behind,
            (&END, _) => return None,
            (&code, behind) => {
                let (&length, behind) = behind.split_first()?;
                let value = behind.get(..usize::from(length))?;
                if code == BOOT_ITEM {
                    // Its layer, which we do not have, follows.
                    return Some(u16::from_be_bytes([*value.first()?, *value.get(1)?]));
                }
                rest = &behind[usize::from(length)..];
            }
        }
    }
}

/// The answer to a chosen item: the same item, whose boot file the message names.
pub fn boot_item_reply(item: u16) -> Vec<u8> {
    let [high, low] = item.to_be_bytes();
    vec![BOOT_ITEM, 4, high, low, 0, 0, END]
}

fn counted(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    [&[length], &text.as_bytes()[..usize::from(length)]].concat()
}

fn option(bytes: &mut Vec<u8>, code: u8, value: &[u8]) {
    let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
    bytes.extend_from_slice(&[code, length]);
    bytes.extend_from_slice(&value[..usize::from(length)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_menu_has_the_own_disk_first() {
        let bytes = menu(Ipv4Addr::new(10, 0, 0, 1), 10, "F8", "own", "image");
        let expected =
            b"\x06\x01\x07\x08\x07\x80\x77\x01\x0a\0\0\x01\x09\x0e\0\0\x03own\x80\x77\x05image\x0a\x03\x0aF8\xff";
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_chosen_item_is_found_among_others() {
        assert_eq!(boot_item(&[0, 1, 4, 1, 2, 3, 4, 71, 4, 0x80, 0x77, 0, 0, 255]), Some(BOOT_IMAGE_ITEM));
        for broken in [[].as_slice(), &[71], &[71, 4, 0], &[71, 1, 0], &[255, 71, 4, 0, 0, 0, 0], &[9, 200, 1]] {
            assert_eq!(boot_item(broken), None, "{broken:?}");
        }
        assert_eq!(boot_item(&boot_item_reply(BOOT_IMAGE_ITEM)), Some(BOOT_IMAGE_ITEM));
    }
}
