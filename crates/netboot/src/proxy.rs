//! The responder: a pure function from a request to an answer, or to silence and its reason.
//!
//! It stands beside an ordinary DHCP server (PXE 2.1, section 2.4.5: proxyDHCP). A discovery on port 67 is answered with an
//! offer that has a boot file or a menu, and no address; a choice from that menu on port 67 or 4011 with an
//! acknowledgement. Requests that are meant for the DHCP server are none of ours.

use std::borrow::Cow;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::dhcp::{BOOT_IMAGE_ITEM, MessageKind, Reply, Request, boot_item, boot_item_reply, direct_boot, menu};
use crate::files::BootFiles;
use crate::{Choice, Client, Firmware, Policy, loader};

/// Port of DHCP servers.
pub(crate) const DHCP_PORT: u16 = 67;
/// Port of DHCP clients.
pub(crate) const CLIENT_PORT: u16 = 68;
/// Port of PXE boot servers.
pub(crate) const BOOT_SERVER_PORT: u16 = 4011;

const CHOSEN: &str = "chosen from the menu by a key";

/// Where the service stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Station<'a> {
    /// Our address on the interface that the request came in by.
    pub address: Ipv4Addr,
    /// Port of our HTTP server.
    pub http_port: u16,
    /// What can be delivered.
    pub files: &'a BootFiles,
    /// Whether this machine's ROM chose the boot image from the menu just now, and what asks now may be its iPXE.
    pub has_chosen: bool,
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Not a PXE or HTTP-boot client, or not meant for us: not even logged.
    NotOurs,
    /// No answer.
    Silence {
        /// Who asked.
        client: Client,
        /// Why it is not answered.
        why: Cow<'static, str>,
    },
    /// An answer.
    Answer {
        /// Who asked.
        client: Client,
        /// The datagram.
        datagram: Vec<u8>,
        /// Where it goes.
        to: SocketAddrV4,
        /// In words.
        answer: String,
        /// Why this one.
        why: Cow<'static, str>,
        /// The boot file's path, where one was named.
        file: Option<String>,
        /// Whether the operator chose it by a key.
        is_choice: bool,
    },
}

/// Decides on a request that came to `port` from `source`.
pub(crate) fn respond(
    request: &Request,
    port: u16,
    source: SocketAddrV4,
    station: &Station<'_>,
    policy: &dyn Policy,
) -> Outcome {
    let class = match &request.class {
        class if class.starts_with(b"PXEClient") => "PXEClient",
        class if class.starts_with(b"HTTPClient") => "HTTPClient",
        _ => return Outcome::NotOurs,
    };
    let chosen = boot_item(&request.vendor);
    let is_for_us = match (request.kind, port) {
        (MessageKind::Discover, DHCP_PORT) => true,
        // A choice from the menu. Without one it is the request for an address, which is the DHCP server's.
        (MessageKind::Request, DHCP_PORT) => chosen.is_some() && request.server.is_none_or(|it| it == station.address),
        (MessageKind::Request | MessageKind::Inform, BOOT_SERVER_PORT) => true,
        _ => false,
    };
    if !is_for_us {
        return Outcome::NotOurs;
    }
    // BIOS ROMs before option 93 was common are BIOS.
    let firmware = Firmware::of(request.architecture.unwrap_or(0));
    let client = Client { mac: request.mac, uuid: request.uuid(), firmware, is_ipxe: request.is_ipxe };
    let silence = |why: Cow<'static, str>| Outcome::Silence { client, why };
    if (class == "HTTPClient") != (firmware == Firmware::UefiHttp) {
        return silence(format!("{class} of {firmware}: there is no boot image for it").into());
    }
    let Some(first) = loader::boot_file(&client) else {
        return silence(format!("there is no boot image for {firmware}").into());
    };
    let missing = loader::missing_files(firmware, station.files);
    if !missing.is_empty() {
        return silence(format!("the boot image has no {} for {firmware}", missing.join(", ")).into());
    }
    let ruling = policy.rule(&client);
    let (vendor, file, why) = match (ruling.choice, chosen) {
        (Choice::Ignore, _) => return silence(ruling.why),
        (Choice::Boot, None) => (direct_boot(), true, ruling.why),
        (Choice::Menu, None) if client.is_ipxe && station.has_chosen => (direct_boot(), true, CHOSEN.into()),
        (_, Some(BOOT_IMAGE_ITEM)) => (boot_item_reply(BOOT_IMAGE_ITEM), true, CHOSEN.into()),
        (_, Some(item)) => return silence(format!("its menu item {item:#x} is none of ours").into()),
        (Choice::Menu, None) if firmware == Firmware::UefiHttp => {
            let why =
                format!("{}, and HTTP boot has no menu: `vconverter pxe policy` can let it boot once", ruling.why);
            return silence(why.into());
        }
        (Choice::Menu, None) if request.kind != MessageKind::Discover => {
            return silence(format!("{}, and it chose nothing from the menu", ruling.why).into());
        }
        (Choice::Menu, None) => {
            let (prompt, local, image) = (loader::MENU_PROMPT, loader::MENU_LOCAL, loader::MENU_IMAGE);
            (menu(station.address, loader::MENU_SECONDS, prompt, local, image), false, ruling.why)
        }
    };
    let path = file.then(|| loader::path_of(&client, first));
    let named = path.as_ref().map(|path| if loader::is_by_http(&client) { url(station, path) } else { path.clone() });
    let answer = match &named {
        Some(name) => format!("boot file {name}"),
        None => format!("menu: own disk after {} s, the boot image by F8", loader::MENU_SECONDS),
    };
    let kind = if request.kind == MessageKind::Discover { MessageKind::Offer } else { MessageKind::Ack };
    let reply = Reply { kind, server: station.address, class, file: named, vendor };
    let to = destination(request, port, source);
    let is_choice = chosen == Some(BOOT_IMAGE_ITEM);
    Outcome::Answer { client, datagram: reply.encode(request), to, answer, why, file: path, is_choice }
}

fn url(station: &Station<'_>, path: &str) -> String {
    match station.http_port {
        80 => format!("http://{}/{path}", station.address),
        port => format!("http://{}:{port}/{path}", station.address),
    }
}

fn destination(request: &Request, port: u16, source: SocketAddrV4) -> SocketAddrV4 {
    if port == BOOT_SERVER_PORT {
        return source;
    }
    if !request.relay.is_unspecified() {
        return SocketAddrV4::new(request.relay, DHCP_PORT);
    }
    // A client with an address can be spoken to; one without hears only what everybody hears.
    let address = if request.address.is_unspecified() { Ipv4Addr::BROADCAST } else { request.address };
    SocketAddrV4::new(address, CLIENT_PORT)
}

/// A request through the responder under each policy; an answer never holds an address.
pub(crate) fn fuzz_request(request: &Request) {
    struct Always(Choice);
    impl Policy for Always {
        fn rule(&self, _: &Client) -> crate::Ruling {
            crate::Ruling { choice: self.0, why: "test".into() }
        }
    }
    let files = all_files();
    let station = Station { address: Ipv4Addr::new(192, 0, 2, 1), http_port: 80, files: &files, has_chosen: true };
    let source = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 9), CLIENT_PORT);
    for choice in [Choice::Ignore, Choice::Boot, Choice::Menu] {
        for port in [DHCP_PORT, BOOT_SERVER_PORT] {
            if let Outcome::Answer { datagram, .. } = respond(request, port, source, &station, &Always(choice)) {
                assert_eq!(datagram[16..20], [0; 4]);
                assert!(choice != Choice::Ignore && datagram.len() <= 1500);
            }
        }
    }
}

fn all_files() -> BootFiles {
    let mut files = BootFiles::default();
    for firmware in Firmware::SERVED {
        for name in loader::needed_files(firmware) {
            files.insert(name, vec![0]);
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ruling;
    use crate::dhcp::parse_request;

    struct One(Choice);
    impl Policy for One {
        fn rule(&self, client: &Client) -> Ruling {
            assert_eq!(client.mac.to_string(), "52:54:00:12:34:56");
            Ruling { choice: self.0, why: "as told".into() }
        }
    }

    fn ask(options: &[(u8, &[u8])], port: u16, choice: Choice) -> Outcome {
        ask_having(options, port, choice, false)
    }

    fn ask_having(options: &[(u8, &[u8])], port: u16, choice: Choice, has_chosen: bool) -> Outcome {
        let mut bytes = vec![0; 240];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[28..34].copy_from_slice(&[0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        for (code, value) in options {
            bytes.extend_from_slice(&[*code, u8::try_from(value.len()).unwrap()]);
            bytes.extend_from_slice(value);
        }
        let request = parse_request(&bytes).unwrap();
        let files = all_files();
        let station = Station { address: Ipv4Addr::new(192, 0, 2, 1), http_port: 8067, files: &files, has_chosen };
        let source = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 9), 1068);
        respond(&request, port, source, &station, &One(choice))
    }

    const PXE: (u8, &[u8]) = (60, b"PXEClient:Arch:00000:UNDI:002001");

    #[test]
    fn whoever_is_no_boot_client_is_not_answered() {
        for class in [b"MSFT 5.0".as_slice(), b"", b"pxeclient"] {
            assert_eq!(ask(&[(53, &[1]), (60, class)], 67, Choice::Boot), Outcome::NotOurs);
        }
        assert_eq!(ask(&[(53, &[1])], 67, Choice::Boot), Outcome::NotOurs);
        // The request for an address is the DHCP server's, also when a PXE client sends it.
        assert_eq!(ask(&[(53, &[3]), PXE, (54, &[192, 0, 2, 254])], 67, Choice::Boot), Outcome::NotOurs);
        assert_eq!(ask(&[(53, &[3]), PXE], 67, Choice::Boot), Outcome::NotOurs);
    }

    #[test]
    fn each_firmware_gets_its_own_file() {
        let cases: [(&[u8], u16, &str); 4] = [
            (b"PXEClient", 0, "boot file m/525400123456/undionly.kpxe"),
            (b"PXEClient", 7, "boot file m/525400123456/boot.efi"),
            (b"PXEClient", 9, "boot file m/525400123456/boot.efi"),
            (b"HTTPClient", 16, "boot file http://192.0.2.1:8067/m/525400123456/vconverter.iso"),
        ];
        for (class, architecture, expected) in cases {
            let outcome = ask(&[(53, &[1]), (60, class), (93, &architecture.to_be_bytes())], 67, Choice::Boot);
            let Outcome::Answer { answer, to, .. } = outcome else { panic!("{outcome:?}") };
            assert_eq!((answer.as_str(), to), (expected, SocketAddrV4::new(Ipv4Addr::BROADCAST, 68)));
        }
        let ipxe = ask(&[(53, &[1]), PXE, (77, b"iPXE")], 67, Choice::Boot);
        assert!(matches!(&ipxe, Outcome::Answer { answer, .. } if answer.ends_with("/boot.ipxe")), "{ipxe:?}");
        let other = ask(&[(53, &[1]), (60, b"PXEClient"), (93, &[0, 11])], 67, Choice::Boot);
        assert!(matches!(other, Outcome::Silence { .. }), "{other:?}");
    }

    #[test]
    fn an_unknown_machine_gets_a_menu_and_the_image_only_by_a_key() {
        let outcome = ask(&[(53, &[1]), PXE], 67, Choice::Menu);
        let Outcome::Answer { file, datagram, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!((file, &datagram[108..236]), (None, [0; 128].as_slice()), "no boot file beside the menu");
        let chosen = ask(&[(53, &[3]), PXE, (43, &boot_item_reply(BOOT_IMAGE_ITEM))], 4011, Choice::Menu);
        let Outcome::Answer { file, to, .. } = chosen else { panic!("{chosen:?}") };
        assert_eq!((file.as_deref(), to.port()), (Some("m/525400123456/undionly.kpxe"), 1068));
        let ipxe = [(53, [1].as_slice()), PXE, (77, b"iPXE")];
        let Outcome::Answer { file: None, .. } = ask(&ipxe, 67, Choice::Menu) else { panic!("no menu") };
        let outcome = ask_having(&ipxe, 67, Choice::Menu, true);
        let Outcome::Answer { answer, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(answer, "boot file http://192.0.2.1:8067/m/525400123456/boot.ipxe", "it is not asked again");
        let nothing_chosen = ask(&[(53, &[3]), PXE], 4011, Choice::Menu);
        assert!(matches!(nothing_chosen, Outcome::Silence { .. }));
        let http = ask(&[(53, &[1]), (60, b"HTTPClient:Arch:00016"), (93, &[0, 16])], 67, Choice::Menu);
        assert!(matches!(http, Outcome::Silence { .. }));
    }

    #[test]
    fn an_ignored_machine_is_not_answered_whatever_it_asks() {
        for (kind, port) in [(1, 67), (3, 4011)] {
            for vendor in [boot_item_reply(BOOT_IMAGE_ITEM), Vec::new()] {
                let outcome = ask(&[(53, &[kind]), PXE, (43, &vendor)], port, Choice::Ignore);
                assert!(matches!(outcome, Outcome::Silence { .. }), "{outcome:?}");
            }
        }
    }
}
