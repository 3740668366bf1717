//! Each failure leads back to the machine's own system, with the boot path as it was and no file left over.

use std::time::{Duration, Instant};

use lab::Kind;
use qemu::WatchdogModel;

use super::rcc::*;

/// GRUB is what leaves most behind on a disk.
const GRUB_ONLY: &str = "sysctl kernel.kexec_load_disabled=1";
/// Restarted by GRUB; as short as can be waited for the controller.
const BY_GRUB: [&str; 5] = ["--way", "grub", "--accept-no-watchdog", "--contact", "2m"];

/// Waits until a task has a mark in its course, or its log says something.
fn wait_for_log(live: &LiveMachine, task: &str, text: &str) {
    let begun = Instant::now();
    while !live.log(task).contains(text) {
        assert!(begun.elapsed() < BOOT, "{text} is not in the log:\n{}", live.log(task));
        std::thread::sleep(Duration::from_millis(500));
    }
    live.say(&format!("in the task's log: {text}"));
}

/// The task failed with this in its error.
fn failed_with(live: &LiveMachine, task: &str, text: &str) {
    let ended = live.site.wait_for_task(task, BOOT).unwrap();
    println!("{}", live.log(task));
    assert_eq!(ended["state"], "failed", "{ended}");
    let error = ended["error"].as_str().unwrap();
    assert!(error.contains(text), "{error}");
    live.say(&format!("the task says: {error}"));
    live.site.json(&["tasks", "delete", task, "--discard"]).unwrap();
}

/// A command on the machine, whose shell nobody uses.
fn on_the_machine(live: &LiveMachine, command: &str) {
    let mut session = live.log_in_again();
    println!("{}", session.output(command, COMMAND).unwrap());
    live.log_out();
}

#[test]
#[ignore = "full row"]
fn power_is_cut_at_every_step() {
    if !is_root() {
        return;
    }
    let mut live = LiveMachine::start(Kind::A, |_, _| {}, GRUB_ONLY);

    let task = live.convert(&[&BY_GRUB[..], &["--warn", "30m"]].concat());
    wait_for_log(&live, &task, "users are warned");
    let screen = live.cut_power();
    live.is_back(screen, &task);
    failed_with(&live, &task, "its boot path is as it was");
    live.say("== cut right behind the push: back");

    on_the_machine(&live, GRUB_ONLY);
    for (seen, what) in
        [("boot image 0.", "before the restore"), ("restore: the boot path is as it was", "behind the restore")]
    {
        let mut screen = live.vm().serial(0).reader_from_now();
        let task = live.convert(&BY_GRUB);
        live.sees(&mut screen, seen);
        let screen = live.cut_power();
        live.is_back(screen, &task);
        failed_with(&live, &task, "its boot path is as it was");
        live.say(&format!("== cut in the boot image, {what}: back"));
        on_the_machine(&live, GRUB_ONLY);
    }

    let mut screen = live.vm().serial(0).reader_from_now();
    let task = live.convert(&[&BY_GRUB[..], &["--bandwidth", "1M"]].concat());
    live.sees(&mut screen, "agent: copying");
    std::thread::sleep(Duration::from_secs(5));
    let screen = live.cut_power();
    live.is_back(screen, &task);
    failed_with(&live, &task, "was started anew while its disks were copied");
    live.say("== cut in the middle of the copy: back");

    on_the_machine(&live, GRUB_ONLY);
    let mut screen = live.vm().serial(0).reader_from_now();
    let task = live.convert(&[&BY_GRUB[..], &["--no-prove-boot"]].concat());
    live.sees(&mut screen, "reboot: Restarting system");
    let mut screen = live.cut_power();
    live.sees(&mut screen, "restore: the boot path is as it was");
    live.is_back(screen, &task);
    let ended = live.site.wait_for_task(&task, BOOT).unwrap();
    println!("{}", live.log(&task));
    assert_eq!(ended["state"], "done", "{ended}");
    live.say("== cut at the restart: the boot image came with the power, and the conversion went on");
}

#[test]
#[ignore = "full row"]
fn a_boot_image_that_panics_or_hangs_ends_in_the_own_system() {
    if !is_root() {
        return;
    }
    let bmc = |hardware: &mut qemu::Hardware| hardware.watchdog = Some(WatchdogModel::Bmc);
    let mut live = LiveMachine::start(Kind::A, |_, hardware| bmc(hardware), GRUB_ONLY);

    let by_grub = ["--way", "grub", "--contact", "2m", "--watchdog", "3m", "--warn", "1m"];
    let task = live.convert(&by_grub);
    wait_for_log(&live, &task, "users are warned");
    on_the_machine(&live, "truncate -s 2M /boot/vconverter/initramfs.img && sync");
    let mut screen = live.vm().serial(0).reader_from_now();
    live.sees(&mut screen, "Kernel panic");
    live.is_back(screen, &task);
    failed_with(&live, &task, "without a word of the boot image");
    live.say("== a panic: back by itself");

    on_the_machine(&live, GRUB_ONLY);
    // The kernel waits for a debugger before it starts anything.
    let hang = "sed -i 's/vconverter.boot=push/& kgdboc=ttyS0,115200 kgdbwait/' /boot/grub/custom.cfg && grep kgdbwait /boot/grub/custom.cfg && sync";
    let task = live.convert(&by_grub);
    wait_for_log(&live, &task, "users are warned");
    on_the_machine(&live, hang);
    let mut screen = live.vm().serial(0).reader_from_now();
    live.sees(&mut screen, "KGDB: Waiting for connection");
    live.is_back(screen, &task);
    failed_with(&live, &task, "without a word of the boot image");
    live.say("== a hang: the BMC's watchdog led back");

    on_the_machine(&live, GRUB_ONLY);
    live.hardware.watchdog = None;
    let screen = live.cut_power();
    live.is_in_own_system(screen);
    on_the_machine(&live, GRUB_ONLY);
    let options = ["--way", "grub", "--contact", "2m", "--warn", "1m"];
    let output = live.site.output().display().to_string();
    let asked = ["convert", &live.id, "--name", "x", "--output", &output, "--rcc", "--detach", "--way", "grub"];
    let refused = live.site.json(&asked).unwrap_err().to_string();
    println!("{refused}");
    assert!(refused.contains("would need one power cycle"), "{refused}");
    let task = live.convert(&[&options[..], &["--accept-no-watchdog"]].concat());
    wait_for_log(&live, &task, "users are warned");
    on_the_machine(&live, hang);
    let mut screen = live.vm().serial(0).reader_from_now();
    live.sees(&mut screen, "KGDB: Waiting for connection");
    let screen = live.cut_power();
    live.is_back(screen, &task);
    failed_with(&live, &task, "without a word of the boot image");
    live.say("== a hang without watchdog: one power cycle led back");
}

#[test]
#[ignore = "full row"]
fn nobody_to_talk_to_ends_in_the_own_system() {
    if !is_root() {
        return;
    }
    let mut live = LiveMachine::start(Kind::A, |_, _| {}, GRUB_ONLY);
    let mut screen = live.vm().serial(0).reader_from_now();
    let task = live.convert(&BY_GRUB);
    live.sees(&mut screen, "reboot: Restarting system");
    let cable = live.cable.clone();
    live.site.lan().cut(&cable).unwrap();
    live.sees(&mut screen, "restore: the boot path is as it was");
    live.sees(&mut screen, "GRUB");
    live.site.lan().join(&cable).unwrap();
    live.is_back(screen, &task);
    failed_with(&live, &task, "its boot path is as it was");
    live.say("== an unplugged network: back by itself");

    on_the_machine(&live, GRUB_ONLY);
    let mut screen = live.vm().serial(0).reader_from_now();
    let task = live.convert(&BY_GRUB);
    live.sees(&mut screen, "reboot: Restarting system");
    live.site.kill_controller();
    live.sees(&mut screen, "restore: the boot path is as it was");
    live.sees(&mut screen, "GRUB");
    live.site.start_controller().unwrap();
    live.is_back(screen, &task);
    failed_with(&live, &task, "its boot path is as it was");
    live.say("== a controller that is down for the whole deadline: back by itself");
}

#[test]
#[ignore = "full row"]
fn what_cannot_be_placed_leaves_nothing() {
    if !is_root() {
        return;
    }
    let fill = "dd if=/dev/zero of=/boot/efi/full bs=1M 2>/dev/null; df /boot/efi; sysctl kernel.kexec_load_disabled=1";
    let live = LiveMachine::start(Kind::D, |_, _| {}, fill);
    let output = live.site.output().display().to_string();
    let asked = |way: &str| {
        let options = ["--rcc", "--accept-no-watchdog", "--way", way];
        live.site.json(&[&["convert", &live.id, "--name", "x", "--output", &output, "--detach"][..], &options].concat())
    };
    match asked("boot-next") {
        Err(refused) => println!("{refused}"),
        Ok(task) => {
            let task = task["id"].as_str().unwrap();
            wait_for_log(&live, task, "nothing of the boot image is left on the machine");
            failed_with(&live, task, "cannot be put in place");
        }
    }
    let refused = asked("kexec").unwrap_err().to_string();
    println!("{refused}");
    assert!(refused.contains("kexec is not possible"), "{refused}");
    live.is_unchanged();
    live.say("== a full ESP, and kexec refused: nothing was done");
}

#[test]
#[ignore = "full row"]
fn a_read_only_boot_is_refused() {
    if !is_root() {
        return;
    }
    let live = LiveMachine::start(Kind::F, |_, _| {}, "mount -o remount,ro /boot; sysctl kernel.kexec_load_disabled=1");
    let output = live.site.output().display().to_string();
    let asked = ["convert", &live.id, "--name", "x", "--output", &output, "--detach", "--rcc", "--accept-no-watchdog"];
    let refused = live.site.json(&asked).unwrap_err().to_string();
    println!("{refused}");
    assert!(refused.contains("ISO"), "{refused}");
    let (_, plan) = live.site.vconverter(&[&asked[..], &["--dry-run"]].concat()).unwrap();
    println!("{plan}");
    assert!(plan.contains("read-only"), "{plan}");
    live.is_unchanged();
}
