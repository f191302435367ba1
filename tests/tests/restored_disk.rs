//! A datacenter comes back with an old copy of its disk (rule 7, fault 37): it says so, its log goes on under a new
//! incarnation and into new volumes, nobody else loses anything, and no cursor passes over what it writes since.
//!
//! Real processes. Each step waits for what it has caused, with a deadline.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Method;
use meridian_tests::{
    ALL, CONVERGE_DEADLINE, Cluster, ClusterOptions, NOTICE_DEADLINE, ReplicationScreen, Shape, command_at, replicate,
    wait_until,
};

const BUCKET: &str = "lives";
/// More than were written in the time that is forgotten: the sequences pass the others' cursors.
const WRITES_SINCE: usize = 40;
const FORGOTTEN: usize = 10;
/// What identifies the volumes of dc-a: the low byte of their ids.
const DATACENTER_ID: u32 = 1;
const SETTLE: Duration = Duration::from_secs(30);

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "copy {} to {}", from.display(), to.display());
    Ok(())
}

/// The disk as it was at `saved`.
fn restore(saved: &Path, data: &Path) -> Result<()> {
    std::fs::remove_dir_all(data)?;
    copy(saved, data)
}

/// Bytes of each file of dc-a's own volumes, by name.
fn own_volumes(data: &Path) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(data.join("volumes"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let id = name.split(['.', '-', '_']).next().and_then(|id| id.parse::<u32>().ok());
        if name.ends_with(".data") && id.is_some_and(|id| id % 256 == DATACENTER_ID) {
            found.insert(name, entry.metadata()?.len());
        }
    }
    ensure!(!found.is_empty(), "no volume of dc-a under {}", data.display());
    Ok(found)
}

async fn is_held(cluster: &Cluster, asked: &str) -> bool {
    let Ok(screen) = ReplicationScreen::of(cluster, asked).await else { return false };
    let held = |to| screen.lag("dc-a", to).is_ok_and(|lag| lag.state == "held" && lag.reason.contains("cursor"));
    held("dc-b") && held("dc-c") && screen.verdict() == "critical"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datacenter_on_an_old_disk_goes_on_under_a_new_incarnation_and_nobody_skips_anything() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions::new(Shape::Nodes)).await?;
    let (a, b) = (cluster.s3("dc-a"), cluster.s3("dc-b"));
    let data = cluster.node_directory("dc-a").join("data");
    let saved = cluster.directory().join("saved");
    a.create_bucket(BUCKET).await?;
    for number in 0..4 {
        a.put(BUCKET, &format!("before/{number}"), format!("old {number}")).await?;
    }
    replicate(&cluster, "dc-a", &ALL, &ALL).await?;
    cluster.stop("dc-a")?;
    copy(&data, &saved)?;

    cluster.spawn("dc-a")?;
    cluster.wait_ready().await?;
    for number in 0..FORGOTTEN {
        a.put(BUCKET, &format!("forgotten/{number}"), "x".repeat(100_000 * (number + 1))).await?;
    }
    a.delete(BUCKET, "before/0").await?;
    replicate(&cluster, "dc-a", &ALL, &ALL).await?;
    cluster.kill("dc-a")?;
    restore(&saved, &data)?;
    let before = own_volumes(&data)?;

    cluster.spawn("dc-a")?;
    cluster.wait_ready().await?;
    ensure!(cluster.log("dc-a").contains("went back in time"), "dc-a does not say what has happened");
    for number in 0..WRITES_SINCE {
        let key = format!("since/{number}");
        a.put(BUCKET, &key, key.repeat(1000)).await.with_context(|| format!("write {key} under a new incarnation"))?;
        ensure!(a.get(BUCKET, &key).await? == Some(key.repeat(1000).into()), "{key} in dc-a");
    }
    for (name, bytes) in &before {
        let now = own_volumes(&data)?.get(name).copied();
        ensure!(now == Some(*bytes), "the old volume {name} had {bytes} bytes and has {now:?}");
    }

    for asked in ALL {
        let shown = async || is_held(&cluster, asked).await;
        wait_until(&format!("status of {asked} showing the streams of dc-a as held"), NOTICE_DEADLINE, shown).await?;
    }
    // Still held though the log is longer than the cursors by now: its entries have another history.
    for datacenter in ["dc-b", "dc-c"] {
        let s3 = cluster.s3(datacenter);
        for number in 0..FORGOTTEN {
            let found = s3.get(BUCKET, &format!("forgotten/{number}")).await?;
            ensure!(found.is_some_and(|body| body.len() == 100_000 * (number + 1)), "{datacenter} has lost {number}");
        }
        ensure!(s3.get(BUCKET, "before/0").await?.is_none(), "a deleted object is back in {datacenter}");
        ensure!(s3.list(BUCKET, "since/").await?.is_empty(), "{datacenter} has passed over what it was refused");
    }
    b.put(BUCKET, "from-b", "still crosses").await?;
    let crosses = async || a.get(BUCKET, "from-b").await.is_ok_and(|found| found.is_some());
    wait_until("a write of dc-b in dc-a", CONVERGE_DEADLINE, crosses).await?;

    // A further start is an ordinary one.
    cluster.stop("dc-a")?;
    cluster.spawn("dc-a")?;
    cluster.wait_ready().await?;
    a.put(BUCKET, "again", "x").await?;
    ensure!(a.get(BUCKET, "since/0").await?.is_some(), "what was written since is gone");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_went_back_unnoticed_takes_no_writes_once_a_peer_can_be_asked() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { datacenters: 2, ..ClusterOptions::new(Shape::Nodes) }).await?;
    let a = cluster.s3("dc-a");
    let data = cluster.node_directory("dc-a").join("data");
    let saved = cluster.directory().join("saved");
    a.create_bucket(BUCKET).await?;
    cluster.stop("dc-a")?;
    copy(&data, &saved)?;
    // The copy is one start old: the next one from it has the number of this one, and is another.
    cluster.spawn("dc-a")?;
    cluster.wait_ready().await?;
    a.put(BUCKET, "forgotten", "x").await?;
    cluster.wait_replicated("dc-b", &["--from", "dc-a"])?;
    cluster.kill("dc-a")?;
    let listed = command_at(&cluster, "dc-b", &["replication", "conflicts"]).await?;
    let said = String::from_utf8_lossy(&listed.stderr);
    ensure!(listed.status.success() && said.contains("dc-a could not be asked"), "{said}");
    cluster.stop("dc-b")?;
    restore(&saved, &data)?;

    cluster.spawn("dc-a")?;
    let alone = async || a.put(BUCKET, "alone", "x").await.is_ok();
    wait_until("dc-a serving alone", SETTLE, alone).await?;
    cluster.spawn("dc-b")?;
    let is_refused = async || {
        let answer = a.call(Method::PUT, &format!("/{BUCKET}/late"), &[], "x").await;
        answer.is_ok_and(|answer| answer.status == 503 && answer.text().contains("went back in time"))
    };
    wait_until("writes refused for the disk that went back", NOTICE_DEADLINE, is_refused).await?;
    ensure!(a.get(BUCKET, "alone").await?.is_some(), "reads go on");

    cluster.stop("dc-a")?;
    cluster.spawn("dc-a")?;
    cluster.wait_ready().await?;
    a.put(BUCKET, "renewed", "x").await?;
    let b = cluster.s3("dc-b");
    ensure!(b.get(BUCKET, "forgotten").await?.is_some(), "dc-b has lost what only it has");
    ensure!(b.get(BUCKET, "alone").await?.is_none(), "two histories were mixed");
    Ok(())
}
