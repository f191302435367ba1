//! A datacenter dies for good under load: what it had acknowledged and the others lack is a subset of what the last
//! status before its death had shown as not yet there (promise 6, checker C12).
//!
//! Its links are slow, so that there is something to lose. Nothing of what is demanded comes from its disks: the test
//! knows what was acknowledged and when, and looks at what the survivors have, each alone.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use http::{Method, StatusCode};
use meridian_chaos::link_proxy::Direction;
use meridian_tests::{
    ALL, CONVERGE_DEADLINE, Cluster, ClusterOptions, LinkedCluster, Random, ReplicationScreen, S3, Shape,
    describing_body, found_in, is_down, object_path, replicate, sever, wait_until,
};
use tokio::task::JoinSet;

const BUCKET: &str = "mortal";
const SURVIVORS: [&str; 2] = ["dc-b", "dc-c"];
const WRITERS: u64 = 4;
/// Between two writes of one writer.
const PAUSE: Duration = Duration::from_millis(4);
/// Of each byte that leaves or enters the mortal one.
const DELAY: Duration = Duration::from_millis(150);
/// What all bytes of one link share: bytes fall behind their entries.
const BYTES_PER_S_MAX: NonZeroU64 = NonZeroU64::new(100_000).expect("it is not 0");
/// Writes before the death.
const WRITES_MIN: u64 = 400;
/// A stamp and the test's clock are read from the same clock, to a millisecond.
const STAMP_MARGIN_MS: u64 = 2;
/// GETs of one survivor at once: each that finds an entry without its bytes waits for who can't be reached.
const READS_AT_ONCE: usize = 600;

/// An acknowledged write.
#[derive(Debug, Clone)]
struct Write {
    key: String,
    number: u64,
    size: u64,
    ended_ms: u64,
}

/// How a survivor has a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Whole,
    /// The entry without its bytes.
    EntryOnly,
    Nothing,
}

/// What one datacenter had said, and when it was asked.
struct Shown {
    asked: &'static str,
    at_ms: u64,
    screen: ReplicationScreen,
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}

/// Writes keys of its own until it is told to stop or its server is gone; returns what was acknowledged.
async fn write(s3: S3, number: u64, random: Random, stop: Arc<AtomicBool>, counted: Arc<AtomicU64>) -> Vec<Write> {
    let mut acknowledged = Vec::new();
    for round in 0.. {
        let key = format!("{number}/{round:05}");
        let size = if random.below(8) == 0 { 20_000 + random.below(60_000) } else { 100 + random.below(3000) };
        let answer = s3.put(BUCKET, &key, describing_body(&key, round, size as usize)).await;
        if answer.is_err() || stop.load(Ordering::Relaxed) {
            break; // what was on its way at the death is neither acknowledged nor lost
        }
        acknowledged.push(Write { key, number: round, size, ended_ms: unix_ms() });
        counted.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await; // its pace
    }
    acknowledged
}

/// What a survivor that can ask nobody has of each write.
async fn found_alone(s3: &S3, writes: &[Write]) -> Result<Vec<Found>> {
    let listed = s3.list(BUCKET, "").await?;
    let entries: std::collections::BTreeSet<&str> = listed.iter().map(|(key, _)| key.as_str()).collect();
    let mut found = Vec::new();
    for some in writes.chunks(READS_AT_ONCE) {
        let mut reads = JoinSet::new();
        for (index, write) in some.iter().cloned().enumerate() {
            let s3 = s3.clone();
            reads.spawn(async move {
                let path = object_path(BUCKET, &write.key);
                let answer = s3.call(Method::GET, &path, &[], bytes::Bytes::new()).await?;
                let status = answer.status;
                let number = found_in(&write.key, &Ok(answer))?;
                anyhow::Ok((
                    index,
                    match number {
                        Some(Some(number)) if number == write.number => Found::Whole,
                        Some(None) => Found::Nothing,
                        None if status == StatusCode::SERVICE_UNAVAILABLE => Found::EntryOnly,
                        other => anyhow::bail!("{} is {other:?}, answered {status}; write {}", write.key, write.number),
                    },
                ))
            });
        }
        let mut of_some = vec![Found::Nothing; some.len()];
        while let Some(read) = reads.join_next().await {
            let (index, what) = read??;
            of_some[index] = what;
        }
        found.extend(of_some);
    }
    for (write, what) in writes.iter().zip(&found) {
        ensure!(
            entries.contains(write.key.as_str()) == (*what != Found::Nothing),
            "LIST and GET differ: {}",
            write.key
        );
    }
    Ok(found)
}

async fn ask(cluster: &Cluster, asked: &'static str) -> Result<Shown> {
    let at_ms = unix_ms();
    Ok(Shown { asked, at_ms, screen: ReplicationScreen::of(cluster, asked).await? })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dies_with_a_datacenter_had_been_shown_as_not_yet_elsewhere() -> Result<()> {
    let random = Random::of_test("lost datacenter");
    let mut linked = LinkedCluster::start(ClusterOptions::new(Shape::Nodes)).await?;
    linked.cluster.s3("dc-a").create_bucket(BUCKET).await?;
    replicate(&linked.cluster, "dc-b", &ALL, &ALL).await?;
    for link in linked.around("dc-a") {
        for direction in Direction::BOTH {
            link.set_delay(direction, DELAY);
            link.set_rate(direction, Some(BYTES_PER_S_MAX));
        }
    }
    let (stop, counted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let (stop, counted) = (Arc::clone(&stop), Arc::clone(&counted));
        writers.spawn(write(linked.cluster.s3("dc-a"), number, random.split(), stop, counted));
    }

    // The last that anybody could have seen: of both, the one who will die and one who will live.
    let mut last = Vec::new();
    let asked_enough = async || {
        let screens = tokio::try_join!(ask(&linked.cluster, "dc-a"), ask(&linked.cluster, "dc-b"));
        if let Ok((a, b)) = screens {
            last = vec![a, b];
        }
        counted.load(Ordering::Relaxed) >= WRITES_MIN
    };
    wait_until("so many writes", CONVERGE_DEADLINE, asked_enough).await?;
    linked.cluster.kill("dc-a")?;
    stop.store(true, Ordering::Relaxed);
    let mut writes: Vec<Write> = writers.join_all().await.into_iter().flatten().collect();
    writes.sort_by_key(|write| write.ended_ms);
    ensure!(last.len() == 2, "nobody answered");

    // Once both have found the links down, nothing of it is on its way any more.
    let cluster = &linked.cluster;
    let over = async || {
        let Ok(screen) = ReplicationScreen::of(cluster, "dc-b").await else { return false };
        SURVIVORS.iter().all(|to| is_down(&screen, "dc-a", to).unwrap_or(false))
    };
    wait_until("the death being shown", CONVERGE_DEADLINE, over).await?;
    replicate(cluster, "dc-b", &SURVIVORS, &SURVIVORS).await?;
    last.push(ask(cluster, "dc-c").await?);
    sever(linked.between("dc-b", "dc-c")); // each alone now
    let (b, c) = (cluster.s3("dc-b"), cluster.s3("dc-c"));
    let (in_b, in_c) = tokio::try_join!(found_alone(&b, &writes), found_alone(&c, &writes))?;
    let survivors = [("dc-b", in_b), ("dc-c", in_c)];

    for shown in &last {
        check(shown, &writes, &survivors).with_context(|| format!("{} said {}", shown.asked, shown.screen))?;
    }
    Ok(())
}

/// What is lost is above every watermark that was shown.
fn check(shown: &Shown, writes: &[Write], survivors: &[(&str, Vec<Found>)]) -> Result<()> {
    let mut durable_anywhere_ms = 0;
    for (survivor, found) in survivors {
        let lag = shown.screen.lag("dc-a", survivor)?;
        let (meta_ms, data_ms) = (lag.meta_unix_ms(), lag.data_unix_ms());
        durable_anywhere_ms = durable_anywhere_ms.max(data_ms);
        for (write, what) in writes.iter().zip(found) {
            let was_in = |watermark_ms: u64| write.ended_ms + STAMP_MARGIN_MS < watermark_ms;
            ensure!(!(was_in(meta_ms) && *what == Found::Nothing), "W_meta at {survivor} had passed {write:?}");
            ensure!(!(was_in(data_ms) && *what != Found::Whole), "W_data at {survivor} had passed {write:?}: {what:?}");
        }
    }
    let is_lost = |index: &usize| survivors.iter().all(|(_, found)| found[*index] != Found::Whole);
    let lost: Vec<&Write> = (0..writes.len()).filter(is_lost).map(|index| &writes[index]).collect();
    ensure!(!lost.is_empty(), "nothing was lost: the links were not slow enough to show anything");
    let known: Vec<&&Write> = lost.iter().filter(|write| write.ended_ms < shown.at_ms).collect();
    let (count, bytes) = (known.len(), known.iter().map(|write| write.size).sum::<u64>());
    // After the death it is of the time when dc-a was last heard, if it was heard over so slow a link, and says so.
    let exposure = shown.screen.exposure("dc-a").ok();
    ensure!(exposure.is_some() || shown.asked == "dc-c", "nothing is said of the loss of dc-a");
    if let Some(exposure) = exposure.as_ref().filter(|exposure| !exposure.stale) {
        let (writes, missing) = (exposure.writes_without_copy, exposure.missing_bytes.iter().min().copied());
        ensure!(missing.is_some(), "nothing is said of dc-a's bytes");
        ensure!(count as u64 <= writes, "{count} writes are lost, {writes} were shown");
        ensure!(Some(bytes) <= missing, "{bytes} bytes are lost, {missing:?} were shown");
    }
    let without_bytes = survivors.iter().map(|(_, found)| found.iter().filter(|f| **f == Found::EntryOnly).count());
    println!(
        "asked {}: {} of {} acknowledged writes are lost, {count} of them ({bytes} bytes) acknowledged before it was asked; \
         {:?} were shown with no other copy; the first {} ms above the watermark shown; entries without bytes: {:?}",
        shown.asked,
        lost.len(),
        writes.len(),
        exposure.map(|exposure| exposure.writes_without_copy),
        lost[0].ended_ms.saturating_sub(durable_anywhere_ms),
        without_bytes.collect::<Vec<_>>(),
    );
    Ok(())
}
