//! One transfer as a state machine without socket and clock: events in, the next step out.

use super::packet::{BLOCK_SIZE_DEFAULT, BLOCK_SIZE_MAX, ReadRequest, WINDOW_MAX, wire_block};

/// Times that a packet or window is sent again without an answer.
const RETRIES_MAX: u32 = 7;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send the agreed options.
    Options(Vec<(&'static str, u64)>),
    /// Send the blocks `first` to `last`, counted from 1.
    Blocks {
        /// First block.
        first: u64,
        /// Last block, which it includes.
        last: u64,
    },
    /// Wait on.
    Wait,
    /// The client has everything.
    Done,
    /// The client does not answer.
    GiveUp,
}

/// A file on its way to a client.
#[derive(Clone, Debug)]
pub struct Transfer {
    size: u64,
    block_size: u16,
    window: u16,
    options: Vec<(&'static str, u64)>,
    /// Blocks that the client has.
    acknowledged: u64,
    /// Blocks that were sent at least once.
    sent: u64,
    /// The options were sent and not yet answered.
    negotiating: bool,
    /// The window was sent again because of a duplicate; further ones mean the same loss.
    repaired: bool,
    retries: u32,
}

impl Transfer {
    /// The transfer of a file of `size` bytes, with the wishes of `request` as far as they can be met.
    pub fn new(request: &ReadRequest, size: u64) -> Self {
        let block_size = request.block_size.map(|wanted| wanted.min(BLOCK_SIZE_MAX));
        let window = request.window.map(|wanted| wanted.min(WINDOW_MAX));
        let options = [
            ("tsize", request.wants_size.then_some(size)),
            ("blksize", block_size.map(u64::from)),
            ("timeout", request.timeout.map(u64::from)),
            ("windowsize", window.map(u64::from)),
        ];
        Self {
            size,
            block_size: block_size.unwrap_or(BLOCK_SIZE_DEFAULT),
            window: window.unwrap_or(1),
            options: options.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
            acknowledged: 0,
            sent: 0,
            negotiating: false,
            repaired: false,
            retries: 0,
        }
    }

    /// All blocks: the last one is shorter than the others, and may be empty.
    pub fn blocks(&self) -> u64 {
        self.size / u64::from(self.block_size) + 1
    }

    /// Offset and length in the file of a block.
    pub fn range(&self, block: u64) -> (u64, usize) {
        let offset = block.saturating_sub(1).saturating_mul(u64::from(self.block_size));
        let length = self.size.saturating_sub(offset).min(u64::from(self.block_size));
        (offset, usize::try_from(length).unwrap_or(0))
    }

    /// Bytes of a block and blocks of a window.
    pub fn pace(&self) -> (u16, u16) {
        (self.block_size, self.window)
    }

    /// Blocks that the client has.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The first step.
    pub fn start(&mut self) -> Step {
        if self.options.is_empty() {
            return self.send_window();
        }
        self.negotiating = true;
        Step::Options(self.options.clone())
    }

    /// The client has block `number` and all before it.
    pub fn acknowledge(&mut self, number: u16) -> Step {
        if self.negotiating {
            if number != 0 {
                return Step::Wait;
            }
            self.negotiating = false;
            self.retries = 0;
            return self.send_window();
        }
        let ahead = u64::from(number.wrapping_sub(wire_block(self.acknowledged)));
        if ahead > self.sent - self.acknowledged {
            return Step::Wait; // older than what is known, or never sent
        }
        if ahead == 0 {
            // With one block at a time an answer to a duplicate doubles every packet from then on (RFC 1123, section
            // 4.2.3.1). In a window it tells that the first block was lost; said once, it is enough.
            if self.window == 1 || self.repaired || self.sent == self.acknowledged {
                return Step::Wait;
            }
            self.repaired = true;
            return self.send_window();
        }
        self.acknowledged += ahead;
        self.repaired = false;
        self.retries = 0;
        if self.acknowledged == self.blocks() {
            return Step::Done;
        }
        self.send_window()
    }

    /// Nothing came in time.
    pub fn time_out(&mut self) -> Step {
        self.retries += 1;
        if self.retries > RETRIES_MAX {
            return Step::GiveUp;
        }
        self.repaired = false;
        if self.negotiating { Step::Options(self.options.clone()) } else { self.send_window() }
    }

    /// Repetitions without an answer until now.
    pub fn retries(&self) -> u32 {
        self.retries
    }

    fn send_window(&mut self) -> Step {
        let first = self.acknowledged + 1;
        let last = (self.acknowledged + u64::from(self.window)).min(self.blocks());
        self.sent = self.sent.max(last);
        Step::Blocks { first, last }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(block_size: Option<u16>, window: Option<u16>) -> ReadRequest {
        ReadRequest { name: "x".into(), block_size, window, ..ReadRequest::default() }
    }

    #[test]
    fn a_file_of_whole_blocks_ends_with_an_empty_one() {
        let mut transfer = Transfer::new(&request(None, None), 1024);
        assert_eq!(transfer.start(), Step::Blocks { first: 1, last: 1 });
        assert_eq!(transfer.acknowledge(1), Step::Blocks { first: 2, last: 2 });
        assert_eq!(transfer.acknowledge(2), Step::Blocks { first: 3, last: 3 });
        assert_eq!(transfer.range(3), (1024, 0));
        assert_eq!(transfer.acknowledge(3), Step::Done);
    }

    #[test]
    fn options_wait_for_their_own_acknowledgement() {
        let mut transfer = Transfer::new(&request(Some(65464), Some(60000)), 5_000_000);
        let agreed = vec![("blksize", 1468), ("windowsize", 32)];
        assert_eq!(transfer.start(), Step::Options(agreed.clone()));
        assert_eq!(transfer.time_out(), Step::Options(agreed));
        assert_eq!(transfer.acknowledge(1), Step::Wait);
        assert_eq!(transfer.acknowledge(0), Step::Blocks { first: 1, last: 32 });
    }

    #[test]
    fn a_duplicate_doubles_nothing() {
        let mut transfer = Transfer::new(&request(None, None), 5000);
        transfer.start();
        transfer.acknowledge(1);
        assert_eq!(transfer.acknowledge(1), Step::Wait);
        assert_eq!(transfer.acknowledge(0), Step::Wait);
        assert_eq!(transfer.acknowledge(7), Step::Wait, "never sent");
    }

    #[test]
    fn a_gap_in_a_window_is_repaired_once() {
        let mut transfer = Transfer::new(&request(Some(512), Some(8)), 512 * 100);
        transfer.start();
        transfer.acknowledge(0);
        assert_eq!(transfer.acknowledge(3), Step::Blocks { first: 4, last: 11 });
        assert_eq!(transfer.acknowledge(3), Step::Blocks { first: 4, last: 11 });
        assert_eq!(transfer.acknowledge(3), Step::Wait);
        assert_eq!(transfer.time_out(), Step::Blocks { first: 4, last: 11 });
    }

    #[test]
    fn silence_ends_a_transfer() {
        let mut transfer = Transfer::new(&request(None, None), 10);
        transfer.start();
        let steps: Vec<Step> = std::iter::repeat_with(|| transfer.time_out()).take(8).collect();
        assert_eq!(steps[6], Step::Blocks { first: 1, last: 1 });
        assert_eq!(steps[7], Step::GiveUp);
    }

    proptest! {
        /// A client as the RFCs describe it, over a link that loses packets, gets the file.
        #[test]
        fn a_file_arrives_over_a_lossy_link(
            size in 0_u64..40_000, block_size in 8_u16..64, window in 1_u16..40, losses in any::<u64>()
        ) {
            let mut losses = losses | 1;
            let mut lost = move || {
                losses = losses.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                losses >> 61 == 0
            };
            let mut transfer = Transfer::new(&request(Some(block_size), Some(window)), size);
            let (window, mut received, mut at) = (transfer.pace().1, 0_u64, 0_u64);
            let mut step = transfer.start();
            let mut rounds = 0;
            loop {
                rounds += 1;
                prop_assert!(rounds < 2_000_000);
                let mut answer = None;
                match &step {
                    Step::Options(_) => answer = Some(0),
                    Step::Blocks { first, last } => {
                        for block in *first..=*last {
                            if lost() {
                                continue;
                            }
                            if wire_block(block) == wire_block(at + 1) {
                                at += 1;
                                received += transfer.range(at).1 as u64;
                                if at % u64::from(window) == 0 || at == transfer.blocks() {
                                    answer = Some(wire_block(at));
                                }
                            } else {
                                answer = Some(wire_block(at));
                            }
                        }
                    }
                    Step::Wait => {}
                    Step::Done => break,
                    // A client that has everything may be gone before we know.
                    Step::GiveUp => { prop_assert_eq!(at, transfer.blocks()); break }
                }
                step = match answer {
                    Some(number) if !lost() => transfer.acknowledge(number),
                    _ => transfer.time_out(),
                };
            }
            prop_assert_eq!(received, size);
        }
    }
}
