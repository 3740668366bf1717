//! Adds boot entries to an OVMF variable store, as an installed system's firmware has them.
//!
//! Layout: a firmware volume header (PI specification, volume 3, 3.2.1), behind it EDK2's authenticated variable store
//! (`MdeModulePkg/Include/Guid/VariableFormat.h`): a header of 28 bytes, then variables aligned to 4, the rest 0xff.

use uuid::Uuid;

use crate::{Error, Result};

/// EFI_GLOBAL_VARIABLE.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Non-volatile, boot service and runtime access.
const ATTRIBUTES: u32 = 7;
const VARIABLE_HEADER: usize = 60;
const STORE_HEADER: usize = 28;

/// An EFI system partition, as a device path names it.
pub(crate) struct Esp {
    pub(crate) number: u32,
    pub(crate) first_sector: u64,
    pub(crate) sectors: u64,
    pub(crate) partition: Uuid,
}

/// Adds `Boot0001`, which starts `loader` (`\EFI\debian\shimx64.efi`) from `esp`, and `BootOrder` with it alone.
pub(crate) fn add_boot_entry(store: &mut [u8], description: &str, esp: &Esp, loader: &str) -> Result<()> {
    append(store, "Boot0001", &load_option(description, esp, loader)?)?;
    append(store, "BootOrder", &1u16.to_le_bytes())
}

/// EFI_LOAD_OPTION (UEFI specification 3.1.3) with a path of a hard drive, a file and the end (10.3).
fn load_option(description: &str, esp: &Esp, loader: &str) -> Result<Vec<u8>> {
    let mut path = vec![4, 1, 42, 0];
    path.extend(esp.number.to_le_bytes());
    path.extend(esp.first_sector.to_le_bytes());
    path.extend(esp.sectors.to_le_bytes());
    path.extend(esp.partition.to_bytes_le());
    path.extend([2, 2]); // GPT, signature is a GUID
    let name = ucs2(loader);
    path.extend([4, 4]);
    path.extend(length(name.len() + 4)?);
    path.extend(name);
    path.extend([0x7f, 0xff, 4, 0]);
    let mut option = 1u32.to_le_bytes().to_vec(); // LOAD_OPTION_ACTIVE
    option.extend(length(path.len())?);
    option.extend(ucs2(description));
    option.extend(path);
    Ok(option)
}

/// State of a variable that is there, and the bit that is cleared in one that is not any more (VAR_ADDED, VAR_DELETED).
const ADDED: u8 = 0x3f;
const DELETED: u8 = 0xfd;

/// Writes a variable into the first free place; one of that name is there no more.
fn append(store: &mut [u8], name: &str, data: &[u8]) -> Result<()> {
    let volume_header = usize::from(u16::from_le_bytes(array(store, 48)?));
    let size = u32::from_le_bytes(array(store, volume_header + 16)?);
    let end = volume_header + usize::try_from(size).unwrap_or(usize::MAX);
    if end > store.len() || array::<2>(store, volume_header + 20)? != [0x5a, 0xfe] {
        return Err(Error::new("variable store: expected a formatted, healthy store behind the volume header"));
    }
    let mut at = volume_header + STORE_HEADER;
    let wanted = ucs2(name);
    while array::<2>(store, at)? == [0xaa, 0x55] {
        let name_size = u32::from_le_bytes(array(store, at + 36)?) as usize;
        let data_size = u32::from_le_bytes(array(store, at + 40)?) as usize;
        let begin = at + VARIABLE_HEADER;
        if store.get(begin..begin + name_size).is_some_and(|name| name == wanted) {
            store[at + 2] &= DELETED;
        }
        at = (begin + name_size + data_size).next_multiple_of(4);
    }
    let name = wanted;
    let mut variable = vec![0xaa, 0x55, ADDED, 0]; // StartId, state
    variable.extend(ATTRIBUTES.to_le_bytes());
    variable.extend([0; 8 + 16 + 4]); // monotonic count, time stamp, public key
    for size in [name.len(), data.len()] {
        variable.extend(u32::try_from(size).map_err(|_| Error::new("variable too large"))?.to_le_bytes());
    }
    variable.extend(Uuid::try_parse(GLOBAL).map_err(|e| Error::new(e.to_string()))?.to_bytes_le());
    variable.extend(name);
    variable.extend(data);
    match store[..end].get_mut(at..at + variable.len()) {
        Some(place) if place.iter().all(|b| *b == 0xff) => place.copy_from_slice(&variable),
        _ => return Err(Error::new("variable store: no free place")),
    }
    Ok(())
}

fn array<const N: usize>(store: &[u8], at: usize) -> Result<[u8; N]> {
    store
        .get(at..at + N)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| Error::new(format!("variable store: expected {N} bytes at {at:#x}, found its end")))
}

fn length(bytes: usize) -> Result<[u8; 2]> {
    u16::try_from(bytes).map(u16::to_le_bytes).map_err(|_| Error::new("device path too long"))
}

fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}
