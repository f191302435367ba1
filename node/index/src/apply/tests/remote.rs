//! Batches of other datacenters.

use bytes::Bytes;
use meridian_replicator::{Batch, Cursor, CursorVector, LogEntry};
use meridian_types::{Incarnation, LogPosition, Sequence, Stamp};

use crate::testing::{BUCKET, Group, attempt, body, dc, delete, key, put, put_if, seen, stamp, time};
use crate::{
    Command, Condition, ConflictRow, LostWrite, Mutation, Outcome, ReclaimRow, RemoteOutcome, VersionKind, VersionMode,
    queries,
};

#[test]
fn a_batch_moves_the_cursor_and_keeps_its_entries() {
    let (mut a, mut b) = (Group::new(1), Group::new(2));
    a.propose(put("x", 1));
    a.propose(put("y", 2));
    a.apply(&Command::Close(time(70)));
    let outcome = b.deliver(a.batch(&b.cursor(1), 99));
    let position = queries::log_head(&a.kv, dc(1)).unwrap().position;
    assert_eq!(outcome, RemoteOutcome::Applied(Cursor { position, applied_through: time(70) }));
    assert_eq!((b.cursor(1).position, queries::cursors(&b.kv).unwrap().len()), (position, 1));
    assert_eq!((b.row("x"), b.row("y")), (a.row("x"), a.row("y")));
    assert_eq!(b.rows_of(b'l'), a.rows_of(b'l'), "kept as they came, for relays");
    let state = queries::state(&b.kv).unwrap();
    assert_eq!((state.greatest, state.closed, state.cursors), (time(2), time(0), seen(&[(1, 2)])));
}

#[test]
fn an_empty_batch_moves_only_time() {
    let (mut a, mut b) = (Group::new(1), Group::new(2));
    a.apply(&Command::Close(time(70)));
    b.pull(&a);
    assert_eq!(b.cursor(1), Cursor { position: LogPosition::start(dc(1)), applied_through: time(70) });
    assert!(matches!(b.propose(put("x", 1)), Outcome::Stored { .. }));
    assert_eq!(b.greatest(), time(1), "another's closed timestamp binds the other alone");
}

#[test]
fn a_batch_that_does_not_follow_the_cursor_is_ignored() {
    let (mut a, mut b) = (Group::new(1), Group::new(2));
    let start = b.cursor(1);
    a.propose(put("x", 1));
    let first = a.batch(&start, 99);
    b.deliver(first.clone());
    let (after_first, before) = (b.cursor(1), b.kv.clone());
    assert_eq!(b.deliver(first), RemoteOutcome::Ignored(after_first), "a duplicate");
    a.propose(delete("x"));
    let second = a.batch(&after_first, 99);
    assert_eq!(b.deliver(a.batch(&start, 99)), RemoteOutcome::Ignored(after_first), "an overlap");
    assert_eq!(b.kv, before);
    let mut late = Group::new(3);
    assert_eq!(late.deliver(second), RemoteOutcome::Ignored(start), "a gap");
    assert!(late.kv.rows().is_empty());
}

#[test]
fn a_write_after_a_merge_is_stamped_above_what_was_read() {
    let (mut a, mut b) = (Group::new(1), Group::new(2));
    a.apply(&Command::Close(time(100)));
    a.propose(put("x", 1));
    b.pull(&a);
    let mut proposal = b.proposal(put("x", 2));
    proposal.stamp = stamp(50, 2); // a slow clock
    assert_eq!(b.submit(proposal.clone()), Outcome::Restamp { above: time(101) });
    proposal.stamp = stamp(102, 2);
    b.submit(proposal);
    a.pull(&b);
    assert_eq!(a.object("x").unwrap().body().unwrap(), &body(2));
    for group in [&a, &b] {
        assert!(queries::conflicts(&group.kv, None, 9).unwrap().is_empty(), "an overwrite of what was seen");
    }
}

#[test]
fn concurrent_writes_converge_and_the_loser_is_recorded_and_kept_whole() {
    let (mut a, mut b) = (Group::new(1), Group::new(2));
    a.propose(put("x", 1));
    b.propose(put("x", 2)); // the same timestamp: the tie falls to the greater datacenter
    let (lost, won) = (a.row("x").unwrap(), b.row("x").unwrap());
    a.pull(&b);
    b.pull(&a);
    for group in [&a, &b] {
        assert_eq!(group.row("x").as_ref(), Some(&won));
        let conflict = ConflictRow::Object {
            bucket: BUCKET,
            key: key("x"),
            winner: won.stamp,
            loser: lost.stamp,
            lost: LostWrite::Object { size: 1001, etag: body(1).etag },
        };
        assert_eq!(queries::conflicts(&group.kv, None, 9).unwrap(), [conflict]);
        assert!(queries::conflicts(&group.kv, Some(lost.stamp), 9).unwrap().is_empty());
        let queue = queries::superseded(&group.kv, won.stamp.timestamp, 9).unwrap();
        assert_eq!((queue.len(), queue[0].superseding), (1, won.stamp));
        assert_eq!(queue[0].row, ReclaimRow::Version(lost.clone()));
    }
}

#[test]
fn a_delete_is_not_undone_by_a_late_peer() {
    let (mut a, mut b, mut c) = (Group::new(1), Group::new(2), Group::new(3));
    a.propose(put("x", 1));
    b.pull(&a);
    b.propose(delete("x"));
    c.pull(&b);
    assert_eq!(c.row("x").unwrap().kind, VersionKind::Tombstone);
    c.pull(&a);
    assert_eq!(c.object("x"), None);
    assert!(queries::conflicts(&c.kv, None, 9).unwrap().is_empty(), "the delete knew what it deleted");
    assert_eq!(c.rows_of(b'q').len(), 1, "what lost on arrival is kept whole");
}

#[test]
fn a_lost_delete_is_recorded() {
    let (mut a, mut b) = (Group::new(1), Group::new(2));
    a.propose(delete("x"));
    b.propose(put("x", 2));
    a.pull(&b);
    let conflicts = queries::conflicts(&a.kv, None, 9).unwrap();
    assert!(matches!(conflicts[..], [ConflictRow::Object { lost: LostWrite::Delete, .. }]));
    assert!(a.object("x").is_some());
}

#[test]
fn conditions_and_fences_do_not_hold_a_remote_entry() {
    let (mut a, mut b) = (Group::new(1), Group::new(2));
    b.propose(put("x", 1));
    a.apply(&Command::Close(time(9)));
    a.propose(put_if("x", 2, Condition::Absent));
    b.apply(&Command::Fence { bucket: BUCKET, attempt: attempt(1, 1), raised: true });
    b.pull(&a);
    assert_eq!(b.object("x").unwrap().body().unwrap(), &body(2));
}

#[test]
fn a_log_is_pulled_through_a_relay() {
    let (mut a, mut b, mut c) = (Group::new(1), Group::new(2), Group::new(3));
    a.propose(put("x", 1));
    a.propose(put("x", 2));
    b.pull(&a);
    let outcome = c.deliver(b.batch(&c.cursor(1), 1));
    assert!(matches!(outcome, RemoteOutcome::Applied(cursor) if cursor.applied_through == time(1)));
    c.deliver(b.batch(&c.cursor(1), 99));
    assert_eq!((c.row("x"), c.cursor(1)), (a.row("x"), b.cursor(1)));
    c.pull(&a);
}

fn entry(stamp: Stamp, mutation: Bytes) -> Bytes {
    let (incarnation, sequence, cursors) = (Incarnation(0), Sequence(1), CursorVector::new());
    LogEntry { stamp, incarnation, sequence, cursors, mutation }.encode().into()
}

#[test]
fn a_batch_with_an_entry_that_cannot_be_applied_is_rejected_whole() {
    let object = |mode, kind| Mutation::Object { bucket: BUCKET, key: key("x"), mode, kind }.encode();
    let good = object(VersionMode::Null, VersionKind::Tombstone);
    let mut newer = good.to_vec();
    newer[0] = 9;
    let bucket = |group: &mut Group| {
        let (name, owner) = ("photos".parse().unwrap(), String::new());
        let settings = crate::BucketSettings::default();
        group.propose(crate::Operation::CreateBucket { name, settings, owner });
        let found = queries::log_entries(&group.kv, dc(1), Incarnation(0), Sequence(1), 1, usize::MAX).unwrap();
        LogEntry::decode(&found[0]).unwrap().mutation
    };
    let cases = [
        (entry(stamp(5, 1), newer.into()), "newest known"),
        (entry(stamp(5, 1), Bytes::new()), "empty"),
        (entry(stamp(5, 1), object(VersionMode::Versioned, VersionKind::Tombstone)), "no version"),
        (entry(stamp(5, 1), bucket(&mut Group::catalog(1))), "does not belong"),
        (entry(stamp(5, 3), good.clone()), "stamp of origin 3"),
        (Bytes::from_static(b"no record"), "entry 1"),
    ];
    for (bad, reason) in cases {
        let mut group = Group::new(2);
        let after = LogPosition::start(dc(1));
        let batch = Batch { source: dc(1), after, entries: vec![bad], closed: time(5) };
        match group.deliver(batch) {
            RemoteOutcome::Rejected { cursor, reason: found } => {
                assert_eq!(cursor, Cursor::start(dc(1)));
                assert!(found.contains(reason), "{found:?} does not say {reason:?}");
            }
            other => panic!("{other:?} where {reason:?} is wrong"),
        }
        assert!(group.kv.rows().is_empty());
    }
    let own = Batch { source: dc(1), after: LogPosition::start(dc(2)), entries: Vec::new(), closed: time(5) };
    assert!(matches!(Group::new(2).deliver(own), RemoteOutcome::Rejected { .. }));
}
