//! What a source answers to a pull: rule 7 in one function.
//!
//! It reads no log: the caller looks up the hash. Invariant: entries are served only behind a position that this
//! log itself holds, so a source whose disks went back in time never lets a peer skip what it wrote since.

use meridian_types::{DatacenterId, EntryHash, LogPosition, Plant, Planted, Sequence, Sound};

use crate::LogHead;

/// What to do with a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullDecision {
    /// Send entries from this sequence on.
    Serve {
        from: Sequence,
    },
    /// Nothing behind the cursor; the closed timestamp may still be news.
    UpToDate,
    Refuse(PullRefusal),
    /// The log no longer holds what follows the cursor.
    NeedsFullSync,
}

/// Why a cursor is not a place in this log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PullRefusal {
    #[error("cursor of origin {asked} for the log of origin {origin}")]
    WrongOrigin { origin: DatacenterId, asked: DatacenterId },
    #[error("cursor {asked:?} lies beyond the head {head:?}: this log went back in time")]
    BeyondHead { head: LogPosition, asked: LogPosition },
    #[error("cursor {asked:?} names no entry of this log")]
    UnknownPosition { asked: LogPosition },
    #[error("cursor {asked:?} has another history: the hash here is {here:?}")]
    HashMismatch { asked: LogPosition, here: EntryHash },
}

/// Decides a pull (rule 7): a cursor is served only if this log holds the very entry that it names, hash and all.
///
/// `oldest_kept` is the first sequence still in the log (head + 1 when it holds none), and `hash_at_cursor` what
/// the log holds at (incarnation, sequence) of the cursor, if anything. Sequences count on over incarnations.
pub fn decide_pull(
    head: &LogHead,
    oldest_kept: Sequence,
    cursor: &LogPosition,
    hash_at_cursor: Option<EntryHash>,
) -> PullDecision {
    decide_pull_planted(Sound, head, oldest_kept, cursor, hash_at_cursor)
}

/// `decide_pull`, with mistakes for a simulation to find.
pub fn decide_pull_planted(
    plant: impl Plant,
    head: &LogHead,
    oldest_kept: Sequence,
    cursor: &LogPosition,
    hash_at_cursor: Option<EntryHash>,
) -> PullDecision {
    let (head, asked) = (head.position, *cursor);
    if plant.has(Planted::CursorNotCompared) {
        let is_behind = asked.sequence < head.sequence;
        return if is_behind { PullDecision::Serve { from: asked.sequence.next() } } else { PullDecision::UpToDate };
    }
    if asked.origin != head.origin {
        return PullDecision::Refuse(PullRefusal::WrongOrigin { origin: head.origin, asked: asked.origin });
    }
    if asked.sequence > head.sequence || asked.incarnation > head.incarnation {
        return PullDecision::Refuse(PullRefusal::BeyondHead { head, asked });
    }
    let here = if asked.sequence == Sequence::ZERO { Some(EntryHash::START) } else { hash_at_cursor };
    match here {
        Some(here) if here != asked.hash => PullDecision::Refuse(PullRefusal::HashMismatch { asked, here }),
        _ if asked.sequence.next() < oldest_kept => PullDecision::NeedsFullSync,
        None if asked.sequence < oldest_kept => PullDecision::NeedsFullSync, // cut away: can't be compared
        None => PullDecision::Refuse(PullRefusal::UnknownPosition { asked }),
        Some(_) if asked.sequence == head.sequence => PullDecision::UpToDate,
        Some(_) => PullDecision::Serve { from: asked.sequence.next() },
    }
}

#[cfg(test)]
mod tests {
    use meridian_types::{Incarnation, Timestamp};

    use super::*;

    const ORIGIN: u8 = 1;

    fn position(incarnation: u32, sequence: u64, hash: u8) -> LogPosition {
        LogPosition {
            origin: DatacenterId::new(ORIGIN).unwrap(),
            incarnation: Incarnation(incarnation),
            sequence: Sequence(sequence),
            hash: EntryHash([hash; 16]),
        }
    }

    fn decide(head: LogPosition, oldest_kept: u64, cursor: LogPosition, here: Option<u8>) -> PullDecision {
        let head = LogHead { position: head, closed: Timestamp::ZERO };
        decide_pull(&head, Sequence(oldest_kept), &cursor, here.map(|hash| EntryHash([hash; 16])))
    }

    #[test]
    fn a_cursor_in_this_history_is_served_from_the_next_entry() {
        let serve = PullDecision::Serve { from: Sequence(8) };
        assert_eq!(decide(position(1, 9, 9), 1, position(1, 7, 7), Some(7)), serve);
        assert_eq!(decide(position(1, 9, 9), 1, position(1, 9, 9), Some(9)), PullDecision::UpToDate);
        assert_eq!(decide(position(2, 9, 9), 1, position(1, 7, 7), Some(7)), serve, "from before an incarnation");
    }

    #[test]
    fn a_new_peer_is_served_from_the_first_entry() {
        let start = LogPosition::start(DatacenterId::new(ORIGIN).unwrap());
        assert_eq!(decide(position(1, 9, 9), 1, start, None), PullDecision::Serve { from: Sequence(1) });
        assert_eq!(decide(start, 1, start, None), PullDecision::UpToDate);
        assert_eq!(decide(position(1, 9, 9), 2, start, None), PullDecision::NeedsFullSync);
        let false_start = LogPosition { hash: EntryHash([1; 16]), ..start };
        assert!(matches!(decide(position(1, 9, 9), 1, false_start, None), PullDecision::Refuse(_)));
    }

    #[test]
    fn a_source_that_went_back_in_time_refuses_what_it_forgot() {
        // Restored to 400 of 500, under a new incarnation that has come to 450 and then to 600.
        let peer = position(1, 500, 50);
        for head in [position(1, 400, 40), position(2, 450, 45)] {
            let decision = decide(head, 1, peer, None);
            assert!(matches!(decision, PullDecision::Refuse(PullRefusal::BeyondHead { .. })), "{decision:?}");
        }
        let decision = decide(position(2, 600, 60), 1, peer, None);
        assert!(matches!(decision, PullDecision::Refuse(PullRefusal::UnknownPosition { .. })), "{decision:?}");
        let decision = decide(position(1, 600, 60), 1, peer, Some(51)); // without a new incarnation
        assert!(matches!(decision, PullDecision::Refuse(PullRefusal::HashMismatch { .. })), "{decision:?}");
        assert_eq!(
            decide(position(2, 450, 45), 1, position(1, 400, 40), Some(40)),
            PullDecision::Serve { from: Sequence(401) },
            "a peer that had not seen the forgotten entries goes on"
        );
        let of_a_later_life = decide(position(1, 600, 60), 1, position(2, 500, 50), None);
        assert!(matches!(of_a_later_life, PullDecision::Refuse(PullRefusal::BeyondHead { .. })));
    }

    #[test]
    fn a_cut_log_serves_only_what_it_can_compare() {
        let head = position(1, 900, 90);
        assert_eq!(decide(head, 500, position(1, 300, 30), None), PullDecision::NeedsFullSync);
        assert_eq!(decide(head, 500, position(1, 499, 49), None), PullDecision::NeedsFullSync);
        assert_eq!(decide(head, 500, position(1, 499, 49), Some(49)), PullDecision::Serve { from: Sequence(500) });
        assert_eq!(decide(head, 500, position(1, 500, 50), Some(50)), PullDecision::Serve { from: Sequence(501) });
    }

    #[test]
    fn another_origins_cursor_and_absurd_numbers_are_refused() {
        let foreign = LogPosition { origin: DatacenterId::new(2).unwrap(), ..position(1, 5, 5) };
        let decision = decide(position(1, 9, 9), 1, foreign, Some(5));
        assert!(matches!(decision, PullDecision::Refuse(PullRefusal::WrongOrigin { .. })));
        let decision = decide(position(1, 9, 9), 1, position(1, u64::MAX, 9), None);
        assert!(matches!(decision, PullDecision::Refuse(PullRefusal::BeyondHead { .. })));
    }
}
