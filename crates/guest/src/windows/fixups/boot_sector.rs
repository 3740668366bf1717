//! The geometry in the boot sector of a Windows before Vista, whose boot code reads NTLDR by the heads that stand there.
//!
//! Some makers' BIOSes show disks with 240 heads, or others; each BIOS of a virtual machine shows a disk beyond the reach of cylinders
//! with 255 ([`boot_sector`](crate::windows::boot_sector) has the sources). A smaller disk is shown by each BIOS in its own way,
//! some by what stands on it: there nothing is changed.

use machine::{ByteCount, ByteOffset, FirmwareKind};

use crate::Result;
use crate::plan::{Change, Fixup};
use crate::windows::Release;
use crate::windows::boot_sector::{BootSector, Filesystem, Geometry, plan_geometry};

/// Sectors that 1024 cylinders of 255 heads with 63 sectors reach.
const REACH: u64 = 1024 * 255 * 63;

/// The volume with Windows, outside of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemVolume {
    /// Position of its disk among those that the VM gets.
    pub disk: usize,
    /// Bytes of that disk.
    pub disk_size: ByteCount,
    /// First byte of the volume.
    pub offset: ByteOffset,
    /// Its first 512 bytes.
    pub sector: Vec<u8>,
    /// Where on the disk its filesystem keeps an equal copy of them, if it does.
    pub copy: Option<ByteOffset>,
}

/// Plans the fix-up `boot-sector`; nothing where the boot code does not look at the geometry, or is none that is known.
pub(super) fn plan(volume: &SystemVolume, release: &Release, firmware: FirmwareKind) -> Option<Fixup> {
    if release.major > 5 || firmware == FirmwareKind::Uefi {
        return None;
    }
    let found = BootSector::parse(&volume.sector).ok().filter(|found| found.filesystem == Filesystem::Ntfs)?;
    let size = u64::from(found.sector_size);
    let (sectors, start) = (volume.disk_size.0 / size, volume.offset.0 / size);
    if sectors <= REACH {
        return None;
    }
    let wanted = Geometry::of_bios(sectors, start)?;
    let places = [Some(volume.offset), volume.copy].into_iter().flatten();
    let patches = places.map(|place| plan_geometry(volume.disk, place, &volume.sector, wanted));
    let patches: Vec<_> = patches.collect::<Result<_>>().ok()?;
    let change = |patch| Change::Patch { path: format!("disk {}", volume.disk), patch };
    Some(Fixup::new(
        "boot-sector",
        "geometry of the disk in the boot sector of Windows",
        "by another geometry than the BIOS has, the boot code finds no NTLDR",
        patches.into_iter().flatten().map(change).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::Directory;
    use crate::plan::{Plan, State, apply};
    use crate::windows::Architecture;

    const START: u64 = 63 * 512;
    const COPY: ByteOffset = ByteOffset(900 * 512);

    fn sector(heads: u16) -> Vec<u8> {
        let mut sector = vec![0; 512];
        let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
        put(3, b"NTFS    ");
        put(0x0b, &512u16.to_le_bytes());
        put(0x18, &63u16.to_le_bytes());
        put(0x1a, &heads.to_le_bytes());
        put(0x1c, &63u32.to_le_bytes());
        put(0x1fe, &[0x55, 0xaa]);
        sector
    }

    fn planned(heads: u16, gib: u64, release: &str, firmware: FirmwareKind) -> Option<Fixup> {
        let (disk_size, offset) = (ByteCount::gib(gib), ByteOffset(START));
        let volume = SystemVolume { disk: 0, disk_size, offset, sector: sector(heads), copy: Some(COPY) };
        plan(&volume, &Release::parse(release, Architecture::X86).unwrap(), firmware)
    }

    #[test]
    fn the_boot_code_of_xp_gets_the_heads_that_every_bios_shows_of_a_large_disk() {
        let fixup = planned(240, 80, "xp", FirmwareKind::Bios).unwrap();
        let text = fixup.to_string();
        println!("{text}");
        assert!(text.contains("disk 0 at 32280: 3f00f0003f000000 becomes 3f00ff003f000000"));
        assert!(planned(255, 80, "xp", FirmwareKind::Bios).unwrap().already_so);
        for (gib, release, firmware) in
            [(7, "xp", FirmwareKind::Bios), (80, "7", FirmwareKind::Bios), (80, "2003", FirmwareKind::Uefi)]
        {
            assert_eq!(planned(240, gib, release, firmware), None, "{release}, {gib} GiB");
        }
    }

    #[test]
    fn the_disk_is_patched_once_and_never_where_something_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk");
        let disk = std::fs::File::create_new(&image).unwrap();
        disk.set_len(1 << 20).unwrap();
        disk.write_all_at(&sector(240), START).unwrap();
        disk.write_all_at(&sector(240), COPY.0).unwrap();
        let fixups = vec![planned(240, 80, "xp", FirmwareKind::Bios).unwrap()];
        let plan = Plan { fixups, ..Plan::without_fixups(FirmwareKind::Bios, machine::Family::Windows) };
        let mut tree = Directory::open(folder.path()).unwrap();
        let outcome = |tree: &mut Directory| apply(&plan, &[], tree).remove(0);
        assert!(outcome(&mut tree).detail.contains("disk 0 is not known"));
        let mut tree = tree.with_disks(vec![image.clone()]);
        assert_eq!(outcome(&mut tree).state, State::Done);
        let after = std::fs::read(&image).unwrap();
        assert_eq!(after[63 * 512..64 * 512], sector(255));
        assert_eq!(after[900 * 512..901 * 512], sector(255));
        assert_eq!(outcome(&mut tree).state, State::AlreadySo);
        disk.write_all_at(&sector(16), START).unwrap();
        let failed = outcome(&mut tree);
        println!("{}", failed.detail);
        assert!(failed.state == State::Failed && failed.detail.contains("expected 3f00f000"));
    }
}
