//! The inputs that fuzzing kept (`fuzz/corpora`), through the targets of this crate's parsers.
#![allow(missing_docs, unreachable_pub, unused_attributes, reason = "a target is a program of its own")]
#![allow(clippy::cast_possible_truncation, clippy::duplicate_mod, reason = "a target is a program of its own")]

extern crate self as libfuzzer_sys;

#[path = "../../../fuzz/replay.rs"]
mod replay;

pub(crate) use replay::fuzz_target;

macro_rules! replayed {
    ($($target:ident $path:literal)*) => {
        $(
            #[path = $path]
            mod $target;
        )*
        mod tests {
            $(
                #[test]
                fn $target() {
                    super::replay::replay(stringify!($target), super::$target::run);
                }
            )*
        }
    };
}

replayed! {
    allocation_maps "../../../fuzz/fuzz_targets/allocation_maps.rs"
    disk_layout "../../../fuzz/fuzz_targets/disk_layout.rs"
    files "../../../fuzz/fuzz_targets/files.rs"
    partition_tables "../../../fuzz/fuzz_targets/partition_tables.rs"
    superblocks "../../../fuzz/fuzz_targets/superblocks.rs"
}
