//! A piece of an allocation bitmap: bit n of the bytes, lowest bit of a byte first, is cluster n of the piece.

/// The used clusters of a piece of a filesystem. What lies behind the bytes is free.
pub(crate) struct Bits {
    pub(crate) bytes: Vec<u8>,
    /// How many bits stand for clusters; those behind them mean nothing.
    pub(crate) clusters: u64,
}

impl Bits {
    pub(crate) fn get(&self, cluster: u64) -> bool {
        let byte = usize::try_from(cluster / 8).ok().and_then(|at| self.bytes.get(at));
        byte.is_some_and(|byte| byte >> (cluster % 8) & 1 == 1)
    }

    pub(crate) fn set(&mut self, cluster: u64) {
        if let Some(byte) = usize::try_from(cluster / 8).ok().and_then(|at| self.bytes.get_mut(at)) {
            *byte |= 1 << (cluster % 8);
        }
    }

    pub(crate) fn clear(&mut self, cluster: u64) {
        if let Some(byte) = usize::try_from(cluster / 8).ok().and_then(|at| self.bytes.get_mut(at)) {
            *byte &= !(1 << (cluster % 8));
        }
    }

    /// Eight bytes of the bitmap, of which only bits of real clusters are set.
    fn word(&self, index: u64) -> u64 {
        let at = usize::try_from(index * 8).unwrap_or(usize::MAX);
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(self.bytes.iter().skip(at)) {
            *to = *from;
        }
        let left = self.clusters.saturating_sub(index * 64);
        u64::from_le_bytes(word) & if left < 64 { (1 << left) - 1 } else { u64::MAX }
    }

    fn words(&self) -> u64 {
        self.clusters.div_ceil(64)
    }

    pub(crate) fn used(&self) -> u64 {
        (0..self.words()).map(|i| u64::from(self.word(i).count_ones())).sum()
    }

    /// The runs of used clusters: first and one past the last.
    pub(crate) fn runs(&self) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for index in 0..self.words() {
            let mut word = self.word(index);
            while word != 0 {
                let first = u64::from(word.trailing_zeros());
                let length = u64::from((word >> first).trailing_ones());
                let start = index * 64 + first;
                match runs.last_mut() {
                    Some((_, end)) if *end == start => *end = start + length,
                    _ => runs.push((start, start + length)),
                }
                word &= if first + length == 64 { 0 } else { u64::MAX << (first + length) };
            }
        }
        runs
    }
}
