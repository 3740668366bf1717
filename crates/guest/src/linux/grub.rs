//! GRUB's configuration as far as it tells which kernel boots: menu entries, the default, the environment block.
//!
//! Reads `grub.cfg` as `grub-mkconfig` writes it (GRUB manual 2.06, "Writing full configuration files directly").
//! Conditions are not evaluated: of the assignments to `default` the last is taken that is not a one-time entry.

/// Menu entries read at most.
const ENTRIES_MAX: usize = 4096;

/// Depth of submenus read.
const DEPTH_MAX: usize = 16;

/// A kernel that GRUB can start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MenuEntry {
    /// Title as shown.
    pub title: String,
    /// `--id` or `$menuentry_id_option`, if any.
    pub id: Option<String>,
    /// Index in its menu, and those of the submenus above it, outermost first.
    pub position: Vec<usize>,
    /// Titles and ids of the submenus above it, outermost first.
    pub above: Vec<(String, Option<String>)>,
    /// Path of the kernel on GRUB's root volume.
    pub kernel: Option<String>,
    /// The kernel's command line.
    pub command_line: String,
    /// Paths of the initramfs files.
    pub initrd: Vec<String>,
}

/// What a `grub.cfg` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Menu {
    /// Entries in order, those of submenus included.
    pub entries: Vec<MenuEntry>,
    /// The value of `default`: a number, a title, an id, `>` between levels, or `${saved_entry}`.
    pub default: Option<String>,
}

/// Parses a `grub.cfg`. Anything that is not understood is skipped.
pub fn parse_menu(text: &str) -> Menu {
    let mut menu = Menu::default();
    // What each open brace belongs to.
    enum Block {
        Entry,
        Submenu { title: String, id: Option<String>, index: usize, next: usize },
        Other,
    }
    let mut blocks: Vec<Block> = Vec::new();
    let mut top = 0;
    let mut current: Option<MenuEntry> = None;
    let joined = text.replace("\\\n", " ");
    for words in joined.lines().flat_map(statements) {
        let Some(first) = words.first() else { continue };
        let opens = words.last().is_some_and(|word| word == "{");
        match first.as_str() {
            "menuentry" | "submenu" if opens && blocks.len() < DEPTH_MAX => {
                let (title, id) = title_and_id(&words);
                let parent = blocks.iter_mut().rev().find_map(|block| match block {
                    Block::Submenu { next, .. } => Some(next),
                    _ => None,
                });
                let next = parent.unwrap_or(&mut top);
                let index = *next;
                *next += 1;
                if first == "submenu" {
                    blocks.push(Block::Submenu { title, id, index, next: 0 });
                    continue;
                }
                let mut entry = MenuEntry { title, id, ..MenuEntry::default() };
                for block in &blocks {
                    if let Block::Submenu { title, id, index, .. } = block {
                        entry.position.push(*index);
                        entry.above.push((title.clone(), id.clone()));
                    }
                }
                entry.position.push(index);
                current = Some(entry);
                blocks.push(Block::Entry);
            }
            "}" => {
                if let Some(Block::Entry) = blocks.pop()
                    && let Some(entry) = current.take()
                    && menu.entries.len() < ENTRIES_MAX
                {
                    menu.entries.push(entry);
                }
            }
            "set" => {
                if let Some(value) = words.get(1).and_then(|word| word.strip_prefix("default="))
                    && !value.contains("next_entry")
                {
                    menu.default = Some(value.to_owned());
                }
            }
            "linux" | "linux16" | "linuxefi" => {
                if let (Some(entry), Some(path)) = (&mut current, words.get(1)) {
                    entry.kernel = Some(path.clone());
                    entry.command_line = words[2..].join(" ");
                }
            }
            "initrd" | "initrd16" | "initrdefi" => {
                if let Some(entry) = &mut current {
                    entry.initrd = words[1..].to_vec();
                }
            }
            _ if opens && blocks.len() < DEPTH_MAX => blocks.push(Block::Other),
            _ => {}
        }
    }
    menu
}

/// The entry that is started when nobody presses a key.
///
/// `saved` is the environment block's `saved_entry`. A default that names no entry means the first, as in GRUB.
pub fn default_entry<'m>(menu: &'m Menu, saved: Option<&str>) -> Option<&'m MenuEntry> {
    let default = match menu.default.as_deref() {
        Some(value) if value.contains("saved_entry") => saved.unwrap_or("0"),
        Some("") | None => "0",
        Some(value) => value,
    };
    let parts: Vec<&str> = default.split('>').map(str::trim).collect();
    let matches = |part: &str, index: usize, title: &str, id: Option<&String>| {
        part.parse() == Ok(index) || part == title || id.is_some_and(|id| id == part)
    };
    let found = menu.entries.iter().find(|entry| {
        entry.position.len() == parts.len()
            && parts.iter().enumerate().all(|(level, part)| {
                let index = entry.position[level];
                match entry.above.get(level) {
                    Some((title, id)) => matches(part, index, title, id.as_ref()),
                    None => matches(part, index, &entry.title, entry.id.as_ref()),
                }
            })
    });
    // A default that names a submenu opens it, and its own default is its first entry.
    let within = || {
        menu.entries.iter().find(|entry| {
            entry.position.len() > parts.len()
                && parts.iter().enumerate().all(|(level, part)| {
                    let (title, id) = &entry.above[level];
                    matches(part, entry.position[level], title, id.as_ref())
                })
        })
    };
    found.or_else(within).or_else(|| menu.entries.iter().find(|entry| entry.kernel.is_some()))
}

/// A variable of GRUB's environment block: 1024 bytes, a signature line, `name=value` lines, `#` filling.
pub fn environment_value(block: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(block.get(..1024.min(block.len()))?);
    let text = text.strip_prefix("# GRUB Environment Block\n")?.to_owned();
    let value = text.lines().filter_map(|line| line.split_once('=')).find(|(key, _)| *key == name)?.1;
    (!value.is_empty()).then(|| value.replace("\\\\", "\\"))
}

fn title_and_id(words: &[String]) -> (String, Option<String>) {
    let mut id = None;
    let mut rest = words[1..].iter();
    let title = rest.next().cloned().unwrap_or_default();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--id" | "$menuentry_id_option" | "${menuentry_id_option}" => id = rest.next().cloned(),
            other => id = other.strip_prefix("--id=").map(str::to_owned).or(id),
        }
    }
    (title, id)
}

/// Statements of one line, as words: they end at `;` and behind `{`, and a `}` is one by itself.
fn statements(line: &str) -> Vec<Vec<String>> {
    let mut statements = vec![Vec::new()];
    for word in words(line) {
        let current = statements.last_mut().filter(|current| word != "}" || current.is_empty());
        let current = match current {
            Some(current) => current,
            None => {
                statements.push(Vec::new());
                let last = statements.len() - 1;
                &mut statements[last]
            }
        };
        let (word, ends) = match word.strip_suffix(';') {
            Some(word) => (word.to_owned(), true),
            None => {
                let ends = word == "{" || word == "}";
                (word, ends)
            }
        };
        if !word.is_empty() {
            current.push(word);
        }
        if ends {
            statements.push(Vec::new());
        }
    }
    statements
}

/// Words of one line; quotes are taken away, a comment ends it.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quote, mut inside) = (None, false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                inside = true;
            }
            (Some('"') | None, '\\') => {
                word.extend(chars.next());
                inside = true;
            }
            (None, '#') if !inside => break,
            (None, c) if c.is_whitespace() => {
                if inside {
                    words.push(std::mem::take(&mut word));
                }
                inside = false;
            }
            (_, c) => {
                word.push(c);
                inside = true;
            }
        }
    }
    if inside {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
if [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="DEFAULT"
fi
function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
    save_env saved_entry
  fi
}
menuentry 'Debian GNU/Linux' --class debian --class gnu-linux $menuentry_id_option 'gnulinux-simple-1' {
	load_video
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	search --no-floppy --fs-uuid --set=root 1111
	linux	/boot/vmlinuz-6.1.0-32-amd64 root=UUID=1111 ro  quiet
	initrd	/boot/initrd.img-6.1.0-32-amd64
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-1' {
	menuentry 'Debian, with Linux 6.1.0-32' --class debian $menuentry_id_option 'gnulinux-6.1.0-32-advanced-1' {
		linux	/boot/vmlinuz-6.1.0-32-amd64 root=UUID=1111 ro
		initrd	/boot/initrd.img-6.1.0-32-amd64
	}
	menuentry 'Debian, with Linux 6.1.0-9' --class debian $menuentry_id_option 'gnulinux-6.1.0-9-advanced-1' {
		linux	/boot/vmlinuz-6.1.0-9-amd64 root=UUID=1111 ro
		initrd	/boot/initrd.img-6.1.0-9-amd64
	}
}
menuentry 'Memtest' { insmod x; linux16 /boot/memtest.bin }
menuentry 'After' { linux /boot/vmlinuz-after }
"#;

    fn kernel(default: &str, saved: Option<&str>) -> String {
        let menu = parse_menu(&CONFIG.replace("DEFAULT", default));
        default_entry(&menu, saved).unwrap().kernel.clone().unwrap()
    }

    #[test]
    fn default_is_found_by_number_title_id_and_saved_entry() {
        assert!(kernel("0", None).ends_with("32-amd64"));
        assert!(kernel("1>1", None).ends_with("-9-amd64"));
        assert!(kernel("1", None).ends_with("32-amd64"));
        assert_eq!(kernel("2", None), "/boot/memtest.bin");
        assert_eq!(kernel("After", None), "/boot/vmlinuz-after");
        assert!(kernel("Advanced options for Debian GNU/Linux>Debian, with Linux 6.1.0-9", None).ends_with("-9-amd64"));
        assert!(kernel("gnulinux-advanced-1>gnulinux-6.1.0-9-advanced-1", None).ends_with("-9-amd64"));
        assert!(
            kernel("${saved_entry}", Some("gnulinux-advanced-1>gnulinux-6.1.0-9-advanced-1")).ends_with("-9-amd64")
        );
        assert!(kernel("${saved_entry}", None).ends_with("32-amd64"));
        assert!(kernel("nonsense", None).ends_with("32-amd64"));
    }

    #[test]
    fn environment_block_is_read() {
        let mut block = b"# GRUB Environment Block\nsaved_entry=a>b\nempty=\n".to_vec();
        block.resize(1024, b'#');
        assert_eq!(environment_value(&block, "saved_entry").as_deref(), Some("a>b"));
        assert_eq!(environment_value(&block, "empty"), None);
        assert_eq!(environment_value(b"garbage", "saved_entry"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "[ a-z0-9{}\"'\\\\\n#>=$]{0,300}") {
            let menu = parse_menu(&text);
            let _ = default_entry(&menu, Some(&text));
        }
    }
}
