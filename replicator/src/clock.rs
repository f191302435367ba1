//! The guard over the hybrid logical clock: the only giver of stamps in a node (rules 9, 10).
//!
//! hlc-gen counts, in its manual mode; the guard adds what it lacks: a bound that is persisted ahead so that a
//! restart never goes back, a carry when the logical bits run out, a limit on how far another datacenter's clock
//! may pull this one, and a refusal when the wall clock can't be believed. It reads no clock and writes no file:
//! the shell passes in `wall` (of which only the milliseconds count) and persists the bound.
//!
//! ```text
//!   ≤ last ──────── next stamp ──────── bound (durable) ──────── wall + skew/2 (most that may become durable)
//! ```
//!
//! Invariants:
//! - Stamps rise strictly, also over a restart: an earlier life gave none above its durable bound, and this one
//!   gives none at or below it.
//! - No stamp lies above the durable bound, and the bound is at most `skew_ms_max`/2 ahead of the wall clock that
//!   it was asked with. So a wall clock that leaps to the year 2100 is caught before a stamp is.
//! - A remote stamp further ahead than `skew_ms_max` changes nothing.

use hlc_gen::source::ManualClock;
use hlc_gen::{HlcGenerator, HlcTimestamp};
use meridian_types::{Plant, Planted, Sound, Timestamp, limits};

/// The greatest time that hlc-gen can count, in the year 2109: it compares Unix milliseconds with 42 bits.
const CLOCK_END: Timestamp = Timestamp::from_unix_ms((1 << 42) - 1);

/// The greatest value of the logical bits.
const LOGICAL_MAX: u32 = (1 << Timestamp::LOGICAL_BITS) - 1;

/// How far the remembered distance between wall and monotonic clock follows small corrections, in milliseconds
/// per second of monotonic time: steps of an NTP client are absorbed within minutes, a leap is not.
const BASELINE_SLIDE_MS_PER_S: i64 = 1;

/// How the clock is guarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockConfig {
    /// A remote stamp further ahead of the wall clock than this is not merged; the persisted bound runs at most
    /// half of it ahead.
    pub skew_ms_max: u64,
}

impl Default for ClockConfig {
    fn default() -> Self {
        Self { skew_ms_max: limits::CLOCK_SKEW_MS_MAX_DEFAULT }
    }
}

impl ClockConfig {
    /// How far the bound may run ahead of the wall clock; at least a millisecond, else nothing could be stamped.
    fn bound_ahead_ms(self) -> u64 {
        (self.skew_ms_max / 2).max(1)
    }

    fn exceeds_skew(self, difference_ms: i64) -> bool {
        difference_ms.unsigned_abs() > self.skew_ms_max
    }
}

/// Why no stamp was given, or a remote one was not merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// The next stamp lies above the persisted bound. `bound` is the least bound that lets it pass. After
    /// `wait_ms` (0: now) `bound_wanted` names a bound to persist.
    #[error("the next stamp needs a persisted bound of {bound}, which may be written in {wait_ms} ms")]
    WaitForBound { bound: Timestamp, wait_ms: u64 },
    /// An earlier life may have stamped up to `until`: wait for the wall clock rather than stamp past it.
    #[error("an earlier life may have stamped up to {until}: {wait_ms} ms to wait")]
    RestartWait { until: Timestamp, wait_ms: u64 },
    #[error("remote stamp {remote} is {ahead_ms} ms ahead of this clock")]
    Skewed { remote: Timestamp, ahead_ms: u64 },
    /// The wall clock went this far ahead of (or, negative, behind) the monotonic one.
    #[error("the wall clock jumped by {by_ms} ms against the monotonic clock")]
    WallClockJumped { by_ms: i64 },
    /// Most peers' clocks differ from ours by more than the allowed skew; `by_ms` is the middle one's distance
    /// (positive: theirs is ahead).
    #[error("{disagreeing} of {peers} peers disagree with this wall clock, the middle one by {by_ms} ms")]
    PeersDisagree { disagreeing: usize, peers: usize, by_ms: i64 },
    /// Peers know of a later life of this node than its disk does (rule 7).
    #[error("this node's disk went back in time: nothing is stamped before it is restarted")]
    DiskWentBack,
}

/// The guard. One a node, owned by one thread at a time.
pub struct ClockGuard<P: Plant = Sound> {
    plant: P,
    config: ClockConfig,
    generator: HlcGenerator<ManualClock>,
    /// The greatest observed timestamp that the generator can't count to; zero in any sane cluster.
    beyond_range: Timestamp,
    bound: Timestamp,
    /// The bound of an earlier life, until the wall clock has passed it.
    restart_until: Option<Timestamp>,
    baseline: Option<Baseline>,
    jumped_by_ms: Option<i64>,
    peers_disagree: Option<ClockError>,
}

/// What wall − monotonic should be.
#[derive(Debug, Clone, Copy)]
struct Baseline {
    offset_ms: i64,
    /// Monotonic time up to which the offset has followed small corrections.
    slid_at_ms: u64,
}

impl ClockGuard {
    /// `persisted_bound` is the bound that an earlier life left behind: nothing is stamped at or below it, and the
    /// wall clock is waited for rather than stamped past (rule 10).
    pub fn new(config: ClockConfig, persisted_bound: Option<Timestamp>) -> Self {
        Self::planted(Sound, config, persisted_bound)
    }
}

impl<P: Plant> ClockGuard<P> {
    /// `new`, with mistakes for a simulation to find.
    pub fn planted(plant: P, config: ClockConfig, persisted_bound: Option<Timestamp>) -> Self {
        let mut guard = Self {
            plant,
            config,
            generator: HlcGenerator::manual(0), // 0: its own drift check is off, `observe_remote` has ours
            beyond_range: Timestamp::ZERO,
            bound: Timestamp::ZERO,
            restart_until: persisted_bound,
            baseline: None,
            jumped_by_ms: None,
            peers_disagree: None,
        };
        if let Some(bound) = persisted_bound {
            guard.observe(bound);
        }
        guard
    }

    /// A stamp above everything given or observed, never above the persisted bound.
    ///
    /// # Errors
    /// `WaitForBound`, `RestartWait`, `WallClockJumped`, `PeersDisagree`: nothing was stamped.
    pub fn next(&mut self, wall: Timestamp) -> Result<Timestamp, ClockError> {
        if self.plant.has(Planted::WallClockStamped) {
            let stamp = self.candidate(wall);
            self.raise(stamp);
            return Ok(stamp);
        }
        self.check_belief()?;
        self.check_restart(wall)?;
        let stamp = self.candidate(wall);
        if stamp > self.bound {
            let bound = ceil_ms(stamp);
            return Err(ClockError::WaitForBound { bound, wait_ms: bound.ms_since(self.bound_limit(wall)) });
        }
        self.raise(stamp);
        Ok(stamp)
    }

    /// Merges a stamp of the own datacenter: an applied entry, a chunk (rules 9, 13).
    pub fn observe(&mut self, seen: Timestamp) {
        if seen > self.last() {
            self.raise(seen);
        }
    }

    /// Merges a stamp of another datacenter, unless it is further ahead of `wall` than allowed: then the stream
    /// holds, because one wrong clock must not carry all others with it (rule 10).
    ///
    /// # Errors
    /// `Skewed`: nothing was merged.
    pub fn observe_remote(&mut self, wall: Timestamp, remote: Timestamp) -> Result<(), ClockError> {
        self.check_remote(wall, remote)?;
        if !self.plant.has(Planted::RemoteStampNotMerged) {
            self.observe(remote);
        }
        Ok(())
    }

    /// Whether `remote` may be merged, without merging it.
    ///
    /// # Errors
    /// `Skewed` when it lies further ahead of `wall` than `skew_ms_max`.
    pub fn check_remote(&self, wall: Timestamp, remote: Timestamp) -> Result<(), ClockError> {
        let ahead_ms = remote.ms_since(wall);
        if ahead_ms > self.config.skew_ms_max { Err(ClockError::Skewed { remote, ahead_ms }) } else { Ok(()) }
    }

    /// The bound to persist now, if any; when it is durable, call `bound_persisted`. It is at most `skew_ms_max`/2
    /// ahead of `wall` (rule 10), and asked for before the old one is used up, so that stamps seldom wait.
    pub fn bound_wanted(&self, wall: Timestamp) -> Option<Timestamp> {
        if self.check_belief().is_err() {
            return None; // a wall clock that can't be believed must not move what outlives this process
        }
        let (needed, limit) = (self.candidate(wall), self.bound_limit(wall));
        if limit < needed {
            return None; // persisting would not let the next stamp pass: time must
        }
        let ahead_ms = self.config.bound_ahead_ms();
        let is_low = self.bound.ms_since(needed) < ahead_ms / 2;
        let is_worth_a_sync = limit.ms_since(self.bound) >= (ahead_ms / 4).max(1);
        (self.bound < needed || (is_low && is_worth_a_sync)).then_some(limit)
    }

    /// `bound` is durable. A smaller one than before changes nothing.
    pub fn bound_persisted(&mut self, bound: Timestamp) {
        self.bound = self.bound.max(bound.min(CLOCK_END));
    }

    /// The greatest timestamp given or observed; the bound of an earlier life counts as given.
    pub fn last(&self) -> Timestamp {
        Timestamp::from_raw(self.generator.timestamp().as_u64()).max(self.beyond_range)
    }

    /// Compares the wall clock with the monotonic one (milliseconds of a clock that counts suspended time too,
    /// CLOCK_BOOTTIME on Linux). Call it before each `bound_wanted` with the same `wall`: a leap between two calls
    /// can then not be stamped, because the bound was computed from the wall clock before the leap.
    ///
    /// # Errors
    /// `WallClockJumped`: `next` refuses until the wall clock is back, or most peers agree with it
    /// (`check_peers`), or the process starts anew.
    pub fn check_wall(&mut self, wall: Timestamp, monotonic_ms: u64) -> Result<(), ClockError> {
        let offset_ms = signed_ms(wall.unix_ms()).saturating_sub(signed_ms(monotonic_ms));
        let baseline = self.baseline.get_or_insert(Baseline { offset_ms, slid_at_ms: monotonic_ms });
        let by_ms = offset_ms.saturating_sub(baseline.offset_ms);
        if self.config.exceeds_skew(by_ms) {
            self.jumped_by_ms = Some(by_ms);
            return Err(ClockError::WallClockJumped { by_ms });
        }
        self.jumped_by_ms = None;
        let seconds = monotonic_ms.saturating_sub(baseline.slid_at_ms) / 1000;
        let slide_ms_max = signed_ms(seconds).saturating_mul(BASELINE_SLIDE_MS_PER_S);
        baseline.offset_ms += by_ms.clamp(-slide_ms_max, slide_ms_max);
        baseline.slid_at_ms += seconds * 1000;
        Ok(())
    }

    /// Judges the wall clock by the peers': their clock minus ours in milliseconds, one figure a peer that answered
    /// lately. Most of them agreeing also ends a `WallClockJumped`: then the jump was a correction.
    ///
    /// # Errors
    /// `PeersDisagree`: `next` refuses until a later call finds otherwise.
    pub fn check_peers(&mut self, peer_offsets_ms: &[i64]) -> Result<(), ClockError> {
        let peers = peer_offsets_ms.len();
        let disagreeing = peer_offsets_ms.iter().filter(|offset| self.config.exceeds_skew(**offset)).count();
        if disagreeing * 2 > peers {
            let mut sorted = peer_offsets_ms.to_vec();
            sorted.sort_unstable();
            let verdict = ClockError::PeersDisagree { disagreeing, peers, by_ms: sorted[peers / 2] };
            self.peers_disagree = Some(verdict);
            return Err(verdict);
        }
        self.peers_disagree = None;
        if (peers - disagreeing) * 2 > peers && self.jumped_by_ms.take().is_some() {
            self.baseline = None;
        }
        Ok(())
    }

    /// What the next stamp would be: the wall clock, or the very next after the last one (rule 9), which carries
    /// into the milliseconds when the logical bits are full.
    fn candidate(&self, wall: Timestamp) -> Timestamp {
        self.last().next().max(floor_ms(wall))
    }

    /// The greatest bound that may become durable at `wall` (rule 10).
    fn bound_limit(&self, wall: Timestamp) -> Timestamp {
        floor_ms(wall).plus_ms(self.config.bound_ahead_ms()).min(CLOCK_END)
    }

    fn check_belief(&self) -> Result<(), ClockError> {
        match (self.jumped_by_ms, self.peers_disagree) {
            (Some(by_ms), _) => Err(ClockError::WallClockJumped { by_ms }),
            (None, Some(verdict)) => Err(verdict),
            (None, None) => Ok(()),
        }
    }

    fn check_restart(&mut self, wall: Timestamp) -> Result<(), ClockError> {
        match self.restart_until {
            Some(until) if floor_ms(wall) <= until => {
                Err(ClockError::RestartWait { until, wait_ms: until.ms_since(wall).saturating_add(1) })
            }
            _ => {
                self.restart_until = None;
                Ok(())
            }
        }
    }

    /// Brings the generator to exactly `to`, which is above `last`. hlc-gen has no setter: a timestamp with empty
    /// logical bits is a tick of its clock, any other one is what it makes of an update with the one before.
    fn raise(&mut self, to: Timestamp) {
        assert!(to > self.last(), "the clock is raised, never set back");
        if floor_ms(to) > CLOCK_END {
            self.beyond_range = to; // the bound never comes near: `next` refuses from here on
            return;
        }
        let unix_ms = signed_ms(to.unix_ms());
        if to.logical() == 0 {
            self.generator.set_current_timestamp(unix_ms);
            self.generator.next_timestamp();
        } else {
            let before = HlcTimestamp::from_parts(unix_ms, u64::from(to.logical() - 1)).expect("within its range");
            self.generator.update(&before).expect("no drift limit, and the logical bits have room for one more");
        }
        assert_eq!(self.last(), to, "hlc-gen counts as documented");
    }
}

/// The first timestamp of the same millisecond.
fn floor_ms(timestamp: Timestamp) -> Timestamp {
    Timestamp::from_raw(timestamp.raw() & !u64::from(LOGICAL_MAX))
}

/// The first timestamp of a millisecond that is not below `timestamp`.
fn ceil_ms(timestamp: Timestamp) -> Timestamp {
    let floor = floor_ms(timestamp);
    if floor == timestamp { floor } else { floor.plus_ms(1) }
}

fn signed_ms(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
