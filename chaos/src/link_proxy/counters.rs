//! What has gone over a link.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::control::Direction;

/// A reading of a proxy's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Connections ever accepted, and those of them that are open now.
    pub accepted: u64,
    pub open: usize,
    /// Connections that ended because nobody listened at the target.
    pub unreachable: u64,
    pub forward: DirectionCounters,
    pub backward: DirectionCounters,
}

/// Bytes of one direction since the proxy's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DirectionCounters {
    /// Taken from the sender: delivered, lost, or still on their way.
    pub taken_bytes: u64,
    pub delivered_bytes: u64,
    pub lost_bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    accepted: AtomicU64,
    open: AtomicUsize,
    unreachable: AtomicU64,
    forward: DirectionTally,
    backward: DirectionTally,
}

#[derive(Debug, Default)]
pub(super) struct DirectionTally {
    taken: AtomicU64,
    delivered: AtomicU64,
    lost: AtomicU64,
}

/// Counts a connection as open until it is dropped.
pub(super) struct Open<'a>(&'a AtomicUsize);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Tally {
    pub fn opened(&self) -> Open<'_> {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(&self.open)
    }

    pub fn unreachable(&self) {
        self.unreachable.fetch_add(1, Ordering::Relaxed);
    }

    pub fn of(&self, direction: Direction) -> &DirectionTally {
        match direction {
            Direction::Forward => &self.forward,
            Direction::Backward => &self.backward,
        }
    }

    pub fn read(&self) -> LinkCounters {
        LinkCounters {
            accepted: self.accepted.load(Ordering::Relaxed),
            open: self.open.load(Ordering::Relaxed),
            unreachable: self.unreachable.load(Ordering::Relaxed),
            forward: self.forward.read(),
            backward: self.backward.read(),
        }
    }
}

impl DirectionTally {
    pub fn took(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn delivered(&self, bytes: usize) {
        self.delivered.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn lost(&self, bytes: usize) {
        self.lost.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn read(&self) -> DirectionCounters {
        DirectionCounters {
            taken_bytes: self.taken.load(Ordering::Relaxed),
            delivered_bytes: self.delivered.load(Ordering::Relaxed),
            lost_bytes: self.lost.load(Ordering::Relaxed),
        }
    }
}
