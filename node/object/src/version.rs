//! Versions as clients see them: which ids they are told, what a write locks by default, and the pages of all versions.
//!
//! Invariants: a bucket that never had versioning tells no version ids; every page is read at an index taken after the
//! request arrived, in every partition (rule 23).

use std::cmp::Reverse;

use meridian_index::{
    Attributes, BucketRow, Retention, VersionId, VersionKind, VersionListPage, VersionListQuery, Versioning, queries,
};
use meridian_meta::ReadView;
use meridian_types::limits::LIST_PAGE_MAX;
use meridian_types::{BucketId, BucketName, ObjectKey, Stamp};

use crate::list::on_blocking_thread;
use crate::merge::{Fetched, Item, Lane, merge, share_of};
use crate::objects::Inner;
use crate::read_row::{index_error, read_row};
use crate::{ObjectError, ObjectInfo, Objects};

const DAY_MS: u64 = 24 * 3600 * 1000;
/// S3 counts a year of a default retention as so many days.
const YEAR_DAYS: u64 = 365;

#[derive(Debug, Clone)]
pub struct ListVersionsRequest {
    pub bucket: BucketName,
    pub prefix: String,
    /// Empty is the same as none.
    pub delimiter: Option<String>,
    /// Exclusive, unless `after_version` is given: then the versions of this key behind it come too.
    pub after_key: Option<String>,
    pub after_version: Option<VersionId>,
    /// Most versions and common prefixes together, cut to `LIST_PAGE_MAX`; 0 gives an empty page.
    pub limit: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionInfo {
    pub key: ObjectKey,
    pub version: VersionId,
    pub is_latest: bool,
    pub last_modified_unix_ms: u64,
    /// `None`: a delete marker.
    pub object: Option<ObjectInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionsPage {
    /// By key, and within a key the newest first.
    pub versions: Vec<VersionInfo>,
    pub common_prefixes: Vec<String>,
    pub truncated: bool,
    /// Of a truncated page: the last key or common prefix.
    pub next_key: Option<String>,
    /// Of a truncated page that ended with a version.
    pub next_version: Option<VersionId>,
}

/// The id that clients are told of a version; none in a bucket that never had versioning.
pub(crate) fn shown_version(bucket: &BucketRow, version: VersionId) -> Option<VersionId> {
    (bucket.settings.versioning != Versioning::Off).then_some(version)
}

/// Gives a new version the bucket's default retention if it has none of its own.
///
/// # Errors
/// `NoObjectLock` for a lock in a bucket that was not made for it.
pub(crate) fn with_default_lock(
    bucket: &BucketRow,
    mut attributes: Attributes,
    now_unix_ms: u64,
) -> Result<Attributes, ObjectError> {
    let Some(lock) = bucket.settings.object_lock else {
        let asked = attributes.retention.is_some() || attributes.legal_hold.is_some();
        return if asked { Err(ObjectError::NoObjectLock) } else { Ok(attributes) };
    };
    if attributes.retention.is_none()
        && let Some(default) = lock.default
    {
        let days = u64::from(default.days) + u64::from(default.years) * YEAR_DAYS;
        attributes.retention =
            Some(Retention { mode: default.mode, until_unix_ms: now_unix_ms.saturating_add(days * DAY_MS) });
    }
    Ok(attributes)
}

/// The order of versions in a page: key, then the newest first; a common prefix has no stamp.
type Place = (String, Option<Reverse<Stamp>>);

impl Objects {
    /// One page over all partitions.
    ///
    /// # Errors
    /// `NoSuchBucket`; `Unavailable` when one partition can't be read: never a partial page.
    pub async fn list_versions(&self, request: ListVersionsRequest) -> Result<VersionsPage, ObjectError> {
        let inner = &self.inner;
        let bucket = inner.bucket_row(&request.bucket).await?.id;
        let limit = request.limit.min(LIST_PAGE_MAX);
        if limit == 0 {
            let (versions, common_prefixes) = (Vec::new(), Vec::new());
            return Ok(VersionsPage {
                versions,
                common_prefixes,
                truncated: false,
                next_key: None,
                next_version: None,
            });
        }
        let after = match (request.after_key.filter(|key| !key.is_empty()), request.after_version) {
            (None, _) => None,
            (Some(key), None) => Some((key, None)),
            (Some(key), Some(VersionId::Stamp(stamp))) => Some((key, Some(stamp))),
            (Some(key), Some(VersionId::Null)) => {
                let stamp = inner.null_stamp(bucket, &key).await?;
                Some((key, stamp))
            }
        };
        let views = inner.read_all().await?;
        let query = VersionListQuery {
            prefix: request.prefix,
            delimiter: request.delimiter,
            after,
            limit: share_of(limit, views.len()),
        };
        on_blocking_thread(move || merge_views(views, bucket, &query, limit)).await
    }
}

impl Inner {
    /// Where the null version of a key stands among its versions.
    async fn null_stamp(&self, bucket: BucketId, key: &str) -> Result<Option<Stamp>, ObjectError> {
        let Ok(key) = key.parse::<ObjectKey>() else { return Ok(None) };
        let view = self.read(self.partition(bucket, &key)).await?;
        let null = queries::object_version(&view, bucket, &key, VersionId::Null).map_err(index_error)?;
        Ok(null.map(|row| row.stamp))
    }
}

fn merge_views(
    views: Vec<ReadView>,
    bucket: BucketId,
    query: &VersionListQuery,
    limit: usize,
) -> Result<VersionsPage, ObjectError> {
    let mut lanes: Vec<_> = views
        .into_iter()
        .map(|view| {
            let mut query = query.clone();
            Lane::new(move || {
                let page = queries::list_versions(&view, bucket, &query).map_err(index_error)?;
                let (items, more) = items_of(page);
                if let Some(last) = items.last() {
                    query.after = Some((last.at.0.clone(), last.at.1.map(|Reverse(stamp)| stamp)));
                }
                Ok((items, more))
            })
        })
        .collect();
    let (items, truncated) = merge(&mut lanes, limit)?;
    let (next_key, next_version) = match items.last().filter(|_| truncated) {
        Some(last) => (Some(last.at.0.clone()), last.value.as_ref().map(|info| info.version)),
        None => (None, None),
    };
    let (mut versions, mut common_prefixes) = (Vec::new(), Vec::new());
    for item in items {
        match item.value {
            Some(info) => versions.push(info),
            None => common_prefixes.push(item.at.0),
        }
    }
    Ok(VersionsPage { versions, common_prefixes, truncated, next_key, next_version })
}

/// A partition's versions and common prefixes as one ordered run.
fn items_of(page: VersionListPage) -> Fetched<Place, VersionInfo> {
    let mut items: Vec<Item<Place, VersionInfo>> = Vec::with_capacity(page.versions.len() + page.common_prefixes.len());
    for listed in page.versions {
        let (stamp, version, is_latest) = (listed.row.stamp, listed.row.version, listed.is_latest);
        let at = (listed.key.as_str().to_owned(), Some(Reverse(stamp)));
        let is_marker = listed.row.kind == VersionKind::DeleteMarker;
        let object = read_row(listed.key.clone(), listed.row).map(|row| row.info);
        debug_assert_eq!(object.is_none(), is_marker, "tombstones are not listed");
        let last_modified_unix_ms = stamp.timestamp.unix_ms();
        let value = Some(VersionInfo { key: listed.key, version, is_latest, last_modified_unix_ms, object });
        items.push(Item { at, value });
    }
    items.extend(page.common_prefixes.into_iter().map(|prefix| Item { at: (prefix, None), value: None }));
    items.sort_by(|a, b| a.at.cmp(&b.at));
    (items, page.truncated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_index::{BucketSettings, BucketState, DefaultRetention, ObjectLock, RetentionMode};
    use meridian_types::{DatacenterId, Timestamp};

    fn bucket(object_lock: Option<ObjectLock>) -> BucketRow {
        let name: BucketName = "bucket".parse().unwrap();
        let stamp = Stamp::new(Timestamp::ZERO, DatacenterId::new(1).unwrap());
        BucketRow {
            id: BucketId::derive(&name, 0),
            name,
            deletions: 0,
            created: stamp,
            updated: stamp,
            owner: "ann".to_owned(),
            state: BucketState::Active,
            settings: BucketSettings { object_lock, ..BucketSettings::default() },
            changes: Default::default(),
        }
    }

    #[test]
    fn a_default_retention_counts_from_the_write_and_gives_way_to_an_own_one() {
        let mode = RetentionMode::Governance;
        let locking = |days, years| bucket(Some(ObjectLock { default: Some(DefaultRetention { mode, days, years }) }));
        let given = |bucket: &BucketRow, attributes| with_default_lock(bucket, attributes, 1000).map(|it| it.retention);
        let until = |until_unix_ms| Some(Retention { mode, until_unix_ms });
        assert_eq!(given(&locking(2, 0), Attributes::default()).unwrap(), until(1000 + 2 * DAY_MS));
        assert_eq!(given(&locking(0, 1), Attributes::default()).unwrap(), until(1000 + 365 * DAY_MS));
        let own = Attributes { retention: until(5), ..Attributes::default() };
        assert_eq!(given(&locking(2, 0), own.clone()).unwrap(), until(5));
        assert_eq!(given(&bucket(Some(ObjectLock::default())), Attributes::default()).unwrap(), None);
        assert!(matches!(given(&bucket(None), own), Err(ObjectError::NoObjectLock)));
        assert_eq!(given(&bucket(None), Attributes::default()).unwrap(), None);
    }
}
