//! What the sealed transport counts. Reading and counting need no lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a datagram was dropped. The checks stand in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Longer than any datagram that we send.
    Oversize,
    /// Too short to hold a seal.
    Truncated,
    /// Does not open with our key: garbage, another key, a flipped or missing byte.
    Unsealed,
    /// Opens, but of a version that this program does not know.
    Version,
    /// Opens, but its header makes no sense, or what is inside is no gossip message.
    Malformed,
    /// Opens, but names another cluster.
    WrongCluster,
    /// Sent by a clock too far ahead of ours.
    Future,
    /// Sent too long ago by our clock.
    Stale,
    /// Taken before, too old for the window, of an earlier life of its sender, or our own.
    Replayed,
    /// A part of a message whose earlier parts are missing.
    Incomplete,
}

impl DropReason {
    pub const ALL: [DropReason; 10] = [
        DropReason::Oversize,
        DropReason::Truncated,
        DropReason::Unsealed,
        DropReason::Version,
        DropReason::Malformed,
        DropReason::WrongCluster,
        DropReason::Future,
        DropReason::Stale,
        DropReason::Replayed,
        DropReason::Incomplete,
    ];

    /// For metrics: stable.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::Oversize => "oversize",
            DropReason::Truncated => "truncated",
            DropReason::Unsealed => "unsealed",
            DropReason::Version => "version",
            DropReason::Malformed => "malformed",
            DropReason::WrongCluster => "wrong_cluster",
            DropReason::Future => "future",
            DropReason::Stale => "stale",
            DropReason::Replayed => "replayed",
            DropReason::Incomplete => "incomplete",
        }
    }
}

/// Counts since the start of the membership.
#[derive(Debug, Default)]
pub struct GossipCounters {
    received: AtomicU64,
    sent: AtomicU64,
    send_failed: AtomicU64,
    receive_failed: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
}

impl GossipCounters {
    /// Datagrams that came from the network, good or bad.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Datagrams handed to the network.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Datagrams that the network did not take, and messages too large for it.
    pub fn send_failed(&self) -> u64 {
        self.send_failed.load(Ordering::Relaxed)
    }

    /// Errors of the socket while receiving.
    pub fn receive_failed(&self) -> u64 {
        self.receive_failed.load(Ordering::Relaxed)
    }

    /// Datagrams dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn count_received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_send_failed(&self) {
        self.send_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_receive_failed(&self) {
        self.receive_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_dropped(&self, reason: DropReason) {
        self.dropped[reason as usize].fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_count_and_name() {
        let counters = GossipCounters::default();
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason:?} counts in its own place");
            for _ in 0..=index {
                counters.count_dropped(reason);
            }
        }
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(counters.dropped(reason), index as u64 + 1);
        }
        let mut names = DropReason::ALL.map(DropReason::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::ALL.len());
    }
}
