//! Two nodes over real loopback sockets: who is served, who is refused, and that nothing waits for ever.

mod cluster;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use meridian_types::ClusterId;
use meridian_wire::limits::RAFT_MESSAGE_SIZE_MAX;
use meridian_wire::raft::raft_client::RaftClient;
use meridian_wire::raft::snapshot_piece::Piece;
use meridian_wire::raft::{RaftMessage, RaftReply, SnapshotEnd, SnapshotPiece, SnapshotStart};
use meridian_wire::tls::Identity;
use meridian_wire::{LinkTimings, LocalNode, call, channel, raft_client};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use cluster::{Authority, CALLER_NAME, CERTIFIED, NAME, Proxy, Served, local, serve, timings};

const DEADLINE: Duration = Duration::from_secs(10);

fn message(body: &'static [u8]) -> RaftMessage {
    RaftMessage { caller: local().caller(), group: 16, kind: 1, to: local().node.0, body: Bytes::from_static(body) }
}

fn client(served: &Served, identity: &Identity, name: &str) -> RaftClient<Channel> {
    raft_client(channel(&served.address, identity, name, &timings()).unwrap())
}

async fn exchange(client: &RaftClient<Channel>, message: RaftMessage) -> Result<RaftReply, Status> {
    let mut client = client.clone();
    call(DEADLINE, message, async move |request| client.exchange(request).await).await
}

#[tokio::test]
async fn a_node_of_the_cluster_is_served() {
    let authority = Authority::new();
    let served = serve(&authority.node(NAME)).await;
    let client = client(&served, &authority.node("n2.dc-a.meridian"), NAME);
    let reply = exchange(&client, message(b"append")).await.unwrap();
    assert_eq!(&reply.body[..], b"append");
}

#[tokio::test]
async fn a_caller_is_who_its_certificate_names() {
    let authority = Authority::new();
    let served = serve(&authority.node(NAME)).await;
    let own = client(&served, &authority.node(CALLER_NAME), NAME);
    assert!(exchange(&own, message(CERTIFIED)).await.is_ok());
    for other in ["n3.dc-a.meridian", "n2.dc-b.meridian", NAME] {
        let other = client(&served, &authority.node(other), NAME);
        let refused = exchange(&other, message(CERTIFIED)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        assert!(refused.message().contains("node 7 of datacenter 2"), "{refused}");
    }
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_refused() {
    let authority = Authority::new();
    let served = serve(&authority.node(NAME)).await;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.ca_pem())).domain_name(NAME);
    let anonymous = Endpoint::from_shared(format!("https://{}", served.address)).unwrap().tls_config(tls).unwrap();
    let client = raft_client(anonymous.connect_lazy());
    assert!(exchange(&client, message(b"append")).await.is_err());
    assert_eq!(served.calls.load(Ordering::Relaxed), 0, "nothing reached the service");
}

#[tokio::test]
async fn a_peer_without_tls_is_refused() {
    let authority = Authority::new();
    let served = serve(&authority.node(NAME)).await;
    let plain = Endpoint::from_shared(format!("http://{}", served.address)).unwrap();
    assert!(exchange(&raft_client(plain.connect_lazy()), message(b"append")).await.is_err());
    assert_eq!(served.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let served = serve(&authority.node(NAME)).await;
    // It trusts the server's authority, but its own certificate is of another.
    let stranger = foreign.node_trusting("n2.dc-a.meridian", &authority.ca_pem());
    assert!(exchange(&client(&served, &stranger, NAME), message(b"append")).await.is_err());
    assert_eq!(served.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    // The server takes our client's certificate, but its own is of another authority.
    let served = serve(&foreign.node_trusting(NAME, &authority.ca_pem())).await;
    let client = client(&served, &authority.node("n2.dc-a.meridian"), NAME);
    assert!(exchange(&client, message(b"append")).await.is_err());
    assert_eq!(served.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_server_that_is_not_the_node_meant_is_refused() {
    let authority = Authority::new();
    let served = serve(&authority.node("n3.dc-a.meridian")).await;
    let client = client(&served, &authority.node("n2.dc-a.meridian"), NAME);
    assert!(exchange(&client, message(b"append")).await.is_err());
    assert_eq!(served.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn another_cluster_protocol_or_node_is_a_failed_precondition() {
    let authority = Authority::new();
    let served = serve(&authority.node(NAME)).await;
    let client = client(&served, &authority.node("n2.dc-a.meridian"), NAME);

    let elsewhere = LocalNode { cluster: ClusterId([9; 16]), ..local() };
    let other_cluster = RaftMessage { caller: elsewhere.caller(), ..message(b"") };
    let mut newer = local().caller();
    newer.as_mut().unwrap().protocol_version += 1;
    let other_protocol = RaftMessage { caller: newer, ..message(b"") };
    let other_node = RaftMessage { to: local().node.0 + 1, ..message(b"") };
    for refused in [other_cluster, other_protocol, other_node] {
        assert_eq!(exchange(&client, refused).await.unwrap_err().code(), Code::FailedPrecondition);
    }
    let nobody = RaftMessage { caller: None, ..message(b"") };
    assert_eq!(exchange(&client, nobody).await.unwrap_err().code(), Code::InvalidArgument);
}

/// Sends bytes that are no message at all.
async fn send_raw(served: &Served, identity: &Identity, body: Bytes) -> Status {
    let channel = channel(&served.address, identity, NAME, &timings()).unwrap();
    let mut raw = tonic::client::Grpc::new(channel).max_encoding_message_size(usize::MAX);
    raw.ready().await.unwrap();
    let path = "/meridian.raft.v1.Raft/Exchange".parse().unwrap();
    raw.unary(Request::new(body), path, cluster::RawCodec).await.unwrap_err()
}

#[tokio::test]
async fn garbage_is_an_invalid_argument() {
    let authority = Authority::new();
    let served = serve(&authority.node(NAME)).await;
    let status = send_raw(&served, &authority.node("n2.dc-a.meridian"), Bytes::from_static(&[0xff; 64])).await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert_eq!(served.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused() {
    let authority = Authority::new();
    let served = serve(&authority.node(NAME)).await;
    let identity = authority.node("n2.dc-a.meridian");
    let oversize = RaftMessage { body: vec![0; RAFT_MESSAGE_SIZE_MAX].into(), ..message(b"") };

    let too_large = [Code::ResourceExhausted];
    let client = client(&served, &identity, NAME);
    let status = exchange(&client, oversize).await.unwrap_err();
    assert!(too_large.contains(&status.code()), "{status:?}");
    let status = send_raw(&served, &identity, vec![0; RAFT_MESSAGE_SIZE_MAX + 1].into()).await;
    assert!(too_large.contains(&status.code()), "{status:?}");
    assert_eq!(served.calls.load(Ordering::Relaxed), 0);
    exchange(&client, message(b"still served")).await.unwrap();
}

#[tokio::test]
async fn a_message_above_the_default_limit_of_tonic_passes() {
    let authority = Authority::new();
    let served = serve(&authority.node(NAME)).await;
    let client = client(&served, &authority.node("n2.dc-a.meridian"), NAME);
    let large = RaftMessage { body: vec![7; 20 << 20].into(), ..message(b"") };
    assert_eq!(exchange(&client, large).await.unwrap().body.len(), 20 << 20);
}

#[tokio::test]
async fn a_snapshot_arrives_in_pieces() {
    let authority = Authority::new();
    let served = serve(&authority.node(NAME)).await;
    let mut client = client(&served, &authority.node("n2.dc-a.meridian"), NAME);
    let start = SnapshotStart { caller: local().caller(), group: 16, to: local().node.0, meta: Bytes::new() };
    let pieces = [
        Piece::Start(start),
        Piece::Data(Bytes::from_static(b"ab")),
        Piece::Data(Bytes::from_static(b"cd")),
        Piece::End(SnapshotEnd { size_bytes: 4, crc32c: 0 }),
    ];
    let stream = tokio_stream::iter(pieces.map(|piece| SnapshotPiece { piece: Some(piece) }));
    let reply = client.install_snapshot(stream).await.unwrap().into_inner();
    assert_eq!(&reply.body[..], b"abcd");
}

#[tokio::test]
async fn a_call_ends_at_its_deadline() {
    let authority = Authority::new();
    let served = serve(&authority.node(NAME)).await;
    let mut client = client(&served, &authority.node("n2.dc-a.meridian"), NAME);
    let silence = message(cluster::NEVER_ANSWERED);
    let deadline = Duration::from_millis(200);
    let status = call(deadline, silence, async move |request| client.exchange(request).await).await.unwrap_err();
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&status.code()), "{status:?}");
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_does_not_hold_a_call() {
    let authority = Authority::new();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let accepted = tokio::spawn(async move { silent.accept().await.unwrap() });
    let short = LinkTimings { connect_timeout: Duration::from_millis(200), ..timings() };
    let client = raft_client(channel(&address, &authority.node(NAME), NAME, &short).unwrap());
    let status = exchange(&client, message(b"append")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    drop(accepted.await.unwrap());
}

#[tokio::test]
async fn a_channel_recovers_from_a_link_that_swallowed_everything() {
    let authority = Authority::new();
    let served = serve(&authority.node(NAME)).await;
    // The client dials the proxy and still demands the node's own name.
    let proxy = Proxy::start(&served.address).await;
    let identity = authority.node("n2.dc-a.meridian");
    let client = raft_client(channel(&proxy.address, &identity, NAME, &timings()).unwrap());
    exchange(&client, message(b"before")).await.unwrap();

    proxy.swallow(true);
    let mut cut = client.clone();
    let short = Duration::from_millis(300);
    let lost = call(short, message(b"lost"), async move |request| cut.exchange(request).await).await;
    assert!(lost.is_err());

    // Connections made during the cut stay dead for ever: only keep-alive gets the channel off them.
    proxy.swallow(false);
    let healed = async {
        loop {
            let mut client = client.clone();
            let answer = call(short, message(b"after"), async move |request| client.exchange(request).await).await;
            if let Ok(reply) = answer {
                return reply;
            }
        }
    };
    let reply = tokio::time::timeout(Duration::from_secs(20), healed).await.expect("the channel recovers");
    assert_eq!(&reply.body[..], b"after");
}

#[tokio::test]
async fn one_identity_serves_many_channels_at_once() {
    let authority = Authority::new();
    let served = serve(&authority.node(NAME)).await;
    let identity = Arc::new(authority.node("n2.dc-a.meridian"));
    let calls = (0..8).map(|_| {
        let client = client(&served, &identity, NAME);
        tokio::spawn(async move { exchange(&client, message(b"x")).await })
    });
    for answer in calls.collect::<Vec<_>>() {
        answer.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_served_again_once_there_is_room() {
    let authority = Authority::new();
    let identity = authority.node(NAME);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = meridian_wire::server(&identity, &timings()).unwrap().add_service(cluster::echo());
    let task = tokio::spawn(router.serve_with_incoming(meridian_wire::incoming_limited(listener, 2)));
    // Two strangers that say nothing take all places; each is let go when its handshake is not made in time.
    let strangers = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    let mut third = TcpStream::connect(address).await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(5), third.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    drop(strangers);
    let client = raft_client(channel(&address.to_string(), &identity, NAME, &timings()).unwrap());
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    while exchange(&client, message(b"room")).await.is_err() {
        assert!(tokio::time::Instant::now() < until, "the places were never free again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    task.abort();
}
