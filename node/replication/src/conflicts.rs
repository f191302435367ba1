//! What an operator may have to look at: concurrent writes that lost, as this datacenter saw them lose. What all saw is put
//! together in `all_conflicts`.
//!
//! Invariants: oldest first by the loser's stamp, over all partitions; a page never holds more than it was asked for.

use meridian_index::{ConflictRow, LostWrite, queries};
use meridian_meta::ReadView;
use meridian_types::{BucketName, DatacenterId, PartitionId, Stamp, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ReplicationError;
use crate::driver::Replication;

/// A concurrent write that lost; field names are an interface.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Conflict {
    /// The bucket's name, or its id when it is gone.
    pub bucket: String,
    /// Empty for a conflict about a bucket itself.
    pub key: String,
    /// `write`, `delete`, `bucket creation`, or the name of a bucket's setting, such as `setting policy`.
    pub lost: String,
    pub lost_size: Option<u64>,
    pub lost_etag: Option<String>,
    pub loser: WrittenAt,
    pub winner: WrittenAt,
}

/// A stamp for people.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WrittenAt {
    pub datacenter: String,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The raw timestamp.
    pub timestamp: u64,
}

/// Most conflicts of one page.
pub const CONFLICTS_PAGE_MAX: usize = 1000;

/// Which conflicts are asked for.
#[derive(Debug, Clone, Default)]
pub struct ConflictQuery {
    pub bucket: Option<BucketName>,
    /// Milliseconds since the Unix epoch: losers written before it are left out.
    pub since_ms: Option<u64>,
    /// The `next` of the page before.
    pub after: Option<String>,
    /// At most `CONFLICTS_PAGE_MAX` count.
    pub limit: usize,
}

/// Some conflicts, oldest loser first; field names are an interface.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConflictPage {
    pub conflicts: Vec<Conflict>,
    /// Where to go on; None at the end.
    pub next: Option<String>,
    /// Datacenters that could not be asked: what only they saw lose is not here.
    #[serde(default)]
    pub not_asked: Vec<String>,
}

/// Where a page goes on: behind the loser with this stamp, as 18 hex digits.
pub(crate) fn token_of(stamp: Stamp) -> String {
    stamp.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn stamp_of(token: &str) -> Option<Stamp> {
    let bytes = token.as_bytes();
    if bytes.len() != 2 * Stamp::LENGTH || !bytes.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut stamp = [0; Stamp::LENGTH];
    for (place, digits) in stamp.iter_mut().zip(bytes.chunks_exact(2)) {
        *place = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Stamp::from_bytes(stamp).ok()
}

impl Replication {
    /// A page of the losers that this datacenter has recorded, oldest first.
    ///
    /// # Errors
    /// An unknown bucket, a token that is none, or a partition that can't be read.
    pub(crate) async fn own_conflicts(&self, query: &ConflictQuery) -> Result<ConflictPage, ReplicationError> {
        let limit = query.limit.clamp(1, CONFLICTS_PAGE_MAX);
        let catalog = self.conflicts_view(PartitionId::CATALOG).await?;
        let bucket = match &query.bucket {
            None => None,
            Some(name) => Some(
                queries::bucket(&catalog, name)?
                    .ok_or_else(|| ReplicationError::NoSuchBucket { bucket: name.to_string() })?,
            ),
        };
        let since = query.since_ms.map(|since_ms| {
            let before = Timestamp::from_unix_ms(since_ms).raw().saturating_sub(1);
            Stamp::new(Timestamp::from_raw(before), greatest_datacenter())
        });
        let after = match &query.after {
            None => since,
            Some(token) => {
                let stamp = stamp_of(token).ok_or_else(|| ReplicationError::BadToken { text: token.clone() })?;
                Some(since.map_or(stamp, |since| since.max(stamp)))
            }
        };
        let is_wanted = |row: &ConflictRow| match (row, &bucket) {
            (_, None) => true,
            (ConflictRow::Object { bucket, .. }, Some(wanted)) => *bucket == wanted.id,
            (ConflictRow::Bucket { name, .. } | ConflictRow::Setting { name, .. }, Some(wanted)) => {
                *name == wanted.name
            }
        };
        let mut rows = Vec::new();
        for partition in self.inner.meta.partitions() {
            rows.extend(wanted_rows(&self.conflicts_view(partition).await?, after, limit, &is_wanted)?);
        }
        rows.sort_by_key(ConflictRow::loser);
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next = if has_more { rows.last().map(|row| token_of(row.loser())) } else { None };
        Ok(ConflictPage { conflicts: self.shown(rows, &catalog)?, next, not_asked: Vec::new() })
    }

    async fn conflicts_view(&self, partition: PartitionId) -> Result<ReadView, ReplicationError> {
        let (what, datacenter) = ("read conflicts", self.inner.own());
        let view = self.inner.meta.read(partition).await;
        view.map_err(|source| ReplicationError::Meta { what, datacenter, source })
    }

    pub(crate) fn written_at(&self, stamp: Stamp) -> WrittenAt {
        WrittenAt {
            datacenter: self.name_of(stamp.datacenter),
            at_ms: stamp.timestamp.unix_ms(),
            timestamp: stamp.timestamp.raw(),
        }
    }

    fn shown(&self, rows: Vec<ConflictRow>, catalog: &ReadView) -> Result<Vec<Conflict>, ReplicationError> {
        let written = |stamp: Stamp| self.written_at(stamp);
        rows.into_iter()
            .map(|row| match row {
                ConflictRow::Object { bucket, key, winner, loser, lost } => {
                    let name = queries::bucket_by_id(catalog, bucket)?.map(|bucket| bucket.name.to_string());
                    let (lost, lost_size, lost_etag) = match lost {
                        LostWrite::Object { size, etag } => ("write", Some(size), Some(etag)),
                        LostWrite::Delete => ("delete", None, None),
                    };
                    Ok(Conflict {
                        bucket: name.unwrap_or_else(|| bucket.to_string()),
                        key: key.to_string(),
                        lost: lost.to_owned(),
                        lost_size,
                        lost_etag,
                        loser: written(loser),
                        winner: written(winner),
                    })
                }
                ConflictRow::Bucket { name, winner, loser, .. } => Ok(Conflict {
                    bucket: name.to_string(),
                    key: String::new(),
                    lost: "bucket creation".to_owned(),
                    lost_size: None,
                    lost_etag: None,
                    loser: written(loser),
                    winner: written(winner),
                }),
                ConflictRow::Setting { name, setting, winner, loser } => Ok(Conflict {
                    bucket: name.to_string(),
                    key: String::new(),
                    lost: format!("setting {setting}"),
                    lost_size: None,
                    lost_etag: None,
                    loser: written(loser),
                    winner: written(winner),
                }),
            })
            .collect()
    }
}

/// No stamp of a timestamp is above this one's.
fn greatest_datacenter() -> DatacenterId {
    DatacenterId::new(DatacenterId::MAX).expect("it is in range")
}

/// Up to `limit` rows of a partition that are wanted, and one more if there is one.
fn wanted_rows(
    view: &ReadView,
    mut after: Option<Stamp>,
    limit: usize,
    is_wanted: &dyn Fn(&ConflictRow) -> bool,
) -> Result<Vec<ConflictRow>, ReplicationError> {
    let mut wanted = Vec::new();
    loop {
        let rows = queries::conflicts(view, after, CONFLICTS_PAGE_MAX)?;
        let is_last = rows.len() < CONFLICTS_PAGE_MAX;
        after = rows.last().map(ConflictRow::loser);
        wanted.extend(rows.into_iter().filter(is_wanted));
        if is_last || wanted.len() > limit {
            wanted.truncate(limit + 1);
            return Ok(wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_stamp_that_it_came_from_and_nothing_else_is_one() {
        let stamp = Stamp::new(Timestamp::from_raw(u64::MAX - 3), greatest_datacenter());
        assert_eq!(stamp_of(&token_of(stamp)), Some(stamp));
        for wrong in ["", "00", "zz", "000000000000000000", "+1000000000000000fe", "é00000000000000000"] {
            assert_eq!(stamp_of(wrong), None, "{wrong}");
        }
    }
}
