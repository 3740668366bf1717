//! Any bytes as what tells where a boot loader's files may go: the beginning of a disk, of a filesystem, and a boot entry.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    oneshot::fuzz_partition_entry(bytes);
    oneshot::fuzz_uuid(bytes);
    oneshot::fuzz_load_option(bytes);
});
