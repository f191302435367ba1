//! How fast things go: a window of readings of growing totals, and counts of the last minute.
//!
//! It reads no clock; the monotonic time is given. Invariants: bounded by `READINGS_MAX` and `SLOTS`; a total that went
//! back (the lane has started anew) begins the window anew instead of showing a rate below 0.

use std::collections::VecDeque;

/// How far back a rate looks.
const WINDOW_MS: u64 = 10_000;
/// Readings kept; one comes with each report.
const READINGS_MAX: usize = 64;
/// Readings closer to the last one are left out.
const READING_INTERVAL_MS: u64 = 250;
/// Seconds of a minute.
const SLOTS: usize = 60;

/// Totals of one link at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Entries that the source has, and those applied here, over all partitions.
    pub entries_there: u64,
    pub entries_here: u64,
    /// Bytes of its volumes that are durable here.
    pub bytes_here: u64,
}

/// What of it comes a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct PerSecond {
    pub entries_in: f64,
    pub entries_out: f64,
    pub bytes_out: f64,
}

/// The readings of one link.
#[derive(Debug, Default)]
pub(crate) struct Rates(VecDeque<(u64, Totals)>);

impl Rates {
    pub fn read(&mut self, now_ms: u64, totals: Totals) {
        if let Some((at_ms, last)) = self.0.back() {
            let went_back = totals.entries_there < last.entries_there
                || totals.entries_here < last.entries_here
                || totals.bytes_here < last.bytes_here;
            if went_back {
                self.0.clear();
            } else if now_ms.saturating_sub(*at_ms) < READING_INTERVAL_MS {
                return;
            }
        }
        // One reading beyond the window stays, so that a rate covers all of it.
        while self.0.get(1).is_some_and(|(at_ms, _)| now_ms.saturating_sub(*at_ms) >= WINDOW_MS)
            || self.0.len() >= READINGS_MAX
        {
            self.0.pop_front();
        }
        self.0.push_back((now_ms, totals));
    }

    pub fn per_second(&self) -> PerSecond {
        let (Some((from_ms, from)), Some((to_ms, to))) = (self.0.front(), self.0.back()) else {
            return PerSecond::default();
        };
        let seconds = to_ms.saturating_sub(*from_ms) as f64 / 1e3;
        if seconds <= 0.0 {
            return PerSecond::default();
        }
        PerSecond {
            entries_in: (to.entries_there - from.entries_there) as f64 / seconds,
            entries_out: (to.entries_here - from.entries_here) as f64 / seconds,
            bytes_out: (to.bytes_here - from.bytes_here) as f64 / seconds,
        }
    }
}

/// Counts of the last minute, by seconds.
#[derive(Debug)]
pub(crate) struct MinuteCount {
    /// The second that each slot belongs to, and how many of it.
    slots: [(u64, u64); SLOTS],
}

impl Default for MinuteCount {
    fn default() -> Self {
        Self { slots: [(0, 0); SLOTS] }
    }
}

impl MinuteCount {
    pub fn add(&mut self, now_ms: u64) {
        let second = now_ms / 1000;
        let slot = &mut self.slots[(second % SLOTS as u64) as usize];
        if slot.0 != second {
            *slot = (second, 0);
        }
        slot.1 += 1;
    }

    pub fn sum(&self, now_ms: u64) -> u64 {
        let second = now_ms / 1000;
        let fresh = self.slots.iter().filter(|(at, _)| second.saturating_sub(*at) < SLOTS as u64);
        fresh.map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(there: u64, here: u64) -> Totals {
        Totals { entries_there: there, entries_here: here, bytes_here: here * 100 }
    }

    #[test]
    fn a_rate_covers_the_window_and_no_more() {
        let mut rates = Rates::default();
        assert_eq!(rates.per_second(), PerSecond::default());
        for second in 0..=30 {
            let fast = if second > 15 { (second - 15) * 100 } else { 0 };
            rates.read(second * 1000, totals(second * 10, fast));
        }
        let PerSecond { entries_in, entries_out, bytes_out } = rates.per_second();
        assert_eq!((entries_in, entries_out, bytes_out), (10.0, 100.0, 10_000.0));
        assert!(rates.0.len() <= 12, "{} readings are kept", rates.0.len());
    }

    #[test]
    fn a_total_that_went_back_begins_anew() {
        let mut rates = Rates::default();
        rates.read(0, totals(100, 100));
        rates.read(1000, totals(0, 100));
        assert_eq!(rates.per_second(), PerSecond::default());
        rates.read(2000, totals(50, 100));
        assert_eq!(rates.per_second().entries_in, 50.0);
    }

    #[test]
    fn a_minute_forgets_what_is_older() {
        let mut count = MinuteCount::default();
        count.add(1_000);
        count.add(1_900);
        count.add(59_000);
        assert_eq!((count.sum(59_000), count.sum(61_000), count.sum(119_000)), (3, 1, 0));
        count.add(121_500);
        assert_eq!(count.sum(121_500), 1);
    }
}
