//! The status screen: what is known of the machine on 80 × 24 characters, without colour, redrawn when it changes.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use machine::ByteCount;

use crate::console::{self, open_console, recent};
use crate::letters::block_letters;
use crate::screens::Shown;
use crate::status::{Picture, Status};
use crate::unclaimed::Purpose;

/// What every terminal has.
const COLUMNS: usize = 80;
const ROWS: usize = 24;
const LABEL_WIDTH: usize = 11;
const NICS_MAX: usize = 4;
const DISKS_MAX: usize = 4;
/// At most so many drawings a second.
const PAUSE: Duration = Duration::from_millis(250);
/// Redrawn at least so often: a kernel message may have gone over it, and the log moves on.
const REDRAW: Duration = Duration::from_secs(2);

/// A line of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Text as it is.
    Plain(String),
    /// `#` stands for a lit cell.
    Blocks(String),
    /// Text in reverse.
    Bar(String),
}

/// Draws for ever; for a thread of its own. Without a screen it ends at once.
pub fn run(status: &Arc<Status>) {
    let Ok(mut screen) = open_console(Path::new("/dev/tty0")) else { return };
    let mut seen = 0;
    loop {
        let (number, picture) = status.wait(seen, REDRAW);
        seen = number;
        let (columns, rows) = size(&screen);
        let lines = draw(&picture, &recent(rows), columns, rows);
        // The screen may come back (a graphics driver that takes over), so a failure ends nothing.
        let _ = screen.write_all(encode(&lines).as_bytes());
        std::thread::sleep(PAUSE);
    }
}

fn size(screen: &File) -> (usize, usize) {
    match rustix::termios::tcgetwinsize(screen) {
        Ok(size) if size.ws_col >= 40 && size.ws_row >= 10 => (size.ws_col.into(), size.ws_row.into()),
        _ => (COLUMNS, ROWS),
    }
}

/// Lines with the escape sequences of a Linux console (console_codes(4)).
fn encode(lines: &[Line]) -> String {
    let mut text = String::from("\x1b[?25l\x1b[0m\x1b[H");
    for (n, line) in lines.iter().enumerate() {
        if n > 0 {
            text.push_str("\r\n");
        }
        match line {
            Line::Plain(plain) => text.push_str(plain),
            Line::Bar(bar) => text.push_str(&format!("\x1b[7m{bar}\x1b[0m")),
            Line::Blocks(blocks) => {
                for run in blocks.split_inclusive(' ') {
                    let lit = run.trim_end();
                    text.push_str(&format!("\x1b[7m{}\x1b[0m{}", " ".repeat(lit.len()), &run[lit.len()..]));
                }
            }
        }
        text.push_str("\x1b[K");
    }
    text.push_str("\x1b[J");
    text
}

/// The screen's lines for a picture and the last lines of the log, `rows` at most, none longer than `columns`.
pub fn draw(picture: &Picture, log: &[String], columns: usize, rows: usize) -> Vec<Line> {
    if let Some(shown) = &picture.shown {
        return draw_shown(shown, columns, rows);
    }
    let mut lines = vec![Line::Bar(fit(&header(picture, columns), columns, true))];
    let mut field = |label: &str, text: &str| {
        lines.push(Line::Plain(fit(&format!(" {label:LABEL_WIDTH$}{text}"), columns, false)));
    };
    field("Machine", &picture.machine);
    field("Guest", &picture.guest);
    for (n, nic) in picture.nics.values().take(NICS_MAX).enumerate() {
        let link = if nic.link { "link" } else { "no link" };
        let addresses: String = nic.addresses.iter().map(|address| format!("{address}  ")).collect();
        let text = format!("{}  {}  {}  {link}  {addresses}{}", nic.name, nic.driver, nic.mac, nic.note);
        field(if n == 0 { "Network" } else { "" }, &text);
    }
    match picture.nics.len() {
        0 => field("Network", "no network interface with a driver found"),
        n if n > NICS_MAX => field("", &format!("and {} more", n - NICS_MAX)),
        _ => {}
    }
    for (n, disk) in picture.disks.iter().take(DISKS_MAX).enumerate() {
        let protection = if disk.read_only { "read-only" } else { "WRITABLE" };
        let size = disk.size.to_string();
        // The name of an array is those of its members.
        let is_of = |name: &str| name.split(", ").any(|name| name.trim_start_matches("/dev/") == disk.name);
        let progress = picture.copies.iter().find(|(name, _)| is_of(name));
        let progress = progress.map(|(_, (done, total))| format!("  {}", share(*done, *total))).unwrap_or_default();
        let text = format!("{}  {size}  {}  {}  {protection}{progress}", disk.name, disk.model, disk.serial);
        field(if n == 0 { "Disks" } else { "" }, &text);
    }
    match picture.disks.len() {
        0 if picture.unclaimed.iter().any(|device| device.purpose == Purpose::Storage) => {
            field("Disks", "no disk found; a controller has no driver: see Device Installer (F1)");
        }
        0 => field("Disks", "no disk found"),
        n if n > DISKS_MAX => field("", &format!("and {} more", n - DISKS_MAX)),
        _ => {}
    }
    if let Some(boot_path) = &picture.boot_path {
        field("Boot path", boot_path);
    }
    field("Controller", &picture.controller);
    field("State", &picture.agent.describe());
    if let Some(deadline) = &picture.deadline {
        field("Own system", deadline);
    }
    if let Some(question) = &picture.question {
        lines.push(Line::Plain(String::new()));
        if !question.complaint.is_empty() {
            let complaint = wrap(&question.complaint, columns);
            lines.extend(complaint.iter().map(|line| Line::Plain(fit(line, columns, false))));
        }
        lines.push(Line::Bar(fit(&format!(" {} {}_", question.text, question.typed), columns, true)));
    } else if let Some(code) = &picture.agent.pairing_code {
        let detail = picture.agent.detail.as_deref().filter(|detail| !detail.is_empty());
        let what = detail.unwrap_or("to be compared with the one in the console");
        lines.push(Line::Plain(fit(&format!(" Pairing code; {what}"), columns, false)));
        match block_letters(code, columns.saturating_sub(4)) {
            Some(blocks) => lines.extend(blocks.into_iter().map(|row| Line::Blocks(format!("    {row}")))),
            None => lines.push(Line::Bar(fit(&format!(" {code} "), columns, false))),
        }
    }
    let keys =
        Line::Bar(fit(" F1 menu   R restart the machine   P switch it off   C change the controller", columns, true));
    lines.truncate(rows.saturating_sub(1));
    let space = rows.saturating_sub(lines.len() + 1);
    if space > 1 {
        lines.push(Line::Plain(String::new()));
        let shown = &log[log.len().saturating_sub(space - 1)..];
        lines.extend(shown.iter().map(|text| Line::Plain(fit(&format!(" {text}"), columns, false))));
    }
    while lines.len() + 1 < rows {
        lines.push(Line::Plain(String::new()));
    }
    lines.push(keys);
    lines
}

/// What is shown instead of the status, between its title and its keys.
fn draw_shown(shown: &Shown, columns: usize, rows: usize) -> Vec<Line> {
    let fitted = |line: &Line| match line {
        Line::Plain(text) => Line::Plain(fit(text, columns, false)),
        Line::Blocks(text) => Line::Blocks(fit(text, columns, false)),
        Line::Bar(text) => Line::Bar(fit(text, columns, true)),
    };
    let mut lines = vec![Line::Bar(fit(&format!(" vconverter   {}", shown.title), columns, true))];
    lines.extend(shown.lines.iter().take(rows.saturating_sub(2)).map(fitted));
    lines.resize(rows.saturating_sub(1), Line::Plain(String::new()));
    lines.push(Line::Bar(fit(&format!(" {}", shown.keys), columns, true)));
    lines
}

/// Draws what is shown instead of the status on the serial ports, for ever; for a thread of its own. The log goes on
/// there meanwhile, and a line of it is drawn over.
pub fn run_serial(status: &Arc<Status>) {
    let (mut seen, mut drawn) = (0, None);
    loop {
        let (number, picture) = status.wait(seen, REDRAW);
        seen = number;
        let logged = console::logged();
        let wanted = picture.shown.as_ref().map(|shown| (shown.clone(), logged));
        if wanted != drawn {
            match &wanted {
                Some((shown, _)) => console::echo(&encode(&draw_shown(shown, COLUMNS, ROWS))),
                // Back to lines: below what was drawn, with a cursor.
                None => console::echo("\x1b[0m\x1b[2J\x1b[H\x1b[?25h"),
            }
            drawn = wanted;
        }
        std::thread::sleep(PAUSE);
    }
}

fn header(picture: &Picture, columns: usize) -> String {
    let left = concat!(" vconverter boot image ", env!("CARGO_PKG_VERSION"));
    let width = columns.saturating_sub(left.len() + 1);
    format!("{left}{:>width$} ", picture.kernel)
}

/// `1.5 GiB of 3.0 GiB (50 %)`
fn share(done: u64, total: u64) -> String {
    let percent = if total == 0 { 100 } else { u128::from(done.min(total)) * 100 / u128::from(total) };
    format!("{} of {} ({percent} %)", ByteCount(done), ByteCount(total))
}

/// A text on as many lines as it needs, each with a blank before it.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| line.len() + 1 + word.len() <= columns) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(format!(" {word}")),
        }
    }
    lines
}

/// One line of printable ASCII, cut to `columns`, or filled up to it.
fn fit(text: &str, columns: usize, fill: bool) -> String {
    let plain = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    let mut fitted: String = text.chars().map(plain).take(columns).collect();
    if fill {
        fitted.extend(std::iter::repeat_n(' ', columns.saturating_sub(fitted.len())));
    }
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disks::DiskFacts;
    use crate::status::{NicStatus, Question};

    fn picture(nics: u32, disks: usize) -> Picture {
        let mut picture = Picture {
            kernel: "Linux 6.1.0-25-amd64".into(),
            machine: "Dell Inc. PowerEdge R630, serial ABC123, 16.0 GiB, UEFI".into(),
            guest: "Debian GNU/Linux 12 (bookworm), host web1".into(),
            controller: "192.0.2.1:8443".into(),
            ..Picture::default()
        };
        picture.agent.pairing_code = Some("7Q4K-9XZM".into());
        for n in 0..nics {
            let nic = NicStatus {
                name: format!("eth{n}"),
                driver: "e1000e".into(),
                mac: machine::MacAddress([0x52, 0x54, 0, 0, 0, 1]),
                link: true,
                speed: None,
                addresses: Vec::new(),
                note: "asking \u{1b}[2J for an address".into(),
            };
            picture.nics.insert(n, nic);
        }
        for n in 0..disks {
            let name = format!("sd{}", char::from(b'a' + u8::try_from(n).unwrap()));
            picture.disks.push(DiskFacts {
                name,
                size: ByteCount::gib(20),
                model: "M".repeat(90),
                serial: "S".into(),
                read_only: true,
            });
        }
        picture
    }

    fn text(line: &Line) -> &str {
        match line {
            Line::Plain(text) | Line::Blocks(text) | Line::Bar(text) => text,
        }
    }

    #[test]
    fn everything_fits_a_small_screen_with_the_whole_code() {
        for (nics, disks) in [(0, 0), (1, 1), (3, 4), (9, 20)] {
            let log: Vec<String> = (0..40).map(|n| format!("line {n}")).collect();
            let lines = draw(&picture(nics, disks), &log, 80, 24);
            assert_eq!(lines.len(), 24);
            assert!(lines.iter().all(|line| text(line).len() <= 80 && !text(line).contains('\u{1b}')), "{lines:?}");
            assert!(text(&lines[23]).contains("restart"));
            let blocks = lines.iter().filter(|line| matches!(line, Line::Blocks(_))).count();
            assert_eq!(blocks, 7, "with {nics} interfaces and {disks} disks");
        }
    }

    #[test]
    fn the_last_lines_of_the_log_fill_the_rest() {
        let log: Vec<String> = (0..40).map(|n| format!("line {n}")).collect();
        let mut picture = picture(1, 1);
        picture.agent.pairing_code = None;
        let lines = draw(&picture, &log, 80, 24);
        assert_eq!(text(&lines[22]), " line 39");
        assert_eq!(text(&lines[21]), " line 38");
    }

    #[test]
    fn a_pushed_boot_image_shows_what_it_restored_and_when_it_goes_back() {
        let deadline = "is started in 14:59: no contact with the controller; S stays here";
        let pushed = Picture { boot_path: Some("as it was".into()), deadline: Some(deadline.into()), ..picture(1, 1) };
        let lines = draw(&pushed, &[], 80, 24);
        let shown = |wanted: &str| lines.iter().any(|line| text(line) == wanted);
        assert!(shown(" Boot path  as it was") && shown(&format!(" Own system {deadline}")), "{lines:?}");
    }

    #[test]
    fn what_to_do_with_the_code_is_shown_whole() {
        let mut picture = picture(1, 1);
        picture.agent.status = "waiting_for_approval".into();
        picture.agent.detail = Some("on the controller: vconverter machines approve 7Q4K-9XZM".into());
        let lines = draw(&picture, &[], 80, 24);
        let shown = |wanted: &str| lines.iter().any(|line| text(line).ends_with(wanted));
        assert!(shown("Pairing code; on the controller: vconverter machines approve 7Q4K-9XZM"), "{lines:?}");
        assert!(shown("waiting for the operator's approval"), "{lines:?}");
    }

    #[test]
    fn a_question_hides_the_code() {
        let mut picture = picture(1, 1);
        picture.question = Some(Question { text: "Controller:".into(), complaint: "no".into(), typed: "host".into() });
        let lines = draw(&picture, &[], 80, 24);
        assert!(lines.iter().any(|line| matches!(line, Line::Bar(bar) if bar.starts_with(" Controller: host_"))));
        assert!(!lines.iter().any(|line| matches!(line, Line::Blocks(_))));
    }

    #[test]
    fn another_screen_takes_the_place_of_the_status() {
        let lines = vec![Line::Plain("x".repeat(200)), Line::Bar(" > a".into())];
        let shown = Shown { title: "Log", lines, keys: "any key leaves" };
        let lines = draw(&Picture { shown: Some(shown), ..picture(1, 1) }, &[], 80, 24);
        assert_eq!(lines.len(), 24);
        assert!(lines.iter().all(|line| text(line).len() <= 80));
        assert!(text(&lines[0]).contains("Log") && text(&lines[23]).contains("any key leaves"));
    }

    #[test]
    fn a_long_complaint_is_shown_whole() {
        let mut picture = picture(1, 1);
        let complaint = "The controller that was to show 7Q4K-9XZM is left. Another one, or the right address?";
        picture.question = Some(Question { complaint: complaint.into(), ..Question::default() });
        let lines = draw(&picture, &[], 80, 24);
        let shown: String = lines.iter().map(text).collect();
        assert!(shown.contains(complaint), "{lines:?}");
    }

    #[test]
    fn lit_cells_are_spaces_in_reverse() {
        assert!(encode(&[Line::Blocks("## #".into())]).contains("\u{1b}[7m  \u{1b}[0m \u{1b}[7m \u{1b}[0m"));
    }
}
