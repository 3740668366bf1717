//! Device Installer: the devices that no driver claimed, and ways to bring one.
//!
//! Pure: keys and what is known of the machine go in, lines for the screen and wishes come out.

use crate::form::{self, Field, Form, Reaction};
use crate::keys::Key;
use crate::screen::{Line, wrap};
use crate::status::Picture;
use crate::unclaimed::{Lack, Purpose, Unclaimed};

/// Devices that are listed; a screen has no more lines. Disks and network cards come first.
const DEVICES_MAX: usize = 9;
/// Lines of what became of the last files.
const OUTCOME_LINES_MAX: usize = 7;
/// Width of a message: what every terminal has.
const MESSAGE_WIDTH: usize = 80;

/// What is wished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing yet.
    Nothing,
    /// To leave.
    Leave,
    /// To install what USB sticks and CDs carry.
    Media,
    /// To install the file at this URL.
    Url(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Device(usize),
    Media,
    Url,
    Leave,
    Back,
}

/// What is on the screen.
#[derive(Clone, Debug)]
pub struct Installer {
    main: Form<Item>,
    /// The device that is shown by itself.
    device: Option<(Unclaimed, Form<Item>)>,
}

impl Installer {
    /// Begins with the devices of the picture.
    pub fn new(picture: &Picture) -> Self {
        let main = Form::new(vec![
            Field::button(Item::Media, "[ Read a USB stick or CD ]"),
            Field::text(Item::Url, "Fetch from URL", "", "http://192.0.2.1/driver.deb"),
            Field::button(Item::Leave, "[ Leave ]"),
        ]);
        let mut installer = Self { main, device: None };
        installer.refresh(picture);
        installer
    }

    /// The devices as they are now; what was typed stays.
    pub fn refresh(&mut self, picture: &Picture) {
        let focus = self.main.fields.get(self.main.focus).map(|field| field.name);
        self.main.fields.retain(|field| !matches!(field.name, Item::Device(_)));
        let devices = picture.unclaimed.iter().take(DEVICES_MAX).enumerate();
        let devices =
            devices.map(|(n, device)| Field::button(Item::Device(n), format!("{} {}", label(device), device.title())));
        self.main.fields.splice(0..0, devices);
        if let Some(name) = focus {
            self.main.focus = self.main.focus.min(self.main.fields.len().saturating_sub(1));
            self.main.focus_on(name);
        }
    }

    /// Takes a key.
    pub fn take(&mut self, key: Key, picture: &Picture) -> Wish {
        if let Some((_, form)) = &mut self.device {
            if !matches!(form.take(key), Reaction::Nothing) {
                self.device = None;
            }
            return Wish::Nothing;
        }
        match self.main.take(key) {
            Reaction::Left | Reaction::Pressed(Item::Leave) => return Wish::Leave,
            Reaction::Pressed(Item::Device(n)) => {
                let back = || Form::new(vec![Field::button(Item::Back, "[ Back ]")]);
                self.device = picture.unclaimed.get(n).map(|device| (device.clone(), back()));
            }
            Reaction::Pressed(Item::Media) => return Wish::Media,
            Reaction::Entered(Item::Url) => {
                if let Some(url) = self.main.text(Item::Url) {
                    return Wish::Url(url.to_owned());
                }
            }
            Reaction::Nothing | Reaction::Entered(_) | Reaction::Pressed(_) => {}
        }
        Wish::Nothing
    }

    /// The lines below the header.
    pub fn draw(&self, picture: &Picture) -> Vec<Line> {
        let mut lines = Vec::new();
        if let Some((device, form)) = &self.device {
            lines.extend(plain(&device.title()));
            lines.push(Line::Plain(String::new()));
            lines.extend(plain(&format!("It {}.", device.lack)));
            if let Lack::Firmware(_, files) = &device.lack {
                lines.extend(plain(&files.join(" ")).take(6));
            }
            lines.push(Line::Plain(String::new()));
            lines.extend(plain(advice(&device.lack)));
            lines.push(Line::Plain(String::new()));
            lines.extend(form::draw(form));
            return lines;
        }
        let further = picture.unclaimed.len().saturating_sub(DEVICES_MAX);
        lines.push(Line::Plain(match picture.unclaimed.len() {
            0 => " every device that needs a driver has one".into(),
            _ if further > 0 => format!(" Devices without a driver ({further} more are in the log):"),
            _ => " Devices without a driver:".into(),
        }));
        lines.extend(form::draw(&self.main));
        lines.push(Line::Plain(String::new()));
        if let Some(busy) = &picture.installing {
            lines.extend(plain(busy));
        } else {
            lines.extend(picture.installed.iter().flat_map(|line| plain(line)).take(OUTCOME_LINES_MAX));
        }
        lines
    }
}

/// `disk`, `net` or nothing, in one column.
fn label(device: &Unclaimed) -> &'static str {
    match device.purpose {
        Purpose::Storage => "disk",
        Purpose::Network => "net ",
        Purpose::Other => "    ",
    }
}

fn advice(lack: &Lack) -> &'static str {
    match lack {
        Lack::Module(_) | Lack::Driver(_) => {
            "Bring the module for this kernel (.ko, or a Debian package of it) on a USB stick or CD in the folder \
             vconverter-drivers, by URL, or from the controller: vconverter drivers add FILE, then vconverter drivers push."
        }
        Lack::Firmware(..) => {
            "Bring the firmware (Debian's firmware packages, or the files) on a USB stick or CD in the folder \
             vconverter-drivers, by URL, or from the controller: vconverter drivers add FILE, then vconverter drivers push."
        }
        Lack::Refused(_) => "The log (Start menu) has the kernel's words about it. A newer module may help.",
    }
}

/// A text on as many lines as it needs.
fn plain(text: &str) -> impl Iterator<Item = Line> + use<> {
    wrap(text, MESSAGE_WIDTH).into_iter().map(Line::Plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(devices: usize) -> Picture {
        let device = |n: usize| Unclaimed {
            purpose: Purpose::Storage,
            bus: "pci".into(),
            address: format!("0000:00:{n:02x}.0"),
            name: "Broadcom / LSI MegaRAID SAS 1078".into(),
            id: "1000:0060".into(),
            lack: Lack::Module(vec!["megaraid_sas".into()]),
        };
        Picture { unclaimed: (0..devices).map(device).collect(), ..Picture::default() }
    }

    fn text(installer: &Installer, picture: &Picture) -> String {
        let line = |line: Line| match line {
            Line::Plain(text) | Line::Blocks(text) | Line::Bar(text) => text + "\n",
        };
        installer.draw(picture).into_iter().map(line).collect()
    }

    #[test]
    fn a_device_is_listed_by_name_and_tells_what_it_lacks() {
        let picture = picture(1);
        let mut installer = Installer::new(&picture);
        let shown = text(&installer, &picture);
        assert!(shown.contains("disk pci 0000:00:00.0 Broadcom / LSI MegaRAID SAS 1078 [1000:0060]"), "{shown}");
        assert!(shown.contains("> [ Read a USB stick or CD ]"), "{shown}");
        assert_eq!([Key::Up, Key::Enter].map(|key| installer.take(key, &picture)), [Wish::Nothing, Wish::Nothing]);
        let shown = text(&installer, &picture);
        assert!(
            shown.contains("It lacks the module megaraid_sas") && shown.contains("vconverter drivers push"),
            "{shown}"
        );
        assert_eq!(installer.take(Key::Enter, &picture), Wish::Nothing);
        assert!(text(&installer, &picture).contains("Fetch from URL"));
    }

    #[test]
    fn sticks_and_urls_are_wished_for_with_arrows_and_typing() {
        let picture = picture(2);
        let mut installer = Installer::new(&picture);
        assert_eq!(installer.take(Key::Enter, &picture), Wish::Media);
        installer.take(Key::Down, &picture);
        assert_eq!(installer.take(Key::Enter, &picture), Wish::Nothing, "nothing is typed");
        installer.take(Key::Up, &picture);
        "http://a/b".chars().for_each(|c| drop(installer.take(Key::Character(c), &picture)));
        assert_eq!(installer.take(Key::Enter, &picture), Wish::Url("http://a/b".into()));
        assert_eq!(installer.take(Key::Escape, &picture), Wish::Leave);
    }

    #[test]
    fn everything_fits_a_small_screen() {
        let mut picture = picture(40);
        picture.installed = vec!["word ".repeat(200); 3];
        let installer = Installer::new(&picture);
        assert!(installer.draw(&picture).len() <= 22, "{}", text(&installer, &picture));
        assert!(text(&installer, &picture).contains("31 more"));
        picture.installing = Some("fetching".into());
        assert!(text(&installer, &picture).ends_with(" fetching\n"));
    }

    #[test]
    fn devices_that_come_and_go_leave_what_was_typed() {
        let mut installer = Installer::new(&picture(1));
        installer.take(Key::Down, &picture(1));
        installer.take(Key::Character('h'), &picture(1));
        installer.refresh(&picture(0));
        assert!(text(&installer, &picture(0)).contains("every device that needs a driver has one"));
        assert!(text(&installer, &picture(0)).contains("> Fetch from URL    h_"));
    }
}
