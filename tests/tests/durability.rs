//! Acknowledged is durable: what clients were told is there after kills, failed syncs and power cuts, and nothing else is.
//!
//! Real processes under a load of every kind of mutation; the ledger says after each fault what may be read. The faults
//! that need more than a user's rights (strace, a loop mount) are skipped, visibly, where a machine does not give them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::Method;
use meridian_tests::{
    Answer, Cluster, ClusterOptions, Ledger, Load, LoadClient, Moment, Outcome, PowerDisk, Random, Reader, Scope,
    Shape, SyncAnswer, SyncFault, describing_body, files_ending, found_in, object_path, outcome_of, plain_get,
    read_back, skipped, wait_until,
};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const BUCKET: &str = "durable";
const CLIENTS: u64 = 16;

/// A cluster of `meridian node` processes with a bucket that all datacenters know, and with limits so small that the load
/// fills and seals volumes, flushes write buffers and begins new logs all the time.
async fn start_small(options: ClusterOptions) -> Result<Cluster> {
    const LIMITS: [&str; 2] = ["volume_size_mib = 12", "write_buffers_mib = 1"];
    let mut cluster = Cluster::start(options).await?;
    cluster.s3("dc-a").create_bucket(BUCKET).await?;
    replicate(&cluster, &Ledger::default())?;
    cluster.kill_all()?;
    for datacenter in cluster.datacenters() {
        let path = cluster.node_directory(&datacenter).join("node.toml");
        let mut text = std::fs::read_to_string(&path)?;
        for limit in LIMITS {
            let name = limit.split('=').next().expect("a limit has a name");
            let line = text.lines().find(|line| line.starts_with(name)).context(limit)?.to_owned();
            text = text.replace(&line, limit);
        }
        std::fs::write(&path, text)?;
    }
    cluster.spawn_all()?;
    cluster.wait_ready().await?;
    Ok(cluster)
}

/// `count` clients, dealt to the datacenters in turn.
fn clients(cluster: &Cluster, count: u64, random: &Random) -> Vec<LoadClient> {
    let datacenters = cluster.datacenters();
    (0..count)
        .map(|index| {
            let datacenter = &datacenters[index as usize % datacenters.len()];
            let number = index / datacenters.len() as u64;
            LoadClient::new(cluster.s3(datacenter), BUCKET, datacenter, number, random.split())
        })
        .collect()
}

/// Reads everything back in every datacenter; what replication brings may come at any moment.
async fn read_back_locally(cluster: &Cluster, ledger: &Arc<Ledger>, replicated: Moment) -> Result<()> {
    for datacenter in cluster.datacenters() {
        read_back(&cluster.s3(&datacenter), BUCKET, &datacenter, ledger, replicated, Scope::Own).await?;
    }
    Ok(())
}

/// Waits until everything acknowledged is everywhere; returns when the wait began.
fn replicate(cluster: &Cluster, ledger: &Ledger) -> Result<Moment> {
    let began = ledger.now();
    cluster.wait_replicated(&cluster.datacenters().join(","), &[])?;
    Ok(began)
}

/// Waits for replication, reads everything back everywhere, and demands that all datacenters hold the same.
async fn agree(cluster: &Cluster, ledger: &Arc<Ledger>) -> Result<()> {
    let replicated = replicate(cluster, ledger)?;
    let mut first = None;
    for datacenter in cluster.datacenters() {
        let s3 = cluster.s3(&datacenter);
        let found = read_back(&s3, BUCKET, &datacenter, ledger, replicated, Scope::Everything).await?;
        ensure!(!found.is_empty(), "nothing is left in {datacenter}");
        match &first {
            None => first = Some(found),
            Some(first) => assert_eq!(first, &found, "{datacenter} differs"),
        }
    }
    Ok(())
}

/// Returns once a node has taken its ports: it is opening its stores.
async fn is_starting(cluster: &Cluster, datacenter: &str) -> Result<()> {
    let rest = cluster.rest(datacenter);
    let address = rest.trim_start_matches("http://").to_owned();
    wait_until("a node taking its ports", Duration::from_secs(30), async || TcpStream::connect(&address).await.is_ok())
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kills_of_every_process() -> Result<()> {
    const KILLS: u64 = 5;
    let random = Random::of_test("kills");
    let mut cluster = start_small(ClusterOptions::new(Shape::Nodes)).await?;
    let ledger = Arc::new(Ledger::default());
    let mut clients = clients(&cluster, CLIENTS, &random);
    let mut replicated = Moment::default();
    for kill in 0..KILLS {
        let load = Load::start(clients, &ledger);
        load.acknowledged(200 + random.below(600)).await?;
        cluster.kill_all()?;
        clients = load.finish().await?;
        ledger.settle();
        if kill % 2 == 1 {
            // Once more in the middle of the recovery.
            cluster.spawn_all()?;
            is_starting(&cluster, "dc-b").await?;
            cluster.kill_all()?;
        }
        cluster.spawn_all()?;
        cluster.wait_ready().await?;
        read_back_locally(&cluster, &ledger, replicated).await.with_context(|| format!("after kill {kill}"))?;
        if kill == 2 {
            replicated = replicate(&cluster, &ledger)?;
        }
    }
    println!("{} mutations acknowledged over {KILLS} kills", ledger.acknowledged());
    agree(&cluster, &ledger).await
}

/// A node whose disk has failed knows it: it refuses in less time than it would wait for an answer of its group.
const AT_ONCE: Duration = Duration::from_secs(4);

/// A kind of files whose syncs are hit, by the ending of their names.
const DATA_FILES: &str = ".data";
const METADATA_LOGS: &str = ".log";

/// Which syncs fail, and where the test must find that they did.
struct FailedSync {
    /// See `SyncFault`.
    when: &'static str,
    /// The kind of the first file whose sync failed.
    kind: &'static str,
    /// Whether only files of that kind are hit.
    only: bool,
}

/// The data files that the node of dc-a has, or the logs that its store has or will have soon.
fn files_of_kind(cluster: &Cluster, kind: &str) -> Result<Vec<PathBuf>> {
    const LOGS_AHEAD: u64 = 50;
    let data = cluster.node_directory("dc-a").join("data").canonicalize()?;
    if kind == DATA_FILES {
        return files_ending(&data.join("volumes"), kind);
    }
    let logs = files_ending(&data.join("meta"), kind)?;
    let numbers = logs.iter().filter_map(|path| path.file_stem()?.to_str()?.parse::<u64>().ok());
    let first = numbers.max().context("the store has a log")?;
    Ok((first..first + LOGS_AHEAD).map(|number| data.join(format!("meta/{number:06}.log"))).collect())
}

/// Everything that could be acknowledged by a node that must not: none of it may be. Returns what was answered.
async fn mutations_of_every_kind(cluster: &Cluster, ledger: &Arc<Ledger>, metadata_too: bool) -> Result<Vec<Answer>> {
    let mut requests = JoinSet::new();
    let mut send = |method: Method, key: String, query: &'static str, size: Option<usize>| {
        let (s3, ledger) = (cluster.s3("dc-a"), Arc::clone(ledger));
        requests.spawn(async move {
            let number = size.map(|_| ledger.number());
            let body = number.zip(size).map(|(number, size)| describing_body(&key, number, size));
            let ticket = query.is_empty().then(|| ledger.begin("dc-a", &key, number));
            let path = format!("{}{query}", object_path(BUCKET, &key));
            let answer = s3.call(method, &path, &[], body.unwrap_or_default()).await;
            if let Some(ticket) = ticket {
                ledger.finish(&ticket, outcome_of(&answer));
            }
            answer
        });
    };
    for index in 0..12u64 {
        let size = [100, 5000, 70_000, 5_000_000][index as usize % 4];
        send(Method::PUT, format!("after/{index}"), "", Some(size));
        send(Method::PUT, format!("before/{index}"), "", Some(size));
        if metadata_too {
            send(Method::DELETE, format!("before/{}", index + 12), "", None);
            send(Method::POST, format!("after/{index}"), "?uploads", None);
        }
    }
    let mut answers = Vec::new();
    while let Some(answer) = requests.join_next().await {
        answers.extend(answer?.ok()); // no answer is no acknowledgement
    }
    Ok(answers)
}

/// Rule 6: after the first failed sync nothing more is acknowledged, and all that was is there after a restart.
async fn nothing_is_acknowledged_after(test: &str, fault: FailedSync) -> Result<()> {
    if let Err(why) = SyncFault::check() {
        skipped(test, &why);
        return Ok(());
    }
    let random = Random::of_test(test);
    let options = ClusterOptions { datacenters: 1, ..ClusterOptions::new(Shape::Nodes) };
    let mut cluster = Cluster::start(options).await?;
    let s3 = cluster.s3("dc-a");
    s3.create_bucket(BUCKET).await?;
    let ledger = Arc::new(Ledger::default());
    for index in 0..24 {
        let (key, number) = (format!("before/{index}"), ledger.number());
        let ticket = ledger.begin("dc-a", &key, Some(number));
        s3.put(BUCKET, &key, describing_body(&key, number, 1000 * (index + 1))).await?;
        ledger.finish(&ticket, Outcome::Acknowledged);
    }
    cluster.kill("dc-a")?;
    ledger.settle();

    let files = if fault.only { files_of_kind(&cluster, fault.kind)? } else { Vec::new() };
    let failing = SyncFault::new(SyncAnswer::Failure, fault.when, files)?;
    cluster.set_wrapper(Some(("dc-a".to_owned(), failing.wrapper())));
    cluster.spawn("dc-a")?;
    cluster.wait_ready().await?;
    ensure!(failing.injected().is_empty(), "a sync failed before the load: {:?}", failing.injected());
    let load = Load::start(clients(&cluster, 4, &random), &ledger);
    // Calls are counted by thread: where all of them fail, a file of another kind may be the first.
    let is_hit = |line: &String| line.contains(&format!("{}>", fault.kind));
    load.until("a sync that fails", async || failing.injected().iter().any(is_hit)).await?;
    let acknowledged = ledger.acknowledged();
    load.finish().await?;
    let injected = failing.injected();
    ensure!(!fault.only || injected.iter().all(is_hit), "another file was hit: {injected:?}");
    println!("{test}: {} syncs failed after {acknowledged} acknowledgements, first {}", injected.len(), injected[0]);

    let (began, is_metadata) = (Instant::now(), fault.kind == METADATA_LOGS);
    let answers = mutations_of_every_kind(&cluster, &ledger, is_metadata).await?;
    let took = began.elapsed();
    for answer in &answers {
        ensure!(answer.status.is_server_error(), "answered {} {} {:?}", answer.status, answer.text(), answer.headers);
        let says_why = answer.status == 503 && answer.text().contains("disk of this node has failed");
        ensure!(!is_metadata || !fault.only || says_why, "answered {} {}", answer.status, answer.text());
    }
    println!("{test}: {} mutations refused in {took:?}", answers.len());
    ensure!(!is_metadata || !fault.only || took < AT_ONCE, "refused after {took:?}");
    // Reads may go on or fail, each after its time, but what they show is right.
    let mut reads = JoinSet::new();
    for key in ledger.keys() {
        let (s3, ledger) = (s3.clone(), Arc::clone(&ledger));
        reads.spawn(async move {
            let reader = Reader { datacenter: "dc-a", began: ledger.now(), replicated: Moment::default() };
            let answer = s3.call(Method::GET, &object_path(BUCKET, &key), &[], Bytes::new()).await;
            if let Some(found) = found_in(&key, &answer)? {
                ledger.judge(&key, found, reader).map_err(anyhow::Error::msg)?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(read) = reads.join_next().await {
        read??;
    }
    let rest = cluster.rest("dc-a");
    let says_so = async || plain_get(&rest, "/readyz").await.is_ok_and(|(status, _)| status == 503);
    wait_until("/readyz answering 503", Duration::from_secs(15), says_so).await?;
    let log = cluster.log("dc-a");
    ensure!(log.contains("has failed") || log.contains("disk failed"), "the log does not say what has failed");

    cluster.kill("dc-a")?;
    ledger.settle();
    cluster.set_wrapper(None);
    cluster.spawn("dc-a")?;
    cluster.wait_ready().await?;
    agree(&cluster, &ledger).await?;
    let body = describing_body("again", ledger.number(), 100_000);
    s3.put(BUCKET, "again", body.clone()).await.context("the restarted node takes no writes")?;
    ensure!(s3.get(BUCKET, "again").await? == Some(body), "a write after the restart");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_once_every_sync_fails() -> Result<()> {
    let fault = FailedSync { when: "120+", kind: METADATA_LOGS, only: false };
    nothing_is_acknowledged_after("every sync fails", fault).await
}

/// The next sync would succeed, and the bytes of the failed one would be gone.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_once_one_sync_of_the_metadata_log_failed() -> Result<()> {
    let fault = FailedSync { when: "60", kind: METADATA_LOGS, only: true };
    nothing_is_acknowledged_after("one sync of the metadata log fails", fault).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bytes_are_acknowledged_once_one_sync_of_a_volume_failed() -> Result<()> {
    let fault = FailedSync { when: "20", kind: DATA_FILES, only: true };
    nothing_is_acknowledged_after("one sync of a volume fails", fault).await
}

/// A cluster whose every file but the logs lies on a disk that will lose its power.
fn on_disk(disk: &PowerDisk, datacenters: u16) -> ClusterOptions {
    let (directory, logs) = (Some(disk.path().join("cluster")), Some(disk.outside()));
    ClusterOptions { datacenters, directory, logs, ..ClusterOptions::new(Shape::Nodes) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_power_cuts_of_everything() -> Result<()> {
    let mut disk = match PowerDisk::create() {
        Ok(disk) => disk,
        Err(why) => {
            skipped("power cuts", &why);
            return Ok(());
        }
    };
    let random = Random::of_test("power cuts");
    // Dropped before the disk, so that nobody uses that when it is unmounted.
    let mut cluster = start_small(on_disk(&disk, 2)).await?;
    let ledger = Arc::new(Ledger::default());
    let mut clients = clients(&cluster, CLIENTS, &random);
    let mut replicated = Moment::default();
    for cut in 0..3 {
        let mut load = Load::start(clients, &ledger);
        load.acknowledged(150 + random.below(250)).await?;
        if cut == 1 {
            load.finish().await?;
            replicated = replicate(&cluster, &ledger)?;
            clients = self::clients(&cluster, CLIENTS, &random);
            load = Load::start(clients, &ledger);
            load.acknowledged(50 + random.below(150)).await?;
        }
        disk.cut()?;
        cluster.kill_all()?;
        clients = load.finish().await?;
        ledger.settle();
        disk.restore().await?;
        if cut == 1 {
            // What a wait has promised of dc-b is there, though the other datacenter is gone.
            cluster.spawn("dc-b")?;
            cluster.wait_ready().await?;
            read_back(&cluster.s3("dc-b"), BUCKET, "dc-b", &ledger, replicated, Scope::Alone)
                .await
                .context("alone after the power cut")?;
            cluster.spawn("dc-a")?;
        } else {
            cluster.spawn_all()?;
        }
        cluster.wait_ready().await?;
        read_back_locally(&cluster, &ledger, replicated).await.with_context(|| format!("after cut {cut}"))?;
    }
    println!("{} mutations acknowledged over 3 power cuts", ledger.acknowledged());
    agree(&cluster, &ledger).await
}

/// The checker's own test: with a disk that says "synced" and does nothing, the same cut must be caught.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_behind_a_lying_sync_is_caught() -> Result<()> {
    let disk = SyncFault::check().and_then(|()| PowerDisk::create());
    let mut disk = match disk {
        Ok(disk) => disk,
        Err(why) => {
            skipped("a lying sync", &why);
            return Ok(());
        }
    };
    let random = Random::of_test("a lying sync");
    // Roomy limits: no volume may be made whose registration is then lost, for such a node would rightly not start.
    let mut cluster = Cluster::start(on_disk(&disk, 1)).await?;
    cluster.s3("dc-a").create_bucket(BUCKET).await?;
    cluster.kill_all()?;
    let lying = SyncFault::new(SyncAnswer::Success, "1+", files_of_kind(&cluster, METADATA_LOGS)?)?;
    cluster.set_wrapper(Some(("dc-a".to_owned(), lying.wrapper())));
    cluster.spawn_all()?;
    cluster.wait_ready().await?;
    let ledger = Arc::new(Ledger::default());
    let load = Load::start(clients(&cluster, 4, &random), &ledger);
    load.acknowledged(100).await?;
    disk.cut()?;
    cluster.kill_all()?;
    load.finish().await?;
    ledger.settle();
    disk.restore().await?;
    cluster.set_wrapper(None);
    cluster.spawn_all()?;
    cluster.wait_ready().await?;
    match read_back_locally(&cluster, &ledger, Moment::default()).await {
        Ok(()) => bail!("{} syncs were lies, and nothing was missed", lying.injected().len()),
        Err(caught) => {
            println!("caught: {}", format!("{caught:#}").lines().next().unwrap_or_default());
            Ok(())
        }
    }
}
