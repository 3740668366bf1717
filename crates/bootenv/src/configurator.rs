//! Network Configurator: what whoever stands there sees of the network and can set, by arrow keys, typing and Enter.
//!
//! Pure: keys and what is known of the machine go in, lines for the screen and wishes come out.

use machine::MacAddress;

use crate::Result;
use crate::configuration::parse_controller;
use crate::form::{self, Field, Form, Reaction};
use crate::keys::Key;
use crate::network::settings::{
    Bond, BondPolicy, LinkSettings, Mode, Network, NicSettings, RouteSettings, check_hostname,
};
use crate::screen::{Line, wrap};
use crate::status::{NicStatus, Picture};

/// Interfaces that are listed; a screen has no more lines.
const NICS_MAX: usize = 10;
/// Width of a message: what every terminal has.
const MESSAGE_WIDTH: usize = 80;
/// Speeds that can be set; the first is to negotiate it.
const SPEEDS: [&str; 6] = ["negotiated", "10/half", "10/full", "100/half", "100/full", "1000/full"];

/// Policies of a bond, in words.
const POLICIES: [(BondPolicy, &str); 3] = [
    (BondPolicy::ActiveBackup, "of all interfaces, one works (active-backup)"),
    (BondPolicy::Lacp, "of all interfaces, LACP (802.3ad)"),
    (BondPolicy::BalanceXor, "of all interfaces, as the switch is set (balance-xor)"),
];
/// Where addresses come from, in words.
const MODES: [(Mode, &str); 3] = [(Mode::Dhcp, "DHCP"), (Mode::Static, "static"), (Mode::Off, "off")];

/// What is wished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing yet.
    Nothing,
    /// To leave.
    Leave,
    /// These settings.
    Network(Box<Network>),
    /// To save these settings for the next machine.
    Save(Box<Network>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Main {
    Nic(MacAddress),
    Hostname,
    Dns,
    Controller,
    Bond,
    Apply,
    Save,
    Leave,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Mode,
    Address,
    Gateway,
    Address6,
    Gateway6,
    Vlan,
    Mtu,
    Speed,
    Addresses,
    Routes,
    Keep,
    Leave,
}

/// What is on the screen.
#[derive(Clone, Debug)]
pub struct Configurator {
    network: Network,
    main: Form<Main>,
    /// The interface whose settings are shown; a bond is shown as its first member.
    link: Option<(MacAddress, Form<Link>)>,
    complaint: String,
}

impl Configurator {
    /// Begins with the settings in force.
    pub fn new(network: Network, picture: &Picture) -> Self {
        let controller =
            Some(picture.controller.as_str()).filter(|text| parse_controller(text).is_ok()).unwrap_or_default();
        let mut fields: Vec<_> = nics(picture).map(|nic| Field::button(Main::Nic(nic.mac), nic_line(nic))).collect();
        let dns = network.dns.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        fields.push(Field::text(Main::Controller, "Controller", controller, "HOST:PORT"));
        fields.push(Field::text(Main::Dns, "Name servers", dns, "192.0.2.53 (empty: those of DHCP)"));
        let hostname = network.hostname.clone().unwrap_or_default();
        fields.push(Field::text(Main::Hostname, "Computer name", hostname, "vconverter"));
        let bond = network.bond.first().and_then(|bond| POLICIES.iter().position(|(policy, _)| *policy == bond.policy));
        let policies = std::iter::once("none").chain(POLICIES.map(|(_, text)| text)).map(str::to_owned);
        fields.push(Field::choice(Main::Bond, "Bond", policies.collect(), bond.map_or(0, |at| at + 1)));
        fields.push(Field::button(Main::Apply, "[ Apply and test ]"));
        fields.push(Field::button(Main::Save, "[ Save to a USB stick for the next machine ]"));
        fields.push(Field::button(Main::Leave, "[ Leave ]"));
        let mut main = Form::new(fields);
        main.focus_on(Main::Controller);
        Self { network, main, link: None, complaint: String::new() }
    }

    /// The interfaces as they are now; the form keeps what was typed.
    pub fn refresh(&mut self, picture: &Picture) {
        let focus = self.main.fields.get(self.main.focus).map(|field| field.name);
        self.main.fields.retain(|field| !matches!(field.name, Main::Nic(_)));
        let nics = nics(picture).map(|nic| Field::button(Main::Nic(nic.mac), nic_line(nic)));
        self.main.fields.splice(0..0, nics);
        if let Some(name) = focus {
            self.main.focus = self.main.focus.min(self.main.fields.len().saturating_sub(1));
            self.main.focus_on(name);
        }
    }

    /// Takes a key.
    pub fn take(&mut self, key: Key) -> Wish {
        match &mut self.link {
            Some((_, form)) => match form.take(key) {
                Reaction::Left | Reaction::Pressed(Link::Leave) => self.link = None,
                Reaction::Pressed(_) => self.keep_link(),
                Reaction::Nothing | Reaction::Entered(_) => {}
            },
            None => match self.main.take(key) {
                Reaction::Left | Reaction::Pressed(Main::Leave) => return Wish::Leave,
                Reaction::Pressed(Main::Nic(mac)) => self.open(mac),
                // Often the controller is all that is missing.
                Reaction::Pressed(Main::Apply) | Reaction::Entered(Main::Controller) => return self.apply(),
                Reaction::Pressed(Main::Save) => return self.gathered().map_or(Wish::Nothing, Wish::Save),
                Reaction::Pressed(_) | Reaction::Entered(_) | Reaction::Nothing => {}
            },
        }
        Wish::Nothing
    }

    fn open(&mut self, mac: MacAddress) {
        self.complaint.clear();
        let settings = self.settings(mac);
        self.link = Some((mac, link_form(&settings)));
    }

    /// The settings of an interface as they would be now.
    fn settings(&self, mac: MacAddress) -> LinkSettings {
        match self.network.bond.iter().find(|bond| bond.members.contains(&mac)) {
            Some(bond) => bond.link.clone(),
            None => {
                let own = self.network.nic.iter().find(|nic| nic.mac == mac);
                own.map_or(&self.network.all, |own| &own.link).clone()
            }
        }
    }

    /// Takes the link's form over, unless something in it is wrong.
    fn keep_link(&mut self) {
        let Some((mac, form)) = &self.link else { return };
        match link_settings(form, &self.settings(*mac)) {
            Ok(link) => {
                let mac = *mac;
                let Network { all, nic, bond, .. } = &mut self.network;
                let first = nic.iter().position(|nic| nic.mac == mac);
                // What is in further VLANs of it stays as it is.
                match (bond.iter_mut().find(|bond| bond.members.contains(&mac)), first) {
                    (Some(bond), _) => bond.link = link,
                    (None, Some(at)) if link == *all => drop(nic.remove(at)),
                    (None, Some(at)) => nic.splice(at..=at, [NicSettings { mac, link }]).for_each(drop),
                    (None, None) if link == *all => {}
                    (None, None) => nic.push(NicSettings { mac, link }),
                }
                self.link = None;
                self.complaint.clear();
                self.main.focus_on(Main::Apply);
            }
            Err(error) => self.complaint = error.context,
        }
    }

    fn apply(&mut self) -> Wish {
        self.gathered().map_or(Wish::Nothing, Wish::Network)
    }

    /// The settings on the screen, unless something in them is wrong.
    fn gathered(&mut self) -> Option<Box<Network>> {
        match self.gather() {
            Ok(network) => {
                self.complaint.clear();
                self.network = network.clone();
                Some(Box::new(network))
            }
            Err(error) => {
                self.complaint = error.context;
                None
            }
        }
    }

    /// The controller that is typed in.
    pub fn controller(&self) -> Option<String> {
        self.main.text(Main::Controller).map(str::to_owned)
    }

    fn gather(&self) -> Result<Network> {
        if let Some(controller) = self.controller() {
            parse_controller(&controller)?;
        }
        let mut network = self.network.clone();
        network.hostname = self.main.text(Main::Hostname).map(str::to_owned);
        if let Some(name) = &network.hostname {
            check_hostname(name)?;
        }
        let servers = self.main.text(Main::Dns).unwrap_or_default();
        let server = |text: &str| {
            text.parse().map_err(|_| crate::Error::new(format!("name servers: expected addresses, found {text:?}")))
        };
        network.dns = servers.split([' ', ',']).filter(|text| !text.is_empty()).map(server).collect::<Result<_>>()?;
        let members: Vec<MacAddress> = self
            .main
            .fields
            .iter()
            .filter_map(|field| if let Main::Nic(mac) = field.name { Some(mac) } else { None })
            .collect();
        let policy = self.main.chosen(Main::Bond).checked_sub(1).and_then(|at| POLICIES.get(at));
        match (policy, network.bond.first().map(|bond| bond.members.clone())) {
            (None, _) => network.bond.clear(),
            // One that was configured keeps its members and settings.
            (Some((policy, _)), Some(members)) => {
                let same = network.bond.iter_mut().filter(|bond| bond.members == members);
                same.for_each(|bond| bond.policy = *policy);
            }
            (Some((policy, _)), None) => {
                // What was set for its first member is the bond's now.
                let link = members.first().map_or_else(|| network.all.clone(), |&mac| self.settings(mac));
                network.bond.push(Bond { policy: *policy, members, link });
            }
        }
        network.check()?;
        Ok(network)
    }

    /// The lines below the header, `columns` wide.
    pub fn draw(&self, picture: &Picture) -> Vec<Line> {
        let mut lines = vec![Line::Plain(String::new())];
        match &self.link {
            Some((mac, form)) => {
                let nic = nics(picture).find(|nic| nic.mac == *mac);
                lines.push(Line::Plain(format!(" {}", nic.map(nic_line).unwrap_or_default())));
                lines.push(Line::Plain(String::new()));
                lines.extend(form::draw(form));
            }
            None => {
                if nics(picture).next().is_none() {
                    lines.push(Line::Plain(" no network interface with a driver found".into()));
                }
                lines.extend(form::draw(&self.main));
            }
        }
        lines.push(Line::Plain(String::new()));
        if !self.complaint.is_empty() {
            lines.extend(plain(&format!("! {}", self.complaint)));
        } else {
            let reached = picture.reachability.as_ref().map(|reached| format!("Controller: {}", reached.text));
            let saved = picture.saved.as_ref().map(|saved| format!("Settings: {saved}"));
            lines.extend(reached.into_iter().chain(saved).flat_map(|text| plain(&text).collect::<Vec<_>>()));
        }
        lines
    }
}

/// A text on as many lines as it needs.
fn plain(text: &str) -> impl Iterator<Item = Line> {
    wrap(text, MESSAGE_WIDTH).into_iter().map(Line::Plain)
}

fn nics(picture: &Picture) -> impl Iterator<Item = &NicStatus> {
    picture.nics.values().take(NICS_MAX)
}

/// Name, driver, address, link and speed of an interface.
fn nic_line(nic: &NicStatus) -> String {
    let link = match (&nic.speed, nic.link) {
        (Some(speed), true) => speed.as_str(),
        (None, true) => "link",
        (_, false) => "no link",
    };
    let addresses = nic.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let state = if addresses.is_empty() { nic.note.as_str() } else { addresses.as_str() };
    format!("{:<8} {:<10} {}  {link:<9} {state}", nic.name, nic.driver, nic.mac)
}

fn link_form(settings: &LinkSettings) -> Form<Link> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let number = |value: Option<u32>| value.map(|number| number.to_string()).unwrap_or_default();
    let modes = MODES.map(|(_, text)| text.to_owned()).to_vec();
    let mode = MODES.iter().position(|(mode, _)| *mode == settings.mode).unwrap_or(0);
    let speed = settings.speed.as_deref().and_then(|speed| SPEEDS.iter().position(|known| *known == speed));
    Form::new(vec![
        Field::choice(Link::Mode, "IPv4", modes, mode),
        Field::text(Link::Address, "Address", text(&settings.address), "192.0.2.7/24 (static)"),
        Field::text(Link::Gateway, "Gateway", display(settings.gateway), "192.0.2.1 (static)"),
        Field::text(
            Link::Address6,
            "IPv6 address",
            text(&settings.address6),
            "2001:db8::7/64 (beside those announced)",
        ),
        Field::text(Link::Gateway6, "IPv6 gateway", display(settings.gateway6), "2001:db8::1"),
        Field::text(Link::Vlan, "VLAN", number(settings.vlan.map(u32::from)), "12"),
        Field::text(Link::Mtu, "MTU", number(settings.mtu), "1500"),
        Field::choice(Link::Speed, "Speed/duplex", SPEEDS.map(str::to_owned).to_vec(), speed.unwrap_or(0)),
        Field::text(Link::Addresses, "More addresses", settings.addresses.join(" "), "192.0.2.8/24 2001:db8::8/64"),
        Field::text(Link::Routes, "Routes", routes_text(&settings.routes), "198.51.100.0/24>192.0.2.2"),
        Field::button(Link::Keep, "[ Keep ]"),
        Field::button(Link::Leave, "[ Back ]"),
    ])
}

fn display(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// `198.51.100.0/24>192.0.2.2`, with `*METRIC` behind where there is one.
fn routes_text(routes: &[RouteSettings]) -> String {
    let metric = |route: &RouteSettings| if route.metric == 0 { String::new() } else { format!("*{}", route.metric) };
    let texts = routes.iter().map(|route| format!("{}>{}{}", route.to, route.via, metric(route)));
    texts.collect::<Vec<_>>().join(" ")
}

fn parse_route(text: &str) -> Result<RouteSettings> {
    let wrong = || crate::Error::new(format!("routes: expected one as 198.51.100.0/24>192.0.2.2, found {text:?}"));
    let (to, rest) = text.split_once('>').ok_or_else(wrong)?;
    let (via, metric) = rest.split_once('*').unwrap_or((rest, "0"));
    let (via, metric) = (via.parse().map_err(|_| wrong())?, metric.parse().map_err(|_| wrong())?);
    Ok(RouteSettings { to: to.to_owned(), via, metric })
}

/// The settings on the form; `before` were there.
fn link_settings(form: &Form<Link>, before: &LinkSettings) -> Result<LinkSettings> {
    let words = |name: Link| {
        let text = form.text(name).unwrap_or_default().to_owned();
        text.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let speed = form.chosen(Link::Speed);
    let settings = LinkSettings {
        mode: MODES.get(form.chosen(Link::Mode)).map_or(before.mode, |(mode, _)| *mode),
        address: form.text(Link::Address).map(str::to_owned),
        gateway: parse(form, Link::Gateway, "gateway: expected an address")?,
        address6: form.text(Link::Address6).map(str::to_owned),
        gateway6: parse(form, Link::Gateway6, "IPv6 gateway: expected an IPv6 address")?,
        vlan: parse(form, Link::Vlan, "VLAN: expected a number")?,
        mtu: parse(form, Link::Mtu, "MTU: expected a number")?,
        speed: (speed > 0).then(|| SPEEDS.get(speed).map(|&speed| speed.to_owned())).flatten(),
        addresses: words(Link::Addresses),
        routes: words(Link::Routes).iter().map(|word| parse_route(word)).collect::<Result<_>>()?,
    };
    settings.check()?;
    Ok(settings)
}

fn parse<T: std::str::FromStr>(form: &Form<Link>, name: Link, expected: &str) -> Result<Option<T>> {
    let wrong = |text: &str| crate::Error::new(format!("{expected}, found {text:?}"));
    form.text(name).map(|text| text.parse().map_err(|_| wrong(text))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        let mut picture = Picture { controller: "not known".into(), ..Picture::default() };
        for (index, link) in [(2, true), (3, false)] {
            let nic = NicStatus {
                name: format!("eth{}", index - 2),
                driver: "e1000e".into(),
                mac: MacAddress([0x52, 0x54, 0, 0, 0, u8::try_from(index).unwrap()]),
                link,
                speed: link.then(|| "1000/full".into()),
                addresses: Vec::new(),
                note: "no DHCP server answers; asking on".into(),
            };
            picture.nics.insert(index, nic);
        }
        picture
    }

    fn press(configurator: &mut Configurator, keys: &[Key]) -> Wish {
        keys.iter().map(|&key| configurator.take(key)).last().unwrap()
    }

    fn type_in(configurator: &mut Configurator, text: &str) {
        text.chars().for_each(|c| drop(configurator.take(Key::Character(c))));
    }

    fn text(configurator: &Configurator) -> String {
        let line = |line: Line| match line {
            Line::Plain(text) | Line::Blocks(text) | Line::Bar(text) => text + "\n",
        };
        configurator.draw(&picture()).into_iter().map(line).collect()
    }

    #[test]
    fn a_static_address_is_set_with_arrows_and_typing() {
        let mut configurator = Configurator::new(Network::default(), &picture());
        type_in(&mut configurator, "198.51.100.1:7770");
        press(&mut configurator, &[Key::Up, Key::Up, Key::Enter]);
        assert!(text(&configurator).contains("52:54:00:00:00:02"), "{}", text(&configurator));
        press(&mut configurator, &[Key::Right, Key::Down]);
        type_in(&mut configurator, "192.0.2.7/24");
        press(&mut configurator, &[Key::Down]);
        type_in(&mut configurator, "198.51.100.9");
        // Past the fields to [ Keep ].
        press(&mut configurator, &[Key::Up, Key::Up, Key::Up, Key::Up, Key::Enter]);
        assert!(text(&configurator).contains("! gateway: 198.51.100.9 is not in the network of 192.0.2.7/24"));
        press(&mut configurator, &[Key::Down, Key::Down, Key::Down, Key::Down, Key::Clear]);
        type_in(&mut configurator, "192.0.2.1");
        press(&mut configurator, &[Key::Up, Key::Up, Key::Up, Key::Up]);
        assert_eq!(press(&mut configurator, &[Key::Enter]), Wish::Nothing);
        let Wish::Network(network) = press(&mut configurator, &[Key::Enter]) else { panic!("{}", text(&configurator)) };
        let link = network.settings_of("eth0", MacAddress([0x52, 0x54, 0, 0, 0, 2])).unwrap();
        assert_eq!((link.mode, link.address.as_deref()), (Mode::Static, Some("192.0.2.7/24")));
        assert_eq!(link.gateway, Some([192, 0, 2, 1].into()));
        assert_eq!(configurator.controller().as_deref(), Some("198.51.100.1:7770"));
        assert_eq!(network.settings_of("eth1", MacAddress([0x52, 0x54, 0, 0, 0, 3])).unwrap().mode, Mode::Dhcp);
    }

    #[test]
    fn a_bond_is_made_of_all_interfaces() {
        let mut configurator = Configurator::new(Network::default(), &picture());
        press(&mut configurator, &[Key::Down, Key::Down, Key::Down, Key::Right, Key::Down]);
        let Wish::Network(network) = press(&mut configurator, &[Key::Enter]) else { panic!("{}", text(&configurator)) };
        assert_eq!(network.bond[0].members.len(), 2);
        assert_eq!(network.settings_of("eth0", MacAddress([0x52, 0x54, 0, 0, 0, 2])), None);
    }

    #[test]
    fn a_refresh_keeps_what_is_typed_and_where() {
        let mut configurator = Configurator::new(Network::default(), &picture());
        type_in(&mut configurator, "c.exa");
        let mut fewer = picture();
        fewer.nics.remove(&2);
        configurator.refresh(&fewer);
        type_in(&mut configurator, "mple:1");
        assert_eq!(configurator.controller().as_deref(), Some("c.example:1"));
    }

    #[test]
    fn a_long_message_is_shown_whole() {
        let configurator = Configurator::new(Network::default(), &picture());
        let words = "no route: gateway 192.0.2.99 does not answer or knows no way to 198.51.100.123 and more";
        let reachability = Some(crate::status::Reachability { reached: false, text: words.into() });
        let lines = configurator.draw(&Picture { reachability, ..picture() });
        let shown: Vec<&str> =
            lines.iter().map(|(Line::Plain(text) | Line::Blocks(text) | Line::Bar(text))| text.as_str()).collect();
        let message = shown.iter().skip_while(|line| !line.starts_with(" Controller: "));
        assert!(message.clone().all(|line| line.len() <= 80), "{shown:?}");
        assert_eq!(message.copied().collect::<String>(), format!(" Controller: {words}"));
    }

    #[test]
    fn what_is_wrong_is_said_and_nothing_applied() {
        let mut configurator = Configurator::new(Network::default(), &picture());
        press(&mut configurator, &[Key::Down]);
        type_in(&mut configurator, "dns.example");
        assert_eq!(press(&mut configurator, &[Key::Down, Key::Down, Key::Down, Key::Enter]), Wish::Nothing);
        assert!(text(&configurator).contains("! name servers: expected addresses, found \"dns.example\""));
        assert_eq!(press(&mut configurator, &[Key::Escape]), Wish::Leave);
    }

    #[test]
    fn what_is_set_for_a_bonds_member_is_the_bonds() {
        let (first, second) = (MacAddress([0x52, 0x54, 0, 0, 0, 2]), MacAddress([0x52, 0x54, 0, 0, 0, 3]));
        let own = LinkSettings { mtu: Some(9000), ..LinkSettings::default() };
        let network = Network { nic: vec![NicSettings { mac: first, link: own.clone() }], ..Network::default() };
        let mut configurator = Configurator::new(network, &picture());
        configurator.main.focus_on(Main::Bond);
        press(&mut configurator, &[Key::Right]);
        let Wish::Network(bonded) = configurator.apply() else { panic!("{}", text(&configurator)) };
        assert_eq!(bonded.bond[0].link, own, "what was set before");

        configurator.open(second);
        let vlan = LinkSettings { vlan: Some(12), ..LinkSettings::default() };
        configurator.link = Some((second, link_form(&vlan)));
        configurator.keep_link();
        let Wish::Network(bonded) = configurator.apply() else { panic!("{}", text(&configurator)) };
        assert_eq!((bonded.bond[0].link.clone(), bonded.nic.len()), (vlan, 1));
    }

    #[test]
    fn what_a_push_brought_is_shown_and_kept() {
        let mac = MacAddress([0x52, 0x54, 0, 0, 0, 2]);
        let route = RouteSettings { to: "0.0.0.0/0".into(), via: [192, 0, 2, 1].into(), metric: 100 };
        let link = LinkSettings {
            mode: Mode::Static,
            addresses: vec!["192.0.2.7/24".into(), "2001:db8::7/64".into()],
            routes: vec![route],
            ..LinkSettings::default()
        };
        let tagged = LinkSettings { vlan: Some(12), ..link.clone() };
        let nic = [link, tagged].map(|link| NicSettings { mac, link }).to_vec();
        let network =
            Network { all: LinkSettings { mode: Mode::Off, ..LinkSettings::default() }, nic, ..Network::default() };
        let mut configurator = Configurator::new(network.clone(), &picture());
        type_in(&mut configurator, "198.51.100.1:7770");
        configurator.open(mac);
        let shown = text(&configurator);
        for wanted in ["192.0.2.7/24 2001:db8::7/64", "0.0.0.0/0>192.0.2.1*100", "static"] {
            assert!(shown.contains(wanted), "{wanted} in {shown}");
        }
        configurator.keep_link();
        let Wish::Network(kept) = configurator.apply() else { panic!("{}", text(&configurator)) };
        assert_eq!(*kept, network, "nothing was changed");
        configurator.open(mac);
        configurator.link.as_mut().unwrap().1.focus_on(Link::Mtu);
        type_in(&mut configurator, "9000");
        configurator.keep_link();
        let Wish::Network(kept) = configurator.apply() else { panic!("{}", text(&configurator)) };
        let mtus: Vec<_> = kept.nic.iter().map(|nic| (nic.link.vlan, nic.link.mtu, nic.link.routes.len())).collect();
        assert_eq!(mtus, [(None, Some(9000), 1), (Some(12), None, 1)]);
        for wrong in ["198.51.100.0/24", "198.51.100.0/24>x", "::/0>192.0.2.1*x"] {
            assert!(parse_route(wrong).unwrap_err().context.contains(wrong));
        }
    }

    #[test]
    fn a_controller_that_is_no_address_is_not_applied() {
        let mut configurator = Configurator::new(Network::default(), &picture());
        type_in(&mut configurator, "no port");
        assert_eq!(press(&mut configurator, &[Key::Enter]), Wish::Nothing);
        assert!(text(&configurator).contains("! "), "{}", text(&configurator));
    }
}
