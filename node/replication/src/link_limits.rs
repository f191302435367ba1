//! What one link to another datacenter may take: bytes in flight of the blob lane, bytes a second of both lanes, and how
//! soon a failed call is made again.
//!
//! Both bound what this node asks for, as both lanes are pulled. The metadata lane's bytes in flight are bounded where
//! they are counted (`metadata_lane`), so that a full blob lane never delays metadata.
//!
//! Invariants: a reservation larger than the whole budget waits for all of it and then passes; nothing here blocks a
//! thread.

use std::sync::Arc;
use std::time::Duration;

use meridian_env::HybridClock;
use meridian_replicator::RateCap;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes of mirror ranges that may be under way on one link.
pub(crate) struct LinkBudget {
    shares: Semaphore,
    bytes_max: u32,
}

impl LinkBudget {
    pub fn new(bytes_max: usize) -> Self {
        let bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX).max(1);
        Self { shares: Semaphore::new(bytes_max as usize), bytes_max }
    }

    /// Waits for `bytes` of the budget; they are free again when the answer is dropped.
    pub async fn reserve(&self, bytes: usize) -> SemaphorePermit<'_> {
        let share = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes_max);
        self.shares.acquire_many(share).await.expect("the semaphore is never closed")
    }

    /// Bytes of the budget that are in use.
    #[cfg(test)]
    fn in_use(&self) -> u64 {
        u64::from(self.bytes_max).saturating_sub(self.shares.available_permits() as u64)
    }
}

/// The link's cap on bytes a second, if it has one.
pub(crate) struct LinkRate {
    clock: Arc<HybridClock>,
    cap: Option<Mutex<RateCap>>,
}

impl LinkRate {
    pub fn new(clock: Arc<HybridClock>, bytes_per_second_max: Option<u64>) -> Self {
        let cap = bytes_per_second_max.map(|most| Mutex::new(RateCap::new(most, clock.monotonic_ms())));
        Self { clock, cap }
    }

    /// Waits until the cap lets another request go out.
    pub async fn admit(&self) {
        let Some(cap) = &self.cap else { return };
        loop {
            let wait_ms = cap.lock().wait_ms(self.clock.monotonic_ms());
            if wait_ms == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
    }

    /// Counts bytes that have come.
    pub fn spend(&self, bytes: usize) {
        if let Some(cap) = &self.cap {
            cap.lock().spend(self.clock.monotonic_ms(), bytes as u64);
        }
    }

    /// The largest range to ask for at once, so that a capped link stays smooth.
    pub fn range_bytes_max(&self) -> usize {
        self.cap.as_ref().map_or(usize::MAX, |cap| cap.lock().range_bytes_max())
    }
}

/// Pauses between tries, doubled up to a limit. Jittered, so that peers that failed together do not come back together.
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// The next try is the first again.
    pub fn reset(&mut self) {
        self.next = self.min;
    }

    /// Between half of the pause and all of it.
    pub async fn pause(&mut self) {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        let half = pause / 2;
        let jitter_us = meridian_env::entropy::below(half.as_micros().max(1) as u64);
        tokio::time::sleep(half + Duration::from_micros(jitter_us)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_budget_is_never_overdrawn_and_lets_the_largest_pass() {
        let budget = LinkBudget::new(100);
        let first = budget.reserve(60).await;
        assert_eq!(budget.in_use(), 60);
        let second = tokio::time::timeout(Duration::from_millis(20), budget.reserve(60)).await;
        assert!(second.is_err(), "it waits");
        drop(first);
        let all = budget.reserve(1000).await;
        assert_eq!(budget.in_use(), 100);
        drop(all);
        assert_eq!(budget.in_use(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_a_limit_with_jitter_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(300));
        for expected_ms in [100, 200, 300, 300] {
            let began = tokio::time::Instant::now();
            backoff.pause().await;
            let (took, expected) = (began.elapsed(), Duration::from_millis(expected_ms));
            assert!(took >= expected / 2 && took <= expected + Duration::from_millis(2), "{took:?} of {expected:?}");
        }
        backoff.reset();
        assert_eq!(backoff.next, Duration::from_millis(100));
    }
}
