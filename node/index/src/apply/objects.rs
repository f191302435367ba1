//! Puts and deletes: an object version in its row and in the log.
//!
//! Invariants: a condition is checked against the current object in the same apply that changes it; a mutation enters
//! the log exactly when its row is written.

use meridian_replicator::OriginCursor;
use meridian_types::limits::{CHUNKS_IN_ROW_MAX, MUTATION_SIZE_MAX};
use meridian_types::{BucketId, ObjectKey, Plant, Stamp};

use crate::apply::Apply;
use crate::attributes::{Change, Retention, RetentionMode, check_removal, check_retention_change};
use crate::command::{Condition, Mutation, Outcome, Wanted};
use crate::machine::MachineError;
use crate::queries;
use crate::rows::{ObjectBody, ObjectVersion, VersionId, VersionKind, VersionMode};

/// What a key holds before a mutation.
pub(super) struct Before {
    /// The null version, tombstones included: what a null mutation supersedes.
    pub(super) null: Option<ObjectVersion>,
    visible: Option<Visible>,
}

/// What conditions ask of an object.
struct Visible {
    etag: String,
    size: u64,
    last_modified_unix_s: u64,
    stamp: Stamp,
}

impl Visible {
    fn of(version: &ObjectVersion) -> Option<Self> {
        let body = version.body()?;
        let last_modified_unix_s = version.stamp.timestamp.unix_ms() / 1000;
        Some(Self { etag: body.etag.clone(), size: body.size, last_modified_unix_s, stamp: version.stamp })
    }

    fn has_etag(&self, wanted: &str) -> bool {
        wanted == "*" || wanted == self.etag
    }

    fn is(&self, wanted: &Wanted) -> bool {
        wanted.etag.as_ref().is_none_or(|etag| self.has_etag(etag))
            && wanted.size.is_none_or(|size| size == self.size)
            && wanted.last_modified_unix_s.is_none_or(|time| time == self.last_modified_unix_s)
            && wanted.stamp.is_none_or(|stamp| stamp == self.stamp)
    }
}

fn meets(visible: Option<&Visible>, condition: &Condition) -> bool {
    match condition {
        Condition::None => true,
        Condition::Absent => visible.is_none(),
        Condition::Etag(wanted) => visible.is_some_and(|visible| visible.has_etag(wanted)),
        Condition::Matches(wanted) => visible.is_some_and(|visible| visible.is(wanted)),
    }
}

impl Before {
    pub(super) fn is_visible(&self) -> bool {
        self.visible.is_some()
    }

    pub(super) fn meets(&self, condition: &Condition) -> bool {
        meets(self.visible.as_ref(), condition)
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
        if *condition != Condition::None && !before.is_visible() {
            // A conditional delete of nothing has nothing to do, and succeeds (S3 DeleteObject).
            return Ok(Outcome::Deleted { stamp, existed: false, version: None, marker: false });
        }
        if !before.meets(condition) {
            return Ok(Outcome::PreconditionFailed);
        }
        let existed = before.is_visible();
        let (kind, version) = match mode {
            VersionMode::Null => (VersionKind::Tombstone, None),
            VersionMode::Versioned | VersionMode::Suspended => {
                (VersionKind::DeleteMarker, Some(mode.version_id(stamp)))
            }
        };
        self.store(stamp, bucket, key, mode, kind, before)?;
        Ok(Outcome::Deleted { stamp, existed, version, marker: version.is_some() })
    }

    /// Removes one version for good, unless it is locked.
    pub(super) fn delete_version(
        &mut self,
        stamp: Stamp,
        bucket: BucketId,
        key: ObjectKey,
        version: VersionId,
        condition: &Condition,
        bypass_governance: bool,
    ) -> Result<Outcome, MachineError> {
        if self.is_fenced(bucket)? {
            return Ok(Outcome::Fenced);
        }
        let existing = queries::version_row(self.view, bucket, &key, version)?;
        let live = existing.as_ref().filter(|row| row.kind != VersionKind::Tombstone);
        let existed = live.is_some_and(|row| row.kind.is_visible());
        let marker = live.is_some_and(|row| row.kind == VersionKind::DeleteMarker);
        let outcome = Outcome::Deleted { stamp, existed, version: Some(version), marker };
        match live {
            Some(row) => {
                let is_named_marker = marker && *condition == Condition::Matches(Wanted::stamped(row.stamp));
                if !is_named_marker && !meets(Visible::of(row).as_ref(), condition) {
                    return Ok(Outcome::PreconditionFailed);
                }
                let attributes = row.body().map(|body| body.attributes_now());
                let now_unix_ms = stamp.timestamp.unix_ms();
                if attributes.is_some_and(|it| check_removal(&it, now_unix_ms, bypass_governance).is_err()) {
                    return Ok(Outcome::Locked);
                }
            }
            // A version that another datacenter wrote may be under way: a tombstone waits for it. One from the future, or
            // in a bucket without versions, can't be.
            None => {
                let is_possible = match version {
                    VersionId::Null => false,
                    VersionId::Stamp(removed) => {
                        existing.is_none() && removed < stamp && queries::has_versions(self.view, bucket)?
                    }
                };
                if *condition != Condition::None || !is_possible {
                    return Ok(outcome);
                }
            }
        }
        let (origin, cursors) = (self.next_place(), self.state.cursors.clone());
        let mutation = match version {
            VersionId::Null => {
                Mutation::Object { bucket, key: key.clone(), mode: VersionMode::Null, kind: VersionKind::Tombstone }
            }
            VersionId::Stamp(version) => Mutation::Removed { bucket, key: key.clone(), version },
        };
        self.append_log(stamp, mutation.encode());
        let tombstone = ObjectVersion { stamp, version, kind: VersionKind::Tombstone, origin, cursors };
        self.place(bucket, &key, tombstone, existing)?;
        Ok(outcome)
    }

    /// Changes what is said of a version. The row goes into the log whole, so that it merges wherever it arrives.
    pub(super) fn annotate(
        &mut self,
        stamp: Stamp,
        bucket: BucketId,
        key: ObjectKey,
        version: Option<VersionId>,
        change: Change,
        bypass_governance: bool,
    ) -> Result<Outcome, MachineError> {
        if self.is_fenced(bucket)? {
            return Ok(Outcome::Fenced);
        }
        let existing = match version {
            Some(version) => queries::version_row(self.view, bucket, &key, version)?,
            None => queries::object_row(self.view, bucket, &key)?,
        };
        let Some(existing) = existing else { return Ok(Outcome::NoSuchVersion) };
        let mut row = existing.clone();
        let VersionKind::Object(body) = &mut row.kind else { return Ok(Outcome::NoSuchVersion) };
        if let Change::Retention(new) = &change {
            let known = body.attributes_now().retention;
            let now_unix_ms = stamp.timestamp.unix_ms();
            if check_retention_change(known, *new, now_unix_ms, bypass_governance).is_err() {
                return Ok(Outcome::Locked);
            }
        }
        if let Some(Retention { mode: RetentionMode::Compliance, until_unix_ms }) = body.attributes.retention {
            // The write's own promise counts among those that no merge takes back.
            let annotations = body.annotations.get_or_insert_default();
            annotations.compliance_until_unix_ms = annotations.compliance_until_unix_ms.max(until_unix_ms);
        }
        body.annotations.get_or_insert_default().set(stamp, change);
        let version = row.version;
        let encoded = Mutation::Annotated { bucket, key: key.clone(), row: Box::new(row.clone()) }.encode();
        if encoded.len() > MUTATION_SIZE_MAX {
            return Ok(Outcome::TooLarge);
        }
        self.append_log(stamp, encoded);
        self.place(bucket, &key, row, Some(existing))?;
        Ok(Outcome::Annotated { version })
    }

    /// What `key` holds now. A partition without versions pays one look-up.
    pub(super) fn before(&self, bucket: BucketId, key: &ObjectKey) -> Result<Before, MachineError> {
        let null = queries::null_version(self.view, bucket, key)?;
        let newest = match self.state.versioned_buckets {
            0 => None,
            _ => queries::newest_version(self.view, bucket, key)?,
        };
        let current = queries::current(null.as_ref(), newest.as_ref());
        let visible = current.and_then(Visible::of);
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
        let existing = if version.version == VersionId::Null { before.null } else { None }; // a stamp is new
        self.place(bucket, &key, version, existing)?;
        Ok(true)
    }
}
