//! Tests of `batch`.

use meridian_types::Stamp;
use proptest::prelude::*;

use super::*;
use crate::CursorVector;

const ORIGIN: u8 = 1;

fn dc(id: u8) -> DatacenterId {
    DatacenterId::new(id).unwrap()
}

fn entry(incarnation: u32, sequence: u64, stamp: u64) -> LogEntry {
    LogEntry {
        stamp: Stamp::new(Timestamp::from_raw(stamp), dc(ORIGIN)),
        incarnation: Incarnation(incarnation),
        sequence: Sequence(sequence),
        cursors: CursorVector::new(),
        mutation: Bytes::from(format!("mutation {sequence}")),
    }
}

/// Entries 1..=count of incarnation 1, stamped 10, 20, …
fn entries(count: u64) -> Vec<LogEntry> {
    (1..=count).map(|sequence| entry(1, sequence, sequence * 10)).collect()
}

fn batch(after: LogPosition, entries: &[LogEntry], closed: u64) -> Batch {
    let entries = entries.iter().map(|entry| Bytes::from(entry.encode())).collect();
    Batch { source: dc(ORIGIN), after, entries, closed: Timestamp::from_raw(closed) }
}

fn start() -> Cursor {
    Cursor::start(dc(ORIGIN))
}

/// The cursor behind entries 1..=count.
fn cursor_at(count: u64) -> Cursor {
    check_batch(&start(), &batch(start().position, &entries(count), 0)).unwrap().cursor
}

#[test]
fn a_batch_that_follows_moves_the_cursor_over_all_its_entries() {
    let checked = check_batch(&start(), &batch(start().position, &entries(3), 0)).unwrap();
    assert_eq!(checked.entries.iter().map(|entry| entry.0.clone()).collect::<Vec<_>>(), entries(3));
    let hash = entries(3).iter().fold(EntryHash::START, |hash, entry| hash.chain(&entry.encode()));
    assert_eq!(checked.entries[2].1, hash);
    assert_eq!(checked.cursor.position.hash, hash);
    assert_eq!((checked.cursor.position.incarnation, checked.cursor.position.sequence), (Incarnation(1), Sequence(3)));
    assert_eq!(checked.cursor.applied_through, Timestamp::from_raw(30));
    let next = check_batch(&checked.cursor, &batch(checked.cursor.position, &entries(5)[3..], 99)).unwrap();
    assert_eq!(next.cursor.position.sequence, Sequence(5));
    assert_eq!(next.cursor.applied_through, Timestamp::from_raw(99));
}

#[test]
fn an_empty_batch_moves_only_the_closed_timestamp_and_never_back() {
    let cursor = cursor_at(3);
    let later = check_batch(&cursor, &batch(cursor.position, &[], 500)).unwrap().cursor;
    assert_eq!((later.position, later.applied_through), (cursor.position, Timestamp::from_raw(500)));
    assert_eq!(check_batch(&later, &batch(later.position, &[], 7)).unwrap().cursor, later);
}

#[test]
fn a_late_a_doubled_and_an_early_batch_are_not_next() {
    let cursor = cursor_at(3);
    for count in [0, 2, 4] {
        let after = if count == 0 { start().position } else { cursor_at(count).position };
        let error = check_batch(&cursor, &batch(after, &[entry(1, count + 1, 1000)], 0)).unwrap_err();
        assert!(error.is_not_next(), "after {count}: {error}");
    }
    let other_life = LogPosition { incarnation: Incarnation(2), ..cursor.position };
    assert!(check_batch(&cursor, &batch(other_life, &[], 0)).unwrap_err().is_not_next());
}

#[test]
fn a_batch_of_another_history_is_refused() {
    let cursor = cursor_at(3);
    let after = LogPosition { hash: EntryHash([9; 16]), ..cursor.position };
    let error = check_batch(&cursor, &batch(after, &[entry(1, 4, 40)], 0)).unwrap_err();
    assert!(matches!(error, BatchError::HashMismatch { .. }) && !error.is_not_next(), "{error}");
}

#[test]
fn another_origin_is_refused_in_the_batch_and_in_a_stamp() {
    let foreign = LogPosition { origin: dc(2), ..start().position };
    let error = check_batch(&start(), &batch(foreign, &entries(1), 0)).unwrap_err();
    assert!(matches!(error, BatchError::WrongOrigin { .. }), "{error}");
    let mut smuggled = entries(2);
    smuggled[1].stamp.datacenter = dc(2);
    let error = check_batch(&start(), &batch(start().position, &smuggled, 0)).unwrap_err();
    assert!(matches!(error, BatchError::WrongStampOrigin { sequence: Sequence(2), .. }), "{error}");
}

#[test]
fn a_relay_may_send_what_another_originated() {
    let mut relayed = batch(start().position, &entries(2), 0);
    relayed.source = dc(3);
    assert!(check_batch(&start(), &relayed).is_ok());
}

#[test]
fn a_gap_inside_and_a_swapped_pair_are_refused() {
    let (mut gap, mut swapped) = (entries(4), entries(4));
    gap.remove(1);
    swapped.swap(1, 2);
    for bad in [gap, swapped] {
        let error = check_batch(&start(), &batch(start().position, &bad, 0)).unwrap_err();
        assert!(matches!(error, BatchError::Gap { expected: Sequence(2), found: Sequence(3), .. }), "{error}");
    }
    let error = check_batch(&start(), &batch(start().position, &entries(2)[1..], 0)).unwrap_err();
    assert!(matches!(error, BatchError::Gap { expected: Sequence(1), .. }), "{error}");
}

#[test]
fn stamps_that_do_not_rise_are_refused() {
    for stamp in [10, 9] {
        let bad = [entry(1, 1, 10), entry(1, 2, stamp)];
        let error = check_batch(&start(), &batch(start().position, &bad, 0)).unwrap_err();
        assert!(matches!(error, BatchError::StampNotAbove { sequence: Sequence(2), .. }), "{error}");
    }
}

#[test]
fn a_stamp_at_or_below_the_closed_timestamp_is_refused() {
    let cursor = check_batch(&cursor_at(3), &batch(cursor_at(3).position, &[], 500)).unwrap().cursor;
    for stamp in [499, 500] {
        let error = check_batch(&cursor, &batch(cursor.position, &[entry(1, 4, stamp)], 0)).unwrap_err();
        assert!(matches!(error, BatchError::StampNotAbove { .. }), "{error}");
    }
    assert!(check_batch(&cursor, &batch(cursor.position, &[entry(1, 4, 501)], 0)).is_ok());
}

#[test]
fn a_new_incarnation_goes_on_counting_and_an_old_one_does_not_return() {
    let raised = [entry(1, 1, 10), entry(2, 2, 20)];
    let cursor = check_batch(&start(), &batch(start().position, &raised, 0)).unwrap().cursor;
    assert_eq!(cursor.position.incarnation, Incarnation(2));
    let error = check_batch(&cursor, &batch(cursor.position, &[entry(1, 3, 30)], 0)).unwrap_err();
    assert!(matches!(error, BatchError::IncarnationBack { .. }), "{error}");
}

#[test]
fn a_damaged_entry_stops_the_batch_at_its_place() {
    let mut damaged = batch(start().position, &entries(3), 0);
    let mut bytes = damaged.entries[1].to_vec();
    bytes[5] ^= 1;
    damaged.entries[1] = Bytes::from(bytes);
    let error = check_batch(&start(), &damaged).unwrap_err();
    assert!(matches!(error, BatchError::BadEntry { sequence: Sequence(2), .. }), "{error}");
}

#[test]
fn a_batch_beyond_the_limits_is_refused_but_one_great_entry_passes() {
    let many: Vec<_> = (1..=limits::LOG_BATCH_ENTRIES_MAX as u64 + 1).map(|n| entry(1, n, n)).collect();
    let error = check_batch(&start(), &batch(start().position, &many, 0)).unwrap_err();
    assert!(matches!(error, BatchError::TooLarge { .. }), "{error}");
    assert!(check_batch(&start(), &batch(start().position, &many[1..1], 0)).is_ok());

    let mut great = entry(1, 1, 10);
    great.mutation = Bytes::from(vec![7; limits::MUTATION_SIZE_MAX]);
    assert!(check_batch(&start(), &batch(start().position, &[great.clone()], 0)).is_ok());
    let second = LogEntry { sequence: Sequence(2), stamp: entry(1, 2, 20).stamp, ..great.clone() };
    let error = check_batch(&start(), &batch(start().position, &[great, second], 0)).unwrap_err();
    assert!(matches!(error, BatchError::TooLarge { .. }), "{error}");
}

#[test]
fn a_source_vouches_for_the_closed_timestamp_only_at_its_head() {
    let head = LogHead { position: cursor_at(5).position, closed: Timestamp::from_raw(900) };
    let encoded = |count: usize| entries(5)[..count].iter().map(|entry| Bytes::from(entry.encode())).collect();
    let closed = |count| Batch::new(dc(ORIGIN), start().position, encoded(count), &head).unwrap().closed.raw();
    assert_eq!((closed(5), closed(4), closed(0)), (900, 40, 0));
    let idle = Batch::new(dc(ORIGIN), head.position, vec![], &head).unwrap();
    assert_eq!(idle.closed, head.closed);
    assert!(Batch::new(dc(ORIGIN), start().position, vec![Bytes::from_static(b"damaged")], &head).is_err());
}

#[test]
fn a_batch_and_a_cursor_round_trip_as_bytes() {
    let batch = batch(start().position, &entries(3), 77);
    let bytes = postcard::to_stdvec(&(cursor_at(2), &batch)).unwrap();
    assert_eq!(postcard::from_bytes::<(Cursor, Batch)>(&bytes).unwrap(), (cursor_at(2), batch));
}

proptest! {
    /// However a log is cut into batches, the cursor behind it is the same, and no other order is taken.
    #[test]
    fn the_cursor_does_not_depend_on_how_the_log_was_cut(
        cuts in prop::collection::vec(0u64..20, 0..6),
        wrong in 0u64..20,
    ) {
        let all = entries(20);
        let mut cuts = cuts;
        cuts.push(20);
        cuts.sort_unstable();
        let mut cursor = start();
        for cut in cuts {
            let done = cursor.position.sequence.0;
            if wrong != done {
                let stray = batch(cursor_or_start(wrong).position, &all[wrong as usize..], 0);
                prop_assert!(check_batch(&cursor, &stray).unwrap_err().is_not_next());
            }
            let next = batch(cursor.position, &all[done as usize..cut as usize], 0);
            cursor = check_batch(&cursor, &next).unwrap().cursor;
        }
        prop_assert_eq!(cursor, cursor_at(20));
    }
}

fn cursor_or_start(count: u64) -> Cursor {
    if count == 0 { start() } else { cursor_at(count) }
}
