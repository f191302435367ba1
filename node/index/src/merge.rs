//! Who stays when two rows meet. Every datacenter asks the same question of the same stamps and so comes to the same
//! rows, whatever the order in which the logs arrive.
//!
//! It reads and writes nothing; `apply` keeps what lost. Invariants: as joins of rows, `merge`, `merge_bucket` and
//! `merge_user` are commutative, associative and idempotent (property tests); concurrency is read from cursors, never
//! from stamps (rule 16).

use meridian_replicator::{CursorVector, OriginCursor, Precedence, is_concurrent, precedence};
use meridian_types::{Plant, Stamp};

use crate::catalog_rows::{BucketRow, StoredBucket, UserRow};
use crate::rows::{ObjectVersion, VersionKind};

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
    /// Each with the stamp of the row that it lost to; at most one for its settings and one for its owner.
    pub lost: Vec<(Stamp, BucketRow)>,
}

/// Merges two rows of one bucket name (rule 17). A later incarnation wins, and within one an active bucket over the
/// deletion before it. Concurrent creates of one incarnation are one bucket: its owner is the first creator, its
/// settings those of the last change.
pub fn merge_bucket(existing: Option<&StoredBucket>, incoming: &StoredBucket) -> BucketMerge {
    let Some(existing) = existing else { return BucketMerge { merged: incoming.clone(), lost: Vec::new() } };
    let phase = |stored: &StoredBucket| (stored.row.deletions, stored.row.state);
    if phase(existing) != phase(incoming) {
        let later = if phase(existing) > phase(incoming) { existing } else { incoming };
        return BucketMerge { merged: later.clone(), lost: Vec::new() };
    }
    let (last, before) =
        if incoming.row.updated > existing.row.updated { (incoming, existing) } else { (existing, incoming) };
    let (first, second) =
        if incoming.row.created < existing.row.created { (incoming, existing) } else { (existing, incoming) };
    let mut merged = last.clone();
    merged.row.created = first.row.created;
    merged.row.owner.clone_from(&first.row.owner);

    let mut lost = Vec::new();
    if last.row.is_active() && were_concurrent((last.row.updated, &last.cursors), (before.row.updated, before.origin)) {
        if last.row.settings != before.row.settings {
            lost.push((last.row.updated, before.row.clone()));
        }
        let recorded = lost.iter().any(|(_, row)| *row == second.row);
        if first.row.owner != second.row.owner && !recorded {
            lost.push((first.row.created, second.row.clone()));
        }
    }
    BucketMerge { merged, lost }
}

/// Whether an incoming user row replaces the existing one: the greater `updated` wins, whole.
pub fn merge_user(plant: impl Plant, existing: Option<&UserRow>, incoming: &UserRow) -> bool {
    existing.is_none_or(|existing| precedence(plant, existing.updated, incoming.updated) == Precedence::Incoming)
}

#[cfg(test)]
mod tests;
