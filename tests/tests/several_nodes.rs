//! One datacenter of three nodes: each serves every key, and the loss of one is survived by the others.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;
use meridian_tests::{Cluster, ClusterOptions, S3, Shape, wait_until};
use serde_json::Value;

/// How long writes may stand still after the loss of a node, on a machine that is busy with other tests.
const WRITES_GO_ON: Duration = Duration::from_secs(5);
const NODES: [&str; 3] = ["dc-a-1", "dc-a-2", "dc-a-3"];
const BUCKET: &str = "photos";

fn options() -> ClusterOptions {
    ClusterOptions { datacenters: 1, nodes: 3, partitions: 4, ..ClusterOptions::new(Shape::Nodes) }
}

fn body(index: usize) -> Bytes {
    format!("object {index} ").repeat(1 + index % 7 * 400).into()
}

fn key(index: usize) -> String {
    format!("folder-{}/object-{index:04}", index % 3)
}

/// Writes `range` in turn through the given nodes.
async fn write(cluster: &Cluster, nodes: &[&str], range: std::ops::Range<usize>) -> Result<()> {
    let clients: Vec<S3> = nodes.iter().map(|node| cluster.s3(node)).collect();
    for index in range {
        let client = &clients[index % clients.len()];
        client.put(BUCKET, &key(index), body(index)).await.with_context(|| format!("PUT {}", key(index)))?;
    }
    Ok(())
}

/// Reads objects of `range` through one node and holds them against what was written.
async fn read(cluster: &Cluster, node: &str, range: impl IntoIterator<Item = usize>) -> Result<()> {
    let client = cluster.s3(node);
    for index in range {
        let found = client.get(BUCKET, &key(index)).await.with_context(|| format!("GET {} at {node}", key(index)))?;
        ensure!(found.as_ref() == Some(&body(index)), "{node} has other bytes of {}", key(index));
    }
    Ok(())
}

fn status(cluster: &Cluster, node: &str) -> Result<Value> {
    let output = cluster.cli_at(node, &["status", "--json"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Who leads each partition, as a node sees it.
fn leaders(status: &Value) -> Vec<u64> {
    let status = status.as_array().map_or(status, |all| &all[0]);
    let partitions = status["partitions"].as_array().expect("a status lists partitions");
    partitions.iter().filter_map(|partition| partition["leader"].as_u64()).collect()
}

/// The first write of a new key that succeeds through `node`, and how long that took.
async fn first_write(cluster: &Cluster, node: &str, from: usize) -> Result<Duration> {
    let (started, client) = (Instant::now(), cluster.s3(node));
    // One key a partition at least: all of them must take writes again.
    for index in from..from + 12 {
        let written = wait_until("a write", WRITES_GO_ON * 4, async || {
            client.put(BUCKET, &key(index), body(index)).await.is_ok()
        });
        written.await?;
    }
    Ok(started.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_serves_every_key() -> Result<()> {
    let cluster = Cluster::start(options()).await?;
    cluster.s3("dc-a-1").create_bucket(BUCKET).await?;
    write(&cluster, &NODES, 0..60).await?;
    for node in NODES {
        read(&cluster, node, 0..60).await?;
        let listed = cluster.s3(node).list(BUCKET, "").await?;
        let mut expected: Vec<String> = (0..60).map(key).collect();
        expected.sort();
        assert_eq!(listed.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), expected, "{node}");
    }
    // Overwrites and deletes through one node are seen at once through the others.
    for round in 0..10 {
        let (writer, reader) = (cluster.s3(NODES[round % 3]), cluster.s3(NODES[(round + 1) % 3]));
        writer.put(BUCKET, "one", body(round)).await?;
        assert_eq!(reader.get(BUCKET, "one").await?, Some(body(round)), "round {round}");
        writer.delete(BUCKET, "one").await?;
        assert_eq!(reader.get(BUCKET, "one").await?, None, "round {round}");
    }
    // A large upload in parts: its row and its parts travel through different nodes.
    let (one, two, three) = (cluster.s3(NODES[0]), cluster.s3(NODES[1]), cluster.s3(NODES[2]));
    let started = one.call(Method::POST, "/photos/large?uploads", &[], Bytes::new()).await?.ok()?;
    let upload = started.elements("UploadId").pop().context("an upload has an id")?;
    let part = Bytes::from(vec![7u8; 5 << 20]);
    let path = format!("/photos/large?partNumber=1&uploadId={upload}");
    let etag = two.call(Method::PUT, &path, &[], part.clone()).await?.ok()?;
    let etag = etag.header("etag").context("a part has an ETag")?;
    let complete = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    );
    three.call(Method::POST, &format!("/photos/large?uploadId={upload}"), &[], complete).await?.ok()?;
    assert_eq!(one.get(BUCKET, "large").await?, Some(part));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_are_spread_and_every_node_is_registered() -> Result<()> {
    let cluster = Cluster::start(options()).await?;
    wait_until("four partitions and the catalog with a leader", Duration::from_secs(20), async || {
        status(&cluster, "dc-a-2").is_ok_and(|status| leaders(&status).len() == 5)
    })
    .await?;
    let status = status(&cluster, "dc-a-2")?;
    let led = leaders(&status);
    for node in 1..=3 {
        assert!(led.contains(&node), "node {node} leads nothing: {led:?}");
    }
    let nodes = status.as_array().map_or(&status, |all| &all[0])["nodes"].as_array().map(Vec::len);
    assert_eq!(nodes, Some(3), "{status:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_soon_after_a_node_is_killed_and_nothing_is_lost() -> Result<()> {
    let mut cluster = Cluster::start(options()).await?;
    cluster.s3("dc-a-1").create_bucket(BUCKET).await?;
    let mut written = 0;
    // Each node once: whatever it led is led by another one then.
    for killed in [NODES[1], NODES[0], NODES[2]] {
        let left: Vec<&str> = NODES.into_iter().filter(|node| *node != killed).collect();
        let survivors = written..written + 20;
        write(&cluster, &left, survivors.clone()).await?;
        write(&cluster, &[killed], survivors.end..survivors.end + 6).await?;
        written = survivors.end + 6;
        cluster.kill(killed)?;
        // What lies on the others is read on, through both of them, from the first moment.
        for node in &left {
            read(&cluster, node, survivors.clone()).await?;
        }
        let mut waited = Duration::ZERO;
        for node in &left {
            waited = waited.max(first_write(&cluster, node, written).await?);
            written += 12;
        }
        assert!(waited < WRITES_GO_ON, "writes stood still for {waited:?} after {killed} was killed");
        cluster.spawn(killed)?;
        cluster.wait_ready().await?;
        for node in NODES {
            read(&cluster, node, 0..written).await?;
        }
    }
    let listed = cluster.s3("dc-a-3").list(BUCKET, "").await?;
    assert_eq!(listed.len(), written);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_node_holds_up_nobody_for_long() -> Result<()> {
    let cluster = Cluster::start(options()).await?;
    cluster.s3("dc-a-1").create_bucket(BUCKET).await?;
    write(&cluster, &NODES[1..], 0..10).await?;
    // It leads a third of the partitions: the others must notice that it is silent although its ports accept.
    cluster.freeze(NODES[0])?;
    let waited = first_write(&cluster, NODES[1], 10).await?;
    read(&cluster, NODES[2], 0..22).await?;
    cluster.thaw(NODES[0])?;
    assert!(waited < WRITES_GO_ON * 2, "writes stood still for {waited:?}");
    write(&cluster, &NODES, 22..40).await?;
    read(&cluster, NODES[0], 0..40).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_replica_of_a_partition_serves_its_keys() -> Result<()> {
    // Five nodes: each partition lives on three, so that two in five requests meet a node without it.
    let mut cluster = Cluster::start(ClusterOptions { nodes: 5, racks: 2, partitions: 2, ..options() }).await?;
    let nodes: Vec<String> = cluster.nodes();
    let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
    cluster.s3(nodes[3]).create_bucket(BUCKET).await?;
    write(&cluster, &nodes, 0..50).await?;
    let mut expected: Vec<String> = (0..50).map(key).collect();
    expected.sort();
    for node in &nodes {
        read(&cluster, node, 0..50).await?;
        let listed = cluster.s3(node).list(BUCKET, "").await?;
        assert_eq!(listed.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), expected, "{node}");
    }
    cluster.kill(nodes[0])?;
    for node in &nodes[1..] {
        let waited = first_write(&cluster, node, 50).await?;
        assert!(waited < WRITES_GO_ON * 2, "{node}: {waited:?}");
        read(&cluster, node, (0..50).filter(|index| index % 5 != 0)).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_datacenters_of_three_nodes_read_each_others_writes() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { datacenters: 3, partitions: 2, ..options() }).await?;
    cluster.s3("dc-a-2").create_bucket(BUCKET).await?;
    // Through every node of dc-a, so that each of them has volumes that the others must mirror.
    write(&cluster, &NODES, 0..30).await?;
    cluster.wait_replicated("dc-b", &[])?;
    cluster.s3("dc-b-3").put(BUCKET, "of-b", body(3)).await?;
    cluster.wait_replicated("dc-a,dc-b,dc-c", &[])?;
    for node in ["dc-b-3", "dc-b-1", "dc-c-2"] {
        read(&cluster, node, 0..30).await?;
    }
    for node in ["dc-a-1", "dc-c-3"] {
        assert_eq!(cluster.s3(node).get(BUCKET, "of-b").await?, Some(body(3)), "{node}");
    }
    let status: Value =
        serde_json::from_slice(&cluster.cli_at("dc-c-2", &["replication", "status", "--json"])?.stdout)?;
    assert_eq!(status["verdict"], "ok", "{status:#}");
    assert_eq!(status["datacenters"][0]["nodes_live"], 3, "{status:#}");

    // Each of dc-a's volumes has one mirror in dc-b and one in dc-c, as long as its primary.
    let listed: Value = serde_json::from_slice(&cluster.cli_at("dc-a-3", &["volume", "list", "--json"])?.stdout)?;
    let volumes = listed.as_array().context("a list of volumes")?;
    for volume in volumes {
        let copies = volume["copies"].as_array().context("a volume has copies")?;
        let datacenters: Vec<_> = copies.iter().filter_map(|copy| copy["datacenter"].as_str()).collect();
        assert_eq!(datacenters, ["dc-a", "dc-b", "dc-c"], "{volume:#}");
        for copy in &copies[1..] {
            assert_eq!((&copy["role"], &copy["length"]), (&Value::from("mirror"), &volume["length"]), "{volume:#}");
            let (node, datacenter) = (copy["node"].as_str(), copy["datacenter"].as_str());
            let holder = node.zip(datacenter).context("a mirror has a node")?;
            assert!(holder.0.starts_with(holder.1), "{volume:#}");
        }
    }

    // The bytes are in the destination: they are read there while the whole source is gone.
    for node in NODES {
        cluster.kill(node)?;
    }
    for node in ["dc-b-2", "dc-c-1"] {
        read(&cluster, node, 0..30).await?;
    }
    for node in NODES {
        cluster.spawn(node)?;
    }
    cluster.wait_ready().await?;
    // The loss of a node of a destination holds up neither its writes nor the metadata lane.
    cluster.kill("dc-b-1")?;
    first_write(&cluster, "dc-b-2", 100).await?;
    let (reader, expected) = (cluster.s3("dc-b-3"), body(200));
    cluster.s3("dc-a-1").put(BUCKET, "late", expected.clone()).await?;
    let what = "a write of dc-a in dc-b without its first node";
    wait_until(what, Duration::from_secs(30), async || {
        reader.get(BUCKET, "late").await.is_ok_and(|found| found.as_ref() == Some(&expected))
    })
    .await?;
    cluster.spawn("dc-b-1")?;
    cluster.wait_ready().await?;
    cluster.wait_replicated("dc-a,dc-b,dc-c", &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_listed_and_a_drained_one_takes_no_further_mirrors() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { racks: 2, ..options() }).await?;
    let nodes = |node: &str| -> Result<Value> {
        Ok(serde_json::from_slice(&cluster.cli_at(node, &["node", "list", "--json"])?.stdout)?)
    };
    wait_until("all nodes heard of", Duration::from_secs(20), async || {
        nodes("dc-a-2").is_ok_and(|nodes| {
            nodes.as_array().is_some_and(|all| all.len() == 3 && all.iter().all(|node| node["gossip"] == "live"))
        })
    })
    .await?;
    let listed = nodes("dc-a-3")?;
    let racks: Vec<_> = listed.as_array().into_iter().flatten().filter_map(|node| node["rack"].as_str()).collect();
    assert_eq!(racks, ["rack-1", "rack-2", "rack-1"]);
    let drained = cluster.cli_at("dc-a-3", &["node", "drain", "dc-a-1", "--json"])?;
    let drained: Value = serde_json::from_slice(&drained.stdout)?;
    assert_eq!((&drained["name"], &drained["draining"]), (&Value::from("dc-a-1"), &Value::from(true)));
    wait_until("the drain seen at another node", Duration::from_secs(10), async || {
        nodes("dc-a-2").is_ok_and(|nodes| nodes[0]["draining"] == true)
    })
    .await?;
    let unknown = cluster.cli_at("dc-a-1", &["node", "drain", "dc-x-9"])?;
    let words = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && words.contains("dc-a-1, dc-a-2, dc-a-3"), "{words}");
    let back = cluster.cli_at("dc-a-2", &["node", "drain", "1", "--undo", "--json"])?;
    let back: Value = serde_json::from_slice(&back.stdout)?;
    assert_eq!(back["draining"], false);
    Ok(())
}

/// The node that holds each mirror in dc-b of dc-a's volumes.
fn mirror_nodes(cluster: &Cluster) -> Result<Vec<(String, bool)>> {
    let output = cluster.cli_at("dc-a-1", &["volume", "list", "--json"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed: Value = serde_json::from_slice(&output.stdout)?;
    let copies = listed.as_array().into_iter().flatten().flat_map(|v| v["copies"].as_array().into_iter().flatten());
    let mirrors = copies.filter(|copy| copy["role"] == "mirror");
    let node = |copy: &Value| (copy["node"].as_str().unwrap_or_default().to_owned(), copy["live"] == true);
    Ok(mirrors.map(node).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_of_a_lost_node_are_fetched_anew_by_others() -> Result<()> {
    let options = ClusterOptions { datacenters: 2, partitions: 1, code: Some("100"), ..options() };
    let mut cluster = Cluster::create(options)?;
    for node in ["dc-b-1", "dc-b-2", "dc-b-3"] {
        let path = cluster.node_directory(node).join("node.toml");
        let text = std::fs::read_to_string(&path)?;
        let setting = "repair_after_ms = 60000";
        ensure!(text.contains(setting), "{text}");
        std::fs::write(&path, text.replace(setting, "repair_after_ms = 4000"))?;
    }
    cluster.run().await?;
    cluster.s3("dc-a-1").create_bucket(BUCKET).await?;
    cluster.wait_replicated("dc-b", &["--from", "dc-a"])?;
    write(&cluster, &NODES, 0..30).await?;
    cluster.wait_replicated("dc-b", &["--from", "dc-a"])?;

    let lost = mirror_nodes(&cluster)?.pop().context("a mirror")?.0;
    ensure!(lost.starts_with("dc-b"), "{lost:?}");
    cluster.kill(&lost)?;
    write(&cluster, &NODES, 30..40).await?;
    // Only with its mirrors on other nodes, and complete there, does everything count as durable in dc-b.
    wait_until("everything durable in dc-b again", Duration::from_secs(90), async || {
        cluster.wait_replicated("dc-b", &["--from", "dc-a"]).is_ok()
    })
    .await?;
    let nodes = mirror_nodes(&cluster)?;
    ensure!(nodes.iter().all(|(node, live)| *node != lost && *live), "{lost} is gone: {nodes:?}");
    // The bytes are there: dc-a is not asked for them any more.
    for node in NODES {
        cluster.kill(node)?;
    }
    let left = ["dc-b-1", "dc-b-2", "dc-b-3"].into_iter().find(|node| *node != lost).context("a node")?;
    wait_until("a read of everything", WRITES_GO_ON * 4, async || read(&cluster, left, 0..40).await.is_ok()).await?;
    read(&cluster, left, 0..40).await
}
