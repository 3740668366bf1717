//! fstab(5): which filesystems belong where.

/// Lines read of one table.
const LINES_MAX: usize = 4096;

/// One line of `/etc/fstab`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesystemLine {
    /// `UUID=…`, `LABEL=…`, `/dev/…`, as written, octal escapes resolved.
    pub device: String,
    /// Mount point, or `none`.
    pub mount_point: String,
    /// `ext4`, `swap`, `auto`.
    pub kind: String,
    /// Options, without splitting.
    pub options: String,
}

/// Parses `/etc/fstab`; lines that are none are skipped.
pub fn parse_fstab(text: &str) -> Vec<FilesystemLine> {
    let line = |line: &str| {
        let line = line.trim_start();
        if line.starts_with('#') {
            return None;
        }
        let mut fields = line.split_ascii_whitespace().map(unescape);
        let (device, mount_point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        Some(FilesystemLine { device, mount_point, kind, options: fields.next().unwrap_or_default() })
    };
    text.lines().filter_map(line).take(LINES_MAX).collect()
}

/// `\040` is a space: three octal digits behind a backslash.
fn unescape(field: &str) -> String {
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 4).filter(|digits| digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match digits {
            Some(digits) if *byte == b'\\' && digits[0] <= b'3' => {
                out.push((digits[0] - b'0') * 64 + (digits[1] - b'0') * 8 + (digits[2] - b'0'));
                at += 4;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_comments_are_not() {
        let text = "# c\n/dev/sda1 / ext4 errors=remount-ro 0 1\nLABEL=a\\040b /mnt/x\\134y vfat\n\nshort line\n";
        let lines = parse_fstab(text);
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].device.as_str(), lines[0].options.as_str()), ("/dev/sda1", "errors=remount-ro"));
        assert_eq!((lines[1].device.as_str(), lines[1].mount_point.as_str()), ("LABEL=a b", "/mnt/x\\y"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "[\\\\0-9 \ta-z/#\n\u{e9}]{0,200}") {
            let _ = parse_fstab(&text);
        }
    }
}
