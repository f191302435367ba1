//! A cap on bytes a second as a token bucket that may go into debt: what has come is counted, and the next request
//! waits until the debt is paid. So no answer has to be cut, and the average holds whatever the sizes are.
//!
//! It knows no clock: the caller passes milliseconds of a monotonic one. Invariants: over any span the bytes spent after
//! an admitted request are at most the cap's for the span, plus the burst, plus one answer; a clock that stands still or
//! steps back gives nothing.

/// Up to so much may come at once after silence.
const BURST_MS: u64 = 250;
/// The smallest range worth a request.
const RANGE_BYTES_MIN: u64 = 64 << 10;

/// See the module.
#[derive(Debug, Clone)]
pub struct RateCap {
    bytes_per_second_max: u64,
    /// Bytes that may still come, in thousandths; negative is debt.
    millibytes: i128,
    at_ms: u64,
}

impl RateCap {
    /// `bytes_per_second_max` of zero counts as one.
    pub fn new(bytes_per_second_max: u64, now_ms: u64) -> Self {
        let mut cap = Self { bytes_per_second_max: bytes_per_second_max.max(1), millibytes: 0, at_ms: now_ms };
        cap.millibytes = cap.burst();
        cap
    }

    /// Counts bytes that have come.
    pub fn spend(&mut self, now_ms: u64, bytes: u64) {
        self.refill(now_ms);
        self.millibytes -= i128::from(bytes) * 1000;
    }

    /// How long the next request has to wait; zero when it may go.
    pub fn wait_ms(&mut self, now_ms: u64) -> u64 {
        self.refill(now_ms);
        let debt = u128::try_from(-self.millibytes).unwrap_or(0);
        u64::try_from(debt.div_ceil(u128::from(self.bytes_per_second_max))).unwrap_or(u64::MAX)
    }

    /// Bytes to ask for at once: a quarter of a second's, so that the link stays smooth.
    pub fn range_bytes_max(&self) -> usize {
        usize::try_from((self.bytes_per_second_max / 4).max(RANGE_BYTES_MIN)).unwrap_or(usize::MAX)
    }

    fn refill(&mut self, now_ms: u64) {
        let passed_ms = now_ms.saturating_sub(self.at_ms);
        self.at_ms = self.at_ms.max(now_ms);
        let more = i128::from(passed_ms) * i128::from(self.bytes_per_second_max);
        self.millibytes = (self.millibytes + more).min(self.burst());
    }

    fn burst(&self) -> i128 {
        i128::from(self.bytes_per_second_max) * i128::from(BURST_MS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_debt_is_paid_before_the_next_request() {
        let mut cap = RateCap::new(1000, 0);
        assert_eq!(cap.wait_ms(0), 0);
        cap.spend(0, 1250);
        assert_eq!(cap.wait_ms(0), 1000, "a burst of 250 bytes was free");
        assert_eq!(cap.wait_ms(999), 1);
        assert_eq!(cap.wait_ms(1000), 0);
    }

    #[test]
    fn silence_saves_up_no_more_than_the_burst_and_a_clock_that_steps_back_gives_nothing() {
        let mut cap = RateCap::new(1000, 10_000);
        cap.spend(1_000_000, 1250);
        assert_eq!(cap.wait_ms(1_000_000), 1000);
        assert_eq!(cap.wait_ms(5), 1000);
        assert_eq!(cap.wait_ms(1_000_500), 500);
    }

    proptest! {
        #[test]
        fn the_average_holds_whatever_the_sizes_are(
            sizes in prop::collection::vec(1u64..5_000_000, 1..60),
            most in 1_000u64..100_000_000,
        ) {
            let (mut cap, mut now_ms, mut spent) = (RateCap::new(most, 0), 0u64, 0u64);
            for size in &sizes {
                now_ms += cap.wait_ms(now_ms);
                cap.spend(now_ms, *size);
                spent += size;
            }
            now_ms += cap.wait_ms(now_ms);
            let allowed = u128::from(most) * u128::from(now_ms + BURST_MS) / 1000 + 1;
            prop_assert!(u128::from(spent) <= allowed, "{spent} in {now_ms} ms at {most}");
            let least = u128::from(most) * u128::from(now_ms.saturating_sub(sizes.len() as u64 + 1)) / 1000;
            prop_assert!(u128::from(spent) >= least, "the link idles: {spent} in {now_ms} ms at {most}");
        }
    }
}
