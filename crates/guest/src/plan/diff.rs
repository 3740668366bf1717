//! Lines that differ between two texts. Fix-ups change single lines, so those before and behind the changed part are
//! left out, and within it lines are paired where their number is the same.

/// Lines shown at most; a plan is read by a person.
const LINES_MAX: usize = 200;

/// Longest line shown, in characters.
const LINE_MAX: usize = 400;

/// `-` lines of `before` and `+` lines of `after` that differ; empty if either is not text.
pub(super) fn lines(before: &[u8], after: &[u8]) -> String {
    let (Some(before), Some(after)) = (text(before), text(after)) else { return String::new() };
    let old: Vec<&str> = before.lines().collect();
    let new: Vec<&str> = after.lines().collect();
    let same_start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[same_start..], &new[same_start..]);
    let same_end = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[..old.len() - same_end], &new[..new.len() - same_end]);
    let mut shown: Vec<(char, &str)> = Vec::new();
    if old.len() == new.len() {
        for (a, b) in old.iter().zip(new).filter(|(a, b)| a != b) {
            shown.extend([('-', *a), ('+', *b)]);
        }
    } else {
        shown.extend(old.iter().map(|line| ('-', *line)));
        shown.extend(new.iter().map(|line| ('+', *line)));
    }
    let mut text = String::new();
    for (sign, line) in shown.iter().take(LINES_MAX) {
        text.push(*sign);
        text.extend(line.chars().take(LINE_MAX));
        text.push('\n');
    }
    if shown.len() > LINES_MAX {
        text.push_str(&format!("({} more lines)\n", shown.len() - LINES_MAX));
    }
    text
}

/// Bytes as text; a program may be of ASCII alone, but has zeros.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn only_lines_that_differ_are_shown() {
        assert_eq!(lines(b"a\nb\nc\nd\n", b"a\nB\nc\nD\n"), "-b\n+B\n-d\n+D\n");
        assert_eq!(lines(b"a\nc\n", b"a\nb\nc\n"), "+b\n");
        assert_eq!(lines(b"", b"x\n"), "+x\n");
        assert_eq!(lines(b"\xff", b"x"), "");
    }
}
