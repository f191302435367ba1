//! One write crosses: what a client writes into one datacenter is read, identical, in the others.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::{Method, StatusCode};
use meridian_tests::{Cluster, ClusterOptions, Shape, object_path, plain_get, wait_until};

/// Bytes that no other object has.
fn content(seed: u64, size: usize) -> Bytes {
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&word.to_le_bytes());
        word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(seed | 1);
    }
    bytes.truncate(size);
    bytes.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_all_sizes_are_read_in_the_other_datacenters() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::new(Shape::Dev)).await?;
    let (a, b, c) = (cluster.s3("dc-a"), cluster.s3("dc-b"), cluster.s3("dc-c"));
    a.create_bucket("photos").await?;
    let chunk = 4 << 20;
    let sizes = [0, 1, 1000, 65_536, 65_537, chunk - 1, chunk, chunk + 1, 3 * chunk + 17];
    for (number, size) in sizes.iter().enumerate() {
        let key = format!("size/{size}");
        let body = content(number as u64, *size);
        let etag = a.put("photos", &key, body.clone()).await?;
        assert_eq!(a.get("photos", &key).await?.as_ref(), Some(&body), "read where it was written, {etag}");
    }
    cluster.wait_replicated("dc-b,dc-c", &[])?;
    for (number, size) in sizes.iter().enumerate() {
        for other in [&b, &c] {
            assert_eq!(other.get("photos", &format!("size/{size}")).await?, Some(content(number as u64, *size)));
        }
    }
    let listed = a.list("photos", "").await?;
    assert_eq!(listed.len(), sizes.len());
    assert_eq!((b.list("photos", "").await?, c.list("photos", "").await?), (listed.clone(), listed));

    a.delete("photos", "size/1000").await?;
    b.put("photos", "size/1", content(99, 5)).await?;
    cluster.wait_replicated("dc-a,dc-b,dc-c", &[])?;
    for any in [&a, &b, &c] {
        assert_eq!(any.get("photos", "size/1000").await?, None);
        assert_eq!(any.get("photos", "size/1").await?, Some(content(99, 5)));
    }
    let status: serde_json::Value = serde_json::from_slice(&cluster.cli(&["replication", "status", "--json"])?.stdout)?;
    assert_eq!(status["verdict"], "ok", "{status:#}");
    assert_eq!(status["lag"].as_array().map(Vec::len), Some(6));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn multipart_ranges_copies_and_listings_cross() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 2, ..ClusterOptions::new(Shape::Dev) }).await?;
    let (a, b) = (cluster.s3("dc-a"), cluster.s3("dc-b"));
    a.create_bucket("archive").await?;
    let path = object_path("archive", "dir/large file");
    let started = a.call(Method::POST, &format!("{path}?uploads"), &[], Bytes::new()).await?.ok()?;
    let upload = started.elements("UploadId").pop().expect("an upload id");
    let parts = [content(1, 5 << 20), content(2, 6 << 20), content(3, 100)];
    let mut listed = String::new();
    for (number, part) in (1..).zip(&parts) {
        let part_path = format!("{path}?partNumber={number}&uploadId={upload}");
        let answer = a.call(Method::PUT, &part_path, &[], part.clone()).await?.ok()?;
        let etag = answer.header("etag").expect("a part has an ETag");
        listed.push_str(&format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"));
    }
    let body = format!("<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>");
    let completed = a.call(Method::POST, &format!("{path}?uploadId={upload}"), &[], body.clone()).await?.ok()?;
    assert!(completed.elements("ETag")[0].contains("-3"), "{}", completed.text());
    let again = a.call(Method::POST, &format!("{path}?uploadId={upload}"), &[], body).await?.ok()?;
    assert_eq!(again.elements("ETag"), completed.elements("ETag"), "a repeated Complete gets the remembered answer");

    let whole: Bytes = parts.concat().into();
    cluster.wait_replicated("dc-b", &[])?;
    assert_eq!(b.get("archive", "dir/large file").await?.as_ref(), Some(&whole));
    let range = b.call(Method::GET, &path, &[("range", "bytes=5242870-5242890")], Bytes::new()).await?;
    assert_eq!((range.status, &range.body[..]), (StatusCode::PARTIAL_CONTENT, &whole[5_242_870..=5_242_890]));
    let suffix = b.call(Method::GET, &path, &[("range", "bytes=-7")], Bytes::new()).await?;
    assert_eq!(&suffix.body[..], &whole[whole.len() - 7..]);
    let past = b.call(Method::GET, &path, &[("range", "bytes=999999999-")], Bytes::new()).await?;
    assert_eq!(past.status, StatusCode::RANGE_NOT_SATISFIABLE);

    let source = [("x-amz-copy-source", "/archive/dir/large%20file")];
    b.call(Method::PUT, &object_path("archive", "dir/copy"), &source, Bytes::new()).await?.ok()?;
    cluster.wait_replicated("dc-a", &[])?;
    assert_eq!(a.get("archive", "dir/copy").await?, Some(whole));
    for key in ["a", "b/1", "b/2", "c"] {
        a.put("archive", key, "x").await?;
    }
    let page = a.call(Method::GET, "/archive?list-type=2&delimiter=%2F", &[], Bytes::new()).await?.ok()?;
    assert_eq!(page.elements("Key"), ["a", "c"]);
    assert_eq!(page.elements("CommonPrefixes").len(), 2, "{}", page.text());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_reads_from_another_datacenter_while_the_origin_is_dead() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions::new(Shape::Nodes)).await?;
    let (a, b) = (cluster.s3("dc-a"), cluster.s3("dc-b"));
    a.create_bucket("mirror").await?;
    for number in 0..200u64 {
        a.put("mirror", &format!("small-{number}"), content(number, 100 + number as usize)).await?;
    }
    a.put("mirror", "large", content(7777, 20 << 20)).await?;
    cluster.wait_replicated("dc-b,dc-c", &[])?;
    cluster.kill("dc-a")?;
    for number in 0..200u64 {
        let got = b.get("mirror", &format!("small-{number}")).await?;
        assert_eq!(got, Some(content(number, 100 + number as usize)), "small-{number}");
    }
    assert_eq!(b.get("mirror", "large").await?, Some(content(7777, 20 << 20)));

    // The survivors go on, and what they write is in the third.
    b.put("mirror", "meanwhile", content(8888, 1000)).await?;
    let c = cluster.s3("dc-c");
    let reads = async || c.get("mirror", "meanwhile").await.is_ok_and(|got| got == Some(content(8888, 1000)));
    wait_until("the write of dc-b in dc-c", Duration::from_secs(30), reads).await?;

    // The dead one comes back and catches up.
    cluster.spawn("dc-a")?;
    cluster.wait_ready().await?;
    cluster.wait_replicated("dc-a", &[])?;
    assert_eq!(a.get("mirror", "meanwhile").await?, Some(content(8888, 1000)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_metrics_and_admin_answer_as_documented() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 1, ..ClusterOptions::new(Shape::Dev) }).await?;
    let rest = cluster.rest("dc-a");
    assert_eq!(plain_get(&rest, "/healthz").await?, (200, "ok\n".to_owned()));
    assert_eq!(plain_get(&rest, "/readyz").await?.0, 200);
    cluster.s3("dc-a").create_bucket("metrics").await?;
    let (status, text) = plain_get(&rest, "/metrics").await?;
    assert!(status == 200 && text.contains("meridian_requests_total{gateway=\"s3\""), "{text}");
    assert_eq!(plain_get(&rest, "/admin/v1/status").await?.0, 403, "admin calls are signed");
    assert_eq!(plain_get(&rest, "/nowhere").await?.0, 404);
    let status: serde_json::Value = serde_json::from_slice(&cluster.cli(&["status", "--json"])?.stdout)?;
    assert_eq!((status["datacenter"].as_str(), status["ready"].as_bool()), (Some("dc-a"), Some(true)));
    let wrong = meridian_tests::S3::new(&rest, "dc-a", "nobody", "nothing");
    let answer = wrong.call(Method::GET, "/admin/v1/status", &[], Bytes::new()).await?;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    Ok(())
}
