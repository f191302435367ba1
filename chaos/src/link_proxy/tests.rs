//! The proxy over real sockets: what comes through, what waits, what is gone, and when.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{BUFFER_SIZE_MAX, Direction, Flow, LinkCounters, LinkProxy};

/// How long anything here may take; far more than it does.
const DEADLINE: Duration = Duration::from_secs(20);

/// A server that hands out the connections it gets, and a proxy before it.
struct Line {
    listener: TcpListener,
    proxy: LinkProxy,
}

impl Line {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = LinkProxy::start(listener.local_addr().unwrap()).await.unwrap();
        Self { listener, proxy }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.proxy.address()).await.unwrap()
    }

    async fn accept(&self) -> TcpStream {
        in_time(self.listener.accept()).await.unwrap().0
    }

    async fn pair(&self) -> (TcpStream, TcpStream) {
        (self.connect().await, self.accept().await)
    }

    async fn until(&self, condition: impl Fn(LinkCounters) -> bool) {
        let reached = async {
            while !condition(self.proxy.control().counters()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let timely = tokio::time::timeout(DEADLINE, reached).await;
        assert!(timely.is_ok(), "{:?}", self.proxy.control().counters());
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("it ends in time")
}

async fn read_bytes(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    in_time(stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

/// What ends a connection: None for FIN, else the error.
async fn end_of(stream: &mut TcpStream) -> Option<ErrorKind> {
    let mut rest = Vec::new();
    in_time(stream.read_to_end(&mut rest)).await.err().map(|error| error.kind())
}

fn is_silent(stream: &TcpStream) -> bool {
    stream.try_read(&mut [0; 1]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

fn noise(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index.wrapping_mul(0x9e37_79b9) >> 11) as u8).collect()
}

#[tokio::test]
async fn bytes_pass_unchanged_both_ways_and_are_counted() {
    let line = Line::new().await;
    let (mut client, mut server) = line.pair().await;
    let (there, back) = (noise(3_000_000), noise(1_000_001));
    let (sent_there, sent_back) = (there.clone(), back.clone());
    let (client, server) = in_time(async {
        tokio::join!(
            async {
                client.write_all(&sent_there).await.unwrap();
                client.shutdown().await.unwrap();
                let mut got = Vec::new();
                client.read_to_end(&mut got).await.unwrap();
                got
            },
            async {
                let mut got = Vec::new();
                server.read_to_end(&mut got).await.unwrap();
                // The other half of a half-closed connection still works.
                server.write_all(&sent_back).await.unwrap();
                server.shutdown().await.unwrap();
                got
            }
        )
    })
    .await;
    assert!(client == back && server == there);
    line.until(|counters| counters.open == 0).await;
    let counters = line.proxy.control().counters();
    assert_eq!((counters.accepted, counters.unreachable), (1, 0));
    assert_eq!((counters.forward.taken_bytes, counters.forward.delivered_bytes), (3_000_000, 3_000_000));
    assert_eq!((counters.backward.delivered_bytes, counters.backward.lost_bytes), (1_000_001, 0));
}

#[tokio::test]
async fn what_was_sent_into_a_cut_arrives_after_the_heal() {
    let line = Line::new().await;
    let (mut client, mut server) = line.pair().await;
    line.proxy.control().cut();
    client.write_all(b"request").await.unwrap();
    server.write_all(b"answer").await.unwrap();
    line.until(|counters| counters.forward.taken_bytes == 7 && counters.backward.taken_bytes == 6).await;
    assert!(is_silent(&client) && is_silent(&server));
    line.proxy.control().heal();
    assert_eq!(read_bytes(&mut server, 7).await, b"request");
    assert_eq!(read_bytes(&mut client, 6).await, b"answer");
}

#[tokio::test]
async fn no_connection_is_established_while_one_direction_is_cut() {
    let line = Line::new().await;
    line.proxy.control().set_flow(Direction::Backward, Flow::Held);
    let mut early = line.connect().await;
    early.write_all(b"hello").await.unwrap();
    let gone = line.connect().await;
    line.until(|counters| counters.open == 2 && counters.forward.taken_bytes == 5).await;
    drop(gone);
    line.until(|counters| counters.open == 1).await; // who gives up meanwhile is never seen at the target
    line.proxy.control().heal();
    let mut server = line.accept().await;
    assert_eq!(read_bytes(&mut server, 5).await, b"hello");
    assert_eq!(line.proxy.control().counters().forward.delivered_bytes, 5);
}

#[tokio::test]
async fn a_connection_that_has_lost_bytes_one_way_stays_silent_that_way() {
    let line = Line::new().await;
    let (mut client, mut server) = line.pair().await;
    line.proxy.control().set_flow(Direction::Backward, Flow::Lost);
    client.write_all(b"request").await.unwrap();
    assert_eq!(read_bytes(&mut server, 7).await, b"request");
    server.write_all(b"answer").await.unwrap();
    line.until(|counters| counters.backward.lost_bytes == 6).await;
    line.proxy.control().heal();
    server.write_all(b"again").await.unwrap();
    client.write_all(b"more").await.unwrap();
    assert_eq!(read_bytes(&mut server, 4).await, b"more");
    line.until(|counters| counters.backward.lost_bytes == 11).await;
    assert!(is_silent(&client));

    let (mut client, mut server) = line.pair().await;
    server.write_all(b"answer").await.unwrap();
    assert_eq!(read_bytes(&mut client, 6).await, b"answer");
}

#[tokio::test]
async fn each_way_has_its_delay() {
    let line = Line::new().await;
    let control = line.proxy.control();
    control.set_delay(Direction::Forward, Duration::from_millis(40));
    control.set_delay(Direction::Backward, Duration::from_millis(20));
    let connecting = Instant::now();
    let (mut client, mut server) = line.pair().await;
    assert!(connecting.elapsed() >= Duration::from_millis(60), "the handshake is a round trip");
    let sent = Instant::now();
    client.write_all(b"1").await.unwrap();
    client.write_all(b"2").await.unwrap();
    assert_eq!(read_bytes(&mut server, 2).await, b"12");
    let arrived = sent.elapsed();
    assert!(arrived >= Duration::from_millis(40) && arrived < DEADLINE / 10, "{arrived:?}");
    server.write_all(b"3").await.unwrap();
    read_bytes(&mut client, 1).await;
    assert!(sent.elapsed() >= Duration::from_millis(60));
}

#[tokio::test]
async fn all_connections_share_the_rate_and_it_can_be_lifted() {
    const SIZE: usize = 64 << 10;
    let line = Line::new().await;
    let (mut first, mut first_end) = line.pair().await;
    let (mut second, mut second_end) = line.pair().await;
    line.proxy.control().set_rate(Direction::Forward, NonZeroU64::new(256 << 10));
    let started = Instant::now();
    first.write_all(&noise(SIZE)).await.unwrap();
    second.write_all(&noise(SIZE)).await.unwrap();
    assert_eq!(read_bytes(&mut first_end, SIZE).await, noise(SIZE));
    assert_eq!(read_bytes(&mut second_end, SIZE).await, noise(SIZE));
    assert!(started.elapsed() >= Duration::from_millis(500), "{:?}", started.elapsed());

    line.proxy.control().set_rate(Direction::Forward, NonZeroU64::new(1)); // hours, for this much
    first.write_all(&noise(SIZE)).await.unwrap();
    line.until(|counters| counters.forward.taken_bytes == 3 * SIZE as u64).await;
    line.proxy.control().set_rate(Direction::Forward, None);
    assert_eq!(read_bytes(&mut first_end, SIZE).await, noise(SIZE));
}

#[tokio::test]
async fn a_blackhole_accepts_and_never_answers() {
    let line = Line::new().await;
    let (mut client, mut server) = line.pair().await;
    line.proxy.control().blackhole();
    let mut swallowed = line.connect().await;
    swallowed.write_all(b"anybody there?").await.unwrap();
    line.until(|counters| counters.forward.lost_bytes == 14).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(read_bytes(&mut server, 1).await, b"x", "older connections go on");
    line.proxy.control().heal();
    let (_healthy, _its_server) = line.pair().await; // the next that the target sees
    swallowed.write_all(b"!").await.unwrap();
    line.until(|counters| counters.forward.lost_bytes == 15).await;
    assert!(is_silent(&swallowed));
    drop(swallowed);
    line.until(|counters| counters.open == 2).await;
}

#[tokio::test]
async fn a_reset_breaks_running_connections_at_both_ends() {
    let line = Line::new().await;
    let (mut client, mut server) = line.pair().await;
    line.proxy.control().cut();
    client.write_all(b"half a request").await.unwrap();
    line.until(|counters| counters.forward.taken_bytes == 14).await;
    line.proxy.control().reset();
    assert_eq!(end_of(&mut client).await, Some(ErrorKind::ConnectionReset));
    assert_eq!(end_of(&mut server).await, Some(ErrorKind::ConnectionReset));
    line.proxy.control().heal();
    let (mut client, mut server) = line.pair().await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(read_bytes(&mut server, 1).await, b"x");
    server.set_zero_linger().unwrap();
    drop(server);
    assert_eq!(end_of(&mut client).await, Some(ErrorKind::ConnectionReset), "one end's reset reaches the other");
}

#[tokio::test]
async fn an_end_during_a_cut_travels_like_bytes() {
    let line = Line::new().await;
    let (mut client, mut server) = line.pair().await;
    line.proxy.control().cut();
    client.write_all(b"last words").await.unwrap();
    client.shutdown().await.unwrap();
    line.until(|counters| counters.forward.taken_bytes == 10).await;
    assert!(is_silent(&server));
    line.proxy.control().heal();
    assert_eq!(read_bytes(&mut server, 10).await, b"last words");
    assert_eq!(end_of(&mut server).await, None);
}

#[tokio::test]
async fn a_cut_link_buffers_a_bounded_number_of_bytes_and_loses_none() {
    const SIZE: usize = 64 << 20;
    let line = Line::new().await;
    let (mut client, mut server) = line.pair().await;
    line.proxy.control().cut();
    let writing: JoinHandle<TcpStream> = tokio::spawn(async move {
        client.write_all(&noise(SIZE)).await.unwrap();
        client
    });
    let almost_full = (BUFFER_SIZE_MAX - (16 << 10)) as u64;
    line.until(|counters| counters.forward.taken_bytes > almost_full).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(line.proxy.control().counters().forward.taken_bytes <= BUFFER_SIZE_MAX as u64);
    assert!(!writing.is_finished(), "the sender feels the cut");
    line.proxy.control().heal();
    assert!(read_bytes(&mut server, SIZE).await == noise(SIZE));
    in_time(writing).await.unwrap();
}

#[tokio::test]
async fn a_missing_target_is_a_reset_and_the_end_of_the_proxy_ends_all() {
    let line = Line::new().await;
    let address: SocketAddr = line.proxy.address();
    let (mut client, mut server) = line.pair().await;
    let Line { listener, proxy } = line;
    drop(listener);
    let mut refused = TcpStream::connect(address).await.unwrap();
    assert_eq!(end_of(&mut refused).await, Some(ErrorKind::ConnectionReset));
    assert_eq!(proxy.control().counters().unreachable, 1);
    drop(proxy);
    assert_eq!((end_of(&mut client).await, end_of(&mut server).await), (None, None));
    let gone = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    in_time(gone).await;
}
