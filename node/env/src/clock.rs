//! Wall and monotonic time of the machine, behind a trait. It judges neither: that is the hybrid clock's business.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use meridian_types::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Where time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock, in milliseconds, as a timestamp with a logical part of zero.
    fn wall(&self) -> Timestamp;

    /// Milliseconds since some fixed moment; never goes back, and counts the time that the machine slept.
    fn monotonic_ms(&self) -> u64;
}

/// The machine's clocks.
#[derive(Debug, Default)]
pub struct SystemClock {
    offset_ms: AtomicI64,
}

impl SystemClock {
    pub fn new() -> Self {
        Self::default()
    }

    /// Shows the wall clock `offset_ms` off, in this process only: for tests of skew.
    pub fn with_offset_ms(offset_ms: i64) -> Self {
        Self { offset_ms: AtomicI64::new(offset_ms) }
    }

    pub fn set_offset_ms(&self, offset_ms: i64) {
        self.offset_ms.store(offset_ms, Ordering::Relaxed);
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        // A machine set before 1970 reads as 1970: the guard then sees a clock far behind, and refuses.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ms = since_epoch.as_millis() as u64;
        Timestamp::from_unix_ms(unix_ms.saturating_add_signed(self.offset_ms.load(Ordering::Relaxed)))
    }

    fn monotonic_ms(&self) -> u64 {
        let now = clock_gettime(ClockId::Boottime);
        now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
    }
}

/// A clock that stands still until it is moved: for tests and simulations.
#[derive(Debug)]
pub struct ManualClock {
    wall_unix_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

impl ManualClock {
    pub fn new(wall_unix_ms: u64) -> Self {
        Self { wall_unix_ms: AtomicU64::new(wall_unix_ms), monotonic_ms: AtomicU64::new(0) }
    }

    /// Time passes.
    pub fn advance_ms(&self, ms: u64) {
        self.wall_unix_ms.fetch_add(ms, Ordering::Relaxed);
        self.monotonic_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Somebody sets the wall clock; the monotonic one does not notice.
    pub fn set_wall_unix_ms(&self, unix_ms: u64) {
        self.wall_unix_ms.store(unix_ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.wall_unix_ms.load(Ordering::Relaxed))
    }

    fn monotonic_ms(&self) -> u64 {
        self.monotonic_ms.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_moves_the_wall_clock_and_not_the_monotonic_one() {
        let (plain, ahead) = (SystemClock::new(), SystemClock::with_offset_ms(3_600_000));
        let ahead_ms = ahead.wall().ms_since(plain.wall());
        assert!((3_599_000..3_660_000).contains(&ahead_ms), "{ahead_ms}");
        assert!(ahead.monotonic_ms().abs_diff(plain.monotonic_ms()) < 60_000);
        ahead.set_offset_ms(-1000);
        assert!(ahead.wall() < plain.wall());
    }
}
