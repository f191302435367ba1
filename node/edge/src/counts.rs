//! Figures of a listener and of its certificate, for metrics: they only grow, but for `connections`.

use std::sync::atomic::{AtomicU64, Ordering};

/// What happened at one port.
#[derive(Debug, Default)]
pub struct ListenerCounts {
    /// Connections open now, handshakes in progress included.
    pub connections: AtomicU64,
    /// Connections past the limit.
    pub connections_refused: AtomicU64,
    pub handshakes_ok: AtomicU64,
    /// The client spoke no TLS, or none that both know, or does not trust the certificate.
    pub handshakes_failed: AtomicU64,
    /// The deadline passed.
    pub handshakes_late: AtomicU64,
    /// Past the limit of handshakes in progress.
    pub handshakes_refused: AtomicU64,
}

/// What became of changed certificate files.
#[derive(Debug, Default)]
pub struct TlsCounts {
    pub reloaded: AtomicU64,
    /// Files that were of no use: what was there before is served on.
    pub reload_failed: AtomicU64,
}

pub(crate) fn add_one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Counts a connection for as long as it lives.
pub(crate) struct Open(pub std::sync::Arc<ListenerCounts>);

impl Open {
    pub fn new(counts: std::sync::Arc<ListenerCounts>) -> Self {
        add_one(&counts.connections);
        Self(counts)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
