//! Rows that take a place and rows that lose one.
//!
//! Invariants: whichever row loses stays whole in the reclaim queue, under the stamp that superseded it (rule 14), also
//! one that lost on arrival: should the winner's bytes be lost with their datacenter, it is what the key falls back to.
//! Each concurrent loser is recorded (rule 16). A part leaves its upload for the queue or for an object, never both.

use meridian_types::{BucketId, ObjectKey, Plant, Stamp, UploadId};

use crate::apply::Apply;
use crate::keys;
use crate::kv::{KvRead, Step};
use crate::machine::{CONFLICTS_KEPT_MAX, MachineError};
use crate::merge::{Merge, merge};
use crate::rows::{ConflictRow, LostWrite, ObjectVersion, Part, ReclaimRow, Row, VersionId, VersionKind};

impl<P: Plant> Apply<'_, '_, P> {
    /// Merges a version, own or remote, into the row of its place; `existing` is what that row holds.
    pub(super) fn place(
        &mut self,
        bucket: BucketId,
        key: &ObjectKey,
        incoming: ObjectVersion,
        existing: Option<ObjectVersion>,
    ) -> Result<(), MachineError> {
        let row = match incoming.version {
            VersionId::Null => keys::object_null(bucket, key),
            VersionId::Stamp(stamp) => {
                self.mark_versioned(bucket)?;
                keys::object_version(bucket, key, stamp)
            }
        };
        let (winner, loser, concurrent) = match (merge(self.plant, existing.as_ref(), &incoming), existing) {
            (Merge::Same, _) => return Ok(()),
            (Merge::Joined(joined), _) => {
                self.view.put(row, joined.encode());
                return Ok(());
            }
            (Merge::Incoming { concurrent }, existing) => {
                let is_tombstone = |version: &ObjectVersion| u64::from(version.kind == VersionKind::Tombstone);
                self.state.tombstones += is_tombstone(&incoming);
                self.state.tombstones -= existing.as_ref().map_or(0, is_tombstone).min(self.state.tombstones);
                self.view.put(row, incoming.encode());
                match existing {
                    Some(existing) => (incoming, existing, concurrent),
                    None => return Ok(()),
                }
            }
            (Merge::Existing { concurrent }, Some(existing)) => (existing, incoming, concurrent),
            (Merge::Existing { .. }, None) => unreachable!("nothing can't win"),
        };
        // A version of its own is removed only by its name, and so by someone who had seen it: no write was lost.
        if concurrent && winner.version == VersionId::Null {
            let lost = match &loser.kind {
                VersionKind::Object(body) => LostWrite::Object { size: body.size, etag: body.etag.clone() },
                VersionKind::DeleteMarker | VersionKind::Tombstone => LostWrite::Delete,
            };
            let (winner, loser) = (winner.stamp, loser.stamp);
            let row = ConflictRow::Object { bucket, key: key.clone(), winner, loser, lost };
            self.record_conflict(bucket, key.as_str(), &row)?;
        }
        self.queue_version(winner.stamp, &winner.kind, bucket, key, loser);
        Ok(())
    }

    fn mark_versioned(&mut self, bucket: BucketId) -> Result<(), MachineError> {
        let marker = keys::versions_marker(bucket);
        if self.view.get(&marker)?.is_none() {
            self.view.put(marker, Vec::new());
            self.state.versioned_buckets += 1;
        }
        Ok(())
    }

    fn queue_version(
        &mut self,
        superseding: Stamp,
        winner: &VersionKind,
        bucket: BucketId,
        key: &ObjectKey,
        loser: ObjectVersion,
    ) {
        if *winner == VersionKind::Tombstone && loser.kind == VersionKind::Tombstone {
            return; // it has no bytes, and the newer delete can't be lost in its stead
        }
        let row = keys::reclaim_version(superseding, bucket, key, loser.stamp);
        self.view.put(row, ReclaimRow::Version(loser).to_record());
    }

    pub(super) fn queue_part(
        &mut self,
        superseding: Stamp,
        bucket: BucketId,
        key: &ObjectKey,
        upload: UploadId,
        number: u16,
        part: Part,
    ) {
        let row = keys::reclaim_part(superseding, bucket, key, upload, number);
        self.view.put(row, ReclaimRow::Part { upload, number, part }.to_record());
    }

    /// `key` is empty for a bucket's own row.
    pub(super) fn record_conflict(
        &mut self,
        bucket: BucketId,
        key: &str,
        conflict: &ConflictRow,
    ) -> Result<(), MachineError> {
        let row = keys::conflict(conflict.loser(), bucket, key);
        if self.view.get(&row)?.is_none() {
            self.state.conflicts += 1;
        }
        self.view.put(row, conflict.to_record());
        while self.state.conflicts > CONFLICTS_KEPT_MAX {
            let mut oldest = None;
            self.view.scan(keys::CONFLICTS, &keys::successor(keys::CONFLICTS.to_vec()), &mut |row, _| {
                oldest = Some(row.to_vec());
                Step::Stop
            })?;
            let Some(oldest) = oldest else {
                return Err(MachineError::Invariant(format!("{} conflicts counted, none kept", self.state.conflicts)));
            };
            self.view.delete(oldest);
            self.state.conflicts -= 1;
        }
        Ok(())
    }
}
