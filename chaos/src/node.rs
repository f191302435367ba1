//! A node of the simulation: its wall clock, which faults set wrong, and the shipped clock guard with its bound on
//! disk. It leads groups and is the primary of volumes; both live in their own modules.
//!
//! Invariant: a restart forgets the guard and keeps the bound, and a bound counts once it is synced (rule 10).

use std::collections::BTreeMap;

use meridian_replicator::{ClockConfig, ClockError, ClockGuard};
use meridian_types::Timestamp;

use crate::planted::Sown;

/// Virtual time zero in Unix milliseconds.
pub const START_UNIX_MS: u64 = 1_790_000_000_000;
/// How long a peer's clock reading counts.
const PEER_CLOCK_FRESH_MS: u64 = 5_000;

pub struct Node {
    pub alive: bool,
    /// Raised by each crash: what was under way in an earlier life never ends.
    pub life: u32,
    /// Wall clock minus true time.
    pub offset_ms: i64,
    /// The offset that the node has when no fault is at work.
    pub offset_base_ms: i64,
    plant: Sown,
    pub guard: ClockGuard<Sown>,
    pub bound_on_disk: Timestamp,
    pub bound_syncing: Option<Timestamp>,
    /// Their wall clock minus our monotonic one, and when it was read. Not minus our wall clock: a reading from before
    /// a jump would vouch for the clock after it.
    peer_clocks: BTreeMap<usize, (i64, u64)>,
}

impl Node {
    pub fn new(offset_ms: i64, plant: Sown) -> Self {
        let mut node = Self {
            alive: true,
            life: 0,
            offset_ms,
            offset_base_ms: offset_ms,
            plant,
            guard: ClockGuard::planted(plant, ClockConfig::default(), None),
            bound_on_disk: Timestamp::ZERO,
            bound_syncing: None,
            peer_clocks: BTreeMap::new(),
        };
        node.restart(0);
        node
    }

    pub fn wall(&self, now_ms: u64) -> Timestamp {
        Timestamp::from_unix_ms((START_UNIX_MS + now_ms).saturating_add_signed(self.offset_ms))
    }

    /// The next stamp, and the bound to sync now, if any.
    pub fn stamp(&mut self, now_ms: u64) -> (Result<Timestamp, ClockError>, Option<Timestamp>) {
        let wall = self.wall(now_ms);
        let ours_ms = wall.unix_ms().cast_signed() - now_ms.cast_signed();
        let fresh = self.peer_clocks.values().filter(|(_, at_ms)| at_ms + PEER_CLOCK_FRESH_MS >= now_ms);
        let offsets: Vec<i64> = fresh.map(|(theirs_ms, _)| theirs_ms - ours_ms).collect();
        // What these two find is kept by the guard: `next` and `bound_wanted` refuse by it.
        let _ = self.guard.check_peers(&offsets);
        let _ = self.guard.check_wall(wall, now_ms);
        let wanted = self.guard.bound_wanted(wall).filter(|_| self.bound_syncing.is_none());
        if wanted.is_some() {
            self.bound_syncing = wanted;
        }
        (self.guard.next(wall), wanted)
    }

    pub fn bound_synced(&mut self) {
        if let Some(bound) = self.bound_syncing.take() {
            self.bound_on_disk = self.bound_on_disk.max(bound);
            self.guard.bound_persisted(bound);
        }
    }

    pub fn heard_clock(&mut self, peer: usize, wall: Timestamp, now_ms: u64) {
        self.peer_clocks.insert(peer, (wall.unix_ms().cast_signed() - now_ms.cast_signed(), now_ms));
    }

    /// Power off. A bound that was on its way to the disk is there or not.
    pub fn crash(&mut self, bound_arrived: bool) {
        if let Some(bound) = self.bound_syncing.take().filter(|_| bound_arrived) {
            self.bound_on_disk = self.bound_on_disk.max(bound);
        }
        self.alive = false;
        self.life += 1;
    }

    pub fn restart(&mut self, now_ms: u64) {
        self.alive = true;
        self.peer_clocks.clear();
        let bound = Some(self.bound_on_disk).filter(|bound| *bound > Timestamp::ZERO);
        self.guard = ClockGuard::planted(self.plant, ClockConfig::default(), bound);
        let _ = self.guard.check_wall(self.wall(now_ms), now_ms); // a later jump is judged by this
    }
}
