//! Clients that take no excuse: every request of theirs must be served, and soon, whatever happens to other
//! datacenters (`TrafficClient::served` has the one exception). They keep a steady pace, so that what they measure is the cluster and not their own pressure.
//!
//! Each client has keys of its own, and keys that it shares with the client of the same number in every other
//! datacenter, so that a key has at most one writer a datacenter. What they were told goes into the ledger, which
//! judges what they read; and with real times into a history that all datacenters' clients share, because they are one
//! process and have one clock: of two writes one after the other, the later has the greater stamp, wherever it went.
//!
//! Invariants: an answer that is no success, or comes later than `LATENCY_MAX`, is a fault; a mutation stands in the
//! history from its request on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::body::{BODY_SIZE_MIN, describing_body};
use crate::cluster::Cluster;
use crate::ledger::{Ledger, Moment, Outcome, Reader};
use crate::load::found_in;
use crate::random::Random;
use crate::s3::{Answer, S3, object_path};

/// Keys of one client, and keys that it shares with its namesakes.
const OWN_KEYS: u64 = 24;
const SHARED_KEYS: u64 = 12;
/// An answer that comes later than this is none. Generous: the disk is shared with other tests.
const LATENCY_MAX: Duration = Duration::from_secs(5);
/// Two writes of different datacenters this far apart have stamps in the same order: a stamp is never further from the
/// wall clock than it takes to order the stamps of one millisecond.
const CLOCK_MARGIN: Duration = Duration::from_millis(5);

/// What all clients have done.
#[derive(Default)]
pub struct Journal {
    pub ledger: Arc<Ledger>,
    history: Mutex<BTreeMap<String, Vec<Interval>>>,
    answered: AtomicU64,
    unreachable: AtomicU64,
    latencies: Mutex<BTreeMap<String, Vec<(Instant, Duration)>>>,
}

/// A mutation between its request and its answer.
struct Interval {
    value: Option<u64>,
    datacenter: String,
    began: Instant,
    ended: Option<Instant>,
}

impl Journal {
    /// Requests that were answered.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// GETs that were told to come back, because the bytes lie in datacenters that can't be reached.
    pub fn unreachable(&self) -> u64 {
        self.unreachable.load(Ordering::Relaxed)
    }

    /// The latency that `share` of a datacenter's requests stayed within, of those sent between two moments.
    pub fn latency(&self, datacenter: &str, from: Instant, to: Instant, share: f64) -> Duration {
        let latencies = self.latencies.lock().expect("no holder panics");
        let all = latencies.get(datacenter).into_iter().flatten();
        let mut within: Vec<Duration> =
            all.filter(|(sent, _)| *sent >= from && *sent < to).map(|(_, latency)| *latency).collect();
        within.sort_unstable();
        assert!(!within.is_empty(), "nothing was sent to {datacenter} in that time");
        within[(within.len() as f64 * share) as usize]
    }

    /// Whether what is found under a key, once all datacenters agree, is the last mutation as far as real time tells.
    ///
    /// # Errors
    /// When another one began after it had ended.
    pub fn judge_winner(&self, key: &str, found: Option<u64>) -> Result<(), String> {
        let history = self.history.lock().expect("no holder panics");
        let Some(mutations) = history.get(key) else {
            return found.map_or(Ok(()), |number| Err(format!("{key} holds {number}, which nobody wrote")));
        };
        let later_than = |ended: Instant| mutations.iter().find(|later| later.began > ended + CLOCK_MARGIN);
        let mut overtaken_by = None;
        for mutation in mutations.iter().filter(|mutation| mutation.value == found) {
            match mutation.ended.and_then(later_than) {
                None => return Ok(()),
                Some(later) => overtaken_by = Some((mutation, later)),
            }
        }
        match overtaken_by {
            None => Err(format!("{key} holds {found:?}, which nobody wrote")),
            Some((mutation, later)) => Err(format!(
                "{key} holds {found:?} of {}, but {:?} of {} began {:?} after it had ended",
                mutation.datacenter,
                later.value,
                later.datacenter,
                mutation.ended.map(|ended| later.began - ended)
            )),
        }
    }

    fn begin(&self, datacenter: &str, key: &str, value: Option<u64>) -> usize {
        let mut history = self.history.lock().expect("no holder panics");
        let mutations = history.entry(key.to_owned()).or_default();
        mutations.push(Interval { value, datacenter: datacenter.to_owned(), began: Instant::now(), ended: None });
        mutations.len() - 1
    }

    fn end(&self, key: &str, index: usize) {
        let mut history = self.history.lock().expect("no holder panics");
        history.get_mut(key).expect("it has begun")[index].ended = Some(Instant::now());
    }

    fn note_latency(&self, datacenter: &str, sent: Instant) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let mut latencies = self.latencies.lock().expect("no holder panics");
        latencies.entry(datacenter.to_owned()).or_default().push((sent, sent.elapsed()));
    }
}

/// What a set of clients does.
#[derive(Debug, Clone, Copy)]
pub struct TrafficPlan {
    pub bucket: &'static str,
    pub clients_per_datacenter: u64,
    /// Between two requests of one client, as long as answers come that fast.
    pub pause: Duration,
}

/// Clients at work.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicBool>,
    clients: JoinSet<Result<()>>,
}

impl Traffic {
    /// Starts clients at these datacenters; each set of them needs a journal of its own.
    pub fn start(
        cluster: &Cluster,
        datacenters: &[&str],
        plan: TrafficPlan,
        journal: &Arc<Journal>,
        random: &Random,
    ) -> Self {
        let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut clients = JoinSet::new();
        for datacenter in datacenters {
            for number in 0..plan.clients_per_datacenter {
                let client = TrafficClient {
                    s3: cluster.s3(datacenter),
                    plan,
                    datacenter: (*datacenter).to_owned(),
                    datacenters: cluster.datacenters(),
                    number,
                    random: random.split(),
                    journal: Arc::clone(journal),
                };
                let (stop, failed) = (Arc::clone(&stop), Arc::clone(&failed));
                clients.spawn(async move {
                    let ran = client.run(&stop).await;
                    failed.fetch_or(ran.is_err(), Ordering::Relaxed);
                    ran
                });
            }
        }
        Self { stop, failed, clients }
    }

    /// Whether a client has found a fault, which `finish` tells: whoever waits for something else can stop.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Lets the clients end what they have sent.
    ///
    /// # Errors
    /// The first fault that a client has found.
    pub async fn finish(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.context("a client panicked")??;
        }
        Ok(())
    }
}

struct TrafficClient {
    s3: S3,
    plan: TrafficPlan,
    datacenter: String,
    /// All of the cluster.
    datacenters: Vec<String>,
    number: u64,
    random: Random,
    journal: Arc<Journal>,
}

impl TrafficClient {
    async fn run(&self, stop: &AtomicBool) -> Result<()> {
        let mut pace = tokio::time::interval(self.plan.pause);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.load(Ordering::Relaxed) {
            pace.tick().await;
            self.step().await.with_context(|| format!("client {} of {}", self.number, self.datacenter))?;
        }
        Ok(())
    }

    async fn step(&self) -> Result<()> {
        match self.random.below(100) {
            0..40 => self.put(self.own_key()).await,
            40..56 => self.put(self.shared_key()).await,
            56..66 => self.delete(self.own_key()).await,
            66..72 => self.delete(self.shared_key()).await,
            72..90 => self.get(self.own_key()).await,
            90..94 => self.get(self.shared_key()).await,
            94..97 => self.get(self.key_of_any()).await,
            _ => self.list().await,
        }
    }

    fn own_key(&self) -> String {
        self.key_of(&self.datacenter)
    }

    /// A key that the namesake in some datacenter may write.
    fn key_of_any(&self) -> String {
        self.key_of(&self.datacenters[self.random.below(self.datacenters.len() as u64) as usize])
    }

    fn key_of(&self, datacenter: &str) -> String {
        format!("{datacenter}/{}/{:02}", self.number, self.random.below(OWN_KEYS))
    }

    fn shared_key(&self) -> String {
        format!("shared/{}/{:02}", self.number, self.random.below(SHARED_KEYS))
    }

    fn size(&self) -> usize {
        let (from, to) = match self.random.below(100) {
            0..80 => (BODY_SIZE_MIN, 2000),
            80..97 => (2000, 40_000),
            _ => (60_000, 200_000),
        };
        from + self.random.below((to - from) as u64) as usize
    }

    async fn put(&self, key: String) -> Result<()> {
        let number = self.journal.ledger.number();
        let body = describing_body(&key, number, self.size());
        self.mutate(Method::PUT, key, Some(number), body).await
    }

    async fn delete(&self, key: String) -> Result<()> {
        self.mutate(Method::DELETE, key, None, Bytes::new()).await
    }

    async fn mutate(&self, method: Method, key: String, value: Option<u64>, body: Bytes) -> Result<()> {
        let ticket = self.journal.ledger.begin(&self.datacenter, &key, value);
        let index = self.journal.begin(&self.datacenter, &key, value);
        self.served(method, &object_path(self.plan.bucket, &key), body).await?;
        self.journal.end(&key, index);
        self.journal.ledger.finish(&ticket, Outcome::Acknowledged);
        Ok(())
    }

    async fn get(&self, key: String) -> Result<()> {
        let ledger = &self.journal.ledger;
        let reader = Reader { datacenter: &self.datacenter, began: ledger.now(), replicated: Moment::default() };
        let answer = self.served(Method::GET, &object_path(self.plan.bucket, &key), Bytes::new()).await;
        let answer = answer?;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            self.journal.unreachable.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let found = found_in(&key, &Ok(answer))?.context("an answer that is served says something")?;
        ledger.judge(&key, found, reader).map_err(anyhow::Error::msg)
    }

    async fn list(&self) -> Result<()> {
        let path = format!("/{}?list-type=2&prefix=shared", self.plan.bucket);
        self.served(Method::GET, &path, Bytes::new()).await?.ok().map(drop)
    }

    /// Sends a request that must be served. A GET alone may be told why its bytes can't be had now, and when to ask
    /// again: its entry may have come over a link that was cut before its bytes had.
    async fn served(&self, method: Method, path: &str, body: Bytes) -> Result<Answer> {
        let sent = Instant::now();
        let (what, is_get) = (format!("{method} {path}"), method == Method::GET);
        let answer = self.s3.call(method, path, &[], body).await;
        let latency = sent.elapsed();
        let answer = answer.with_context(|| format!("{what} after {latency:?}"))?;
        let is_excused = is_get
            && match answer.status {
                StatusCode::NOT_FOUND => true,
                StatusCode::SERVICE_UNAVAILABLE => answer.header("retry-after").is_some(),
                _ => false,
            };
        if !answer.status.is_success() && !is_excused {
            bail!("{what} was not served: {} {} after {latency:?}", answer.status, answer.text());
        }
        ensure!(latency < LATENCY_MAX, "{what} took {latency:?}");
        self.journal.note_latency(&self.datacenter, sent);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutation(journal: &Journal, datacenter: &str, value: Option<u64>) {
        let index = journal.begin(datacenter, "k", value);
        journal.end("k", index);
    }

    /// Lets so much time pass that stamps tell the order.
    fn later() {
        std::thread::sleep(CLOCK_MARGIN * 2);
    }

    #[test]
    fn the_last_write_wins_wherever_it_went() {
        let journal = Journal::default();
        mutation(&journal, "dc-a", Some(1));
        later();
        mutation(&journal, "dc-b", Some(2));
        assert!(journal.judge_winner("k", Some(2)).is_ok());
        assert!(journal.judge_winner("k", Some(1)).is_err());
        assert!(journal.judge_winner("k", None).is_err());
        later();
        mutation(&journal, "dc-a", None);
        assert!(journal.judge_winner("k", None).is_ok());
        assert!(journal.judge_winner("k", Some(2)).is_err(), "a deleted key is back");
    }

    #[test]
    fn of_overlapping_writes_either_may_win() {
        let journal = Journal::default();
        let (first, second) = (journal.begin("dc-a", "k", Some(1)), journal.begin("dc-b", "k", None));
        journal.end("k", first);
        later();
        journal.end("k", second);
        assert!(journal.judge_winner("k", Some(1)).is_ok() && journal.judge_winner("k", None).is_ok());
    }
}
