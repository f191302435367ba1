//! What can go wrong in the driver as a whole. Failures of single calls are link facts, not errors.

use meridian_types::DatacenterId;

use crate::bulk_client::BulkError;

#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    #[error("there is no datacenter {name:?}; the members are {members}")]
    NoSuchDatacenter { name: String, members: String },
    #[error("there is no node {name:?} here; the nodes are {nodes}")]
    NoSuchNode { name: String, nodes: String },
    #[error("there is no bucket {bucket:?}")]
    NoSuchBucket { bucket: String },
    #[error("datacenter {datacenter} can't be asked: {reason}")]
    Unreachable { datacenter: String, reason: String },
    #[error("the link to a peer: {0}")]
    Channel(#[from] meridian_wire::ChannelError),
    #[error("the bulk link to a peer: {0}")]
    Bulk(#[from] BulkError),
    #[error("{what} of datacenter {datacenter}: {source}")]
    Meta { what: &'static str, datacenter: DatacenterId, source: meridian_meta::MetaError },
    #[error("read the replication state: {0}")]
    Index(#[from] meridian_index::IndexError),
    #[error("a watermark report: {0}")]
    Control(#[from] meridian_control::ControlError),
    #[error("the clock gives no stamp: {0}")]
    Clock(#[from] meridian_replicator::ClockError),
    #[error("{text:?} is no place to go on from; take it from the page before")]
    BadToken { text: String },
    #[error("{text:?} is no point to wait for ({reason}); write `now`, or the x-meridian-token of an answer")]
    BadUntil { text: String, reason: String },
}

/// A failed call in words, with what lies beneath: "tcp connect error" alone helps nobody.
pub(crate) fn reason_of(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    meridian_wire::fields::detail(&text)
}
