//! A token of STS that has run out, over a real process whose clock goes on by a restart: a token lives for 15 minutes at least.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use meridian_tests::{Answer, Cluster, ClusterOptions, S3, Shape, set_timing};

const BUCKET: &str = "sessions";
/// A signature may be off by 15 minutes either way; a token of as many ends in between.
const APART_MS: i64 = 14 * 60_000;

async fn restarted(cluster: &mut Cluster, clock_offset_ms: i64) -> Result<()> {
    cluster.stop("dc-a")?;
    set_timing(cluster, "dc-a", "clock_offset_ms", clock_offset_ms)?;
    cluster.spawn("dc-a")?;
    cluster.wait_ready().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_has_run_out_is_refused_as_expired() -> Result<()> {
    let options = ClusterOptions { datacenters: 1, ..ClusterOptions::new(Shape::Nodes) };
    let mut cluster = Cluster::create(options)?;
    set_timing(&cluster, "dc-a", "clock_offset_ms", -APART_MS)?;
    cluster.run().await?;
    let s3 = cluster.s3("dc-a");
    s3.create_bucket(BUCKET).await?;
    s3.put(BUCKET, "key", "body").await?;
    let made = s3.for_service("sts").action("GetSessionToken", &[("DurationSeconds", "900")]).await?.ok()?;
    let field = |name: &str| made.elements(name).pop().context("temporary credentials are whole");
    let session = S3::new(s3.endpoint(), "dc-a", &field("AccessKeyId")?, &field("SecretAccessKey")?);
    let token = field("SessionToken")?;
    let asked = async |session: &S3| -> Result<Answer> {
        let path = format!("/{BUCKET}/key");
        session.call(Method::GET, &path, &[("x-amz-security-token", &token)], Bytes::new()).await
    };
    ensure!(asked(&session).await?.ok()?.text() == "body");

    restarted(&mut cluster, APART_MS).await?;
    let refused = asked(&session).await?;
    ensure!(refused.status == StatusCode::BAD_REQUEST, "{} {}", refused.status, refused.text());
    ensure!(refused.elements("Code") == ["ExpiredToken"], "{}", refused.text());
    let identity = [("x-amz-security-token", token.as_str()), ("content-type", "application/x-www-form-urlencoded")];
    let form = "Action=GetCallerIdentity&Version=2011-06-15";
    let refused = session.for_service("sts").call(Method::POST, "/", &identity, form).await?;
    ensure!(refused.elements("Code") == ["ExpiredToken"], "{} {}", refused.status, refused.text());
    // The user's own key does not run out.
    ensure!(s3.get(BUCKET, "key").await?.is_some());
    Ok(())
}
