//! What is seen of a VM during its boot proof, and what follows. No clock and no VM in here: each sight brings its time.
//!
//! Evidence from inside the guest passes. A known failure fails when it stands, that is when nothing was shown after it,
//! because some loaders try again by themselves. All else is inconclusive: a screen that stays as it is, a limit reached.

use std::time::Duration;

use guest::appliance::ProbeLine;
use guest::proof::{Verdict as Seen, classify, last_words, parse_first_boot_line, parse_probe_line, standing_hint};
use machine::firstboot::{ReportLine, StepResult};
use qemu::Picture;
use serde::Serialize;

use crate::Verdict;

/// How long things may take, from the VM's start where nothing else is said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The whole proof.
    pub time: Duration,
    /// Nothing changes any more when nothing changed for so long while the processors had next to nothing to do. Longer than
    /// systemd's patience with a device (90 s), in which a guest may well show nothing.
    pub stable_idle: Duration,
    /// The same with processors that work.
    pub stable_busy: Duration,
    /// A failure stands when nothing was shown after it for so long.
    pub failure_quiet: Duration,
    /// Or when it was not mended for so long, whatever is shown after it.
    pub failure_unmended: Duration,
    /// How long the probe's line is waited for after a login prompt: it says more than the prompt.
    pub probe_after_prompt: Duration,
}

/// What is seen at one moment.
#[derive(Default)]
pub(crate) struct Sight<'a> {
    /// Since the VM's start.
    pub at: Duration,
    /// Processor time that the VM took so far.
    pub cpu: Duration,
    /// How often the guest reset itself so far.
    pub resets: u32,
    /// The screen in text mode; nothing where it is in graphics.
    pub screen: &'a str,
    /// Everything from the first serial port.
    pub serial: &'a str,
    /// Everything from the probe's port.
    pub probe: &'a str,
    /// The screen, where it was looked at this time.
    pub picture: Option<Picture>,
}

/// A verdict with its reasons.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    pub verdict: Verdict,
    pub evidence: String,
    /// What the guest said of itself.
    pub guest: Option<Report>,
}

/// What a guest says of itself from inside.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Report {
    /// The probe's line.
    Probe(ProbeLine),
    /// The report of a Windows' first boot.
    FirstBoot(ReportLine),
}

impl Finding {
    pub(crate) fn new(verdict: Verdict, evidence: impl Into<String>) -> Self {
        Self { verdict, evidence: evidence.into(), guest: None }
    }
}

/// A VM that is being watched.
pub(crate) struct Watch<'a> {
    limits: Limits,
    nonce: Option<&'a str>,
    hostname: &'a str,
    text: Option<blake3::Hash>,
    picture: Option<Picture>,
    /// Time and processor time of the last change.
    changed: (Duration, Duration),
    seen: Seen,
    failing_since: Option<Duration>,
    prompt_since: Option<Duration>,
}

impl<'a> Watch<'a> {
    /// Watches for the probe's line with `nonce`, where there is a probe, and for the prompt of `hostname`.
    pub(crate) fn new(limits: Limits, nonce: Option<&'a str>, hostname: &'a str) -> Self {
        Self {
            limits,
            nonce,
            hostname,
            text: None,
            picture: None,
            changed: (Duration::ZERO, Duration::ZERO),
            seen: Seen::Inconclusive,
            failing_since: None,
            prompt_since: None,
        }
    }

    /// Takes note of what is seen; returns whether the picture is another than before, and the verdict once there is one.
    pub(crate) fn see(&mut self, sight: Sight<'_>) -> (bool, Option<Finding>) {
        let another = self.take_note(&sight);
        (another, self.judge(&sight))
    }

    fn take_note(&mut self, sight: &Sight<'_>) -> bool {
        let mut hash = blake3::Hasher::new();
        for text in [sight.screen, sight.serial, sight.probe] {
            hash.update(&text.len().to_le_bytes()).update(text.as_bytes());
        }
        let hash = Some(hash.finalize());
        if self.text != hash {
            self.text = hash;
            self.changed = (sight.at, sight.cpu);
            // What stands on the screen may be older than what the serial line says, so it comes first.
            self.seen = classify(&format!("{}\n{}", sight.screen, sight.serial), self.hostname);
        }
        let Some(picture) = &sight.picture else { return false };
        let another = !self.picture.as_ref().is_some_and(|before| before.is_like(picture));
        if another {
            self.picture = Some(picture.clone());
            self.changed = (sight.at, sight.cpu);
        }
        another
    }

    fn judge(&mut self, sight: &Sight<'_>) -> Option<Finding> {
        if let Some(line) = self.nonce.and_then(|nonce| parse_probe_line(sight.probe, nonce)) {
            return Some(by_probe(line));
        }
        if let Some(line) = self.nonce.and_then(|nonce| parse_first_boot_line(sight.serial, nonce)) {
            return Some(by_first_boot(line));
        }
        let Limits { time, failure_quiet, failure_unmended, probe_after_prompt, .. } = self.limits;
        let (unchanged, over) = (sight.at.saturating_sub(self.changed.0), sight.at >= time);
        let stable = unchanged >= self.stable(sight);
        match &self.seen {
            Seen::Passed { evidence } => {
                let waited = sight.at - *self.prompt_since.get_or_insert(sight.at);
                self.failing_since = None;
                let enough = self.nonce.is_none() || waited >= probe_after_prompt || stable || over;
                return enough.then(|| Finding::new(Verdict::Passed, evidence));
            }
            Seen::Failed { meaning, evidence } => {
                let lasted = sight.at - *self.failing_since.get_or_insert(sight.at);
                let stands = unchanged >= failure_quiet || lasted >= failure_unmended || over;
                return stands.then(|| Finding::new(Verdict::Failed, format!("{meaning} ({evidence})")));
            }
            Seen::Inconclusive => self.failing_since = None,
        }
        (stable || over).then(|| Finding::new(Verdict::Inconclusive, self.doubt(sight, unchanged)))
    }

    /// How long a screen has to stay as it is.
    fn stable(&self, sight: &Sight<'_>) -> Duration {
        let (since, cpu) = self.changed;
        let idle = sight.cpu.saturating_sub(cpu) * 10 < sight.at.saturating_sub(since);
        if idle { self.limits.stable_idle } else { self.limits.stable_busy }
    }

    /// Why there is no verdict.
    fn doubt(&self, sight: &Sight<'_>, unchanged: Duration) -> String {
        let seconds = unchanged.as_secs();
        let mut text = if sight.at < self.limits.time {
            format!("nothing known was seen, and nothing changed for {seconds} s")
        } else if unchanged >= self.limits.failure_quiet {
            format!("no evidence within {} s, of which nothing changed in the last {seconds}", sight.at.as_secs())
        } else {
            format!(
                "no evidence within {} s, and the guest was still changing its screen or serial line: --proof-time allows more",
                sight.at.as_secs()
            )
        };
        if sight.resets > 0 {
            text.push_str(&format!("; it reset itself {} times", sight.resets));
        }
        if let Some(words) = last_words(sight.screen).or_else(|| last_words(sight.serial)) {
            let hint = standing_hint(&words).map(|hint| format!(", {hint}")).unwrap_or_default();
            text.push_str(&format!("; last words: {words:?}{hint}"));
        }
        text
    }
}

/// What the probe's line proves: it comes from inside, but not always with good news.
fn by_probe(line: ProbeLine) -> Finding {
    let evidence = format!("{} reports from inside: {}, Linux {}", line.hostname, line.product, line.kernel);
    let (verdict, evidence) = match line.reached.as_str() {
        "emergency" => (Verdict::Failed, format!("systemd is in emergency or rescue mode ({evidence})")),
        "time" => (Verdict::Passed, format!("{evidence}, still on its way to multi-user")),
        _ => (Verdict::Passed, evidence),
    };
    Finding { verdict, evidence, guest: Some(Report::Probe(line)) }
}

/// What the report of a first boot proves: a Windows that can say that something failed has come up.
fn by_first_boot(line: ReportLine) -> Finding {
    let mut evidence = format!("{} reports from inside: {}, Windows {}", line.hostname, line.product, line.version);
    let failed: Vec<&str> =
        line.steps.iter().filter(|step| step.result == StepResult::Failed).map(|step| step.step.as_str()).collect();
    if !failed.is_empty() {
        evidence.push_str(&format!("; of its first boot failed: {}", failed.join(", ")));
    }
    Finding { verdict: Verdict::Passed, evidence, guest: Some(Report::FirstBoot(line)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        time: Duration::from_secs(1000),
        stable_idle: Duration::from_secs(120),
        stable_busy: Duration::from_secs(240),
        failure_quiet: Duration::from_secs(10),
        failure_unmended: Duration::from_secs(60),
        probe_after_prompt: Duration::from_secs(100),
    };

    /// A sight every second until there is a verdict: second and verdict.
    fn watched(nonce: Option<&str>, sight: impl Fn(u64) -> (String, String, Duration)) -> (u64, Finding) {
        let mut watch = Watch::new(LIMITS, nonce, "phys1");
        for second in 0..2000 {
            let (serial, probe, cpu) = sight(second);
            let at = Duration::from_secs(second);
            let sight = Sight { at, cpu, serial: &serial, probe: &probe, ..Sight::default() };
            if let (_, Some(finding)) = watch.see(sight) {
                return (second, finding);
            }
        }
        panic!("no verdict past the limit");
    }

    fn shows(text: impl Fn(u64) -> String) -> (u64, Finding) {
        watched(Some("n"), |second| (text(second), String::new(), Duration::ZERO))
    }

    #[test]
    fn a_failure_is_told_soon_after_the_last_word() {
        let (second, finding) = shows(|s| if s < 5 { "Booting".into() } else { "grub rescue> ".into() });
        assert_eq!((second, finding.verdict), (15, Verdict::Failed));
    }

    #[test]
    fn a_failure_that_is_mended_does_not_count_and_one_that_only_talks_does() {
        let talk = |s: u64| format!("{}\n(initramfs) \n", "x\n".repeat(usize::try_from(s).unwrap()));
        let (second, finding) = shows(|s| if s < 30 { talk(s) } else { "(initramfs) \nphys1 login: ".into() });
        assert_eq!((second, finding.verdict), (130, Verdict::Passed));
        let (second, finding) = shows(talk);
        assert_eq!((second, finding.verdict), (60, Verdict::Failed));
    }

    #[test]
    fn the_probe_is_waited_for_and_says_more_than_the_prompt() {
        let line = r#"{"nonce":"n","hostname":"phys1","kernel":"6.1","product":"Debian","reached":"multi-user"}"#;
        let sight = |reached: &'static str| {
            move |second: u64| {
                let line = if second < 50 { String::new() } else { line.replace("multi-user", reached) };
                ("phys1 login: ".to_string(), line, Duration::ZERO)
            }
        };
        let (second, finding) = watched(Some("n"), sight("multi-user"));
        assert_eq!((second, finding.verdict), (50, Verdict::Passed));
        assert!(matches!(finding.guest, Some(Report::Probe(line)) if line.hostname == "phys1"));
        assert_eq!(watched(Some("n"), sight("emergency")).1.verdict, Verdict::Failed);
        assert!(watched(Some("n"), sight("time")).1.evidence.ends_with("on its way to multi-user"));
        // The line of another probe proves nothing, the prompt does in the end.
        assert_eq!(watched(Some("m"), sight("multi-user")).0, 100);
        assert_eq!(watched(None, sight("multi-user")).0, 0);
    }

    #[test]
    fn the_report_of_a_first_boot_proves_a_windows_and_names_what_failed() {
        let line = |result: &str| {
            format!(
                r#"{{"nonce":"n","hostname":"SRV1","product":"Windows Server 2019","version":"10.0.17763","steps":[{{"step":"driver a.inf","result":"{result}"}}]}}"#
            )
        };
        let (second, finding) = shows(|s| if s < 40 { String::new() } else { line("done") });
        assert_eq!((second, finding.verdict), (40, Verdict::Passed));
        assert_eq!(finding.evidence, "SRV1 reports from inside: Windows Server 2019, Windows 10.0.17763");
        let (_, finding) = shows(|_| line("failed"));
        assert!(finding.evidence.ends_with("failed: driver a.inf"), "{}", finding.evidence);
        // An older report is none.
        assert_eq!(shows(|_| line("done").replace("\"n\"", "\"m\"")).1.verdict, Verdict::Inconclusive);
    }

    #[test]
    fn a_screen_that_stays_is_inconclusive_earlier_when_the_processors_are_idle() {
        let (second, finding) = shows(|_| "Hello".into());
        assert_eq!((second, finding.verdict), (120, Verdict::Inconclusive));
        assert!(finding.evidence.ends_with("last words: \"Hello\""), "{}", finding.evidence);
        let busy = watched(Some("n"), |s| ("Hello".into(), String::new(), Duration::from_secs(s)));
        assert_eq!((busy.0, busy.1.verdict), (240, Verdict::Inconclusive));
    }

    #[test]
    fn a_screen_that_changes_to_the_limit_is_inconclusive_and_that_is_said() {
        let (second, finding) = shows(|s| format!("{s}"));
        assert_eq!((second, finding.verdict), (1000, Verdict::Inconclusive));
        assert!(finding.evidence.contains("still changing"), "{}", finding.evidence);
        let (_, finding) = shows(|s| format!("{}", s.min(900)));
        assert!(finding.evidence.contains("nothing changed in the last 100"), "{}", finding.evidence);
    }
}
