//! How each source machine is made from its base.

use std::fs;
use std::path::Path;

use uuid::Uuid;

use crate::base::{Base, ROOT_PASSWORD};
use crate::boot_loader::{self, Entry};
use crate::source_machine::{Kind, SourceMachine, VolumeFact};
use crate::tool::Tool;
use crate::uefi_variables::{self, Esp};
use crate::volume_group::{self, EXTENT, LogicalVolume};
use crate::{Error, Result, content, filesystem};

/// Changes whenever a recipe does.
pub(crate) const VERSION: u32 = 2;

const MIB: u64 = 1 << 20;
const SERIAL_CONSOLE: &str = "console=tty0 console=ttyS0,115200";

pub(crate) fn base(kind: Kind) -> Base {
    match kind {
        Kind::C => Base::Dracut,
        _ => Base::InitramfsTools,
    }
}

/// Makes the machine's files in `folder`: `disk.raw`, `variables.fd`, `machine.json`.
pub(crate) fn make(kind: Kind, base: &Path, folder: &Path) -> Result<()> {
    let work = tempfile::Builder::new()
        .prefix("work-")
        .tempdir_in(folder)
        .map_err(|e| Error::io("making a folder to work in", e))?;
    let tree = work.path().join("tree");
    fs::create_dir(&tree).map_err(|e| Error::file(&tree, e))?;
    Tool::new("tar", "tar")
        .args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"])
        .arg(base)
        .arg("-C")
        .arg(&tree)
        .run()?;
    let making = Making { kind, tree: &tree, work: work.path(), folder };
    let machine = match kind {
        Kind::A => making.machine_a()?,
        Kind::B => making.machine_b()?,
        Kind::C => making.machine_c()?,
        Kind::D => making.machine_d()?,
        Kind::E => making.machine_e()?,
        Kind::F => making.machine_f()?,
    };
    let facts = serde_json::to_vec_pretty(&machine).map_err(|e| Error::new(format!("machine.json: {e}")))?;
    content::write(folder, "machine.json", facts)
}

struct Making<'a> {
    kind: Kind,
    tree: &'a Path,
    work: &'a Path,
    folder: &'a Path,
}

impl Making<'_> {
    fn machine_a(&self) -> Result<SourceMachine> {
        let mut machine = self.identify()?;
        let (start, size) = (MIB, 2047 * MIB);
        machine.disk_size = start + size;
        let root = uuid();
        let release = self.release()?;
        content::write(
            self.tree,
            "etc/fstab",
            format!("UUID={root} / ext4 errors=remount-ro 0 1\n/swapfile none swap sw 0 0\n"),
        )?;
        // Filled, not sparse: the kernel refuses to swap to holes, and a used machine's swap is full of old pages.
        let swap = self.tree.join("swapfile");
        content::write(self.tree, "swapfile", content::random(32 << 20)?)?;
        Tool::new("chmod", "coreutils").arg("600").arg(&swap).run()?;
        filesystem::make_swap(&swap, &uuid())?;
        self.finish_bios_root(&release, &root, &format!("UUID={root}"))?;
        let volume = self.fill_ext4("root.ext4", size, &root, "", self.tree, true)?;
        self.partition("label: dos\nstart=2048, type=83, bootable\n", machine.disk_size)?;
        self.place("root.ext4", start)?;
        boot_loader::install_bios(&self.folder.join("disk.raw"), self.tree, self.work)?;
        machine.volumes = vec![VolumeFact { offset: start, ..volume }];
        Ok(machine)
    }

    /// As (b), but for the serial console, and with `/boot` on the logical volume of the root.
    fn machine_d(&self) -> Result<SourceMachine> {
        let mut machine = self.identify()?;
        let (esp_start, esp_size) = (MIB, 127 * MIB);
        let (pv_start, pv_size) = (128 * MIB, 2047 * MIB);
        machine.disk_size = pv_start + pv_size + MIB;
        let (root, esp) = (uuid(), NewEsp::new(esp_start, esp_size)?);
        let release = self.release()?;
        let fstab = format!(
            "/dev/mapper/vg0-root / ext4 errors=remount-ro 0 1\nUUID={} /boot/efi vfat umask=0077 0 1\n",
            esp.uuid()
        );
        content::write(self.tree, "etc/fstab", fstab)?;
        boot_loader::write_settings(self.tree, SERIAL_CONSOLE, true)?;
        let entry = Entry {
            release: &release,
            boot_uuid: &root,
            folder: "/boot",
            root: "/dev/mapper/vg0-root",
            options: SERIAL_CONSOLE,
            serial: true,
        };
        boot_loader::write_menu(&self.tree.join("boot"), &entry)?;
        let files = self.work.join("esp");
        boot_loader::write_esp(&files, self.tree, &root, "/boot/grub")?;
        let mount_point = self.tree.join("boot/efi");
        fs::create_dir(&mount_point).map_err(|e| Error::file(&mount_point, e))?;

        let pv = self.work.join("pv");
        filesystem::create(&pv, pv_size)?;
        let volumes = [LogicalVolume { name: "root", extents: 1900 * MIB / EXTENT }];
        let offsets = volume_group::make(&pv, "vg0", &machine.hostname, &volumes)?;
        let root_volume = self.fill_ext4("root.ext4", volumes[0].extents * EXTENT, &root, "", self.tree, true)?;
        filesystem::place(&self.work.join("root.ext4"), &pv, offsets[0])?;
        filesystem::make_fat32(&self.work.join("esp.fat"), esp_size, &esp.id, "ESP", &files)?;
        let table = format!(
            "label: gpt\nstart=2048, size={}, type=U, uuid={}\nstart={}, size={}, type=V\n",
            esp_size / 512,
            esp.place.partition,
            pv_start / 512,
            pv_size / 512
        );
        self.partition(&table, machine.disk_size)?;
        for (file, offset) in [("esp.fat", esp_start), ("pv", pv_start)] {
            self.place(file, offset)?;
        }
        let loader = r"\EFI\debian\shimx64.efi";
        self.write_boot_entry("variables.fd", false, "debian", &esp.place, loader)?;
        self.write_boot_entry("secure.fd", true, "debian", &esp.place, loader)?;
        machine.variables = Some("variables.fd".into());
        machine.secure_variables = Some("secure.fd".into());
        machine.volumes = vec![
            fact(esp_start, esp_size, "vfat", &esp.uuid()),
            fact(pv_start, pv_size, "LVM2_member", ""),
            VolumeFact { offset: pv_start + offsets[0], logical_volume: Some("vg0/root".into()), ..root_volume },
        ];
        Ok(machine)
    }

    /// systemd-boot, as `bootctl install` and `kernel-install` leave it on a machine whose ESP is `/boot`.
    fn machine_e(&self) -> Result<SourceMachine> {
        let mut machine = self.identify()?;
        let (esp_start, esp_size) = (MIB, 255 * MIB);
        let (root_start, root_size) = (256 * MIB, 1792 * MIB);
        machine.disk_size = root_start + root_size + MIB;
        let (root, esp) = (uuid(), NewEsp::new(esp_start, esp_size)?);
        let release = self.release()?;
        let fstab =
            format!("UUID={root} / ext4 errors=remount-ro 0 1\nUUID={} /boot vfat umask=0077 0 1\n", esp.uuid());
        content::write(self.tree, "etc/fstab", fstab)?;
        let files = self.work.join("esp");
        fs::rename(self.tree.join("boot"), &files).map_err(|e| Error::file(&files, e))?;
        fs::create_dir(self.tree.join("boot")).map_err(|e| Error::file(self.tree, e))?;
        let loader = "EFI/systemd/systemd-bootx64.efi";
        content::write(&files, "loader/loader.conf", "timeout 1\ndefault debian.conf\n")?;
        let entry = format!(
            "title Debian GNU/Linux\nversion {release}\nlinux /vmlinuz-{release}\ninitrd /initrd.img-{release}\n\
             options root=UUID={root} ro {SERIAL_CONSOLE}\n"
        );
        content::write(&files, "loader/entries/debian.conf", entry)?;
        let program = Path::new("/usr/lib/systemd/boot/efi/systemd-bootx64.efi");
        content::write(&files, loader, fs::read(program).map_err(|e| Error::file(program, e))?)?;
        let volume = self.fill_ext4("root.ext4", root_size, &root, "", self.tree, true)?;
        filesystem::make_fat32(&self.work.join("esp.fat"), esp_size, &esp.id, "ESP", &files)?;
        let table = format!(
            "label: gpt\nstart=2048, size={}, type=U, uuid={}\nstart={}, size={}, type=L\n",
            esp_size / 512,
            esp.place.partition,
            root_start / 512,
            root_size / 512
        );
        self.partition(&table, machine.disk_size)?;
        for (file, offset) in [("esp.fat", esp_start), ("root.ext4", root_start)] {
            self.place(file, offset)?;
        }
        let path = format!("\\{}", loader.replace('/', "\\"));
        self.write_boot_entry("variables.fd", false, "Linux Boot Manager", &esp.place, &path)?;
        machine.variables = Some("variables.fd".into());
        machine.volumes =
            vec![fact(esp_start, esp_size, "vfat", &esp.uuid()), VolumeFact { offset: root_start, ..volume }];
        Ok(machine)
    }

    fn machine_f(&self) -> Result<SourceMachine> {
        let mut machine = self.identify()?;
        let (start, size, boot_size) = (MIB, 1791 * MIB, 255 * MIB);
        machine.disk_size = start + size;
        let (root, boot) = (uuid(), uuid());
        let release = self.release()?;
        let fstab = format!("UUID={root} / ext4 errors=remount-ro 0 1\nUUID={boot} /boot ext4 defaults 0 2\n");
        content::write(self.tree, "etc/fstab", fstab)?;
        boot_loader::write_settings(self.tree, SERIAL_CONSOLE, true)?;
        let root_option = format!("UUID={root}");
        let entry = Entry {
            release: &release,
            boot_uuid: &boot,
            folder: "",
            root: &root_option,
            options: SERIAL_CONSOLE,
            serial: true,
        };
        boot_loader::write_menu(&self.tree.join("boot"), &entry)?;
        let modules = self.tree.join("boot/grub");
        Tool::new("cp", "coreutils").arg("-r").arg(self.tree.join("usr/lib/grub/i386-pc")).arg(modules).run()?;
        let boot_tree = self.work.join("boot");
        fs::rename(self.tree.join("boot"), &boot_tree).map_err(|e| Error::file(&boot_tree, e))?;
        fs::create_dir(self.tree.join("boot")).map_err(|e| Error::file(self.tree, e))?;
        let volume = self.fill_ext4("root.ext4", size, &root, "", self.tree, true)?;
        self.fill_ext4("boot.ext4", boot_size, &boot, "", &boot_tree, false)?;
        let table = "label: dos\nstart=2048, type=83, bootable\n";
        self.partition_file("second.raw", table, start + boot_size)?;
        filesystem::place(&self.work.join("boot.ext4"), &self.folder.join("second.raw"), start)?;
        self.partition(table, machine.disk_size)?;
        self.place("root.ext4", start)?;
        boot_loader::install_bios_for(&self.folder.join("disk.raw"), self.tree, self.work, "(hd1,msdos1)/grub")?;
        machine.second_disk = Some(("second.raw".into(), format!("{}-2", machine.disk_serial)));
        machine.volumes = vec![VolumeFact { offset: start, ..volume }];
        Ok(machine)
    }

    fn machine_c(&self) -> Result<SourceMachine> {
        let mut machine = self.identify()?;
        let (start, size) = (MIB, 1919 * MIB);
        let (swap_start, swap_size) = (start + size + MIB, 127 * MIB);
        machine.disk_size = swap_start + swap_size;
        let (root, swap) = (uuid(), uuid());
        let release = self.release()?;
        content::write(self.tree, "etc/fstab", "/dev/sda1 / ext4 errors=remount-ro 0 1\n/dev/sda5 none swap sw 0 0\n")?;
        self.build_dracut(&release)?;
        self.finish_bios_root(&release, &root, "/dev/sda1")?;
        let volume = self.fill_ext4("root.ext4", size, &root, "", self.tree, true)?;
        let extended = (start + size) / 512;
        let table = format!(
            "label: dos\n1: start=2048, size={}, type=83, bootable\n2: start={extended}, type=5\n5: start={}, type=82\n",
            size / 512,
            swap_start / 512
        );
        self.partition(&table, machine.disk_size)?;
        self.place("root.ext4", start)?;
        let swap_volume = self.fill_swap(swap_size, &swap)?;
        self.place("swap", swap_start)?;
        boot_loader::install_bios(&self.folder.join("disk.raw"), self.tree, self.work)?;
        machine.volumes =
            vec![VolumeFact { offset: start, ..volume }, VolumeFact { offset: swap_start, ..swap_volume }];
        Ok(machine)
    }

    fn machine_b(&self) -> Result<SourceMachine> {
        let mut machine = self.identify()?;
        let (esp_start, esp_size) = (MIB, 127 * MIB);
        let (boot_start, boot_size) = (128 * MIB, 256 * MIB);
        let (pv_start, pv_size) = (384 * MIB, 2175 * MIB);
        machine.disk_size = pv_start + pv_size + MIB;
        let (root, boot, swap, new_esp) = (uuid(), uuid(), uuid(), NewEsp::new(esp_start, esp_size)?);
        let (esp_uuid, esp_partition) = (new_esp.uuid(), new_esp.place.partition);
        let release = self.release()?;
        content::write(
            self.tree,
            "etc/fstab",
            format!(
                "/dev/mapper/vg0-root / ext4 errors=remount-ro 0 1\nUUID={boot} /boot ext4 defaults 0 2\n\
                 UUID={esp_uuid} /boot/efi vfat umask=0077 0 1\n/dev/mapper/vg0-swap none swap sw 0 0\n"
            ),
        )?;
        boot_loader::write_settings(self.tree, "", false)?;
        let entry = Entry {
            release: &release,
            boot_uuid: &boot,
            folder: "",
            root: "/dev/mapper/vg0-root",
            options: "",
            serial: false,
        };
        boot_loader::write_menu(&self.tree.join("boot"), &entry)?;
        let esp = self.work.join("esp");
        boot_loader::write_esp(&esp, self.tree, &boot, "/grub")?;
        let boot_tree = self.work.join("boot");
        fs::rename(self.tree.join("boot"), &boot_tree).map_err(|e| Error::file(&boot_tree, e))?;
        for empty in [self.tree.join("boot"), boot_tree.join("efi")] {
            fs::create_dir(&empty).map_err(|e| Error::file(&empty, e))?;
        }

        let pv = self.work.join("pv");
        filesystem::create(&pv, pv_size)?;
        let volumes = [
            LogicalVolume { name: "root", extents: 1600 * MIB / EXTENT },
            LogicalVolume { name: "swap", extents: 128 * MIB / EXTENT },
        ];
        let offsets = volume_group::make(&pv, "vg0", &machine.hostname, &volumes)?;
        let root_volume = self.fill_ext4("root.ext4", volumes[0].extents * EXTENT, &root, "", self.tree, true)?;
        let swap_volume = self.fill_swap(volumes[1].extents * EXTENT, &swap)?;
        let boot_volume = self.fill_ext4("boot.ext4", boot_size, &boot, "", &boot_tree, false)?;
        filesystem::place(&self.work.join("root.ext4"), &pv, offsets[0])?;
        filesystem::place(&self.work.join("swap"), &pv, offsets[1])?;
        filesystem::make_fat32(&self.work.join("esp.fat"), esp_size, &new_esp.id, "ESP", &esp)?;

        let table = format!(
            "label: gpt\nstart=2048, size={}, type=U, uuid={esp_partition}\nstart={}, size={}, type=L\nstart={}, size={}, type=V\n",
            esp_size / 512,
            boot_start / 512,
            boot_size / 512,
            pv_start / 512,
            pv_size / 512
        );
        self.partition(&table, machine.disk_size)?;
        for (file, offset) in [("esp.fat", esp_start), ("boot.ext4", boot_start), ("pv", pv_start)] {
            self.place(file, offset)?;
        }
        self.write_boot_entry("variables.fd", false, "debian", &new_esp.place, r"\EFI\debian\shimx64.efi")?;
        machine.variables = Some("variables.fd".into());
        machine.volumes = vec![
            fact(esp_start, esp_size, "vfat", &esp_uuid),
            VolumeFact { offset: boot_start, ..boot_volume },
            fact(pv_start, pv_size, "LVM2_member", ""),
            VolumeFact { offset: pv_start + offsets[0], logical_volume: Some("vg0/root".into()), ..root_volume },
            VolumeFact { offset: pv_start + offsets[1], logical_volume: Some("vg0/swap".into()), ..swap_volume },
        ];
        Ok(machine)
    }

    /// Name, keys and files; what depends on the disk stays empty.
    fn identify(&self) -> Result<SourceMachine> {
        let letter = format!("{:?}", self.kind).to_lowercase();
        let number = self.kind as u8 + 1;
        let hostname = format!("phys-{letter}");
        // Slots follow from the order in which QEMU gets its devices.
        let interface = match self.kind {
            Kind::B | Kind::D | Kind::E => "enp0s2",
            Kind::A | Kind::C | Kind::F => "ens3",
        };
        let ssh_host_keys = content::write_identity(self.tree, &hostname, interface)?;
        let files = content::write_files(self.tree, self.work)?;
        Ok(SourceMachine {
            kind: self.kind,
            hostname,
            mac: format!("52:54:00:70:68:0{number}"),
            interface: interface.into(),
            smbios: [
                "Lab Systems Inc.".into(),
                format!("Tower {number}00, rev. 2"),
                format!("LAB{number}SN0042"),
                format!("7c0ffee{number}-1ab0-4000-8000-0000000000{number}{number}"),
            ],
            disk_serial: format!("LAB-DISK-{}{number:04}", letter.to_uppercase()),
            disk: "disk.raw".into(),
            disk_size: 0,
            second_disk: None,
            variables: None,
            secure_variables: None,
            root_password: ROOT_PASSWORD.into(),
            ssh_host_keys,
            files,
            volumes: Vec::new(),
        })
    }

    fn release(&self) -> Result<String> {
        let boot = self.tree.join("boot");
        fs::read_dir(&boot)
            .map_err(|e| Error::file(&boot, e))?
            .flatten()
            .find_map(|entry| entry.file_name().to_str()?.strip_prefix("vmlinuz-").map(str::to_owned))
            .ok_or_else(|| Error::new(format!("{}: no kernel", boot.display())))
    }

    /// dracut's initramfs for this machine alone: AHCI and IDE, no virtio. The configuration says "host only", as it
    /// would after an installation; what the host has is told here, because the build machine is another.
    fn build_dracut(&self, release: &str) -> Result<()> {
        content::write(self.tree, "etc/dracut.conf.d/10-hostonly.conf", "hostonly=\"yes\"\nhostonly_cmdline=\"no\"\n")?;
        let image = format!("/boot/initrd.img-{release}");
        // The mount of /proc lives in a namespace that ends with the program.
        Tool::new("unshare", "util-linux")
            .args(["--mount", "--pid", "--fork", "--kill-child"])
            .arg(format!("--mount-proc={}", self.tree.join("proc").display()))
            .arg("chroot")
            .arg(self.tree)
            .args(["dracut", "--force", "--hostonly", "--no-hostonly-cmdline", "--filesystems", "ext4"])
            // Without them no hardware is guessed from the build machine, and only what is named gets in.
            .args(["--omit", "kernel-modules kernel-modules-extra nvdimm virtiofs qemu overlay-root lunmask crypt dm"])
            .args(["--add-drivers", "ata_piix ata_generic ahci sd_mod ext4 crc32c_generic crc32c-intel"])
            .args([&image, release])
            .run()?;
        let listed = Tool::new("chroot", "coreutils").arg(self.tree).args(["lsinitrd", &image]).run()?;
        // Only the files: the head of the list repeats our arguments.
        let modules: Vec<&str> = listed.lines().filter(|line| line.contains(".ko")).collect();
        let has = |name: &str| modules.iter().any(|line| line.contains(name));
        if has("virtio") || !has("ata_piix") || !has("ext4") {
            return Err(Error::new("dracut: expected an initramfs with ata_piix and without virtio"));
        }
        Ok(())
    }

    fn finish_bios_root(&self, release: &str, root: &str, root_option: &str) -> Result<()> {
        boot_loader::write_settings(self.tree, SERIAL_CONSOLE, true)?;
        let entry = Entry {
            release,
            boot_uuid: root,
            folder: "/boot",
            root: root_option,
            options: SERIAL_CONSOLE,
            serial: true,
        };
        boot_loader::write_menu(&self.tree.join("boot"), &entry)?;
        let modules = self.tree.join("boot/grub");
        Tool::new("cp", "coreutils").arg("-r").arg(self.tree.join("usr/lib/grub/i386-pc")).arg(modules).run().map(drop)
    }

    fn fill_ext4(&self, name: &str, size: u64, uuid: &str, label: &str, tree: &Path, aged: bool) -> Result<VolumeFact> {
        let file = self.work.join(name);
        filesystem::make_ext4(&file, size, uuid, label, tree)?;
        if aged {
            filesystem::edit_ext4(&file, &content::age_commands(self.work))?;
        }
        Tool::new("e2fsck", "e2fsprogs").arg("-fn").arg(&file).run()?;
        let used_bytes = filesystem::used_ext4(&file)?;
        Ok(VolumeFact { used_bytes, ..fact(0, size, "ext4", uuid) })
    }

    /// Swap with old pages in its first part.
    fn fill_swap(&self, size: u64, uuid: &str) -> Result<VolumeFact> {
        let file = self.work.join("swap");
        content::write(self.work, "swap", content::random(8 << 20)?)?;
        fs::File::options().write(true).open(&file).and_then(|f| f.set_len(size)).map_err(|e| Error::file(&file, e))?;
        filesystem::make_swap(&file, uuid)?;
        Ok(fact(0, size, "swap", uuid))
    }

    fn partition(&self, table: &str, size: u64) -> Result<()> {
        self.partition_file("disk.raw", table, size)
    }

    fn partition_file(&self, name: &str, table: &str, size: u64) -> Result<()> {
        let disk = self.folder.join(name);
        filesystem::create(&disk, size)?;
        content::write(self.work, "table", table)?;
        let input = fs::File::open(self.work.join("table")).map_err(|e| Error::file(&disk, e))?;
        Tool::new("sfdisk", "fdisk")
            .args(["-q", "--no-reread", "--no-tell-kernel"])
            .arg(&disk)
            .prepared(|command| {
                command.stdin(input);
            })
            .run()
            .map(drop)
    }

    fn place(&self, part: &str, offset: u64) -> Result<()> {
        filesystem::place(&self.work.join(part), &self.folder.join("disk.raw"), offset)
    }

    fn write_boot_entry(&self, name: &str, secure: bool, description: &str, esp: &Esp, loader: &str) -> Result<()> {
        let template = qemu::find_ovmf(secure)?.variables;
        let mut store = fs::read(&template).map_err(|e| Error::file(&template, e))?;
        uefi_variables::add_boot_entry(&mut store, description, esp, loader)?;
        content::write(self.folder, name, store)
    }
}

/// The first partition of a GPT, an ESP that is made.
struct NewEsp {
    /// Serial number of its filesystem, eight hexadecimal digits.
    id: String,
    place: Esp,
}

impl NewEsp {
    fn new(start: u64, size: u64) -> Result<Self> {
        let id = content::random(4)?.iter().map(|b| format!("{b:02X}")).collect();
        let (first_sector, sectors) = (start / 512, size / 512);
        Ok(Self { id, place: Esp { number: 1, first_sector, sectors, partition: Uuid::new_v4() } })
    }

    /// As blkid prints it.
    fn uuid(&self) -> String {
        format!("{}-{}", &self.id[..4], &self.id[4..])
    }
}

fn uuid() -> String {
    Uuid::new_v4().to_string()
}

fn fact(offset: u64, size: u64, kind: &str, uuid: &str) -> VolumeFact {
    VolumeFact { offset, size, kind: kind.into(), uuid: uuid.into(), used_bytes: size, logical_volume: None }
}
