//! Sets of firmware RAID, made by Linux' own mdadm in a virtual machine: the judge of what reads them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use qemu::{Disk, DiskBus, HbaModel, Image, NicBackend};

use crate::tool::Tool;
use crate::{Boot, Error, Kind, Result, Session, SourceMachine, cache};

const BOOT: Duration = Duration::from_secs(1800);
const COMMAND: Duration = Duration::from_secs(900);
const MIB: u64 = 1 << 20;

/// A set of disks with one volume.
#[derive(Clone, Debug)]
pub struct FirmwareRaid {
    /// Metadata as mdadm names it: `imsm`, `ddf`.
    pub format: String,
    /// Level as mdadm names it: `0`, `1`, `5`, `10`.
    pub level: String,
    /// Raw images of its disks.
    pub disks: Vec<PathBuf>,
    /// Their serial numbers.
    pub serials: Vec<String>,
    /// Bytes of the volume, as the kernel showed them.
    pub size: u64,
}

/// Makes a set for each of `wanted` (format, level, number of disks) in `folder`; each volume begins with the bytes of
/// `content`, and its disks have room for them and no more than some MiB beside.
pub fn make_firmware_raid(folder: &Path, wanted: &[(&str, &str, u64)], content: &Path) -> Result<Vec<FirmwareRaid>> {
    let length = fs::metadata(content).map_err(|e| Error::file(content, e))?.len();
    let machine = SourceMachine::make(Kind::A, folder)?;
    let mut hardware = machine.hardware(Boot::Disk, NicBackend::Unplugged);
    hardware.disks[0].snapshot = true;
    let disk = |path: &Path, serial: &str, bus: DiskBus| Disk {
        serial: Some(serial.to_owned()),
        ignore_flush: true,
        ..Disk::new(Image::new(path, "raw"), bus)
    };
    // A MiB later than it begins, or the machine would find its filesystems and take one for its own.
    let shifted = folder.join("content.shifted");
    let copy = ["bs=1M", "seek=1", "conv=sparse", "status=none"];
    let (from, to) = (format!("if={}", content.display()), format!("of={}", shifted.display()));
    Tool::new("dd", "coreutils").args([from, to]).args(copy).run()?;
    hardware.disks.push(disk(&shifted, "CONTENT", DiskBus::Virtio));
    hardware.disks.push(disk(&mdadm(folder)?, "MDADM", DiskBus::Virtio));
    let mut on_scsi = 0;
    let mut sets = Vec::new();
    for (number, &(format, level, count)) in wanted.iter().enumerate() {
        let data_disks = match level {
            "1" => 1,
            "5" => count - 1,
            "10" => count / 2,
            _ => count,
        };
        let mut set = FirmwareRaid {
            format: format.into(),
            level: level.into(),
            disks: Vec::new(),
            serials: Vec::new(),
            size: 0,
        };
        // An adapter has seven places, and the disks of a set are of one kind.
        let bus = if on_scsi + count <= 7 { DiskBus::Scsi(HbaModel::VirtioScsi) } else { DiskBus::Nvme };
        on_scsi += if bus == DiskBus::Nvme { 0 } else { count };
        for number_in_set in 0..count {
            // Longer than what the metadata has room for.
            let serial = format!("VCLAB-012345678-S{number}D{number_in_set}");
            let path = folder.join(format!("raid{number}-{number_in_set}.raw"));
            let file = File::create(&path).map_err(|e| Error::file(&path, e))?;
            let size = (length.div_ceil(data_disks)).next_multiple_of(MIB) + 64 * MIB;
            file.set_len(size).map_err(|e| Error::file(&path, e))?;
            hardware.disks.push(disk(&path, &serial, bus));
            set.disks.push(path);
            set.serials.push(serial);
        }
        sets.push(set);
    }
    let vm = hardware.start()?;
    let mut session = Session::login(vm.serial(0), &machine.hostname, &machine.root_password, BOOT)?;
    // The package is on a disk as a tar file; the machine's own disk is thrown away.
    session.output(
        "export PATH=$PATH:/usr/sbin; by() { lsblk -dno NAME,SERIAL | sed -n \"s|^\\([^ ]*\\)  *$1\\$|/dev/\\1|p\"; }; \
         tar -xf $(by MDADM) -C /tmp && dpkg-deb -x /tmp/mdadm_*.deb /tmp/mdadm && cp /tmp/mdadm/sbin/* /usr/sbin/ && \
         modprobe -a raid0 raid1 raid10 raid456",
        COMMAND,
    )?;
    for set in &mut sets {
        let count = set.disks.len();
        let disks: Vec<String> = set.serials.iter().map(|serial| format!("$(by '{serial}')")).collect();
        let script = format!(
            "export IMSM_NO_PLATFORM=1 MDADM_NO_UDEV=1; \
             mdadm --create /dev/md120 --run --metadata={} -n {count} {} && \
             mdadm --create /dev/md121 --run {} -n {count} /dev/md120 && \
             {{ mdadm --wait /dev/md121 || true; }} && \
             dd if=$(by CONTENT) of=/dev/md121 bs=1M skip=1 conv=sparse,fsync && \
             echo SIZE $(blockdev --getsize64 /dev/md121) && \
             mdadm --stop /dev/md121 && mdadm --stop /dev/md120",
            set.format,
            disks.join(" "),
            // A mirror has no strips.
            if set.level == "1" { "-l 1".to_owned() } else { format!("--chunk=64 -l {}", set.level) }
        );
        let said = session.output(&script, COMMAND)?;
        let size = said.lines().find_map(|line| line.strip_prefix("SIZE ")?.parse().ok());
        set.size = size.ok_or_else(|| Error::new(format!("no size of the volume in: {said}")))?;
    }
    session.output("sync", COMMAND)?;
    vm.kill();
    Ok(sets)
}

/// A disk that holds a tar file with Debian's package of mdadm.
fn mdadm(folder: &Path) -> Result<PathBuf> {
    let cached = cache::entry("mdadm", "", |folder| {
        let package = ["download", "-q", "-o", "APT::Sandbox::User=root", "mdadm"];
        Tool::new("apt-get", "apt").args(package).dir(folder).run()?;
        let script = "tar -cf mdadm.tar mdadm_*.deb && truncate -s %1M mdadm.tar";
        Tool::new("sh", "dash").args(["-c", script]).dir(folder).run().map(drop)
    })?;
    let disk = folder.join("mdadm.raw");
    fs::copy(cached.join("mdadm.tar"), &disk).map_err(|e| Error::file(&disk, e))?;
    Ok(disk)
}
