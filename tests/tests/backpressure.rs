//! Writers at full speed: mirrors stay at most a few seconds behind, because a source slows its own writers by a named
//! mechanism while a destination that can be reached does not keep up, and never because of one that can't.
//!
//! Real processes. `MERIDIAN_LOAD_SECONDS` sets how long each load lasts (3 by default, 60 for the long form).

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use meridian_chaos::link_proxy::Direction;
use meridian_tests::{
    Cluster, ClusterOptions, LinkedCluster, ReplicationScreen, Shape, command_at, plain_get, sever, wait_until,
};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

const BUCKET: &str = "pressed";
const CLIENTS: u64 = 16;
/// W_data may be so far behind while the load lasts, as status shows it.
const LAG_MAX: Duration = Duration::from_secs(5);
/// And everything is everywhere so long after its end.
const DRAIN_MAX: Duration = Duration::from_secs(10);
const NOTICE_DEADLINE: Duration = Duration::from_secs(30);
const METRIC: &str = "meridian_replication_backpressure_seconds";

/// Each test loads the whole machine.
static MACHINE: Mutex<()> = Mutex::const_new(());

fn load_time() -> Duration {
    let seconds = std::env::var("MERIDIAN_LOAD_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

/// Clients that write as fast as they are answered.
struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    clients: JoinSet<Result<()>>,
}

impl Writers {
    fn start(cluster: &Cluster, datacenter: &str, size: usize) -> Self {
        let (stop, written, mut clients) = (Arc::new(AtomicBool::new(false)), Arc::default(), JoinSet::new());
        for client in 0..CLIENTS {
            let (s3, stop, written) = (cluster.s3(datacenter), Arc::clone(&stop), Arc::<AtomicU64>::clone(&written));
            clients.spawn(async move {
                let body = Bytes::from(vec![client as u8; size]);
                while !stop.load(Ordering::Relaxed) {
                    let number = written.fetch_add(1, Ordering::Relaxed);
                    s3.put(BUCKET, &format!("{size}/{client}/{number}"), body.clone()).await?;
                }
                Ok(())
            });
        }
        Self { stop, written, clients }
    }

    async fn finish(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended??;
        }
        Ok(self.written.load(Ordering::Relaxed))
    }
}

/// The metric of one datacenter towards another, in seconds.
async fn backpressure(cluster: &Cluster, datacenter: &str, destination: &str) -> Result<f64> {
    let (_, text) = plain_get(&cluster.rest(datacenter), "/metrics").await?;
    let line = text.lines().find(|line| line.starts_with(METRIC) && line.contains(&format!("\"{destination}\"")));
    let value = line.and_then(|line| line.rsplit(' ').next()).with_context(|| format!("no {METRIC} in {text}"))?;
    Ok(value.parse()?)
}

async fn wait_everywhere(cluster: &Cluster, timeout: Duration) -> Result<Duration> {
    let began = Instant::now();
    let timeout = format!("{}s", timeout.as_secs());
    let words = ["replication", "wait", "--until", "now", "--from", "dc-a", "--in", "dc-b,dc-c", "--timeout", &timeout];
    let output = command_at(cluster, "dc-a", &words).await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn at_full_load_mirrors_stay_a_few_seconds_behind_and_drain() -> Result<()> {
    let _machine = MACHINE.lock().await;
    let cluster = Cluster::start(ClusterOptions::new(Shape::Nodes)).await?;
    cluster.s3("dc-a").create_bucket(BUCKET).await?;
    wait_everywhere(&cluster, NOTICE_DEADLINE).await?;
    for size in [1 << 10, 64 << 10] {
        let writers = Writers::start(&cluster, "dc-a", size);
        let (began, mut most) = (Instant::now(), Duration::ZERO);
        let mut slowed = 0.0f64;
        while began.elapsed() < load_time() {
            let screen = ReplicationScreen::of(&cluster, "dc-b").await?;
            for destination in ["dc-b", "dc-c"] {
                let lag = screen.lag("dc-a", destination)?;
                ensure!(lag.state == "ok", "{screen}");
                most = most.max(Duration::from_millis(lag.durable_ms));
                slowed = slowed.max(backpressure(&cluster, "dc-a", destination).await?);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let loaded = began.elapsed();
        let written = writers.finish().await?;
        let drained = wait_everywhere(&cluster, DRAIN_MAX).await?;
        println!(
            "{written} writes of {size} bytes in {loaded:?}: at most {most:?} behind, slowed by at most {slowed} s, \
             drained in {drained:?}"
        );
        ensure!(most <= LAG_MAX, "dc-a's bytes were {most:?} behind");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrow_link_slows_writers_by_name_and_a_cut_one_does_not() -> Result<()> {
    const BYTES_PER_SECOND: u64 = 1 << 20;
    /// As status shows it: with the age of the last report, which is sent each second.
    const NARROW_LAG_MAX: Duration = Duration::from_secs(8);
    let _machine = MACHINE.lock().await;
    let linked = LinkedCluster::start(ClusterOptions::new(Shape::Nodes)).await?;
    let cluster = &linked.cluster;
    cluster.s3("dc-a").create_bucket(BUCKET).await?;
    wait_everywhere(cluster, NOTICE_DEADLINE).await?;
    for link in linked.asks("dc-b", "dc-a") {
        link.set_rate(Direction::Backward, NonZeroU64::new(BYTES_PER_SECOND));
    }
    let writers = Writers::start(cluster, "dc-a", 64 << 10);
    let is_slowed = async || backpressure(cluster, "dc-a", "dc-b").await.is_ok_and(|seconds| seconds > 0.0);
    wait_until("writes in dc-a being slowed for dc-b", NOTICE_DEADLINE, is_slowed).await?;
    let is_shown = async || {
        let screen = ReplicationScreen::of(cluster, "dc-c").await;
        screen.is_ok_and(|screen| {
            screen.lag("dc-a", "dc-b").is_ok_and(|lag| lag.reason.contains("replication_backpressure"))
        })
    };
    wait_until("status naming the backpressure", NOTICE_DEADLINE, is_shown).await?;
    let (began, mut most) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < load_time() {
        let screen = ReplicationScreen::of(cluster, "dc-b").await?;
        most = most.max(Duration::from_millis(screen.lag("dc-a", "dc-b")?.durable_ms));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    ensure!(most <= NARROW_LAG_MAX, "dc-b was {most:?} behind");
    ensure!(backpressure(cluster, "dc-a", "dc-c").await? == 0.0, "dc-c keeps up");

    sever(linked.between("dc-a", "dc-b"));
    let is_free = async || backpressure(cluster, "dc-a", "dc-b").await.is_ok_and(|seconds| seconds == 0.0);
    wait_until("writes in dc-a being free again", NOTICE_DEADLINE, is_free).await?;
    let before = writers.written.load(Ordering::Relaxed);
    let cut = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cut_rate = (writers.written.load(Ordering::Relaxed) - before) as f64 / cut.elapsed().as_secs_f64();
    let narrow_rate = BYTES_PER_SECOND as f64 / f64::from(64 << 10);
    println!("at most {most:?} behind on the narrow link; {cut_rate:.0} writes a second in the cut");
    ensure!(cut_rate > 2.0 * narrow_rate, "a cut link slows writes: {cut_rate} a second");
    writers.finish().await?;
    linked.heal();
    linked.asks("dc-b", "dc-a").for_each(|link| link.set_rate(Direction::Backward, None));
    wait_until("everything being everywhere", Duration::from_secs(60), async || {
        wait_everywhere(cluster, NOTICE_DEADLINE).await.is_ok()
    })
    .await
}
