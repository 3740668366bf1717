//! A conversion that copies nothing: its steps, its numbers and its boot proof are made up. The name decides: one that
//! begins with `slow` takes its time, one with `fail` fails in the copy, one with `panic` is seen not to boot.

use std::path::Path;
use std::time::Duration;

use controller::tasks::{Converter, PushFiles, PushNeeds};
use conversion::{
    Cancel, ConvertedDisk, CopyProgress, Error, ErrorKind, Event, FixUpOutcome, Observer, Outcome, PROOF_FOLDER,
    PROOF_RECORD, PROOF_SCREENSHOT, PROOF_SERIAL_LOG, Proof, Request, Result, Source, Step, Verdict, working_folder,
};
use machine::{ByteCount, SectorSize};

/// The picture of its boot proof.
const SCREEN: &[u8] = include_bytes!("screen.png");
const SERIAL_LOG: &str = "[    0.000000] Linux version 5.10.0-33-amd64 (debian-kernel@lists.debian.org)\r\n\
    [    2.113457] virtio_blk virtio2: [vda] 937703088 512-byte logical blocks (480 GB/447 GiB)\r\n\
    [    3.880112] EXT4-fs (dm-0): mounted filesystem with ordered data mode\r\n\
    \r\nDebian GNU/Linux 11 web1 ttyS0\r\n\r\nweb1 login: ";
const PANIC: &str = "kernel panic: unable to mount root fs";
const ROUNDS: u64 = 16;

pub(crate) struct Rehearsal;

impl Converter for Rehearsal {
    /// No machine of a rehearsal is restarted.
    fn build_push(&self, _needs: &PushNeeds<'_>) -> Result<PushFiles> {
        Ok(PushFiles::default())
    }

    fn convert(
        &self,
        _source: Source,
        request: &Request,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<serde_json::Value> {
        let is_slow = request.name.starts_with("slow");
        let say = |message: &str| observer.event(Event::Log { message: message.into() });
        observer.event(Event::Step { step: Step::Check });
        say("a rehearsal: nothing is copied, and what follows is made up");
        say("5.8 GiB in use of 447 GiB");
        observer.event(Event::Step { step: Step::Copy });
        let total = 5900 << 20;
        for round in 1..=ROUNDS {
            cancel.check()?;
            if is_slow && round > ROUNDS * 2 / 5 {
                // Stands in the middle of its copy until somebody cancels it.
                wait_for_cancel(observer, cancel, total)?;
            }
            std::thread::sleep(Duration::from_millis(120));
            let done = total / ROUNDS * round;
            observer.event(Event::Progress { step: Step::Copy, progress: copied(done, total) });
            if request.name.starts_with("fail") && round == ROUNDS / 2 {
                let cause = std::io::Error::from_raw_os_error(28);
                let context = format!("{}/{}-disk0.qcow2 at 0x1a40000000", request.output.display(), request.name);
                return Err(Error::because(ErrorKind::Target, context, cause));
            }
        }
        if request.verify {
            observer.event(Event::Step { step: Step::Verify });
            observer.event(Event::Progress { step: Step::Verify, progress: copied(total, total) });
            say("every used block of the replicas has the source's hash");
        }
        observer.event(Event::Step { step: Step::FixUp });
        say("linux.initramfs: virtio drivers were added to initrd.img-5.10.0-33-amd64");
        observer.event(Event::Warning {
            message: "a serial console is configured for ttyS1, which the VM does not have".into(),
        });
        std::thread::sleep(Duration::from_millis(200));
        observer.event(Event::Step { step: Step::Define });
        observer.event(Event::Step { step: Step::Prove });
        say("boot proof: started with Tcg, no network, unprivileged, on throw-away disks, for 1200 s at most");
        std::thread::sleep(Duration::from_millis(200));
        let boots = !request.name.starts_with("panic");
        if !boots {
            let folder = working_folder(&request.output, &request.name);
            let kept = write_proof(&folder, false);
            let context = format!(
                "boot proof failed: {PANIC}; serial log and screenshot are in {}; the replica is kept, the same command tries again without copying",
                folder.display()
            );
            return Err(match kept {
                Ok(()) => Error::new(ErrorKind::NotProven, context),
                Err(e) => Error::because(ErrorKind::Target, "the rehearsed proof cannot be written", e),
            });
        }
        publish(request, total)
            .map_err(|e| Error::because(ErrorKind::Target, format!("output folder {}", request.output.display()), e))
    }
}

fn wait_for_cancel(observer: &dyn Observer, cancel: &Cancel, total: u64) -> Result<()> {
    let mut done = total * 2 / 5;
    loop {
        cancel.check()?;
        std::thread::sleep(Duration::from_millis(250));
        done = (done + (2 << 20)).min(total - 1);
        observer.event(Event::Progress { step: Step::Copy, progress: copied(done, total) });
    }
}

fn copied(done: u64, total: u64) -> CopyProgress {
    CopyProgress {
        disk: 0,
        done: ByteCount(done),
        total: ByteCount(total),
        sent: ByteCount(done / 100 * 41),
        written: ByteCount(done / 100 * 93),
        unreadable: ByteCount(0),
    }
}

/// What a proof leaves.
fn write_proof(folder: &Path, boots: bool) -> std::io::Result<()> {
    let folder = folder.join(PROOF_FOLDER);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(PROOF_SCREENSHOT), SCREEN)?;
    std::fs::write(folder.join(PROOF_SERIAL_LOG), SERIAL_LOG)?;
    std::fs::write(folder.join(PROOF_RECORD), serde_json::to_vec(&proof(boots))?)
}

fn publish(request: &Request, total: u64) -> std::io::Result<serde_json::Value> {
    let folder = request.output.join(&request.name);
    write_proof(&folder, true)?;
    let file = format!("{}-disk0.{}", request.name, request.format.extension());
    let outcome = Outcome {
        name: request.name.clone(),
        folder,
        definition: format!("{}.xml", request.name),
        left_out: Vec::new(),
        disks: vec![ConvertedDisk {
            allocation: conversion::Allocation::Thin,
            source: "/dev/sda".into(),
            file,
            format: request.format.extension().into(),
            virtual_size: ByteCount(480_000_000_000),
            logical_sector_size: SectorSize::B512,
            copied: copied(total, total),
            unreadable_extents: Vec::new(),
            copy_seconds: 52.4,
        }],
        incomplete: false,
        verified: request.verify.then_some(true),
        fixups: fixups(),
        proof: proof(true),
        warnings: vec!["a serial console is configured for ttyS1, which the VM does not have".into()],
    };
    serde_json::to_value(outcome).map_err(Into::into)
}

fn fixups() -> Vec<FixUpOutcome> {
    let fixup = |id: &str, title: &str, reason: &str, result: &str, files: &[&str]| FixUpOutcome {
        id: id.into(),
        title: title.into(),
        reason: reason.into(),
        result: result.into(),
        files: files.iter().map(|file| (*file).to_string()).collect(),
    };
    vec![
        fixup(
            "linux.initramfs",
            "add virtio drivers to the initramfs",
            "the initramfs of 5.10.0-33-amd64 has no virtio_blk",
            "made",
            &["boot/initrd.img-5.10.0-33-amd64"],
        ),
        fixup(
            "linux.fallback-loader",
            "make the fallback boot loader",
            "the VM's firmware does not know the source's boot entry",
            "made",
            &["EFI/BOOT/BOOTX64.EFI"],
        ),
        fixup("linux.fstab", "name filesystems by UUID", "every line has a UUID", "already so", &[]),
    ]
}

fn proof(boots: bool) -> Proof {
    Proof {
        verdict: if boots { Verdict::Passed } else { Verdict::Failed },
        evidence: if boots { "login prompt of web1" } else { PANIC }.into(),
        guest: boots
            .then(|| serde_json::json!({ "hostname": "web1", "kernel": "5.10.0-33-amd64", "state": "running" })),
        serial_log: Some(format!("{PROOF_FOLDER}/{PROOF_SERIAL_LOG}")),
        screenshot: Some(format!("{PROOF_FOLDER}/{PROOF_SCREENSHOT}")),
        seconds: 94.2,
    }
}
