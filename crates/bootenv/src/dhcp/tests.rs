use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};
use proptest::prelude::*;

use super::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 15);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The message of the only action, which must be one to send.
fn sent(actions: &[Action]) -> (Message, Option<Ipv4Addr>) {
    let [Action::Send { message, server }] = actions else { panic!("expected one message, found {actions:?}") };
    (Message::decode(&mut Decoder::new(message)).unwrap(), *server)
}

fn datagram(kind: MessageType, transaction: u32, change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(transaction, none, ADDRESS, SERVER, none, &MAC);
    message.set_opcode(Opcode::BootReply);
    for option in [
        DhcpOption::MessageType(kind),
        DhcpOption::ServerIdentifier(SERVER),
        DhcpOption::SubnetMask([255, 255, 255, 0].into()),
        DhcpOption::Router(vec![SERVER]),
        DhcpOption::DomainNameServer(vec![[192, 0, 2, 53].into()]),
        DhcpOption::DomainName("example.net".into()),
        DhcpOption::AddressLeaseTime(1000),
    ] {
        message.opts_mut().insert(option);
    }
    change(&mut message);
    packet(&message.to_vec().unwrap())
}

fn packet(message: &[u8]) -> Vec<u8> {
    let length = |extra: usize| u16::try_from(message.len() + extra).unwrap().to_be_bytes();
    let mut packet =
        vec![0x45, 0, length(28)[0], length(28)[1], 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 255, 255, 255, 255];
    packet.extend([0, 67, 0, 68, length(8)[0], length(8)[1], 0, 0]);
    packet.extend(message);
    packet
}

fn answer(kind: MessageType, transaction: u32) -> Answer {
    parse_datagram(&datagram(kind, transaction, |_| {})).unwrap()
}

fn bound() -> Client {
    let mut client = Client::new(MAC, "vconverter", 7, at(0));
    client.wake(at(0));
    client.receive(at(1), &answer(MessageType::Offer, 7));
    let actions = client.receive(at(2), &answer(MessageType::Ack, 7));
    assert!(matches!(actions.as_slice(), [Action::Configure(_)]), "{actions:?}");
    client
}

/// Found by fuzzing: an option of leases in bulk (RFC 6926) with a wrong length was read, and refused the whole offer.
#[test]
fn broken_options_that_are_not_read_do_no_harm() {
    let broken = datagram(MessageType::Offer, 7, |message| {
        let options = message.opts_mut();
        options.insert(DhcpOption::Unknown(dhcproto::v4::UnknownOption::new(OptionCode::Unknown(224), vec![1; 99])));
    });
    let at = broken.iter().rposition(|byte| *byte == 224).unwrap();
    for code in [119, 151, 154] {
        let mut broken = broken.clone();
        broken[at] = code;
        assert_eq!(parse_datagram(&broken), Some(answer(MessageType::Offer, 7)), "option {code}");
    }
    let mut truncated = broken;
    truncated[at + 1] = 200;
    assert_eq!(parse_datagram(&truncated), None);
}

#[test]
fn an_offer_is_requested_and_its_acknowledgement_configures() {
    let mut client = Client::new(MAC, "vconverter", 7, at(0));
    let (discover, server) = sent(&client.wake(at(0)));
    assert_eq!((discover.opts().msg_type(), discover.xid(), server), (Some(MessageType::Discover), 7, None));
    assert_eq!(discover.opts().get(OptionCode::Hostname), Some(&DhcpOption::Hostname("vconverter".into())));
    let (request, _) = sent(&client.receive(at(1), &answer(MessageType::Offer, 7)));
    assert_eq!(request.opts().get(OptionCode::RequestedIpAddress), Some(&DhcpOption::RequestedIpAddress(ADDRESS)));
    assert_eq!(request.opts().get(OptionCode::ServerIdentifier), Some(&DhcpOption::ServerIdentifier(SERVER)));
    let lease = Lease {
        address: ADDRESS,
        prefix_length: 24,
        gateway: Some(SERVER),
        routes: vec![],
        dns: vec![[192, 0, 2, 53].into()],
        domain: Some("example.net".into()),
        server: SERVER,
        duration: at(1000),
        renew_after: at(500),
        rebind_after: at(875),
    };
    assert_eq!(client.receive(at(2), &answer(MessageType::Ack, 7)), [Action::Configure(lease)]);
    assert_eq!((client.deadline(), client.listens()), (at(502), false));
}

#[test]
fn silence_is_asked_for_ever_with_growing_pauses() {
    let mut client = Client::new(MAC, "h", 7, at(0));
    let mut pauses = Vec::new();
    let mut now = at(0);
    for _ in 0..1000 {
        assert_eq!(sent(&client.wake(now)).0.opts().msg_type(), Some(MessageType::Discover));
        assert!(client.wake(now).is_empty(), "nothing before the deadline");
        pauses.push((client.deadline() - now).as_secs());
        now = client.deadline();
    }
    assert_eq!(pauses[..6], [1, 2, 4, 8, 16, 16]);
    assert_eq!((pauses[999], client.tries()), (16, 1000));
}

#[test]
fn answers_for_others_change_nothing() {
    let mut client = Client::new(MAC, "h", 7, at(0));
    client.wake(at(0));
    assert!(client.receive(at(1), &answer(MessageType::Offer, 8)).is_empty());
    let other = Answer { mac: [1; 6], ..answer(MessageType::Offer, 7) };
    assert!(client.receive(at(1), &other).is_empty());
    assert!(client.receive(at(1), &answer(MessageType::Ack, 7)).is_empty(), "nothing was requested yet");
}

#[test]
fn a_request_without_answer_leads_back_to_the_search() {
    let mut client = Client::new(MAC, "h", 7, at(0));
    client.wake(at(0));
    client.receive(at(1), &answer(MessageType::Offer, 7));
    for _ in 0..3 {
        assert_eq!(sent(&client.wake(client.deadline())).0.opts().msg_type(), Some(MessageType::Request));
    }
    let (discover, _) = sent(&client.wake(client.deadline()));
    assert_eq!((discover.opts().msg_type(), discover.xid()), (Some(MessageType::Discover), 8));
}

#[test]
fn a_refused_request_is_not_repeated_at_once() {
    let mut client = Client::new(MAC, "h", 7, at(0));
    client.wake(at(0));
    client.receive(at(1), &answer(MessageType::Offer, 7));
    assert!(client.receive(at(2), &answer(MessageType::Nak, 7)).is_empty());
    assert_eq!(client.deadline(), at(6));
    assert_eq!(sent(&client.wake(at(6))).0.opts().msg_type(), Some(MessageType::Discover));
}

#[test]
fn a_lease_is_renewed_with_its_server_then_with_any_then_given_up() {
    let mut client = bound();
    assert!(client.wake(at(501)).is_empty());
    let (renew, server) = sent(&client.wake(at(502)));
    assert_eq!((renew.ciaddr(), server, renew.xid()), (ADDRESS, Some(SERVER), 8));
    assert_eq!(renew.opts().get(OptionCode::ServerIdentifier), None);
    let mut servers = Vec::new();
    loop {
        let now = client.deadline();
        match client.wake(now).as_slice() {
            [Action::Send { server, .. }] => servers.push(*server),
            [Action::Deconfigure, Action::Send { .. }] => {
                assert_eq!(now, at(1002), "at the end of the lease");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(servers.starts_with(&[Some(SERVER)]) && servers.ends_with(&[None]) && servers.len() < 20, "{servers:?}");
}

#[test]
fn an_acknowledged_renewal_starts_the_time_anew() {
    let mut client = bound();
    client.wake(at(502));
    assert!(matches!(client.receive(at(503), &answer(MessageType::Ack, 8)).as_slice(), [Action::Configure(_)]));
    assert_eq!(client.deadline(), at(1003));
}

#[test]
fn a_refused_renewal_gives_the_address_up() {
    let mut client = bound();
    client.wake(at(502));
    let actions = client.receive(at(503), &answer(MessageType::Nak, 8));
    assert!(matches!(actions.as_slice(), [Action::Deconfigure, Action::Send { .. }]), "{actions:?}");
}

#[test]
fn a_restored_link_makes_sure_of_the_lease() {
    let mut client = bound();
    let (request, server) = sent(&client.link_restored(at(100)));
    assert_eq!((request.ciaddr(), server, client.listens()), (ADDRESS, None, true));
    assert!(matches!(client.receive(at(101), &answer(MessageType::Ack, 7)).as_slice(), [Action::Configure(_)]));
}

#[test]
fn classless_routes_replace_the_router() {
    let routes = vec![
        ("10.0.0.0/8".parse().unwrap(), [192, 0, 2, 9].into()),
        ("0.0.0.0/0".parse().unwrap(), [192, 0, 2, 2].into()),
    ];
    let with = |routes: Vec<_>| {
        let bytes = datagram(MessageType::Ack, 7, |m| {
            m.opts_mut().insert(DhcpOption::ClasslessStaticRoute(routes));
        });
        parse_datagram(&bytes).unwrap().offer.unwrap().lease()
    };
    let lease = with(routes.clone());
    assert_eq!(lease.gateway, Some([192, 0, 2, 2].into()));
    assert_eq!(lease.routes, [([10, 0, 0, 0].into(), 8, [192, 0, 2, 9].into())]);
    assert_eq!(with(routes[..1].to_vec()).gateway, None);
}

#[test]
fn times_that_contradict_each_other_are_replaced() {
    let with = |lease: u32, t1: u32, t2: u32| {
        let bytes = datagram(MessageType::Ack, 7, |m| {
            m.opts_mut().insert(DhcpOption::AddressLeaseTime(lease));
            m.opts_mut().insert(DhcpOption::Renewal(t1));
            m.opts_mut().insert(DhcpOption::Rebinding(t2));
        });
        let lease = parse_datagram(&bytes).unwrap().offer.unwrap().lease();
        (lease.renew_after.as_secs(), lease.rebind_after.as_secs(), lease.duration.as_secs())
    };
    assert_eq!(with(800, 100, 200), (100, 200, 800));
    assert_eq!(with(800, 900, 1000), (400, 700, 800));
    assert_eq!(with(0, 0, 0), (30, 49, 60));
    let (t1, t2, end) = with(u32::MAX, u32::MAX, u32::MAX);
    assert!(t1 < t2 && t2 < end);
}

#[test]
fn offers_that_no_interface_could_use_are_dropped() {
    let with = |change: fn(&mut Message)| {
        parse_datagram(&datagram(MessageType::Offer, 7, |m| {
            change(m);
        }))
    };
    assert!(with(|m| _ = m.set_yiaddr([0, 0, 0, 0])).is_none());
    assert!(with(|m| _ = m.set_yiaddr([127, 0, 0, 1])).is_none());
    assert!(with(|m| _ = m.opts_mut().insert(DhcpOption::SubnetMask([255, 0, 255, 0].into()))).is_none());
    assert!(with(|m| _ = m.opts_mut().insert(DhcpOption::SubnetMask([0, 0, 0, 0].into()))).is_none());
    assert!(with(|m| _ = m.set_opcode(Opcode::BootRequest)).is_none());
    let odd = with(|m| _ = m.opts_mut().insert(DhcpOption::DomainName("x\nnameserver 1.1.1.1".into())));
    assert_eq!(odd.unwrap().offer.unwrap().lease().domain, None);
}

#[test]
fn packets_of_other_protocols_and_fragments_are_dropped() {
    let good = datagram(MessageType::Offer, 7, |_| {});
    assert!(parse_datagram(&good).is_some());
    for (at, value) in [(0, 0x65), (0, 0x41), (6, 0x20), (7, 1), (9, 6), (21, 68), (23, 67), (24, 0xff)] {
        let mut bytes = good.clone();
        bytes[at] = value;
        assert!(parse_datagram(&bytes).is_none(), "byte {at} = {value:#x}");
    }
    for length in 0..good.len() {
        parse_datagram(&good[..length]);
    }
}

proptest! {
    #[test]
    fn no_packet_panics_or_breaks_a_client(flips in prop::collection::vec((0usize..400, any::<u8>()), 0..12)) {
        let mut bytes = datagram(MessageType::Ack, 7, |_| {});
        for (at, value) in flips {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        fuzz_packet(&bytes);
    }
}
