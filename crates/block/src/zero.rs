//! The zero test, with an early way out: most blocks that are not zero show it in their first bytes.

/// Whether every byte is zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    const BLOCK: usize = 256;
    let mut blocks = bytes.chunks_exact(BLOCK);
    // The inner fold has no branch, so it becomes vector instructions; the way out is between blocks.
    blocks.all(|block| block.iter().fold(0, |seen, &byte| seen | byte) == 0)
        && blocks.remainder().iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_anywhere_is_found() {
        for length in [0, 1, 255, 256, 257, 4096, 70_000] {
            let mut bytes = vec![0; length];
            assert!(is_zero(&bytes));
            for at in (0..length).step_by(97).chain(length.checked_sub(1)) {
                bytes[at] = 0x10;
                assert!(!is_zero(&bytes), "bit at {at} of {length}");
                bytes[at] = 0;
            }
        }
    }
}
