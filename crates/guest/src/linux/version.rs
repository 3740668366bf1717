//! Order of kernel versions, as `sort -V` and GRUB's `version_sort` have it: digits compare as numbers, `~` before
//! everything.

use std::cmp::Ordering;

/// Compares two version texts (deb-version(7), the algorithm for one part).
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let rank = |byte: Option<&u8>| match byte {
            Some(b'~') => -1,
            None => 0,
            Some(c) if c.is_ascii_digit() => 0,
            Some(c) if c.is_ascii_alphabetic() => i32::from(*c),
            Some(c) => i32::from(*c) + 256,
        };
        while a.first().is_some_and(|c| !c.is_ascii_digit()) || b.first().is_some_and(|c| !c.is_ascii_digit()) {
            let order = rank(a.first()).cmp(&rank(b.first()));
            if order != Ordering::Equal {
                return order;
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let number = |text: &mut &[u8]| -> Vec<u8> {
            let end = text.iter().position(|c| !c.is_ascii_digit()).unwrap_or(text.len());
            let (digits, rest) = text.split_at(end);
            *text = rest;
            digits.iter().copied().skip_while(|c| *c == b'0').collect()
        };
        let (x, y) = (number(&mut a), number(&mut b));
        let order = x.len().cmp(&y.len()).then_with(|| x.cmp(&y));
        if order != Ordering::Equal || (a.is_empty() && b.is_empty()) {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_ordered_by_number_not_by_letter() {
        let mut versions = ["6.1.0-9-amd64", "6.1.0-32-amd64", "5.10.0-28-amd64", "6.1.0~rc1", "6.1.0"];
        versions.sort_by(|a, b| compare(a, b));
        assert_eq!(versions, ["5.10.0-28-amd64", "6.1.0~rc1", "6.1.0", "6.1.0-9-amd64", "6.1.0-32-amd64"]);
        assert_eq!(compare("", ""), Ordering::Equal);
    }
}
