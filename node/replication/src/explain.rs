//! `replication explain`: what each datacenter has of one key, where its bytes are, and which version wins.

use bytes::Bytes;
use futures::future::join_all;
use meridian_index::{VersionKind, queries};
use meridian_types::{BucketId, BucketName, ObjectKey, PartitionId, Timestamp, partition_of};
use meridian_wire::call;
use meridian_wire::replication::{ExplainReply, ExplainRequest};
use serde::{Deserialize, Serialize};

use crate::ReplicationError;
use crate::driver::{Inner, Replication};
use crate::error::reason_of;

/// What is known of a key; field names are an interface.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explanation {
    pub bucket: String,
    pub key: String,
    pub partition: u16,
    pub versions: Vec<VersionAt>,
    /// One sentence.
    pub verdict: String,
}

/// One datacenter's version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VersionAt {
    pub datacenter: String,
    /// `object`, `deleted`, `nothing` or `unreachable`.
    pub state: String,
    /// Where and when the version was written: datacenter, milliseconds since the Unix epoch, raw timestamp.
    pub written_in: Option<String>,
    pub written_ms: Option<u64>,
    pub timestamp: Option<u64>,
    pub size: Option<u64>,
    pub etag: Option<String>,
    pub chunks: u32,
    /// Chunks whose bytes are durable in this datacenter; the others are read from another one.
    pub chunks_here: u32,
    /// This is the version that every datacenter will show.
    pub wins: bool,
    pub reason: String,
}

/// This datacenter's version of a key.
pub(crate) async fn own_version(
    inner: &Inner,
    bucket: BucketId,
    key: &ObjectKey,
) -> Result<ExplainReply, ReplicationError> {
    let partition = partition_of(bucket, key, inner.meta.partition_count());
    let what = "read a key";
    let view = inner.meta.read(partition).await.map_err(|source| ReplicationError::Meta {
        what,
        datacenter: inner.own(),
        source,
    })?;
    let mut reply = ExplainReply { partition: u32::from(partition.0), ..ExplainReply::default() };
    let Some(row) = queries::object_row(&view, bucket, key)? else { return Ok(reply) };
    reply.found = true;
    reply.timestamp = row.stamp.timestamp.raw();
    reply.origin = u32::from(row.stamp.datacenter.get());
    match row.kind {
        VersionKind::Object(body) => {
            reply.size_bytes = body.size;
            reply.etag = body.etag;
            reply.chunks_count = body.chunks.len() as u32;
            let here = body.chunks.iter().filter(|chunk| {
                let own = inner.volumes.state(chunk.fid.volume).map(|volume| volume.committed);
                let siblings = inner.siblings.iter().filter_map(|sibling| sibling.volume(chunk.fid.volume));
                let committed = siblings.map(|volume| volume.committed).chain(own).max();
                committed.is_some_and(|committed| committed >= chunk.end_offset)
            });
            reply.chunks_here_count = here.count() as u32;
        }
        VersionKind::DeleteMarker | VersionKind::Tombstone => reply.deleted = true,
    }
    Ok(reply)
}

impl Replication {
    /// Asks every member for its version of a key.
    ///
    /// # Errors
    /// `NoSuchBucket` here; a member that can't be asked is part of the answer.
    pub async fn explain(&self, bucket: &BucketName, key: &ObjectKey) -> Result<Explanation, ReplicationError> {
        let inner = &self.inner;
        let what = "read the catalog";
        let catalog = inner.meta.local_view(PartitionId::CATALOG).map_err(|source| ReplicationError::Meta {
            what,
            datacenter: inner.own(),
            source,
        })?;
        let row = queries::bucket(&catalog, bucket)?.filter(|row| row.is_active());
        let id = row.ok_or_else(|| ReplicationError::NoSuchBucket { bucket: bucket.to_string() })?.id;
        let asked = inner.sources.values().map(|source| async move {
            let mut client = source.client();
            let request = ExplainRequest {
                caller: inner.config.local.caller(),
                bucket: Bytes::copy_from_slice(&id.0),
                key: key.to_string(),
            };
            let deadline = inner.config.limits.call_deadline;
            let reply = call(deadline, request, |request| async move { client.explain(request).await }).await;
            (source.peer.name.to_string(), reply.map_err(|status| reason_of(&status)))
        });
        let own = own_version(inner, id, key).await?;
        let partition = own.partition as u16;
        let mut replies = vec![(inner.config.datacenter_name.to_string(), Ok(own))];
        replies.extend(join_all(asked).await);

        let greatest =
            replies.iter().filter_map(|(_, reply)| reply.as_ref().ok()).map(|r| (r.timestamp, r.origin)).max();
        let mut versions: Vec<VersionAt> =
            replies.into_iter().map(|(name, reply)| self.version_at(name, reply, greatest)).collect();
        versions.sort_by(|a, b| a.datacenter.cmp(&b.datacenter));
        let verdict = verdict(&versions);
        Ok(Explanation { bucket: bucket.to_string(), key: key.to_string(), partition, versions, verdict })
    }

    fn version_at(
        &self,
        datacenter: String,
        reply: Result<ExplainReply, String>,
        greatest: Option<(u64, u32)>,
    ) -> VersionAt {
        let nothing = |state: &str, reason: String| VersionAt {
            datacenter: datacenter.clone(),
            state: state.to_owned(),
            written_in: None,
            written_ms: None,
            timestamp: None,
            size: None,
            etag: None,
            chunks: 0,
            chunks_here: 0,
            wins: false,
            reason,
        };
        let reply = match reply {
            Err(reason) => return nothing("unreachable", reason),
            Ok(reply) if !reply.found => return nothing("nothing", "no change of this key has arrived".to_owned()),
            Ok(reply) => reply,
        };
        let wins = greatest == Some((reply.timestamp, reply.origin));
        let elsewhere = reply.chunks_count.saturating_sub(reply.chunks_here_count);
        let reason = match (wins, elsewhere) {
            (false, _) => "a newer version is on its way".to_owned(),
            (true, 0) => String::new(),
            (true, missing) => format!("{missing} chunks are read from another datacenter"),
        };
        VersionAt {
            state: if reply.deleted { "deleted" } else { "object" }.to_owned(),
            written_in: u8::try_from(reply.origin)
                .ok()
                .and_then(|id| meridian_types::DatacenterId::new(id).ok())
                .map(|id| self.name_of(id)),
            written_ms: Some(Timestamp::from_raw(reply.timestamp).unix_ms()),
            timestamp: Some(reply.timestamp),
            size: (!reply.deleted).then_some(reply.size_bytes),
            etag: (!reply.deleted).then_some(reply.etag),
            chunks: reply.chunks_count,
            chunks_here: reply.chunks_here_count,
            wins,
            ..nothing("", reason)
        }
    }
}

fn verdict(versions: &[VersionAt]) -> String {
    let named = |wanted: &dyn Fn(&VersionAt) -> bool| -> String {
        let names: Vec<&str> = versions.iter().filter(|v| wanted(v)).map(|v| v.datacenter.as_str()).collect();
        names.join(", ")
    };
    let unreachable = named(&|version| version.state == "unreachable");
    let behind = named(&|version| !version.wins && version.state != "unreachable");
    match (versions.iter().find(|version| version.wins), unreachable.as_str(), behind.as_str()) {
        (None, "", _) => "no datacenter has the key".to_owned(),
        (None, silent, _) => format!("no datacenter that answered has the key; {silent} did not answer"),
        (Some(winner), "", "") => format!("all datacenters have the version written in {}", origin_of(winner)),
        (Some(winner), "", behind) => {
            format!("the version written in {} wins; {behind} will follow", origin_of(winner))
        }
        (Some(winner), silent, _) => {
            format!("of what answered, the version written in {} wins; {silent} did not answer", origin_of(winner))
        }
    }
}

fn origin_of(version: &VersionAt) -> &str {
    version.written_in.as_deref().unwrap_or("an unknown datacenter")
}
