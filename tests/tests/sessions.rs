//! A session goes from region to region and never goes back in time: an answer's `x-meridian-token`, sent as
//! `x-meridian-after` (rule 21), over real processes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use meridian_chaos::link_proxy::Direction;
use meridian_tests::{
    ALL, Answer, ClusterOptions, LinkedCluster, S3, Shape, command_at, object_path, replicate, set_timing, sever,
};

const BUCKET: &str = "sessions";

fn token(answer: &Answer) -> Result<String> {
    Ok(answer.header("x-meridian-token").context("an answer carries a token")?.to_owned())
}

async fn call(s3: &S3, method: Method, path: &str, after: &str, body: impl Into<Bytes>) -> Result<Answer> {
    let headers = [("x-meridian-after", after)];
    s3.call(method, path, if after.is_empty() { &[] } else { &headers }, body).await
}

fn wait<'a>(token: &'a str, timeout: &'a str) -> [&'a str; 8] {
    ["replication", "wait", "--in", "dc-b", "--timeout", timeout, "--until", token]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_sees_in_every_region_what_it_has_seen_in_another() -> Result<()> {
    let linked = LinkedCluster::start_prepared(ClusterOptions::new(Shape::Nodes), |cluster| {
        // Long on purpose: a busy machine shall not turn a wait into a refusal.
        ALL.iter().try_for_each(|datacenter| set_timing(cluster, datacenter, "session_wait_ms", 30_000))
    })
    .await?;
    // Without tokens a read elsewhere would be early, each time.
    linked.all_links().for_each(|link| link.set_delay(Direction::Backward, Duration::from_millis(60)));
    let (a, b, c) = (linked.cluster.s3("dc-a"), linked.cluster.s3("dc-b"), linked.cluster.s3("dc-c"));
    // The catalog too: the bucket is not there before it has come.
    let created = a.call(Method::PUT, &format!("/{BUCKET}"), &[], Bytes::new()).await?.ok()?;
    let mut after = token(&created)?;
    call(&c, Method::HEAD, &format!("/{BUCKET}"), &after, "").await?.ok().context("the bucket in dc-c")?;

    let path = object_path(BUCKET, "page");
    let mut early = 0;
    for round in 0..10 {
        let (writer, reader, third) = [(&a, &b, &c), (&b, &c, &a), (&c, &a, &b)][round % 3];
        let body = format!("round {round}");
        let put = call(writer, Method::PUT, &path, &after, body.clone()).await?.ok()?;
        after = token(&put)?;
        early += usize::from(call(reader, Method::GET, &path, "", "").await?.text() != body);
        let read = call(reader, Method::GET, &path, &after, "").await?.ok()?;
        ensure!(read.text() == body, "round {round}: read {} after the write", read.text());
        // What was only read is seen elsewhere as well.
        let read = call(third, Method::GET, &path, &token(&read)?, "").await?.ok()?;
        ensure!(read.text() == body, "round {round}: the third region shows {}", read.text());

        let deleted = call(reader, Method::DELETE, &path, &token(&read)?, "").await?.ok()?;
        let gone = call(third, Method::GET, &path, &token(&deleted)?, "").await?;
        ensure!(gone.status == StatusCode::NOT_FOUND, "round {round}: {} after the delete", gone.status);
        // Absence was seen, by a read and by a listing, and is not undone elsewhere.
        let gone = call(writer, Method::GET, &path, &token(&gone)?, "").await?;
        ensure!(gone.status == StatusCode::NOT_FOUND, "round {round}: {} after absence", gone.status);
        let listed = call(third, Method::GET, &format!("/{BUCKET}?list-type=2"), &token(&deleted)?, "").await?.ok()?;
        ensure!(listed.elements("Key").is_empty(), "round {round}: {}", listed.text());
        let gone = call(writer, Method::HEAD, &path, &token(&listed)?, "").await?;
        ensure!(gone.status == StatusCode::NOT_FOUND, "round {round}: {} after a listing", gone.status);
        after = token(&gone)?;
    }
    ensure!(early > 0, "no read without a token was early: the links are not slow, and this test shows nothing");
    println!("{early} of 10 reads without a token were early");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_has_seen_and_can_not_come_is_refused_with_the_reason() -> Result<()> {
    let linked = LinkedCluster::start_prepared(ClusterOptions::new(Shape::Nodes), |cluster| {
        set_timing(cluster, "dc-b", "session_wait_ms", 700)
    })
    .await?;
    let (a, b) = (linked.cluster.s3("dc-a"), linked.cluster.s3("dc-b"));
    b.create_bucket(BUCKET).await?;
    replicate(&linked.cluster, "dc-b", &ALL, &ALL).await?;
    let path = object_path(BUCKET, "page");
    let local = token(&call(&b, Method::PUT, &path, "", "of dc-b").await?.ok()?)?;

    sever(linked.around("dc-a"));
    let after = token(&call(&a, Method::PUT, &object_path(BUCKET, "other"), "", "of dc-a").await?.ok()?)?;
    let began = Instant::now();
    let refused = call(&b, Method::GET, &path, &after, "").await?;
    ensure!(began.elapsed() >= Duration::from_millis(700), "it did not wait: {:?}", began.elapsed());
    ensure!(refused.status == StatusCode::SERVICE_UNAVAILABLE, "{} {}", refused.status, refused.text());
    ensure!(refused.header("retry-after").is_some() && refused.text().contains("dc-a"), "{}", refused.text());
    // A session that has seen nothing of dc-a does not wait for it, and neither does a request without a token.
    for free in [local.as_str(), ""] {
        ensure!(call(&b, Method::GET, &path, free, "").await?.ok()?.text() == "of dc-b");
    }
    let late = command_at(&linked.cluster, "dc-b", &wait(&after, "500ms")).await?;
    ensure!(late.status.code() == Some(2), "{late:?}");

    for bad in ["x", "00", "3201", &after[..after.len() - 2], &"0".repeat(7000)] {
        let refused = call(&b, Method::GET, &path, bad, "").await?;
        ensure!(refused.status == StatusCode::BAD_REQUEST, "{bad}: {} {}", refused.status, refused.text());
        ensure!(refused.elements("Code") == ["InvalidArgument"], "{bad}: {}", refused.text());
    }
    let bad = command_at(&linked.cluster, "dc-b", &wait("0123", "500ms")).await?;
    ensure!(!bad.status.success() && bad.status.code() != Some(2), "{bad:?}");

    linked.heal();
    let waited = command_at(&linked.cluster, "dc-b", &wait(&after, "60s")).await?;
    ensure!(waited.status.success(), "{waited:?}");
    ensure!(b.get(BUCKET, "other").await?.as_deref() == Some(b"of dc-a"), "the wait came back early");
    call(&b, Method::GET, &path, &after, "").await?.ok().map(drop)
}
