//! The hybrid clock of a node: the only giver of stamps in the process.
//!
//! A shell around `ClockGuard`, which decides; here are the lock, the wall clock, and the thread that persists the bound
//! ahead of need. The thread writes only while stamps are asked for, so that an idle node writes nothing; the first stamp
//! after idleness therefore waits for one sync.
//!
//! Invariants:
//! - No stamp is handed out above a bound that is not durable (rule 10).
//! - Once the bound can't be persisted, stamps end at the bound that is durable, for good (rule 6).
//! - The lock is never held across I/O.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use meridian_replicator::{ClockConfig, ClockError, ClockGuard};
use meridian_types::Timestamp;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use crate::bound::{BoundError, BoundFile};
use crate::{Clock, Disk, RealDisk};

/// How long a waiter sleeps at most before it asks again; it is woken when the bound moves.
const RETRY_MS: u64 = 20;
/// A restart's wait longer than this many times the allowed skew is answered as an error: the wall clock went back.
const RESTART_WAIT_SKEWS_MAX: u64 = 2;

/// See the module.
pub struct HybridClock {
    shared: Arc<Shared>,
    config: ClockConfig,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Wakes the thread: a bound is wanted, or it shall stop.
    wanted: Condvar,
    /// Wakes blocked threads when the bound has moved or can't move any more.
    moved: Condvar,
    /// The same for tasks; the number has no meaning but to change.
    progress: watch::Sender<u64>,
    failed: OnceLock<String>,
    /// No stamp is given any more.
    forbidden: AtomicBool,
}

struct State {
    guard: ClockGuard,
    wanted: Option<Timestamp>,
    stopping: bool,
}

impl HybridClock {
    /// Opens the clock whose bound is in the file `path` (created when missing) on the machine's file system, as a failure
    /// domain of its own.
    ///
    /// # Errors
    /// `BoundError::Damaged` when the bound of an earlier life can't be read: this node could stamp twice.
    pub fn open(path: &Path, clock: Arc<dyn Clock>, config: ClockConfig) -> Result<Arc<Self>, BoundError> {
        Self::open_on(&*RealDisk::new(), path, clock, config)
    }

    /// `open` on a disk of the caller's.
    pub fn open_on(
        disk: &dyn Disk,
        path: &Path,
        clock: Arc<dyn Clock>,
        config: ClockConfig,
    ) -> Result<Arc<Self>, BoundError> {
        let (file, bound) = BoundFile::open(disk, path)?;
        let guard = ClockGuard::new(config, bound);
        let shared = Arc::new(Shared {
            clock,
            state: Mutex::new(State { guard, wanted: None, stopping: false }),
            wanted: Condvar::new(),
            moved: Condvar::new(),
            progress: watch::Sender::new(0),
            failed: OnceLock::new(),
            forbidden: AtomicBool::new(false),
        });
        let persister = shared.clone();
        let thread = std::thread::Builder::new().name("clock-bound".to_owned()).spawn(move || persister.persist(file));
        let thread = thread.map_err(|error| crate::DiskError::io("start the thread of", path, error))?;
        Ok(Arc::new(Self { shared, config, thread: Some(thread) }))
    }

    /// A stamp above everything given or observed.
    ///
    /// # Errors
    /// `WaitForBound`: the bound is being persisted, ask again or use `next_waiting`. The others: see `ClockError`.
    pub fn next(&self) -> Result<Timestamp, ClockError> {
        self.shared.stamp(&mut self.shared.state.lock())
    }

    /// `next`, waiting out a restart and the persisting of the bound; both take at most about half the allowed skew.
    ///
    /// # Errors
    /// `WaitForBound` when the bound can't be persisted any more (`failed` says why); `RestartWait` when the wall clock
    /// is so far back that waiting makes no sense. The others: see `ClockError`.
    pub async fn next_waiting(&self) -> Result<Timestamp, ClockError> {
        let mut progress = self.shared.progress.subscribe(); // before the attempt, so that no change is missed
        loop {
            match self.next() {
                Ok(stamp) => return Ok(stamp),
                Err(error) => {
                    let wait = self.patience(&error).ok_or(error)?;
                    let _ = tokio::time::timeout(wait, progress.changed()).await; // ask again either way
                }
            }
        }
    }

    /// `next_waiting` for a thread of its own.
    ///
    /// # Errors
    /// As `next_waiting`.
    pub fn next_blocking(&self) -> Result<Timestamp, ClockError> {
        let mut state = self.shared.state.lock();
        loop {
            match self.shared.stamp(&mut state) {
                Ok(stamp) => return Ok(stamp),
                Err(error) => {
                    let wait = self.patience(&error).ok_or(error)?;
                    self.shared.moved.wait_for(&mut state, wait);
                }
            }
        }
    }

    /// Merges a stamp of the own datacenter: an applied entry, a chunk, a closed timestamp.
    pub fn observe(&self, seen: Timestamp) {
        self.shared.state.lock().guard.observe(seen);
    }

    /// Merges a stamp of another datacenter.
    ///
    /// # Errors
    /// `Skewed` when it is further ahead of the wall clock than allowed: it is not merged.
    pub fn observe_remote(&self, remote: Timestamp) -> Result<(), ClockError> {
        let mut state = self.shared.state.lock();
        let wall = self.shared.clock.wall();
        state.guard.observe_remote(wall, remote)
    }

    /// Whether a remote stamp is near enough to our wall clock; merges nothing.
    ///
    /// # Errors
    /// `Skewed`.
    pub fn check_remote(&self, remote: Timestamp) -> Result<(), ClockError> {
        self.shared.state.lock().guard.check_remote(self.shared.clock.wall(), remote)
    }

    /// Whether a clock that is so far ahead of this one gives stamps that are not merged.
    pub fn is_too_far_ahead(&self, offset_ms: i64) -> bool {
        offset_ms > 0 && offset_ms.unsigned_abs() > self.config.skew_ms_max
    }

    /// Judges the wall clock by the peers' (their clock minus ours, in ms, one figure a peer).
    ///
    /// # Errors
    /// `PeersDisagree`: no stamp is given until a later call finds otherwise.
    pub fn check_peers(&self, peer_offsets_ms: &[i64]) -> Result<(), ClockError> {
        self.shared.state.lock().guard.check_peers(peer_offsets_ms)
    }

    /// The wall clock.
    pub fn wall(&self) -> Timestamp {
        self.shared.clock.wall()
    }

    /// Milliseconds that never go back.
    pub fn monotonic_ms(&self) -> u64 {
        self.shared.clock.monotonic_ms()
    }

    /// The greatest timestamp given or observed.
    pub fn last(&self) -> Timestamp {
        self.shared.state.lock().guard.last()
    }

    /// No node of this datacenter has given a stamp above it so far, if their clocks agree within the limit: a stamp lies at
    /// most half of the limit above the wall clock of its node (rule 10).
    pub fn stamped_through(&self) -> Timestamp {
        self.last().max(self.wall().plus_ms(2 * self.config.skew_ms_max))
    }

    /// From here on nothing is stamped in this process: its disk went back in time (rule 7), so that every write would
    /// follow a past that others know to have been another one.
    pub fn forbid(&self) {
        self.shared.forbidden.store(true, Ordering::Relaxed);
    }

    /// Why no bound can be persisted any more, if so: the node gives no stamps past the last one.
    pub fn failed(&self) -> Option<&str> {
        self.shared.failed.get().map(String::as_str)
    }

    /// How long to wait before asking again after `error`; none when waiting does not help.
    fn patience(&self, error: &ClockError) -> Option<Duration> {
        match error {
            ClockError::WaitForBound { .. } if self.shared.failed.get().is_some() => None,
            ClockError::WaitForBound { wait_ms, .. } => Some(Duration::from_millis((*wait_ms).clamp(1, RETRY_MS))),
            ClockError::RestartWait { wait_ms, .. } if *wait_ms <= self.config.skew_ms_max * RESTART_WAIT_SKEWS_MAX => {
                Some(Duration::from_millis((*wait_ms).clamp(1, RETRY_MS)))
            }
            _ => None,
        }
    }
}

impl Drop for HybridClock {
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.wanted.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic there has been printed
        }
    }
}

impl Shared {
    /// One attempt to stamp; asks the thread for a further bound when the guard wants one.
    fn stamp(&self, state: &mut State) -> Result<Timestamp, ClockError> {
        if self.forbidden.load(Ordering::Relaxed) {
            return Err(ClockError::DiskWentBack);
        }
        // Both read under the lock, so that the guard sees readings in their order.
        let wall = self.clock.wall();
        state.guard.check_wall(wall, self.clock.monotonic_ms())?;
        let stamp = state.guard.next(wall);
        if state.wanted.is_none() && self.failed.get().is_none() {
            state.wanted = state.guard.bound_wanted(wall);
            if state.wanted.is_some() {
                self.wanted.notify_one();
            }
        }
        stamp
    }

    /// The thread: persists whatever bound is wanted, one at a time.
    fn persist(&self, mut file: BoundFile) {
        loop {
            let bound = {
                let mut state = self.state.lock();
                loop {
                    if state.stopping {
                        return;
                    }
                    if let Some(bound) = state.wanted {
                        break bound;
                    }
                    self.wanted.wait(&mut state);
                }
            };
            let written = file.write(bound);
            let mut state = self.state.lock();
            state.wanted = None;
            match &written {
                Ok(()) => state.guard.bound_persisted(bound),
                Err(error) => {
                    tracing::error!(%error, "the clock's bound can't be persisted: no more stamps");
                    self.failed.get_or_init(|| error.to_string());
                }
            }
            drop(state);
            self.moved.notify_all();
            self.progress.send_modify(|changes| *changes += 1);
            if written.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::disk::{Fault, FaultDisk, SimulatedDisk};
    use crate::{ManualClock, SystemClock};

    const PATH: &str = "/node/clock.bound";
    const NOW_MS: u64 = 1_800_000_000_000;

    fn open(disk: &dyn Disk, clock: &Arc<ManualClock>) -> Arc<HybridClock> {
        HybridClock::open_on(disk, Path::new(PATH), clock.clone(), ClockConfig { skew_ms_max: 500 }).unwrap()
    }

    #[tokio::test]
    async fn stamps_rise_and_never_pass_the_durable_bound() {
        let disk = SimulatedDisk::new();
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let hybrid = open(&*disk, &clock);
        let mut last = Timestamp::ZERO;
        for step in 0..2000 {
            let stamp = hybrid.next_waiting().await.unwrap();
            assert!(stamp > last);
            last = stamp;
            if step % 7 == 0 {
                clock.advance_ms(13);
            }
            if step % 100 == 0 {
                let durable = BoundFile::open(&*disk, Path::new(PATH)).unwrap().1.unwrap();
                assert!(durable >= stamp, "stamped {stamp} above {durable}");
                assert!(durable.ms_since(clock.wall()) <= 250);
            }
        }
    }

    #[test]
    fn a_restart_stamps_above_everything_the_earlier_life_could_have_stamped() {
        let disk = SimulatedDisk::new();
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let hybrid = open(&*disk, &clock);
        let last = hybrid.next_blocking().unwrap();
        drop(hybrid);
        disk.restore(1);
        let bound = BoundFile::open(&*disk, Path::new(PATH)).unwrap().1.unwrap();
        let hybrid = open(&*disk, &clock);
        let error = hybrid.next().unwrap_err();
        assert!(matches!(error, ClockError::RestartWait { wait_ms: 1..=251, .. }), "{error}");
        clock.advance_ms(252);
        let stamp = hybrid.next_blocking().unwrap();
        assert!(stamp > bound && bound >= last);
    }

    #[test]
    fn waiting_threads_are_let_on_when_time_passes() {
        let disk = SimulatedDisk::new();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let config = ClockConfig { skew_ms_max: 40 };
        let path = Path::new(PATH);
        let last = HybridClock::open_on(&*disk, path, clock.clone(), config).unwrap().next_blocking().unwrap();
        let hybrid = HybridClock::open_on(&*disk, path, clock, config).unwrap();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| hybrid.next_blocking().unwrap())).collect();
            let mut stamps: Vec<Timestamp> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            stamps.sort_unstable();
            stamps.dedup();
            assert!(stamps.len() == 4 && stamps[0] > last);
        });
    }

    #[tokio::test]
    async fn a_failed_sync_ends_the_stamps_and_says_so() {
        let disk = FaultDisk::new(SimulatedDisk::new());
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let hybrid = open(&*disk, &clock);
        disk.plan(Fault::Sync, "clock.bound", 0);
        let error = hybrid.next_waiting().await.unwrap_err();
        assert!(matches!(error, ClockError::WaitForBound { .. }), "{error}");
        assert!(hybrid.failed().is_some() && disk.failed().is_some());
        clock.advance_ms(1000);
        assert!(hybrid.next_waiting().await.is_err() && hybrid.next_blocking().is_err());
        let file = disk.open(Path::new(PATH)).unwrap();
        assert!(file.write_at(&[IoSlice::new(b"x")], 0).is_err(), "a failed disk took a write");
    }

    #[tokio::test]
    async fn an_idle_clock_writes_nothing() {
        let disk = SimulatedDisk::new();
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let hybrid = open(&*disk, &clock);
        hybrid.next_waiting().await.unwrap();
        drop(hybrid);
        let before = disk.content(Path::new(PATH));
        let hybrid = open(&*disk, &clock);
        for _ in 0..100 {
            clock.advance_ms(100);
            hybrid.observe(hybrid.wall());
            hybrid.observe_remote(hybrid.wall()).unwrap();
        }
        drop(hybrid);
        assert_eq!(disk.content(Path::new(PATH)), before);
    }

    #[test]
    fn a_remote_stamp_too_far_ahead_is_refused_and_not_merged() {
        let disk = SimulatedDisk::new();
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let hybrid = open(&*disk, &clock);
        let error = hybrid.observe_remote(clock.wall().plus_ms(700)).unwrap_err();
        assert!(matches!(error, ClockError::Skewed { ahead_ms: 700, .. }), "{error}");
        assert!(hybrid.last() < clock.wall().plus_ms(1));
        hybrid.observe_remote(clock.wall().plus_ms(400)).unwrap();
        assert!(hybrid.last() >= clock.wall().plus_ms(400));
    }

    #[tokio::test]
    async fn a_clock_that_is_forbidden_gives_no_stamp_to_anybody() {
        let disk = SimulatedDisk::new();
        let hybrid = open(&*disk, &Arc::new(ManualClock::new(NOW_MS)));
        hybrid.next_blocking().unwrap();
        hybrid.forbid();
        assert_eq!(hybrid.next(), Err(ClockError::DiskWentBack));
        assert_eq!(hybrid.next_blocking(), Err(ClockError::DiskWentBack));
        assert_eq!(hybrid.next_waiting().await, Err(ClockError::DiskWentBack));
    }

    #[test]
    fn a_jump_of_the_wall_clock_refuses_stamps_until_it_is_back() {
        let disk = SimulatedDisk::new();
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let hybrid = open(&*disk, &clock);
        let last = hybrid.next_blocking().unwrap();
        clock.set_wall_unix_ms(NOW_MS + 2_000_000_000_000);
        let error = hybrid.next_blocking().unwrap_err();
        assert!(matches!(error, ClockError::WallClockJumped { .. }), "{error}");
        clock.set_wall_unix_ms(NOW_MS);
        clock.advance_ms(1);
        let stamp = hybrid.next_blocking().unwrap();
        assert!(stamp > last && stamp < clock.wall().plus_ms(500));
    }
}
