//! What the controller counts, and how Prometheus reads it (text format 0.0.4).
//!
//! Each part counts for itself with the types here; [`Page`] writes them down when somebody asks. Labels are few and their
//! values are ours: no name of a machine or a task is one.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of a [`Latency`]'s buckets.
const BOUNDS: [Duration; 8] = [
    Duration::from_micros(100),
    Duration::from_micros(500),
    Duration::from_millis(2),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
];
/// Label sets of a [`Family`]; there are as many as routes times statuses, and this bounds a mistake.
const SETS_MAX: usize = 4096;

/// How long something took, in buckets.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    /// How many took no longer than each bound and longer than the one before; the last took longer than all.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

impl Latency {
    pub(crate) fn observe(&self, took: Duration) {
        let bucket = BOUNDS.iter().position(|bound| took <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.microseconds.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// Counters that differ in the values of labels.
#[derive(Debug, Default)]
pub(crate) struct Family(Mutex<BTreeMap<Vec<String>, u64>>);

impl Family {
    pub(crate) fn count(&self, values: &[&str]) {
        let mut sets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        if sets.len() < SETS_MAX || sets.contains_key(&values) {
            *sets.entry(values).or_default() += 1;
        }
    }
}

/// What Prometheus reads.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

impl Page {
    /// Its media type.
    pub(crate) const MEDIA_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    pub(crate) fn finish(self) -> String {
        self.0
    }

    /// Something that only grows.
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.line(name, &[], value);
    }

    /// Something that goes up and down, for each value of a label.
    pub(crate) fn gauges(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        self.head(name, help, "gauge");
        for (value, number) in values {
            self.line(name, &[(label, value)], *number);
        }
    }

    /// Something that goes up and down.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "gauge");
        self.line(name, &[], value);
    }

    pub(crate) fn family<const N: usize>(&mut self, name: &str, help: &str, labels: [&str; N], family: &Family) {
        self.head(name, help, "counter");
        let sets = family.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (values, count) in sets {
            let pairs: Vec<(&str, &str)> = labels.into_iter().zip(values.iter().map(String::as_str)).collect();
            self.line(name, &pairs, count);
        }
    }

    pub(crate) fn latency(&mut self, name: &str, help: &str, latency: &Latency) {
        self.head(name, help, "histogram");
        let mut below = 0;
        for (bucket, count) in latency.buckets.iter().enumerate() {
            below += count.load(Relaxed);
            let bound = BOUNDS.get(bucket).map_or("+Inf".to_owned(), |bound| bound.as_secs_f64().to_string());
            self.line(&format!("{name}_bucket"), &[("le", &bound)], below);
        }
        let seconds = Duration::from_micros(latency.microseconds.load(Relaxed)).as_secs_f64();
        self.line(&format!("{name}_sum"), &[], seconds);
        self.line(&format!("{name}_count"), &[], below);
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let pairs: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let set = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
        let _ = writeln!(self.0, "{name}{set} {value}");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_counts_each_once_and_its_buckets_add_up() {
        let latency = Latency::default();
        for micros in [50, 100, 101, 7_000_000] {
            latency.observe(Duration::from_micros(micros));
        }
        let mut page = Page::default();
        page.latency("x_seconds", "Time.", &latency);
        let text = page.finish();
        assert!(text.starts_with("# HELP x_seconds Time.\n# TYPE x_seconds histogram\n"), "{text}");
        for line in [
            "x_seconds_bucket{le=\"0.0001\"} 2",
            "x_seconds_bucket{le=\"0.0005\"} 3",
            "x_seconds_bucket{le=\"5\"} 3",
            "x_seconds_bucket{le=\"+Inf\"} 4",
            "x_seconds_sum 7.000251",
            "x_seconds_count 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_label_cannot_break_out_of_its_quotes() {
        let family = Family::default();
        family.count(&["GET", "a\"b\\c\nd"]);
        family.count(&["GET", "a\"b\\c\nd"]);
        let mut page = Page::default();
        page.family("x_total", "Things.", ["method", "route"], &family);
        page.gauges("x_tasks", "Tasks.", "state", &[("done", 2)]);
        let text = page.finish();
        assert!(text.contains("x_total{method=\"GET\",route=\"a\\\"b\\\\c\\nd\"} 2\n"), "{text}");
        assert!(text.ends_with("# TYPE x_tasks gauge\nx_tasks{state=\"done\"} 2\n"), "{text}");
    }

    #[test]
    fn label_sets_are_bounded() {
        let family = Family::default();
        for number in 0..SETS_MAX + 10 {
            family.count(&[&number.to_string()]);
        }
        family.count(&["0"]);
        let sets = family.0.lock().unwrap();
        assert_eq!((sets.len(), sets[&vec!["0".to_owned()]]), (SETS_MAX, 2));
    }
}
