//! The way in: raft messages from the other members.
//!
//! Invariants: a message of another cluster, datacenter or node id is refused before it is decoded (a wiped node comes
//! back under a new id); a group that does not run here answers NOT_FOUND, so that the sender waits.

use std::sync::Arc;

use meridian_store::GroupId;
use meridian_wire::raft::raft_server::Raft as RaftRpc;
use meridian_wire::raft::snapshot_piece::Piece;
use meridian_wire::raft::{MessageKind, RaftMessage, RaftReply, SnapshotPiece};
use openraft::Snapshot;
use serde::Serialize;
use tonic::{Request, Response, Status, Streaming};

use crate::host::RaftHost;
use crate::network::{decode_body, encode_body};
use crate::snapshot::{RowReader, SnapshotData, SnapshotError, SnapshotHead, StreamEnd};
use crate::types::Raft;

/// Serves a host's groups to the other nodes.
pub struct RaftService {
    host: Arc<RaftHost>,
}

impl RaftService {
    pub(crate) fn new(host: Arc<RaftHost>) -> Self {
        Self { host }
    }

    #[allow(clippy::result_large_err)] // tonic's own error type
    fn group(&self, group: u32) -> Result<Raft, Status> {
        self.host.raft(GroupId(group)).ok_or_else(|| Status::not_found(format!("group {group} does not run here")))
    }
}

fn reply<T: Serialize>(message: &T) -> Response<RaftReply> {
    Response::new(RaftReply { body: encode_body(message) })
}

fn malformed(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

fn refused(error: SnapshotError) -> Status {
    match error {
        SnapshotError::Store(error) => stopped(error),
        other => Status::data_loss(other.to_string()),
    }
}

#[tonic::async_trait]
impl RaftRpc for RaftService {
    async fn exchange(&self, request: Request<RaftMessage>) -> Result<Response<RaftReply>, Status> {
        let message = request.into_inner();
        self.host.local().check_raft(message.caller.as_ref(), message.to)?;
        let raft = self.group(message.group)?;
        let body = &message.body;
        match MessageKind::try_from(message.kind).unwrap_or(MessageKind::Unspecified) {
            MessageKind::Append => {
                let answer = raft.append_entries(decode_body(body).map_err(malformed)?).await;
                Ok(reply(&answer.map_err(stopped)?))
            }
            MessageKind::Vote => {
                let answer = raft.vote(decode_body(body).map_err(malformed)?).await;
                Ok(reply(&answer.map_err(stopped)?))
            }
            MessageKind::PreVote => {
                let answer = raft.pre_vote(decode_body(body).map_err(malformed)?).await;
                Ok(reply(&answer.map_err(stopped)?))
            }
            MessageKind::TransferLeader => {
                let answer = raft.handle_transfer_leader(decode_body(body).map_err(malformed)?).await;
                Ok(reply(&answer.map_err(stopped)?))
            }
            MessageKind::Unspecified => Err(malformed(format!("raft message of kind {}", message.kind))),
        }
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotPiece>>,
    ) -> Result<Response<RaftReply>, Status> {
        let mut pieces = request.into_inner();
        let Some(Piece::Start(start)) = pieces.message().await?.and_then(|piece| piece.piece) else {
            return Err(malformed("a snapshot begins with its start"));
        };
        self.host.local().check_raft(start.caller.as_ref(), start.to)?;
        let raft = self.group(start.group)?;
        let (vote, meta) = SnapshotHead::decode(&start.meta).map_err(malformed)?.into_parts();
        let installation = self.host.store().install(GroupId(start.group)).map_err(stopped)?;
        let mut rows = RowReader::new(installation);
        let end = loop {
            match pieces.message().await?.and_then(|piece| piece.piece) {
                Some(Piece::Data(data)) => rows.take(&data).map_err(refused)?,
                Some(Piece::End(end)) => break StreamEnd { size_bytes: end.size_bytes, crc32c: end.crc32c },
                Some(Piece::Start(_)) => return Err(malformed("a snapshot has one start")),
                None => return Err(malformed("a snapshot has an end")),
            }
        };
        let installation = rows.end(end).map_err(refused)?;
        let snapshot = Snapshot { meta, snapshot: SnapshotData::Received(installation) };
        let answer = raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        Ok(reply(&answer))
    }
}
