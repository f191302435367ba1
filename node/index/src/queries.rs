//! Reads of a partition and of the catalog. LIST stands in `list`.
//!
//! All take a view that must not change underneath; whether it is new enough (read index) is the caller's business.
//! Invariants: nothing here writes; a damaged row is an error, never an absence.

use std::borrow::Borrow;

use bytes::Bytes;
use meridian_replicator::{Cursor, LogEntry, LogHead, OriginCursor, StableTimes};
use meridian_types::{
    BucketId, BucketName, DatacenterId, EntryHash, Incarnation, LogPosition, ObjectKey, Plant, Planted, Sequence,
    Sound, Stamp, Timestamp, UploadId,
};

use crate::catalog_rows::{BucketRow, StoredBucket};
use crate::error::IndexError;
use crate::keys;
use crate::kv::{KvRead, Step};
pub use crate::list::{ListPage, ListQuery, list};
use crate::rows::{
    ConflictRow, FenceRow, ObjectVersion, Part, PartitionState, ReclaimRow, Row, StableRow, UploadRow, VersionId,
    VersionKind, row,
};
use crate::user_rows::{GroupRow, MemberKind, UserRow};
pub use crate::version_list::{ListedVersion, VersionListPage, VersionListQuery, list_versions};

row!(Cursor, Cursor, 1);

/// The length of the chained hash in front of a log row's entry.
pub(crate) const LOG_HASH_LENGTH: usize = 16;

/// Reads one row.
pub(crate) fn read<R: Row>(kv: &dyn KvRead, key: &[u8]) -> Result<Option<R>, IndexError> {
    kv.get(key)?.map(|bytes| R::from_record(&bytes).map_err(|error| IndexError::row(key, error))).transpose()
}

/// Scans `[start, end)` with a visitor that may fail.
pub(crate) fn scan(
    kv: &dyn KvRead,
    start: &[u8],
    end: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<Step, IndexError>,
) -> Result<(), IndexError> {
    let mut failed = None;
    kv.scan(start, end, &mut |key, value| {
        visit(key, value).unwrap_or_else(|error| {
            failed = Some(error);
            Step::Stop
        })
    })?;
    failed.map_or(Ok(()), Err)
}

/// Up to `limit` rows of `[start, end)`, each made from its key and value.
fn collect<T>(
    kv: &dyn KvRead,
    start: &[u8],
    end: &[u8],
    limit: usize,
    mut make: impl FnMut(&[u8], &[u8]) -> Result<Option<T>, IndexError>,
) -> Result<Vec<T>, IndexError> {
    let mut found = Vec::new();
    scan(kv, start, end, |key, value| {
        if found.len() == limit {
            return Ok(Step::Stop);
        }
        found.extend(make(key, value)?);
        Ok(if found.len() == limit { Step::Stop } else { Step::Next })
    })?;
    Ok(found)
}

fn decode<R: Row>(key: &[u8], value: &[u8]) -> Result<R, IndexError> {
    R::from_record(value).map_err(|error| IndexError::row(key, error))
}

/// The null version of a key, tombstones included.
pub(crate) fn null_version(
    kv: &dyn KvRead,
    bucket: BucketId,
    key: &ObjectKey,
) -> Result<Option<ObjectVersion>, IndexError> {
    read(kv, &keys::object_null(bucket, key))
}

/// The row that holds a version's place, tombstones included.
pub(crate) fn version_row(
    kv: &dyn KvRead,
    bucket: BucketId,
    key: &ObjectKey,
    version: VersionId,
) -> Result<Option<ObjectVersion>, IndexError> {
    match version {
        VersionId::Null => null_version(kv, bucket, key),
        VersionId::Stamp(stamp) => read(kv, &keys::object_version(bucket, key, stamp)),
    }
}

/// Whether a bucket ever held versions other than null ones here.
pub(crate) fn has_versions(kv: &dyn KvRead, bucket: BucketId) -> Result<bool, IndexError> {
    Ok(kv.get(&keys::versions_marker(bucket))?.is_some())
}

/// The newest version of a key other than the null one, removed ones passed over. A bucket that never held one costs one
/// look-up.
pub(crate) fn newest_version(
    kv: &dyn KvRead,
    bucket: BucketId,
    key: &ObjectKey,
) -> Result<Option<ObjectVersion>, IndexError> {
    if !has_versions(kv, bucket)? {
        return Ok(None);
    }
    let (start, end) = keys::object_versions(bucket, key);
    let newest = collect(kv, &start, &end, 1, |row, value| {
        let version: ObjectVersion = decode(row, value)?;
        Ok((version.kind != VersionKind::Tombstone).then_some(version))
    })?;
    Ok(newest.into_iter().next())
}

/// The one of the null version and the newest other version that is current: the greater stamp. A tombstone says that
/// the null version is gone, and so lets any other version pass.
pub(crate) fn current<V: Borrow<ObjectVersion>>(null: Option<V>, newest: Option<V>) -> Option<V> {
    match (null, newest) {
        (Some(null), Some(newest)) => {
            let is_gone = null.borrow().kind == VersionKind::Tombstone;
            Some(if is_gone || newest.borrow().stamp > null.borrow().stamp { newest } else { null })
        }
        (null, newest) => null.or(newest),
    }
}

/// A version that is there, be it an object or a delete marker.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn object_version(
    kv: &dyn KvRead,
    bucket: BucketId,
    key: &ObjectKey,
    version: VersionId,
) -> Result<Option<ObjectVersion>, IndexError> {
    Ok(version_row(kv, bucket, key, version)?.filter(|row| row.kind != VersionKind::Tombstone))
}

/// The object that a client sees under a key; `None` when there is none or its last mutation was a delete.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn object(kv: &dyn KvRead, bucket: BucketId, key: &ObjectKey) -> Result<Option<ObjectVersion>, IndexError> {
    Ok(object_row(kv, bucket, key)?.filter(|version| version.kind.is_visible()))
}

/// The current version of a key whatever its kind, so that a tombstone is told from an absence.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn object_row(kv: &dyn KvRead, bucket: BucketId, key: &ObjectKey) -> Result<Option<ObjectVersion>, IndexError> {
    Ok(current(null_version(kv, bucket, key)?, newest_version(kv, bucket, key)?))
}

/// Whether a bucket holds nothing that keeps it from being deleted: no object, no version and no delete marker.
/// Tombstones and uploads do not count (S3).
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn bucket_is_empty(kv: &dyn KvRead, bucket: BucketId) -> Result<bool, IndexError> {
    let start = keys::objects_from(bucket, "");
    let found = collect(kv, &start, &keys::successor(start.clone()), 1, |row, value| {
        let version: ObjectVersion = decode(row, value)?;
        Ok((version.kind != VersionKind::Tombstone).then_some(()))
    })?;
    Ok(found.is_empty())
}

/// Whether a bucket's mutations are refused here (rule 18).
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn is_fenced(kv: &dyn KvRead, bucket: BucketId) -> Result<bool, IndexError> {
    Ok(read::<FenceRow>(kv, &keys::fence(bucket))?.is_some_and(|fence| !fence.attempts.is_empty()))
}

/// An upload under way.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn upload(
    kv: &dyn KvRead,
    bucket: BucketId,
    key: &ObjectKey,
    upload: UploadId,
) -> Result<Option<UploadRow>, IndexError> {
    read(kv, &keys::upload(bucket, key, upload))
}

/// Up to `limit` parts of an upload with numbers above `after`, in their order.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn parts(
    kv: &dyn KvRead,
    bucket: BucketId,
    key: &ObjectKey,
    upload: UploadId,
    after: u16,
    limit: usize,
) -> Result<Vec<(u16, Part)>, IndexError> {
    let Some(first) = after.checked_add(1) else { return Ok(Vec::new()) };
    let (start, end) = (keys::part(bucket, key, upload, first), keys::parts_end(bucket, key, upload));
    collect(kv, &start, &end, limit, |row, value| {
        let number = keys::parse_part_number(row).ok_or_else(|| IndexError::key(row))?;
        Ok(Some((number, decode(row, value)?)))
    })
}

/// Up to `limit` uploads of keys that start with `prefix`, by key and then upload id. `after` is exclusive: with an
/// upload id the uploads behind it, without one those of greater keys.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn uploads(
    kv: &dyn KvRead,
    bucket: BucketId,
    prefix: &str,
    after: Option<(&ObjectKey, Option<UploadId>)>,
    limit: usize,
) -> Result<Vec<UploadRow>, IndexError> {
    let first = keys::uploads_from(bucket, prefix);
    let end = keys::successor(first.clone());
    let resumed = match after {
        None => Vec::new(),
        Some((key, None)) => keys::uploads_after(bucket, key),
        Some((key, Some(upload))) => keys::successor(keys::upload(bucket, key, upload)),
    };
    collect(kv, &first.max(resumed), &end, limit, |row, value| decode(row, value).map(Some))
}

pub(crate) fn stored_bucket(kv: &dyn KvRead, name: &BucketName) -> Result<Option<StoredBucket>, IndexError> {
    read(kv, &keys::bucket(name))
}

/// The row of a bucket name, deleted ones included: the caller looks at its state.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn bucket(kv: &dyn KvRead, name: &BucketName) -> Result<Option<BucketRow>, IndexError> {
    Ok(stored_bucket(kv, name)?.map(|stored| stored.row))
}

/// The row of the bucket with this id, while its name has no later bucket; it may be deleted.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn bucket_by_id(kv: &dyn KvRead, id: BucketId) -> Result<Option<BucketRow>, IndexError> {
    let start = keys::bucket_names(id);
    let name = collect(kv, &start, &keys::successor(start.clone()), 1, |row, _| {
        keys::parse_bucket_name(row).ok_or_else(|| IndexError::key(row)).map(Some)
    })?;
    let Some(name) = name.first() else { return Ok(None) };
    Ok(bucket(kv, name)?.filter(|row| row.id == id))
}

/// All active buckets by name.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn buckets(kv: &dyn KvRead) -> Result<Vec<BucketRow>, IndexError> {
    collect(kv, keys::BUCKETS, &keys::successor(keys::BUCKETS.to_vec()), usize::MAX, |key, value| {
        let stored: StoredBucket = decode(key, value)?;
        Ok(stored.row.is_active().then_some(stored.row))
    })
}

pub(crate) fn user_row(kv: &dyn KvRead, name: &str) -> Result<Option<UserRow>, IndexError> {
    read(kv, &keys::user(name))
}

/// An active user by name.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn user(kv: &dyn KvRead, name: &str) -> Result<Option<UserRow>, IndexError> {
    Ok(user_row(kv, name)?.filter(UserRow::is_active))
}

/// The active user that holds an access key. Where two datacenters gave one key to two users while cut off, it is the
/// first of them by name, everywhere alike.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn user_by_access_key(kv: &dyn KvRead, access_key: &str) -> Result<Option<UserRow>, IndexError> {
    if access_key.contains('\0') {
        return Ok(None); // it would read the rows of another key
    }
    let start = keys::access_keys(access_key);
    let names = collect(kv, &start, &keys::successor(start.clone()), usize::MAX, |row, _| {
        keys::parse_access_key_user(row).ok_or_else(|| IndexError::key(row)).map(|name| Some(name.to_owned()))
    })?;
    for name in names {
        if let Some(user) = user(kv, &name)? {
            return Ok(Some(user));
        }
    }
    Ok(None)
}

/// All active users by name.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn users(kv: &dyn KvRead) -> Result<Vec<UserRow>, IndexError> {
    let mut rows = all_members(kv)?;
    rows.retain(|row| row.profile.kind == MemberKind::User);
    Ok(rows)
}

/// All active rows of users, and of what accounts have made: groups, roles, policies.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn all_members(kv: &dyn KvRead) -> Result<Vec<UserRow>, IndexError> {
    collect(kv, keys::USERS, &keys::successor(keys::USERS.to_vec()), usize::MAX, |key, value| {
        let user: UserRow = decode(key, value)?;
        Ok(user.is_active().then_some(user))
    })
}

pub(crate) fn group_row(kv: &dyn KvRead, name: &str) -> Result<Option<GroupRow>, IndexError> {
    read(kv, &keys::group(name))
}

/// An active group by name.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn group(kv: &dyn KvRead, name: &str) -> Result<Option<GroupRow>, IndexError> {
    Ok(group_row(kv, name)?.filter(GroupRow::is_active))
}

/// All active groups by name.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn groups(kv: &dyn KvRead) -> Result<Vec<GroupRow>, IndexError> {
    collect(kv, keys::GROUPS, &keys::successor(keys::GROUPS.to_vec()), usize::MAX, |key, value| {
        let group: GroupRow = decode(key, value)?;
        Ok(group.is_active().then_some(group))
    })
}

/// How often users and groups have changed here: what was read of them stays true while this does.
///
/// # Errors
/// `IndexError` when the store fails or the row is damaged.
pub fn user_changes(kv: &dyn KvRead) -> Result<u64, IndexError> {
    let Some(bytes) = kv.get(keys::USER_CHANGES)? else { return Ok(0) };
    let count = <[u8; 8]>::try_from(&bytes[..]).map_err(|_| IndexError::key(keys::USER_CHANGES))?;
    Ok(u64::from_be_bytes(count))
}

/// The partition's own state; the default when it has applied nothing.
///
/// # Errors
/// `IndexError` when the store fails or the row is damaged.
pub fn state(kv: &dyn KvRead) -> Result<PartitionState, IndexError> {
    Ok(read(kv, keys::STATE)?.unwrap_or_default())
}

/// The end of this datacenter's own log of the partition.
///
/// # Errors
/// `IndexError` when the store fails or the row is damaged.
pub fn log_head(kv: &dyn KvRead, own: DatacenterId) -> Result<LogHead, IndexError> {
    let state = state(kv)?;
    let sequence = Sequence(state.next.0 - 1);
    let position = LogPosition { origin: own, incarnation: state.head_incarnation, sequence, hash: state.head };
    Ok(LogHead { position, closed: state.closed })
}

/// The first sequence still kept of an origin's log. A log always keeps its last entry, so one that keeps nothing has
/// had none, and what follows is the first.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn oldest_kept(kv: &dyn KvRead, origin: DatacenterId) -> Result<Sequence, IndexError> {
    let (start, end) = keys::log_of(origin);
    let first = collect(kv, &start, &end, 1, |row, _| {
        keys::parse_log_sequence(row).ok_or_else(|| IndexError::key(row)).map(Some)
    })?;
    Ok(first.first().copied().unwrap_or(Sequence::ZERO.next()))
}

/// Encoded `LogEntry` records of an origin from (incarnation, from) on, later incarnations included: at most
/// `entries_max`, and as many as fit into `bytes_max`, but at least one.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn log_entries(
    kv: &dyn KvRead,
    origin: DatacenterId,
    incarnation: Incarnation,
    from: Sequence,
    entries_max: usize,
    bytes_max: usize,
) -> Result<Vec<Bytes>, IndexError> {
    let (start, end) = (keys::log(origin, incarnation, from), keys::log_of(origin).1);
    let (mut found, mut bytes) = (Vec::new(), 0);
    scan(kv, &start, &end, |row, value| {
        let entry = value.get(LOG_HASH_LENGTH..).ok_or_else(|| IndexError::key(row))?;
        bytes += entry.len();
        if found.len() == entries_max || (bytes > bytes_max && !found.is_empty()) {
            return Ok(Step::Stop);
        }
        found.push(Bytes::copy_from_slice(entry));
        Ok(Step::Next)
    })?;
    Ok(found)
}

/// The stamp of the entry at a place of an origin's log; `None` when this log holds no entry there. A log always keeps its
/// last entry, and its stamps ascend: at a cursor it is the greatest that was applied.
///
/// # Errors
/// `IndexError` when the store fails or the row is damaged.
pub fn entry_stamp_at(kv: &dyn KvRead, origin: DatacenterId, at: OriginCursor) -> Result<Option<Stamp>, IndexError> {
    let row = keys::log(origin, at.incarnation, at.sequence);
    let Some(value) = kv.get(&row)? else { return Ok(None) };
    let entry = value.get(LOG_HASH_LENGTH..).ok_or_else(|| IndexError::key(&row))?;
    LogEntry::decode(entry).map(|entry| Some(entry.stamp)).map_err(|error| IndexError::row(&row, error))
}

/// The chained hash of the entry at a place of an origin's log; `None` when this log holds no entry there. Before the
/// first entry it is `EntryHash::START`.
///
/// # Errors
/// `IndexError` when the store fails or the row is damaged.
pub fn entry_hash_at(
    kv: &dyn KvRead,
    origin: DatacenterId,
    incarnation: Incarnation,
    sequence: Sequence,
) -> Result<Option<EntryHash>, IndexError> {
    if sequence == Sequence::ZERO {
        return Ok(Some(EntryHash::START));
    }
    let row = keys::log(origin, incarnation, sequence);
    let Some(value) = kv.get(&row)? else { return Ok(None) };
    let hash = value.first_chunk::<LOG_HASH_LENGTH>().ok_or_else(|| IndexError::key(&row))?;
    Ok(Some(EntryHash(*hash)))
}

/// How far an origin's log is applied here.
///
/// # Errors
/// `IndexError` when the store fails or the row is damaged.
pub fn cursor(kv: &dyn KvRead, origin: DatacenterId) -> Result<Cursor, IndexError> {
    Ok(read(kv, &keys::cursor(origin))?.unwrap_or_else(|| Cursor::start(origin)))
}

/// The cursors of all origins that anything was heard of, by datacenter.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn cursors(kv: &dyn KvRead) -> Result<Vec<Cursor>, IndexError> {
    let end = keys::successor(keys::CURSORS.to_vec());
    collect(kv, keys::CURSORS, &end, usize::MAX, |row, value| decode(row, value).map(Some))
}

/// Up to `limit` recorded losers with stamps above `after`, in the order of their stamps.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn conflicts(kv: &dyn KvRead, after: Option<Stamp>, limit: usize) -> Result<Vec<ConflictRow>, IndexError> {
    let start = after.map_or_else(|| keys::CONFLICTS.to_vec(), keys::conflicts_after);
    let end = keys::successor(keys::CONFLICTS.to_vec());
    collect(kv, &start, &end, limit, |row, value| decode(row, value).map(Some))
}

/// A row of the reclaim queue with what its key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reclaimable {
    /// What took the row's place; the row stays whole until stable-data has passed it (rule 14).
    pub superseding: Stamp,
    pub bucket: BucketId,
    pub key: ObjectKey,
    pub row: ReclaimRow,
}

/// Up to `limit` rows of the reclaim queue, in the order of the stamps that superseded them: rows whose successors' bytes
/// every member has (rule 14). The queue is the part of the superseded rows that the committed stable-data has passed.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn reclaimable(kv: &dyn KvRead, limit: usize) -> Result<Vec<Reclaimable>, IndexError> {
    reclaimable_planted(Sound, kv, limit)
}

/// `reclaimable`, with mistakes for a simulation to find.
///
/// # Errors
/// As `reclaimable`.
pub fn reclaimable_planted(plant: impl Plant, kv: &dyn KvRead, limit: usize) -> Result<Vec<Reclaimable>, IndexError> {
    let times = stable(kv)?;
    let through = if plant.has(Planted::ReclaimedAtStableMeta) { times.meta } else { times.data };
    superseded(kv, through, limit)
}

/// Up to `limit` superseded rows whose successors are stamped at or below `through`, in the order of those stamps.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn superseded(kv: &dyn KvRead, through: Timestamp, limit: usize) -> Result<Vec<Reclaimable>, IndexError> {
    collect(kv, keys::RECLAIM, &keys::reclaim_behind(through), limit, |row, value| {
        let (superseding, bucket, key) = keys::parse_reclaim(row).ok_or_else(|| IndexError::key(row))?;
        Ok(Some(Reclaimable { superseding, bucket, key, row: decode(row, value)? }))
    })
}

pub(crate) fn stable_row(kv: &dyn KvRead) -> Result<StableRow, IndexError> {
    Ok(read(kv, keys::STABLE)?.unwrap_or_default())
}

/// What every member has, as last committed in this partition.
///
/// # Errors
/// `IndexError` when the store fails or the row is damaged.
pub fn stable(kv: &dyn KvRead) -> Result<StableTimes, IndexError> {
    Ok(stable_row(kv)?.times)
}

/// The part of an origin's log whose rows are still to be released: `[start, end)`.
pub(crate) fn unreleased(row: &StableRow, origin: DatacenterId) -> (Vec<u8>, Vec<u8>) {
    let released = row.released.get(origin);
    (keys::log(origin, released.incarnation, released.sequence.next()), keys::log_of(origin).1)
}

/// Whether `Command::Stable(times)` would change more here than the times: it reads the next entry of each log and the next
/// superseded row, so that a partition in which nothing is due costs no commit.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn is_stable_due(kv: &dyn KvRead, own: DatacenterId, times: StableTimes) -> Result<bool, IndexError> {
    let (row, state) = (stable_row(kv)?, state(kv)?);
    for origin in state.cursors.iter().map(|(origin, _)| origin).chain([own]) {
        let (start, end) = unreleased(&row, origin);
        let next = collect(kv, &start, &end, 1, |key, value| {
            let encoded = value.get(LOG_HASH_LENGTH..).ok_or_else(|| IndexError::key(key))?;
            LogEntry::decode(encoded).map(Some).map_err(|error| IndexError::row(key, error))
        })?;
        if next.first().is_some_and(|entry| entry.stamp.timestamp <= times.settled) {
            return Ok(true);
        }
    }
    let (start, end) = (keys::reclaim_behind(row.times.data), keys::reclaim_behind(times.data));
    if start >= end {
        return Ok(false);
    }
    Ok(!collect(kv, &start, &end, 1, |_, _| Ok(Some(())))?.is_empty())
}
