//! A tombstone lives until every datacenter has it, and then goes (rule 14): real processes, one of which is away.
//!
//! What a store holds is read from its metrics. Each step waits for what it has caused, with a deadline.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use meridian_tests::{Cluster, ClusterOptions, Shape, plain_get, wait_until};

const BUCKET: &str = "graves";
const ALL: [&str; 3] = ["dc-a", "dc-b", "dc-c"];
/// Two closed timestamps of each datacenter, their reports, and two rounds of asking for them.
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);
/// Stable times that are as old as this have stood still over several rounds.
const STANDING_SECONDS: f64 = 12.0;

/// A gauge of a datacenter's node.
async fn gauge(cluster: &Cluster, datacenter: &str, name: &str) -> Result<f64> {
    let (_, text) = plain_get(&cluster.rest(datacenter), "/metrics").await?;
    let line = text.lines().find(|line| line.starts_with(name) && line[name.len()..].starts_with(' '));
    let line = line.with_context(|| format!("{datacenter} shows no {name}"))?;
    Ok(line[name.len()..].trim().parse()?)
}

async fn tombstones(cluster: &Cluster, datacenter: &str) -> Result<f64> {
    gauge(cluster, datacenter, "meridian_tombstones").await
}

async fn wait_for_tombstones(cluster: &Cluster, datacenters: &[&str], wanted: f64) -> Result<()> {
    for datacenter in datacenters {
        let what = format!("{wanted} tombstones in {datacenter}");
        let there = async || tombstones(cluster, datacenter).await.is_ok_and(|found| found == wanted);
        wait_until(&what, SETTLE_DEADLINE, there).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_goes_when_all_have_it_and_not_while_one_datacenter_is_away() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions::new(Shape::Nodes)).await?;
    let s3 = cluster.s3("dc-a");
    s3.create_bucket(BUCKET).await?;
    s3.put(BUCKET, "kept", "x").await?;
    s3.put(BUCKET, "first", "x").await?;
    s3.delete(BUCKET, "first").await?;
    ensure!(tombstones(&cluster, "dc-a").await? == 1.0, "a delete leaves a tombstone");
    wait_for_tombstones(&cluster, &ALL, 0.0).await?;

    cluster.stop("dc-c")?;
    s3.put(BUCKET, "second", "x").await?;
    s3.delete(BUCKET, "second").await?;
    wait_for_tombstones(&cluster, &["dc-a", "dc-b"], 1.0).await?;
    let age = "meridian_stable_age_seconds{time=\"settled\"}";
    for datacenter in ["dc-a", "dc-b"] {
        let stands = async || gauge(&cluster, datacenter, age).await.is_ok_and(|age| age > STANDING_SECONDS);
        wait_until("stable times that stand still", SETTLE_DEADLINE, stands).await?;
        ensure!(tombstones(&cluster, datacenter).await? == 1.0, "{datacenter} has dropped what dc-c has not seen");
    }

    cluster.spawn("dc-c")?;
    cluster.wait_ready().await?;
    wait_for_tombstones(&cluster, &ALL, 0.0).await?;
    for datacenter in ALL {
        let s3 = cluster.s3(datacenter);
        ensure!(s3.get(BUCKET, "second").await?.is_none(), "a deleted object is back in {datacenter}");
        ensure!(s3.get(BUCKET, "kept").await?.is_some(), "an object is gone in {datacenter}");
    }
    Ok(())
}
