//! What is on the screen instead of the status: Start menu, Network Configurator, Device Installer, log. One for all
//! consoles.

use crate::configurator::{self, Configurator};
use crate::form::{Field, Form, Reaction};
use crate::installer::{self, Installer};
use crate::keys::Key;
use crate::network::settings::Network;
use crate::screen::Line;
use crate::status::Picture;

/// What is to be done about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Nothing; the screen may have changed.
    Nothing,
    /// To ask whether the machine shall be restarted.
    AskRestart,
    /// To ask whether the machine shall be switched off.
    AskPowerOff,
    /// To save these settings, with this controller, for the next machine.
    Save(Box<Network>, Option<String>),
    /// To show a shell on the screen's second console.
    Rescue,
    /// To use these settings, and then to see whether this controller can be reached.
    Network(Box<Network>, Option<String>),
    /// To install what USB sticks and CDs carry.
    InstallFromMedia,
    /// To install the file at this URL.
    InstallFromUrl(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Status,
    Network,
    Devices,
    Log,
    Rescue,
    Restart,
    PowerOff,
}

#[derive(Clone, Debug, Default)]
enum View {
    /// The status screen, which is drawn elsewhere.
    #[default]
    Status,
    Menu(Form<Item>),
    Network(Box<Configurator>),
    Devices(Box<Installer>),
    /// So many lines up from the end.
    Log(usize),
}

/// The screens besides the status, and which of them is shown.
#[derive(Clone, Debug, Default)]
pub struct Screens {
    view: View,
    /// Nobody asked for what is shown.
    by_itself: bool,
    /// Whether a rescue shell is built in.
    has_rescue: bool,
}

impl Screens {
    /// The status is shown first.
    pub fn new(has_rescue: bool) -> Self {
        Self { has_rescue, ..Self::default() }
    }

    /// Whether the status is shown.
    pub fn is_status(&self) -> bool {
        matches!(self.view, View::Status)
    }

    /// Shows the Start menu.
    pub fn open_menu(&mut self) {
        let item = |item, label: &str| Field::button(item, label);
        self.by_itself = false;
        let mut items = vec![
            item(Item::Network, "Network Configurator"),
            item(Item::Devices, "Device Installer"),
            item(Item::Status, "Status"),
            item(Item::Log, "Log"),
            item(Item::Rescue, "Rescue shell (Alt+F2)"),
            item(Item::Restart, "Restart this machine"),
            item(Item::PowerOff, "Switch this machine off"),
        ];
        items.retain(|item| item.name != Item::Rescue || self.has_rescue);
        self.view = View::Menu(Form::new(items));
    }

    /// Shows the Network Configurator.
    pub fn open_network(&mut self, network: Network, picture: &Picture) {
        self.by_itself = false;
        self.view = View::Network(Box::new(Configurator::new(network, picture)));
    }

    /// Shows the Network Configurator, for there is no network.
    pub fn offer_network(&mut self, network: Network, picture: &Picture) {
        self.open_network(network, picture);
        self.by_itself = true;
    }

    /// Goes back to the status.
    pub fn close(&mut self) {
        self.view = View::Status;
    }

    /// Whether the Network Configurator is shown.
    pub fn is_network(&self) -> bool {
        matches!(self.view, View::Network(_))
    }

    /// Goes back to the status if nobody touched what came by itself.
    pub fn withdraw(&mut self) {
        if self.by_itself {
            self.view = View::Status;
        }
    }

    /// Takes a key while something other than the status is shown.
    pub fn take(&mut self, key: Key, network: &Network, picture: &Picture) -> Choice {
        self.by_itself = false;
        match &mut self.view {
            View::Status => Choice::Nothing,
            View::Menu(form) => match form.take(key) {
                Reaction::Nothing | Reaction::Entered(_) => Choice::Nothing,
                Reaction::Left | Reaction::Pressed(Item::Status) => self.leave_for(Choice::Nothing),
                Reaction::Pressed(Item::Network) => {
                    self.open_network(network.clone(), picture);
                    Choice::Nothing
                }
                Reaction::Pressed(Item::Devices) => {
                    self.view = View::Devices(Box::new(Installer::new(picture)));
                    Choice::Nothing
                }
                Reaction::Pressed(Item::Log) => {
                    self.view = View::Log(0);
                    Choice::Nothing
                }
                Reaction::Pressed(Item::Rescue) => Choice::Rescue,
                Reaction::Pressed(Item::Restart) => self.leave_for(Choice::AskRestart),
                Reaction::Pressed(Item::PowerOff) => self.leave_for(Choice::AskPowerOff),
            },
            View::Network(configurator) => match configurator.take(key) {
                configurator::Wish::Nothing => Choice::Nothing,
                configurator::Wish::Leave => self.leave_for(Choice::Nothing),
                configurator::Wish::Save(network) => Choice::Save(network, configurator.controller()),
                configurator::Wish::Network(network) => Choice::Network(network, configurator.controller()),
            },
            View::Devices(devices) => match devices.take(key, picture) {
                installer::Wish::Nothing => Choice::Nothing,
                installer::Wish::Leave => self.leave_for(Choice::Nothing),
                installer::Wish::Media => Choice::InstallFromMedia,
                installer::Wish::Url(url) => Choice::InstallFromUrl(url),
            },
            View::Log(up) => {
                match key {
                    Key::Up => *up += 1,
                    Key::Down => *up = up.saturating_sub(1),
                    _ => self.view = View::Status,
                }
                Choice::Nothing
            }
        }
    }

    fn leave_for(&mut self, choice: Choice) -> Choice {
        self.view = View::Status;
        choice
    }

    /// The lines to be shown instead of the status, with a title and the keys; `None` for the status.
    pub fn draw(&mut self, picture: &Picture, log: &[String], rows: usize) -> Option<Shown> {
        match &mut self.view {
            View::Status => None,
            View::Menu(form) => Some(Shown {
                title: "Start menu",
                lines: crate::form::draw(form),
                keys: "Up/Down move   Enter choose   Esc status",
            }),
            View::Network(configurator) => {
                configurator.refresh(picture);
                Some(Shown {
                    title: "Network Configurator",
                    lines: configurator.draw(picture),
                    keys: "Up/Down move   Left/Right change   Enter choose   Esc leave",
                })
            }
            View::Devices(devices) => {
                devices.refresh(picture);
                Some(Shown {
                    title: "Device Installer",
                    lines: devices.draw(picture),
                    keys: "Up/Down move   Enter choose   Esc leave",
                })
            }
            View::Log(up) => {
                *up = (*up).min(log.len().saturating_sub(1));
                let end = log.len() - *up;
                let start = end.saturating_sub(rows.saturating_sub(3));
                Some(Shown {
                    title: "Log",
                    lines: log[start..end].iter().map(|line| Line::Plain(format!(" {line}"))).collect(),
                    keys: "Up/Down scroll   any other key leaves",
                })
            }
        }
    }
}

/// A screen instead of the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What it is.
    pub title: &'static str,
    /// Its lines.
    pub lines: Vec<Line>,
    /// What the keys do.
    pub keys: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_menu_leads_everywhere_and_back() {
        let (network, picture) = (Network::default(), Picture::default());
        let mut screens = Screens::default();
        assert!(screens.is_status() && screens.draw(&picture, &[], 24).is_none());
        let log: Vec<String> = (0..50).map(|n| format!("line {n}")).collect();
        let mut title_after = |keys: &[Key]| {
            screens.open_menu();
            keys.iter().for_each(|&key| drop(screens.take(key, &network, &picture)));
            screens.draw(&picture, &log, 24).map(|shown| shown.title)
        };
        assert_eq!(title_after(&[]), Some("Start menu"));
        assert_eq!(title_after(&[Key::Enter]), Some("Network Configurator"));
        assert_eq!(title_after(&[Key::Enter, Key::Escape]), None);
        assert_eq!(title_after(&[Key::Down, Key::Enter]), Some("Device Installer"));
        assert_eq!(title_after(&[Key::Down, Key::Enter, Key::Escape]), None);
        assert_eq!(title_after(&[Key::Down, Key::Down, Key::Enter]), None);
        assert_eq!(title_after(&[Key::Down, Key::Down, Key::Down, Key::Enter]), Some("Log"));
        assert_eq!(title_after(&[Key::Escape]), None);
        screens.open_menu();
        let keys = [Key::Up, Key::Enter].map(|key| screens.take(key, &network, &picture));
        assert_eq!(keys[1], Choice::AskPowerOff);
    }

    #[test]
    fn a_shell_is_in_the_menu_only_where_it_is_built_in() {
        let (network, picture) = (Network::default(), Picture::default());
        let mut screens = Screens::new(true);
        screens.open_menu();
        let keys = [Key::Down, Key::Down, Key::Down, Key::Down, Key::Enter];
        assert_eq!(keys.map(|key| screens.take(key, &network, &picture))[4], Choice::Rescue);
        for (built_in, shown) in [(true, true), (false, false)] {
            let mut screens = Screens::new(built_in);
            screens.open_menu();
            let lines = screens.draw(&picture, &[], 24).unwrap().lines;
            assert_eq!(lines.iter().any(|line| format!("{line:?}").contains("Rescue")), shown);
        }
    }

    #[test]
    fn what_came_by_itself_goes_by_itself_until_it_is_touched() {
        let (network, picture) = (Network::default(), Picture::default());
        let mut screens = Screens::default();
        screens.offer_network(network.clone(), &picture);
        assert!(!screens.is_status());
        screens.withdraw();
        assert!(screens.is_status());
        screens.offer_network(network.clone(), &picture);
        screens.take(Key::Down, &network, &picture);
        screens.withdraw();
        assert!(!screens.is_status());
    }

    #[test]
    fn the_log_scrolls_within_its_lines() {
        let (network, picture) = (Network::default(), Picture::default());
        let log: Vec<String> = (0..50).map(|n| format!("line {n}")).collect();
        let mut screens = Screens { view: View::Log(0), ..Screens::default() };
        (0..100).for_each(|_| drop(screens.take(Key::Up, &network, &picture)));
        let shown = screens.draw(&picture, &log, 24).unwrap();
        assert_eq!(shown.lines, [Line::Plain(" line 0".into())]);
        screens.take(Key::Down, &network, &picture);
        assert_eq!(screens.draw(&picture, &log, 24).unwrap().lines.len(), 2);
    }
}
