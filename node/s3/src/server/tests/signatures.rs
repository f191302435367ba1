//! S3's own forms of signatures, from the socket: presigned URLs, signed chunks, HTTP/2.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};

use super::*;
use hyper_util::rt::{TokioExecutor, TokioIo};

/// The time form of signatures, as `sign` writes it.
fn amz_date(unix_ms: u64) -> String {
    let (mut parts, ()) = Request::builder().uri("http://a/").body(()).unwrap().into_parts();
    let credentials = Credentials { access_key: ACCESS.to_owned(), secret_key: SecretKey::new(SECRET) };
    sign(&mut parts, &PayloadHash::of(b""), &credentials, &Scope::new("r", "s3"), unix_ms).unwrap();
    parts.headers["x-amz-date"].to_str().unwrap().to_owned()
}

fn sha256(bytes: &[u8]) -> String {
    PayloadHash::of(bytes).to_string()
}

fn signing_key(day: &str) -> Vec<u8> {
    let start = format!("AWS4{SECRET}").into_bytes();
    [day, "any-region", "s3", "aws4_request"].iter().fold(start, |key, part| hmac_sha256(&key, part.as_bytes()))
}

fn signature(date: &str, kind: &str, rest: &str) -> String {
    let text = format!("{kind}\n{date}\n{}/any-region/s3/aws4_request\n{rest}", &date[..8]);
    hex::encode(hmac_sha256(&signing_key(&date[..8]), text.as_bytes()))
}

/// A presigned GET of `path`, signed at `unix_ms` for `expires_s`.
fn presigned(path: &str, unix_ms: u64, expires_s: u64) -> String {
    let date = amz_date(unix_ms);
    let credential = format!("{ACCESS}%2F{}%2Fany-region%2Fs3%2Faws4_request", &date[..8]);
    let query = format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={date}&X-Amz-Expires={expires_s}\
         &X-Amz-SignedHeaders=host"
    );
    let canonical = format!("GET\n{path}\n{query}\nhost:localhost:9000\n\nhost\nUNSIGNED-PAYLOAD");
    let signature = signature(&date, "AWS4-HMAC-SHA256", &sha256(canonical.as_bytes()));
    format!("{path}?{query}&X-Amz-Signature={signature}")
}

fn plain_get(uri: &str) -> Vec<u8> {
    format!("GET {uri} HTTP/1.1\r\nHost: localhost:9000\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn presigned_urls_open_what_they_were_made_for_while_they_live() {
    let server = Server::start(GatewayLimits::default()).await;
    assert_eq!(server.ask(put("/photos/a", "hello")).await.status, 200);
    let now = now_unix_ms();
    let good = presigned("/photos/a", now, 60);
    let answer = server.ask(plain_get(&good)).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
    for (uri, code) in [
        (presigned("/photos/a", now - 120_000, 60), "AccessDenied"),
        (presigned("/photos/a", now + 16 * 60_000, 60), "RequestTimeTooSkewed"),
        (presigned("/photos/a", now, 604_801), "AuthorizationQueryParametersError"),
        (good.replace("/photos/a", "/photos/b"), "SignatureDoesNotMatch"),
        (good.replace("Expires=60", "Expires=600"), "SignatureDoesNotMatch"),
        (good.replace("any-region", "other"), "SignatureDoesNotMatch"),
    ] {
        let answer = server.ask(plain_get(&uri)).await;
        assert_eq!((answer.status, answer.code()), (403, code), "{uri}");
    }
    server.stop().await;
}

/// A PUT in signed chunks; `tamper` changes the framed body after it was signed.
fn in_signed_chunks(chunks: &[&str], tamper: impl Fn(String) -> String) -> Vec<u8> {
    let length: usize = chunks.iter().map(|chunk| chunk.len()).sum();
    let length = length.to_string();
    let headers = [("x-amz-decoded-content-length", length.as_str()), ("content-encoding", "aws-chunked")];
    let head = |payload: Vec<u8>, unix_ms| {
        let claim = Some("STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
        Signed { claim, unix_ms, ..Signed::new(payload) }.request("PUT", "/photos/c", &headers)
    };
    let unix_ms = now_unix_ms();
    let seed = String::from_utf8(head(Vec::new(), unix_ms)).unwrap();
    let mut previous = seed.split_once("Signature=").unwrap().1[..64].to_owned();
    let date = amz_date(unix_ms);
    let mut framed = String::new();
    for chunk in chunks.iter().copied().chain([""]) {
        let rest = format!("{previous}\n{}\n{}", sha256(b""), sha256(chunk.as_bytes()));
        previous = signature(&date, "AWS4-HMAC-SHA256-PAYLOAD", &rest);
        framed.push_str(&format!("{:x};chunk-signature={previous}\r\n{chunk}\r\n", chunk.len()));
    }
    head(tamper(framed).into_bytes(), unix_ms)
}

#[tokio::test]
async fn signed_chunks_are_verified_one_by_one() {
    let server = Server::start(GatewayLimits::default()).await;
    let chunks = ["hello ", "wide ", "world"];
    let answer = server.ask(in_signed_chunks(&chunks, |framed| framed)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(server.ask(get("/photos/c")).await.body, "hello wide world");
    let answer = server.ask(in_signed_chunks(&chunks, |framed| framed.replace("wide", "wild"))).await;
    assert_eq!((answer.status, answer.code()), (403, "SignatureDoesNotMatch"));
    let cut = |framed: String| framed.split_once("\r\n0;").unwrap().0.to_owned() + "\r\n";
    let answer = server.ask(in_signed_chunks(&chunks, cut)).await;
    assert_eq!((answer.status, answer.code()), (400, "IncompleteBody"));
    let swapped = |framed: String| framed.replace("wide ", "hello").replace("hello ", "wide  ");
    assert_ne!(server.ask(in_signed_chunks(&chunks, swapped)).await.status, 200);
    assert_eq!(server.ask(get("/photos/c")).await.body, "hello wide world");
    server.stop().await;
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_served() {
    let server = Server::start(GatewayLimits::default()).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut send, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    for (method, body, expected) in [("PUT", "hello", ""), ("GET", "", "hello")] {
        let body = Bytes::from_static(body.as_bytes());
        let request = Request::builder().method(method).uri("http://localhost:9000/photos/h2");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let credentials = Credentials { access_key: ACCESS.to_owned(), secret_key: SecretKey::new(SECRET) };
        sign(&mut parts, &PayloadHash::of(&body), &credentials, &Scope::new("r", "s3"), now_unix_ms()).unwrap();
        parts.headers.remove("host"); // HTTP/2 says it in `:authority`
        let answer = send.send_request(Request::from_parts(parts, Full::new(body))).await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), expected);
    }
    drop(send);
    server.stop().await;
    connection.await.unwrap().unwrap();
}
