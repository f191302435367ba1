//! Server-side encryption through the socket: what crosses, what each way answers, and what lies on the disks.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::Method;
use md5::{Digest, Md5};
use meridian_tests::{Answer, Cluster, ClusterOptions, S3, Shape, object_path, wait_until};

const SSE: &str = "x-amz-server-side-encryption";
const KEY_ID: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const BLOCK: usize = 64 << 10;
const PART: usize = 5 << 20;

type Headers = Vec<(String, String)>;

/// The three headers of a customer's key; `prefix` is that of the object or of a copy's source.
fn key_headers(prefix: &str, key: &[u8; 32]) -> Headers {
    let name = |rest: &str| format!("x-amz-{prefix}server-side-encryption-customer-{rest}");
    vec![
        (name("algorithm"), "AES256".to_owned()),
        (name("key"), BASE64.encode(key)),
        (name("key-md5"), BASE64.encode(Md5::digest(key))),
    ]
}

fn borrowed(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn customer_key() -> [u8; 32] {
    std::array::from_fn(|at| (at * 7 + 13) as u8)
}

/// The headers that ask for each way, with those that a read needs.
fn ways() -> Vec<(&'static str, Headers, Headers)> {
    let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let customer = key_headers("", &customer_key());
    vec![
        ("plain", vec![], vec![]),
        ("managed", own(&[(SSE, "AES256")]), vec![]),
        ("kms", own(&[(SSE, "aws:kms"), (KEY_ID, "reports")]), vec![]),
        ("customer", customer.clone(), customer),
    ]
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.elements("Code").pop().unwrap_or_default())
}

fn pattern(size: usize, seed: usize) -> Bytes {
    (0..size).map(|at| (at * 31 + at / 251 + seed) as u8).collect::<Vec<u8>>().into()
}

async fn get(s3: &S3, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
    s3.call(Method::GET, path, headers, Bytes::new()).await
}

fn told(answer: &Answer) -> [Option<&str>; 4] {
    [SSE, KEY_ID, "x-amz-server-side-encryption-customer-algorithm", "x-amz-server-side-encryption-customer-key-md5"]
        .map(|name| answer.header(name))
}

fn files_with(directory: &Path, wanted: &[u8]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_with(&path, wanted)?);
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes.windows(wanted.len()).any(|window| window == wanted)
        {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_encrypted_in_one_datacenter_is_read_in_the_other_and_lies_plain_on_no_disk() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 2, ..ClusterOptions::new(Shape::Dev) }).await?;
    let (a, b) = (cluster.s3("dc-a"), cluster.s3("dc-b"));
    a.create_bucket("sealed").await?;
    let marker = |name: &str| format!("the plain text of {name} must not be on a disk");
    let body = |name: &str| {
        let mut body = pattern(2 * BLOCK, 1).to_vec();
        body.extend_from_slice(marker(name).as_bytes());
        Bytes::from(body)
    };
    for (name, ask, _) in ways() {
        let put = a.call(Method::PUT, &object_path("sealed", name), &borrowed(&ask), body(name)).await?.ok()?;
        let md5 = format!("\"{}\"", hex::encode(Md5::digest(body(name))));
        let shows_md5 = put.header("etag") == Some(md5.as_str());
        assert_eq!(shows_md5, matches!(name, "plain" | "managed"), "{name}");
    }
    cluster.wait_replicated("dc-b", &[])?;
    let md5 = BASE64.encode(Md5::digest(customer_key()));
    for (name, _, key) in ways() {
        let path = object_path("sealed", name);
        let expected = match name {
            "plain" => [None; 4],
            "managed" => [Some("AES256"), None, None, None],
            "kms" => [Some("aws:kms"), Some("reports"), None, None],
            _ => [None, None, Some("AES256"), Some(md5.as_str())],
        };
        for s3 in [&a, &b] {
            let read = get(s3, &path, &borrowed(&key)).await?.ok()?;
            assert_eq!((read.body == body(name), told(&read)), (true, expected), "{name}");
            let head = s3.call(Method::HEAD, &path, &borrowed(&key), Bytes::new()).await?.ok()?;
            let size = body(name).len().to_string();
            assert_eq!((head.header("content-length"), told(&head)), (Some(size.as_str()), expected), "{name}");
            let mut ranged = borrowed(&key);
            ranged.push(("range", "bytes=65530-65545"));
            let read = get(s3, &path, &ranged).await?;
            assert_eq!((read.status.as_u16(), &read.body[..]), (206, &body(name)[65530..65546]), "{name}");
        }
    }

    let other = key_headers("", &[9; 32]);
    for (name, headers, expected) in [
        ("customer", vec![], (400, "InvalidRequest")),
        ("customer", borrowed(&other), (403, "AccessDenied")),
        ("plain", borrowed(&other), (400, "InvalidRequest")),
        ("managed", borrowed(&other), (400, "InvalidRequest")),
        ("managed", vec![(SSE, "AES256")], (400, "InvalidArgument")),
    ] {
        let path = object_path("sealed", name);
        let refused = get(&b, &path, &headers).await?;
        assert_eq!(code(&refused), (expected.0, expected.1.to_owned()), "{name}");
        assert_eq!(b.call(Method::HEAD, &path, &headers, Bytes::new()).await?.status.as_u16(), expected.0, "{name}");
    }

    let key = customer_key();
    assert_eq!(files_with(cluster.directory(), marker("plain").as_bytes())?.len(), 2, "plain bytes would be found");
    for name in ["managed", "kms", "customer"] {
        assert_eq!(files_with(cluster.directory(), marker(name).as_bytes())?, [""; 0], "{name}");
    }
    for form in [key.to_vec(), BASE64.encode(key).into_bytes(), hex::encode(key).into_bytes()] {
        assert_eq!(files_with(cluster.directory(), &form)?, [""; 0], "the customer's key, in files or logs");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_and_copies_are_encrypted_as_they_are_asked_to_be() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 1, ..ClusterOptions::new(Shape::Dev) }).await?;
    let s3 = cluster.s3("dc-a");
    s3.create_bucket("made").await?;
    let parts = [pattern(PART, 1), pattern(777, 2)];
    let whole = parts.concat();
    for (name, ask, key) in ways() {
        let path = object_path("made", name);
        let created = s3.call(Method::POST, &format!("{path}?uploads"), &borrowed(&ask), Bytes::new()).await?.ok()?;
        let upload = created.elements("UploadId").pop().context("an upload id")?;
        let mut list = String::new();
        for (number, part) in (1..).zip(&parts) {
            let part_path = format!("{path}?partNumber={number}&uploadId={upload}");
            let stored = s3.call(Method::PUT, &part_path, &borrowed(&key), part.clone()).await?.ok()?;
            assert_eq!(told(&stored), told(&created), "{name}");
            let etag = stored.header("etag").context("a part has an ETag")?;
            list.push_str(&format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"));
        }
        if name == "customer" {
            let part_path = format!("{path}?partNumber=1&uploadId={upload}");
            // A small one: it is refused before it is read, and the connection ends.
            let without = s3.call(Method::PUT, &part_path, &[], parts[1].clone()).await?;
            assert_eq!(code(&without), (400, "InvalidRequest".to_owned()));
        }
        let list = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
        let done = s3.call(Method::POST, &format!("{path}?uploadId={upload}"), &[], list).await?.ok()?;
        assert_eq!(done.header(SSE), created.header(SSE), "{name}");
        assert!(get(&s3, &path, &borrowed(&key)).await?.ok()?.body == whole, "{name}");
        let part = get(&s3, &format!("{path}?partNumber=2"), &borrowed(&key)).await?.ok()?;
        assert_eq!((part.body == parts[1], part.header("x-amz-mp-parts-count")), (true, Some("2")), "{name}");
        let mut asked = borrowed(&key);
        asked.push(("x-amz-object-attributes", "ObjectSize,ObjectParts"));
        let attributes = get(&s3, &format!("{path}?attributes"), &asked).await?.ok()?;
        assert_eq!(attributes.elements("ObjectSize"), [whole.len().to_string()], "{name}");
        let without_key = get(&s3, &format!("{path}?attributes"), &[("x-amz-object-attributes", "ETag")]).await?;
        assert_eq!(without_key.status.as_u16(), if name == "customer" { 400 } else { 200 });
    }
    for (from, _, _) in ways() {
        let source_key = if from == "customer" { key_headers("copy-source-", &customer_key()) } else { vec![] };
        for (to, ask, key) in ways() {
            let mut headers = borrowed(&source_key);
            headers.extend(borrowed(&ask));
            let source = format!("/made/{from}");
            headers.push(("x-amz-copy-source", &source));
            let path = object_path("made", &format!("{from}-{to}"));
            let copied = s3.call(Method::PUT, &path, &headers, Bytes::new()).await?.ok()?;
            let read = get(&s3, &path, &borrowed(&key)).await?.ok()?;
            assert_eq!((read.body == whole, told(&copied)), (true, told(&read)), "{from} to {to}");
        }
    }
    // Onto itself: how it is encrypted is a change.
    let onto_itself = [("x-amz-copy-source", "/made/plain"), (SSE, "AES256")];
    s3.call(Method::PUT, "/made/plain", &onto_itself, Bytes::new()).await?.ok()?;
    assert_eq!(get(&s3, "/made/plain", &[]).await?.ok()?.header(SSE), Some("AES256"));
    let without_key = [("x-amz-copy-source", "/made/customer")];
    let refused = s3.call(Method::PUT, "/made/x", &without_key, Bytes::new()).await?;
    assert_eq!(code(&refused), (400, "InvalidRequest".to_owned()));
    Ok(())
}

async fn set_default(s3: &S3, bucket: &str, inside: &str, more: &str) -> Result<Answer> {
    let body = format!(
        "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault>{inside}\
         </ApplyServerSideEncryptionByDefault>{more}</Rule></ServerSideEncryptionConfiguration>"
    );
    s3.call(Method::PUT, &format!("/{bucket}?encryption"), &[], body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_encrypt_by_default_and_policies_may_demand_it() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 2, ..ClusterOptions::new(Shape::Dev) }).await?;
    let (a, b) = (cluster.s3("dc-a"), cluster.s3("dc-b"));
    a.create_bucket("defaults").await?;
    let absent = get(&a, "/defaults?encryption", &[]).await?;
    assert_eq!(code(&absent), (404, "ServerSideEncryptionConfigurationNotFoundError".to_owned()));
    let kms = "<SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>reports</KMSMasterKeyID>";
    set_default(&a, "defaults", kms, "<BucketKeyEnabled>true</BucketKeyEnabled>").await?.ok()?;
    let kept = get(&a, "/defaults?encryption", &[]).await?.ok()?;
    assert_eq!(
        (kept.elements("KMSMasterKeyID"), kept.elements("BucketKeyEnabled")),
        (vec!["reports".into()], vec!["true".into()])
    );
    cluster.wait_replicated("dc-b", &[])?;
    let seen = async || Ok::<_, anyhow::Error>(get(&b, "/defaults?encryption", &[]).await?.status.is_success());
    wait_until("the default in dc-b", Duration::from_secs(30), async || seen().await.unwrap_or(false)).await?;
    let put = b.call(Method::PUT, "/defaults/k", &[], "by default").await?.ok()?;
    assert_eq!(told(&put)[..2], [Some("aws:kms"), Some("reports")]);
    assert_eq!(put.header("x-amz-server-side-encryption-bucket-key-enabled"), Some("true"));
    let put = b.call(Method::PUT, "/defaults/k2", &[(SSE, "AES256")], "as asked").await?.ok()?;
    assert_eq!(told(&put)[..2], [Some("AES256"), None]);
    a.call(Method::DELETE, "/defaults?encryption", &[], Bytes::new()).await?.ok()?;
    let put = a.call(Method::PUT, "/defaults/k3", &[], "plain again").await?.ok()?;
    assert_eq!(told(&put), [None; 4]);
    let odd = set_default(&a, "defaults", "<SSEAlgorithm>ROT13</SSEAlgorithm>", "").await?;
    assert_eq!(code(&odd), (400, "MalformedXML".to_owned()));

    for (headers, expected) in [
        (vec![(SSE, "ROT13")], "InvalidEncryptionAlgorithmError"),
        (vec![(KEY_ID, "reports")], "InvalidArgument"),
        (vec![(SSE, "AES256"), (KEY_ID, "reports")], "InvalidArgument"),
    ] {
        let refused = a.call(Method::PUT, "/defaults/odd", &headers, "x").await?;
        assert_eq!(code(&refused), (400, expected.to_owned()), "{headers:?}");
    }
    let mut both = key_headers("", &customer_key());
    both.push((SSE.to_owned(), "aws:kms".to_owned()));
    let refused = a.call(Method::PUT, "/defaults/odd", &borrowed(&both), "x").await?;
    assert_eq!(code(&refused), (400, "InvalidArgument".to_owned()));
    let mut wrong = key_headers("", &customer_key());
    wrong[2].1 = BASE64.encode([0; 16]);
    let refused = a.call(Method::PUT, "/defaults/odd", &borrowed(&wrong), "x").await?;
    assert_eq!(code(&refused), (400, "InvalidArgument".to_owned()));

    let made =
        cluster.cli(&["user", "create", "ann", "--access-key", "ANNKEY", "--secret-key", "annsecret", "--json"])?;
    anyhow::ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let endpoint: serde_json::Value = serde_json::from_slice(&std::fs::read(cluster.directory().join("ready.json"))?)?;
    let ann = S3::new(endpoint["datacenters"][0]["s3"].as_str().context("an endpoint")?, "dc-a", "ANNKEY", "annsecret");
    ann.create_bucket("demanding").await?;
    let policy = serde_json::json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::demanding/*",
         "Condition": {"Null": {SSE_CONDITION: "true"}}},
        {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::demanding/kms/*",
         "Condition": {"StringNotEquals": {"s3:x-amz-server-side-encryption-aws-kms-key-id": "reports"}}},
    ]});
    ann.call(Method::PUT, "/demanding?policy", &[], policy.to_string()).await?.ok()?;
    let put = async |path: &str, headers: &[(&str, &str)]| {
        anyhow::Ok(code(&ann.call(Method::PUT, path, headers, "x").await?))
    };
    let denied = (403, "AccessDenied".to_owned());
    assert_eq!(put("/demanding/k", &[]).await?, denied);
    assert_eq!(put("/demanding/k", &[(SSE, "AES256")]).await?.0, 200);
    assert_eq!(put("/demanding/kms/k", &[(SSE, "aws:kms"), (KEY_ID, "other")]).await?, denied);
    assert_eq!(put("/demanding/kms/k", &[(SSE, "aws:kms"), (KEY_ID, "reports")]).await?.0, 200);
    Ok(())
}

const SSE_CONDITION: &str = "s3:x-amz-server-side-encryption";

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_rotated_and_disabled_by_the_operator_and_no_key_comes_over_plain_http() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 2, ..ClusterOptions::new(Shape::Nodes) }).await?;
    let (a, b) = (cluster.s3("dc-a"), cluster.s3("dc-b"));
    a.create_bucket("operated").await?;
    let customer = key_headers("", &customer_key());
    let refused = a.call(Method::PUT, "/operated/c", &borrowed(&customer), "x").await?;
    assert_eq!(code(&refused), (400, "InvalidRequest".to_owned()));
    let kms = [(SSE, "aws:kms"), (KEY_ID, "arn:aws:kms:dc-a:111122223333:key/reports")];
    let put = async |key: &str| anyhow::Ok(code(&a.call(Method::PUT, &object_path("operated", key), &kms, "x").await?));
    assert_eq!(put("early").await?, (400, "KMS.NotFoundException".to_owned()));

    let directory = cluster.directory().to_owned();
    let list = |words: &[&str]| -> Result<serde_json::Value> {
        let mut all = vec!["kms"];
        all.extend(words);
        all.extend(["--json", "--dir", directory.to_str().context("a path of text")?]);
        let output = cluster.cli(&all)?;
        anyhow::ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    assert_eq!(list(&["create", "reports"])?["versions"], 1);
    assert!(list(&["create", "reports"]).is_err(), "it is there already");
    assert!(list(&["rotate", "other"]).is_err(), "there is none");
    let settled = async |key: &str, status: u16| {
        let what = format!("{key} answered {status}");
        wait_until(&what, Duration::from_secs(20), async || put(key).await.is_ok_and(|it| it.0 == status)).await
    };
    settled("first", 200).await?;
    assert_eq!(list(&["rotate", "reports"])?["versions"], 2);
    settled("second", 200).await?;
    a.call(Method::PUT, "/operated/own", &[(SSE, "aws:kms")], "x").await?.ok()?;
    cluster.wait_replicated("dc-b", &[])?;
    for key in ["first", "second", "own"] {
        assert_eq!(get(&b, &object_path("operated", key), &[]).await?.ok()?.body, "x", "{key}");
    }
    let keys = list(&["list"])?;
    let ids: Vec<&str> = keys.as_array().context("a list")?.iter().filter_map(|key| key["id"].as_str()).collect();
    assert_eq!(ids, ["aws/s3", "reports"]);

    list(&["disable", "reports"])?;
    settled("third", 400).await?;
    assert_eq!(put("third").await?, (400, "KMS.DisabledException".to_owned()));
    assert_eq!(code(&get(&a, "/operated/first", &[]).await?), (400, "KMS.DisabledException".to_owned()));
    list(&["enable", "reports"])?;
    settled("third", 200).await?;
    assert_eq!(get(&a, "/operated/first", &[]).await?.ok()?.body, "x");
    Ok(())
}
