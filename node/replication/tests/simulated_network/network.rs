//! The network's glue: names, certificates, ports and the dialer of three simulated datacenters of one node each.

use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use meridian_replication::{PeerDatacenter, PeerNode, ReplicationConfig, ReplicationLimits};
use meridian_types::{ClusterId, DatacenterId, NodeId};
use meridian_wire::tls::{Identity, server_name};
use meridian_wire::{BoxedPipe, Dialer, LinkTimings, Listener, LocalNode, Members, Peer};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::{Connected, TcpConnectInfo};
use turmoil::net::{TcpListener, TcpStream};

pub const GRPC_PORT: u16 = 7000;
pub const BULK_PORT: u16 = 7001;
pub const NAMES: [&str; 3] = ["dc-a", "dc-b", "dc-c"];
pub const NOW_MS: u64 = 1_800_000_000_000;

pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A bound port, which counts the connections that it has taken.
pub struct Port {
    listener: TcpListener,
    taken: Arc<AtomicU64>,
}

impl Port {
    pub async fn bind(port: u16) -> io::Result<Self> {
        Self::counted(port, Arc::default()).await
    }

    pub async fn counted(port: u16, taken: Arc<AtomicU64>) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?, taken })
    }
}

impl Listener for Port {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.listener.accept().await?;
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(stream)
    }
}

/// A gRPC port's connections.
pub fn incoming(port: Port) -> impl Stream<Item = io::Result<Accepted>> {
    futures::stream::unfold(port, |port| async move { Some((port.accept().await.map(Accepted), port)) })
}

/// One end of a simulated connection.
pub struct Accepted(TcpStream);

impl Connected for Accepted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: self.0.local_addr().ok(), remote_addr: self.0.peer_addr().ok() }
    }
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

pub fn datacenter(index: usize) -> DatacenterId {
    DatacenterId::new(index as u8 + 1).unwrap()
}

pub fn local(index: usize) -> LocalNode {
    LocalNode { cluster: ClusterId([1; 16]), datacenter: datacenter(index), node: NodeId(1) }
}

pub fn node_name(index: usize) -> String {
    server_name(&"n1".parse().unwrap(), &NAMES[index].parse().unwrap())
}

pub fn members() -> Members {
    Members::new((0..3).map(|index| (Peer { datacenter: datacenter(index), node: NodeId(1) }, node_name(index))))
}

/// The three nodes' certificates under one authority.
pub fn identities() -> Vec<Identity> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let issue = |index| {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![node_name(index)]).unwrap().signed_by(&key, &authority).unwrap();
        Identity::from_pem(&authority.pem(), &certificate.pem(), &key.serialize_pem()).unwrap()
    };
    (0..3).map(issue).collect()
}

pub fn timings() -> LinkTimings {
    LinkTimings {
        connect_timeout: Duration::from_secs(1),
        keep_alive_interval: Duration::from_secs(2),
        keep_alive_timeout: Duration::from_secs(1),
        call_timeout_max: Duration::from_secs(30),
    }
}

pub fn dialer() -> Dialer {
    Dialer::by(|address| async move { Ok(Box::new(TcpStream::connect(address).await?) as BoxedPipe) })
}

/// What the driver of a datacenter is told; the limits are the shipped ones.
pub fn config(index: usize) -> ReplicationConfig {
    let peer = |index: usize| PeerDatacenter {
        id: datacenter(index),
        name: NAMES[index].parse().unwrap(),
        nodes: vec![PeerNode {
            node: NodeId(1),
            name: "n1".parse().unwrap(),
            rack: String::new(),
            grpc: format!("{}:{GRPC_PORT}", NAMES[index]),
            bulk: format!("{}:{BULK_PORT}", NAMES[index]),
        }],
    };
    ReplicationConfig {
        local: local(index),
        cluster_name: "simulated".to_owned(),
        datacenter_name: NAMES[index].parse().unwrap(),
        boot_counter: 5,
        peers: (0..NAMES.len()).filter(|other| *other != index).map(peer).collect(),
        siblings: Vec::new(),
        timings: timings(),
        dialer: dialer(),
        limits: ReplicationLimits::default(),
    }
}
