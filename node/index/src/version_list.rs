//! LIST of all versions of one partition: by key in the order of its bytes, and within a key the newest first, the null
//! version at the place of its stamp. Delete markers are listed, removed versions are not.
//!
//! Invariants: one version of a key at most is its latest, and it is the one that a read without a version id finds; a
//! common prefix is listed for any version under it, and once it is, the scan seeks past it.

use meridian_types::{BucketId, ObjectKey, Stamp};

use crate::error::IndexError;
use crate::keys;
use crate::kv::{KvRead, Step};
use crate::list::common_prefix;
use crate::queries::{self, scan};
use crate::rows::{ObjectVersion, Row, VersionKind};

/// What to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionListQuery {
    pub prefix: String,
    /// Keys that hold it behind the prefix are rolled up into one common prefix. Empty is the same as none.
    pub delimiter: Option<String>,
    /// Exclusive: keys and common prefixes above it; with a stamp also the versions of this very key below it.
    pub after: Option<(String, Option<Stamp>)>,
    /// Most versions and common prefixes together. Zero gives an empty page that is not truncated.
    pub limit: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedVersion {
    pub key: ObjectKey,
    /// An object or a delete marker.
    pub row: ObjectVersion,
    /// What a read of the key finds.
    pub is_latest: bool,
}

/// One page of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionListPage {
    pub versions: Vec<ListedVersion>,
    pub common_prefixes: Vec<String>,
    /// More follow behind the greatest of versions and common prefixes.
    pub truncated: bool,
}

/// Lists one page.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn list_versions(
    kv: &dyn KvRead,
    bucket: BucketId,
    query: &VersionListQuery,
) -> Result<VersionListPage, IndexError> {
    let mut listing = Listing {
        bucket,
        query,
        delimiter: query.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty()),
        latest: None,
        null: None,
        page: VersionListPage::default(),
    };
    if query.limit == 0 {
        return Ok(listing.page);
    }
    let first = keys::objects_from(bucket, &query.prefix);
    let end = keys::successor(first.clone());
    let start = listing.start(kv)?.unwrap_or_default().max(first);
    scan(kv, &start, &end, |row, value| {
        let (key, is_null) = keys::parse_object(row).ok_or_else(|| IndexError::key(row))?;
        let version = ObjectVersion::from_record(value).map_err(|error| IndexError::row(row, error))?;
        listing.visit(row, key, is_null, version)
    })?;
    listing.finish()?;
    Ok(listing.page)
}

/// A page in the making.
struct Listing<'q> {
    bucket: BucketId,
    query: &'q VersionListQuery,
    delimiter: Option<&'q str>,
    /// The key whose latest version has been listed, or lies before the page.
    latest: Option<String>,
    /// A null version whose place among the versions of its key is still to come.
    null: Option<(String, ObjectVersion)>,
    page: VersionListPage,
}

impl Listing<'_> {
    /// The row at which the scan starts. In the middle of a key it is behind the marker's version, and the null version is
    /// fetched when its place is still to come.
    fn start(&mut self, kv: &dyn KvRead) -> Result<Option<Vec<u8>>, IndexError> {
        let Some((after, stamp)) = &self.query.after else { return Ok(None) };
        if let Some(prefix) = common_prefix(&self.query.prefix, self.delimiter, after) {
            return Ok(Some(self.behind(prefix)));
        }
        let parsed = stamp.and_then(|stamp| Some((stamp, after.parse::<ObjectKey>().ok()?)));
        let Some((stamp, key)) = parsed else { return Ok(Some(keys::objects_after(self.bucket, after))) };
        if !after.starts_with(&self.query.prefix) {
            return Ok(Some(keys::objects_after(self.bucket, after)));
        }
        let current = queries::object_row(kv, self.bucket, &key)?;
        if current.is_some_and(|current| current.stamp >= stamp) {
            self.latest = Some(after.clone());
        }
        let null = queries::null_version(kv, self.bucket, &key)?;
        self.null = null
            .filter(|null| null.stamp < stamp && null.kind != VersionKind::Tombstone)
            .map(|null| (after.clone(), null));
        let mut start = keys::object_version(self.bucket, &key, stamp);
        start.push(0); // the marker's own version is not listed again
        Ok(Some(start))
    }

    /// The first row that is not under `common_prefix`.
    fn behind(&self, common_prefix: &str) -> Vec<u8> {
        keys::successor(keys::objects_from(self.bucket, common_prefix))
    }

    fn visit(&mut self, row: &[u8], key: &str, is_null: bool, version: ObjectVersion) -> Result<Step, IndexError> {
        let is_behind = |(null_key, null): &(String, ObjectVersion)| null_key != key || null.stamp > version.stamp;
        if self.null.as_ref().is_some_and(|null| is_null || is_behind(null))
            && let Some((null_key, null)) = self.null.take()
        {
            match self.list(&null_key, null)? {
                Step::Seek(target) if target.as_slice() <= row => {}
                Step::Next => {}
                step => return Ok(step), // stopped, or this row lies under the common prefix just listed
            }
        }
        if version.kind == VersionKind::Tombstone {
            return Ok(Step::Next);
        }
        if is_null {
            self.null = Some((key.to_owned(), version));
            return Ok(Step::Next);
        }
        self.list(key, version)
    }

    fn finish(&mut self) -> Result<(), IndexError> {
        match self.null.take() {
            Some((key, null)) if !self.page.truncated => self.list(&key, null).map(|_| ()),
            _ => Ok(()),
        }
    }

    fn list(&mut self, key: &str, row: ObjectVersion) -> Result<Step, IndexError> {
        if self.page.versions.len() + self.page.common_prefixes.len() == self.query.limit {
            self.page.truncated = true;
            return Ok(Step::Stop);
        }
        if let Some(prefix) = common_prefix(&self.query.prefix, self.delimiter, key) {
            self.page.common_prefixes.push(prefix.to_owned());
            self.null = None; // of this very key, if any: it is under the prefix too
            return Ok(Step::Seek(self.behind(prefix)));
        }
        let is_latest = self.latest.as_deref() != Some(key);
        if is_latest {
            self.latest = Some(key.to_owned());
        }
        let key = key.parse().map_err(|_| IndexError::key(key.as_bytes()))?;
        self.page.versions.push(ListedVersion { key, row, is_latest });
        Ok(Step::Next)
    }
}

#[cfg(test)]
mod tests;
