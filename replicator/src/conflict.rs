//! Who wins when two mutations meet: the greater stamp, everywhere alike; and whether the two were concurrent.
//!
//! Does not merge rows: the index does, with these answers. Invariants: `precedence` is a total order on stamps,
//! so every datacenter picks the same winner; concurrency is read from cursors, never from stamps (rule 16).

use std::cmp::Ordering;

use meridian_types::{DatacenterId, Plant, Planted, Stamp};

use crate::{CursorVector, OriginCursor};

/// Which of two mutations of one row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    Incoming,
    Existing,
    /// The same mutation, seen again.
    Same,
}

/// The greater stamp wins; ties of the timestamp fall to the greater datacenter id.
pub fn precedence(plant: impl Plant, existing: Stamp, incoming: Stamp) -> Precedence {
    if plant.has(Planted::WallClockWins) && existing != incoming {
        let is_later = incoming.timestamp.unix_ms() > existing.timestamp.unix_ms();
        return if is_later { Precedence::Incoming } else { Precedence::Existing };
    }
    match incoming.cmp(&existing) {
        Ordering::Greater => Precedence::Incoming,
        Ordering::Less => Precedence::Existing,
        Ordering::Equal => Precedence::Same,
    }
}

/// Whether the losing mutation was unknown at the winner's origin when the winner was applied there (rule 16).
///
/// `winner_cursors` are the cursors that the winner carries, `loser` the place of the loser in the log of
/// `loser_origin`. Two mutations of one origin are never concurrent; the caller asks only about two different
/// origins, because a vector need not name its own.
pub fn is_concurrent(winner_cursors: &CursorVector, loser_origin: DatacenterId, loser: OriginCursor) -> bool {
    winner_cursors.get(loser_origin) < loser
}

#[cfg(test)]
mod tests {
    use meridian_types::{Incarnation, Sequence, Sound, Timestamp};

    use super::*;

    fn dc(id: u8) -> DatacenterId {
        DatacenterId::new(id).unwrap()
    }

    fn stamp(raw: u64, id: u8) -> Stamp {
        Stamp::new(Timestamp::from_raw(raw), dc(id))
    }

    fn at(incarnation: u32, sequence: u64) -> OriginCursor {
        OriginCursor { incarnation: Incarnation(incarnation), sequence: Sequence(sequence) }
    }

    #[test]
    fn the_greater_stamp_wins_and_a_tie_falls_to_the_greater_datacenter() {
        assert_eq!(precedence(Sound, stamp(5, 9), stamp(6, 1)), Precedence::Incoming);
        assert_eq!(precedence(Sound, stamp(6, 1), stamp(5, 9)), Precedence::Existing);
        assert_eq!(precedence(Sound, stamp(5, 1), stamp(5, 2)), Precedence::Incoming);
        assert_eq!(precedence(Sound, stamp(5, 2), stamp(5, 1)), Precedence::Existing);
        assert_eq!(precedence(Sound, stamp(5, 2), stamp(5, 2)), Precedence::Same);
    }

    #[test]
    fn both_sides_of_a_meeting_pick_the_same_winner() {
        for (a, b) in [(stamp(1, 1), stamp(1, 2)), (stamp(2, 1), stamp(1, 2)), (stamp(3, 3), stamp(3, 3))] {
            let swapped = match precedence(Sound, b, a) {
                Precedence::Incoming => Precedence::Existing,
                Precedence::Existing => Precedence::Incoming,
                Precedence::Same => Precedence::Same,
            };
            assert_eq!(precedence(Sound, a, b), swapped);
        }
    }

    #[test]
    fn an_overwrite_of_what_its_origin_had_seen_is_no_conflict() {
        let mut seen = CursorVector::new();
        seen.advance(dc(1), at(1, 7));
        assert!(!is_concurrent(&seen, dc(1), at(1, 7)));
        assert!(!is_concurrent(&seen, dc(1), at(1, 3)));
        assert!(is_concurrent(&seen, dc(1), at(1, 8)));
        assert!(is_concurrent(&seen, dc(1), at(2, 7)), "another incarnation's 7 is another entry");
        assert!(is_concurrent(&seen, dc(2), at(1, 1)), "nothing of datacenter 2 had been seen");
    }
}
