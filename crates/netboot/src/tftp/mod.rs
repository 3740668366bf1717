//! TFTP, for reading only (RFC 1350), with the options of RFC 2347 to 2349 and windows (RFC 7440).

mod packet;
mod server;
mod transfer;

pub use packet::{ClientPacket, ReadRequest, TftpError, parse_packet};
pub(crate) use server::serve;
pub use transfer::{Step, Transfer};

/// Any bytes as a packet; and, as acknowledgements, through a transfer.
pub fn fuzz_packet(bytes: &[u8]) {
    let request = match parse_packet(bytes) {
        Some(ClientPacket::Read(request)) => request,
        _ => ReadRequest::default(),
    };
    let (head, tail) = bytes.split_at(bytes.len().min(4));
    let size = head.iter().fold(0, |size: u64, byte| size << 8 | u64::from(*byte));
    let mut transfer = Transfer::new(&request, size);
    let mut step = transfer.start();
    for pair in tail.chunks(2).take(4096) {
        step = match pair {
            [high, low] => transfer.acknowledge(u16::from_be_bytes([*high, *low])),
            _ => transfer.time_out(),
        };
        if let Step::Blocks { first, last } = &step {
            assert!(first <= last && last - first < u64::from(packet::WINDOW_MAX) && *last <= transfer.blocks());
            let sizes = (*first..=*last).map(|block| transfer.range(block).1).sum::<usize>();
            assert!(sizes <= usize::from(packet::WINDOW_MAX) * usize::from(packet::BLOCK_SIZE_MAX));
        }
        if matches!(step, Step::Done | Step::GiveUp) {
            break;
        }
    }
    let _ = step;
}
