//! The way in: raft messages from the other members.
//!
//! Invariants: a message of another cluster, datacenter or node id is refused before it is decoded (a wiped node comes
//! back under a new id); a group that does not run here answers NOT_FOUND, so that the sender waits; what readers and
//! proposers of other nodes ask is answered only by the leader, or refused with the node to ask instead.

use std::sync::Arc;

use meridian_index::kv::{KvRead, Step};
use meridian_store::GroupId;
use meridian_types::NodeId;
use meridian_wire::Shown;
use meridian_wire::raft::raft_server::Raft as RaftRpc;
use meridian_wire::raft::read_view_request::Read;
use meridian_wire::raft::snapshot_piece::Piece;
use meridian_wire::raft::{
    ForwardReply, ForwardRequest, GroupRefusal, GroupRequest, MessageKind, OpenViewReply, RaftMessage, RaftReply,
    ReadIndexReply, ReadViewReply, ReadViewRequest, Row, RowRange, SnapshotPiece,
};
use openraft::Snapshot;
use serde::Serialize;
use tonic::{Request, Response, Status, Streaming};

use crate::error::ReadError;
use crate::group::confirm;
use crate::host::RaftHost;
use crate::network::{decode_body, encode_body};
use crate::remote_view::ROWS_MAX;
use crate::snapshot::{RowReader, SnapshotData, SnapshotError, SnapshotHead, StreamEnd};
use crate::state::applied_in;
use crate::types::Raft;

/// Bytes of rows in one answer; one row more is sent whole.
const ROWS_SIZE_TARGET: usize = 1 << 20;

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
        let (shown, message) = (Shown::of(&request), request.into_inner());
        self.host.check(&shown, message.caller.as_ref(), message.to)?;
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
        let (shown, mut pieces) = (Shown::of(&request), request.into_inner());
        let Some(Piece::Start(start)) = pieces.message().await?.and_then(|piece| piece.piece) else {
            return Err(malformed("a snapshot begins with its start"));
        };
        self.host.check(&shown, start.caller.as_ref(), start.to)?;
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

    async fn read_index(&self, request: Request<GroupRequest>) -> Result<Response<ReadIndexReply>, Status> {
        let (shown, request) = (Shown::of(&request), request.into_inner());
        self.host.check(&shown, request.caller.as_ref(), request.to)?;
        Ok(Response::new(match confirm(&self.group(request.group)?).await {
            Ok(index) => ReadIndexReply { index, ..ReadIndexReply::default() },
            Err(error) => {
                let (refusal, leader) = refusal_of(&error);
                ReadIndexReply { refusal, leader, index: 0 }
            }
        }))
    }

    async fn forward(&self, request: Request<ForwardRequest>) -> Result<Response<ForwardReply>, Status> {
        let (shown, request) = (Shown::of(&request), request.into_inner());
        self.host.check(&shown, request.caller.as_ref(), request.to)?;
        self.group(request.group)?;
        let handler = self.host.handler(GroupId(request.group));
        let handler = handler.ok_or_else(|| Status::not_found("the group's owner is not started here"))?;
        let body = handler.answer(request.body).await.map_err(malformed)?;
        // Of the state, read after the answer: whatever that has done lies at or below it. openraft's metrics come later.
        let view = self.host.store().view(GroupId(request.group));
        let index = applied_in(&view).map_err(stopped)?.last.map_or(0, |applied| applied.index);
        Ok(Response::new(ForwardReply { body, index }))
    }

    async fn open_view(&self, request: Request<GroupRequest>) -> Result<Response<OpenViewReply>, Status> {
        let (shown, request) = (Shown::of(&request), request.into_inner());
        let peer = self.host.check(&shown, request.caller.as_ref(), request.to)?;
        let raft = self.group(request.group)?;
        Ok(Response::new(match crate::group::linearizable(&raft).await {
            Ok(()) => {
                let view = self.host.store().view(GroupId(request.group));
                OpenViewReply { view: self.host.views.hold(peer.node, view), ..OpenViewReply::default() }
            }
            Err(error) => {
                let (refusal, leader) = refusal_of(&error);
                OpenViewReply { refusal, leader, view: 0 }
            }
        }))
    }

    async fn read_view(&self, request: Request<ReadViewRequest>) -> Result<Response<ReadViewReply>, Status> {
        let (shown, request) = (Shown::of(&request), request.into_inner());
        let peer = self.host.check(&shown, request.caller.as_ref(), request.to)?;
        let (reader, id) = (peer.node, request.view);
        let mut reply = ReadViewReply::default();
        if let Some(read) = request.read {
            let view = self.host.views.get(reader, id).ok_or_else(|| Status::not_found("the state was let go of"))?;
            // Scans cost milliseconds, and more when they wait for the disk.
            let rows = tokio::task::spawn_blocking(move || read_rows(&view, read)).await;
            reply = rows.map_err(stopped)?.map_err(stopped)?;
        }
        if request.close {
            self.host.views.close(reader, id);
        }
        Ok(Response::new(reply))
    }
}

fn refusal_of(error: &ReadError) -> (i32, u32) {
    match error {
        ReadError::NotLeader { leader } => (GroupRefusal::NotLeader.into(), leader.map_or(0, |NodeId(node)| node)),
        ReadError::NoQuorum | ReadError::Unconfirmed { .. } => (GroupRefusal::NoQuorum.into(), 0),
        ReadError::Stopped => (GroupRefusal::Stopped.into(), 0),
    }
}

fn read_rows(view: &dyn KvRead, read: Read) -> Result<ReadViewReply, meridian_index::kv::KvError> {
    let RowRange { start, end, reverse, rows_max } = match read {
        Read::Key(key) => {
            let row = view.get(&key)?.map(|value| Row { key, value });
            return Ok(ReadViewReply { rows: row.into_iter().collect(), more: false });
        }
        Read::Range(range) => range,
    };
    let rows_max = rows_max.clamp(1, ROWS_MAX) as usize;
    let (mut rows, mut size, mut more) = (Vec::new(), 0, false);
    let mut visit = |key: &[u8], value: &[u8]| {
        if rows.len() == rows_max || size >= ROWS_SIZE_TARGET {
            more = true;
            return Step::Stop;
        }
        size += key.len() + value.len();
        rows.push(Row { key: key.to_vec().into(), value: value.to_vec().into() });
        Step::Next
    };
    if reverse {
        view.scan_reverse(&start, &end, &mut visit)?;
    } else {
        view.scan(&start, &end, &mut visit)?;
    }
    Ok(ReadViewReply { rows, more })
}
