//! Wake-on-LAN: a machine that is switched off is asked to start by magic packets to its NICs (AMD, "Magic Packet Technology",
//! 1995: six bytes of FF, then the hardware address sixteen times).

use std::net::{Ipv4Addr, UdpSocket};

use machine::{MacAddress, Machine};

/// The port of discard, which magic packets are sent to.
const PORT: u16 = 9;

/// Sends them for each NIC, and says so. Whether a machine listens is not known.
pub(super) fn wake(machine: &Machine) -> String {
    let sent = machine.nics.iter().filter(|nic| send(&magic_packet(nic.mac)).is_ok()).count();
    match sent {
        0 => "the source is to be switched on at its console: no magic packet could be sent".into(),
        sent => format!(
            "magic packets were sent to {sent} NICs of the source: where it does not wake, switch it on at its console"
        ),
    }
}

fn send(packet: &[u8]) -> std::io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_broadcast(true)?;
    socket.send_to(packet, (Ipv4Addr::BROADCAST, PORT)).map(drop)
}

fn magic_packet(mac: MacAddress) -> Vec<u8> {
    let mut packet = vec![0xff; 6];
    packet.extend(mac.0.iter().cycle().take(16 * mac.0.len()));
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_magic_packet_names_the_nic_sixteen_times() {
        let packet = magic_packet("52:54:00:12:34:56".parse().unwrap());
        assert_eq!((packet.len(), &packet[..6]), (102, &[0xff; 6][..]));
        assert!(packet[6..].chunks(6).all(|mac| mac == [0x52, 0x54, 0, 0x12, 0x34, 0x56]));
    }
}
