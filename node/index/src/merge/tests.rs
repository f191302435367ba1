//! The laws of the joins, and what counts as concurrent.

use meridian_types::{BucketId, BucketName, Sound, Stamp};
use proptest::prelude::{Just, Strategy, prop_assert_eq, prop_oneof, proptest};

use super::{Merge, merge, merge_bucket, merge_group, merge_user};
use crate::attributes::{Change, Retention, RetentionMode};
use crate::catalog_rows::{
    BucketRow, BucketSettings, BucketState, DocumentKind, SettingName, SettingStamp, StoredBucket, Versioning,
};
use crate::rows::{ObjectVersion, VersionKind};
use crate::testing::{body, place, seen, stamp, version};
use crate::user_rows::{AccessKey, GroupRow, Profile, Register, Registers, Secret, UserRow, UserState};

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
                changes: changes_of(updated),
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
    let code = Some(format!("{}00", updated.datacenter).parse().unwrap());
    let mut settings = BucketSettings { versioning, code, ..BucketSettings::default() };
    if updated.timestamp.raw().is_multiple_of(3) {
        settings.documents.insert(DocumentKind::Policy, format!("policy of {updated}"));
    }
    settings
}

/// Which settings a change sets depends on its stamp, so that rows meet that have set different ones.
fn changes_of(updated: Stamp) -> std::collections::BTreeMap<SettingName, SettingStamp> {
    let raw = updated.timestamp.raw();
    let change = SettingStamp { stamp: updated, origin: place(raw), cursors: seen(&[]) };
    let mut names = vec![SettingName::Versioning, SettingName::Code];
    if raw.is_multiple_of(3) || raw.is_multiple_of(5) {
        names.push(SettingName::Document(DocumentKind::Policy)); // at 5 it was removed
    }
    names.into_iter().map(|name| (name, change.clone())).collect()
}

/// Without the places, which in these generated rows do not follow from the stamps.
fn join_buckets(existing: StoredBucket, incoming: &StoredBucket) -> StoredBucket {
    let mut merged = merge_bucket(Some(&existing), incoming).merged;
    (merged.origin, merged.cursors) = (place(merged.row.updated.timestamp.raw()), seen(&[]));
    merged
}

/// Registers from few enough names and stamps that they meet; a value is a function of its stamp.
fn any_registers() -> impl Strategy<Value = Registers<u64>> {
    proptest::collection::btree_map("[abc]", 1u64..9, 0..4).prop_map(|names| {
        let register = |raw: u64| Register { value: (!raw.is_multiple_of(3)).then_some(raw), changed: stamp(raw, 1) };
        names.into_iter().map(|(name, raw)| (name, register(raw))).collect()
    })
}

fn mapped<T>(registers: &Registers<u64>, value: impl Fn(u64) -> T) -> Registers<T> {
    let map = |register: &Register<u64>| Register { value: register.value.map(&value), changed: register.changed };
    registers.iter().map(|(name, register)| (name.clone(), map(register))).collect()
}

fn any_user() -> impl Strategy<Value = UserRow> {
    let registers = (any_registers(), any_registers(), any_registers(), any_registers());
    (1u64..9, registers).prop_map(|(raw, (keys, policies, attached, groups))| {
        let changed = |registers: &Registers<u64>| registers.values().map(|register| register.changed).max();
        let all = [changed(&keys), changed(&policies), changed(&attached), changed(&groups), Some(stamp(raw, 1))];
        UserRow {
            name: "a".to_owned(),
            profile: Profile { id: format!("{raw}"), ..Profile::default() },
            profile_changed: stamp(raw, 1),
            access_keys: mapped(&keys, |raw| AccessKey {
                secret_key: Secret(raw.to_string()),
                active: true,
                created_unix_ms: raw,
            }),
            policies: mapped(&policies, |raw| raw.to_string()),
            attached: mapped(&attached, |_| ()),
            groups: mapped(&groups, |_| ()),
            updated: all.into_iter().flatten().max().unwrap(),
        }
    })
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
        let (ab, ba) = (merge_bucket(Some(&a), &b), merge_bucket(Some(&b), &a));
        prop_assert_eq!(ab.lost, ba.lost);
        prop_assert_eq!(ab.lost_settings, ba.lost_settings);
    }

    #[test]
    fn merge_user_is_commutative_associative_and_idempotent(a in any_user(), b in any_user(), c in any_user()) {
        let ab = merge_user(Some(&a), &b);
        prop_assert_eq!(&ab, &merge_user(Some(&b), &a));
        prop_assert_eq!(merge_user(Some(&ab), &c), merge_user(Some(&a), &merge_user(Some(&b), &c)));
        prop_assert_eq!(&merge_user(Some(&a), &a), &a);
        prop_assert_eq!(&merge_user(Some(&ab), &a), &ab);
        prop_assert_eq!(&merge_user(None, &a), &a);
        for (name, register) in &ab.access_keys {
            let either = [a.access_keys.get(name), b.access_keys.get(name)];
            prop_assert_eq!(either.into_iter().flatten().map(|one| one.changed).max(), Some(register.changed));
        }
    }

    #[test]
    fn merge_group_is_commutative_and_idempotent(a in any_registers(), b in any_registers(), x in 1u64..9, y in 1u64..9) {
        let group = |policies: &Registers<u64>, raw: u64| GroupRow {
            name: "g".to_owned(),
            state: if raw.is_multiple_of(2) { UserState::Active } else { UserState::Deleted },
            state_changed: stamp(raw, 1),
            policies: mapped(policies, |raw| raw.to_string()),
            updated: stamp(9, 1),
        };
        let (a, b) = (group(&a, x), group(&b, y));
        let ab = merge_group(Some(&a), &b);
        prop_assert_eq!(&ab, &merge_group(Some(&b), &a));
        prop_assert_eq!(&merge_group(Some(&ab), &b), &ab);
        prop_assert_eq!(ab.state_changed, a.state_changed.max(b.state_changed));
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
