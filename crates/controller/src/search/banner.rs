//! What an SSH server says first (RFC 4253, section 4.2): a line that begins with `SSH-`, of at most 255 bytes.

/// Bytes that are read.
pub(super) const BYTES_MAX: usize = 255;
/// Characters that are kept.
const CHARS_MAX: usize = 120;

/// The version line in what a stranger sent, as text that can be shown; `None` where there is none (yet).
pub(super) fn parse_banner(bytes: &[u8]) -> Option<String> {
    let bytes = &bytes[..bytes.len().min(BYTES_MAX)];
    // A server may say other lines before.
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let line = lines.find(|line| line.starts_with(b"SSH-"))?;
    if !line.ends_with(b"\n") && bytes.len() < BYTES_MAX {
        return None;
    }
    let text = String::from_utf8_lossy(line);
    // RFC 4253 has printable US-ASCII here: what is not cannot turn a line around or stand for something else.
    let kept: String = text
        .trim_end()
        .chars()
        .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
        .take(CHARS_MAX)
        .collect();
    Some(kept)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_is_sent_is_one_short_line_or_nothing(start in "(SSH-)?", rest in proptest::collection::vec(any::<u8>(), 0..600)) {
            let sent = [start.as_bytes(), &rest].concat();
            if let Some(banner) = parse_banner(&sent) {
                prop_assert!(banner.starts_with("SSH-") && banner.len() <= CHARS_MAX);
                prop_assert!(banner.chars().all(|c| c.is_ascii_graphic() || c == ' '));
            }
        }
    }

    #[test]
    fn the_version_line_is_found_and_cannot_control_a_terminal() {
        for (sent, kept) in [
            (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".as_slice(), Some("SSH-2.0-OpenSSH_9.2p1 Debian-2")),
            (b"be warned\r\nSSH-2.0-x\r\nmore", Some("SSH-2.0-x")),
            (b"SSH-2.0-\x1b[2J\x9b\xe2\x80\xae\r\n", Some("SSH-2.0-?[2J??")),
            (b"SSH-2.0-half", None),
            (b"220 mail ESMTP\r\n", None),
            (b"", None),
            (b"\n\n\n", None),
        ] {
            assert_eq!(parse_banner(sent).as_deref(), kept, "{sent:?}");
        }
        let long = [b"SSH-2.0-".as_slice(), &[b'x'; 10_000]].concat();
        assert_eq!(parse_banner(&long).unwrap().len(), CHARS_MAX);
    }
}
