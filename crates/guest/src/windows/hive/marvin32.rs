//! Marvin32, the hash that guards the entries of a log, with the seed that Windows uses there.

use super::field::le32;

const SEED: u64 = 0x82EF_4D88_7A4E_55C5;

/// The hash of `bytes`.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let seed = SEED.to_le_bytes();
    let (mut low, mut high) = (le32(&seed, 0), le32(&seed, 4));
    let mut mix = |word: u32| {
        low = low.wrapping_add(word);
        high ^= low;
        low = low.rotate_left(20).wrapping_add(high);
        high = high.rotate_left(9) ^ low;
        low = low.rotate_left(27).wrapping_add(high);
        high = high.rotate_left(19);
    };
    let words = bytes.chunks_exact(4);
    let mut last = [0; 4];
    let rest = words.remainder();
    last[..rest.len()].copy_from_slice(rest);
    last[rest.len()] = 0x80;
    for word in words {
        mix(le32(word, 0));
    }
    mix(u32::from_le_bytes(last));
    mix(0);
    u64::from(high) << 32 | u64::from(low)
}

#[cfg(test)]
mod tests {
    #[test]
    fn equals_what_stands_in_the_head_of_an_entry_that_windows_10_wrote() {
        let mut head = b"HvLE".to_vec();
        for field in [0x5e00u32, 0, 2, 0x5000, 1, 0x1807_e431, 0x6786_6c66] {
            head.extend(field.to_le_bytes());
        }
        assert_eq!(super::hash(&head), 0xcd44_f3cf_a765_7f02);
        assert_ne!(super::hash(&head[..31]), super::hash(&head));
    }
}
