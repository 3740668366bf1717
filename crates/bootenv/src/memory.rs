//! The machine's memory, from `/proc/meminfo`.

use machine::ByteCount;

/// What the kernel manages.
pub(crate) fn total() -> ByteCount {
    line("MemTotal:")
}

/// What the kernel could still give, at the cost of its caches.
pub(crate) fn available() -> ByteCount {
    line("MemAvailable:")
}

/// Zero where the kernel does not say.
fn line(name: &str) -> ByteCount {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
    ByteCount(value.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default().saturating_mul(1024))
}
