//! Filesystems that lie about what they use, through a whole conversion with its appliance: what cannot be trusted is
//! copied whole, what cannot be mounted is told, and nothing half-made has the final name.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const BLOCK: u64 = 4096;

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["out", "tree"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let noise = (0..8 << 17).flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        fs::write(folder.path().join("tree/noise"), noise.collect::<Vec<u8>>()).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An ext4 of 64 MiB without a partition table, holding a file of 8 MiB.
    fn ext4(&self, name: &str, features: &str) -> PathBuf {
        let image = self.path(name);
        let mut make = Command::new("mke2fs");
        make.args(["-q", "-t", "ext4", "-b", "4096", "-O", features, "-d"])
            .arg(self.path("tree"))
            .arg(&image)
            .arg("64M");
        assert!(make.status().unwrap().success());
        image
    }

    /// A FAT32 of 64 MiB without a partition table, holding a file of 8 MiB.
    fn fat(&self, name: &str) -> PathBuf {
        let image = self.path(name);
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let mut make = Command::new("mkfs.vfat");
        assert!(make.args(["-F", "32"]).arg(&image).stdout(Stdio::null()).status().unwrap().success());
        let mut copy = Command::new("mcopy");
        assert!(copy.arg("-i").arg(&image).arg(self.path("tree/noise")).arg("::/noise").status().unwrap().success());
        image
    }

    fn convert(&self, sources: &[&Path]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vconverter"));
        command.args(["--json", "convert", "--no-prove-boot", "--verify", "--name", "vm", "--output"]);
        command.arg(self.path("out")).args(sources).env_remove("RUST_LOG").stdin(Stdio::null()).output().unwrap()
    }
}

fn read<const N: usize>(image: &Path, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    File::open(image).unwrap().read_exact_at(&mut bytes, at).unwrap();
    bytes
}

fn patch(image: &Path, at: u64, bytes: &[u8]) {
    File::options().write(true).open(image).unwrap().write_all_at(bytes, at).unwrap();
}

/// Calls blocks free that the file lies in.
fn free_in_bitmap(image: &Path) {
    let bitmap = u64::from(u32::from_le_bytes(read(image, BLOCK))) * BLOCK;
    // Metadata comes first, then the file: the last used bits of a group are the file's.
    let bytes: [u8; 4096] = read(image, bitmap);
    let last = (0..2048).rev().find(|&n| bytes[n] == 0xff).unwrap();
    patch(image, bitmap + last as u64 - 16, &[0; 16]);
}

#[test]
fn disks_whose_filesystems_lie_are_copied_whole_and_the_operator_is_told() {
    let bench = Bench::new();
    let checksum = bench.ext4("checksum.raw", "metadata_csum");
    free_in_bitmap(&checksum);
    let count = bench.ext4("count.raw", "^metadata_csum,^uninit_bg");
    free_in_bitmap(&count);
    // Free clusters and the next of them: hints, which every driver may find wrong.
    let hints = bench.fat("hints.raw");
    patch(&hints, 512 + 488, &[0xff, 0xff, 0xff, 0x0f, 0xff, 0xff, 0xff, 0x0f]);
    let table = |image: &Path| u64::from(u16::from_le_bytes(read(image, 14))) * 512;
    let length = |image: &Path| u64::from(u32::from_le_bytes(read(image, 36))) * 512;
    let chain = bench.fat("chain.raw");
    for copy in 0..2 {
        patch(&chain, table(&chain) + copy * length(&chain) + 4 * 100, &[0, 0xff, 0xff, 0x0e]);
    }
    let copies = bench.fat("copies.raw");
    patch(&copies, table(&copies) + length(&copies) + 4 * 100, &[0; 4]);

    let disks = [&*checksum, &count, &hints, &chain, &copies];
    let before: Vec<Vec<u8>> = disks.iter().map(|disk| fs::read(disk).unwrap()).collect();
    let output = bench.convert(&disks);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let last: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    let made = &last["outcome"];
    println!("{}", made["warnings"]);
    let warnings = made["warnings"].to_string();
    for words in ["bitmap checksum", "free clusters", "which does not exist", "copies of its allocation table differ"] {
        assert!(warnings.contains(words), "{words}: {warnings}");
    }
    assert_eq!((&made["verified"], &made["incomplete"]), (&true.into(), &false.into()));
    for (n, disk) in disks.iter().enumerate() {
        assert!(fs::read(disk).unwrap() == before[n], "{} was changed", disk.display());
        let mut compare = Command::new("qemu-img");
        compare
            .args(["compare", "-f", "raw", "-F", "qcow2"])
            .arg(disk)
            .arg(bench.path(&format!("out/vm/vm-disk{n}.qcow2")));
        let compared = compare.output().unwrap();
        assert!(compared.status.success(), "{}: {}", disk.display(), String::from_utf8_lossy(&compared.stdout));
    }
}

/// It may be the guest's root: nobody can say that there is nothing to be fixed up on it.
#[test]
fn a_filesystem_that_cannot_be_mounted_is_told_by_name() {
    let bench = Bench::new();
    let outside = bench.ext4("outside.raw", "^metadata_csum,^uninit_bg");
    patch(&outside, BLOCK, &[0xf0, 0xff, 0xff, 0xff]);
    let output = bench.convert(&[&outside]);
    let message = String::from_utf8_lossy(&output.stderr);
    println!("{message}");
    assert_eq!((output.status.code(), message.lines().count()), (Some(1), 1), "{message}");
    assert!(message.contains("could not be looked at") && message.contains("ext4"), "{message}");
    assert!(!bench.path("out/vm").exists(), "something has the final name");
    // The copy is kept, and it is whole: what points outside tells nothing of what is used.
    let mut compare = Command::new("qemu-img");
    compare
        .args(["compare", "-f", "raw", "-F", "qcow2"])
        .arg(&outside)
        .arg(bench.path("out/.vm.partial/vm-disk0.qcow2"));
    assert!(compare.status().unwrap().success());
}
