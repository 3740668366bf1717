//! What depends on licences and signatures: how Windows was activated, and whether it accepts today's drivers.
//!
//! `ProductId` has `OEM` in it where the maker of the machine activated it; `DigitalProductId4` says the channel at
//! byte 0x3f8 (`OEM:SLP`, `OEM:DM`, `Retail`, `Volume:MAK`, `Volume:GVLK`), since Windows Vista. Windows 7 and Server
//! 2008, R2 too, accept drivers with SHA-2 signatures after KB4474419 alone (Microsoft, "2019 SHA-2 Code Signing
//! Support requirement"); the component store says whether it is installed (`CurrentState` 0x70) or was superseded
//! (0x50).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fields::{Reader, answer, printable};
use crate::Result;
use crate::windows::hive::units;
use machine::Note;

const PACKAGES: &str = "Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\Packages";
const SHA2_UPDATE: &str = "package_for_kb4474419~";
const INSTALLED: [u32; 2] = [0x70, 0x50];
/// Channel of a product key: 64 UTF-16 units.
const CHANNEL: std::ops::Range<usize> = 0x3f8..0x478;

/// Licences and signatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Licensing {
    /// `ProductId`.
    pub product_id: Option<String>,
    /// The channel of the product key.
    pub channel: Option<String>,
    /// Whether KB4474419 is installed, on releases that need it.
    pub has_sha2_update: Option<bool>,
}

impl Licensing {
    pub(super) fn read(reader: &Reader<'_>) -> Result<Self> {
        let version = reader.software("Microsoft\\Windows NT\\CurrentVersion")?;
        let channel = version.bytes("DigitalProductId4")?.and_then(|bytes| parse_channel(&bytes));
        let needs_update = matches!(reader.windows.release.version(), (6, 0 | 1));
        Ok(Self {
            product_id: version.text("ProductId")?,
            channel,
            has_sha2_update: if needs_update { Some(has_sha2_update(reader)?) } else { None },
        })
    }

    /// Whether the licence came with the machine.
    pub fn is_oem(&self) -> bool {
        let is_in = |text: &Option<String>| text.as_ref().is_some_and(|text| text.to_ascii_uppercase().contains("OEM"));
        is_in(&self.channel) || is_in(&self.product_id)
    }

    pub(super) fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        if self.is_oem() {
            notes.push(Note::warning(
                "activated by the maker of the machine (OEM)",
                "the licence is bound to that machine and its firmware: the VM needs one of its own",
            ));
        }
        if self.has_sha2_update == Some(false) {
            notes.push(Note::warning(
                "update KB4474419 is missing",
                "drivers with SHA-2 signatures alone are not loaded: install it first, or older drivers are taken",
            ));
        }
        notes
    }
}

fn has_sha2_update(reader: &Reader<'_>) -> Result<bool> {
    for (name, fields) in reader.software(PACKAGES)?.children()? {
        if name.to_ascii_lowercase().starts_with(SHA2_UPDATE)
            && fields.number("CurrentState")?.is_some_and(|state| INSTALLED.contains(&state))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn parse_channel(product_id: &[u8]) -> Option<String> {
    let units = units(product_id.get(CHANNEL)?);
    let end = units.iter().position(|&unit| unit == 0)?;
    printable(&String::from_utf16_lossy(&units[..end]))
}

impl fmt::Display for Licensing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "product id: {}", self.product_id.as_deref().unwrap_or("not told"))?;
        writeln!(f, "channel: {}", self.channel.as_deref().unwrap_or("not told"))?;
        match self.has_sha2_update {
            Some(is_there) => writeln!(f, "kb4474419 (sha-2 signatures): {}", answer(Some(is_there))),
            None => Ok(()),
        }
    }
}
