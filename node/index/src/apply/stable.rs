//! What goes once every member has it (rules 14, 16): tombstones, and the cursors that rows keep to decide concurrency.
//!
//! The logs say which rows are due: their entries stand in the order of their stamps, so one walk over each origin's log finds
//! every row once, and a write pays nothing for being released later. Superseded rows need no walk: they lie in the order
//! in which stable-data passes them, and `queries::reclaimable` reads them up to it. Nothing here removes bytes or log.
//!
//! Invariants: nothing is released above the committed stable times; a row that has changed since its entry is left to the
//! entry of its change; one command releases a bounded number of rows.

use meridian_replicator::{LogEntry, StableTimes};
use meridian_types::{BucketId, BucketName, DatacenterId, ObjectKey, Plant, Planted, Stamp, Timestamp};

use crate::apply::Apply;
use crate::command::Mutation;
use crate::error::IndexError;
use crate::keys;
use crate::kv::Step;
use crate::machine::MachineError;
use crate::queries::{self, LOG_HASH_LENGTH};
use crate::rows::{Row, StableRow, VersionKind, VersionMode};

/// Log entries that one command walks over.
pub const RELEASES_IN_COMMAND_MAX: usize = 512;

/// An entry whose row is due.
struct Due {
    entry: meridian_replicator::OriginCursor,
    stamp: Stamp,
    target: Target,
}

enum Target {
    /// The null version's row.
    Null {
        bucket: BucketId,
        key: ObjectKey,
    },
    /// A version of its own that was removed for good.
    Version {
        bucket: BucketId,
        key: ObjectKey,
        version: Stamp,
    },
    Bucket(BucketName),
    Nothing,
}

impl<P: Plant> Apply<'_, '_, P> {
    /// Takes the stable times over and releases what they have passed. True: more is due.
    pub(super) fn stable(&mut self, times: StableTimes) -> Result<bool, MachineError> {
        let before = queries::stable_row(self.view)?;
        let mut row = StableRow { times: before.times.max(times), released: before.released.clone() };
        let through = if self.plant.has(Planted::TombstoneDroppedEarly) {
            self.state.closed
        } else {
            row.times.settled // rule 14
        };
        let others: Vec<DatacenterId> = self.state.cursors.iter().map(|(origin, _)| origin).collect();
        let mut room = RELEASES_IN_COMMAND_MAX;
        for origin in others.into_iter().chain([self.datacenter()]) {
            for due in self.due(origin, &row, through, room)? {
                self.release(due.stamp, due.target)?;
                row.released.advance(origin, due.entry);
                room -= 1;
            }
        }
        if row != before {
            self.view.put(keys::STABLE.to_vec(), row.to_record());
        }
        Ok(room == 0)
    }

    /// Up to `limit` entries of an origin's log that are stamped at or below `through` and not released yet.
    fn due(
        &self,
        origin: DatacenterId,
        row: &StableRow,
        through: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, MachineError> {
        let mut found = Vec::new();
        let (start, end) = queries::unreleased(row, origin);
        queries::scan(self.view, &start, &end, |key, value| {
            if found.len() == limit {
                return Ok(Step::Stop);
            }
            let encoded = value.get(LOG_HASH_LENGTH..).ok_or_else(|| IndexError::key(key))?;
            let entry = LogEntry::decode(encoded).map_err(|error| IndexError::row(key, error))?;
            if entry.stamp.timestamp > through {
                return Ok(Step::Stop);
            }
            found.push(Due { entry: entry.cursor(), stamp: entry.stamp, target: target(&entry) });
            Ok(Step::Next)
        })?;
        Ok(found)
    }

    /// Releases the row that an entry made, if it still stands.
    fn release(&mut self, stamp: Stamp, target: Target) -> Result<(), MachineError> {
        let place = match target {
            Target::Null { bucket, key } => keys::object_null(bucket, &key),
            Target::Version { bucket, key, version } => keys::object_version(bucket, &key, version),
            Target::Bucket(name) => return self.release_bucket(stamp, &name),
            Target::Nothing => return Ok(()),
        };
        let Some(mut version) = queries::read::<crate::rows::ObjectVersion>(self.view, &place)? else { return Ok(()) };
        if version.stamp != stamp {
            return Ok(());
        }
        if version.kind == VersionKind::Tombstone {
            self.view.delete(place);
            self.state.tombstones = self.state.tombstones.saturating_sub(1);
        } else if !version.cursors.is_empty() {
            version.cursors = Default::default();
            self.view.put(place, version.encode());
        }
        Ok(())
    }

    /// A bucket's row stays for ever (rule 17); what decides concurrency does not.
    fn release_bucket(&mut self, stamp: Stamp, name: &BucketName) -> Result<(), MachineError> {
        if let Some(mut stored) = queries::stored_bucket(self.view, name)?
            && stored.row.updated == stamp
            && !stored.cursors.is_empty()
        {
            stored.cursors = Default::default();
            self.view.put(keys::bucket(name), stored.to_record());
        }
        Ok(())
    }
}

fn target(entry: &LogEntry) -> Target {
    // An entry is in a log only if its mutation could be read when it was applied.
    match Mutation::decode(&entry.mutation) {
        Ok(Mutation::Object { bucket, key, mode: VersionMode::Null | VersionMode::Suspended, .. }) => {
            Target::Null { bucket, key }
        }
        Ok(Mutation::Removed { bucket, key, version }) => Target::Version { bucket, key, version },
        Ok(Mutation::Bucket(row)) => Target::Bucket(row.name),
        // Versions of their own stay, and are joined with what is annotated later.
        Ok(
            Mutation::Object { mode: VersionMode::Versioned, .. }
            | Mutation::Annotated { .. }
            | Mutation::User(_)
            | Mutation::Group(_),
        )
        | Err(_) => Target::Nothing,
    }
}
