//! How long the SYSTEM hive may become: the boot loader reads it as a whole before there is a memory manager.
//!
//! Source: Microsoft, "Registry Storage Space" (Win32 documentation): the maximum size of the system hive by system; for x64
//! before Server 2003 SP2 also KB 919807. Any other hive may have 2 GB, which is beyond
//! [`HIVE_MAX`](crate::windows::hive::HIVE_MAX).

use machine::ByteCount;

use crate::plan::HiveLimit;
use crate::windows::{Architecture, Release};

/// The part of the memory that the hive may have, and what it may have however large that is.
fn bounds(release: &Release) -> (u64, ByteCount) {
    let is_old = release.version() < (6, 0);
    match release.architecture {
        Architecture::X86 | Architecture::Arm if is_old => (4, ByteCount::mib(200)),
        Architecture::X86 | Architecture::Arm => (2, ByteCount::mib(400)),
        // 200 MiB with Service Pack 2, which a release does not tell.
        Architecture::Amd64 if is_old => (4, ByteCount::mib(32)),
        Architecture::Ia64 => (2, ByteCount::mib(32)),
        Architecture::Amd64 | Architecture::Arm64 => (2, ByteCount::mib(1536)),
    }
}

/// The limit of the SYSTEM hive at `path` on a machine with this memory, as its VM will have; zero: not known.
pub(super) fn of(release: &Release, memory: ByteCount, path: String) -> HiveLimit {
    let (part, most) = bounds(release);
    let max = if memory.is_zero() { most } else { ByteCount(most.0.min(memory.0 / part)) };
    HiveLimit { path, max, why: format!("{release} with this memory starts with {max} at most") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_microsofts_table() {
        let limit = |name: &str, architecture: Architecture, memory: ByteCount| {
            of(&Release::parse(name, architecture).unwrap(), memory, String::new()).max
        };
        let (x86, x64) = (Architecture::X86, Architecture::Amd64);
        assert_eq!(limit("xp", x86, ByteCount::mib(256)), ByteCount::mib(64));
        assert_eq!(limit("xp", x86, ByteCount::gib(4)), ByteCount::mib(200));
        assert_eq!(limit("2003", x64, ByteCount::gib(4)), ByteCount::mib(32));
        assert_eq!(limit("7", x86, ByteCount::gib(4)), ByteCount::mib(400));
        assert_eq!(limit("2022", x64, ByteCount::gib(2)), ByteCount::gib(1));
        assert_eq!(limit("2022", x64, ByteCount::ZERO), ByteCount::mib(1536));
    }
}
