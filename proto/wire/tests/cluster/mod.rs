//! What the tests of links stand on: an authority, a served node, a proxy that can swallow everything.

// Each test file uses its own part of this.
#![allow(dead_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use meridian_types::{ClusterId, DatacenterId, NodeId};
use meridian_wire::raft::raft_server::{Raft, RaftServer};
use meridian_wire::raft::snapshot_piece::Piece;
use meridian_wire::raft::{
    ForwardReply, ForwardRequest, GroupRequest, OpenViewReply, RaftMessage, RaftReply, ReadIndexReply, ReadViewReply,
    ReadViewRequest, SnapshotPiece,
};
use meridian_wire::tls::Identity;
use meridian_wire::{LinkTimings, LocalNode, Members, Shown, incoming, raft_server, server};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Response, Status, Streaming};

/// The node that is served.
pub const NAME: &str = "n1.dc-a.meridian";
/// The name in the certificate of the node that tests introduce themselves as.
pub const CALLER_NAME: &str = "n2.dc-a.meridian";
/// A body that the served node answers only to that certificate.
pub const CERTIFIED: &[u8] = b"certified";
/// A body that the served node never answers.
pub const NEVER_ANSWERED: &[u8] = b"never answered";

/// Tests introduce themselves as a node of the served node's own datacenter.
pub fn local() -> LocalNode {
    LocalNode { cluster: ClusterId([1; 16]), datacenter: DatacenterId::new(2).unwrap(), node: NodeId(7) }
}

/// Short enough that tests see them act.
pub fn timings() -> LinkTimings {
    LinkTimings {
        connect_timeout: Duration::from_secs(2),
        keep_alive_interval: Duration::from_millis(500),
        keep_alive_timeout: Duration::from_millis(500),
        call_timeout_max: Duration::from_secs(30),
    }
}

/// A certificate authority of its own.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn ca_pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key of a node with this name, as PEM.
    pub fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    pub fn node(&self, name: &str) -> Identity {
        self.node_trusting(name, &self.ca_pem())
    }

    /// A node with our certificate that trusts another authority.
    pub fn node_trusting(&self, name: &str, ca_pem: &str) -> Identity {
        let (certificate, key) = self.issue(name);
        Identity::from_pem(ca_pem, &certificate, &key).unwrap()
    }
}

/// A node that echoes raft messages.
pub struct Served {
    pub address: String,
    /// How many calls have reached the service.
    pub calls: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Echo(Arc<AtomicU64>);

#[tonic::async_trait]
impl Raft for Echo {
    async fn exchange(&self, request: Request<RaftMessage>) -> Result<Response<RaftReply>, Status> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let (shown, message) = (Shown::of(&request), request.into_inner());
        let peer = local().check_raft(message.caller.as_ref(), message.to).map_err(Status::from)?;
        if message.body == CERTIFIED {
            Members::new([(peer, CALLER_NAME.to_owned())]).check(&shown, peer).map_err(Status::from)?;
        }
        if message.body == NEVER_ANSWERED {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(RaftReply { body: message.body }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotPiece>>,
    ) -> Result<Response<RaftReply>, Status> {
        let mut pieces = request.into_inner();
        let mut body = Vec::new();
        while let Some(piece) = pieces.message().await? {
            match piece.piece {
                Some(Piece::Start(start)) => {
                    local().check_raft(start.caller.as_ref(), start.to).map_err(Status::from)?;
                }
                Some(Piece::Data(data)) => body.extend_from_slice(&data),
                Some(Piece::End(end)) => assert_eq!(end.size_bytes, body.len() as u64),
                None => return Err(Status::invalid_argument("an empty piece")),
            }
        }
        Ok(Response::new(RaftReply { body: body.into() }))
    }

    async fn read_index(&self, _: Request<GroupRequest>) -> Result<Response<ReadIndexReply>, Status> {
        Err(no_group())
    }

    async fn forward(&self, request: Request<ForwardRequest>) -> Result<Response<ForwardReply>, Status> {
        Ok(Response::new(ForwardReply { body: request.into_inner().body, index: 0 }))
    }

    async fn open_view(&self, _: Request<GroupRequest>) -> Result<Response<OpenViewReply>, Status> {
        Err(no_group())
    }

    async fn read_view(&self, _: Request<ReadViewRequest>) -> Result<Response<ReadViewReply>, Status> {
        Err(no_group())
    }
}

fn no_group() -> Status {
    Status::not_found("an echo has no groups")
}

/// The raft service that echoes.
pub fn echo() -> RaftServer<impl Raft> {
    raft_server(Echo(Arc::default()))
}

pub async fn serve(identity: &Identity) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let calls = Arc::new(AtomicU64::new(0));
    let router = server(identity, &timings()).unwrap().add_service(raft_server(Echo(Arc::clone(&calls))));
    let task = tokio::spawn(async move { router.serve_with_incoming(incoming(listener)).await.unwrap() });
    Served { address, calls, task }
}

/// Carries connections to a target. While it swallows, bytes of every connection vanish; a connection that has lost
/// bytes stays dead afterwards, as after a cut that a router forgot.
pub struct Proxy {
    pub address: String,
    swallow: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (swallow, swallowing) = watch::channel(false);
        let target = target.to_owned();
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let far = TcpStream::connect(&target).await.unwrap();
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                tokio::spawn(pump(near_read, far_write, swallowing.clone()));
                tokio::spawn(pump(far_read, near_write, swallowing.clone()));
            }
        });
        Self { address, swallow, task }
    }

    pub fn swallow(&self, on: bool) {
        self.swallow.send_replace(on);
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    swallowing: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 << 10];
    let mut lost = false;
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 {
            break;
        }
        lost |= *swallowing.borrow();
        if !lost && to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
}

/// Sends bytes as they are, for messages that no client would make.
pub struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        target.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}
