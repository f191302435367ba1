//! Puts and deletes: an object version in its row and in the log.
//!
//! Invariants: a condition is checked against the current object in the same apply that changes it; a mutation enters
//! the log exactly when its row is written.

use meridian_replicator::OriginCursor;
use meridian_types::limits::{CHUNKS_IN_ROW_MAX, MUTATION_SIZE_MAX};
use meridian_types::{BucketId, ObjectKey, Plant, Stamp};

use crate::apply::Apply;
use crate::command::{Condition, Mutation, Outcome};
use crate::machine::MachineError;
use crate::queries;
use crate::rows::{ObjectBody, ObjectVersion, VersionKind, VersionMode};

/// What a key holds before a mutation.
pub(super) struct Before {
    /// The null version, tombstones included: what a null mutation supersedes.
    pub(super) null: Option<ObjectVersion>,
    /// The visible object's ETag.
    visible: Option<String>,
}

impl Before {
    pub(super) fn is_visible(&self) -> bool {
        self.visible.is_some()
    }

    pub(super) fn meets(&self, condition: &Condition) -> bool {
        match condition {
            Condition::None => true,
            Condition::Absent => self.visible.is_none(),
            Condition::Etag(wanted) => self.visible.as_ref().is_some_and(|etag| wanted == "*" || wanted == etag),
        }
    }
}

impl<P: Plant> Apply<'_, '_, P> {
    pub(super) fn put(
        &mut self,
        stamp: Stamp,
        bucket: BucketId,
        key: ObjectKey,
        mode: VersionMode,
        body: ObjectBody,
        condition: &Condition,
    ) -> Result<Outcome, MachineError> {
        if self.is_fenced(bucket)? {
            return Ok(Outcome::Fenced);
        }
        let before = self.before(bucket, &key)?;
        if !before.meets(condition) {
            return Ok(Outcome::PreconditionFailed);
        }
        let replaced = before.is_visible();
        if !self.store(stamp, bucket, key, mode, VersionKind::Object(body), before)? {
            return Ok(Outcome::TooLarge);
        }
        Ok(Outcome::Stored { stamp, version: mode.version_id(stamp), replaced })
    }

    pub(super) fn delete(
        &mut self,
        stamp: Stamp,
        bucket: BucketId,
        key: ObjectKey,
        mode: VersionMode,
        condition: &Condition,
    ) -> Result<Outcome, MachineError> {
        if self.is_fenced(bucket)? {
            return Ok(Outcome::Fenced);
        }
        let before = self.before(bucket, &key)?;
        if !before.meets(condition) {
            return Ok(Outcome::PreconditionFailed);
        }
        let existed = before.is_visible();
        let kind = match mode {
            VersionMode::Null => VersionKind::Tombstone,
            VersionMode::Versioned => VersionKind::DeleteMarker,
        };
        self.store(stamp, bucket, key, mode, kind, before)?;
        Ok(Outcome::Deleted { stamp, existed })
    }

    /// What `key` holds now. A partition without versions pays one look-up.
    pub(super) fn before(&self, bucket: BucketId, key: &ObjectKey) -> Result<Before, MachineError> {
        let null = queries::null_version(self.view, bucket, key)?;
        let newest = match self.state.versioned_buckets {
            0 => None,
            _ => queries::newest_version(self.view, bucket, key)?,
        };
        let current = queries::current(null.as_ref(), newest.as_ref());
        let visible = current.and_then(ObjectVersion::body).map(|body| body.etag.clone());
        Ok(Before { null, visible })
    }

    /// Writes a new version to its row and to the log. False when it is larger than a row or an entry may be; then
    /// nothing is written.
    pub(super) fn store(
        &mut self,
        stamp: Stamp,
        bucket: BucketId,
        key: ObjectKey,
        mode: VersionMode,
        kind: VersionKind,
        before: Before,
    ) -> Result<bool, MachineError> {
        if kind.body().is_some_and(|body| body.chunks.len() > CHUNKS_IN_ROW_MAX) {
            return Ok(false);
        }
        let mutation = Mutation::Object { bucket, key, mode, kind };
        let encoded = mutation.encode();
        if encoded.len() > MUTATION_SIZE_MAX {
            return Ok(false);
        }
        let Mutation::Object { key, kind, .. } = mutation else { unreachable!("made above") };
        let origin: OriginCursor = self.next_place();
        let version =
            ObjectVersion { stamp, version: mode.version_id(stamp), kind, origin, cursors: self.state.cursors.clone() };
        self.append_log(stamp, encoded);
        match mode {
            VersionMode::Null => self.place_null(bucket, &key, version, before.null)?,
            VersionMode::Versioned => self.place_version(bucket, &key, version)?,
        }
        Ok(true)
    }
}
