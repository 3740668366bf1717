//! What a conversion has made, for people.

use conversion::{Allocation, Outcome, Verdict};
use machine::ByteCount;

use crate::failure::{Code, Failure, Result};
use crate::table::plain;

/// Everything about the result that an operator should read.
pub(crate) fn describe(outcome: &Outcome, dry_run: bool) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<12}{}\n", plain(&value)));
    for disk in &outcome.disks {
        let copied = &disk.copied;
        let room = if disk.allocation == Allocation::Full { ", full" } else { "" };
        let mut value = format!("{} → {} ({}{room}, {})", disk.source, disk.file, disk.format, disk.virtual_size);
        if dry_run {
            value.push_str(&format!(": {} would be read", copied.total));
        } else {
            value.push_str(&format!(
                ": used {}, sent {}, written {} in {:.1} s",
                copied.total, copied.sent, copied.written, disk.copy_seconds
            ));
        }
        line("disk", value);
        for (offset, length) in &disk.unreadable_extents {
            line("unreadable", format!("{} at {offset} of {}", length, disk.source));
        }
    }
    for left_out in &outcome.left_out {
        line("left out", left_out.clone());
    }
    for fixup in &outcome.fixups {
        line("fix-up", format!("{}: {} ({})", fixup.result, fixup.title, fixup.reason));
        for file in &fixup.files {
            line("", format!("  {file}"));
        }
    }
    if let Some(verified) = outcome.verified {
        let value = if verified { "every used block is equal to the source's" } else { "not verified" };
        line("verified", value.into());
    }
    for warning in &outcome.warnings {
        line("warning", warning.clone());
    }
    if dry_run {
        line("dry run", format!("nothing was made; the result would be {}", outcome.folder.display()));
        return text;
    }
    line("boot proof", format!("{}: {}", outcome.proof.verdict, outcome.proof.evidence));
    if outcome.incomplete {
        let missing: ByteCount = outcome.disks.iter().map(|disk| disk.copied.unreadable).sum();
        line("INCOMPLETE", format!("{missing} could not be read from the source and are zeros"));
    }
    line("result", outcome.folder.display().to_string());
    line("definition", outcome.folder.join(&outcome.definition).display().to_string());
    text
}

/// Whether the result can be trusted as it is.
pub(crate) fn reservations(outcome: &Outcome, dry_run: bool) -> Result<()> {
    if !dry_run && (outcome.incomplete || outcome.proof.verdict == Verdict::Inconclusive) {
        return Err(Failure::silent(Code::Reservations));
    }
    Ok(())
}
