//! Buckets and users.

use meridian_types::{BucketId, BucketName};

use crate::testing::{Group, stamp};
use crate::{
    BucketSettings, BucketState, ConflictRow, DocumentKind, Operation, Outcome, SettingChange, SettingName, Versioning,
    queries,
};

fn name() -> BucketName {
    "photos".parse().unwrap()
}

fn create_as(owner: &str, versioning: Versioning) -> Operation {
    let settings = BucketSettings { versioning, ..BucketSettings::default() };
    Operation::CreateBucket { name: name(), settings, owner: owner.to_owned() }
}

fn create() -> Operation {
    create_as("alice", Versioning::Off)
}

fn id(deletions: u32) -> BucketId {
    BucketId::derive(&name(), deletions)
}

#[test]
fn a_bucket_is_created_once_and_found_by_name_and_id() {
    let mut catalog = Group::catalog(1);
    assert_eq!(catalog.propose(create()), Outcome::BucketCreated { bucket: id(0), existed: false });
    assert_eq!(catalog.propose(create()), Outcome::BucketCreated { bucket: id(0), existed: true });
    assert_eq!(catalog.rows_of(b'l').len(), 1);
    let row = queries::bucket(&catalog.kv, &name()).unwrap().unwrap();
    assert_eq!((row.id, row.owner.as_str(), row.created, row.deletions), (id(0), "alice", stamp(1, 1), 0));
    assert_eq!(queries::bucket_by_id(&catalog.kv, id(0)).unwrap(), Some(row.clone()));
    assert_eq!(queries::buckets(&catalog.kv).unwrap(), [row]);
    assert_eq!(queries::bucket_by_id(&catalog.kv, id(1)).unwrap(), None);
}

#[test]
fn a_deleted_bucket_keeps_its_row_and_the_next_one_gets_a_new_id() {
    let mut catalog = Group::catalog(1);
    let delete = |bucket| Operation::DeleteBucket { name: name(), bucket };
    assert_eq!(catalog.propose(delete(id(0))), Outcome::NoSuchBucket);
    catalog.propose(create());
    assert_eq!(catalog.propose(delete(id(1))), Outcome::BucketGone);
    assert_eq!(catalog.propose(delete(id(0))), Outcome::BucketDeleted);
    assert_eq!(catalog.propose(delete(id(0))), Outcome::BucketGone);
    let row = queries::bucket(&catalog.kv, &name()).unwrap().unwrap();
    assert_eq!((row.state, row.deletions, row.id), (BucketState::Deleted, 1, id(0)));
    assert!(queries::buckets(&catalog.kv).unwrap().is_empty());
    let settings = BucketSettings::default();
    assert_eq!(catalog.propose(Operation::UpdateBucket { bucket: id(0), settings }), Outcome::BucketGone);

    assert_eq!(catalog.propose(create()), Outcome::BucketCreated { bucket: id(1), existed: false });
    assert_eq!(catalog.propose(delete(id(0))), Outcome::BucketGone);
    assert_eq!(queries::bucket_by_id(&catalog.kv, id(0)).unwrap(), None, "the name has a later bucket");
    assert!(queries::bucket_by_id(&catalog.kv, id(1)).unwrap().is_some_and(|row| row.is_active()));

    let mut peer = Group::catalog(2);
    peer.pull(&catalog);
    assert_eq!(queries::bucket(&peer.kv, &name()).unwrap(), queries::bucket(&catalog.kv, &name()).unwrap());
}

#[test]
fn concurrent_creates_of_one_name_become_one_bucket_and_lost_settings_are_recorded() {
    let (mut a, mut b) = (Group::catalog(1), Group::catalog(2));
    a.propose(create_as("alice", Versioning::Enabled));
    b.propose(create_as("bob", Versioning::Suspended));
    a.pull(&b);
    b.pull(&a);
    for catalog in [&a, &b] {
        let row = queries::bucket(&catalog.kv, &name()).unwrap().unwrap();
        assert_eq!((row.id, row.owner.as_str()), (id(0), "alice"), "the first creator owns it");
        assert_eq!((row.settings.versioning, row.updated), (Versioning::Suspended, stamp(1, 2)));
        let conflicts = queries::conflicts(&catalog.kv, None, 9).unwrap();
        let lost: Vec<_> = conflicts
            .iter()
            .map(|conflict| match conflict {
                ConflictRow::Bucket { winner, lost, .. } => (conflict.loser(), *winner, lost.owner.clone()),
                ConflictRow::Setting { winner, setting, .. } => (conflict.loser(), *winner, setting.to_string()),
                ConflictRow::Object { .. } => panic!("{conflict:?}"),
            })
            .collect();
        let expected = [(stamp(1, 1), stamp(1, 2), "versioning"), (stamp(1, 2), stamp(1, 1), "bob")];
        assert_eq!(lost, expected.map(|(loser, winner, what)| (loser, winner, what.to_owned())));
    }
    assert_eq!(queries::bucket(&a.kv, &name()).unwrap(), queries::bucket(&b.kv, &name()).unwrap());
}

#[test]
fn equal_concurrent_creates_are_no_conflict() {
    let (mut a, mut b) = (Group::catalog(1), Group::catalog(2));
    a.propose(create());
    b.propose(create());
    a.pull(&b);
    assert!(queries::conflicts(&a.kv, None, 9).unwrap().is_empty());
}

#[test]
fn settings_change_and_replicate() {
    let (mut a, mut b) = (Group::catalog(1), Group::catalog(2));
    a.propose(create());
    b.pull(&a);
    let settings = BucketSettings { versioning: Versioning::Enabled, ..BucketSettings::default() };
    let update = |bucket| Operation::UpdateBucket { bucket, settings: settings.clone() };
    assert_eq!(b.propose(update(id(7))), Outcome::NoSuchBucket);
    assert_eq!(b.propose(update(id(0))), Outcome::BucketUpdated);
    a.pull(&b);
    let row = queries::bucket(&a.kv, &name()).unwrap().unwrap();
    assert_eq!((row.settings, row.created, row.updated), (settings.clone(), stamp(1, 1), stamp(2, 2)));
    assert!(queries::conflicts(&a.kv, None, 9).unwrap().is_empty(), "the change knew the creation");
}

fn document(kind: DocumentKind, text: &str) -> Operation {
    let text = (!text.is_empty()).then(|| text.to_owned());
    Operation::ChangeBucket { bucket: id(0), change: SettingChange::Document(kind, text) }
}

#[test]
fn settings_that_two_datacenters_change_at_once_merge_one_by_one_and_losses_are_recorded() {
    let (mut a, mut b) = (Group::catalog(1), Group::catalog(2));
    a.propose(create());
    b.pull(&a);
    assert_eq!(a.propose(document(DocumentKind::Policy, "policy of a")), Outcome::BucketUpdated);
    a.propose(document(DocumentKind::Cors, "cors of a"));
    b.propose(document(DocumentKind::Policy, "policy of b"));
    b.propose(document(DocumentKind::Tagging, "tags of b"));
    a.pull(&b);
    b.pull(&a);
    for catalog in [&a, &b] {
        let row = queries::bucket(&catalog.kv, &name()).unwrap().unwrap();
        let documents: Vec<&str> = row.settings.documents.values().map(String::as_str).collect();
        assert_eq!(documents, ["policy of b", "cors of a", "tags of b"]);
        let conflicts = queries::conflicts(&catalog.kv, None, 9).unwrap();
        let [ConflictRow::Setting { name, setting, winner, loser }] = &conflicts[..] else { panic!("{conflicts:?}") };
        assert_eq!((name.as_str(), setting), ("photos", &SettingName::Document(DocumentKind::Policy)));
        assert_eq!((*winner, *loser), (stamp(2, 2), stamp(2, 1)));
    }
    assert_eq!(queries::bucket(&a.kv, &name()).unwrap(), queries::bucket(&b.kv, &name()).unwrap());
    // A change that knew both is no conflict, and a removal is a change.
    a.propose(document(DocumentKind::Policy, ""));
    b.pull(&a);
    let row = queries::bucket(&b.kv, &name()).unwrap().unwrap();
    assert_eq!(row.settings.document(DocumentKind::Policy), None);
    assert_eq!(queries::conflicts(&b.kv, None, 9).unwrap().len(), 1);
}

#[test]
fn a_bucket_made_anew_has_none_of_the_settings_of_the_one_before() {
    let mut catalog = Group::catalog(1);
    catalog.propose(create());
    catalog.propose(document(DocumentKind::Policy, "p"));
    catalog.propose(Operation::DeleteBucket { name: name(), bucket: id(0) });
    assert_eq!(catalog.propose(document(DocumentKind::Policy, "q")), Outcome::BucketGone);
    catalog.propose(create());
    let row = queries::bucket(&catalog.kv, &name()).unwrap().unwrap();
    assert!(row.settings.documents.is_empty() && row.changes.is_empty());
}
