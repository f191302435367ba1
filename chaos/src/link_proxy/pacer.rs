//! The rate of one direction of a link, shared by all its connections as a line would be.

use std::num::NonZeroU64;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// When the line is free again.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    free_at: Mutex<Option<Instant>>,
}

impl Pacer {
    /// Takes the line's next turn for `size` bytes; returns when the last of them is through.
    pub fn reserve(&self, now: Instant, size: usize, bytes_per_s: NonZeroU64) -> Instant {
        let mut free_at = self.free_at.lock().expect("nothing panics while it holds the lock");
        let from = free_at.map_or(now, |at| at.max(now));
        let through = from + Duration::from_secs_f64(size as f64 / bytes_per_s.get() as f64);
        *free_at = Some(through);
        through
    }

    /// Nothing is on the line: the rate has changed, and who waits takes a new turn.
    pub fn forget(&self) {
        *self.free_at.lock().expect("nothing panics while it holds the lock") = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_follow_one_another_and_an_idle_line_saves_nothing_up() {
        let (pacer, rate) = (Pacer::default(), NonZeroU64::new(1000).unwrap());
        let start = Instant::now();
        assert_eq!(pacer.reserve(start, 500, rate), start + Duration::from_millis(500));
        assert_eq!(pacer.reserve(start, 500, rate), start + Duration::from_millis(1000));
        let later = start + Duration::from_secs(60);
        assert_eq!(pacer.reserve(later, 100, rate), later + Duration::from_millis(100));
        pacer.forget();
        assert_eq!(pacer.reserve(start, 100, rate), start + Duration::from_millis(100));
    }
}
