//! Any bytes as what the first-boot program reads: its plan, its state, recorded adapters, and answers of disks' drivers. What was
//! read is planned to its end, and restarts no oftener than it may.
#![no_main]

use firstboot::adapters::parse_adapters;
use firstboot::drive_layout::{parse_drive_layout, parse_volume_extents};
use firstboot::plan::parse_plan;
use firstboot::progress::{Action, Event, Progress};
use firstboot::run::dry_run;
use firstboot::steps::steps;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = (parse_drive_layout(bytes), parse_volume_extents(bytes));
    let mut parts = bytes.splitn(3, |byte| *byte == 0xff);
    let mut part = || parts.next().unwrap_or_default();
    let (plan, adapters, state) = (parse_plan(part()), parse_adapters(part()), Progress::parse(part()));
    let Ok(plan) = plan else { return };
    let _ = dry_run(&plan, &adapters.unwrap_or_default());
    let (steps, mut progress) = (steps(&plan), state.unwrap_or_default());
    let begun_with = progress.reboots;
    for _ in 0..10 * (steps.len() + 10) {
        if progress.on(Event::Started, &steps, plan.reboots_max) == Action::Remove {
            break;
        }
        if progress.ended.len() >= steps.len() {
            progress.on(Event::Reported, &steps, plan.reboots_max);
        }
    }
    assert!(progress.reboots <= begun_with.max(plan.reboots_max));
});
