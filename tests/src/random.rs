//! Pseudo-random numbers of a seed that is printed, so that a failed run can be repeated as far as real processes allow.

use std::sync::atomic::{AtomicU64, Ordering};

/// One stream of numbers.
#[derive(Debug)]
pub struct Random {
    state: AtomicU64,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }

    /// The seed `MERIDIAN_TEST_SEED`, or a fresh one; printed with the test's name.
    pub fn of_test(name: &str) -> Self {
        let given = std::env::var("MERIDIAN_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let fresh = || std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos() as u64 & 0xffff_ffff);
        let seed = given.unwrap_or_else(fresh);
        println!("{name}: MERIDIAN_TEST_SEED={seed}");
        Self::new(seed)
    }

    /// Another stream, of this one's numbers.
    pub fn split(&self) -> Self {
        Self::new(self.next())
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut word = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Below `bound`, which is above 0.
    pub fn below(&self, bound: u64) -> u64 {
        self.next() % bound
    }
}
