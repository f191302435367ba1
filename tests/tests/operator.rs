//! What an operator sees: one screen that is the same from every region, names the link that is late and says how late,
//! in words, marks, figures and exit codes; and mirrors that stand still, and go on when they are told to.
//!
//! Real processes, and links between them that a test slows down.

use std::num::NonZeroU64;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use meridian_chaos::link_proxy::{Direction, LinkControl};
use meridian_tests::{
    ALL, CONVERGE_DEADLINE, Cluster, ClusterOptions, LinkedCluster, NOTICE_DEADLINE, ReplicationScreen, Shape,
    command_at, contented, describing_body, files_ending, program, replicate, set_timing, wait_until,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const BUCKET: &str = "watched";

async fn status_code(cluster: &Cluster, asked: &str) -> Result<Option<i32>> {
    Ok(command_at(cluster, asked, &["replication", "status"]).await?.status.code())
}

async fn text(cluster: &Cluster, asked: &str, words: &[&str]) -> Result<String> {
    Ok(String::from_utf8_lossy(&command_at(cluster, asked, words).await?.stdout).into_owned())
}

fn exposure<'a>(screen: &'a Value, datacenter: &str) -> Option<&'a Value> {
    screen["exposure"].as_array()?.iter().find(|row| row["datacenter"] == datacenter)
}

fn missing_bytes(screen: &Value, datacenter: &str, to: &str) -> Option<u64> {
    let missing = exposure(screen, datacenter)?["missing"].as_array()?;
    missing.iter().find(|row| row["datacenter"] == to)?["bytes"].as_u64()
}

/// Nothing is pending anywhere and every catalog is as far.
fn is_settled(screen: &Value) -> bool {
    let rows = |name: &str| screen[name].as_array().cloned().unwrap_or_default();
    let positions: Vec<u64> = rows("datacenters").iter().filter_map(|row| row["catalog_position"].as_u64()).collect();
    let nothing_is_lost = rows("exposure").iter().all(|row| {
        let bytes = row["missing"].as_array().into_iter().flatten().filter_map(|to| to["bytes"].as_u64()).sum::<u64>();
        row["writes_without_copy"] == 0 && bytes == 0
    });
    screen["verdict"] == "ok" && positions.windows(2).all(|pair| pair[0] == pair[1]) && nothing_is_lost
}

#[tokio::test(flavor = "multi_thread")]
async fn status_is_the_same_from_every_region_and_names_the_late_link() -> Result<()> {
    let prepare = |cluster: &Cluster| {
        for datacenter in ALL {
            set_timing(cluster, datacenter, "lag_warn_ms", 5_000)?;
            set_timing(cluster, datacenter, "lag_critical_ms", 9_000)?;
        }
        Ok(())
    };
    let linked = LinkedCluster::start_prepared(ClusterOptions::new(Shape::Nodes), prepare).await?;
    let cluster = &linked.cluster;
    let a = cluster.s3("dc-a");
    a.create_bucket(BUCKET).await?;
    for number in 0..20 {
        a.put(BUCKET, &format!("small/{number}"), describing_body("small", number, 2000)).await?;
    }
    replicate(cluster, "dc-b", &ALL, &ALL).await?;
    let mut lines = Vec::new();
    for asked in ALL {
        let settled = async || ReplicationScreen::of(cluster, asked).await.is_ok_and(|s| is_settled(s.value()));
        wait_until(&format!("everything being everywhere, says {asked}"), CONVERGE_DEADLINE, settled).await?;
        let screen = ReplicationScreen::of(cluster, asked).await?;
        let rows = screen.value()["datacenters"].as_array().context("datacenters")?.clone();
        for row in &rows {
            ensure!(row["nodes_live"] == 1 && row["nodes_registered"] == 1, "{screen}");
            ensure!(row["control_leader"] == 1 && row["control_term"].as_u64() > Some(0), "{screen}");
        }
        ensure!(rows[0]["log_bytes"].as_u64() > Some(0) && rows[0]["log_oldest_age_ms"].is_u64(), "{screen}");
        let fixed = ["name", "control_leader", "nodes_live", "log_bytes", "catalog_position", "conflicts", "stale"];
        let of_row = |row: &Value| fixed.map(|field| row[field].clone()).to_vec();
        lines.push(rows.iter().map(of_row).collect::<Vec<_>>());
        ensure!(status_code(cluster, asked).await? == Some(0));
    }
    ensure!(lines[0] == lines[1] && lines[0] == lines[2], "the regions say different things: {lines:#?}");
    let shown = text(cluster, "dc-c", &["replication", "status"]).await?;
    for words in [
        "cluster meridian",
        "OK: no datacenter is more than",
        "LAG  visible / durable",
        "→ dc-b",
        "dc-a→dc-c",
        "If dc-a were lost now: 0 acknowledged writes with no other copy; 0 B not in dc-b, 0 B not in dc-c",
        "Catalog: dc-a ",
        "Conflicts 24h: dc-a 0",
        "Proxied reads 1m: ",
    ] {
        ensure!(shown.contains(words), "{words:?} is missing in\n{shown}");
    }

    // Two seconds' worth of bytes a second for one of three: it alone falls behind.
    for link in linked.asks("dc-b", "dc-a") {
        link.set_rate(Direction::Backward, NonZeroU64::new(150_000));
    }
    for number in 0..3u64 {
        a.put(BUCKET, &format!("large/{number}"), describing_body("large", number, 1_000_000)).await?;
    }
    let mut seen = Vec::new();
    let critical = async || {
        let Ok(screen) = ReplicationScreen::of(cluster, "dc-c").await else { return false };
        let value = screen.value().clone();
        let is_critical = value["verdict"] == "critical";
        seen.push(value);
        is_critical
    };
    wait_until("a verdict of critical", NOTICE_DEADLINE, critical).await?;
    ensure!(seen.iter().any(|screen| screen["verdict"] == "warn"), "it was never a warning");
    let (last, summary) = (&seen[seen.len() - 1], seen[seen.len() - 1]["summary"].as_str().unwrap_or_default());
    ensure!(summary.starts_with("DEGRADED: dc-a→dc-b is ") && summary.contains(" behind and "), "{summary}");
    ensure!(missing_bytes(last, "dc-a", "dc-b") > Some(100_000), "{last:#}");
    let settled = |screen: &&Value| missing_bytes(screen, "dc-a", "dc-c") == Some(0);
    ensure!(seen.iter().any(|screen| settled(&screen)), "dc-c has it all: {last:#}");
    ensure!(status_code(cluster, "dc-c").await? == Some(2));
    for link in linked.all_links() {
        Direction::BOTH.into_iter().for_each(|direction| link.set_rate(direction, None));
    }
    contented(cluster).await?;

    // In a cut each side shows what it last knew of the other, and says so.
    linked.around("dc-c").for_each(LinkControl::cut);
    let marked = async || {
        let Ok(screen) = ReplicationScreen::of(cluster, "dc-a").await else { return false };
        let rows = screen.value()["datacenters"].as_array().cloned().unwrap_or_default();
        let stale: Vec<&Value> = rows.iter().filter(|row| row["stale"] == true).collect();
        stale.len() == 1 && stale[0]["name"] == "dc-c" && stale[0]["report_age_ms"].as_u64() > Some(1000)
    };
    wait_until("dc-c being marked stale", NOTICE_DEADLINE, marked).await?;
    let shown = text(cluster, "dc-a", &["replication", "status"]).await?;
    ensure!(shown.contains("ago, stale") && shown.contains("s old)") && shown.contains("as last heard"), "{shown}");
    linked.heal();
    contented(cluster).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_draws_again_until_it_is_interrupted() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 1, ..ClusterOptions::new(Shape::Dev) }).await?;
    let drawn = cluster.directory().join("drawn");
    let mut command = Command::new(program());
    command.args(["replication", "status", "--watch", "100ms", "--json", "--ready-file"]);
    command.arg(cluster.directory().join("ready.json")).process_group(0);
    let mut watch = command.stdin(Stdio::null()).stdout(std::fs::File::create(&drawn)?).spawn()?;
    let three =
        async || std::fs::read_to_string(&drawn).is_ok_and(|text| text.matches("\"verdict\": \"ok\"").count() >= 3);
    let waited = wait_until("three drawings", NOTICE_DEADLINE, three).await;
    let pid = Pid::from_raw(i32::try_from(watch.id())?).context("a process id is above 0")?;
    kill_process(pid, Signal::INT)?;
    let ended = watch.wait()?;
    waited?;
    ensure!(ended.code() == Some(0), "Ctrl-C ends it with the last verdict: {ended}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_gets_wrong_bytes_is_listed_and_goes_on_when_they_are_right() -> Result<()> {
    let linked = LinkedCluster::start(ClusterOptions { datacenters: 2, ..ClusterOptions::new(Shape::Nodes) }).await?;
    let cluster = &linked.cluster;
    let (a, b) = (cluster.s3("dc-a"), cluster.s3("dc-b"));
    a.create_bucket(BUCKET).await?;
    replicate(cluster, "dc-b", &["dc-a"], &["dc-b"]).await?;

    // A byte goes wrong on dc-a's disk before dc-b has fetched it.
    linked.around("dc-b").for_each(LinkControl::cut);
    let body = describing_body("k", 7, 50_000);
    a.put(BUCKET, "k", body.clone()).await?;
    let (path, offset) = find(cluster, &body[..64])?;
    let flip = || -> Result<()> {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&path)?;
        let mut byte = [0];
        use std::os::unix::fs::FileExt;
        file.read_exact_at(&mut byte, offset)?;
        Ok(file.write_all_at(&[byte[0] ^ 0x20], offset)?)
    };
    flip()?;
    linked.heal();
    let mut listed = Value::Null;
    let parked = async || {
        let Ok(output) = command_at(cluster, "dc-b", &["replication", "parked", "list", "--json"]).await else {
            return false;
        };
        listed = serde_json::from_slice(&output.stdout).unwrap_or_default();
        output.status.code() == Some(1)
    };
    wait_until("a parked mirror", Duration::from_secs(60), parked).await?;
    ensure!(listed[0]["source"] == "dc-a" && listed[0]["volume"].is_u64(), "{listed:#}");
    ensure!(listed[0]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{listed:#}");
    let screen = ReplicationScreen::of(cluster, "dc-a").await?;
    let links = screen.value()["links"].as_array().context("links")?.clone();
    let link = links.iter().find(|link| link["from"] == "dc-a").context("dc-a→dc-b")?;
    ensure!(link["parked"] == 1 && link["reason"].as_str().is_some_and(|r| r.contains("parked")), "{screen}");
    ensure!(exposure(screen.value(), "dc-a").is_some_and(|row| row["writes_without_copy"] == 1), "{screen}");

    flip()?;
    let unknown = command_at(cluster, "dc-b", &["replication", "parked", "retry", "--from", "dc-x"]).await?;
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    ensure!(!unknown.status.success() && said.contains("dc-b") && said.contains("dc-a"), "{said}");
    let retried = command_at(cluster, "dc-b", &["replication", "parked", "retry", "--from", "dc-a", "--json"]).await?;
    let retried: Value = serde_json::from_slice(&retried.stdout)?;
    ensure!(retried.as_array().is_some_and(|all| all.len() == 1), "{retried:#}");
    let none = async || {
        let output = command_at(cluster, "dc-b", &["replication", "parked", "list"]).await;
        output.is_ok_and(|output| output.status.success())
    };
    wait_until("no parked mirror", CONVERGE_DEADLINE, none).await?;
    replicate(cluster, "dc-b", &["dc-a"], &["dc-b"]).await?;
    ensure!(b.get(BUCKET, "k").await? == Some(body));
    contented(cluster).await.map(drop)
}

/// Where bytes lie in the volumes of dc-a.
fn find(cluster: &Cluster, bytes: &[u8]) -> Result<(std::path::PathBuf, u64)> {
    let volumes = cluster.node_directory("dc-a").join("data").join("volumes");
    for path in files_ending(&volumes, "")? {
        let content = if path.is_file() { std::fs::read(&path)? } else { Vec::new() };
        if let Some(offset) = content.windows(bytes.len()).position(|window| window == bytes) {
            return Ok((path, offset as u64 + 40));
        }
    }
    anyhow::bail!("no file of {} holds the body", volumes.display())
}
