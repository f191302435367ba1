//! Bad input at the client ports of a real process: URIs, headers, XML, chunk framing, forms, JSON, signed and not. Nothing is
//! answered by a 5xx other than 501 and 503, nothing panics, and neither memory nor descriptors grow.
//!
//! `MERIDIAN_FUZZ_REQUESTS` says how many requests (5,000 without it); the seed is printed and taken from
//! `MERIDIAN_TEST_SEED`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use meridian_sigv4::{Credentials, PayloadHash, Scope, SecretKey};
use meridian_tests::{Cluster, ClusterOptions, Random, Shape, plain_get, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BUCKET: &str = "fuzzed";
const REQUESTS: u64 = 5_000;
/// Requests before memory is read for the first time: caches and pools have their size then.
const WARM_UP: u64 = 1_000;
/// How long a request that may be cut short is held open.
const PATIENCE: Duration = Duration::from_millis(40);
const ANSWER_DEADLINE: Duration = Duration::from_secs(90);
/// What a process of one datacenter may grow by while it is asked nonsense.
const GROWTH_KIB_MAX: u64 = 96 << 10;
const DESCRIPTORS_MORE_MAX: usize = 32;

const METHODS: [&str; 10] = ["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "get", "LONGMETHOD"];
const KEYS: [&str; 16] = [
    "",
    "k",
    "a/b",
    "../x",
    "%2e%2e/x",
    "//",
    "a/./b",
    "%00",
    "%ff%fe",
    "%",
    "%zz",
    "%F0%9F%98%80",
    "+",
    "a%20b",
    "k?",
    "%0d%0a",
];
const QUERIES: [&str; 34] = [
    "",
    "acl",
    "policy",
    "cors",
    "tagging",
    "uploads",
    "uploadId=x",
    "uploadId=&partNumber=0",
    "partNumber=10001&uploadId=x",
    "versionId=x",
    "versionId=null",
    "versions",
    "delete",
    "list-type=2",
    "list-type=2&max-keys=-1",
    "max-keys=99999999999999999999",
    "delimiter=%00",
    "prefix=%ff",
    "continuation-token=!!!",
    "start-after=%F0",
    "encoding-type=url",
    "lifecycle",
    "object-lock",
    "retention",
    "legal-hold",
    "replication",
    "versioning",
    "notification",
    "location",
    "X-Amz-Signature=x&X-Amz-Expires=99999999",
    "response-content-type=%0a",
    "attributes",
    "select&select-type=2",
    "&&==&",
];
const HEADERS: [(&str, &str); 36] = [
    ("range", "bytes=-"),
    ("range", "bytes=9-1"),
    ("range", "bytes=0-18446744073709551616"),
    ("range", "bytes=0-0,2-2"),
    ("if-match", "\"\""),
    ("if-none-match", "*"),
    ("if-modified-since", "yesterday"),
    ("content-md5", "AAAA"),
    ("content-md5", "!"),
    ("content-type", ""),
    ("content-type", "multipart/form-data; boundary="),
    ("content-encoding", "aws-chunked"),
    ("expect", "100-continue"),
    ("expect", "200"),
    ("transfer-encoding", "gzip"),
    ("x-amz-copy-source", "/"),
    ("x-amz-copy-source", "fuzzed/k?versionId="),
    ("x-amz-copy-source", "%00"),
    ("x-amz-copy-source-range", "bytes=1-0"),
    ("x-amz-checksum-crc32", "x"),
    ("x-amz-checksum-algorithm", "MD4"),
    ("x-amz-sdk-checksum-algorithm", "CRC32"),
    ("x-amz-tagging", "a=b&a=b"),
    ("x-amz-tagging", "%"),
    ("x-amz-meta-a", "\u{e9}"),
    ("x-amz-acl", "nobody"),
    ("x-amz-grant-read", "id="),
    ("x-amz-object-lock-mode", "x"),
    ("x-amz-object-lock-retain-until-date", "2020"),
    ("x-amz-storage-class", "TAPE"),
    ("x-amz-server-side-encryption", "rot13"),
    ("x-amz-expected-bucket-owner", ""),
    ("x-meridian-after", "3201"),
    ("x-meridian-replication", "999"),
    ("origin", "null"),
    ("x-amz-decoded-content-length", "-1"),
];
const XMLS: [&str; 14] = [
    "",
    "<",
    "<a>",
    "<Delete></Delete>",
    "<Delete><Object><Key></Key></Object></Delete>",
    "<!DOCTYPE a [<!ENTITY b \"c\">]><Delete>&b;</Delete>",
    "<CompleteMultipartUpload><Part><PartNumber>0</PartNumber></Part></CompleteMultipartUpload>",
    "<Tagging><TagSet/></Tagging>",
    "<VersioningConfiguration><Status>Maybe</Status></VersioningConfiguration>",
    "<CORSConfiguration><CORSRule/></CORSConfiguration>",
    "<LifecycleConfiguration><Rule><Expiration><Days>-1</Days></Expiration></Rule></LifecycleConfiguration>",
    "\u{feff}<a/>",
    "<CreateBucketConfiguration><LocationConstraint>\u{0}</LocationConstraint></CreateBucketConfiguration>",
    "{\"Statement\":[{\"Effect\":1}]}",
];
const CHUNKS: [&str; 9] = [
    "",
    "0\r\n\r\n",
    "5\r\nabc",
    "fffffffffffffffff\r\n",
    "-1\r\n",
    "3;chunk-signature=x\r\nabc\r\n0;chunk-signature=\r\n\r\n",
    "3\r\nabcd\r\n0\r\n\r\n",
    "1;\r\na\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n",
    "\r\n\r\n\r\n",
];
/// With the boundary `b`.
const FORMS: [&str; 8] = [
    "--b--\r\n",
    "--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nk\r\n--b--\r\n",
    "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nx\r\n--b--\r\n",
    "--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nk\r\n--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nx",
    "--b\r\nContent-Disposition: form-data; name=\"policy\"\r\n\r\ne30=\r\n--b\r\nContent-Disposition: form-data; \
     name=\"key\"\r\n\r\n${filename}\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a/b\"\r\n\r\nx\r\n--b--\r\n",
    "--b\r\n\r\n\r\n--b--",
    "--b\r\nContent-Disposition: form-data; name=\"\"\r\n\r\n\r\n--b\r\nContent-Disposition: x\r\n\r\n--b--",
    "--b\r\nContent-Disposition: form-data; name=\"x-amz-algorithm\"\r\n\r\n\u{0}\r\n--b--\r\n",
];
const REST_PATHS: [&str; 18] = [
    "/",
    "/admin/v1/status",
    "/admin/v1/users",
    "/admin/v1/buckets",
    "/admin/v1/buckets/%00",
    "/admin/v1/replication/wait",
    "/admin/v1/replication/explain?path=%ff",
    "/admin/v1/users/../x",
    "/admin/v1/nodes/drain",
    "/admin/v1/replication/conflicts?after=%F0",
    "/readyz",
    "/%",
    "/dir/assign?count=-1&replication=zzz",
    "/dir/lookup?volumeId=99999999999",
    "/3,zz",
    "/3,01637037d6?width=-1&height=99999&mode=x",
    "/buckets/fuzzed/%ff/",
    "/buckets/fuzzed/a?op=append&mv.from=%00",
];
const JSONS: [&str; 8] = [
    "",
    "{",
    "[]",
    "{\"name\":1}",
    "{\"name\":\"\\ud800\"}",
    "null",
    "{\"until\":\"x\",\"destinations\":[],\"timeout_ms\":-1}",
    "\"\\u0000\"",
];

/// Makes requests of a seed.
struct Fuzz<'a> {
    random: &'a Random,
    credentials: Credentials,
}

impl Fuzz<'_> {
    fn pick<T: Copy>(&self, from: &[T]) -> T {
        from[self.random.below(from.len() as u64) as usize]
    }

    fn one_in(&self, count: u64) -> bool {
        self.random.below(count) == 0
    }

    /// A request as bytes, and whether it is for the S3 port.
    fn request(&self) -> Result<(Vec<u8>, bool)> {
        let is_s3 = !self.one_in(4);
        let method = self.pick(&METHODS[..if self.one_in(4) { METHODS.len() } else { 5 }]);
        let uri = if is_s3 { self.s3_uri() } else { self.pick(&REST_PATHS).to_owned() };
        let mut body = self.body(is_s3);
        let mut headers: Vec<(String, String)> = Vec::new();
        for _ in 0..self.random.below(4) {
            let (name, value) = self.pick(&HEADERS);
            headers.push((name.to_owned(), value.to_owned()));
        }
        if is_s3 && self.one_in(5) {
            body = self.pick(&CHUNKS).as_bytes().to_vec();
            let kind = self.pick(&[
                "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
                "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
                "STREAMING-X",
                "x",
            ]);
            headers.push(("x-amz-content-sha256".to_owned(), kind.to_owned()));
        }
        if self.one_in(12) {
            body = self.pick(&FORMS).as_bytes().to_vec();
            headers.push(("content-type".to_owned(), "multipart/form-data; boundary=b".to_owned()));
        }
        if self.one_in(40) {
            headers.push(("x-amz-meta-long".to_owned(), "l".repeat(9_000)));
        }
        if !self.one_in(4) {
            headers.extend(self.signature(method, &uri, &headers, &body, is_s3).unwrap_or_default());
        }
        // A length that lies would only wait for the time-out of bodies: too small ones make the rest a request of its own.
        let length = if self.one_in(20) { body.len() / 2 } else { body.len() };
        let mut text =
            format!("{method} {uri} HTTP/1.1\r\nhost: fuzz\r\nconnection: close\r\ncontent-length: {length}\r\n")
                .into_bytes();
        for (name, value) in &headers {
            text.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        text.extend_from_slice(b"\r\n");
        text.extend_from_slice(&body);
        if self.one_in(10) {
            let at = self.random.below(text.len() as u64) as usize;
            text[at] ^= 1 << self.random.below(8);
        }
        Ok((text, is_s3))
    }

    fn s3_uri(&self) -> String {
        let bucket = self.pick(&[BUCKET, BUCKET, BUCKET, "A", "..", "1.2.3.4", "absent-bucket", "", "%00", "x%2fy"]);
        let key = if self.one_in(50) { "k".repeat(1025) } else { self.pick(&KEYS).to_owned() };
        let (slash, query) = (if self.one_in(3) { "" } else { "/" }, self.pick(&QUERIES));
        let key = if slash.is_empty() { String::new() } else { key };
        format!("/{bucket}{slash}{key}{}{query}", if query.is_empty() { "" } else { "?" })
    }

    fn body(&self, is_s3: bool) -> Vec<u8> {
        match self.random.below(8) {
            0 => (0..self.random.below(2_000)).map(|_| self.random.below(256) as u8).collect(),
            1 if !is_s3 => "[".repeat(1_000).into_bytes(),
            1 => "<a>".repeat(1_000).into_bytes(),
            _ if is_s3 => self.pick(&XMLS).as_bytes().to_vec(),
            _ => self.pick(&JSONS).as_bytes().to_vec(),
        }
    }

    /// None for what no client could sign.
    fn signature(
        &self,
        method: &str,
        uri: &str,
        headers: &[(String, String)],
        body: &[u8],
        is_s3: bool,
    ) -> Option<Vec<(String, String)>> {
        let mut request = http::Request::builder().method(method).uri(uri).header("host", "fuzz");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let (mut parts, ()) = request.body(()).ok()?.into_parts();
        let scope = Scope::new("dc-a", if is_s3 { "s3" } else { "meridian" });
        let now = std::time::UNIX_EPOCH.elapsed().ok()?.as_millis() as u64;
        meridian_sigv4::sign(&mut parts, &PayloadHash::of(body), &self.credentials, &scope, now).ok()?;
        let added = |name: &str| headers.iter().all(|(given, _)| *given != name);
        let names = ["authorization", "x-amz-date", "x-amz-content-sha256"];
        let value = |name: &str| Some((name.to_owned(), parts.headers.get(name)?.to_str().ok()?.to_owned()));
        names.iter().filter(|name| added(name)).map(|name| value(name)).collect()
    }
}

/// The status of an answer, 0 when the connection was closed without one.
async fn ask(address: &str, request: &[u8]) -> Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let exchange = async {
        let (mut reading, mut writing) = stream.split();
        // A server that has refused may close before all is written.
        let _ = writing.write_all(request).await;
        let mut answer = Vec::new();
        let mut reading = (&mut reading).take(1 << 20);
        // One that waits for more gets the end; one that is at work would take it for a hang-up.
        if tokio::time::timeout(PATIENCE, reading.read_to_end(&mut answer)).await.is_err() {
            let _ = writing.shutdown().await;
            let _ = reading.read_to_end(&mut answer).await;
        }
        answer
    };
    let answer = tokio::time::timeout(ANSWER_DEADLINE, exchange).await.context("no answer in time")?;
    let status =
        answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok());
    Ok(status.unwrap_or(0))
}

fn memory_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process has a size")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn descriptors(pid: u32) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_and_leaves_nothing_behind() -> Result<()> {
    let random = Random::of_test("bad input");
    let wanted = std::env::var("MERIDIAN_FUZZ_REQUESTS").ok().and_then(|count| count.parse().ok()).unwrap_or(REQUESTS);
    let cluster = Cluster::start(ClusterOptions { datacenters: 1, ..ClusterOptions::new(Shape::Dev) }).await?;
    let s3 = cluster.s3("dc-a");
    s3.create_bucket(BUCKET).await?;
    s3.put(BUCKET, "k", "a body").await?;
    let (access_key, secret_key) = cluster.keys();
    let credentials = Credentials { access_key: access_key.to_owned(), secret_key: SecretKey::new(secret_key) };
    let fuzz = Fuzz { random: &random, credentials };
    let rest = cluster.rest("dc-a").trim_start_matches("http://").to_owned();
    let s3_address = s3.endpoint().trim_start_matches("http://").to_owned();
    let pid = cluster.pid("dev").context("the process runs")?;
    let (mut memory, mut open) = (0, 0);
    let mut statuses: BTreeMap<u16, u64> = BTreeMap::new();
    for number in 0..wanted {
        if number == WARM_UP.min(wanted / 2) {
            (memory, open) = (memory_kib(pid)?, descriptors(pid)?);
        }
        let (request, is_s3) = fuzz.request()?;
        let shown = || format!("request {number}: {}", String::from_utf8_lossy(&request[..request.len().min(3_000)]));
        let status = ask(if is_s3 { &s3_address } else { &rest }, &request).await.with_context(shown)?;
        *statuses.entry(status).or_default() += 1;
        if status >= 500 && !matches!(status, 501 | 503) {
            bail!("{status} to {}", shown());
        }
    }
    println!("{wanted} requests: {statuses:?}");
    ensure!(statuses.get(&200).is_some_and(|count| *count > wanted / 100), "hardly any was understood: {statuses:?}");
    let log = cluster.log("dc-a");
    ensure!(!log.contains("panick"), "a panic: {log}");
    let settled = async || descriptors(pid).is_ok_and(|now| now <= open + DESCRIPTORS_MORE_MAX);
    wait_until("the descriptors of ended connections to be closed", Duration::from_secs(60), settled).await?;
    let grown = memory_kib(pid)?.saturating_sub(memory);
    println!("memory {memory} KiB after the warm-up, {grown} KiB more at the end; {open} descriptors");
    ensure!(grown <= GROWTH_KIB_MAX, "memory grew by {grown} KiB");
    ensure!(plain_get(&cluster.rest("dc-a"), "/readyz").await?.0 == 200, "it does not serve any more");
    Ok(())
}
