//! Batches of another datacenter's log: exactly once, in order, whole or not at all.
//!
//! A remote mutation never asks a condition, a fence or the catalog: it has happened (rule 12). Invariants: the cursor,
//! the kept entries and the merged rows stand in one write set; a batch that does not follow the cursor changes nothing,
//! and neither does one of which any entry can't be applied.

use bytes::Bytes;
use meridian_replicator::{Batch, CheckedBatch, LogEntry, OriginCursor, check_batch};
use meridian_types::{BucketId, EntryHash, ObjectKey, Plant, Planted, Stamp};

use crate::apply::Apply;
use crate::apply::users::{is_valid_group, is_valid_user};
use crate::catalog_rows::StoredBucket;
use crate::command::{Mutation, RemoteOutcome};
use crate::keys;
use crate::machine::MachineError;
use crate::queries::{self, LOG_HASH_LENGTH};
use crate::rows::{ObjectVersion, Row, VersionId, VersionKind, VersionMode};

impl<P: Plant> Apply<'_, '_, P> {
    pub(super) fn remote(&mut self, batch: &Batch) -> Result<RemoteOutcome, MachineError> {
        let origin = batch.after.origin;
        let cursor = queries::cursor(self.view, origin)?;
        if origin == self.datacenter() {
            let reason = format!("datacenter {origin} does not apply its own log");
            return Ok(RemoteOutcome::Rejected { cursor, reason });
        }
        let CheckedBatch { entries, cursor: reached } = match check_batch(&cursor, batch) {
            Ok(checked) => checked,
            Err(error) if error.is_not_next() => return Ok(RemoteOutcome::Ignored(cursor)),
            Err(error) => return Ok(RemoteOutcome::Rejected { cursor, reason: error.to_string() }),
        };
        // All are read before the first is applied: an entry is never passed over, and the stream holds at it (rule 12).
        let mut mutations = Vec::with_capacity(entries.len());
        for (entry, _, _) in &entries {
            match self.remote_mutation(entry) {
                Ok(mutation) => mutations.push(mutation),
                Err(reason) => {
                    let reason = format!("entry {} of datacenter {origin}: {reason}", entry.sequence);
                    return Ok(RemoteOutcome::Rejected { cursor, reason });
                }
            }
        }
        // A shell that saved the cursor before the rows would lose what a crash finds between the two.
        let rows_lost = usize::from(self.plant.has(Planted::CursorBeforeRows));
        mutations.truncate(mutations.len().saturating_sub(rows_lost));
        for ((entry, hash, encoded), mutation) in entries.into_iter().zip(mutations) {
            self.keep_entry(&entry, hash, &encoded);
            self.merge_mutation(entry, mutation)?;
        }
        self.state.cursors.advance(origin, OriginCursor::from(reached.position));
        if reached != cursor {
            self.view.put(keys::cursor(origin), reached.to_record());
        }
        Ok(RemoteOutcome::Applied(reached))
    }

    /// An entry's mutation, when this group can apply it.
    fn remote_mutation(&self, entry: &LogEntry) -> Result<Mutation, String> {
        let mutation = Mutation::decode(&entry.mutation).map_err(|error| error.to_string())?;
        let is_for_catalog = matches!(mutation, Mutation::Bucket(_) | Mutation::User(_) | Mutation::Group(_));
        if is_for_catalog != self.machine.partition.is_catalog() {
            return Err(format!("its mutation does not belong to partition {}", self.machine.partition));
        }
        match &mutation {
            Mutation::Object { mode: VersionMode::Versioned, kind: VersionKind::Tombstone, .. } => {
                Err("a tombstone is no version".to_owned())
            }
            Mutation::Removed { version, .. } if *version >= entry.stamp => {
                Err(format!("it removes version {version}, which is not older"))
            }
            Mutation::Annotated { row, .. } if row.stamp >= entry.stamp || row.body().is_none() => {
                Err("it changes what is no older object".to_owned())
            }
            Mutation::Annotated { row, .. } if row.version.stamp().is_some_and(|stamp| stamp != row.stamp) => {
                Err("its version and its stamp differ".to_owned())
            }
            Mutation::Object { .. } | Mutation::Removed { .. } | Mutation::Annotated { .. } => Ok(mutation),
            Mutation::Bucket(row) if row.updated != entry.stamp => Err(stamped_otherwise(row.updated)),
            Mutation::Bucket(row) if row.derived_id() != Some(row.id) => {
                Err(format!("bucket {} has an id that does not derive from its name", row.name))
            }
            Mutation::User(user) if user.updated != entry.stamp => Err(stamped_otherwise(user.updated)),
            Mutation::User(user) if !is_valid_user(user) => {
                Err("a user with a name or access key of no form".to_owned())
            }
            Mutation::Bucket(row) if row.changes.values().any(|change| change.stamp > row.updated) => {
                Err(format!("a setting of bucket {} was changed after the bucket", row.name))
            }
            Mutation::Group(group) if group.updated != entry.stamp => Err(stamped_otherwise(group.updated)),
            Mutation::Group(group) if !is_valid_group(group) => Err("a group with a name of no form".to_owned()),
            Mutation::Bucket(_) | Mutation::User(_) | Mutation::Group(_) => Ok(mutation),
        }
    }

    /// Keeps the entry as it came, for relays.
    fn keep_entry(&mut self, entry: &LogEntry, hash: EntryHash, encoded: &Bytes) {
        let mut row = Vec::with_capacity(LOG_HASH_LENGTH + encoded.len());
        row.extend_from_slice(&hash.0);
        row.extend_from_slice(encoded);
        self.view.put(keys::log(entry.stamp.datacenter, entry.incarnation, entry.sequence), row);
    }

    fn merge_mutation(&mut self, entry: LogEntry, mutation: Mutation) -> Result<(), MachineError> {
        let (stamp, origin) = (entry.stamp, entry.cursor());
        // Rule 9: a later local write must be above what can be read here.
        if !self.plant.has(Planted::RemoteStampNotMerged) {
            self.state.greatest = self.state.greatest.max(stamp.timestamp);
        }
        match mutation {
            Mutation::Object { bucket, key, mode, kind } => {
                let version = mode.version_id(stamp);
                let row = ObjectVersion { stamp, version, kind, origin, cursors: entry.cursors };
                self.merge_version(bucket, &key, row)
            }
            Mutation::Removed { bucket, key, version } => {
                let (version, kind) = (VersionId::Stamp(version), VersionKind::Tombstone);
                let row = ObjectVersion { stamp, version, kind, origin, cursors: entry.cursors };
                self.merge_version(bucket, &key, row)
            }
            Mutation::Annotated { bucket, key, row } => self.merge_version(bucket, &key, *row),
            Mutation::Bucket(row) => self.place_bucket(StoredBucket { row, origin, cursors: entry.cursors }),
            Mutation::User(user) => self.place_user(user),
            Mutation::Group(group) => self.place_group(group),
        }
    }

    fn merge_version(&mut self, bucket: BucketId, key: &ObjectKey, row: ObjectVersion) -> Result<(), MachineError> {
        let existing = queries::version_row(self.view, bucket, key, row.version)?;
        self.place(bucket, key, row, existing)
    }
}

fn stamped_otherwise(stamp: Stamp) -> String {
    format!("its mutation is stamped {stamp}")
}
