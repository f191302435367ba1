//! The gateway from the socket to an operation and back: signatures, bodies, framing, limits, panics, shutdown. The
//! operations are a map in memory, so that only the gateway is at test.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures::StreamExt;
use http::Request;
use meridian_sigv4::{Credentials, PayloadHash, Scope, SecretKey, sign};
use parking_lot::Mutex;
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result, dto};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::auth::context_of;
use crate::checksums::{promised, verified};
use crate::config::{CredentialsError, CredentialsProvider, GatewayLimits, Principal};
use crate::errors::{error, object_error};
use crate::put::body_length;

mod signatures;

const ACCESS: &str = "AKTEST";
const SECRET: &str = "secret";

/// Objects in memory; deleting one panics.
#[derive(Default)]
struct Fake(Mutex<HashMap<String, Vec<u8>>>);

#[async_trait]
impl S3 for Fake {
    async fn put_object(&self, request: S3Request<dto::PutObjectInput>) -> S3Result<S3Response<dto::PutObjectOutput>> {
        let S3Request { input, headers, extensions, trailing_headers, .. } = request;
        let context = context_of(&extensions).cloned();
        let length = body_length(input.content_length, &headers)?;
        let mut body = verified(input.body, promised(&headers)?, trailing_headers, context.clone());
        let mut bytes = Vec::new();
        let failed = |failure| object_error(failure, context.as_deref());
        while let Some(piece) = body.stream.next().await {
            bytes.extend_from_slice(&piece.map_err(|broken| failed(meridian_object::ObjectError::Body(broken)))?);
        }
        assert_eq!(bytes.len() as u64, length);
        if let Some(finish) = body.finish {
            finish().map_err(failed)?;
        }
        self.0.lock().insert(input.key, bytes);
        Ok(S3Response::new(dto::PutObjectOutput::default()))
    }

    async fn get_object(&self, request: S3Request<dto::GetObjectInput>) -> S3Result<S3Response<dto::GetObjectOutput>> {
        let found = self.0.lock().get(&request.input.key).cloned();
        let bytes = found.ok_or_else(|| error(S3ErrorCode::NoSuchKey, "none"))?;
        let content_length = Some(bytes.len() as i64);
        let body = Some(s3s::Body::from(bytes).into());
        Ok(S3Response::new(dto::GetObjectOutput { body, content_length, ..Default::default() }))
    }

    async fn head_object(&self, _: S3Request<dto::HeadObjectInput>) -> S3Result<S3Response<dto::HeadObjectOutput>> {
        Err(error(S3ErrorCode::NoSuchKey, "none"))
    }

    async fn delete_object(
        &self,
        _: S3Request<dto::DeleteObjectInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectOutput>> {
        panic!("a bug of ours");
    }

    async fn delete_objects(
        &self,
        request: S3Request<dto::DeleteObjectsInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectsOutput>> {
        let named =
            |object: &dto::ObjectIdentifier| dto::DeletedObject { key: Some(object.key.clone()), ..Default::default() };
        let deleted = Some(request.input.delete.objects.iter().map(named).collect());
        Ok(S3Response::new(dto::DeleteObjectsOutput { deleted, ..Default::default() }))
    }
}

struct Users;

#[async_trait]
impl CredentialsProvider for Users {
    async fn principal(&self, access_key: &str) -> Result<Option<Principal>, CredentialsError> {
        let identity = Arc::new(crate::testing::identity("ann", true));
        let principal = || Principal { secret_key: SecretKey::new(SECRET), identity, session_policy: None };
        Ok((access_key == ACCESS).then(principal))
    }
}

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    async fn start(limits: GatewayLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let config = S3Config { limits, ..S3Config::new(Arc::new(Users)) };
        let shutdown = async move {
            let _ = stopped.await;
        };
        Self { address, stop, task: tokio::spawn(serve_with(config, Fake::default(), None, listener, shutdown)) }
    }

    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    /// One request on a connection of its own.
    async fn ask(&self, request: Vec<u8>) -> Answer {
        self.connect().await.ask(request).await
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

struct Client(TcpStream);

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn code(&self) -> &str {
        self.body.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("", |(code, _)| code)
    }
}

impl Client {
    async fn ask(&mut self, request: Vec<u8>) -> Answer {
        let is_head = request.starts_with(b"HEAD");
        self.0.write_all(&request).await.unwrap();
        self.answer(is_head).await
    }

    async fn answer(&mut self, is_head: bool) -> Answer {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.0.read_buf(&mut bytes).await.unwrap() > 0, "closed in the head: {bytes:?}");
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let length = if is_head { 0 } else { length };
        while bytes.len() < end + length {
            assert!(self.0.read_buf(&mut bytes).await.unwrap() > 0, "closed in the body");
        }
        assert_eq!(bytes.len(), end + length, "bytes behind the answer");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: String::from_utf8(bytes[end..].to_vec()).unwrap() }
    }

    /// Whether the server closes the connection.
    async fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0; 1]).await, Ok(0) | Err(_))
    }
}

fn now_unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A signed head and what stands behind it. `hash` replaces the payload's own.
struct Signed {
    secret: &'static str,
    unix_ms: u64,
    payload: Vec<u8>,
    claim: Option<&'static str>,
}

impl Signed {
    fn new(payload: impl Into<Vec<u8>>) -> Self {
        Self { secret: SECRET, unix_ms: now_unix_ms(), payload: payload.into(), claim: None }
    }

    fn request(self, method: &str, uri: &str, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut request = Request::builder().method(method).uri(uri).header("host", "localhost:9000");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let credentials = Credentials { access_key: ACCESS.to_owned(), secret_key: SecretKey::new(self.secret) };
        let scope = Scope::new("any-region", "s3");
        sign(&mut parts, &PayloadHash::of(&self.payload), &credentials, &scope, self.unix_ms).unwrap();
        if let Some(claim) = self.claim {
            resign(&mut parts, claim, &credentials);
        }
        let mut bytes = format!("{method} {uri} HTTP/1.1\r\n").into_bytes();
        for (name, value) in &parts.headers {
            bytes.extend_from_slice(format!("{name}: ").as_bytes());
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", self.payload.len()).as_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

/// Signs again with a payload claim that is no hash, as S3's streaming forms have it: by the published algorithm.
fn resign(parts: &mut http::request::Parts, claim: &str, credentials: &Credentials) {
    use s3s::crypto::Checksum as _;
    let hash = |bytes: &[u8]| hex::encode(s3s::crypto::Sha256::checksum(bytes));
    parts.headers.insert("x-amz-content-sha256", claim.parse().unwrap());
    let old = parts.headers["authorization"].to_str().unwrap().to_owned();
    let signed = old.split_once("SignedHeaders=").unwrap().1.split_once(',').unwrap().0.to_owned();
    let lines: String =
        signed.split(';').map(|name| format!("{name}:{}\n", parts.headers[name].to_str().unwrap())).collect();
    let query = parts.uri.query().unwrap_or_default();
    let canonical = format!("{}\n{}\n{query}\n{lines}\n{signed}\n{claim}", parts.method, parts.uri.path());
    let date = parts.headers["x-amz-date"].to_str().unwrap();
    let scope = format!("{}/any-region/s3/aws4_request", &date[..8]);
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hash(canonical.as_bytes()));
    let mut key = format!("AWS4{}", credentials.secret_key.expose()).into_bytes();
    for part in [&date[..8], "any-region", "s3", "aws4_request"] {
        key = hmac_sha256(&key, part.as_bytes());
    }
    let signature = hex::encode(hmac_sha256(&key, text.as_bytes()));
    let head = old.split_once("Signature=").unwrap().0;
    parts.headers.insert("authorization", format!("{head}Signature={signature}").parse().unwrap());
}

fn hmac_sha256(key: &[u8], data: &[u8]) -> Vec<u8> {
    use s3s::crypto::Checksum as _;
    let sha256 = |bytes: &[u8]| s3s::crypto::Sha256::checksum(bytes).to_vec();
    let mut block = if key.len() > 64 { sha256(key) } else { key.to_vec() };
    block.resize(64, 0);
    let pad = |byte: u8| block.iter().map(|key| key ^ byte).collect::<Vec<u8>>();
    let inner = sha256(&[pad(0x36), data.to_vec()].concat());
    sha256(&[pad(0x5c), inner].concat())
}

fn put(path: &str, body: &str) -> Vec<u8> {
    Signed::new(body).request("PUT", path, &[])
}

fn get(path: &str) -> Vec<u8> {
    Signed::new("").request("GET", path, &[])
}

#[tokio::test]
async fn a_signed_put_is_read_back_on_the_same_connection() {
    let server = Server::start(GatewayLimits::default()).await;
    let mut client = server.connect().await;
    assert_eq!(client.ask(put("/photos/a%20b//..", "hello")).await.status, 200);
    let answer = client.ask(get("/photos/a%20b//..")).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
    assert!(answer.head.contains("x-amz-request-id: "), "{}", answer.head);
    server.stop().await;
}

#[tokio::test]
async fn who_is_not_known_is_denied_without_learning_anything() {
    let server = Server::start(GatewayLimits::default()).await;
    let anonymous = b"GET /photos/a HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    let answer = server.ask(anonymous).await;
    assert_eq!((answer.status, answer.code()), (403, "AccessDenied"));
    let wrong = Signed { secret: "wrong", ..Signed::new("") }.request("GET", "/photos/a", &[]);
    let answer = server.ask(wrong).await;
    assert_eq!((answer.status, answer.code()), (403, "SignatureDoesNotMatch"));
    for skew_ms in [-16 * 60_000i64, 16 * 60_000] {
        let unix_ms = now_unix_ms().checked_add_signed(skew_ms).unwrap();
        let skewed = Signed { unix_ms, ..Signed::new("") }.request("GET", "/photos/a", &[]);
        let answer = server.ask(skewed).await;
        assert_eq!((answer.status, answer.code()), (403, "RequestTimeTooSkewed"));
    }
    let tampered = String::from_utf8(get("/photos/a")).unwrap().replace("/photos/a", "/photos/b");
    assert_eq!(server.ask(tampered.into_bytes()).await.code(), "SignatureDoesNotMatch");
    server.stop().await;
}

#[tokio::test]
async fn a_body_other_than_the_signed_one_is_refused() {
    let server = Server::start(GatewayLimits::default()).await;
    let tampered = String::from_utf8(put("/photos/a", "hello")).unwrap().replace("hello", "hullo");
    let answer = server.ask(tampered.into_bytes()).await;
    assert_eq!((answer.status, answer.code()), (400, "XAmzContentSHA256Mismatch"));
    assert_eq!(server.ask(get("/photos/a")).await.code(), "NoSuchKey");
    server.stop().await;
}

/// One chunk with all the data, as some SDKs send it, and the checksum behind it.
fn trailing(checksum: &str, framed: &str) -> Vec<u8> {
    let claim = Some("STREAMING-UNSIGNED-PAYLOAD-TRAILER");
    let payload = framed.replace("CHECKSUM", checksum).into_bytes();
    let headers = [
        ("x-amz-decoded-content-length", "9"),
        ("x-amz-trailer", "x-amz-checksum-crc32"),
        ("content-encoding", "aws-chunked"),
    ];
    Signed { claim, ..Signed::new(payload) }.request("PUT", "/photos/t", &headers)
}

#[tokio::test]
async fn checksums_in_trailers_are_verified() {
    let server = Server::start(GatewayLimits::default()).await;
    let framed = "9\r\n123456789\r\n0\r\nx-amz-checksum-crc32:CHECKSUM\r\n\r\n";
    let answer = server.ask(trailing("y/Q5Jg==", framed)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(server.ask(get("/photos/t")).await.body, "123456789");
    for (checksum, framed, code) in [
        ("AAAAAA==", framed, "BadDigest"),
        ("", "9\r\n123456789\r\n0\r\n\r\n", "InvalidRequest"),
        ("y/Q5Jg==", "9\r\n123456789\r\n", "IncompleteBody"),
        ("y/Q5Jg==", "z\r\n123456789\r\n", "InvalidRequest"),
    ] {
        let answer = server.ask(trailing(checksum, framed)).await;
        assert_eq!((answer.status, answer.code()), (400, code), "{framed:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn ambiguous_framing_is_answered_400_and_closed() {
    let server = Server::start(GatewayLimits::default()).await;
    for request in [
        "PUT /b/k HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "PUT /b/k HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "PUT /b/k HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        "GET /b/k HTTP/1.1\nHost: a\n\n",
        "GET /b/k HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    ] {
        let mut client = server.connect().await;
        let answer = client.ask(request.as_bytes().to_vec()).await;
        assert_eq!(answer.status, 400, "{request:?}");
        assert!(client.is_closed().await, "{request:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_panic_is_one_requests_own() {
    let server = Server::start(GatewayLimits::default()).await;
    let mut client = server.connect().await;
    let answer = client.ask(Signed::new("").request("DELETE", "/photos/a", &[])).await;
    assert_eq!((answer.status, answer.code()), (500, "InternalError"));
    assert_eq!(client.ask(get("/photos/a")).await.code(), "NoSuchKey");
    server.stop().await;
}

#[tokio::test]
async fn an_error_of_head_has_no_body() {
    let server = Server::start(GatewayLimits::default()).await;
    let mut client = server.connect().await;
    let answer = client.ask(Signed::new("").request("HEAD", "/photos/a", &[])).await;
    assert_eq!((answer.status, answer.body.as_str()), (404, ""));
    assert_eq!(client.ask(get("/photos/a")).await.status, 404, "nothing stood behind the head");
    server.stop().await;
}

#[tokio::test]
async fn documents_are_checked_before_they_are_parsed() {
    let server = Server::start(GatewayLimits::default()).await;
    let post = |xml: &str| Signed::new(xml).request("POST", "/photos?delete=", &[]);
    let good = server.ask(post("<Delete><Object><Key>a</Key></Object></Delete>")).await;
    assert!(good.status == 200 && good.body.contains("<Key>a</Key>"), "{good:?}");
    for xml in ["<!DOCTYPE a><Delete><Object><Key>a</Key></Object></Delete>", "<Delete><Object>", "no xml"] {
        let answer = server.ask(post(xml)).await;
        assert_eq!((answer.status, answer.code()), (400, "MalformedXML"), "{xml}");
    }
    let tampered = String::from_utf8(post("<Delete><Object><Key>a</Key></Object></Delete>")).unwrap();
    let answer = server.ask(tampered.replace("<Key>a<", "<Key>b<").into_bytes()).await;
    assert_eq!((answer.status, answer.code()), (400, "XAmzContentSHA256Mismatch"));
    server.stop().await;
}

#[tokio::test]
async fn names_and_operations_that_are_not_offered_are_refused() {
    let server = Server::start(GatewayLimits::default()).await;
    for (path, status, code) in [
        ("/A/k", 400, "InvalidBucketName"),
        ("/1.2.3.4/k", 400, "InvalidBucketName"),
        ("/photos/k?torrent", 501, "NotImplemented"),
    ] {
        let answer = server.ask(get(path)).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{path}");
    }
    let long = format!("/photos/{}", "k".repeat(1025));
    assert_eq!(server.ask(get(&long)).await.code(), "KeyTooLongError");
    server.stop().await;
}

#[tokio::test]
async fn a_silent_body_times_out() {
    let limits = GatewayLimits { body_idle_timeout: Duration::from_millis(50), ..Default::default() };
    let server = Server::start(limits).await;
    let mut request = put("/photos/a", "hello");
    request.truncate(request.len() - 2);
    let mut client = server.connect().await;
    let answer = client.ask(request).await;
    assert_eq!((answer.status, answer.code()), (400, "RequestTimeout"));
    assert!(client.is_closed().await);
    server.stop().await;
}

#[tokio::test]
async fn a_connection_on_which_an_unread_body_may_follow_is_closed_and_the_answer_says_so() {
    let server = Server::start(GatewayLimits::default()).await;
    let expecting = |body: &str| Signed::new(body).request("PUT", "/photos/a", &[("expect", "100-continue")]);
    let refused = Signed { secret: "wrong", ..Signed::new("hello") };
    let refused = refused.request("PUT", "/photos/a", &[("expect", "100-continue")]);
    for (request, status) in [(expecting(""), 200), (refused, 403)] {
        let mut client = server.connect().await;
        let answer = client.ask(request).await;
        assert_eq!(answer.status, status);
        assert!(answer.head.contains("connection: close"), "{}", answer.head);
        assert!(client.is_closed().await);
    }
    let mut client = server.connect().await;
    for request in [put("/photos/a", "hello"), put("/photos/b", ""), get("/photos/a"), get("/photos/none")] {
        let answer = client.ask(request).await;
        assert!(!answer.head.contains("connection: close"), "{}", answer.head);
    }
    server.stop().await;
}

#[tokio::test]
async fn past_the_limits_clients_are_told_to_slow_down() {
    let limits = GatewayLimits { connections_max: 1, ..Default::default() };
    let server = Server::start(limits).await;
    let mut first = server.connect().await;
    assert_eq!(first.ask(get("/photos/a")).await.status, 404);
    let mut second = server.connect().await;
    let answer = second.answer(false).await;
    assert_eq!((answer.status, answer.code()), (503, "SlowDown"));
    assert!(second.is_closed().await);
    server.stop().await;

    let server = Server::start(GatewayLimits { requests_max: 0, ..Default::default() }).await;
    let answer = server.ask(get("/photos/a")).await;
    assert_eq!((answer.status, answer.code()), (503, "SlowDown"));
    assert!(answer.head.contains("retry-after: 1"));
    server.stop().await;
}

#[tokio::test]
async fn a_running_request_ends_before_the_server_does() {
    let server = Server::start(GatewayLimits::default()).await;
    let request = put("/photos/a", "hello");
    let mut client = server.connect().await;
    client.0.write_all(&request[..request.len() - 2]).await.unwrap();
    client.0.flush().await.unwrap();
    let mut idle = server.connect().await;
    assert_eq!(idle.ask(get("/photos/a")).await.status, 404); // the server has read what came before
    server.stop.send(()).unwrap();
    assert!(idle.is_closed().await);
    client.0.write_all(&request[request.len() - 2..]).await.unwrap();
    assert_eq!(client.answer(false).await.status, 200);
    server.task.await.unwrap().unwrap();
}

#[test]
fn the_refusal_announces_its_length() {
    let text = std::str::from_utf8(REFUSAL).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
}
