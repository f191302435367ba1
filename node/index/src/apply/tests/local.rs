//! Local puts and deletes: stamps, retries, conditions, fences, closing, the log.

use meridian_replicator::LogEntry;
use meridian_types::{BucketId, EntryHash, Incarnation, RequestId, Sequence, Stamp};

use crate::kv::{KvRead, WriteSet};
use crate::machine::{CONFLICTS_KEPT_MAX, REQUESTS_REMEMBERED_MAX};
use crate::rows::Row;
use crate::testing::{
    BUCKET, Group, attempt, body, chunk, dc, delete, key, place, put, put_if, request, seen, stamp, time,
};
use crate::{
    Command, Condition, Mutation, Operation, Outcome, Proposal, ReclaimRow, Response, VersionId, VersionKind,
    VersionMode, keys, queries,
};

fn proposal(number: u64, stamp: Stamp, operation: Operation) -> Proposal {
    Proposal { request: request(number), stamp, operation }
}

fn deleted(stamp: Stamp, existed: bool) -> Outcome {
    Outcome::Deleted { stamp, existed, version: None, marker: false }
}

#[test]
fn a_put_is_read_back_and_stands_in_the_log() {
    let mut group = Group::new(1);
    let stored = Outcome::Stored { stamp: stamp(1, 1), version: VersionId::Null, replaced: false };
    assert_eq!(group.propose(put("a", 1)), stored);
    let row = group.object("a").unwrap();
    assert_eq!((row.body().unwrap(), row.origin, &row.cursors), (&body(1), place(1), &seen(&[])));

    let head = queries::log_head(&group.kv, dc(1)).unwrap();
    let entries = queries::log_entries(&group.kv, dc(1), Incarnation(0), Sequence(1), 9, 1).unwrap();
    assert_eq!((entries.len(), head.position.sequence, head.closed), (1, Sequence(1), time(1)));
    assert_eq!(head.position.hash, EntryHash::START.chain(&entries[0]));
    let hash = queries::entry_hash_at(&group.kv, dc(1), Incarnation(0), Sequence(1)).unwrap();
    assert_eq!(hash, Some(head.position.hash));
    let entry = LogEntry::decode(&entries[0]).unwrap();
    assert_eq!((entry.stamp, entry.sequence), (stamp(1, 1), Sequence(1)));
    let Mutation::Object { key: stored_key, kind, .. } = Mutation::decode(&entry.mutation).unwrap() else { panic!() };
    assert_eq!((stored_key, kind), (key("a"), VersionKind::Object(body(1))));
}

#[test]
fn an_overwrite_and_a_delete_keep_the_superseded_row_whole() {
    let mut group = Group::new(1);
    group.propose(put("a", 1));
    let first = group.row("a").unwrap();
    assert!(matches!(group.propose(put("a", 2)), Outcome::Stored { replaced: true, .. }));
    let second = group.row("a").unwrap();
    assert_eq!(group.propose(delete("a")), deleted(stamp(3, 1), true));
    assert_eq!(group.object("a"), None);
    assert_eq!(group.row("a").unwrap().kind, VersionKind::Tombstone);
    assert_eq!(group.propose(delete("a")), deleted(stamp(4, 1), false));
    assert_eq!(group.propose(delete("never")), deleted(stamp(5, 1), false));

    let queue = queries::superseded(&group.kv, time(9), 9).unwrap();
    let queued: Vec<_> = queue.into_iter().map(|found| (found.superseding, found.key, found.row)).collect();
    let wanted = [(stamp(2, 1), first), (stamp(3, 1), second)];
    assert_eq!(queued, wanted.map(|(superseding, row)| (superseding, key("a"), ReclaimRow::Version(row))));
    assert_eq!(queries::superseded(&group.kv, time(2), 9).unwrap().len(), 1);
    assert!(queries::conflicts(&group.kv, None, 9).unwrap().is_empty());
}

#[test]
fn a_request_that_is_retried_is_applied_once() {
    let mut group = Group::new(1);
    let first = proposal(1, stamp(1, 1), put("a", 1));
    let outcome = group.submit(first.clone());
    group.submit(proposal(2, stamp(2, 1), put("a", 2)));
    let before = group.kv.clone();
    assert_eq!(group.submit(first.clone()), outcome);
    assert_eq!(group.submit(Proposal { stamp: stamp(9, 1), ..first }), outcome); // restamped for the retry
    assert_eq!(group.kv, before, "a retry changed something");
    assert_eq!(group.object("a").unwrap().body().unwrap().etag, body(2).etag);
}

#[test]
fn a_refusal_is_remembered_like_any_outcome() {
    let mut group = Group::new(1);
    group.submit(proposal(1, stamp(1, 1), put("a", 1)));
    let refused = proposal(2, stamp(2, 1), put_if("a", 2, Condition::Absent));
    assert_eq!(group.submit(refused.clone()), Outcome::PreconditionFailed);
    group.submit(proposal(3, stamp(3, 1), delete("a")));
    assert_eq!(group.submit(Proposal { stamp: stamp(4, 1), ..refused }), Outcome::PreconditionFailed);
    assert_eq!(group.object("a"), None);
}

#[test]
fn a_stale_stamp_changes_nothing_and_is_restamped() {
    let mut group = Group::new(1);
    group.submit(proposal(1, stamp(11, 1), put("a", 1)));
    let before = group.kv.clone();
    let stale = proposal(2, stamp(10, 1), put("a", 2));
    assert_eq!(group.submit(stale.clone()), Outcome::Restamp { above: time(11) });
    assert_eq!(group.submit(Proposal { stamp: stamp(11, 1), ..stale.clone() }), Outcome::Restamp { above: time(11) });
    assert_eq!(group.kv, before);
    assert!(matches!(group.submit(Proposal { stamp: stamp(12, 1), ..stale }), Outcome::Stored { .. }));
}

#[test]
fn nothing_is_stamped_at_or_below_a_closed_timestamp() {
    let mut group = Group::new(1);
    assert_eq!(group.apply(&Command::Close(time(50))), Response::Closed(time(50)));
    assert_eq!(group.apply(&Command::Close(time(40))), Response::Closed(time(50)));
    assert_eq!(queries::log_head(&group.kv, dc(1)).unwrap().closed, time(50));
    assert_eq!(group.submit(proposal(1, stamp(50, 1), put("a", 1))), Outcome::Restamp { above: time(50) });
    assert!(matches!(group.submit(proposal(1, stamp(51, 1), put("a", 1))), Outcome::Stored { .. }));
}

#[test]
fn one_command_answers_each_of_its_proposals() {
    let mut group = Group::new(1);
    let proposals = vec![
        proposal(1, stamp(5, 1), put("a", 1)),
        proposal(2, stamp(4, 1), put("b", 2)),
        proposal(3, stamp(6, 1), put_if("a", 3, Condition::Absent)),
        proposal(1, stamp(7, 1), put("a", 4)),
    ];
    let stored = Outcome::Stored { stamp: stamp(5, 1), version: VersionId::Null, replaced: false };
    let wanted = vec![stored.clone(), Outcome::Restamp { above: time(5) }, Outcome::PreconditionFailed, stored];
    assert_eq!(group.apply(&Command::Local(proposals)), Response::Local(wanted));
}

#[test]
fn conditions_are_checked_against_the_current_object() {
    let mut group = Group::new(1);
    let etag = |number| Condition::Etag(body(number).etag);
    assert_eq!(group.propose(put_if("a", 1, etag(1))), Outcome::PreconditionFailed);
    assert_eq!(group.propose(put_if("a", 1, Condition::Etag("*".to_owned()))), Outcome::PreconditionFailed);
    assert!(matches!(group.propose(put_if("a", 1, Condition::Absent)), Outcome::Stored { .. }));
    assert_eq!(group.propose(put_if("a", 2, Condition::Absent)), Outcome::PreconditionFailed);
    assert!(matches!(group.propose(put_if("a", 2, etag(1))), Outcome::Stored { .. }));
    assert_eq!(group.propose(put_if("a", 3, etag(1))), Outcome::PreconditionFailed);
    assert!(matches!(group.propose(put_if("a", 4, Condition::Etag("*".to_owned()))), Outcome::Stored { .. }));
    let remove = |condition| Operation::Delete { bucket: BUCKET, key: key("a"), mode: VersionMode::Null, condition };
    assert_eq!(group.propose(remove(etag(3))), Outcome::PreconditionFailed);
    assert!(matches!(group.propose(remove(etag(4))), Outcome::Deleted { existed: true, .. }));
    assert!(matches!(group.propose(put_if("a", 5, Condition::Absent)), Outcome::Stored { replaced: false, .. }));
}

#[test]
fn versions_stay_and_the_greatest_stamp_is_current() {
    let mut group = Group::new(1);
    let versioned = |number| Operation::Put {
        bucket: BUCKET,
        key: key("a"),
        mode: VersionMode::Versioned,
        body: body(number),
        condition: Condition::None,
    };
    let etag = |group: &Group| group.object("a").map(|version| version.body().unwrap().etag.clone());
    group.propose(put("a", 1));
    assert!(matches!(
        group.propose(versioned(2)),
        Outcome::Stored { version: VersionId::Stamp(_), replaced: true, .. }
    ));
    group.propose(versioned(3));
    assert_eq!(etag(&group), Some(body(3).etag));
    let (mode, condition) = (VersionMode::Versioned, Condition::None);
    group.propose(Operation::Delete { bucket: BUCKET, key: key("a"), mode, condition });
    assert_eq!((etag(&group), group.row("a").unwrap().kind), (None, VersionKind::DeleteMarker));
    assert!(matches!(group.propose(put_if("a", 4, Condition::Absent)), Outcome::Stored { replaced: false, .. }));
    assert_eq!(etag(&group), Some(body(4).etag));
    assert_eq!(group.rows_of(b'o').len(), 4, "the null version and three others");
    assert_eq!(group.rows_of(b'q').len(), 1, "only the null version was superseded");
}

#[test]
fn a_fenced_bucket_refuses_mutations_until_the_fence_is_lifted() {
    let mut group = Group::new(1);
    group.propose(put("a", 1));
    let fence = |raised| Command::Fence { bucket: BUCKET, attempt: attempt(1, 1), raised };
    for _ in 0..2 {
        assert_eq!(group.apply(&fence(true)), Response::Done);
    }
    assert!(queries::is_fenced(&group.kv, BUCKET).unwrap());
    assert_eq!(group.propose(put("a", 2)), Outcome::Fenced);
    assert_eq!(group.propose(delete("a")), Outcome::Fenced);
    let (bucket, mode) = (BucketId([1; 16]), VersionMode::Null);
    let elsewhere = Operation::Put { bucket, key: key("a"), mode, body: body(1), condition: Condition::None };
    assert!(matches!(group.propose(elsewhere), Outcome::Stored { .. }));
    for _ in 0..2 {
        group.apply(&fence(false));
    }
    assert_eq!(queries::state(&group.kv).unwrap().fences, 0);
    assert!(matches!(group.propose(delete("a")), Outcome::Deleted { existed: true, .. }));
}

#[test]
fn a_bucket_is_empty_when_only_tombstones_are_left() {
    let mut group = Group::new(1);
    assert!(queries::bucket_is_empty(&group.kv, BUCKET).unwrap());
    group.propose(put("a", 1));
    group.propose(put("b", 1));
    group.propose(delete("a"));
    assert!(!queries::bucket_is_empty(&group.kv, BUCKET).unwrap());
    group.propose(delete("b"));
    assert!(queries::bucket_is_empty(&group.kv, BUCKET).unwrap());
}

#[test]
fn a_misdirected_proposal_is_refused() {
    let mut group = Group::new(1);
    assert_eq!(group.submit(proposal(1, stamp(1, 2), put("a", 1))), Outcome::Misdirected);
    assert_eq!(Group::catalog(1).propose(put("a", 1)), Outcome::Misdirected);
    let (name, owner) = ("photos".parse().unwrap(), String::new());
    let settings = crate::BucketSettings::default();
    assert_eq!(group.propose(Operation::CreateBucket { name, settings, owner }), Outcome::Misdirected);
    assert!(group.kv.rows().is_empty());
}

#[test]
fn an_object_of_too_many_chunks_is_refused_and_leaves_nothing() {
    let mut group = Group::new(1);
    let mut large = body(1);
    large.chunks = vec![chunk(1, 1); meridian_types::limits::CHUNKS_IN_ROW_MAX + 1];
    let (mode, condition) = (VersionMode::Null, Condition::None);
    let outcome = group.propose(Operation::Put { bucket: BUCKET, key: key("a"), mode, body: large, condition });
    assert_eq!(outcome, Outcome::TooLarge);
    assert_eq!((group.row("a"), group.rows_of(b'l').len()), (None, 0));
}

#[test]
fn a_raised_incarnation_goes_on_counting_and_chaining() {
    let mut group = Group::new(1);
    group.propose(put("a", 1));
    let before = queries::log_head(&group.kv, dc(1)).unwrap();
    group.apply(&Command::RaiseIncarnation { to: Incarnation(3) });
    group.apply(&Command::RaiseIncarnation { to: Incarnation(2) });
    assert_eq!(queries::log_head(&group.kv, dc(1)).unwrap(), before, "no entry yet");
    group.propose(put("a", 2));
    let position = queries::log_head(&group.kv, dc(1)).unwrap().position;
    assert_eq!((position.incarnation, position.sequence), (Incarnation(3), Sequence(2)));
    let entries = queries::log_entries(&group.kv, dc(1), Incarnation(0), Sequence(2), 9, usize::MAX).unwrap();
    assert_eq!(entries.len(), 1, "a cursor of the old incarnation finds the new one's entries");
    assert_eq!(position.hash, before.position.hash.chain(&entries[0]));
    let mut peer = Group::new(2);
    peer.pull(&group);
    assert_eq!(peer.cursor(1).position, position);
}

#[test]
fn log_entries_keep_to_their_limits_but_give_at_least_one() {
    let mut group = Group::new(1);
    for number in 0..10 {
        group.propose(put("a", number));
    }
    let found = |from, entries, bytes| {
        queries::log_entries(&group.kv, dc(1), Incarnation(0), Sequence(from), entries, bytes).unwrap()
    };
    let all = found(1, 99, usize::MAX);
    assert_eq!((all.len(), found(4, 3, usize::MAX)), (10, all[3..6].to_vec()));
    assert_eq!(found(1, 99, all[0].len() + all[1].len()), all[..2].to_vec());
    assert_eq!(found(10, 99, 0), all[9..].to_vec());
    assert!(found(11, 99, usize::MAX).is_empty());
    assert_eq!(queries::oldest_kept(&group.kv, dc(1)).unwrap(), Sequence(1));
}

#[test]
fn the_memory_of_requests_is_bounded() {
    let mut group = Group::new(1);
    let first = proposal(1, stamp(1, 1), put("a", 1));
    group.submit(first.clone());
    let mut state = queries::state(&group.kv).unwrap();
    state.requests = REQUESTS_REMEMBERED_MAX; // as if the ring had gone round once
    group.kv.apply(WriteSet::from([(keys::STATE.to_vec(), Some(state.to_record().into()))]));
    assert_eq!(
        group.submit(first.clone()),
        Outcome::Stored { stamp: stamp(1, 1), version: VersionId::Null, replaced: false }
    );
    let last = RequestId([9; 16]);
    group.submit(Proposal { request: last, stamp: stamp(2, 1), operation: put("b", 1) });
    assert_eq!(group.kv.get(&keys::request(first.request)).unwrap(), None, "the oldest is forgotten");
    assert!(group.kv.get(&keys::request(last)).unwrap().is_some());
    assert_eq!((group.rows_of(b'i').len(), group.rows_of(b'j').len()), (1, 1));
}

#[test]
fn conflict_rows_are_bounded() {
    let (mut a, mut b) = (Group::new(1), Group::new(2));
    for text in ["x", "y"] {
        a.propose(put(text, 1));
        b.propose(put(text, 2));
    }
    let mut state = queries::state(&a.kv).unwrap();
    state.conflicts = CONFLICTS_KEPT_MAX - 1; // all but one are taken, and none is there to be dropped but the first
    a.kv.apply(WriteSet::from([(keys::STATE.to_vec(), Some(state.to_record().into()))]));
    a.pull(&b);
    let kept = queries::conflicts(&a.kv, None, 9).unwrap();
    assert_eq!(kept.iter().map(crate::ConflictRow::loser).collect::<Vec<_>>(), [stamp(2, 1)]);
    assert_eq!(queries::state(&a.kv).unwrap().conflicts, CONFLICTS_KEPT_MAX);
}
