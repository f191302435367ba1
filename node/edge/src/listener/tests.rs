//! The listener with handshakes that never end, that are too many, and that fail; what plain HTTP and TLS tell of a peer.

use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::Full;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::*;

/// A moment that a busy machine keeps for what is at once.
const SOON: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    counts: Arc<ListenerCounts>,
    certificate: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Server {
    /// Answers each request with what it knows of the peer.
    async fn start(limits: ListenerLimits, tls: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let tls = tls.then(|| Arc::new(ClientTls::open(certificate, key).unwrap()));
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, counts) = (socket.local_addr().unwrap(), Arc::new(ListenerCounts::default()));
        let refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        let listener = Listener { name: "test", limits, tls, refusal, counts: Arc::clone(&counts) };
        let (stop, stopped) = oneshot::channel();
        let answer = |request: Request<Incoming>, peer: Peer| async move {
            let tls = peer.tls.map_or("none", TlsVersion::name);
            let host = request.headers()["host"].to_str().unwrap().to_owned();
            Response::new(Full::new(Bytes::from(format!("{tls} {:?} {host}", request.version()))))
        };
        let stopped = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(async move { listener.serve(socket, answer, stopped).await });
        let certificate = made.cert.pem();
        Self { address, counts, certificate, stop, task, _directory: directory }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn connect_tls(
        &self,
        version: &'static rustls::SupportedProtocolVersion,
        alpn: &[&[u8]],
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(ServerName::try_from("localhost").unwrap(), self.connect().await).await.unwrap()
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(SOON, self.task).await.expect("it ends").unwrap();
    }
}

async fn until(counter: &AtomicU64, wanted: u64) {
    let reached = async {
        while counter.load(Ordering::Relaxed) != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, reached).await.expect("the counter gets there");
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = tokio::time::timeout(SOON, stream.read(&mut [0; 1])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_handler_learns_how_the_request_came() {
    let server = Server::start(ListenerLimits::default(), true).await;
    for (version, name) in [(&rustls::version::TLS12, "TLSv1.2"), (&rustls::version::TLS13, "TLSv1.3")] {
        let stream = server.connect_tls(version, &[b"http/1.1"]).await;
        assert!(ask(stream).await.ends_with(&format!("{name} HTTP/1.1 a.test")));
    }
    let stream = server.connect_tls(&rustls::version::TLS13, &[b"http/1.1", b"h2"]).await;
    let session = stream.get_ref().1;
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]), "the better one of both");
    assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = Request::get("https://b.test:9000/x").body(Full::<Bytes>::default()).unwrap();
    let answer = sender.send_request(request).await.unwrap().into_body();
    let body = http_body_util::BodyExt::collect(answer).await.unwrap().to_bytes();
    assert_eq!(body, "TLSv1.3 HTTP/2.0 b.test:9000");
    drop(sender);
    let _ = driver.await;
    assert_eq!(server.counts.handshakes_ok.load(Ordering::Relaxed), 3);
    server.stop().await;

    let server = Server::start(ListenerLimits::default(), false).await;
    assert!(ask(server.connect().await).await.ends_with("none HTTP/1.1 a.test"));
    server.stop().await;
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut() {
    let limits = ListenerLimits { handshake_timeout: Duration::from_millis(100), ..Default::default() };
    let server = Server::start(limits, true).await;
    let mut silent = server.connect().await;
    let mut slow = server.connect().await;
    slow.write_all(&[0x16, 0x03, 0x01]).await.unwrap(); // the start of a record, and then nothing
    assert!(is_closed(&mut silent).await && is_closed(&mut slow).await);
    until(&server.counts.handshakes_late, 2).await;
    let mut plain = server.connect().await;
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "plain HTTP is not answered: {answer:?}");
    until(&server.counts.handshakes_failed, 1).await;
    until(&server.counts.connections, 0).await;
    server.stop().await;
}

#[tokio::test]
async fn handshakes_past_the_limit_are_refused_and_none_holds_up_the_end() {
    let limits =
        ListenerLimits { handshakes_max: 1, handshake_timeout: Duration::from_secs(3600), ..Default::default() };
    let server = Server::start(limits, true).await;
    let mut holder = server.connect().await;
    let mut second = server.connect().await;
    // Which of the two holds the place is the server's to say: exactly one of them is closed.
    let (first_closed, second_closed) = (is_closed(&mut holder), is_closed(&mut second));
    tokio::select! {
        closed = first_closed => assert!(closed),
        closed = second_closed => assert!(closed),
    }
    until(&server.counts.handshakes_refused, 1).await;
    until(&server.counts.connections, 1).await;
    server.stop().await;
}

#[tokio::test]
async fn connections_past_the_limit_are_counted_and_told_over_plain_http_alone() {
    for tls in [false, true] {
        let server = Server::start(ListenerLimits { connections_max: 0, ..Default::default() }, tls).await;
        let mut answer = Vec::new();
        let _ = server.connect().await.read_to_end(&mut answer).await;
        assert_eq!(answer.starts_with(b"HTTP/1.1 503"), !tls, "{answer:?}");
        until(&server.counts.connections_refused, 1).await;
        server.stop().await;
    }
}
