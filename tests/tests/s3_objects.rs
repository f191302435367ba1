//! Versions, tags, locks, checksums and conditions, as clients see them through the socket, and what crosses.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Method, StatusCode};
use meridian_tests::{Answer, Cluster, ClusterOptions, S3, Shape, object_path, wait_until};

const PART_SIZE: usize = 5 << 20;

async fn get(s3: &S3, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
    s3.call(Method::GET, path, headers, Bytes::new()).await
}

async fn enable(s3: &S3, bucket: &str, status: &str) -> Result<()> {
    let body = format!("<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>");
    s3.call(Method::PUT, &format!("/{bucket}?versioning"), &[], body).await?.ok().map(drop)
}

async fn put_version(s3: &S3, bucket: &str, key: &str, body: &str) -> Result<String> {
    let answer = s3.call(Method::PUT, &object_path(bucket, key), &[], body.to_owned()).await?.ok()?;
    Ok(answer.header("x-amz-version-id").context("a versioned PUT tells its version")?.to_owned())
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.elements("Code").pop().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_versions_stay_in_one_order_and_a_removal_hides_one_everywhere() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 2, ..ClusterOptions::new(Shape::Dev) }).await?;
    let (a, b) = (cluster.s3("dc-a"), cluster.s3("dc-b"));
    a.create_bucket("versions").await?;
    enable(&a, "versions", "Enabled").await?;
    cluster.wait_replicated("dc-b", &[])?;
    let seen = async || Ok::<_, anyhow::Error>(get(&b, "/versions?versioning", &[]).await?.text().contains("Enabled"));
    wait_until("the versioning state in dc-b", Duration::from_secs(30), async || seen().await.unwrap_or(false)).await?;
    let (one, two) =
        tokio::join!(put_version(&a, "versions", "k", "from a"), put_version(&b, "versions", "k", "from b"));
    let (one, two) = (one?, two?);
    cluster.wait_replicated("dc-a,dc-b", &[])?;
    let list = async |s3: &S3| anyhow::Ok(get(s3, "/versions?versions", &[]).await?.ok()?.elements("VersionId"));
    let order = list(&a).await?;
    assert_eq!((order.len(), &order), (2, &list(&b).await?));
    assert!(order.contains(&one) && order.contains(&two));
    for s3 in [&a, &b] {
        let path = object_path("versions", "k");
        assert_eq!(get(s3, &format!("{path}?versionId={one}"), &[]).await?.ok()?.body, "from a");
        assert_eq!(get(s3, &format!("{path}?versionId={two}"), &[]).await?.ok()?.body, "from b");
        assert_eq!(get(s3, &path, &[]).await?.ok()?.header("x-amz-version-id"), Some(order[0].as_str()));
    }

    let newest = format!("{}?versionId={}", object_path("versions", "k"), order[0]);
    let removed = b.call(Method::DELETE, &newest, &[], Bytes::new()).await?.ok()?;
    assert_eq!((removed.status, removed.header("x-amz-version-id")), (StatusCode::NO_CONTENT, Some(order[0].as_str())));
    cluster.wait_replicated("dc-a", &[])?;
    assert_eq!(code(&get(&a, &newest, &[]).await?), (404, "NoSuchVersion".to_owned()));
    assert_eq!(list(&a).await?, order[1..]);

    let marker = a.call(Method::DELETE, &object_path("versions", "k"), &[], Bytes::new()).await?.ok()?;
    assert_eq!(marker.header("x-amz-delete-marker"), Some("true"));
    let marker = marker.header("x-amz-version-id").context("a marker has a version")?.to_owned();
    cluster.wait_replicated("dc-b", &[])?;
    let hidden = get(&b, &object_path("versions", "k"), &[]).await?;
    assert_eq!((code(&hidden), hidden.header("x-amz-delete-marker")), ((404, "NoSuchKey".to_owned()), Some("true")));
    let named = get(&b, &format!("{}?versionId={marker}", object_path("versions", "k")), &[]).await?;
    assert_eq!((code(&named), named.header("allow")), ((405, "MethodNotAllowed".to_owned()), Some("DELETE")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_and_locks_cross_and_hold_where_they_arrive() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 2, ..ClusterOptions::new(Shape::Dev) }).await?;
    let (a, b) = (cluster.s3("dc-a"), cluster.s3("dc-b"));
    let locks = [("x-amz-bucket-object-lock-enabled", "true")];
    a.call(Method::PUT, "/locked", &locks, Bytes::new()).await?.ok()?;
    let path = object_path("locked", "k");
    let headers = [("x-amz-tagging", "a=b&c=d"), ("x-amz-meta-colour", "blue")];
    let version = a.call(Method::PUT, &path, &headers, "body").await?.ok()?;
    let version = version.header("x-amz-version-id").context("a lockable bucket has versions")?.to_owned();
    let retention =
        "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2099-01-01T00:00:00Z</RetainUntilDate></Retention>";
    a.call(Method::PUT, &format!("{path}?retention"), &[], retention).await?.ok()?;
    let tags = "<Tagging><TagSet><Tag><Key>new</Key><Value>1</Value></Tag></TagSet></Tagging>";
    a.call(Method::PUT, &format!("{path}?tagging&versionId={version}"), &[], tags).await?.ok()?;
    cluster.wait_replicated("dc-b", &[])?;
    let read = get(&b, &path, &[]).await?.ok()?;
    assert_eq!(
        (read.header("x-amz-object-lock-mode"), read.header("x-amz-meta-colour")),
        (Some("COMPLIANCE"), Some("blue"))
    );
    assert_eq!(read.header("x-amz-tagging-count"), Some("1"));
    assert_eq!(get(&b, &format!("{path}?tagging"), &[]).await?.ok()?.elements("Key"), ["new"]);
    let remove = b.call(Method::DELETE, &format!("{path}?versionId={version}"), &[], Bytes::new()).await?;
    assert_eq!(code(&remove), (403, "AccessDenied".to_owned()));
    let shorter = retention.replace("2099", "2098");
    let shortened = b.call(Method::PUT, &format!("{path}?retention"), &[], shorter).await?;
    assert_eq!(code(&shortened), (403, "AccessDenied".to_owned()));
    let suspended = b.call(
        Method::PUT,
        "/locked?versioning",
        &[],
        "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>",
    );
    assert_eq!(code(&suspended.await?), (409, "InvalidBucketState".to_owned()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn checksums_of_parts_and_objects_are_kept_and_verified() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 1, ..ClusterOptions::new(Shape::Dev) }).await?;
    let a = cluster.s3("dc-a");
    a.create_bucket("sums").await?;
    let path = object_path("sums", "large");
    let asked = [("x-amz-checksum-algorithm", "CRC32"), ("x-amz-checksum-type", "FULL_OBJECT")];
    let started = a.call(Method::POST, &format!("{path}?uploads"), &asked, Bytes::new()).await?.ok()?;
    assert_eq!(started.header("x-amz-checksum-type"), Some("FULL_OBJECT"));
    let upload = started.elements("UploadId").pop().context("an upload id")?;
    let mut listed = String::new();
    for (number, size) in [(1, PART_SIZE), (2, 9)] {
        let part = vec![b'1'; size];
        let answer =
            a.call(Method::PUT, &format!("{path}?partNumber={number}&uploadId={upload}"), &[], part).await?.ok()?;
        assert!(answer.header("x-amz-checksum-crc32").is_some(), "an upload with an algorithm has it for each part");
        let etag = answer.header("etag").context("a part has an ETag")?.to_owned();
        listed.push_str(&format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"));
    }
    let complete = format!("<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>");
    let wrong = [("x-amz-checksum-crc32", "AAAAAA=="), ("x-amz-checksum-type", "FULL_OBJECT")];
    let refused = a.call(Method::POST, &format!("{path}?uploadId={upload}"), &wrong, complete.clone()).await?;
    assert_eq!(code(&refused), (400, "BadDigest".to_owned()));
    let done = a.call(Method::POST, &format!("{path}?uploadId={upload}"), &[], complete.clone()).await?.ok()?;
    let checksum = done.elements("ChecksumCRC32").pop().context("the object has a checksum")?;
    let right = [("x-amz-checksum-crc32", checksum.as_str()), ("x-amz-checksum-type", "FULL_OBJECT")];
    let again = a.call(Method::POST, &format!("{path}?uploadId={upload}"), &right, complete).await?.ok()?;
    assert_eq!(
        again.elements("ChecksumCRC32"),
        std::slice::from_ref(&checksum),
        "the checksum is the object's, not the document's"
    );
    let mode = [("x-amz-checksum-mode", "ENABLED")];
    let head = a.call(Method::HEAD, &path, &mode, Bytes::new()).await?.ok()?;
    assert_eq!(head.header("x-amz-checksum-crc32"), Some(checksum.as_str()));
    // The same bytes in one piece have the same checksum, as the client would compute it.
    let whole = vec![b'1'; PART_SIZE + 9];
    let put = [("x-amz-checksum-crc32", checksum.as_str())];
    a.call(Method::PUT, &object_path("sums", "whole"), &put, whole).await?.ok()?;
    let attributes = [("x-amz-object-attributes", "Checksum,ObjectParts,ObjectSize")];
    let told = get(&a, &format!("{path}?attributes"), &attributes).await?.ok()?;
    assert_eq!(
        (told.elements("ObjectSize"), told.elements("PartsCount")),
        (vec![(PART_SIZE + 9).to_string()], vec!["2".to_owned()])
    );
    for odd in ["bytes=x-", "bytes=0-1,4-5", "lines=1-2", "bytes=-"] {
        let read = get(&a, &object_path("sums", "whole"), &[("range", odd)]).await?;
        assert_eq!((read.status.as_u16(), read.body.len()), (200, PART_SIZE + 9), "{odd} is passed over");
    }
    let part = get(&a, &format!("{path}?partNumber=2"), &mode).await?.ok()?;
    assert_eq!((part.status.as_u16(), part.body.len(), part.header("x-amz-mp-parts-count")), (206, 9, Some("2")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_guard_writes_deletes_and_copies() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 1, ..ClusterOptions::new(Shape::Dev) }).await?;
    let a = cluster.s3("dc-a");
    a.create_bucket("conditions").await?;
    let path = object_path("conditions", "k");
    let with = async |method, headers: &[(&str, &str)]| a.call(method, &path, headers, "x").await;
    assert_eq!(code(&with(Method::PUT, &[("if-match", "\"a\"")]).await?), (404, "NoSuchKey".to_owned()));
    let etag = with(Method::PUT, &[("if-none-match", "*")]).await?.ok()?.header("etag").context("an ETag")?.to_owned();
    assert_eq!(code(&with(Method::PUT, &[("if-none-match", "*")]).await?), (412, "PreconditionFailed".to_owned()));
    with(Method::PUT, &[("if-match", &etag)]).await?.ok()?;
    assert_eq!(code(&with(Method::DELETE, &[("if-match", "\"0123\"")]).await?), (412, "PreconditionFailed".to_owned()));
    let copy = [("x-amz-copy-source", "/conditions/k"), ("x-amz-copy-source-if-none-match", &etag)];
    let refused = a.call(Method::PUT, &object_path("conditions", "copy"), &copy, Bytes::new()).await?;
    assert_eq!(code(&refused), (412, "PreconditionFailed".to_owned()));
    let onto_itself = with(Method::PUT, &copy[..1]).await?;
    assert_eq!(code(&onto_itself), (400, "InvalidRequest".to_owned()));
    with(Method::DELETE, &[("if-match", &etag)]).await?.ok()?;
    with(Method::DELETE, &[("if-match", &etag)]).await?.ok()?;
    assert_eq!(get(&a, &path, &[]).await?.status, StatusCode::NOT_FOUND);
    Ok(())
}
