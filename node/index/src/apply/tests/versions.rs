//! Versions: suspended buckets, removals, annotations and locks.

use meridian_types::Stamp;

use crate::testing::{BUCKET, Group, annotate, body, delete, delete_in, key, put, put_in, remove, stamp, time};
use crate::{
    Change, Command, Condition, Mutation, ObjectVersion, Operation, Outcome, ReclaimRow, RemoteOutcome, Retention,
    RetentionMode, VersionId, VersionKind, VersionMode, Wanted, queries,
};

const ENABLED: VersionMode = VersionMode::Versioned;
const SUSPENDED: VersionMode = VersionMode::Suspended;

fn stored(group: &mut Group, operation: Operation) -> VersionId {
    match group.propose(operation) {
        Outcome::Stored { version, .. } => version,
        other => panic!("{other:?}"),
    }
}

fn etag(group: &Group) -> Option<String> {
    group.object("a").map(|row| row.body().unwrap().etag.clone())
}

fn queued(group: &Group) -> Vec<Stamp> {
    let queue = queries::superseded(&group.kv, time(u64::MAX), 99).unwrap();
    let stamp = |row| match row {
        ReclaimRow::Version(version) => version.stamp,
        ReclaimRow::Part { .. } => panic!(),
    };
    queue.into_iter().map(|found| stamp(found.row)).collect()
}

#[test]
fn a_suspended_bucket_writes_and_deletes_its_null_version() {
    let mut group = Group::new(1);
    let kept = stored(&mut group, put_in(ENABLED, "a", 1));
    assert_eq!(stored(&mut group, put_in(SUSPENDED, "a", 2)), VersionId::Null);
    assert_eq!(etag(&group), Some(body(2).etag));
    let outcome = group.propose(delete_in(SUSPENDED, "a"));
    assert!(
        matches!(outcome, Outcome::Deleted { existed: true, version: Some(VersionId::Null), marker: true, .. }),
        "{outcome:?}"
    );
    assert_eq!((etag(&group), group.row("a").unwrap().kind), (None, VersionKind::DeleteMarker));
    assert_eq!(group.rows_of(b'o').len(), 2, "the marker took the null version's place");
    assert_eq!(queued(&group).len(), 1);
    let outcome = group.propose(remove("a", VersionId::Null));
    assert!(matches!(outcome, Outcome::Deleted { existed: false, marker: true, .. }), "{outcome:?}");
    assert_eq!(group.object("a").unwrap().version, kept, "a removed marker shows what lay under it");
}

#[test]
fn a_removed_version_is_gone_for_good_and_its_bytes_are_queued() {
    let mut group = Group::new(1);
    let first = stored(&mut group, put_in(ENABLED, "a", 1));
    let second = stored(&mut group, put_in(ENABLED, "a", 2));
    let outcome = group.propose(remove("a", second));
    assert!(
        matches!(outcome, Outcome::Deleted { existed: true, marker: false, version, .. } if version == Some(second))
    );
    assert_eq!(etag(&group), Some(body(1).etag));
    assert_eq!(queries::object_version(&group.kv, BUCKET, &key("a"), second).unwrap(), None);
    assert_eq!(queued(&group), [second.stamp().unwrap()]);
    group.propose(remove("a", first));
    assert_eq!(group.object("a"), None);
    assert!(queries::bucket_is_empty(&group.kv, BUCKET).unwrap());
    let rows = group.rows_of(b'o').len();
    assert!(matches!(group.propose(remove("a", first)), Outcome::Deleted { existed: false, .. }), "again");
    let future = VersionId::Stamp(stamp(u64::MAX - 1, 2));
    assert!(matches!(group.propose(remove("a", future)), Outcome::Deleted { existed: false, .. }));
    assert_eq!(group.rows_of(b'o').len(), rows, "what can't be there leaves nothing");
}

#[test]
fn an_unversioned_bucket_keeps_nothing_of_a_removal_that_names_a_version() {
    let mut group = Group::new(1);
    group.propose(put("a", 1));
    group.propose(remove("a", VersionId::Stamp(stamp(1, 1))));
    assert_eq!((etag(&group), group.rows_of(b'o').len(), group.rows_of(b'v').len()), (Some(body(1).etag), 1, 0));
    group.propose(remove("a", VersionId::Null));
    assert_eq!(group.row("a").unwrap().kind, VersionKind::Tombstone);
}

#[test]
fn a_removal_that_arrives_before_its_version_keeps_it_away() {
    let (mut a, mut b, mut c) = (Group::new(1), Group::new(2), Group::new(3));
    c.propose(put_in(ENABLED, "other", 9));
    let version = stored(&mut a, put_in(ENABLED, "a", 1));
    b.pull(&a);
    b.propose(remove("a", version));
    c.pull(&b);
    c.pull(&a);
    a.pull(&b);
    for group in [&a, &b, &c] {
        let row = queries::version_row(&group.kv, BUCKET, &key("a"), version).unwrap();
        assert_eq!((group.object("a"), row.map(|row| row.kind)), (None, Some(VersionKind::Tombstone)));
        assert_eq!(queued(group), [version.stamp().unwrap()]);
        assert!(group.rows_of(b'k').is_empty(), "no write was lost");
    }
}

#[test]
fn conditional_deletes_look_at_their_version_and_succeed_where_nothing_is() {
    let mut group = Group::new(1);
    let version = stored(&mut group, put_in(ENABLED, "a", 1));
    let with = |condition| Operation::Delete { bucket: BUCKET, key: key("a"), mode: ENABLED, condition };
    let of_version = |condition| Operation::DeleteVersion {
        bucket: BUCKET,
        key: key("a"),
        version,
        condition,
        bypass_governance: false,
    };
    let size = |size| Condition::Matches(Wanted { size: Some(size), ..Wanted::default() });
    let etag = |number| Condition::Etag(body(number).etag);
    assert_eq!(group.propose(with(etag(2))), Outcome::PreconditionFailed);
    assert_eq!(group.propose(with(size(5))), Outcome::PreconditionFailed);
    assert_eq!(group.propose(of_version(etag(2))), Outcome::PreconditionFailed);
    assert!(matches!(group.propose(with(size(1001))), Outcome::Deleted { existed: true, marker: true, .. }));
    let rows = group.rows_of(b'o').len();
    assert!(matches!(group.propose(with(etag(2))), Outcome::Deleted { existed: false, version: None, .. }));
    assert_eq!(group.rows_of(b'o').len(), rows);
    assert!(matches!(group.propose(of_version(etag(1))), Outcome::Deleted { existed: true, .. }));
}

#[test]
fn annotations_change_one_version_and_nothing_of_its_bytes() {
    let mut group = Group::new(1);
    let tags = |text: &str| Change::Tags(vec![(text.to_owned(), String::new())]);
    assert_eq!(group.propose(annotate("a", None, tags("x"))), Outcome::NoSuchVersion);
    let first = stored(&mut group, put_in(ENABLED, "a", 1));
    let second = stored(&mut group, put_in(ENABLED, "a", 2));
    assert_eq!(group.propose(annotate("a", None, tags("x"))), Outcome::Annotated { version: second });
    assert_eq!(group.propose(annotate("a", Some(first), tags("y"))), Outcome::Annotated { version: first });
    let read = |version| {
        let row = queries::object_version(&group.kv, BUCKET, &key("a"), version).unwrap().unwrap();
        (row.stamp, row.body().unwrap().attributes_now().tags[0].0.clone(), row.body().unwrap().chunks.clone())
    };
    assert_eq!(read(second), (second.stamp().unwrap(), "x".to_owned(), body(2).chunks));
    assert_eq!(read(first), (first.stamp().unwrap(), "y".to_owned(), body(1).chunks));
    assert!(queued(&group).is_empty(), "its bytes have not been superseded");
    group.propose(delete_in(ENABLED, "a"));
    assert_eq!(group.propose(annotate("a", None, tags("z"))), Outcome::NoSuchVersion, "a delete marker");
}

#[test]
fn tags_set_in_one_datacenter_do_not_undo_a_write_in_another() {
    let (mut a, mut b) = (Group::new(1), Group::new(2));
    a.propose(put("a", 1));
    b.pull(&a);
    let write = stored(&mut b, put("a", 2));
    for _ in 0..9 {
        a.apply(&Command::Close(a.greatest().next())); // so that the tags have the greater stamp
    }
    a.propose(annotate("a", None, Change::Tags(vec![("k".to_owned(), "v".to_owned())])));
    a.pull(&b);
    b.pull(&a);
    assert_eq!(write, VersionId::Null);
    for group in [&a, &b] {
        let row = group.object("a").unwrap();
        assert_eq!(row.body().unwrap().etag, body(2).etag, "the later write stays");
        assert!(row.body().unwrap().attributes_now().tags.is_empty(), "the tags were those of the write that lost");
    }
}

fn lock(mode: RetentionMode, until_unix_ms: u64) -> Change {
    Change::Retention(Some(Retention { mode, until_unix_ms }))
}

/// Milliseconds since 1970 at a timestamp's raw value.
fn unix_ms(raw: u64) -> u64 {
    time(raw).unix_ms()
}

#[test]
fn a_lock_holds_a_version_until_its_time_and_a_delete_marker_may_still_hide_it() {
    let mut group = Group::new(1);
    let version = stored(&mut group, put_in(ENABLED, "a", 1));
    let hour = 3_600_000;
    group.propose(annotate("a", None, lock(RetentionMode::Governance, unix_ms(0) + hour)));
    assert_eq!(group.propose(remove("a", version)), Outcome::Locked);
    assert_eq!(group.propose(annotate("a", None, Change::Retention(None))), Outcome::Locked);
    assert!(matches!(group.propose(delete_in(ENABLED, "a")), Outcome::Deleted { marker: true, .. }));
    group.propose(annotate("a", Some(version), Change::LegalHold(true)));
    let bypass = Operation::DeleteVersion {
        bucket: BUCKET,
        key: key("a"),
        version,
        condition: Condition::None,
        bypass_governance: true,
    };
    assert_eq!(group.propose(bypass.clone()), Outcome::Locked, "a legal hold");
    group.propose(annotate("a", Some(version), Change::LegalHold(false)));
    group.propose(annotate("a", Some(version), lock(RetentionMode::Governance, unix_ms(0) + 2 * hour)));
    let after = meridian_types::Timestamp::from_unix_ms(unix_ms(0) + 3 * hour);
    let mut later = group.clone();
    later.apply(&Command::Close(after));
    assert!(matches!(later.propose(remove("a", version)), Outcome::Deleted { existed: true, .. }), "it has passed");
    assert!(matches!(group.propose(bypass), Outcome::Deleted { existed: true, .. }), "a bypass");
}

#[test]
fn compliance_is_not_shortened_by_anyone_nor_by_a_merge() {
    let (mut a, mut b) = (Group::new(1), Group::new(2));
    let mut compliant = body(1);
    let (mode, until_unix_ms) = (RetentionMode::Compliance, unix_ms(0) + 1000);
    compliant.attributes.retention = Some(Retention { mode, until_unix_ms });
    let put =
        Operation::Put { bucket: BUCKET, key: key("a"), mode: ENABLED, body: compliant, condition: Condition::None };
    let version = stored(&mut a, put);
    b.pull(&a);
    let annotated = |until| annotate("a", None, lock(mode, until));
    assert_eq!(a.propose(annotated(until_unix_ms - 1)), Outcome::Locked);
    a.propose(annotated(until_unix_ms + 500));
    b.propose(annotated(until_unix_ms + 1));
    b.propose(annotated(until_unix_ms + 2));
    a.pull(&b);
    b.pull(&a);
    for group in [&mut a, &mut b] {
        let retention = group.object("a").unwrap().body().unwrap().attributes_now().retention;
        assert_eq!(retention, Some(Retention { mode, until_unix_ms: until_unix_ms + 500 }));
        assert_eq!(group.propose(remove("a", version)), Outcome::Locked);
    }
}

#[test]
fn a_batch_that_changes_what_is_no_older_object_is_rejected() {
    let mut source = Group::new(2);
    source.propose(put_in(ENABLED, "a", 1));
    let row = source.object("a").unwrap();
    let entry_stamp = row.stamp;
    let refused = |mutation: Mutation| {
        let (mut source, mut group) = (Group::new(2), Group::new(1));
        source.propose(delete("first"));
        let mut batch = source.batch(&group.cursor(2), 9);
        let mut entry = meridian_replicator::LogEntry::decode(&batch.entries[0]).unwrap();
        (entry.stamp, entry.mutation) = (entry_stamp, mutation.encode());
        batch.entries[0] = entry.encode().into();
        match group.deliver(batch) {
            RemoteOutcome::Rejected { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    };
    let annotated = |row: ObjectVersion| Mutation::Annotated { bucket: BUCKET, key: key("a"), row: Box::new(row) };
    assert!(refused(annotated(row.clone())).contains("no older object"));
    let older = Stamp { timestamp: meridian_types::Timestamp::ZERO, ..entry_stamp };
    let marker = ObjectVersion { stamp: older, kind: VersionKind::DeleteMarker, ..row.clone() };
    assert!(refused(annotated(marker)).contains("no older object"));
    assert!(refused(annotated(ObjectVersion { stamp: older, ..row })).contains("differ"));
    let removed = Mutation::Removed { bucket: BUCKET, key: key("a"), version: entry_stamp };
    assert!(refused(removed).contains("not older"));
}

#[test]
fn a_change_that_names_a_write_spares_every_other() {
    let mut group = Group::new(1);
    let only = |stamp| Condition::Matches(Wanted::stamped(stamp));
    let expire = |mode, stamp| Operation::Delete { bucket: BUCKET, key: key("a"), mode, condition: only(stamp) };
    let removal = |version, stamp| Operation::DeleteVersion {
        bucket: BUCKET,
        key: key("a"),
        version,
        condition: only(stamp),
        bypass_governance: false,
    };
    group.propose(put("a", 1));
    let seen = group.row("a").unwrap().stamp;
    group.propose(put("a", 2));
    assert_eq!(group.propose(expire(VersionMode::Null, seen)), Outcome::PreconditionFailed);
    let seen = group.row("a").unwrap().stamp;
    assert!(matches!(group.propose(expire(SUSPENDED, seen)), Outcome::Deleted { existed: true, marker: true, .. }));
    // The null version is a marker now, which can be named as well.
    let marker = group.row("a").unwrap().stamp;
    assert_eq!(group.propose(removal(VersionId::Null, seen)), Outcome::PreconditionFailed);
    assert!(matches!(group.propose(removal(VersionId::Null, marker)), Outcome::Deleted { marker: true, .. }));
    assert_eq!(group.object("a"), None);
}
