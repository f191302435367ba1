//! Buckets and users.

use meridian_types::{BucketId, BucketName};

use crate::testing::{Group, stamp};
use crate::{
    AccessKey, BucketSettings, BucketState, ConflictRow, Operation, Outcome, Secret, UserRow, UserState, Versioning,
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
                ConflictRow::Bucket { winner, lost, .. } => (conflict.loser(), *winner, lost.owner.as_str()),
                ConflictRow::Object { .. } => panic!("{conflict:?}"),
            })
            .collect();
        assert_eq!(lost, [(stamp(1, 1), stamp(1, 2), "alice"), (stamp(1, 2), stamp(1, 1), "bob")]);
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

fn user(name: &str, access_keys: &[&str], state: UserState) -> UserRow {
    let access_key =
        |key: &&str| AccessKey { access_key: (*key).to_owned(), secret_key: Secret(format!("secret of {key}")) };
    UserRow {
        name: name.to_owned(),
        id: format!("id-{name}"),
        display_name: name.to_owned(),
        email: None,
        tenant: None,
        admin: false,
        access_keys: access_keys.iter().map(access_key).collect(),
        state,
        updated: stamp(999, 9), // whatever a caller says, apply stamps it
    }
}

#[test]
fn users_are_found_by_access_key_until_it_or_they_go() {
    let mut catalog = Group::catalog(1);
    let holder =
        |catalog: &Group, key: &str| queries::user_by_access_key(&catalog.kv, key).unwrap().map(|user| user.name);
    assert_eq!(catalog.propose(Operation::PutUser(user("bob", &["K1", "K2"], UserState::Active))), Outcome::UserStored);
    assert_eq!(queries::user(&catalog.kv, "bob").unwrap().unwrap().updated, stamp(1, 1));
    assert_eq!((holder(&catalog, "K1"), holder(&catalog, "K")), (Some("bob".to_owned()), None));
    assert_eq!((holder(&catalog, ""), holder(&catalog, "K1\0b")), (None, None));
    catalog.propose(Operation::PutUser(user("bob", &["K2"], UserState::Active)));
    assert_eq!((holder(&catalog, "K1"), holder(&catalog, "K2")), (None, Some("bob".to_owned())));
    assert_eq!(queries::users(&catalog.kv).unwrap().len(), 1);
    catalog.propose(Operation::PutUser(user("bob", &["K2"], UserState::Deleted)));
    assert_eq!((holder(&catalog, "K2"), queries::users(&catalog.kv).unwrap().len()), (None, 0));
    assert_eq!(queries::user(&catalog.kv, "bob").unwrap(), None);
    for bad in
        [user("", &[], UserState::Active), user("a\0", &[], UserState::Active), user("a", &[""], UserState::Active)]
    {
        assert_eq!(catalog.propose(Operation::PutUser(bad)), Outcome::InvalidUser);
    }
}

#[test]
fn concurrent_changes_of_a_user_converge() {
    let (mut a, mut b) = (Group::catalog(1), Group::catalog(2));
    a.propose(Operation::PutUser(user("bob", &["KA"], UserState::Active)));
    b.propose(Operation::PutUser(user("bob", &["KB"], UserState::Active)));
    b.propose(Operation::PutUser(user("al", &["KA"], UserState::Active)));
    a.pull(&b);
    b.pull(&a);
    for catalog in [&a, &b] {
        let holder = |key: &str| queries::user_by_access_key(&catalog.kv, key).unwrap().map(|user| user.name);
        assert_eq!((holder("KA"), holder("KB")), (Some("al".to_owned()), Some("bob".to_owned())));
    }
    assert_eq!((a.rows_of(b'w'), a.rows_of(b'y')), (b.rows_of(b'w'), b.rows_of(b'y')));
}
