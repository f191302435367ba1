//! Waiting for what a test has caused, with deadlines: traffic that is served, a status that shows a fault, everything
//! being everywhere and the same.
//!
//! It causes nothing itself. Invariants: every wait polls a condition and has a deadline; what never came is told with
//! the last that was seen.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::{Cluster, wait_until};
use crate::reading::{Scope, read_back};
use crate::replication::{ReplicationScreen, command_at};
use crate::traffic::{Journal, Traffic};

/// The datacenters of a cluster of three.
pub const ALL: [&str; 3] = ["dc-a", "dc-b", "dc-c"];
/// Within this a broken link is found and shown: a long poll's deadline of 15 s, and a status call's of 5 s.
pub const NOTICE_DEADLINE: Duration = Duration::from_secs(30);
/// From the heal to everything being everywhere: pauses of at most 5 s, and a deadline that ran when it came.
pub const CONVERGE_DEADLINE: Duration = Duration::from_secs(30);
/// One `replication wait`.
const WAIT_TIMEOUT: &str = "5s";
/// Between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Waits until everything that these origins had acknowledged is in the destinations.
///
/// # Errors
/// When it is not there within `CONVERGE_DEADLINE`.
pub async fn replicate(cluster: &Cluster, asked: &str, origins: &[&str], destinations: &[&str]) -> Result<Duration> {
    let (origins, destinations) = (origins.join(","), destinations.join(","));
    let words = ["replication", "wait", "--until", "now", "--from", &origins, "--in", &destinations];
    let words = [&words[..], &["--timeout", WAIT_TIMEOUT]].concat();
    let began = Instant::now();
    loop {
        // A link that has just been healed may not be known to be: then the wait fails, and is asked again.
        let output = command_at(cluster, asked, &words).await?;
        if output.status.success() {
            return Ok(began.elapsed());
        }
        if began.elapsed() > CONVERGE_DEADLINE {
            bail!("{origins} did not reach {destinations}: {}", String::from_utf8_lossy(&output.stderr));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Waits until so many more requests were served, or a client has found a fault.
///
/// # Errors
/// When the traffic does not get that far in time.
pub async fn served(traffic: &Traffic, journal: &Journal, more: u64) -> Result<()> {
    let target = journal.answered() + more;
    let served = async || traffic.has_failed() || journal.answered() >= target;
    wait_until(&format!("{more} answers"), NOTICE_DEADLINE, served).await
}

/// Asks a datacenter for status until it shows what is expected, or a client has found a fault.
///
/// # Errors
/// When it never does; its last status is told.
pub async fn shown(
    cluster: &Cluster,
    asked: &str,
    traffic: &Traffic,
    expected: impl Fn(&ReplicationScreen) -> Result<bool>,
) -> Result<ReplicationScreen> {
    let until = Instant::now() + NOTICE_DEADLINE;
    loop {
        let screen = ReplicationScreen::of(cluster, asked).await?;
        if traffic.has_failed() || expected(&screen)? {
            return Ok(screen);
        }
        ensure!(Instant::now() < until, "status never showed it: {screen}");
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

pub fn is_down(screen: &ReplicationScreen, from: &str, to: &str) -> Result<bool> {
    Ok(screen.lag(from, to)?.state == "down")
}

pub fn is_ok(screen: &ReplicationScreen, from: &str, to: &str) -> Result<bool> {
    Ok(screen.lag(from, to)?.state == "ok")
}

/// Waits until everything is everywhere, and demands that all datacenters list and hold the same, that each key holds
/// what its last writer left there, and that status is content, whoever is asked.
///
/// # Errors
/// What differs, with the keys.
pub async fn converge(cluster: &Cluster, bucket: &'static str, journal: &Journal) -> Result<()> {
    let replicated = journal.ledger.now();
    let waited = replicate(cluster, "dc-b", &ALL, &ALL).await?;
    let read = ALL.map(|datacenter| async move {
        let s3 = cluster.s3(datacenter);
        let found = read_back(&s3, bucket, datacenter, &journal.ledger, replicated, Scope::Everything).await?;
        anyhow::Ok(found)
    });
    let [a, b, c] = read;
    let (a, b, c) = tokio::try_join!(a, b, c)?;
    ensure!(!a.is_empty(), "nothing is left");
    ensure!(a == b, "dc-a and dc-b differ:\n{}", differences(&a, &b));
    ensure!(a == c, "dc-a and dc-c differ:\n{}", differences(&a, &c));
    let winners = journal.ledger.keys().into_iter().map(|key| (a.get(&key).map(|found| found.number), key));
    let wrong: Vec<String> = winners.filter_map(|(found, key)| journal.judge_winner(&key, found).err()).collect();
    ensure!(wrong.is_empty(), "{} wrong winners:\n{}", wrong.len(), wrong.join("\n"));
    contented(cluster).await?;
    let (answered, unreachable) = (journal.answered(), journal.unreachable());
    println!(
        "{answered} requests served, {unreachable} of them to be asked again; all was everywhere after {waited:?}"
    );
    ensure!(unreachable * 100 <= answered, "{unreachable} of {answered} reads had to be asked again");
    Ok(())
}

/// Waits until every datacenter says that all is well; returns what each of them says.
///
/// # Errors
/// When one of them never does; its last status is told.
pub async fn contented(cluster: &Cluster) -> Result<Vec<ReplicationScreen>> {
    let mut screens = Vec::new();
    for asked in cluster.datacenters() {
        let mut last = None;
        let content = async || {
            last = ReplicationScreen::of(cluster, &asked).await.ok();
            last.as_ref().is_some_and(|screen| screen.verdict() == "ok")
        };
        let waited = wait_until(&format!("status in {asked} being ok"), CONVERGE_DEADLINE, content).await;
        let screen = last.context("no status")?;
        waited.with_context(|| screen.to_string())?;
        screens.push(screen);
    }
    Ok(screens)
}

fn differences<T: PartialEq + std::fmt::Debug>(one: &BTreeMap<String, T>, other: &BTreeMap<String, T>) -> String {
    let keys = one.keys().chain(other.keys()).filter(|key| one.get(*key) != other.get(*key));
    keys.map(|key| format!("{key}: {:?}, {:?}", one.get(key), other.get(key))).collect::<Vec<_>>().join("\n")
}
