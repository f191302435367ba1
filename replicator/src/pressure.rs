//! Backpressure of replication (`replication_backpressure`): how much a source slows its own writers because a
//! destination that can be reached does not keep up.
//!
//! A destination tells its W_data with each request, so long as nothing but speed holds it back. The delay of a chunk
//! grows with the square of the lag between two bounds. It is for slow peers only: one that is silent slows nobody, and
//! what it has missed by then is its *allowance*, which it may work off at half the speed of time before it slows anybody.
//!
//! ```text
//!   delay                           ___  DELAY_MS_MAX
//!                               _.-'
//!                          __.-'
//!   0 ____________________'____________  lag − allowance
//!                    LAG_MS_FREE  LAG_MS_FULL
//! ```
//!
//! It knows no clock and delays nothing itself. Invariants: the delay is bounded; it is zero for a destination that has
//! said nothing for `REPORT_AGE_MS_MAX`, so a link that is cut, a peer that is frozen and one that is gone slow no write.

use std::collections::BTreeMap;

use meridian_types::DatacenterId;

/// Up to here a lag is what closing and reporting take.
pub const LAG_MS_FREE: u64 = 2_000;
/// From here on a chunk waits for `DELAY_MS_MAX`.
pub const LAG_MS_FULL: u64 = 4_500;
/// The longest that one chunk waits.
pub const DELAY_MS_MAX: u64 = 1_000;
/// A destination that has said nothing for so long slows nobody, and gets an allowance when it speaks again.
pub const REPORT_AGE_MS_MAX: u64 = 2_000;

/// What slows writes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteDelay {
    /// Who does not keep up.
    pub destination: DatacenterId,
    /// What a chunk waits before it is appended.
    pub delay_ms: u64,
    /// By how much it is behind, as it said last.
    pub lag_ms: u64,
}

/// See the module. Times are of one monotonic clock.
#[derive(Debug, Clone, Default)]
pub struct WritePressure {
    destinations: BTreeMap<DatacenterId, Destination>,
}

#[derive(Debug, Clone, Copy)]
struct Destination {
    heard_at_ms: u64,
    /// `None` when something else than speed holds it back.
    lag_ms: Option<u64>,
    /// Of that lag, what it had missed while it could not be reached.
    allowance_ms: u64,
}

impl WritePressure {
    /// A destination has said how far it is behind; `None` when that is no matter of speed (a held stream, a parked range).
    pub fn report(&mut self, now_ms: u64, destination: DatacenterId, lag_ms: Option<u64>) {
        let before = self.destinations.get(&destination).copied();
        // What is not known, or not known to be a matter of speed, counts as missed.
        let lag_or_all = lag_ms.unwrap_or(u64::MAX);
        let allowance_ms = match before {
            Some(before) if now_ms.saturating_sub(before.heard_at_ms) <= REPORT_AGE_MS_MAX => {
                let passed_ms = now_ms.saturating_sub(before.heard_at_ms);
                match before.lag_ms {
                    Some(_) => before.allowance_ms.saturating_sub(passed_ms.div_ceil(2)).min(lag_or_all),
                    None => lag_or_all,
                }
            }
            _ => lag_or_all,
        };
        self.destinations.insert(destination, Destination { heard_at_ms: now_ms, lag_ms, allowance_ms });
    }

    /// The longest delay that any destination asks for now; `None` when writes need not wait.
    pub fn delay(&self, now_ms: u64) -> Option<WriteDelay> {
        let fresh = self
            .destinations
            .iter()
            .filter(|(_, destination)| now_ms.saturating_sub(destination.heard_at_ms) <= REPORT_AGE_MS_MAX);
        fresh
            .filter_map(|(id, destination)| {
                let lag_ms = destination.lag_ms?;
                let delay_ms = delay_of(lag_ms.saturating_sub(destination.allowance_ms));
                (delay_ms > 0).then_some(WriteDelay { destination: *id, delay_ms, lag_ms })
            })
            .max_by_key(|delay| delay.delay_ms)
    }
}

fn delay_of(excess_ms: u64) -> u64 {
    const SPAN_MS: u64 = LAG_MS_FULL - LAG_MS_FREE;
    let above_ms = excess_ms.saturating_sub(LAG_MS_FREE).min(SPAN_MS);
    DELAY_MS_MAX * above_ms * above_ms / (SPAN_MS * SPAN_MS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dc(id: u8) -> DatacenterId {
        DatacenterId::new(id).unwrap()
    }

    /// A destination that was up to date at time zero.
    fn kept_up() -> WritePressure {
        let mut pressure = WritePressure::default();
        pressure.report(0, dc(2), Some(100));
        pressure
    }

    /// Reports each 100 ms from `from_ms` to `to_ms`, with the lag that `lag_ms` gives.
    fn hear(pressure: &mut WritePressure, from_ms: u64, to_ms: u64, lag_ms: impl Fn(u64) -> Option<u64>) {
        (from_ms..=to_ms).step_by(100).for_each(|now_ms| pressure.report(now_ms, dc(2), lag_ms(now_ms)));
    }

    #[test]
    fn a_destination_that_keeps_up_slows_nobody() {
        let mut pressure = kept_up();
        hear(&mut pressure, 100, 10_000, |_| Some(LAG_MS_FREE));
        assert_eq!(pressure.delay(10_000), None);
    }

    #[test]
    fn the_delay_grows_with_the_lag_up_to_its_bound_and_names_the_slowest() {
        let mut pressure = kept_up();
        hear(&mut pressure, 100, 5_000, |_| Some(3_250));
        let expected = WriteDelay { destination: dc(2), delay_ms: DELAY_MS_MAX / 4, lag_ms: 3_250 };
        assert_eq!(pressure.delay(5_000), Some(expected));
        pressure.report(5_000, dc(3), Some(100));
        pressure.report(5_100, dc(3), Some(60_000));
        let expected = WriteDelay { destination: dc(3), delay_ms: DELAY_MS_MAX, lag_ms: 60_000 };
        assert_eq!(pressure.delay(5_100), Some(expected));
    }

    #[test]
    fn a_silent_destination_slows_nobody_whatever_it_said_last() {
        let mut pressure = kept_up();
        hear(&mut pressure, 100, 1_000, |_| Some(9_000));
        assert!(pressure.delay(1_000 + REPORT_AGE_MS_MAX).is_some());
        assert_eq!(pressure.delay(1_001 + REPORT_AGE_MS_MAX), None);
    }

    #[test]
    fn what_was_missed_in_a_cut_is_worked_off_without_slowing_anybody() {
        let mut pressure = kept_up();
        // A minute of silence, then it catches up at twice the speed of time.
        hear(&mut pressure, 60_000, 90_000, |now_ms| Some(60_000 - (now_ms - 60_000) * 2));
        for now_ms in (60_000..90_000).step_by(500) {
            assert_eq!(pressure.delay(now_ms.min(60_000)), None);
        }
        assert_eq!(pressure.delay(90_000), None);
    }

    #[test]
    fn a_destination_that_comes_back_and_does_not_catch_up_slows_writes_after_a_while() {
        let mut pressure = kept_up();
        hear(&mut pressure, 60_000, 63_900, |_| Some(60_000));
        assert_eq!(pressure.delay(63_900), None, "half of the time is given");
        hear(&mut pressure, 64_000, 66_000, |_| Some(60_000));
        assert!(pressure.delay(66_000).is_some_and(|delay| delay.delay_ms > 0));
    }

    #[test]
    fn what_is_no_matter_of_speed_slows_nobody_and_is_an_allowance_afterwards() {
        let mut pressure = kept_up();
        hear(&mut pressure, 100, 20_000, |_| None);
        assert_eq!(pressure.delay(20_000), None);
        pressure.report(20_100, dc(2), Some(20_000));
        assert_eq!(pressure.delay(20_100), None);
    }

    /// A source of `demand` bytes a second and a mirror of `supply`, with clients that wait as they are told.
    fn settle(demand: f64, supply: f64, clients: f64) -> f64 {
        let mut pressure = kept_up();
        let (mut backlog, mut lag_max_ms) = (0.0f64, 0u64);
        for now_ms in (100..60_000u64).step_by(100) {
            let delay_ms = pressure.delay(now_ms).map_or(0, |delay| delay.delay_ms) as f64;
            // Each client writes one unit, which takes clients / demand seconds undelayed, and then waits.
            let rate = clients / (clients / demand + delay_ms / 1000.0);
            backlog = (backlog + (rate - supply) * 0.1).max(0.0);
            let lag_ms = 1_000 + (backlog / supply * 1000.0) as u64;
            lag_max_ms = lag_max_ms.max(lag_ms);
            pressure.report(now_ms, dc(2), Some(lag_ms));
        }
        lag_max_ms as f64
    }

    #[test]
    fn a_mirror_at_a_third_of_the_load_is_never_more_than_five_seconds_behind() {
        for (demand, supply, clients) in [(3000.0, 1000.0, 16.0), (300.0, 100.0, 16.0), (900.0, 300.0, 64.0)] {
            let lag_ms = settle(demand, supply, clients);
            assert!(lag_ms <= 5_000.0, "{demand} against {supply}: {lag_ms} ms");
        }
    }

    proptest! {
        #[test]
        fn the_delay_is_bounded_and_never_falls_as_the_lag_grows(lags in prop::collection::vec(0u64..100_000, 2)) {
            let (low, high) = (lags[0].min(lags[1]), lags[0].max(lags[1]));
            prop_assert!(delay_of(low) <= delay_of(high));
            prop_assert!(delay_of(high) <= DELAY_MS_MAX);
        }
    }
}
