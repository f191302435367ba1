//! What an operator may have to look at: concurrent writes that lost, and ranges of mirrors that could not be had.

use meridian_index::{ConflictRow, LostWrite, queries};
use meridian_types::{PartitionId, Stamp};
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

/// A mirror that stands still at a range that fails its checks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ParkedVolume {
    pub source: String,
    pub volume: u32,
    /// Where the mirror stands, in bytes.
    pub offset: u64,
    pub reason: String,
}

impl Replication {
    /// The recorded losers of this datacenter, oldest first, at most `limit` of each partition.
    ///
    /// # Errors
    /// When a partition can't be read.
    pub async fn conflicts(&self, limit: usize) -> Result<Vec<Conflict>, ReplicationError> {
        let inner = &self.inner;
        let view = async |partition| {
            let what = "read conflicts";
            inner.meta.read(partition).await.map_err(|source| ReplicationError::Meta {
                what,
                datacenter: inner.own(),
                source,
            })
        };
        let catalog = view(PartitionId::CATALOG).await?;
        let mut rows = Vec::new();
        for partition in inner.meta.partitions() {
            rows.extend(queries::conflicts(&view(partition).await?, None, limit)?);
        }
        rows.sort_by_key(ConflictRow::loser);
        let written = |stamp: Stamp| WrittenAt {
            datacenter: self.name_of(stamp.datacenter),
            at_ms: stamp.timestamp.unix_ms(),
            timestamp: stamp.timestamp.raw(),
        };
        rows.into_iter()
            .map(|row| match row {
                ConflictRow::Object { bucket, key, winner, loser, lost } => {
                    let name = queries::bucket_by_id(&catalog, bucket)?.map(|bucket| bucket.name.to_string());
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

    /// The mirrors of this node that stand still.
    pub fn parked(&self) -> Vec<ParkedVolume> {
        let mut parked = Vec::new();
        for source in self.inner.sources.values() {
            for (volume, reason) in &source.facts.lock().parked {
                parked.push(ParkedVolume {
                    source: source.peer.name.to_string(),
                    volume: volume.get(),
                    offset: self.inner.volumes.state(*volume).map_or(0, |state| state.committed),
                    reason: reason.clone(),
                });
            }
        }
        parked
    }
}
