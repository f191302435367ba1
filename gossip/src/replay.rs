//! Refuses datagrams that were taken before (rule 28): a window of sequences for each sender's life, the IPsec way
//! (RFC 6479 describes the idea).
//!
//! Only datagrams whose seal has been opened come here, so that a stranger can't move a window or fill the memory.

/// How far behind the greatest sequence a datagram may still come, in datagrams.
pub(crate) const WINDOW_LENGTH: u64 = u128::BITS as u64;

/// The sequences seen from one sender in one of its lives.
///
/// Invariant: bit i of `seen` stands for the sequence `greatest - i`; bit 0 is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplayWindow {
    boot_counter: u64,
    greatest: u64,
    seen: u128,
}

impl ReplayWindow {
    /// Before the first datagram of a sender; sequences start at 1.
    pub(crate) fn new() -> Self {
        Self { boot_counter: 0, greatest: 0, seen: 1 }
    }

    /// Takes a sequence once: false for one seen before, too far behind, or of an earlier life. A later life starts its
    /// own window and ends the earlier ones for good.
    pub(crate) fn take(&mut self, boot_counter: u64, sequence: u64) -> bool {
        if boot_counter < self.boot_counter {
            return false;
        }
        if boot_counter > self.boot_counter {
            *self = Self { boot_counter, ..Self::new() };
        }
        if sequence > self.greatest {
            let ahead = sequence - self.greatest;
            self.seen = if ahead < WINDOW_LENGTH { self.seen << ahead } else { 0 };
            self.seen |= 1;
            self.greatest = sequence;
            return true;
        }
        let behind = self.greatest - sequence;
        if behind >= WINDOW_LENGTH || self.seen & (1 << behind) != 0 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn a_sequence_is_taken_once() {
        let mut window = ReplayWindow::new();
        assert!(window.take(1, 1) && !window.take(1, 1));
        assert!(window.take(1, 5) && window.take(1, 3) && !window.take(1, 3) && !window.take(1, 5));
    }

    #[test]
    fn sequence_zero_is_never_taken() {
        let mut window = ReplayWindow::new();
        assert!(!window.take(0, 0) && !window.take(9, 0));
    }

    #[test]
    fn what_left_the_window_is_refused() {
        let mut window = ReplayWindow::new();
        assert!(window.take(1, 1000));
        assert!(!window.take(1, 1000 - WINDOW_LENGTH));
        assert!(window.take(1, 1001 - WINDOW_LENGTH));
    }

    #[test]
    fn a_jump_far_ahead_forgets_nothing_that_matters() {
        let mut window = ReplayWindow::new();
        assert!(window.take(1, 1) && window.take(1, u64::MAX));
        assert!(!window.take(1, u64::MAX) && !window.take(1, 1) && window.take(1, u64::MAX - 1));
    }

    #[test]
    fn a_new_life_starts_anew_and_ends_the_old_one() {
        let mut window = ReplayWindow::new();
        assert!(window.take(7, 500) && window.take(8, 1));
        assert!(!window.take(7, 501), "a datagram captured before the restart");
        assert!(window.take(8, 2) && !window.take(8, 1));
    }

    proptest! {
        /// Against a plain set: nothing twice, and everything within the window once.
        #[test]
        fn the_window_agrees_with_a_set(sequences in proptest::collection::vec(1u64..400, 1..300)) {
            let (mut window, mut taken, mut greatest) = (ReplayWindow::new(), BTreeSet::new(), 0);
            for sequence in sequences {
                let within = sequence + WINDOW_LENGTH > greatest;
                let took = window.take(1, sequence);
                prop_assert_eq!(took, within && !taken.contains(&sequence));
                prop_assert!(!took || taken.insert(sequence));
                greatest = greatest.max(sequence);
            }
        }
    }
}
