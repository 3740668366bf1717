//! Shell patterns as `modules.alias` has them: `*`, `?`, `[0-9A]` (fnmatch(3) without flags).

/// Whether `text` matches `pattern` as a whole; with at most one step back per byte of `text` (no exponential search).
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when a try fails: behind the last `*`, with one byte more given to it.
    let mut again: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                again = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(_) => one(&pattern[p..], text[t]),
            None => None,
        };
        match (step, again) {
            (Some(length), _) => (p, t) = (p + length, t + 1),
            (None, Some((behind, given))) => {
                again = Some((behind, given + 1));
                (p, t) = (behind, given + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// Length of the first element of `pattern` if it matches `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern[0] {
        b'?' => Some(1),
        b'\\' if pattern.len() > 1 => (pattern[1] == byte).then_some(2),
        b'[' => match class(pattern, byte) {
            Some((length, true)) => Some(length),
            Some((_, false)) => None,
            None => (byte == b'[').then_some(1),
        },
        literal => (literal == byte).then_some(1),
    }
}

/// Length of the class at the start of `pattern`, and whether it holds `byte`; `None` where it has no end.
fn class(pattern: &[u8], byte: u8) -> Option<(usize, bool)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let start = if negated { 2 } else { 1 };
    // A `]` right at the start is a member.
    let end = start + 1 + pattern.get(start + 1..)?.iter().position(|&b| b == b']')?;
    let members = &pattern[start..end];
    let mut held = false;
    let mut at = 0;
    while at < members.len() {
        if at + 2 < members.len() && members[at + 1] == b'-' {
            held |= (members[at]..=members[at + 2]).contains(&byte);
            at += 3;
        } else {
            held |= members[at] == byte;
            at += 1;
        }
    }
    Some((end + 1, held != negated))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::matches;

    #[test]
    fn patterns_of_real_aliases_match() {
        let yes = [
            ("pci:v00001AF4d00001001sv*sd*bc*sc*i*", "pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00"),
            ("pci:v*d*sv*sd*bc01sc06i01*", "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01"),
            ("scsi:t-0x00*", "scsi:t-0x00"),
            ("usb:v*p*d*dc*dsc*dp*ic08isc06ip[56]0in*", "usb:v1p2d3dc0dsc0dp0ic08isc06ip50in00"),
            ("virtio:d00000002v*", "virtio:d00000002v00001AF4"),
            ("serio:ty06pr*id*ex*", "serio:ty06pr00id00ex00"),
            ("a[]x]b", "a]b"),
            ("[!a-c]", "d"),
        ];
        for (pattern, text) in yes {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        let no = [
            ("pci:v00001AF4d00001001sv*", "pci:v00001AF4d00001000sv0"),
            ("scsi:t-0x00*", "scsi:t-0x05"),
            ("a", ""),
            ("", "a"),
            ("a*b", "acbd"),
            ("[!a-c]", "b"),
            ("[abc", "a"),
        ];
        for (pattern, text) in no {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_do_not_take_exponential_time() {
        assert!(!matches(&("*a".repeat(60) + "b"), &"a".repeat(4000)));
    }

    /// What the definition says, slowly.
    fn oracle(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => (0..=text.len()).any(|n| oracle(rest, &text[n..])),
            (Some((b'?', rest)), Some((_, text))) => oracle(rest, text),
            (Some((p, rest)), Some((t, text))) => p == t && oracle(rest, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn stars_and_marks_match_as_defined(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            prop_assert_eq!(matches(&pattern, &text), oracle(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn no_pattern_panics(pattern in ".{0,40}", text in ".{0,40}") {
            matches(&pattern, &text);
        }
    }
}
