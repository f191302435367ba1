//! The clients of a benchmark: signed S3 requests and blob requests over kept connections, each read verified.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use meridian_sigv4::{Credentials, PayloadHash, Scope};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::task::JoinSet;

use super::connection::{Answer, Connections};
use super::content::{content, is_content, scatter};
use super::workload::Workload;

const BUCKET: &str = "meridian-bench";
/// Keys of one LIST page.
const PAGE_KEYS: usize = 1000;
/// Of ten mixed operations, so many are PUTs.
const MIXED_PUTS_OF_TEN: u64 = 3;

/// Where requests go, and who they are from.
#[derive(Debug, Clone)]
pub struct Endpoints {
    pub s3: String,
    pub credentials: Credentials,
    /// Of the blob API, where there is one.
    pub rest: Option<String>,
}

/// How much is written and read, by how many.
#[derive(Debug, Clone, Copy)]
pub struct Volume {
    /// Of each object, in bytes.
    pub size: u64,
    pub objects: u64,
    pub clients: u32,
    /// How long reads and the mix run.
    pub duration: Duration,
}

/// What the clients of one workload measured together.
#[derive(Default)]
pub struct Measured {
    pub latencies_us: Vec<u32>,
    pub errors: u64,
    /// The first error.
    pub error: Option<String>,
    pub bytes: u64,
    pub verified: u64,
}

impl Measured {
    fn add(&mut self, mut other: Measured) {
        self.latencies_us.append(&mut other.latencies_us);
        self.errors += other.errors;
        self.error = self.error.take().or(other.error);
        self.bytes += other.bytes;
        self.verified += other.verified;
    }
}

/// The load on one target.
pub struct Load {
    endpoints: Endpoints,
    scope: Scope,
    /// What `blob-put` wrote: the URL of each blob at its number.
    blobs: Mutex<Vec<String>>,
}

/// The answer of `/dir/assign`.
#[derive(Deserialize)]
struct Assigned {
    fid: String,
    url: String,
}

impl Load {
    pub fn new(endpoints: Endpoints) -> Arc<Self> {
        Arc::new(Self { endpoints, scope: Scope::new("us-east-1", "s3"), blobs: Mutex::new(Vec::new()) })
    }

    /// Makes the bucket.
    pub async fn prepare(&self) -> Result<()> {
        let answer = self.s3(&mut Connections::default(), Method::PUT, &format!("/{BUCKET}"), Bytes::new()).await?;
        if answer.status.is_success() || answer.status == StatusCode::CONFLICT {
            return Ok(());
        }
        bail!("create bucket {BUCKET}: {} {}", answer.status, String::from_utf8_lossy(&answer.body))
    }

    /// Why there is no blob API at this target, if there is none.
    pub async fn lacks_blobs(&self) -> Option<String> {
        self.assign(&mut Connections::default()).await.err().map(|failure| format!("{failure:#}"))
    }

    /// Runs one workload.
    pub async fn run(self: &Arc<Self>, workload: Workload, volume: Volume) -> Result<Measured> {
        let turns = Arc::new(AtomicU64::new(0));
        let until = Instant::now() + volume.duration;
        if workload == Workload::BlobPut {
            *self.blobs.lock() = vec![String::new(); usize::try_from(volume.objects)?];
        }
        let mut clients = JoinSet::new();
        for _ in 0..volume.clients {
            clients.spawn(Client { load: Arc::clone(self), volume, connections: Connections::default() }.run(
                workload,
                Arc::clone(&turns),
                until,
            ));
        }
        let mut all = Measured::default();
        while let Some(measured) = clients.join_next().await {
            all.add(measured?);
        }
        Ok(all)
    }

    async fn s3(&self, connections: &mut Connections, method: Method, path: &str, body: Bytes) -> Result<Answer> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.endpoints.s3)).body(())?;
        let (mut parts, ()) = request.into_parts();
        let now_ms = u64::try_from(jiff::Timestamp::now().as_millisecond())?;
        let hash = PayloadHash::of(&body);
        meridian_sigv4::sign(&mut parts, &hash, &self.endpoints.credentials, &self.scope, now_ms)?;
        connections.call(Request::from_parts(parts, Full::new(body))).await
    }

    /// The URL of a new fid, and the token to write it with, if there is one.
    async fn assign(&self, connections: &mut Connections) -> Result<(String, Option<http::HeaderValue>)> {
        let rest = self.endpoints.rest.as_ref().context("the target has no REST endpoint")?;
        let request = Request::get(format!("{rest}/dir/assign")).body(Full::default())?;
        let answer = connections.call(request).await?;
        expect(&answer).context("assign a fid")?;
        let assigned: Assigned = serde_json::from_slice(&answer.body).context("read the answer of /dir/assign")?;
        Ok((format!("http://{}/{}", assigned.url, assigned.fid), answer.headers.get(AUTHORIZATION).cloned()))
    }
}

/// One client with its own connections.
struct Client {
    load: Arc<Load>,
    volume: Volume,
    connections: Connections,
}

impl Client {
    async fn run(mut self, workload: Workload, turns: Arc<AtomicU64>, until: Instant) -> Measured {
        let mut measured = Measured::default();
        loop {
            let turn = turns.fetch_add(1, Ordering::Relaxed);
            let is_over = if workload.writes_once() { turn >= self.volume.objects } else { Instant::now() >= until };
            if is_over {
                return measured;
            }
            let number = if workload.writes_once() { turn } else { scatter(turn) % self.volume.objects };
            let started = Instant::now();
            match self.perform(workload, turn, number).await {
                Ok((bytes, verified)) => {
                    measured.latencies_us.push(u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX));
                    measured.bytes += bytes;
                    measured.verified += u64::from(verified);
                }
                Err(failure) => {
                    measured.error.get_or_insert_with(|| format!("object {number}: {failure:#}"));
                    measured.errors += 1;
                }
            }
        }
    }

    /// Returns the bytes moved and whether content was verified.
    async fn perform(&mut self, workload: Workload, turn: u64, number: u64) -> Result<(u64, bool)> {
        match workload {
            Workload::Put | Workload::LargePut => self.put(workload, number).await,
            Workload::Mixed if turn % 10 < MIXED_PUTS_OF_TEN => self.put(workload, number).await,
            Workload::Get | Workload::LargeGet | Workload::Mixed => self.get(workload, number).await,
            Workload::List => self.list(number).await,
            Workload::BlobPut => self.put_blob(number).await,
            Workload::BlobGet => self.get_blob(number).await,
        }
    }

    async fn put(&mut self, workload: Workload, number: u64) -> Result<(u64, bool)> {
        let body = content(number, self.volume.size);
        expect(&self.load.s3(&mut self.connections, Method::PUT, &path(workload, number), body).await?)?;
        Ok((self.volume.size, false))
    }

    async fn get(&mut self, workload: Workload, number: u64) -> Result<(u64, bool)> {
        let path = path(workload, number);
        let answer = self.load.s3(&mut self.connections, Method::GET, &path, Bytes::new()).await?;
        self.verify(&answer, number)
    }

    async fn list(&mut self, number: u64) -> Result<(u64, bool)> {
        let path = format!("/{BUCKET}?list-type=2&max-keys={PAGE_KEYS}&prefix=object-&start-after={}", key(number));
        let answer = self.load.s3(&mut self.connections, Method::GET, &path, Bytes::new()).await?;
        expect(&answer)?;
        let text = std::str::from_utf8(&answer.body)?;
        let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>").map(|(key, _)| key));
        let listed: Vec<&str> = keys.collect();
        let wanted = usize::try_from(self.volume.objects - number - 1)?.min(PAGE_KEYS);
        let complete =
            listed.len() == wanted && listed.iter().zip(number + 1..).all(|(listed, number)| *listed == key(number));
        if !complete {
            bail!("a page has {} keys, {wanted} in order were expected", listed.len());
        }
        Ok((answer.body.len() as u64, true))
    }

    async fn put_blob(&mut self, number: u64) -> Result<(u64, bool)> {
        let (url, token) = self.load.assign(&mut self.connections).await?;
        let mut request = Request::post(&url).header("content-type", "application/octet-stream");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Full::new(content(number, self.volume.size)))?;
        expect(&self.connections.call(request).await?)?;
        self.load.blobs.lock()[usize::try_from(number)?] = url;
        Ok((self.volume.size, false))
    }

    async fn get_blob(&mut self, number: u64) -> Result<(u64, bool)> {
        let url = self.load.blobs.lock().get(usize::try_from(number)?).cloned().unwrap_or_default();
        if url.is_empty() {
            bail!("it was not written: run blob-put before blob-get");
        }
        let answer = self.connections.call(Request::get(&url).body(Full::default())?).await?;
        self.verify(&answer, number)
    }

    fn verify(&self, answer: &Answer, number: u64) -> Result<(u64, bool)> {
        expect(answer)?;
        if !is_content(&answer.body, number, self.volume.size) {
            bail!("wrong content ({} bytes)", answer.body.len());
        }
        Ok((answer.body.len() as u64, true))
    }
}

fn expect(answer: &Answer) -> Result<()> {
    if answer.status.is_success() {
        return Ok(());
    }
    bail!("{} {}", answer.status, String::from_utf8_lossy(&answer.body[..answer.body.len().min(300)]))
}

fn key(number: u64) -> String {
    format!("object-{number:012}")
}

fn path(workload: Workload, number: u64) -> String {
    match workload.is_large() {
        true => format!("/{BUCKET}/large-{number:012}"),
        false => format!("/{BUCKET}/{}", key(number)),
    }
}
