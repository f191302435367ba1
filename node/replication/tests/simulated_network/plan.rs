//! What a seed decides: who writes what and when, and when which link does what.
//!
//! Invariants: each fault strikes once a run, with its place and length drawn; two writes of one key are far enough apart
//! that the time of a sync can't change their order.

use std::time::Duration;

use crate::network::NAMES;

pub const KEYS: [&str; 5] = ["a", "b/1", "b/2", "c", "d"];
/// Between two operations, whoever makes them.
const PAUSE_MS: u64 = 260;
pub const OPERATIONS: u64 = 130;
/// One fault after the other, each in a slot of its own.
const SLOT_MS: u64 = 5_500;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// Bytes of the object; its content comes from the operation's number.
    Put(usize),
    Delete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Operation {
    pub at: Duration,
    pub number: u64,
    pub datacenter: usize,
    pub key: &'static str,
    pub act: Act,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nothing passes; what was on the way is lost, and connections with it.
    Cut(usize, usize),
    /// Nothing passes in one direction.
    CutOneWay(usize, usize),
    /// A datacenter is cut from both others.
    Isolated(usize),
    /// What is sent arrives all at once at the end: the peer accepts and says nothing.
    Held(usize, usize),
    /// A message takes up to this many milliseconds.
    Slow(usize, usize, u64),
    /// Cut and repaired every few hundred milliseconds.
    Flapping(usize, usize),
}

impl Fault {
    pub fn is_flapping(self) -> bool {
        matches!(self, Self::Flapping(..))
    }

    /// Whether the link is silent long enough for both lanes to notice.
    pub fn silences(self) -> bool {
        matches!(self, Self::Cut(..) | Self::CutOneWay(..) | Self::Isolated(_))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Strike {
    pub from: Duration,
    pub to: Duration,
    pub fault: Fault,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub operations: Vec<Operation>,
    pub strikes: Vec<Strike>,
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut kinds: Vec<u32> = (0..6).collect();
        let mut strikes = Vec::new();
        for slot in 0..kinds.len() as u64 {
            let kind = kinds.swap_remove(random.below(kinds.len() as u64) as usize);
            let place = random.below(NAMES.len() as u64) as usize;
            let other = (place + 1 + random.below(2) as usize) % NAMES.len();
            let from = slot * SLOT_MS + 500 + random.below(400);
            let to = from + 3_600 + random.below(900);
            let fault = match kind {
                0 => Fault::Cut(place, other),
                1 => Fault::CutOneWay(place, other),
                2 => Fault::Isolated(place),
                3 => Fault::Held(place, other),
                4 => Fault::Slow(place, other, 200 + random.below(600)),
                _ => Fault::Flapping(place, other),
            };
            strikes.push(Strike { from: Duration::from_millis(from), to: Duration::from_millis(to), fault });
        }
        let operations = (0..OPERATIONS).map(|number| Operation {
            at: Duration::from_millis(number * PAUSE_MS + random.below(40)),
            number,
            datacenter: random.below(NAMES.len() as u64) as usize,
            key: KEYS[random.below(KEYS.len() as u64) as usize],
            act: match random.below(10) {
                0 | 1 => Act::Delete,
                2 => Act::Put(150_000 + random.below(250_000) as usize),
                _ => Act::Put(random.below(6_000) as usize),
            },
        });
        Self { operations: operations.collect(), strikes }
    }

    /// When the last operation was made and the last fault has ended.
    pub fn length(&self) -> Duration {
        let operations = self.operations.iter().map(|operation| operation.at);
        operations.chain(self.strikes.iter().map(|strike| strike.to)).max().unwrap_or_default()
    }
}

/// What an operation's object holds.
pub fn content(number: u64, size: usize) -> Vec<u8> {
    let mut random = Random(number ^ 0x5eed);
    let mut content: Vec<u8> = (0..size.div_ceil(8)).flat_map(|_| random.below(u64::MAX).to_le_bytes()).collect();
    content.truncate(size);
    content
}
