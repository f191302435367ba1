//! The way out: raft messages to the other members, over the wire crate's `Raft` service.
//!
//! A message is openraft's own type in postcard behind a version byte. It is not stored, and all members of a group run
//! one protocol version, which the wire crate checks first.
//!
//! Invariants: every call has a deadline; a peer that can't be reached is never counted as having granted anything.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meridian_store::{GroupId, GroupView};
use meridian_types::NodeId;
use meridian_wire::raft::snapshot_piece::Piece;
use meridian_wire::raft::{MessageKind, RaftMessage, SnapshotEnd, SnapshotPiece, SnapshotStart};
use meridian_wire::{LocalNode, call, raft_client};
use openraft::alias::SnapshotOf;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2, StorageError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::host::PeerChannels;
use crate::record::io_error;
use crate::snapshot::{SnapshotData, SnapshotHead, StreamEnd, write_rows};
use crate::types::{TypeConfig, Vote};

const BODY_VERSION: u8 = 1;
/// Pieces of a snapshot that wait for the link.
const PIECES_QUEUED_MAX: usize = 4;
/// Entries take a follower's disk as long as they take it; giving up earlier would only send them again. Heartbeats
/// keep openraft's own, shorter deadline.
const APPEND_DEADLINE: Duration = Duration::from_secs(5);
/// No transfer of a snapshot lasts longer; the channel's own limit on calls may be shorter.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(3600);

pub(crate) fn encode_body<T: Serialize>(message: &T) -> Bytes {
    postcard::to_extend(message, vec![BODY_VERSION]).expect("raft messages serialise into memory").into()
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("raft message of version {0:?}")]
    Version(Option<u8>),
    #[error("raft message does not decode: {0}")]
    Postcard(#[from] postcard::Error),
}

pub(crate) fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, BodyError> {
    match body.split_first() {
        Some((&BODY_VERSION, message)) => Ok(postcard::from_bytes(message)?),
        other => Err(BodyError::Version(other.map(|(version, _)| *version))),
    }
}

/// The members of one group as seen from this node.
#[derive(Clone)]
pub(crate) struct Network {
    pub local: LocalNode,
    pub group: GroupId,
    pub channels: Arc<dyn PeerChannels>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, _node: &()) -> Connection {
        Connection { network: self.clone(), target }
    }
}

/// One other member. Holds no connection: the channel is asked for at each message, so that a peer may move.
pub(crate) struct Connection {
    network: Network,
    target: u64,
}

/// A call that failed, before it is known which error type openraft wants.
enum CallError {
    NoAddress,
    Status(Status),
    Body(BodyError),
}

impl Connection {
    fn to(&self) -> u32 {
        u32::try_from(self.target).expect("raft ids are node ids, which have 32 bits")
    }

    fn channel(&self) -> Result<Channel, CallError> {
        self.network.channels.channel(NodeId(self.to())).ok_or(CallError::NoAddress)
    }

    async fn exchange<M: Serialize, R: DeserializeOwned>(
        &self,
        kind: MessageKind,
        message: &M,
        deadline: Duration,
    ) -> Result<R, CallError> {
        let mut client = raft_client(self.channel()?);
        let message = RaftMessage {
            caller: self.network.local.caller(),
            group: self.network.group.0,
            kind: kind.into(),
            to: self.to(),
            body: encode_body(message),
        };
        let reply = call(deadline, message, |request| async move { client.exchange(request).await });
        let reply = reply.await.map_err(CallError::Status)?;
        decode_body(&reply.body).map_err(CallError::Body)
    }

    /// `Unreachable` makes openraft wait before it tries again, `Network` does not.
    fn error(&self, action: RPCTypes, timeout: Duration, error: CallError) -> RPCError<TypeConfig> {
        match error {
            CallError::NoAddress => Unreachable::from_string(format!("no address of node {}", self.target)).into(),
            CallError::Status(status) if status.code() == Code::DeadlineExceeded => {
                Timeout { action, id: u64::from(self.network.local.node.0), target: self.target, timeout }.into()
            }
            CallError::Status(status) => Unreachable::from_string(status).into(),
            CallError::Body(error) => NetworkError::new(&error).into(),
        }
    }

    async fn send_snapshot(
        &self,
        vote: &Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let SnapshotData::Held(view) = snapshot.snapshot else {
            return Err(read_error(io::Error::other("a snapshot that is being received can't be sent")));
        };
        let start = SnapshotStart {
            caller: self.network.local.caller(),
            group: self.network.group.0,
            to: self.to(),
            meta: SnapshotHead::new(vote, &snapshot.meta).encode().into(),
        };
        let failed = |error| StreamingError::from(self.error(RPCTypes::InstallSnapshot, SNAPSHOT_DEADLINE, error));
        let mut client = raft_client(self.channel().map_err(failed)?);
        let (pieces, receiver) = mpsc::channel(PIECES_QUEUED_MAX);
        let reader = tokio::task::spawn_blocking(move || send_pieces(&view, start, &pieces));
        let stream = ReceiverStream::new(receiver);
        let reply = call(SNAPSHOT_DEADLINE, (), |_| async move { client.install_snapshot(stream).await }).await;
        // A view that can't be read is our own damage; only without it is the call's outcome of interest.
        reader.await.map_err(|error| read_error(io_error(error)))?.map_err(|error| read_error(io_error(error)))?;
        let reply = reply.map_err(|status| failed(CallError::Status(status)))?;
        decode_body(&reply.body).map_err(|error| failed(CallError::Body(error)))
    }
}

fn read_error(error: io::Error) -> StreamingError<TypeConfig> {
    StorageError::from_io_error(openraft::ErrorSubject::Snapshot(None), openraft::ErrorVerb::Read, error).into()
}

/// Sends a whole view; ends early, and without the end, when the receiver has gone.
fn send_pieces(
    view: &GroupView,
    start: SnapshotStart,
    pieces: &mpsc::Sender<SnapshotPiece>,
) -> Result<(), meridian_index::kv::KvError> {
    let send = |piece| pieces.blocking_send(SnapshotPiece { piece: Some(piece) }).is_ok();
    if !send(Piece::Start(start)) {
        return Ok(());
    }
    if let Some(StreamEnd { size_bytes, crc32c }) = write_rows(view, |data| send(Piece::Data(data)))? {
        send(Piece::End(SnapshotEnd { size_bytes, crc32c }));
    }
    Ok(())
}

impl RaftNetworkV2<TypeConfig> for Connection {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let deadline = if rpc.entries.is_empty() { option.soft_ttl() } else { APPEND_DEADLINE };
        let answer = self.exchange(MessageKind::Append, &rpc, deadline).await;
        answer.map_err(|error| self.error(RPCTypes::AppendEntries, deadline, error))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let deadline = option.soft_ttl();
        let answer = self.exchange(MessageKind::Vote, &rpc, deadline).await;
        answer.map_err(|error| self.error(RPCTypes::Vote, deadline, error))
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let deadline = option.soft_ttl();
        let answer = self.exchange(MessageKind::PreVote, &rpc, deadline).await;
        answer.map_err(|error| self.error(RPCTypes::Vote, deadline, error))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(&vote, snapshot) => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let deadline = option.soft_ttl();
        let answer = self.exchange(MessageKind::TransferLeader, &request, deadline).await;
        answer.map_err(|error| self.error(RPCTypes::TransferLeader, deadline, error))
    }
}
