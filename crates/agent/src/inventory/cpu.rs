//! Processors and memory, from `/proc/cpuinfo` and `/proc/meminfo`.

use std::collections::BTreeSet;

use machine::{ByteCount, Cpu};

use super::read_file;

/// Processors of this machine.
pub(super) fn load_cpu() -> Cpu {
    parse_cpuinfo(&String::from_utf8_lossy(&read_file("/proc/cpuinfo").unwrap_or_default()))
}

/// Memory of this machine.
pub(super) fn load_memory() -> ByteCount {
    parse_meminfo(&String::from_utf8_lossy(&read_file("/proc/meminfo").unwrap_or_default()))
}

fn parse_cpuinfo(text: &str) -> Cpu {
    let values = |key: &str| {
        let key = key.to_owned();
        text.lines().filter_map(move |line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key).then(|| value.trim().to_owned())
        })
    };
    let number = |key: &str| values(key).next().and_then(|v| v.parse::<u32>().ok()).filter(|n| *n > 0);
    let count = |n: usize| u32::try_from(n).unwrap_or(1).max(1);
    let processors = count(values("processor").count());
    let sockets = count(values("physical id").collect::<BTreeSet<_>>().len()).min(processors);
    // A virtual machine may show no topology: then every processor is a core.
    let cores_per_socket = number("cpu cores").unwrap_or((processors / sockets).max(1));
    let threads_per_core = number("siblings").map_or(1, |siblings| (siblings / cores_per_socket).max(1));
    Cpu { model: values("model name").next().unwrap_or_default(), sockets, cores_per_socket, threads_per_core }
}

fn parse_meminfo(text: &str) -> ByteCount {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|l| l.trim().strip_suffix("kB")).and_then(|n| n.trim().parse::<u64>().ok());
    ByteCount(kib.unwrap_or(0).saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_cores_and_threads_are_told_apart() {
        let mut text = String::new();
        for processor in 0..16 {
            text += &format!(
                "processor\t: {processor}\nmodel name\t: Xeon\nphysical id\t: {}\nsiblings\t: 8\ncpu cores\t: 4\n\n",
                processor % 2
            );
        }
        let cpu = parse_cpuinfo(&text);
        assert_eq!((cpu.sockets, cpu.cores_per_socket, cpu.threads_per_core), (2, 4, 2));
        assert_eq!(cpu.model, "Xeon");
    }

    #[test]
    fn without_topology_every_processor_is_a_core() {
        let cpu = parse_cpuinfo("processor: 0\nprocessor: 1\n");
        assert_eq!((cpu.sockets, cpu.cores_per_socket, cpu.threads_per_core), (1, 2, 1));
        assert_eq!(parse_cpuinfo("").cores_per_socket, 1);
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(parse_meminfo("MemTotal:       16280 kB\nMemFree: 1 kB\n"), ByteCount(16280 * 1024));
        assert_eq!(parse_meminfo("nonsense"), ByteCount(0));
    }
}
