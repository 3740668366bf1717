//! Conversions of a part of a machine: left-out volumes, images elsewhere, in pieces and after being stopped.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use block::{BlockSource, Slice};
use machine::{ByteCount, ByteOffset};
use volume::files::Files;

use super::*;
use crate::{Allocation, Choices, DiskSetting, OutputFormat};

const MIB: u64 = 1 << 20;
/// Where the second disk's only partition begins: as DOS did it, within a grain.
const ODD: u64 = 63 * 512;

struct Machine2 {
    folder: tempfile::TempDir,
    disks: [PathBuf; 2],
}

/// A root with its table of filesystems, `/data` and swap on one disk, `/archive` on another.
fn machine() -> Machine2 {
    let folder = tempfile::tempdir().unwrap();
    let script = "cd $1; mkdir -p t/etc t/usr/bin d out fast
        echo 'PRETTY_NAME=\"Debian\"' > t/etc/os-release; echo phys > t/etc/hostname
        printf 'UUID=11111111-1111-4111-8111-111111111111 / ext4 defaults 0 1\nLABEL=data /data ext4 defaults 0 2\n/dev/sdb1 /archive ext4 defaults 0 2\n/dev/sda3 none swap sw 0 0\n' > t/etc/fstab
        head -c 5000000 /dev/urandom > t/usr/bin/big; head -c 7000000 /dev/urandom > d/file
        mke2fs -qF -t ext4 -U 11111111-1111-4111-8111-111111111111 -d t r.img 32M
        mke2fs -qF -t ext4 -L data -d d d.img 24M; mke2fs -qF -t ext4 -L archive -d d v.img 24M
        truncate -s 8M s.img; head -c 8388608 /dev/urandom > s.img; mkswap s.img >/dev/null 2>&1
        truncate -s 72M a.raw; printf 'label: gpt\nstart=1MiB,size=32MiB\nstart=33MiB,size=24MiB\nstart=57MiB,size=8MiB\n' | sfdisk -q a.raw
        truncate -s 32M b.raw; printf 'label: dos\nstart=63,size=49152,type=83\n' | sfdisk -q b.raw
        dd if=r.img of=a.raw bs=1M seek=1 conv=notrunc,sparse status=none; dd if=d.img of=a.raw bs=1M seek=33 conv=notrunc,sparse status=none
        dd if=s.img of=a.raw bs=1M seek=57 conv=notrunc status=none; dd if=v.img of=b.raw bs=512 seek=63 conv=notrunc status=none
        rm *.img; sync";
    let made = Command::new("sh").args(["-ec", script, "sh"]).arg(folder.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let disks = ["a.raw", "b.raw"].map(|name| folder.path().join(name));
    Machine2 { folder, disks }
}

impl Machine2 {
    fn source(&self) -> Source {
        Source::Local(self.disks.to_vec())
    }

    fn request(&self, choices: Choices) -> Request {
        let output = self.folder.path().join("out");
        Request { name: "vm".into(), output, format: OutputFormat::Raw, choices, ..Request::default() }
    }

    fn fast(&self) -> PathBuf {
        self.folder.path().join("fast")
    }

    /// Copies the disks and no more, cancelled at the first progress where that is wanted.
    fn copy(&self, request: &Request, stops: bool) -> Result<Record> {
        let cancel = Cancel::default();
        let observer = |event: Event| {
            if let Event::Progress { .. } = event
                && stops
            {
                cancel.cancel();
            }
        };
        let origin = Origin::open(&self.source())?;
        let machine = origin.machine()?;
        let selection = Selection::of(&machine, request)?;
        selection.check_bootable(&machine, request)?;
        let windows = WindowsGuests::default();
        let mut pipeline = Pipeline::open(origin, &machine, &selection, request, &windows, &observer, &cancel)?;
        pipeline.store()?;
        pipeline.annexes().iter().try_for_each(Annex::open)?;
        pipeline.copy_disks()?;
        Ok(pipeline.record.clone())
    }

    /// Notes that all is done but to give the result its name.
    fn all_done(&self, request: &Request, mut record: Record) {
        let plan = guest::Plan::without_fixups(machine::FirmwareKind::Bios, ::machine::Family::Linux);
        record.fixed_up = Some(FixUps { plan, applied: Vec::new() });
        record.defined = true;
        record.proof = Some(Proof { verdict: Verdict::Passed, ..Proof::default() });
        record.joined_disks = Some(vec![true; record.selected.len()]);
        Workdir::open(request).unwrap().store(&record).unwrap();
    }
}

fn skip(volumes: &[&str]) -> Choices {
    Choices { skip_volumes: volumes.iter().map(|name| (*name).to_owned()).collect(), ..Choices::default() }
}

fn bytes(path: &Path, offset: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    fs::File::open(path).unwrap().read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

/// A file of the filesystem in the partition at `offset`.
fn file(image: &Path, offset: u64, length: u64, path: &str) -> Vec<u8> {
    let disk = block::open_source(image).unwrap().source;
    let extent = block::Extent::new(ByteOffset(offset), ByteCount(length)).unwrap();
    let partition: Arc<dyn BlockSource> = Arc::new(Slice::new(disk, extent).unwrap());
    Files::open(partition).unwrap().read(path, ByteCount::mib(64)).unwrap()
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[test]
fn left_out_volumes_read_as_zeros_and_the_rest_is_whole_after_being_stopped() {
    let machine = machine();
    let fast = DiskSetting { disk: "1".into(), allocation: Some(Allocation::Full), folder: Some(machine.fast()) };
    let request = machine.request(Choices { disk_settings: vec![fast], ..skip(&["/data"]) });
    let stopped = machine.copy(&request, true).unwrap_err();
    assert_eq!(stopped.kind, ErrorKind::Cancelled);
    let other = machine.copy(&Request { keep_swap: true, ..request.clone() }, false).unwrap_err();
    assert!(other.to_string().contains("has other settings"), "{other}");
    let record = machine.copy(&request, false).unwrap();

    let image = request.output.join(".vm.partial/vm-disk0.raw");
    let (a, b) = (&machine.disks[0], &machine.disks[1]);
    assert_eq!(bytes(&image, 0, MIB), bytes(a, 0, MIB), "the table is whole");
    assert!(!is_zero(&bytes(a, 33 * MIB, 24 * MIB)) && is_zero(&bytes(&image, 33 * MIB, 24 * MIB)));
    assert_eq!(file(&image, MIB, 32 * MIB, "/usr/bin/big"), file(a, MIB, 32 * MIB, "/usr/bin/big"));
    assert_eq!(bytes(&image, 57 * MIB, 4096), bytes(a, 57 * MIB, 4096), "the header of the swap");
    assert!(!is_zero(&bytes(a, 58 * MIB, MIB)) && is_zero(&bytes(&image, 58 * MIB, MIB)), "and not its pages");
    let elsewhere = machine.fast().join(".vm.partial/vm-disk1.raw");
    assert_eq!(file(&elsewhere, ODD, 24 * MIB, "/file"), file(b, ODD, 24 * MIB, "/file"));
    let metadata = elsewhere.metadata().unwrap();
    println!("{} bytes, {} allocated", metadata.len(), metadata.blocks() * 512);
    assert!(metadata.blocks() * 512 >= 32 * MIB, "all its room is set aside");
    assert!(record.copied[0].as_ref().unwrap().copied.sent.0 < 6_500_000, "{:?}", record.copied[0]);

    machine.all_done(&request, record);
    let outcome =
        convert(&machine.source(), &request, &WindowsGuests::default(), &|_: Event| {}, &Cancel::default()).unwrap();
    println!("{outcome:#?}");
    assert_eq!(outcome.disks[1].file, machine.fast().join("vm/vm-disk1.raw").display().to_string());
    assert_eq!(outcome.left_out, ["/data (partition 2 of a.raw)".replace("a.raw", &a.display().to_string())]);
    let names = |folder: &Path| -> Vec<_> { fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name()).collect() };
    assert_eq!(
        (names(&machine.fast()), names(&machine.fast().join("vm"))),
        (vec!["vm".into()], vec!["vm-disk1.raw".into()])
    );
    assert_eq!(names(&request.output), ["vm"]);
    let again = convert(&machine.source(), &request, &WindowsGuests::default(), &|_: Event| {}, &Cancel::default())
        .unwrap_err();
    assert!(again.to_string().contains("exists already"), "{again}");
}

#[test]
fn a_volume_that_begins_within_a_grain_leaves_nothing_that_looks_like_one() {
    let machine = machine();
    let request = machine.request(skip(&["/archive"]));
    machine.copy(&request, false).unwrap();
    let (image, b) = (request.output.join(".vm.partial/vm-disk1.raw"), &machine.disks[1]);
    assert_eq!(bytes(&image, 0, ODD), bytes(b, 0, ODD));
    assert!(!is_zero(&bytes(b, ODD, 4096)) && is_zero(&bytes(&image, ODD, 24 * MIB)));
    let request = Request { name: "swapped".into(), keep_swap: true, ..request };
    machine.copy(&request, false).unwrap();
    let image = request.output.join(".swapped.partial/swapped-disk0.raw");
    assert_eq!(bytes(&image, 57 * MIB, 8 * MIB), bytes(&machine.disks[0], 57 * MIB, 8 * MIB), "swap that is kept");
}

#[test]
fn a_result_with_a_disk_elsewhere_appears_whole_or_not_at_all_and_is_discarded_whole() {
    let machine = machine();
    let fast = DiskSetting { disk: "1".into(), folder: Some(machine.fast()), ..DiskSetting::default() };
    let request = machine.request(Choices { disk_settings: vec![fast], ..Choices::default() });
    machine.copy(&request, true).unwrap_err();
    assert!(machine.fast().join(".vm.partial").exists());
    crate::discard(&request).unwrap();
    for folder in [&request.output, &machine.fast()] {
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0, "{}", folder.display());
    }
    let record = machine.copy(&request, false).unwrap();
    machine.all_done(&request, record.clone());
    // Killed when the disk had its name, and the result did not.
    fs::rename(machine.fast().join(".vm.partial"), machine.fast().join("vm")).unwrap();
    convert(&machine.source(), &request, &WindowsGuests::default(), &|_: Event| {}, &Cancel::default()).unwrap();
    assert!(machine.fast().join("vm/vm-disk1.raw").exists() && request.output.join("vm").exists());

    let other = Request { name: "other".into(), ..request };
    let record = machine.copy(&other, false).unwrap();
    machine.all_done(&other, record);
    fs::remove_dir_all(machine.fast().join(".other.partial")).unwrap();
    let gone =
        convert(&machine.source(), &other, &WindowsGuests::default(), &|_: Event| {}, &Cancel::default()).unwrap_err();
    assert!(gone.to_string().contains("is its filesystem mounted?"), "{gone}");
    assert!(!other.output.join("other").exists());
}

#[test]
fn what_the_guest_needs_is_left_out_only_if_that_is_said_twice() {
    let machine = machine();
    let refusal = |choices: Choices| machine.copy(&machine.request(choices), false).unwrap_err();
    let disks =
        |names: &[&str]| Choices { skip_disks: names.iter().map(|n| (*n).into()).collect(), ..Choices::default() };
    for (choices, expected) in [
        (skip(&["/"]), "the system needs /"),
        (skip(&["0:1"]), "the system needs /"),
        (disks(&["0"]), "a BIOS starts from the first disk"),
        (skip(&["/home"]), "no mount point, partition"),
        (disks(&["0", "1"]), "all disks are left out"),
        (disks(&["sdz"]), "the source has"),
        (
            Choices {
                disk_settings: vec![DiskSetting {
                    disk: "1".into(),
                    folder: Some("/absent".into()),
                    ..DiskSetting::default()
                }],
                ..Choices::default()
            },
            "expected an existing folder",
        ),
    ] {
        let error = refusal(choices.clone());
        println!("{error}");
        assert!(error.kind == ErrorKind::Refused && error.to_string().contains(expected), "{choices:?}: {error}");
    }
    assert_eq!(fs::read_dir(machine.folder.path().join("out")).unwrap().count(), 0, "nothing was begun");
    let preflight = |choices: Choices| {
        let origin = Origin::open(&machine.source()).unwrap();
        crate::preflight(&origin.machine().unwrap(), &machine.request(choices))
    };
    let found = preflight(skip(&["/"]));
    assert!(found.blockers().any(|one| one.rule == "unbootable"), "{:?}", found.findings);
    let found = preflight(Choices { allow_unbootable: true, ..skip(&["/"]) });
    assert!(
        found.findings.iter().any(|one| one.rule == "unbootable")
            && !found.blockers().any(|one| one.rule == "unbootable")
    );
    let (all, less) = (preflight(Choices::default()), preflight(skip(&["/archive"])));
    println!("{:?}", less.disks);
    assert!(all.bytes.0 - less.bytes.0 > 7_000_000 && less.disks[1].bytes.is_zero());
    let record = machine.copy(&machine.request(Choices { allow_unbootable: true, ..disks(&["0"]) }), false).unwrap();
    assert_eq!(record.selected, [1]);
}
