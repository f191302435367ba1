//! The files of a datacenter's replicas, held against each other byte for byte.
//!
//! Invariants: a volume that is not settled, a missing file and a short one are no equality; what differs is named.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::cluster::{Cluster, wait_until};

/// How long sealing and repair may take on a busy machine.
const SETTLE_DEADLINE: Duration = Duration::from_secs(90);

/// The volumes of a datacenter, as a node lists them.
///
/// # Errors
/// When the node does not answer.
pub fn volumes(cluster: &Cluster, node: &str) -> Result<Vec<Value>> {
    let output = cluster.cli_at(node, &["volume", "list", "--json"])?;
    ensure!(output.status.success(), "volume list: {}", String::from_utf8_lossy(&output.stderr));
    let listed: Value = serde_json::from_slice(&output.stdout)?;
    Ok(listed.as_array().context("a list of volumes")?.clone())
}

/// The data file of a volume on a node.
fn data_file(cluster: &Cluster, node: &str, volume: &Value) -> Result<PathBuf> {
    let directory = cluster.node_directory(node).join("data").join("volumes");
    let stem = format!("{volume}-");
    let files = std::fs::read_dir(&directory)?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_of_volume = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(&stem) && name.ends_with(".data")
    };
    let found = files.into_iter().find(is_of_volume);
    found.with_context(|| format!("{node} has no file of volume {volume}"))
}

/// Waits until every volume of the asked node's datacenter is open or sealed, and all its replicas have the same bytes: whole
/// files of sealed volumes, and of open ones the shortest length. Call it when nobody writes. Returns how many replicas were
/// held against another one.
///
/// # Errors
/// What still differs at the deadline.
pub async fn replicas_become_equal(cluster: &Cluster, node: &str) -> Result<usize> {
    let (mut compared, mut differs) = (0, None);
    let waited = wait_until("equal replicas", SETTLE_DEADLINE, async || match compare(cluster, node) {
        Ok(count) => {
            compared = count;
            true
        }
        Err(error) => {
            differs = Some(error);
            false
        }
    });
    match (waited.await, differs) {
        (Ok(()), _) => Ok(compared),
        (Err(error), differs) => bail!("{error}: {differs:?}"),
    }
}

fn compare(cluster: &Cluster, node: &str) -> Result<usize> {
    let mut compared = 0;
    for volume in volumes(cluster, node)? {
        let sealed = volume["state"] == "sealed";
        ensure!(sealed || volume["state"] == "open", "it is not settled: {volume:#}");
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        for copy in volume["copies"].as_array().context("copies")?.iter().filter(|copy| copy["role"] != "mirror") {
            let name = copy["node"].as_str().context("a copy has a node")?;
            files.push((name.to_owned(), std::fs::read(data_file(cluster, name, &volume["volume"])?)?));
        }
        let shortest = files.iter().map(|(_, bytes)| bytes.len()).min().context("a volume has a replica")?;
        if sealed {
            let ended = volume["committed"].as_u64().context("a sealed volume has a length")?;
            ensure!(shortest as u64 == ended, "a file has {shortest} bytes: {volume:#}");
            ensure!(files.iter().all(|(_, bytes)| bytes.len() == shortest), "the lengths differ: {volume:#}");
        }
        for (name, bytes) in &files[1..] {
            let equal = bytes[..shortest] == files[0].1[..shortest];
            ensure!(equal, "{name} and {} differ: {volume:#}", files[0].0);
            compared += 1;
        }
    }
    Ok(compared)
}
