//! What a link may take, and how soon a silent one is given up: the rate cap of `[replication]`, a wait for a datacenter
//! that accepts and says nothing, and a stop while the others wait for news.
//!
//! Real processes; what crosses between them passes proxies where a test breaks it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use meridian_chaos::link_proxy::LinkControl;
use meridian_tests::{Cluster, ClusterOptions, LinkedCluster, Shape, command_at, wait_until};

const BUCKET: &str = "limited";
const DEADLINE: Duration = Duration::from_secs(60);

async fn reaches(cluster: &Cluster, destinations: &str) -> Result<()> {
    let is_there = async || {
        let words = ["replication", "wait", "--until", "now", "--from", "dc-a", "--in", destinations];
        let output = command_at(cluster, "dc-a", &[&words[..], &["--timeout", "30s"]].concat()).await;
        output.is_ok_and(|output| output.status.success())
    };
    wait_until(&format!("dc-a's writes in {destinations}"), DEADLINE, is_there).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capped_link_takes_no_more_than_its_rate_and_slows_no_other() -> Result<()> {
    const BYTES_PER_SECOND_MAX: i64 = 400_000;
    const OBJECT_BYTES: usize = 50_000;
    const OBJECTS: usize = 40;
    let mut cluster = Cluster::create(ClusterOptions::new(Shape::Nodes))?;
    let path = cluster.node_directory("dc-b").join("node.toml");
    let mut file: toml::Table = toml::from_str(&std::fs::read_to_string(&path)?)?;
    let section = toml::Table::from_iter([("rate_bytes_per_second_max".to_owned(), BYTES_PER_SECOND_MAX.into())]);
    file.insert("replication".to_owned(), section.into());
    std::fs::write(&path, toml::to_string(&file)?)?;
    cluster.run().await?;
    let s3 = cluster.s3("dc-a");
    s3.create_bucket(BUCKET).await?;
    reaches(&cluster, "dc-b,dc-c").await?;

    let began = Instant::now();
    for number in 0..OBJECTS {
        s3.put(BUCKET, &format!("object/{number}"), Bytes::from(vec![7; OBJECT_BYTES])).await?;
    }
    reaches(&cluster, "dc-c").await?;
    let free = began.elapsed();
    reaches(&cluster, "dc-b").await?;
    let capped = began.elapsed();
    // A quarter of a second's bytes may come at once, and the last answer is not waited for.
    let least = (OBJECT_BYTES * OBJECTS) as f64 / BYTES_PER_SECOND_MAX as f64 - 1.0;
    println!("{OBJECTS} objects of {OBJECT_BYTES} bytes: {free:?} without a cap, {capped:?} with one");
    ensure!(capped.as_secs_f64() > least, "{capped:?} is less than the cap allows");
    ensure!(free < capped, "the cap of dc-b has slowed dc-c: {free:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_a_black_holed_datacenter_ends_soon_after_its_timeout_and_names_the_link() -> Result<()> {
    const GRACE: Duration = Duration::from_secs(4);
    let linked = LinkedCluster::start(ClusterOptions::new(Shape::Nodes)).await?;
    let cluster = &linked.cluster;
    cluster.s3("dc-a").create_bucket(BUCKET).await?;
    reaches(cluster, "dc-b,dc-c").await?;
    linked.around("dc-b").for_each(LinkControl::blackhole);
    linked.around("dc-b").for_each(LinkControl::reset);
    cluster.s3("dc-a").put(BUCKET, "key", "not in dc-b").await?;
    for timeout in [1, 3] {
        let (began, text) = (Instant::now(), format!("{timeout}s"));
        let words =
            ["replication", "wait", "--until", "now", "--from", "dc-a", "--in", "dc-b,dc-c", "--timeout", &text];
        let output = command_at(cluster, "dc-a", &words).await?;
        let (took, said) = (began.elapsed(), String::from_utf8_lossy(&output.stderr).into_owned());
        ensure!(output.status.code() == Some(2), "{:?}: {said}", output.status);
        ensure!(said.contains("dc-b") && said.contains("dc-a"), "it names the link: {said}");
        ensure!(took <= Duration::from_secs(timeout) + GRACE, "{took:?} for a time-out of {timeout} s: {said}");
    }
    linked.heal();
    // Connections that were swallowed stay so until their keep-alive ends them.
    reaches(cluster, "dc-b,dc-c").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_stops_at_once_though_others_wait_for_its_news() -> Result<()> {
    const STOP_MAX: Duration = Duration::from_secs(4);
    let mut cluster = Cluster::start(ClusterOptions::new(Shape::Nodes)).await?;
    cluster.s3("dc-a").create_bucket(BUCKET).await?;
    reaches(&cluster, "dc-b,dc-c").await?;
    let began = Instant::now();
    cluster.stop("dc-a").context("stop dc-a")?;
    let took = began.elapsed();
    println!("stopped in {took:?}");
    ensure!(took <= STOP_MAX, "it took {took:?}");
    Ok(())
}
