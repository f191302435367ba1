//! Browser forms through the socket: signed and anonymous ones, what their policies forbid, and what they get back.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use meridian_sigv4::{Scope, SecretKey, sign_policy};
use meridian_tests::{Answer, Cluster, ClusterOptions, S3, Shape};
use serde_json::{Value, json};

const BOUNDARY: &str = "a-boundary-of-this-test";
const DAY: &str = "20261128";

/// A bucket that forms are sent to.
struct Target {
    endpoint: String,
    bucket: &'static str,
    access_key: String,
    secret_key: String,
}

type Fields = Vec<(String, String)>;

fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn form_body(fields: &[(String, String)], file: Option<(&str, &[u8])>) -> Bytes {
    let mut body = Vec::new();
    for (name, value) in fields {
        let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(value.as_bytes());
        body.extend_from_slice(b"\r\n");
    }
    if let Some((name, content)) = file {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body.into()
}

impl Target {
    fn of(cluster: &Cluster, bucket: &'static str) -> Result<Self> {
        let ready: Value = serde_json::from_slice(&std::fs::read(cluster.directory().join("ready.json"))?)?;
        let endpoint = ready["datacenters"][0]["s3"].as_str().context("an endpoint")?.to_owned();
        let (access_key, secret_key) = cluster.keys();
        Ok(Self { endpoint, bucket, access_key: access_key.to_owned(), secret_key: secret_key.to_owned() })
    }

    /// Adds to a form's fields a policy that allows them, and `conditions`, and its signature.
    fn sign(&self, mut form: Fields, conditions: &[Value], expiration: &str) -> Fields {
        let credential = format!("{}/{DAY}/dc-a/s3/aws4_request", self.access_key);
        form.extend(fields(&[
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", &format!("{DAY}T000000Z")),
        ]));
        let mut all = vec![json!({"bucket": self.bucket})];
        let spoken_of = |name: &str| {
            let wanted = format!("${name}");
            conditions.iter().any(|it| it[1].as_str().is_some_and(|field| field.eq_ignore_ascii_case(&wanted)))
        };
        all.extend(form.iter().filter(|(name, _)| !spoken_of(name)).map(|(name, value)| json!({name: value})));
        all.extend(conditions.iter().cloned());
        let policy = BASE64.encode(json!({"expiration": expiration, "conditions": all}).to_string());
        let secret = SecretKey::new(self.secret_key.as_str());
        let signature = sign_policy(&secret, DAY, &Scope::new("dc-a", "s3"), &policy);
        form.extend(fields(&[("Policy", &policy), ("X-Amz-Signature", &signature)]));
        form
    }

    async fn send(&self, body: Bytes) -> Result<Answer> {
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let request = Request::post(format!("{}/{}", self.endpoint, self.bucket))
            .header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"))
            .header("content-length", body.len())
            .body(Full::new(body))?;
        let (head, body) = client.request(request).await?.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
    }

    /// Sends a form with a file, signed for an hour from now and more.
    async fn post(&self, form: &[(&str, &str)], conditions: &[Value], content: &[u8]) -> Result<Answer> {
        let form = self.sign(fields(form), conditions, "2099-01-01T00:00:00Z");
        self.send(form_body(&form, Some(("file.txt", content)))).await
    }
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.elements("Code").pop().unwrap_or_default())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

async fn get(s3: &S3, path: &str) -> Result<Answer> {
    s3.call(Method::GET, path, &[], Bytes::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_form_stores_its_file_as_its_fields_say() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 1, ..ClusterOptions::new(Shape::Dev) }).await?;
    let s3 = cluster.s3("dc-a");
    s3.create_bucket("forms").await?;
    let target = Target::of(&cluster, "forms")?;

    let plain = target.post(&[("key", "plain")], &[], b"hello").await?.ok()?;
    assert_eq!((plain.status, plain.body.len()), (StatusCode::NO_CONTENT, 0));
    let read = get(&s3, "/forms/plain").await?.ok()?;
    assert_eq!((&read.body[..], read.header("etag")), (b"hello".as_slice(), plain.header("etag")));
    assert_eq!(read.header("content-type"), Some("binary/octet-stream"));

    let starts = [json!(["starts-with", "$key", "up/"])];
    target.post(&[("key", "up/${filename}")], &starts, b"named").await?.ok()?;
    assert_eq!(get(&s3, "/forms/up/file.txt").await?.ok()?.body, "named");

    let tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
    let crc32 = BASE64.encode(0x3610_a686_u32.to_be_bytes()); // of "hello"
    let rich = [
        ("key", "rich"),
        ("acl", "public-read"),
        ("Content-Type", "text/plain"),
        ("Cache-Control", "no-cache"),
        ("x-amz-meta-colour", "blue"),
        ("tagging", tags),
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-checksum-crc32", &crc32),
        ("success_action_status", "201"),
        ("x-ignore-me", "x"),
    ];
    let made = target.post(&rich, &[json!(["starts-with", "$Content-Type", "text/"])], b"hello").await?.ok()?;
    assert_eq!(
        (made.status, made.elements("Bucket"), made.elements("Key")),
        (StatusCode::CREATED, vec!["forms".into()], vec!["rich".into()])
    );
    assert_eq!(made.header("x-amz-server-side-encryption"), Some("AES256"));
    let read = get(&s3, "/forms/rich").await?.ok()?;
    for (name, value) in [
        ("content-type", "text/plain"),
        ("cache-control", "no-cache"),
        ("x-amz-meta-colour", "blue"),
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-tagging-count", "1"),
    ] {
        assert_eq!(read.header(name), Some(value), "{name}");
    }
    assert_eq!(read.body, "hello");
    let (status, _) = meridian_tests::plain_get(&target.endpoint, "/forms/rich").await?;
    assert_eq!(status, 200, "it is public");

    let to = [("key", "there"), ("success_action_redirect", "http://example.com/done?a=b")];
    let away = target.post(&to, &[], b"x").await?;
    let place = away.header("location").unwrap_or_default();
    assert_eq!(away.status, StatusCode::SEE_OTHER);
    assert!(place.starts_with("http://example.com/done?a=b&bucket=forms&key=there&etag=%22"), "{place}");
    let ok = target.post(&[("key", "k"), ("success_action_status", "200")], &[], b"x").await?;
    assert_eq!((ok.status, ok.body.len()), (StatusCode::OK, 0));

    let large: Vec<u8> = (0..9 << 20).map(|at: usize| (at * 7 + at / 253) as u8).collect();
    target.post(&[("key", "large")], &[json!(["content-length-range", 0, large.len()])], &large).await?.ok()?;
    assert!(get(&s3, "/forms/large").await?.ok()?.body == large);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_its_policy_does_not_allow_stores_nothing() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 1, ..ClusterOptions::new(Shape::Dev) }).await?;
    let s3 = cluster.s3("dc-a");
    s3.create_bucket("strict").await?;
    let target = Target::of(&cluster, "strict")?;
    let post = async |form: &[(&str, &str)], conditions: &[Value]| {
        anyhow::Ok(code(&target.post(form, conditions, b"12345").await?))
    };
    let key = [("key", "k")];
    assert_eq!(post(&key, &[json!(["content-length-range", 0, 4])]).await?, refused(400, "EntityTooLarge"));
    assert_eq!(post(&key, &[json!(["content-length-range", 6, 9])]).await?, refused(400, "EntityTooSmall"));
    assert_eq!(post(&key, &[json!(["content-length-range", -1, 9])]).await?, refused(400, "InvalidPolicyDocument"));
    assert_eq!(post(&key, &[json!(["starts-with", "$key", "other"])]).await?, refused(403, "AccessDenied"));
    assert_eq!(post(&key, &[json!({"acl": "private"})]).await?, refused(403, "AccessDenied"));
    assert_eq!(post(&[], &[]).await?, refused(400, "InvalidArgument"));
    let crc32 = [("key", "k"), ("x-amz-checksum-crc32", "AAAAAA==")];
    assert_eq!(post(&crc32, &[]).await?, refused(400, "BadDigest"));
    assert_eq!(
        post(&[("key", "k"), ("x-amz-server-side-encryption", "ROT13")], &[]).await?,
        refused(400, "InvalidEncryptionAlgorithmError")
    );

    let good = || target.sign(fields(&key), &[], "2099-01-01T00:00:00Z");
    let send = async |form: Fields, file: Option<&[u8]>| {
        anyhow::Ok(code(&target.send(form_body(&form, file.map(|content| ("f", content)))).await?))
    };
    let change = |name: &str, value: &str| {
        let mut form = good();
        for field in form.iter_mut().filter(|field| field.0 == name) {
            field.1 = value.to_owned();
        }
        form
    };
    let without = |name: &str| good().into_iter().filter(|field| field.0 != name).collect::<Fields>();
    let content = Some(b"12345".as_slice());
    assert_eq!(
        send(target.sign(fields(&key), &[], "2001-01-01T00:00:00Z"), content).await?,
        refused(403, "AccessDenied")
    );
    assert_eq!(send(change("key", "other"), content).await?, refused(403, "AccessDenied"));
    assert_eq!(send(change("X-Amz-Signature", &"0".repeat(64)), content).await?, refused(403, "SignatureDoesNotMatch"));
    assert_eq!(send(change("Policy", "e30="), content).await?, refused(403, "SignatureDoesNotMatch"));
    let foreign = format!("NOBODY/{DAY}/dc-a/s3/aws4_request");
    assert_eq!(send(change("X-Amz-Credential", &foreign), content).await?, refused(403, "InvalidAccessKeyId"));
    for name in ["Policy", "X-Amz-Signature", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Algorithm"] {
        assert_eq!(send(without(name), content).await?, refused(400, "InvalidArgument"), "{name}");
    }
    let extra: Fields = fields(&[("x-amz-meta-a", "b")]).into_iter().chain(good()).collect();
    assert_eq!(send(extra, content).await?, refused(403, "AccessDenied"));
    assert_eq!(send(good(), None).await?, refused(400, "InvalidArgument"));
    let mut old = fields(&key);
    old.extend(fields(&[("AWSAccessKeyId", "A"), ("signature", "s"), ("policy", "p")]));
    assert_eq!(send(old, content).await?, refused(400, "InvalidRequest"));
    assert_eq!(code(&target.send(Bytes::from_static(b"no form")).await?), refused(400, "MalformedPOSTRequest"));
    let whole = form_body(&good(), Some(("f", b"12345")));
    let cut = target.send(whole.slice(..whole.len() - BOUNDARY.len() - 8)).await?;
    assert_eq!(cut.status, StatusCode::BAD_REQUEST, "{}", cut.text());
    assert_eq!(
        send(fields(&[("key", &"k".repeat(30_000))]), content).await?,
        refused(400, "MaxPostPreDataLengthExceededError")
    );
    assert!(s3.list("strict", "").await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn anybody_may_post_to_a_bucket_that_is_open_to_all() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 1, ..ClusterOptions::new(Shape::Dev) }).await?;
    let s3 = cluster.s3("dc-a");
    s3.create_bucket("open").await?;
    let target = Target::of(&cluster, "open")?;
    let anonymous = || form_body(&fields(&[("key", "from-anybody")]), Some(("f", b"hi")));
    assert_eq!(code(&target.send(anonymous()).await?), refused(403, "AccessDenied"));
    s3.call(Method::PUT, "/open?acl", &[("x-amz-acl", "public-read-write")], Bytes::new()).await?.ok()?;
    assert_eq!(target.send(anonymous()).await?.status, StatusCode::NO_CONTENT);
    assert_eq!(get(&s3, "/open/from-anybody").await?.ok()?.body, "hi");
    let elsewhere = Target { bucket: "nowhere", ..target };
    assert_eq!(code(&elsewhere.send(anonymous()).await?), refused(404, "NoSuchBucket"));
    Ok(())
}
