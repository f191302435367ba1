//! Who stays when two rows meet. Every datacenter asks the same question of the same stamps and so comes to the same
//! rows, whatever the order in which the logs arrive.
//!
//! It reads and writes nothing; `apply` keeps what lost. Invariants: as joins of rows, `merge`, `merge_bucket` and
//! `merge_user` are commutative, associative and idempotent (property tests); concurrency is read from cursors, never
//! from stamps (rule 16).

use meridian_replicator::{CursorVector, OriginCursor, Precedence, is_concurrent, precedence};
use meridian_types::{Plant, Stamp};

use crate::catalog_rows::{BucketRow, SettingName, StoredBucket};
use crate::rows::{ObjectVersion, VersionKind};
use crate::user_rows::{GroupRow, UserRow, join};

/// What becomes of two rows of one place. `concurrent`: the one that lost was unknown to the other's origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merge {
    Incoming {
        concurrent: bool,
    },
    Existing {
        concurrent: bool,
    },
    /// The same write, and nothing is new in the incoming row.
    Same,
    /// The same write, with the annotations of both.
    Joined(Box<ObjectVersion>),
}

/// Merges a row into the one that holds its place: the greater stamp wins, and ties fall to the greater datacenter. Rows
/// of one stamp are one write, whose annotations are joined. Two deletes never count as a conflict: nothing was lost.
pub fn merge(plant: impl Plant, existing: Option<&ObjectVersion>, incoming: &ObjectVersion) -> Merge {
    let Some(existing) = existing else { return Merge::Incoming { concurrent: false } };
    let lost = |winner: &ObjectVersion, loser: &ObjectVersion| {
        let deletes = !winner.kind.is_visible() && !loser.kind.is_visible();
        !deletes && were_concurrent((winner.stamp, &winner.cursors), (loser.stamp, loser.origin))
    };
    match precedence(plant, existing.stamp, incoming.stamp) {
        Precedence::Incoming => Merge::Incoming { concurrent: lost(incoming, existing) },
        Precedence::Existing => Merge::Existing { concurrent: lost(existing, incoming) },
        Precedence::Same => join_annotations(existing, incoming),
    }
}

fn join_annotations(existing: &ObjectVersion, incoming: &ObjectVersion) -> Merge {
    let annotations = |version: &ObjectVersion| version.body().and_then(|body| body.annotations.clone());
    let Some(new) = annotations(incoming) else { return Merge::Same };
    let known = annotations(existing);
    let mut joined = known.clone().unwrap_or_default();
    joined.join(&new);
    if known.as_ref() == Some(&joined) {
        return Merge::Same;
    }
    let mut row = existing.clone();
    if let VersionKind::Object(body) = &mut row.kind {
        body.annotations = Some(joined);
    }
    Merge::Joined(Box::new(row))
}

/// Whether the winner's origin did not know the loser (rule 16). Mutations of one origin are ordered by its log.
fn were_concurrent(winner: (Stamp, &CursorVector), loser: (Stamp, OriginCursor)) -> bool {
    winner.0.datacenter != loser.0.datacenter && is_concurrent(winner.1, loser.0.datacenter, loser.1)
}

/// A merged bucket row, and what of a concurrent creation or change did not stay (rule 17).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketMerge {
    pub merged: StoredBucket,
    /// The row of a concurrent creation whose owner did not stay, with the stamp of the one that did.
    pub lost: Option<(Stamp, BucketRow)>,
    /// In the order of their names.
    pub lost_settings: Vec<LostSetting>,
}

/// A concurrent change of a setting that did not stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostSetting {
    pub setting: SettingName,
    pub winner: Stamp,
    pub loser: Stamp,
}

/// Merges two rows of one bucket name (rule 17). A later incarnation wins, and within one an active bucket over the
/// deletion before it. Concurrent creates of one incarnation are one bucket: its owner is the first creator, and each
/// of its settings is that of the greatest stamp.
pub fn merge_bucket(existing: Option<&StoredBucket>, incoming: &StoredBucket) -> BucketMerge {
    let whole = |stored: &StoredBucket| BucketMerge { merged: stored.clone(), lost: None, lost_settings: Vec::new() };
    let Some(existing) = existing else { return whole(incoming) };
    let phase = |stored: &StoredBucket| (stored.row.deletions, stored.row.state);
    if phase(existing) != phase(incoming) {
        return whole(if phase(existing) > phase(incoming) { existing } else { incoming });
    }
    let (last, before) =
        if incoming.row.updated > existing.row.updated { (incoming, existing) } else { (existing, incoming) };
    let (first, second) =
        if incoming.row.created < existing.row.created { (incoming, existing) } else { (existing, incoming) };
    let mut merged = last.clone();
    merged.row.created = first.row.created;
    merged.row.owner.clone_from(&first.row.owner);
    let lost_settings = merge_settings(&mut merged.row, &before.row);

    let concurrent = were_concurrent((last.row.updated, &last.cursors), (before.row.updated, before.origin));
    let lost = (last.row.is_active() && concurrent && first.row.owner != second.row.owner)
        .then(|| (first.row.created, second.row.clone()));
    BucketMerge { merged, lost, lost_settings }
}

/// Takes over from `other` each setting that was changed later there. A setting that one row never set is the other's.
fn merge_settings(row: &mut BucketRow, other: &BucketRow) -> Vec<LostSetting> {
    let mut lost = Vec::new();
    for (&setting, theirs) in &other.changes {
        let Some(ours) = row.changes.get(&setting) else {
            row.settings.take(&other.settings, setting);
            row.changes.insert(setting, theirs.clone());
            continue;
        };
        let theirs_wins = ours.stamp < theirs.stamp;
        let (winner, loser) = if theirs_wins { (theirs, ours) } else { (ours, theirs) };
        let differs = !row.settings.agrees(&other.settings, setting);
        if differs && row.is_active() && were_concurrent((winner.stamp, &winner.cursors), (loser.stamp, loser.origin)) {
            lost.push(LostSetting { setting, winner: winner.stamp, loser: loser.stamp });
        }
        if theirs_wins {
            row.settings.take(&other.settings, setting);
            row.changes.insert(setting, theirs.clone());
        }
    }
    lost
}

/// Merges two rows of one user: the greater stamp wins for each register.
pub fn merge_user(existing: Option<&UserRow>, incoming: &UserRow) -> UserRow {
    let mut merged = incoming.clone();
    let Some(existing) = existing else { return merged };
    if existing.profile_changed > incoming.profile_changed {
        merged.profile = existing.profile.clone();
        merged.profile_changed = existing.profile_changed;
    }
    join(&mut merged.access_keys, &existing.access_keys);
    join(&mut merged.policies, &existing.policies);
    join(&mut merged.attached, &existing.attached);
    join(&mut merged.groups, &existing.groups);
    merged.updated = merged.updated.max(existing.updated);
    merged
}

/// Merges two rows of one group, like those of a user.
pub fn merge_group(existing: Option<&GroupRow>, incoming: &GroupRow) -> GroupRow {
    let mut merged = incoming.clone();
    let Some(existing) = existing else { return merged };
    if existing.state_changed > incoming.state_changed {
        (merged.state, merged.state_changed) = (existing.state, existing.state_changed);
    }
    join(&mut merged.policies, &existing.policies);
    merged.updated = merged.updated.max(existing.updated);
    merged
}

#[cfg(test)]
mod tests;
