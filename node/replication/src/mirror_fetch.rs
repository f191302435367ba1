//! Brings one mirror as far as its source is committed, range by range, each needle verified and durable before it
//! counts; then waits at the source for what is appended next, so that fresh bytes cost one way and no round trip.
//!
//! Which volumes are fetched is `blob_lane`'s business.
//!
//! Invariants: one request a volume; the bytes of all requests of a link stay within its budget (`LinkBudget`); at most
//! `mirror_waits_max` requests of a source wait for bytes that are not yet written; a range that fails its checks time
//! after time is parked: listed, retried slowly, and W_data stands still (rules 5, 13).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meridian_types::{FileGeneration, NodeId, VolumeId};
use meridian_volume::VolumeError;
use parking_lot::Mutex;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use crate::bulk_server::{RANGE_BYTES_MAX, range_path};
use crate::driver::Inner;
use crate::link_limits::Backoff;
use crate::sources::Source;

/// Deadline of one range. Bytes that arrive before a stall are kept, so a slow link gets through all the same.
const RANGE_DEADLINE: Duration = Duration::from_secs(300);
/// How long a request waits at the source for the next bytes; a link that is cut is noticed soon after.
const WAIT: Duration = Duration::from_secs(4);
/// Bytes that one such request takes. What is larger is fetched as a range, now that it is known to be there.
const WAIT_BYTES: usize = 256 << 10;
/// Answers without bytes until a volume is left to the next report.
const QUIET_ANSWERS_MAX: u32 = 3;

/// How far each mirror of a source shall come; a running fetch sees it grow.
#[derive(Clone, Default)]
pub(crate) struct Targets(Arc<Mutex<BTreeMap<VolumeId, Target>>>);

#[derive(Default)]
struct Target {
    committed: u64,
    sealed: bool,
    fetching: bool,
}

/// How far the source of a volume has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reached {
    pub committed: u64,
    pub sealed: bool,
}

impl Targets {
    /// Takes over how far a volume has come; true when a fetch has to be started for it.
    pub fn start(&self, volume: VolumeId, have: u64, reached: Reached) -> bool {
        let mut targets = self.0.lock();
        let target = targets.entry(volume).or_default();
        target.committed = target.committed.max(reached.committed);
        target.sealed |= reached.sealed;
        let starts = !target.fetching && have < target.committed;
        target.fetching |= starts;
        starts
    }

    fn raise(&self, volume: VolumeId, committed: u64) {
        if let Some(target) = self.0.lock().get_mut(&volume) {
            target.committed = target.committed.max(committed);
        }
    }

    /// What to do for a mirror of `have` bytes, which may wait for more if it `may_wait`.
    fn next(&self, volume: VolumeId, have: u64, may_wait: bool) -> Next {
        let mut targets = self.0.lock();
        let target = targets.get_mut(&volume).expect("a fetch has a target");
        if have < target.committed {
            return Next::Fetch { to: target.committed };
        }
        if may_wait && !target.sealed {
            return Next::Wait;
        }
        target.fetching = false; // under the lock that `start` takes
        Next::End
    }

    fn end(&self, volume: VolumeId) {
        if let Some(target) = self.0.lock().get_mut(&volume) {
            target.fetching = false;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Fetch { to: u64 },
    Wait,
    End,
}

/// One mirror being brought on.
pub(crate) struct MirrorFetch {
    pub inner: Arc<Inner>,
    pub source: Arc<Source>,
    pub targets: Targets,
    pub volume: VolumeId,
    pub generation: FileGeneration,
    /// The node over there that is asked first: it orders the volume's appends, and so has all of them.
    pub primary: NodeId,
    /// How often one could not be asked: then it is another one's turn, which may have a replica (rule 5).
    pub unanswered: AtomicUsize,
}

struct FetchFailure {
    reason: String,
    /// The bytes came and failed their checks.
    corrupt: bool,
}

impl MirrorFetch {
    pub async fn run(self, mut have: u64) {
        let _running = Running { targets: self.targets.clone(), volume: self.volume };
        let limits = &self.inner.config.limits;
        let source = Arc::clone(&self.source);
        let mut waiting: Option<SemaphorePermit<'_>> = None;
        let mut backoff = Backoff::new(limits.backoff_min, limits.backoff_max);
        let (mut failed_checks, mut quiet_answers) = (0, 0);
        loop {
            if waiting.is_none() {
                waiting = source.waits.try_acquire().ok(); // kept for as long as the volume is followed
            }
            let may_wait = waiting.is_some() && quiet_answers < QUIET_ANSWERS_MAX;
            let next = self.targets.next(self.volume, have, may_wait);
            let began = Instant::now();
            let (to, outcome) = match next {
                Next::End => return,
                Next::Fetch { to } => (to, self.fetch_range(have, to).await),
                Next::Wait => (have, self.take(have, WAIT_BYTES, WAIT).await.map(|(_, reached)| reached)),
            };
            match outcome {
                Ok(reached) => {
                    quiet_answers = match next {
                        _ if reached > have => 0,
                        // It does not wait: it stops, or the volume ends. The next report tells.
                        Next::Wait if began.elapsed() < WAIT / 2 => QUIET_ANSWERS_MAX,
                        _ => quiet_answers + 1,
                    };
                    have = reached;
                    failed_checks = 0;
                    backoff.reset();
                    self.source.update(|facts| {
                        facts.watermark.have(self.volume, self.generation, have);
                        facts.retrying.remove(&self.volume);
                        if facts.parked.remove(&self.volume).is_some() {
                            facts.watermark.unpark(self.volume, self.generation, 0..u64::MAX);
                        }
                    });
                }
                Err(failure) => {
                    failed_checks += u32::from(failure.corrupt);
                    let FetchFailure { reason, .. } = failure;
                    tracing::warn!(volume = %self.volume, offset = have, reason, "a mirror's range failed");
                    self.source.update(|facts| {
                        facts.retrying.insert(self.volume, reason.clone());
                        if failed_checks >= limits.mirror_attempts_max {
                            facts.watermark.park(self.volume, self.generation, have..to);
                            facts.parked.insert(self.volume, reason);
                        }
                    });
                    self.source.pause(&mut backoff).await;
                }
            }
        }
    }

    /// Fetches a range that is known to be committed.
    async fn fetch_range(&self, have: u64, target: u64) -> Result<u64, FetchFailure> {
        let mut length = self.source.range_size.lock().bytes().min(self.source.rate.range_bytes_max());
        loop {
            let known = usize::try_from(target - have).unwrap_or(usize::MAX).min(length);
            // More than is known of: what has been appended since then shall not wait for another round trip.
            let (received, reached) = self.take(have, known.max(WAIT_BYTES.min(length)), Duration::ZERO).await?;
            if reached > have {
                return Ok(reached);
            }
            // Not even one whole needle: take the largest that one can be, once. A short answer is a slow link.
            let corrupt = received >= known;
            if !corrupt || length >= RANGE_BYTES_MAX {
                return Err(FetchFailure { reason: format!("{received} bytes hold no whole needle"), corrupt });
            }
            length = RANGE_BYTES_MAX;
        }
    }

    /// One request: how many bytes came, and where the mirror ends now, durable.
    async fn take(&self, have: u64, wanted: usize, wait: Duration) -> Result<(usize, u64), FetchFailure> {
        let _share = self.source.budget.reserve(wanted).await;
        self.source.rate.admit().await;
        let path = range_path(self.volume, self.generation, have, wanted, wait);
        let unanswered = self.unanswered.load(Ordering::Relaxed);
        let mirrors = Arc::clone(&self.source.link_of_or_another(self.primary, unanswered).mirrors);
        let began = Instant::now();
        let range = mirrors.get_range(&path, wanted, wait, RANGE_DEADLINE).await;
        let range = range.map_err(|error| {
            self.unanswered.store(unanswered + 1, Ordering::Relaxed);
            FetchFailure { reason: error.to_string(), corrupt: false }
        })?;
        let received = range.bytes.len();
        if wait.is_zero() {
            self.source.range_size.lock().took(received, began.elapsed().as_millis() as u64);
        }
        self.source.rate.spend(received);
        if received == 0 {
            return Ok((0, have));
        }
        if let Some(committed) = range.committed {
            self.targets.raise(self.volume, committed);
        }
        let append = self.inner.volumes.mirror_append(self.volume, self.generation, have, range.bytes);
        let reached = append.await.map_err(|error| {
            let corrupt = matches!(error, VolumeError::CorruptNeedle { .. });
            if corrupt {
                self.unanswered.store(unanswered + 1, Ordering::Relaxed); // another replica may have it whole
            }
            FetchFailure { reason: error.to_string(), corrupt }
        })?;
        Ok((received, reached.max(have)))
    }
}

/// Lets another fetch of the volume start, however this one ended.
struct Running {
    targets: Targets,
    volume: VolumeId,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.targets.end(self.volume);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_fetched_to_its_target_then_waits_and_ends_when_it_may_not() {
        let volume = VolumeId::from_raw(0x101).unwrap();
        let targets = Targets::default();
        let at = |committed, sealed| Reached { committed, sealed };
        assert!(!targets.start(volume, 64, at(64, false)), "nothing to fetch");
        assert!(targets.start(volume, 64, at(100, false)));
        assert!(!targets.start(volume, 64, at(200, false)), "one fetch a volume");
        assert_eq!(targets.next(volume, 64, true), Next::Fetch { to: 200 });
        assert_eq!(targets.next(volume, 200, true), Next::Wait);
        targets.raise(volume, 300);
        assert_eq!(targets.next(volume, 200, true), Next::Fetch { to: 300 });
        assert_eq!(targets.next(volume, 300, false), Next::End);
        assert!(targets.start(volume, 300, at(301, true)), "it may be started again");
        assert_eq!(targets.next(volume, 301, true), Next::End, "a sealed volume does not grow");
    }
}
