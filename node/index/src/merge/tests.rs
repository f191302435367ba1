//! The laws of the joins, and what counts as concurrent.

use meridian_types::{BucketId, BucketName, Sound, Stamp};
use proptest::prelude::{Just, Strategy, prop_assert_eq, prop_oneof, proptest};

use super::{Merge, merge, merge_bucket, merge_user};
use crate::attributes::{Change, Retention, RetentionMode};
use crate::catalog_rows::{BucketRow, BucketSettings, BucketState, StoredBucket, UserRow, UserState, Versioning};
use crate::rows::{ObjectVersion, VersionKind};
use crate::testing::{body, place, seen, stamp, version};

/// A mutation is a function of its stamp, as no two carry the same one.
fn any_version() -> impl Strategy<Value = ObjectVersion> {
    (1u64..6, 1u8..4).prop_map(|(raw, dc)| {
        let number = raw * 10 + u64::from(dc);
        let kind = match number % 4 {
            0 => VersionKind::Tombstone,
            1 => VersionKind::DeleteMarker,
            _ => VersionKind::Object(body(number)),
        };
        version(stamp(raw, dc), raw, &[(dc % 3 + 1, number % 4)], kind)
    })
}

/// The same versions after some changes; a change is a function of its stamp too.
fn any_annotated() -> impl Strategy<Value = ObjectVersion> {
    (any_version(), proptest::collection::vec((10u64..16, 1u8..4), 0..4)).prop_map(|(mut version, changes)| {
        let VersionKind::Object(body) = &mut version.kind else { return version };
        for (raw, dc) in changes {
            let change = match raw % 4 {
                0 => Change::Tags(vec![(format!("{raw}"), format!("{dc}"))]),
                1 => Change::LegalHold(dc == 1),
                2 => Change::Acl(Some(format!("{dc}"))),
                _ => {
                    let mode = if dc == 1 { RetentionMode::Governance } else { RetentionMode::Compliance };
                    Change::Retention(Some(Retention { mode, until_unix_ms: u64::from(dc) * 100 - raw }))
                }
            };
            body.annotations.get_or_insert_default().set(stamp(raw, dc), change);
        }
        version
    })
}

fn join(existing: Option<ObjectVersion>, incoming: ObjectVersion) -> ObjectVersion {
    match (merge(Sound, existing.as_ref(), &incoming), existing) {
        (Merge::Joined(joined), _) => *joined,
        (Merge::Incoming { .. }, _) | (_, None) => incoming,
        (Merge::Existing { .. } | Merge::Same, Some(existing)) => existing,
    }
}

/// A creation or change as a datacenter would log it, from few enough stamps that they meet.
fn any_bucket() -> impl Strategy<Value = StoredBucket> {
    let state = prop_oneof![3 => Just(BucketState::Active), 1 => Just(BucketState::Deleted)];
    (0u32..2, state, 1u64..5, 0u64..3, 1u8..3, 1u8..3).prop_map(
        |(deletions, state, created, later, creator, changer)| {
            let name: BucketName = "photos".parse().unwrap();
            let created = stamp(created, creator);
            let updated = if later == 0 { created } else { stamp(created.timestamp.raw() + later, changer) };
            let deletions = deletions + u32::from(state == BucketState::Deleted);
            let incarnation = deletions - u32::from(state == BucketState::Deleted);
            let row = BucketRow {
                id: BucketId::derive(&name, incarnation),
                name,
                deletions,
                created,
                updated,
                owner: owner_of(created),
                state,
                settings: settings_of(updated),
            };
            StoredBucket { row, origin: place(updated.timestamp.raw()), cursors: seen(&[(3 - changer, later)]) }
        },
    )
}

fn owner_of(created: Stamp) -> String {
    format!("owner-{created}")
}

fn settings_of(updated: Stamp) -> BucketSettings {
    let versioning =
        if updated.timestamp.raw().is_multiple_of(2) { Versioning::Enabled } else { Versioning::Suspended };
    BucketSettings {
        versioning,
        code: Some(format!("{}00", updated.datacenter).parse().unwrap()),
        ..BucketSettings::default()
    }
}

/// Without the places, which in these generated rows do not follow from the stamps.
fn join_buckets(existing: StoredBucket, incoming: &StoredBucket) -> StoredBucket {
    let mut merged = merge_bucket(Some(&existing), incoming).merged;
    (merged.origin, merged.cursors) = (place(merged.row.updated.timestamp.raw()), seen(&[]));
    merged
}

fn user(raw: u64) -> UserRow {
    UserRow {
        name: "a".to_owned(),
        id: format!("{raw}"),
        display_name: String::new(),
        email: None,
        tenant: None,
        admin: false,
        access_keys: Vec::new(),
        state: UserState::Active,
        updated: stamp(raw, 1),
    }
}

proptest! {
    #[test]
    fn merge_is_commutative_associative_and_idempotent(
        a in any_annotated(), b in any_annotated(), c in any_annotated()
    ) {
        let (ab, ba) = (join(Some(a.clone()), b.clone()), join(Some(b.clone()), a.clone()));
        prop_assert_eq!(&ab, &ba);
        let left = join(Some(ab.clone()), c.clone());
        let right = join(Some(a.clone()), join(Some(b.clone()), c.clone()));
        prop_assert_eq!(&left, &right);
        prop_assert_eq!(join(Some(a.clone()), a.clone()), a.clone());
        prop_assert_eq!(join(Some(ab.clone()), a), ab);
        prop_assert_eq!(left.stamp, b.stamp.max(c.stamp).max(ba.stamp));
    }

    #[test]
    fn whether_two_writes_conflict_does_not_depend_on_who_came_first(a in any_version(), b in any_version()) {
        let concurrent = |outcome| match outcome {
            Merge::Incoming { concurrent } | Merge::Existing { concurrent } => concurrent,
            Merge::Same | Merge::Joined(_) => false,
        };
        prop_assert_eq!(concurrent(merge(Sound, Some(&a), &b)), concurrent(merge(Sound, Some(&b), &a)));
    }

    #[test]
    fn merge_bucket_is_commutative_associative_and_idempotent(a in any_bucket(), b in any_bucket(), c in any_bucket()) {
        let ab = join_buckets(a.clone(), &b);
        prop_assert_eq!(&ab, &join_buckets(b.clone(), &a));
        prop_assert_eq!(join_buckets(ab.clone(), &c).row, join_buckets(a.clone(), &join_buckets(b.clone(), &c)).row);
        prop_assert_eq!(&merge_bucket(Some(&a), &a).merged, &a);
        prop_assert_eq!(join_buckets(ab.clone(), &a).row, ab.row);
        prop_assert_eq!(merge_bucket(None, &a).merged, a);
    }

    #[test]
    fn what_a_bucket_merge_loses_does_not_depend_on_who_came_first(a in any_bucket(), b in any_bucket()) {
        prop_assert_eq!(merge_bucket(Some(&a), &b).lost, merge_bucket(Some(&b), &a).lost);
    }

    #[test]
    fn merge_user_keeps_the_greatest_stamp(stamps in proptest::collection::vec(1u64..9, 1..9)) {
        let mut kept: Option<UserRow> = None;
        for raw in &stamps {
            if merge_user(Sound, kept.as_ref(), &user(*raw)) {
                kept = Some(user(*raw));
            }
        }
        prop_assert_eq!(kept, stamps.iter().max().map(|raw| user(*raw)));
    }
}

#[test]
fn a_loser_is_concurrent_only_if_the_winner_did_not_know_it() {
    let object = || VersionKind::Object(body(1));
    let existing = version(stamp(10, 1), 7, &[], object());
    let knew = version(stamp(20, 2), 1, &[(1, 7)], object());
    let did_not = version(stamp(20, 2), 1, &[(1, 6)], object());
    assert_eq!(merge(Sound, Some(&existing), &knew), Merge::Incoming { concurrent: false });
    assert_eq!(merge(Sound, Some(&existing), &did_not), Merge::Incoming { concurrent: true });
    assert_eq!(merge(Sound, Some(&knew), &existing), Merge::Existing { concurrent: false });
    assert_eq!(merge(Sound, Some(&did_not), &existing), Merge::Existing { concurrent: true });
    let same_origin = version(stamp(20, 1), 8, &[], object());
    assert_eq!(merge(Sound, Some(&existing), &same_origin), Merge::Incoming { concurrent: false });
    let delete = |raw, dc| version(stamp(raw, dc), 1, &[], VersionKind::Tombstone);
    assert_eq!(merge(Sound, Some(&delete(1, 1)), &delete(2, 2)), Merge::Incoming { concurrent: false });
    assert_eq!(merge(Sound, Some(&existing), &delete(11, 2)), Merge::Incoming { concurrent: true });
}
