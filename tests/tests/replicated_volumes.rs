//! Volumes with replicas on several nodes: copies lie where the code says, the loss of a node stops nobody for long, and
//! whatever happens all replicas of a volume hold the same bytes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;
use meridian_tests::{
    Cluster, ClusterOptions, Ledger, Load, LoadClient, Random, Scope, Shape, describing_body, read_back, wait_until,
};
use serde_json::Value;

/// How long writes may stand still after the loss of a node.
const WRITES_GO_ON: Duration = Duration::from_secs(5);
/// How long replicas may take to end where the registry says, on a machine that is busy with other tests.
const RECONCILED: Duration = Duration::from_secs(60);
const CODES: [&str; 6] = ["000", "001", "010", "100", "110", "200"];
const BUCKET: &str = "replicated";
const CLIENTS: u64 = 9;

fn bucket(code: &str) -> String {
    format!("code-{code}")
}

async fn create_bucket(cluster: &Cluster, node: &str, name: &str, code: &str) -> Result<(u16, String)> {
    let header = [("x-meridian-replication", code)];
    let answer = cluster.s3(node).call(Method::PUT, &format!("/{name}"), &header, Bytes::new()).await?;
    Ok((answer.status.as_u16(), answer.text().to_string()))
}

fn volumes(cluster: &Cluster, node: &str) -> Result<Vec<Value>> {
    let output = cluster.cli_at(node, &["volume", "list", "--json"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed: Value = serde_json::from_slice(&output.stdout)?;
    Ok(listed.as_array().context("a list of volumes")?.clone())
}

/// Waits until every node hears of all others: before that a code may have to wait for its nodes.
async fn all_nodes_live(cluster: &Cluster) -> Result<()> {
    let heard = |node: &str| -> Option<bool> {
        let output = cluster.cli_at(node, &["node", "list", "--json"]).ok()?;
        let nodes: Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(nodes.as_array()?.iter().all(|node| node["gossip"] == "live"))
    };
    let nodes = cluster.nodes();
    wait_until("all nodes heard of", RECONCILED, async || nodes.iter().all(|node| heard(node) == Some(true))).await
}

/// The copies of a volume as `x`, `y` and `z` count them, which must be what its code says.
fn check_copies(volume: &Value, datacenter: &str) -> Result<()> {
    let copies = volume["copies"].as_array().context("a volume has copies")?;
    let text = |copy: &Value, field: &str| copy[field].as_str().unwrap_or_default().to_owned();
    let (here, mirrors): (Vec<&Value>, Vec<&Value>) =
        copies.iter().partition(|copy| text(copy, "datacenter") == datacenter);
    ensure!(text(here[0], "role") == "primary", "{volume:#}");
    let home = text(here[0], "rack");
    let (same, others): (Vec<&&Value>, Vec<&&Value>) = here[1..].iter().partition(|copy| text(copy, "rack") == home);
    let nodes: BTreeSet<String> = here.iter().map(|copy| text(copy, "node")).collect();
    let racks: BTreeSet<String> = others.iter().map(|copy| text(copy, "rack")).collect();
    let datacenters: BTreeSet<String> = mirrors.iter().map(|copy| text(copy, "datacenter")).collect();
    ensure!(nodes.len() == here.len() && racks.len() == others.len(), "copies share a place: {volume:#}");
    ensure!(datacenters.len() == mirrors.len(), "mirrors share a datacenter: {volume:#}");
    let counted = format!("{}{}{}", mirrors.len(), others.len(), same.len());
    ensure!(counted == text(volume, "code"), "{counted} copies: {volume:#}");
    Ok(())
}

/// The file of a volume on a node.
fn file(cluster: &Cluster, node: &str, volume: u64) -> Result<PathBuf> {
    let directory = cluster.node_directory(node).join("data/volumes");
    let prefix = format!("{volume}-");
    let entries = std::fs::read_dir(&directory)?;
    let mut found = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with(&prefix) && name.ends_with(".data")
    });
    found.next().with_context(|| format!("{node} has no file of volume {volume}"))
}

/// Compares the bytes of all replicas inside one datacenter, up to what is committed. None when some volume is not yet
/// where the registry says, with the reason.
fn differing(cluster: &Cluster, asked: &str, datacenter: &str) -> Result<Option<String>> {
    let mut compared = 0;
    for volume in volumes(cluster, asked)? {
        let (id, state) = (volume["volume"].as_u64().context("an id")?, volume["state"].as_str().unwrap_or_default());
        if state != "open" && state != "sealed" {
            return Ok(Some(format!("volume {id} is {state}")));
        }
        let Some(committed) = volume["committed"].as_u64() else { return Ok(Some(format!("{id}: no length"))) };
        let copies = volume["copies"].as_array().context("copies")?;
        let mut first: Option<(String, Vec<u8>)> = None;
        for copy in copies.iter().filter(|copy| copy["datacenter"] == datacenter) {
            let node = copy["node"].as_str().context("a copy has a node")?;
            let mut bytes = std::fs::read(file(cluster, node, id)?)?;
            if (bytes.len() as u64) < committed || (state == "sealed" && bytes.len() as u64 != committed) {
                return Ok(Some(format!("volume {id} has {} of {committed} bytes on {node}", bytes.len())));
            }
            bytes.truncate(committed as usize);
            match &first {
                None => first = Some((node.to_owned(), bytes)),
                Some((other, expected)) => {
                    let at = expected.iter().zip(&bytes).position(|(one, other)| one != other);
                    ensure!(at.is_none(), "volume {id} differs between {other} and {node} at {at:?}");
                    compared += 1;
                }
            }
        }
    }
    ensure!(compared > 0, "no volume of {datacenter} has a second replica");
    Ok(None)
}

async fn replicas_become_equal(cluster: &Cluster, asked: &str, datacenter: &str) -> Result<()> {
    let (mut fault, mut waiting) = (None, String::new());
    let compared = wait_until("equal replicas", RECONCILED, async || match differing(cluster, asked, datacenter) {
        Ok(None) => true,
        Ok(Some(reason)) => {
            waiting = reason;
            false
        }
        Err(error) => {
            fault = Some(error);
            true
        }
    });
    compared.await.with_context(|| waiting.clone())?;
    fault.map_or(Ok(()), Err)
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_lie_exactly_where_the_code_says_and_survive_a_node() -> Result<()> {
    let options =
        ClusterOptions { datacenters: 3, nodes: 3, racks: 2, partitions: 2, ..ClusterOptions::new(Shape::Nodes) };
    let mut cluster = Cluster::start(options).await?;
    all_nodes_live(&cluster).await?;
    for code in CODES {
        let (status, text) = create_bucket(&cluster, "dc-a-1", &bucket(code), code).await?;
        ensure!(status == 200, "{code}: {status} {text}");
    }
    let nodes = ["dc-a-1", "dc-a-2", "dc-a-3"];
    let body = |code: &str, index: usize| Bytes::from(format!("{code} {index} ").repeat(200));
    for code in CODES {
        for (index, node) in nodes.iter().enumerate() {
            // The nodes take gateways' writes also of codes that can't be met around themselves.
            let put = cluster.s3(node).put(&bucket(code), &format!("{index}"), body(code, index)).await;
            put.with_context(|| format!("{code} at {node}"))?;
        }
    }
    let listed = volumes(&cluster, "dc-a-2")?;
    let codes: BTreeSet<&str> = listed.iter().filter_map(|volume| volume["code"].as_str()).collect();
    assert_eq!(codes, CODES.into_iter().collect());
    listed.iter().try_for_each(|volume| check_copies(volume, "dc-a"))?;
    replicas_become_equal(&cluster, "dc-a-1", "dc-a").await?;

    let (status, text) = create_bucket(&cluster, "dc-a-1", "impossible", "020").await?;
    ensure!(status == 400 && text.contains("020 needs a third rack in dc-a; it has two"), "{status}: {text}");
    cluster.wait_replicated("dc-b,dc-c", &["--from", "dc-a"])?;

    // Without dc-a-3 the rack of dc-a-1 is too small for 001; every other code can still be met.
    cluster.kill("dc-a-3")?;
    for code in CODES.into_iter().filter(|code| *code != "000") {
        for node in ["dc-a-1", "dc-a-2"] {
            for index in 0..3 {
                let found = cluster.s3(node).get(&bucket(code), &format!("{index}")).await;
                let found = found.with_context(|| format!("{code} {index} at {node}"))?;
                ensure!(found == Some(body(code, index)), "{node} has other bytes of {code} {index}");
            }
        }
    }
    for code in CODES.into_iter().filter(|code| *code != "001") {
        let (started, client) = (Instant::now(), cluster.s3("dc-a-2"));
        for index in 10..14 {
            wait_until("a write", WRITES_GO_ON * 4, async || {
                client.put(&bucket(code), &format!("{index}"), body(code, index)).await.is_ok()
            })
            .await
            .with_context(|| code.to_owned())?;
        }
        ensure!(started.elapsed() < WRITES_GO_ON, "{code}: writes stood still for {:?}", started.elapsed());
    }
    let answer = cluster.s3("dc-a-1").call(Method::PUT, "/code-001/x", &[], body("001", 0)).await?;
    ensure!(answer.status.as_u16() == 503 && answer.text().contains("001"), "{}: {}", answer.status, answer.text());
    cluster.spawn("dc-a-3")?;
    cluster.wait_ready().await?;
    let client = cluster.s3("dc-a-1");
    wait_until("writes of 001 again", RECONCILED, async || client.put("code-001", "x", body("001", 0)).await.is_ok())
        .await?;
    replicas_become_equal(&cluster, "dc-a-2", "dc-a").await?;
    cluster.wait_replicated("dc-b,dc-c", &["--from", "dc-a"])
}

/// Kills (-9) or freezes single nodes under load; what was acknowledged is there, linearizable per key, and all replicas of
/// all volumes are equal. `MERIDIAN_FAULT_ROUNDS` sets how many; 5 by default.
async fn single_node_faults(datacenters: u16, code: &'static str, name: &str) -> Result<()> {
    let rounds = std::env::var("MERIDIAN_FAULT_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let random = Random::of_test(name);
    let options = ClusterOptions {
        datacenters,
        nodes: 3,
        racks: 3,
        partitions: 2,
        code: Some(code),
        ..ClusterOptions::new(Shape::Nodes)
    };
    let mut cluster = Cluster::start(options).await?;
    cluster.s3("dc-a-1").create_bucket(BUCKET).await?;
    cluster.wait_replicated(&cluster.datacenters().join(","), &[])?;
    let nodes = cluster.nodes();
    let ledger = Arc::new(Ledger::default());
    let clients = (0..CLIENTS).map(|index| {
        let node = &nodes[index as usize % nodes.len()];
        LoadClient::new(cluster.s3(node), BUCKET, &node[..4], index, random.split())
    });
    let mut clients: Vec<LoadClient> = clients.collect();
    for round in 0..rounds {
        let load = Load::start(clients, &ledger);
        load.acknowledged(30).await?;
        let victim = &nodes[random.below(nodes.len() as u64) as usize];
        let kills = random.below(2) == 0;
        println!("round {round}: {} {victim}", if kills { "kill" } else { "freeze" });
        let context = || format!("round {round}, {victim} {}", if kills { "killed" } else { "frozen" });
        if kills {
            cluster.kill(victim)?;
        } else {
            cluster.freeze(victim)?;
        }
        load.acknowledged(60).await.with_context(context)?;
        if kills {
            cluster.spawn(victim)?;
        } else {
            cluster.thaw(victim)?;
        }
        load.acknowledged(30).await.with_context(context)?;
        clients = load.finish().await.with_context(context)?;
        cluster.wait_ready().await?;
    }
    let replicated = ledger.now();
    cluster.wait_replicated(&cluster.datacenters().join(","), &[])?;
    for node in &nodes {
        read_back(&cluster.s3(node), BUCKET, &node[..4], &ledger, replicated, Scope::Everything)
            .await
            .with_context(|| format!("read back at {node}"))?;
    }
    for datacenter in cluster.datacenters() {
        replicas_become_equal(&cluster, &format!("{datacenter}-1"), &datacenter).await?;
    }
    println!("{} mutations acknowledged over {rounds} faults", ledger.acknowledged());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_datacenter_of_three_nodes_survives_faults_of_single_nodes() -> Result<()> {
    single_node_faults(1, "010", "single-node-faults").await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_datacenters_of_three_nodes_survive_faults_of_single_nodes() -> Result<()> {
    single_node_faults(3, "110", "single-node-faults-of-nine").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_replica_is_read_elsewhere_and_repaired() -> Result<()> {
    let options =
        ClusterOptions { datacenters: 1, nodes: 3, racks: 3, code: Some("010"), ..ClusterOptions::new(Shape::Nodes) };
    let mut cluster = Cluster::start(options).await?;
    cluster.s3("dc-a-1").create_bucket(BUCKET).await?;
    for number in 0..20 {
        let key = format!("key-{number}");
        cluster.s3("dc-a-1").put(BUCKET, &key, describing_body(&key, number, 9000)).await?;
    }
    // Volumes that dc-a-1 leads and that hold something: one byte of each file there is flipped.
    let mut flipped = Vec::new();
    for volume in volumes(&cluster, "dc-a-1")? {
        let primary = &volume["copies"][0];
        if primary["node"] == "dc-a-1" && volume["committed"].as_u64() > Some(9000) {
            flipped.push(volume["volume"].as_u64().context("an id")?);
        }
    }
    ensure!(!flipped.is_empty(), "no volume of dc-a-1 holds anything");
    cluster.kill("dc-a-1")?;
    for volume in &flipped {
        let path = file(&cluster, "dc-a-1", *volume)?;
        let mut bytes = std::fs::read(&path)?;
        bytes[5000] ^= 0x40;
        std::fs::write(&path, bytes)?;
    }
    cluster.spawn("dc-a-1")?;
    cluster.wait_ready().await?;
    for number in 0..20 {
        let key = format!("key-{number}");
        let found = cluster.s3("dc-a-1").get(BUCKET, &key).await.with_context(|| key.clone())?;
        ensure!(found == Some(describing_body(&key, number, 9000)), "{key} has other bytes");
    }
    replicas_become_equal(&cluster, "dc-a-2", "dc-a").await
}
