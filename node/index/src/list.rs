//! LIST of one partition: the visible objects of a bucket in the order of their keys' bytes, with keys rolled up at a
//! delimiter. The gateway's side merges the pages of all partitions.
//!
//! Item means an entry or a common prefix; a page holds items in one order, and `after` names an item. So an `after`
//! inside of a common prefix skips that prefix: it sorts below `after`, as does whatever was rolled up into it.
//!
//! Only what a listing tells is decoded of a row (`listed`).
//!
//! Invariants: a common prefix is listed only for a visible object under it; once it is, the scan seeks past it and
//! never reads through it; tombstones, delete markers and older versions are never listed.

use meridian_types::{BucketId, ObjectKey, Plant, Planted, Sound, Stamp};

use crate::error::IndexError;
use crate::keys;
use crate::kv::{KvRead, Step};
use crate::listed::{ListedKind, ListedObject, ListedVersion};
use crate::queries::scan;

/// What to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    pub prefix: String,
    /// Keys that hold it behind the prefix are rolled up into one common prefix. Empty is the same as none.
    pub delimiter: Option<String>,
    /// Exclusive: only keys and common prefixes above it are listed.
    pub after: Option<String>,
    /// Most entries and common prefixes together. Zero gives an empty page that is not truncated.
    pub limit: usize,
}

/// One page of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// Boxed: a page of a thousand is moved several times on its way out.
    pub entries: Vec<Box<ListedObject>>,
    pub common_prefixes: Vec<String>,
    /// More follow behind the greatest of entries and common prefixes.
    pub truncated: bool,
}

/// Lists one page.
///
/// # Errors
/// `IndexError` when the store fails or a row is damaged.
pub fn list(kv: &dyn KvRead, bucket: BucketId, query: &ListQuery) -> Result<ListPage, IndexError> {
    list_planted(Sound, kv, bucket, query)
}

/// `list`, with mistakes for a simulation to find.
///
/// # Errors
/// As `list`.
pub fn list_planted(
    plant: impl Plant,
    kv: &dyn KvRead,
    bucket: BucketId,
    query: &ListQuery,
) -> Result<ListPage, IndexError> {
    let mut listing = Listing {
        plant,
        bucket,
        prefix: &query.prefix,
        delimiter: query.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty()),
        limit: query.limit,
        page: ListPage::default(),
    };
    if query.limit == 0 {
        return Ok(listing.page);
    }
    let first = keys::objects_from(bucket, &query.prefix);
    let end = keys::successor(first.clone());
    let start = query.after.as_deref().map_or(first.clone(), |after| listing.start_after(after).max(first));
    if kv.get(&keys::versions_marker(bucket))?.is_some() {
        list_versioned(kv, &start, &end, &mut listing)?;
    } else {
        scan(kv, &start, &end, |row, value| {
            let (key, _) = keys::parse_object(row).ok_or_else(|| IndexError::key(row))?;
            listing.take(key, Current::of(row, value)?)
        })?;
    }
    Ok(listing.page)
}

/// A bucket with versions: the current one of a key is the null version or the newest other one, which stand first.
fn list_versioned<P: Plant>(
    kv: &dyn KvRead,
    start: &[u8],
    end: &[u8],
    listing: &mut Listing<'_, P>,
) -> Result<(), IndexError> {
    let bucket = listing.bucket;
    let mut pending: Option<(ObjectKey, Current)> = None; // a null version whose newer rival may follow
    scan(kv, start, end, |row, value| {
        let (key, is_null) = keys::parse_object(row).ok_or_else(|| IndexError::key(row))?;
        let mut rival = None; // the null version of this key
        match pending.take() {
            Some((pending_key, version)) if pending_key.as_str() == key => rival = Some(version),
            Some((pending_key, version)) => match listing.take(pending_key.as_str(), version)? {
                Step::Seek(target) if target.as_slice() <= row => {}
                Step::Next => {}
                step => return Ok(step), // stopped, or this row lies under the common prefix just listed
            },
            None => {}
        }
        let version = Current::of(row, value)?;
        if is_null {
            pending = Some((parse(key)?, version));
            return Ok(Step::Next);
        }
        if version.is_tombstone() {
            pending = rival.map(|rival| parse(key).map(|key| (key, rival))).transpose()?; // this version is gone, an older one may be current
            return Ok(Step::Next);
        }
        let rival = rival.filter(|rival| !rival.is_tombstone() && rival.stamp > version.stamp);
        let current = rival.unwrap_or(version);
        Ok(match listing.take(key, current)? {
            Step::Next => Step::Seek(keys::objects_after(bucket, key)), // older versions
            step => step,
        })
    })?;
    if let Some((key, version)) = pending
        && !listing.page.truncated
    {
        listing.take(key.as_str(), version)?;
    }
    Ok(())
}

/// The common prefix that a key is rolled up into: up to and with the first delimiter behind the prefix.
pub(crate) fn common_prefix<'k>(prefix: &str, delimiter: Option<&str>, key: &'k str) -> Option<&'k str> {
    let delimiter = delimiter?;
    let rest = key.strip_prefix(prefix)?;
    let end = prefix.len() + rest.find(delimiter)? + delimiter.len();
    Some(&key[..end])
}

fn parse(key: &str) -> Result<ObjectKey, IndexError> {
    key.parse().map_err(|_| IndexError::key(key.as_bytes()))
}

/// What may be the current version of a key: of an object all that is listed.
struct Current {
    stamp: Stamp,
    kind: CurrentKind,
}

enum CurrentKind {
    /// Its key stands in here already.
    Object(Box<ListedObject>),
    DeleteMarker,
    Tombstone,
}

impl Current {
    fn of(row: &[u8], value: &[u8]) -> Result<Self, IndexError> {
        let version = ListedVersion::from_row(value).map_err(|error| IndexError::row(row, error))?;
        let kind = match version.kind {
            ListedKind::Object(body) => {
                let (key, _) = keys::parse_object(row).ok_or_else(|| IndexError::key(row))?;
                CurrentKind::Object(Box::new(body.told(parse(key)?, version.stamp)))
            }
            ListedKind::DeleteMarker => CurrentKind::DeleteMarker,
            ListedKind::Tombstone => CurrentKind::Tombstone,
        };
        Ok(Self { stamp: version.stamp, kind })
    }

    fn is_tombstone(&self) -> bool {
        matches!(self.kind, CurrentKind::Tombstone)
    }
}

/// A page in the making.
struct Listing<'q, P: Plant> {
    plant: P,
    bucket: BucketId,
    prefix: &'q str,
    delimiter: Option<&'q str>,
    limit: usize,
    page: ListPage,
}

impl<P: Plant> Listing<'_, P> {
    /// Where rows of items above `after` start.
    fn start_after(&self, after: &str) -> Vec<u8> {
        match common_prefix(self.prefix, self.delimiter, after) {
            Some(common_prefix) => self.behind(common_prefix),
            None if self.plant.has(Planted::ListLosesRange) => self.behind(after),
            None => keys::objects_after(self.bucket, after),
        }
    }

    /// The first row that is not under `common_prefix`.
    fn behind(&self, common_prefix: &str) -> Vec<u8> {
        keys::successor(keys::objects_from(self.bucket, common_prefix))
    }

    /// Lists a key's current version, if it is to be seen.
    fn take(&mut self, key: &str, version: Current) -> Result<Step, IndexError> {
        let CurrentKind::Object(object) = version.kind else { return Ok(Step::Next) };
        if self.page.entries.len() + self.page.common_prefixes.len() == self.limit {
            self.page.truncated = true;
            return Ok(Step::Stop);
        }
        if let Some(common_prefix) = common_prefix(self.prefix, self.delimiter, key) {
            self.page.common_prefixes.push(common_prefix.to_owned());
            return Ok(Step::Seek(self.behind(common_prefix)));
        }
        self.page.entries.push(object);
        Ok(Step::Next)
    }
}

#[cfg(test)]
mod tests;
