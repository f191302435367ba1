//! What stable times release, and what they leave.

use meridian_replicator::StableTimes;

use crate::apply::RELEASES_IN_COMMAND_MAX;
use crate::testing::{BUCKET, Group, attempt, dc, delete, put, put_if, time};
use crate::{Command, Condition, Outcome, Response, VersionKind, queries};

fn stable(meta: u64, data: u64, settled: u64) -> StableTimes {
    StableTimes { meta: time(meta), data: time(data), settled: time(settled) }
}

fn release(group: &mut Group, times: StableTimes) -> bool {
    match group.apply(&Command::Stable(times)) {
        Response::Stable { more } => more,
        other => panic!("{other:?} to stable times"),
    }
}

fn tombstones(group: &Group) -> u64 {
    queries::state(&group.kv).unwrap().tombstones
}

#[test]
fn a_tombstone_goes_once_it_has_settled_and_not_when_it_is_only_stable() {
    let mut group = Group::new(1);
    group.propose(put("a", 1));
    group.propose(delete("a"));
    assert_eq!(tombstones(&group), 1);
    release(&mut group, stable(2, 2, 1));
    assert!(group.row("a").is_some_and(|row| row.kind == VersionKind::Tombstone));
    release(&mut group, stable(2, 2, 2));
    assert_eq!((group.row("a"), tombstones(&group)), (None, 0));
    assert_eq!(
        group.propose(put_if("a", 3, Condition::Absent)),
        Outcome::Stored { stamp: crate::testing::stamp(3, 1), version: crate::VersionId::Null, replaced: false }
    );
}

#[test]
fn lower_times_than_before_change_nothing() {
    let mut group = Group::new(1);
    group.propose(put("a", 1));
    release(&mut group, stable(9, 8, 7));
    let before = group.kv.clone();
    release(&mut group, stable(5, 8, 1));
    assert_eq!(group.kv, before);
    assert_eq!(queries::stable(&group.kv).unwrap(), stable(9, 8, 7));
}

#[test]
fn a_row_that_was_written_again_waits_for_its_own_entry() {
    let mut group = Group::new(1);
    group.propose(delete("a"));
    group.propose(put("a", 1));
    group.propose(delete("a"));
    assert_eq!(tombstones(&group), 1);
    release(&mut group, stable(2, 2, 2));
    assert_eq!(tombstones(&group), 1);
    release(&mut group, stable(3, 3, 3));
    assert_eq!(tombstones(&group), 0);
}

#[test]
fn rows_give_up_their_cursors_and_other_datacenters_tombstones_go_too() {
    let (mut a, mut b) = (Group::new(1), Group::new(2));
    a.propose(put("x", 1));
    a.propose(delete("y"));
    b.pull(&a);
    b.propose(put("x", 2));
    assert!(!b.row("x").unwrap().cursors.is_empty());
    let greatest = b.greatest().raw();
    assert!(queries::is_stable_due(&b.kv, dc(2), stable(greatest, 0, greatest)).unwrap());
    release(&mut b, stable(greatest, 0, greatest));
    let row = b.row("x").unwrap();
    assert!(row.cursors.is_empty() && row.body().is_some());
    assert_eq!((b.row("y"), tombstones(&b)), (None, 0));
    assert!(!queries::is_stable_due(&b.kv, dc(2), stable(greatest, 0, greatest)).unwrap());
}

#[test]
fn superseded_rows_are_reclaimable_past_stable_data_alone() {
    let mut group = Group::new(1);
    group.propose(put("a", 1));
    group.propose(put("a", 2));
    release(&mut group, stable(2, 1, 2));
    assert!(queries::reclaimable(&group.kv, 9).unwrap().is_empty());
    assert!(queries::is_stable_due(&group.kv, dc(1), stable(2, 2, 2)).unwrap());
    release(&mut group, stable(2, 2, 2));
    assert_eq!(queries::reclaimable(&group.kv, 9).unwrap().len(), 1);
    assert_eq!(group.rows_of(b'q').len(), 1, "it fills, and nothing is removed yet");
}

#[test]
fn one_command_releases_a_bounded_number_of_rows() {
    let mut group = Group::new(1);
    for number in 0..=RELEASES_IN_COMMAND_MAX {
        group.propose(delete(&format!("k{number}")));
    }
    let all = stable(u64::MAX, 0, u64::MAX);
    assert!(release(&mut group, all));
    assert_eq!(tombstones(&group), 1);
    assert!(!release(&mut group, all));
    assert_eq!(tombstones(&group), 0);
}

#[test]
fn two_deletions_at_once_lift_their_own_fences_only() {
    let mut group = Group::new(1);
    let mut fence = |datacenter, number, raised| {
        group.apply(&Command::Fence { bucket: BUCKET, attempt: attempt(datacenter, number), raised });
        queries::is_fenced(&group.kv, BUCKET).unwrap()
    };
    assert!(fence(1, 1, true));
    assert!(fence(2, 7, true));
    assert!(fence(1, 1, false), "datacenter 2's stands");
    assert!(fence(2, 6, false), "an attempt that is over lifts nothing");
    assert!(fence(2, 8, true), "a later attempt takes the place");
    assert!(fence(2, 7, false));
    assert!(!fence(2, 8, false));
    assert_eq!(
        group.propose(put("a", 1)),
        Outcome::Stored { stamp: crate::testing::stamp(1, 1), version: crate::VersionId::Null, replaced: false }
    );
}
