//! Writers on both sides of a cut who mutate the same keys, and what must come of it.
//!
//! Every mutation of a key begins a margin after the key's last one has ended, wherever that was sent: the test is one
//! process with one clock, so the order in which it sent them is the order of their stamps, and for each key it is known
//! beforehand which write wins, and which writes each datacenter sees lose. Nothing that the cluster says goes into it.
//!
//! Each key has two writers: the datacenter that is cut off, and one of the others. Invariants: a request that is not
//! served at once is a fault; a read on a side finds exactly what that side wrote last.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::task::JoinSet;

use crate::body::{BODY_SIZE_MIN, describing_body};
use crate::cluster::Cluster;
use crate::load::found_in;
use crate::random::Random;
use crate::s3::{Answer, S3, object_path};

/// Between two mutations of one key: far more than what a stamp may differ from the wall clock on one machine.
const MARGIN: Duration = Duration::from_millis(10);
/// An answer that comes later than this is none.
const LATENCY_MAX: Duration = Duration::from_secs(5);
/// How far a stamp may lie outside of the time between request and answer, in milliseconds: stamps are whole ones.
const STAMP_MARGIN_MS: u64 = 1;

/// One acknowledged mutation of a shared key.
#[derive(Debug, Clone)]
pub struct Mutation {
    pub datacenter: String,
    /// The write's number; none for a delete.
    pub value: Option<u64>,
    /// Without quotes; empty for a delete.
    pub etag: String,
    /// The wall clock at the request and at the answer, in milliseconds since the Unix epoch.
    pub began_ms: u64,
    pub ended_ms: u64,
}

impl Mutation {
    /// Whether this is what a stamp of `datacenter` at `at_ms` belongs to.
    pub fn was_at(&self, datacenter: &str, at_ms: u64) -> bool {
        let within = self.began_ms.saturating_sub(STAMP_MARGIN_MS)..=self.ended_ms + STAMP_MARGIN_MS;
        self.datacenter == datacenter && within.contains(&at_ms)
    }
}

/// A write that lost its place to one that did not know it.
#[derive(Debug, Clone)]
pub struct Loss {
    pub key: String,
    pub loser: Mutation,
    pub winner: Mutation,
}

struct SharedKey {
    name: String,
    /// The writer that is not cut off.
    rival: String,
    is_busy: bool,
    quiet_since: Instant,
    /// In the order of their stamps; the first was everywhere before the cut.
    mutations: Vec<Mutation>,
}

/// Keys that two sides of a cut fight for.
pub struct Rivalry {
    bucket: &'static str,
    /// The datacenter that is cut off.
    alone: String,
    keys: Mutex<Vec<SharedKey>>,
    numbers: AtomicU64,
    answered: AtomicU64,
    slowest_us: AtomicU64,
}

impl Rivalry {
    /// Writes the first version of every key, at its rival: it has to be everywhere before the cut.
    ///
    /// # Errors
    /// When a write is not served.
    pub async fn prepare(
        cluster: &Cluster,
        bucket: &'static str,
        alone: &str,
        rivals: &[&str],
        keys: usize,
    ) -> Result<Arc<Self>> {
        let rivalry = Arc::new(Self {
            bucket,
            alone: alone.to_owned(),
            keys: Mutex::default(),
            numbers: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            slowest_us: AtomicU64::new(0),
        });
        for index in 0..keys {
            let (name, rival) = (format!("shared/{index:04}"), rivals[index % rivals.len()].to_owned());
            let first = rivalry.mutate(&cluster.s3(&rival), &rival, &name, Some(500)).await?;
            let key = SharedKey { name, rival, is_busy: false, quiet_since: Instant::now(), mutations: vec![first] };
            rivalry.keys().push(key);
        }
        Ok(rivalry)
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, Vec<SharedKey>> {
        self.keys.lock().expect("no holder panics")
    }

    /// Mutations and reads that were served.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub fn slowest(&self) -> Duration {
        Duration::from_micros(self.slowest_us.load(Ordering::Relaxed))
    }

    /// What every datacenter must hold in the end: each key with its last mutation.
    pub fn winners(&self) -> Vec<(String, Mutation)> {
        let last = |key: &SharedKey| (key.name.clone(), key.mutations.last().expect("the first is there").clone());
        self.keys().iter().map(last).collect()
    }

    /// Every write that a datacenter sees lose to one that did not know it, when all of the other side comes at once,
    /// in its order, to what this side had last.
    pub fn losses_seen_in(&self, datacenter: &str) -> Vec<Loss> {
        let mut losses = Vec::new();
        for key in self.keys().iter() {
            let of_side = |alone: bool| -> Vec<(usize, &Mutation)> {
                let later = key.mutations.iter().enumerate().skip(1);
                later.filter(|(_, mutation)| (mutation.datacenter == self.alone) == alone).collect()
            };
            let here_alone = datacenter == self.alone;
            let (Some(mut shown), coming) = (of_side(here_alone).pop(), of_side(!here_alone)) else { continue };
            for incoming in coming {
                let (winner, loser) = if incoming.0 > shown.0 { (incoming, shown) } else { (shown, incoming) };
                shown = winner;
                let are_rivals = winner.1.datacenter != loser.1.datacenter;
                // Of two deletes nothing is lost.
                if are_rivals && (winner.1.value.is_some() || loser.1.value.is_some()) {
                    let (loser, winner) = (loser.1.clone(), winner.1.clone());
                    losses.push(Loss { key: key.name.clone(), loser, winner });
                }
            }
        }
        losses
    }

    /// Every write that some datacenter sees lose, once, with the greatest that it is seen to lose to.
    pub fn losses(&self, datacenters: &[&str]) -> Vec<Loss> {
        let mut greatest: BTreeMap<(String, u64), Loss> = BTreeMap::new();
        for loss in datacenters.iter().flat_map(|datacenter| self.losses_seen_in(datacenter)) {
            // Mutations of one key are apart by more than a stamp may be off, so when they began tells them apart.
            match greatest.entry((loss.key.clone(), loss.loser.began_ms)) {
                Entry::Vacant(place) => drop(place.insert(loss)),
                Entry::Occupied(mut known) if known.get().winner.began_ms < loss.winner.began_ms => {
                    known.insert(loss);
                }
                Entry::Occupied(_) => {}
            }
        }
        greatest.into_values().collect()
    }

    /// Sends one mutation, which must be served.
    async fn mutate(&self, s3: &S3, datacenter: &str, key: &str, size: Option<usize>) -> Result<Mutation> {
        let began_ms = unix_ms();
        let path = object_path(self.bucket, key);
        let (value, answer) = match size {
            Some(size) => {
                let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
                let body = describing_body(key, number, size);
                (Some(number), self.served(s3, Method::PUT, &path, body).await?)
            }
            None => (None, self.served(s3, Method::DELETE, &path, Bytes::new()).await?),
        };
        let etag = answer.header("etag").unwrap_or_default().trim_matches('"').to_owned();
        Ok(Mutation { datacenter: datacenter.to_owned(), value, etag, began_ms, ended_ms: unix_ms() })
    }

    async fn served(&self, s3: &S3, method: Method, path: &str, body: Bytes) -> Result<Answer> {
        let sent = Instant::now();
        let what = format!("{method} {path}");
        let is_get = method == Method::GET;
        let answer = s3.call(method, path, &[], body).await.with_context(|| what.clone())?;
        let latency = sent.elapsed();
        let is_answer = answer.status.is_success() || is_get && answer.status == StatusCode::NOT_FOUND;
        if !is_answer {
            bail!("{what} was not served: {} {}", answer.status, answer.text());
        }
        ensure!(latency < LATENCY_MAX, "{what} took {latency:?}");
        self.slowest_us.fetch_max(latency.as_micros() as u64, Ordering::Relaxed);
        self.answered.fetch_add(1, Ordering::Relaxed);
        Ok(answer)
    }

    /// Takes a key that a datacenter may mutate and that has been quiet long enough.
    fn take(&self, datacenter: &str, random: &Random) -> Option<usize> {
        let mut keys = self.keys();
        let index = random.below(keys.len() as u64) as usize;
        let key = &mut keys[index];
        let is_mine = datacenter == self.alone || datacenter == key.rival;
        if !is_mine || key.is_busy || key.quiet_since.elapsed() < MARGIN {
            return None;
        }
        key.is_busy = true;
        Some(index)
    }

    fn give_back(&self, index: usize, mutation: Option<Mutation>) {
        let mut keys = self.keys();
        let key = &mut keys[index];
        key.mutations.extend(mutation);
        (key.is_busy, key.quiet_since) = (false, Instant::now());
    }

    async fn step(&self, s3: &S3, datacenter: &str, random: &Random) -> Result<()> {
        let Some(index) = self.take(datacenter, random) else { return Ok(()) };
        let name = self.keys()[index].name.clone();
        let mutation = match random.below(100) {
            0..60 => {
                let size = match random.below(20) {
                    0 => 40_000 + random.below(40_000),
                    _ => BODY_SIZE_MIN as u64 + random.below(2000),
                };
                Some(self.mutate(s3, datacenter, &name, Some(size as usize)).await?)
            }
            60..80 => Some(self.mutate(s3, datacenter, &name, None).await?),
            _ => {
                self.read(s3, datacenter, index, &name).await?;
                None
            }
        };
        self.give_back(index, mutation);
        Ok(())
    }

    /// Nobody mutates the key meanwhile, and nothing comes over the cut.
    async fn read(&self, s3: &S3, datacenter: &str, index: usize, name: &str) -> Result<()> {
        let expected = {
            let keys = self.keys();
            let mut all = keys[index].mutations.iter().enumerate();
            let last = all.rfind(|(number, mutation)| *number == 0 || mutation.datacenter == datacenter);
            last.and_then(|(_, mutation)| mutation.value)
        };
        let answer = self.served(s3, Method::GET, &object_path(self.bucket, name), Bytes::new()).await?;
        let found = found_in(name, &Ok(answer))?.context("an answer that is served says something")?;
        ensure!(found == expected, "{name} in {datacenter} is write {found:?}; this side wrote {expected:?} last");
        Ok(())
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}

/// The writers at work.
pub struct Rivals {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicBool>,
    clients: JoinSet<Result<()>>,
}

impl Rivals {
    /// Starts so many clients at each datacenter; `pause` lies between two requests of one.
    pub fn start(
        cluster: &Cluster,
        rivalry: &Arc<Rivalry>,
        clients_per_datacenter: usize,
        pause: Duration,
        random: &Random,
    ) -> Self {
        let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut clients = JoinSet::new();
        for datacenter in cluster.datacenters() {
            for _ in 0..clients_per_datacenter {
                let (s3, random, rivalry) = (cluster.s3(&datacenter), random.split(), Arc::clone(rivalry));
                let (stop, failed, datacenter) = (Arc::clone(&stop), Arc::clone(&failed), datacenter.clone());
                clients.spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let stepped = rivalry.step(&s3, &datacenter, &random).await;
                        failed.fetch_or(stepped.is_err(), Ordering::Relaxed);
                        stepped.with_context(|| format!("a rival in {datacenter}"))?;
                        tokio::time::sleep(pause).await; // their pace
                    }
                    Ok(())
                });
            }
        }
        Self { stop, failed, clients }
    }

    /// Whether a client has found a fault, which `finish` tells.
    pub fn have_failed(&self) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// `a` and `b` are the two sides; upper case is a write, lower case a delete, in the order of their stamps.
    fn losers(history: &str, datacenter: &str) -> String {
        let mutation = |(at, side): (usize, char)| Mutation {
            datacenter: format!("dc-{}", side.to_ascii_lowercase()),
            value: side.is_ascii_uppercase().then_some(at as u64),
            etag: String::new(),
            began_ms: at as u64,
            ended_ms: at as u64,
        };
        let key = SharedKey {
            name: "k".to_owned(),
            rival: "dc-b".to_owned(),
            is_busy: false,
            quiet_since: Instant::now(),
            mutations: history.chars().enumerate().map(mutation).collect(),
        };
        let rivalry = Rivalry {
            bucket: "bucket",
            alone: "dc-a".to_owned(),
            keys: Mutex::new(vec![key]),
            numbers: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            slowest_us: AtomicU64::new(0),
        };
        let lost = rivalry.losses_seen_in(datacenter);
        lost.iter().map(|loss| format!("{}<{} ", loss.loser.began_ms, loss.winner.began_ms)).collect()
    }

    #[test]
    fn the_losers_are_those_that_the_winner_did_not_know() {
        assert_eq!(losers("B", "dc-a") + &losers("BAA", "dc-b"), "", "one side alone has no rival");
        assert_eq!(losers("BAB", "dc-a"), "1<2 ");
        assert_eq!(losers("BAB", "dc-b"), "1<2 ");
        assert_eq!(losers("BABA", "dc-b"), "1<2 2<3 ");
        assert_eq!(losers("BABA", "dc-a"), "2<3 ");
        assert_eq!(losers("BABB", "dc-a"), "1<2 ", "a side's own overwrites are no losses");
    }

    #[test]
    fn of_two_deletes_nothing_is_lost() {
        assert_eq!(losers("Bab", "dc-a"), "");
        assert_eq!(losers("BaB", "dc-a"), "1<2 ");
        assert_eq!(losers("BAb", "dc-b"), "1<2 ");
    }
}
