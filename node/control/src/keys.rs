//! The needle keys that this node may issue: one leased range in use and one in reserve.
//!
//! Pure: it is told of leases and says when to ask for one. Invariants: a key is issued at most once; a range lives in
//! memory only, so that after a restart none of it is issued again (rule 3).

use std::ops::Range;

use meridian_types::NeedleKey;

/// Leased key ranges.
#[derive(Debug, Default)]
pub(crate) struct KeyLeases {
    current: Range<u64>,
    reserve: Option<Range<u64>>,
}

impl KeyLeases {
    /// The next key, or `None` when both ranges are used up.
    pub(crate) fn next(&mut self) -> Option<NeedleKey> {
        if self.current.is_empty() {
            self.current = self.reserve.take()?;
        }
        let key = self.current.next()?;
        Some(NeedleKey(key))
    }

    /// The first of `count` keys in a row, or `None` when neither range has so many. What the range in use has left is then
    /// passed over.
    pub(crate) fn take(&mut self, count: u64) -> Option<NeedleKey> {
        let has_room = |range: &Range<u64>| range.end - range.start >= count;
        if !has_room(&self.current) {
            self.current = self.reserve.take_if(|reserve| has_room(reserve))?;
        }
        let first = self.current.start;
        self.current.start += count;
        Some(NeedleKey(first))
    }

    /// Whether a range should be leased now, ahead of need.
    pub(crate) fn wants_more(&self) -> bool {
        self.reserve.is_none()
    }

    /// Takes a leased range. One too many is dropped: its keys are never issued.
    pub(crate) fn add(&mut self, first: NeedleKey, count: u64) {
        let range = first.0..first.0.saturating_add(count);
        if self.current.is_empty() {
            self.current = range;
        } else if self.reserve.is_none() {
            self.reserve = Some(range);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_run_through_both_ranges_and_then_out() {
        let mut keys = KeyLeases::default();
        assert!(keys.wants_more() && keys.next().is_none());
        keys.add(NeedleKey(10), 2);
        assert!(keys.wants_more());
        keys.add(NeedleKey(50), 1);
        assert!(!keys.wants_more());
        keys.add(NeedleKey(90), 1); // one too many
        let issued: Vec<_> = std::iter::from_fn(|| keys.next()).map(|key| key.0).collect();
        assert_eq!(issued, [10, 11, 50]);
        assert!(keys.wants_more());
    }

    #[test]
    fn keys_in_a_row_come_from_one_range_and_none_twice() {
        let mut keys = KeyLeases::default();
        assert!(keys.take(1).is_none());
        keys.add(NeedleKey(10), 5);
        keys.add(NeedleKey(50), 4);
        assert_eq!((keys.take(3), keys.next()), (Some(NeedleKey(10)), Some(NeedleKey(13))));
        assert_eq!(keys.take(2), Some(NeedleKey(50)), "one key was left of the first range");
        assert!(keys.take(3).is_none() && keys.wants_more());
        assert_eq!((keys.take(2), keys.next()), (Some(NeedleKey(52)), None));
    }
}
