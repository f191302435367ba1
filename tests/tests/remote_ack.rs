//! `x-meridian-ack: remote`: an answer waits for the datacenters that shall have the write, and says what stands when they do
//! not answer (rule 25), over real processes and links that can be cut.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use meridian_chaos::link_proxy::Direction;
use meridian_tests::{
    ALL, Answer, ClusterOptions, LinkedCluster, Rest, S3, Shape, command_at, object_path, replicate, set_timing, sever,
};

const BUCKET: &str = "acknowledged";
const REMOTE: (&str, &str) = ("x-meridian-ack", "remote");

async fn start(wait_ms: i64) -> Result<LinkedCluster> {
    let linked = LinkedCluster::start_prepared(ClusterOptions::new(Shape::Nodes), |cluster| {
        ALL.iter().try_for_each(|datacenter| set_timing(cluster, datacenter, "remote_ack_wait_ms", wait_ms))
    })
    .await?;
    linked.cluster.s3("dc-a").create_bucket(BUCKET).await?;
    replicate(&linked.cluster, "dc-a", &ALL, &ALL).await?;
    Ok(linked)
}

async fn remote(s3: &S3, method: Method, path: &str, more: &[(&str, &str)], body: impl Into<Bytes>) -> Result<Answer> {
    s3.call(method, path, &[more, &[REMOTE]].concat(), body).await
}

async fn ensure_everywhere(linked: &LinkedCluster, key: &str, wanted: Option<&[u8]>) -> Result<()> {
    for other in ["dc-b", "dc-c"] {
        let found = linked.cluster.s3(other).get(BUCKET, key).await?;
        ensure!(found.as_deref() == wanted, "{other} shows {found:?} of {key}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_elsewhere_though_the_writer_is_gone() -> Result<()> {
    let linked = start(30_000).await?;
    // Without the wait a read elsewhere would be early.
    linked.all_links().for_each(|link| link.set_delay(Direction::Backward, Duration::from_millis(40)));
    let a = linked.cluster.s3("dc-a");
    let path = |key: &str| object_path(BUCKET, key);
    let mut early = 0;
    for round in 0..4 {
        let key = format!("plain-{round}");
        a.put(BUCKET, &key, "local").await?;
        early += usize::from(linked.cluster.s3("dc-c").get(BUCKET, &key).await?.is_none());
        let began = Instant::now();
        remote(&a, Method::PUT, &path(&key), &[], "remote").await?.ok()?;
        println!("an acknowledged PUT took {:?}", began.elapsed());
        ensure_everywhere(&linked, &key, Some(b"remote")).await?;
    }
    ensure!(early > 0, "no plain write was late elsewhere: the links are not slow, and this test shows nothing");

    remote(&a, Method::DELETE, &path("plain-0"), &[], "").await?.ok()?;
    ensure_everywhere(&linked, "plain-0", None).await?;
    let source = format!("/{BUCKET}/plain-1");
    remote(&a, Method::PUT, &path("copy"), &[("x-amz-copy-source", &source)], "").await?.ok()?;
    ensure_everywhere(&linked, "copy", Some(b"remote")).await?;
    let tags = "<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>";
    remote(&a, Method::PUT, &format!("{}?tagging", path("copy")), &[], tags).await?.ok()?;
    let tagged = linked.cluster.s3("dc-b").call(Method::GET, &format!("{}?tagging", path("copy")), &[], "").await?;
    ensure!(tagged.ok()?.elements("Value") == ["v"]);

    // A multipart upload: its Complete waits for its parts; a repeated one as well.
    let began = a.call(Method::POST, &format!("{}?uploads", path("parts")), &[REMOTE], "").await?.ok()?;
    let upload = began.elements("UploadId").pop().context("an upload")?;
    let part = vec![7u8; 5 << 20];
    let put = format!("{}?partNumber=1&uploadId={upload}", path("parts"));
    let etag = remote(&a, Method::PUT, &put, &[], part.clone()).await?.ok()?.header("etag").context("etag")?.to_owned();
    let complete = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    );
    let done = format!("{}?uploadId={upload}", path("parts"));
    remote(&a, Method::POST, &done, &[], complete.clone()).await?.ok()?;
    remote(&a, Method::POST, &done, &[], complete).await?.ok()?;

    let rest = Rest::new(&linked.cluster.rest("dc-a")).signed(linked.cluster.keys());
    let file = format!("/buckets/{BUCKET}/file");
    let written = rest.call(Method::PUT, &file, &[REMOTE], "by REST".to_owned()).await?.ok()?;
    ensure!(written.header("x-meridian-token").is_some());

    sever(linked.around("dc-a"));
    sever(linked.between("dc-b", "dc-c"));
    ensure_everywhere(&linked, "file", Some(b"by REST")).await?;
    ensure_everywhere(&linked, "parts", Some(&part)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_others_can_not_have_stands_and_is_told_so() -> Result<()> {
    let linked = start(1_500).await?;
    let a = linked.cluster.s3("dc-a");
    // One copy elsewhere is kept of each of these, in one datacenter; none of those.
    for (bucket, code) in [("one-copy", "100"), ("no-copy", "000")] {
        a.call(Method::PUT, &format!("/{bucket}"), &[("x-meridian-replication", code)], "").await?.ok()?;
    }
    replicate(&linked.cluster, "dc-a", &ALL, &ALL).await?;
    remote(&a, Method::PUT, "/one-copy/k", &[], "kept").await?.ok()?;

    sever(linked.between("dc-a", "dc-c"));
    let path = object_path(BUCKET, "cut");
    let began = Instant::now();
    let refused = remote(&a, Method::PUT, &path, &[], "stands").await?;
    let took = began.elapsed();
    ensure!(refused.status == StatusCode::SERVICE_UNAVAILABLE, "{} {}", refused.status, refused.text());
    ensure!(refused.elements("Code") == ["RemoteAckTimeout"], "{}", refused.text());
    let text = refused.elements("Message").pop().context("a message")?;
    ensure!(text.contains("stands") && text.contains("by dc-c yet") && !text.contains("by dc-b"), "{text}");
    ensure!(took >= Duration::from_secs(1) && took < Duration::from_secs(15), "it took {took:?}");
    ensure!(refused.header("retry-after").is_some() && refused.header("etag").is_some(), "{:?}", refused.headers);
    let token = refused.header("x-meridian-token").context("a token to wait with")?.to_owned();
    ensure!(a.get(BUCKET, "cut").await?.as_deref() == Some(&b"stands"[..]), "the write did not stand");
    // A delete needs the word of as many; of one, where the bucket's code says one.
    ensure!(remote(&a, Method::DELETE, &path, &[], "").await?.status == StatusCode::SERVICE_UNAVAILABLE);
    ensure!(a.get(BUCKET, "cut").await?.is_none(), "the delete did not stand");
    remote(&a, Method::DELETE, "/one-copy/k", &[], "").await?.ok()?;
    a.put(BUCKET, "cut", "plain writes wait for nobody").await?;

    let rest = Rest::new(&linked.cluster.rest("dc-a")).signed(linked.cluster.keys());
    let file = format!("/buckets/{BUCKET}/file");
    let refused = rest.call(Method::PUT, &file, &[REMOTE], "by REST".to_owned()).await?;
    ensure!(refused.status == StatusCode::SERVICE_UNAVAILABLE && refused.text().contains("stands"), "{refused:?}");
    ensure!(a.get(BUCKET, "file").await?.as_deref() == Some(&b"by REST"[..]));

    // What can't be had is refused before a byte is taken.
    for (path, value) in [("/no-copy/k", "remote"), ("/one-copy/k", "all")] {
        let refused = a.call(Method::PUT, path, &[("x-meridian-ack", value)], "x").await?;
        ensure!(refused.elements("Code") == ["InvalidArgument"], "{value}: {} {}", refused.status, refused.text());
    }
    ensure!(a.get("no-copy", "k").await?.is_none() && a.get("one-copy", "k").await?.is_none());
    a.call(Method::PUT, "/no-copy/k", &[("x-meridian-ack", "local")], "x").await?.ok()?;

    linked.heal();
    let wait = ["replication", "wait", "--in", "dc-c", "--timeout", "60s", "--until", &token];
    let waited = command_at(&linked.cluster, "dc-a", &wait).await?;
    ensure!(waited.status.success(), "{waited:?}");
    remote(&a, Method::PUT, &path, &[], "again").await?.ok()?;
    ensure_everywhere(&linked, "cut", Some(b"again")).await
}
