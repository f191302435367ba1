//! How many bytes of a mirror to ask for at once: as many as the link carries in well under a second, so that what is
//! durable moves on steadily on a slow link, and a fast one is not asked for crumbs.
//!
//! It knows no clock; the caller says how long a range took. Invariant: the size stays within its two bounds.

/// The smallest range worth a request.
pub const RANGE_BYTES_MIN: usize = 128 << 10;
/// Where a link starts that nothing is known of.
const RANGE_BYTES_START: usize = 1 << 20;
/// A full range that took less is doubled.
const TOOK_MS_LOW: u64 = 200;
/// A range that took more is halved.
const TOOK_MS_HIGH: u64 = 800;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct RangeSize {
    bytes: usize,
    bytes_max: usize,
}

impl RangeSize {
    /// Never above `bytes_max`, which is at least `RANGE_BYTES_MIN`.
    pub fn new(bytes_max: usize) -> Self {
        let bytes_max = bytes_max.max(RANGE_BYTES_MIN);
        Self { bytes: RANGE_BYTES_START.min(bytes_max), bytes_max }
    }

    /// What to ask for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A range of `received` bytes was on its way for `took_ms`.
    pub fn took(&mut self, received: usize, took_ms: u64) {
        if took_ms > TOOK_MS_HIGH {
            self.bytes = (self.bytes / 2).max(RANGE_BYTES_MIN);
        } else if received >= self.bytes && took_ms < TOOK_MS_LOW {
            self.bytes = (self.bytes * 2).min(self.bytes_max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size at which a link of so many bytes a second settles.
    fn settled(bytes_per_second: u64) -> usize {
        let mut size = RangeSize::new(8 << 20);
        for _ in 0..20 {
            size.took(size.bytes(), size.bytes() as u64 * 1000 / bytes_per_second);
        }
        size.bytes()
    }

    #[test]
    fn a_range_takes_well_under_a_second_on_any_link_that_can_do_it() {
        assert_eq!(settled(1 << 30), 8 << 20);
        for bytes_per_second in [256 << 10, 1 << 20, 10 << 20] {
            let took_ms = settled(bytes_per_second) as u64 * 1000 / bytes_per_second;
            assert!((100..=TOOK_MS_HIGH).contains(&took_ms), "{bytes_per_second}: {took_ms} ms");
        }
        assert_eq!(settled(1000), RANGE_BYTES_MIN);
    }

    #[test]
    fn a_small_answer_that_came_fast_says_nothing_of_the_link() {
        let mut size = RangeSize::new(8 << 20);
        size.took(100, 1);
        assert_eq!(size.bytes(), RANGE_BYTES_START);
    }
}
