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
    bcd_element "../../../fuzz/fuzz_targets/bcd_element.rs"
    boot_ini "../../../fuzz/fuzz_targets/boot_ini.rs"
    boot_sector "../../../fuzz/fuzz_targets/boot_sector.rs"
    inf "../../../fuzz/fuzz_targets/inf.rs"
    reg_text "../../../fuzz/fuzz_targets/reg_text.rs"
    stored_plan "../../../fuzz/fuzz_targets/stored_plan.rs"
    windows_fixups "../../../fuzz/fuzz_targets/windows_fixups.rs"
    windows_inspection "../../../fuzz/fuzz_targets/windows_inspection.rs"
}
