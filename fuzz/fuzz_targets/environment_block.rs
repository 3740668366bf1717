//! Any bytes as GRUB's environment block, of the right size or not: what is read says the same when it is written.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    oneshot::fuzz_environment_block(bytes);
    let mut block = bytes.to_vec();
    block.resize(1024, b'#');
    oneshot::fuzz_environment_block(&block);
});
