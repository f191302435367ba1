//! The clients of a benchmark: signed S3 requests over kept connections, each verified.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use meridian_sigv4::{Credentials, PayloadHash, Scope};
use tokio::task::JoinSet;

/// Deadline of one request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(60);
const BUCKET: &str = "meridian-bench";
/// Keys of one LIST page.
const PAGE_KEYS: usize = 1000;
/// Of ten mixed operations, so many are PUTs.
const MIXED_PUTS_OF_TEN: u64 = 3;

#[derive(Clone)]
pub struct S3Client {
    endpoint: String,
    credentials: Credentials,
    scope: Scope,
    http: Client<HttpConnector, Full<Bytes>>,
}

impl S3Client {
    pub fn new(endpoint: String, credentials: Credentials) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Self { endpoint, credentials, scope: Scope::new("us-east-1", "s3"), http }
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.endpoint)).body(())?;
        let (mut parts, ()) = request.into_parts();
        let now_ms = u64::try_from(jiff::Timestamp::now().as_millisecond())?;
        meridian_sigv4::sign(&mut parts, &PayloadHash::of(&body), &self.credentials, &self.scope, now_ms)?;
        let exchange = async {
            let answer = self.http.request(Request::from_parts(parts, Full::new(body))).await?;
            let status = answer.status();
            anyhow::Ok((status, answer.into_body().collect().await?.to_bytes()))
        };
        tokio::time::timeout(REQUEST_DEADLINE, exchange).await.context("no answer in time")?
    }
}

/// What the clients of one workload measured together.
#[derive(Default)]
pub struct Measured {
    pub latencies_us: Vec<u32>,
    pub errors: u64,
    pub bytes: u64,
    pub verified: u64,
}

#[derive(Clone)]
pub struct Load {
    client: S3Client,
    size: u64,
    objects: u64,
    clients: u32,
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Put(u64),
    Get(u64),
    List(u64),
}

impl Load {
    pub fn new(client: S3Client, size: u64, objects: u64, clients: u32) -> Self {
        Self { client, size, objects, clients }
    }

    /// Makes the bucket.
    pub async fn prepare(&self) -> Result<()> {
        let (status, body) = self.client.call(Method::PUT, &format!("/{BUCKET}"), Bytes::new()).await?;
        if status.is_success() || status == StatusCode::CONFLICT {
            return Ok(());
        }
        bail!("create bucket {BUCKET}: {status} {}", String::from_utf8_lossy(&body))
    }

    /// Runs one workload: `put` writes every object once; the others run for `duration`.
    pub async fn run(&self, workload: &str, duration: Duration) -> Result<Measured> {
        let counter = Arc::new(AtomicU64::new(0));
        let until = Instant::now() + duration;
        let mut clients = JoinSet::new();
        for _ in 0..self.clients {
            let (load, counter, workload) = (self.clone(), Arc::clone(&counter), workload.to_owned());
            clients.spawn(async move {
                let mut measured = Measured::default();
                loop {
                    let turn = counter.fetch_add(1, Ordering::Relaxed);
                    let number = scatter(turn) % load.objects;
                    let operation = match workload.as_str() {
                        "put" if turn >= load.objects => break,
                        "put" => Operation::Put(turn),
                        _ if Instant::now() >= until => break,
                        "get" => Operation::Get(number),
                        "list" => Operation::List(number),
                        _ if turn % 10 < MIXED_PUTS_OF_TEN => Operation::Put(number),
                        _ => Operation::Get(number),
                    };
                    let started = Instant::now();
                    match load.perform(operation).await {
                        Ok((bytes, verified)) => {
                            measured.latencies_us.push(started.elapsed().as_micros() as u32);
                            measured.bytes += bytes;
                            measured.verified += u64::from(verified);
                        }
                        Err(error) => {
                            if measured.errors == 0 {
                                tracing::warn!(?operation, error = format!("{error:#}"), "an operation failed");
                            }
                            measured.errors += 1;
                        }
                    }
                }
                measured
            });
        }
        let mut all = Measured::default();
        while let Some(measured) = clients.join_next().await {
            let mut measured = measured?;
            all.latencies_us.append(&mut measured.latencies_us);
            all.errors += measured.errors;
            all.bytes += measured.bytes;
            all.verified += measured.verified;
        }
        Ok(all)
    }

    /// Returns the bytes moved and whether content was verified.
    async fn perform(&self, operation: Operation) -> Result<(u64, bool)> {
        match operation {
            Operation::Put(number) => {
                let body = content(number, self.size);
                let (status, answer) = self.client.call(Method::PUT, &path(number), body).await?;
                expect(status, &answer)?;
                Ok((self.size, false))
            }
            Operation::Get(number) => {
                let (status, body) = self.client.call(Method::GET, &path(number), Bytes::new()).await?;
                expect(status, &body)?;
                if body != content(number, self.size) {
                    bail!("object {number} has the wrong content ({} bytes)", body.len());
                }
                Ok((body.len() as u64, true))
            }
            Operation::List(number) => {
                let after = key(number);
                let path = format!("/{BUCKET}?list-type=2&max-keys={PAGE_KEYS}&start-after={after}");
                let (status, body) = self.client.call(Method::GET, &path, Bytes::new()).await?;
                expect(status, &body)?;
                let text = std::str::from_utf8(&body)?;
                let listed: Vec<&str> = text
                    .split("<Key>")
                    .skip(1)
                    .filter_map(|rest| rest.split_once("</Key>").map(|(key, _)| key))
                    .collect();
                let wanted = usize::try_from(self.objects - number - 1)?.min(PAGE_KEYS);
                let complete = listed.len() == wanted
                    && listed.iter().zip(number + 1..).all(|(listed, number)| *listed == key(number));
                if !complete {
                    bail!("a page after object {number} has {} keys, {wanted} in order were expected", listed.len());
                }
                Ok((body.len() as u64, true))
            }
        }
    }
}

fn expect(status: StatusCode, body: &[u8]) -> Result<()> {
    if status.is_success() {
        return Ok(());
    }
    bail!("{status} {}", String::from_utf8_lossy(&body[..body.len().min(300)]))
}

fn key(number: u64) -> String {
    format!("object-{number:012}")
}

fn path(number: u64) -> String {
    format!("/{BUCKET}/{}", key(number))
}

/// A multiplicative hash: visits objects in an order without locality.
fn scatter(turn: u64) -> u64 {
    turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
}

/// `size` bytes that only object `number` has.
fn content(number: u64, size: u64) -> Bytes {
    let mut bytes = Vec::with_capacity(size as usize + 8);
    let mut word = scatter(number + 1) | 1;
    while (bytes.len() as u64) < size {
        bytes.extend_from_slice(&word.to_le_bytes());
        word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(number | 1);
    }
    bytes.truncate(size as usize);
    bytes.into()
}
