//! Disks and volumes: brought online, looked for by their partition tables, given letters.
//!
//! Unsafe for `DeviceIoControl` and for the volumes' functions; answers are read from their bytes (`drive_layout`).
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::AsRawHandle;

use machine::firstboot::{DiskSignature, PartitionIdentity, StepResult};
use windows_sys::Win32::Foundation::{ERROR_MORE_DATA, GetLastError, INVALID_HANDLE_VALUE};
use windows_sys::Win32::Storage::FileSystem::{
    DeleteVolumeMountPointW, FindFirstVolumeW, FindNextVolumeW, FindVolumeClose, GetVolumePathNamesForVolumeNameW,
    SetVolumeMountPointW,
};
use windows_sys::Win32::System::IO::DeviceIoControl;
use windows_sys::Win32::System::Ioctl::{
    DISK_ATTRIBUTE_OFFLINE, DISK_ATTRIBUTE_READ_ONLY, IOCTL_DISK_GET_DISK_ATTRIBUTES, IOCTL_DISK_GET_DRIVE_LAYOUT_EX,
    IOCTL_DISK_SET_DISK_ATTRIBUTES, IOCTL_DISK_UPDATE_PROPERTIES,
};

use super::{from_wide, last_error, wide};
use crate::drive_layout::{DriveLayout, parse_drive_layout, parse_volume_extents};
use crate::letters::{LetterChange, VolumeSeen};
use crate::{Error, ErrorKind, Result};

/// CTL_CODE(IOCTL_VOLUME_BASE, 0, METHOD_BUFFERED, FILE_ANY_ACCESS) of ntddvol.h.
const IOCTL_VOLUME_GET_VOLUME_DISK_EXTENTS: u32 = 0x56_0000;
/// Numbers of disks that are tried, and volumes that are looked at.
const DISKS_MAX: u32 = 256;
const VOLUMES_MAX: usize = 1000;
/// Longest answer about a disk's partitions: 128 of a GPT need 18,480 bytes.
const LAYOUT_BYTES_MAX: usize = 1 << 20;
/// `\\?\Volume{GUID}\`, with its end.
const VOLUME_UNITS: usize = 64;

/// Brings the disk online and makes it writable, for good.
pub(super) fn bring_online(wanted: &DiskSignature) -> Result<StepResult> {
    let has_it = |layout: &DriveLayout| layout.disk.as_ref() == Some(wanted);
    let numbers = 0..DISKS_MAX;
    let found =
        numbers.filter_map(|number| open_disk(number, true)).find(|disk| layout(disk).is_ok_and(|it| has_it(&it)));
    let disk = found.ok_or_else(|| Error::new(ErrorKind::Missing, "no disk has this signature"))?;
    let mut answer = [0; 16];
    control(&disk, IOCTL_DISK_GET_DISK_ATTRIBUTES, &[], &mut answer)?;
    let attributes = u64::from_le_bytes(answer[8..].try_into().unwrap_or_default());
    let both = DISK_ATTRIBUTE_OFFLINE | DISK_ATTRIBUTE_READ_ONLY;
    if attributes & both == 0 {
        return Ok(StepResult::AlreadySo);
    }
    // SET_DISK_ATTRIBUTES: 0 its length, 4 whether it holds over restarts, 8 attributes, 16 which of them are meant, 24 unused
    let mut request = [0; 40];
    (request[0], request[4]) = (40, 1);
    request[16..24].copy_from_slice(&both.to_le_bytes());
    control(&disk, IOCTL_DISK_SET_DISK_ATTRIBUTES, &request, &mut [])?;
    control(&disk, IOCTL_DISK_UPDATE_PROPERTIES, &[], &mut [])?;
    Ok(StepResult::Done)
}

/// The volumes that are there.
pub(super) fn volumes() -> Result<Vec<VolumeSeen>> {
    let boot = std::env::var("SystemDrive").ok().and_then(|drive| drive.chars().next());
    let mut seen = Vec::new();
    let mut layouts: Vec<(u32, Option<DriveLayout>)> = Vec::new();
    for path in volume_paths()? {
        let letter = letter_of(&path);
        let partition = partition_of(&path, &mut layouts);
        let is_boot = letter.is_some() && letter == boot.map(|letter| letter.to_ascii_uppercase());
        seen.push(VolumeSeen { path, partition, letter, is_boot });
    }
    Ok(seen)
}

/// Changes a letter.
pub(super) fn change_letter(change: &LetterChange) -> Result<()> {
    match change {
        LetterChange::Free { letter } => {
            let point = wide(&format!("{letter}:\\"));
            // SAFETY: the text ends with a zero.
            let done = unsafe { DeleteVolumeMountPointW(point.as_ptr()) };
            if done == 0 { Err(last_error(format!("{letter}: is not freed"))) } else { Ok(()) }
        }
        LetterChange::Give { volume, letter } => {
            let (point, path) = (wide(&format!("{letter}:\\")), wide(volume));
            // SAFETY: both texts end with a zero.
            let done = unsafe { SetVolumeMountPointW(point.as_ptr(), path.as_ptr()) };
            if done == 0 { Err(last_error(format!("{letter}: is not given"))) } else { Ok(()) }
        }
    }
}

fn volume_paths() -> Result<Vec<String>> {
    let mut units = [0; VOLUME_UNITS];
    let mut paths = Vec::new();
    // SAFETY: the buffer is as long as said.
    let search = unsafe { FindFirstVolumeW(units.as_mut_ptr(), 64) };
    if search == INVALID_HANDLE_VALUE {
        return Err(last_error("volumes"));
    }
    loop {
        paths.push(from_wide(&units));
        // SAFETY: the search is open, the buffer is as long as said.
        if paths.len() >= VOLUMES_MAX || unsafe { FindNextVolumeW(search, units.as_mut_ptr(), 64) } == 0 {
            break;
        }
    }
    // SAFETY: the search is open, and closed here alone.
    unsafe { FindVolumeClose(search) };
    Ok(paths)
}

fn letter_of(volume: &str) -> Option<char> {
    let path = wide(volume);
    let mut units = [0_u16; 4096];
    let mut length = 0;
    // SAFETY: the text ends with a zero, the buffer is as long as said, `length` is written to.
    let done = unsafe { GetVolumePathNamesForVolumeNameW(path.as_ptr(), units.as_mut_ptr(), 4096, &raw mut length) };
    if done == 0 {
        return None;
    }
    let names = units.split(|unit| *unit == 0).map(String::from_utf16_lossy);
    let letters = names.filter(|name| name.len() == 3 && name.ends_with(":\\"));
    letters.filter_map(|name| name.chars().next()).next().map(|letter| letter.to_ascii_uppercase())
}

fn partition_of(volume: &str, layouts: &mut Vec<(u32, Option<DriveLayout>)>) -> Option<PartitionIdentity> {
    let device = OpenOptions::new().access_mode(0).open(volume.trim_end_matches('\\')).ok()?;
    let mut answer = [0; 32];
    control(&device, IOCTL_VOLUME_GET_VOLUME_DISK_EXTENTS, &[], &mut answer).ok()?;
    let extent = parse_volume_extents(&answer).ok()??;
    if !layouts.iter().any(|(number, _)| *number == extent.disk) {
        layouts.push((extent.disk, open_disk(extent.disk, false).and_then(|disk| layout(&disk).ok())));
    }
    let (_, known) = layouts.iter().find(|(number, _)| *number == extent.disk)?;
    let partitions = &known.as_ref()?.partitions;
    partitions.iter().find(|(offset, _)| *offset == extent.offset).map(|(_, identity)| identity.clone())
}

fn open_disk(number: u32, writable: bool) -> Option<File> {
    OpenOptions::new().read(true).write(writable).open(format!(r"\\.\PhysicalDrive{number}")).ok()
}

fn layout(disk: &File) -> Result<DriveLayout> {
    let mut answer = vec![0; 32 << 10];
    loop {
        match control(disk, IOCTL_DISK_GET_DRIVE_LAYOUT_EX, &[], &mut answer) {
            Ok(length) => return parse_drive_layout(&answer[..length.min(answer.len())]),
            Err(_) if answer.len() < LAYOUT_BYTES_MAX => answer.resize(answer.len() * 4, 0),
            Err(error) => return Err(error),
        }
    }
}

/// Asks a device's driver; how many bytes it answered.
fn control(device: &File, code: u32, request: &[u8], answer: &mut [u8]) -> Result<usize> {
    let lengths = (u32::try_from(request.len()).unwrap_or(0), u32::try_from(answer.len()).unwrap_or(0));
    let mut length = 0;
    // SAFETY: the handle is open, both buffers are as long as said, `length` is written to, and nothing goes on behind the call.
    let done = unsafe {
        DeviceIoControl(
            device.as_raw_handle(),
            code,
            request.as_ptr().cast(),
            lengths.0,
            answer.as_mut_ptr().cast(),
            lengths.1,
            &raw mut length,
            std::ptr::null_mut(),
        )
    };
    // SAFETY: takes nothing.
    if done == 0 && !(code == IOCTL_VOLUME_GET_VOLUME_DISK_EXTENTS && unsafe { GetLastError() } == ERROR_MORE_DATA) {
        return Err(last_error(format!("request {code:#x} to the disk's driver")));
    }
    Ok(length as usize)
}
