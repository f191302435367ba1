//! Closed timestamps of this datacenter: "nothing of it will be stamped at or below T any more" (rule 13).
//!
//! Each node closes its own volumes, the leader of control the registry, and `Meta` the partitions. For "now" all of them
//! are closed at one stamp above everything that any node has acknowledged.
//!
//! Invariants: "now" lies above what was acknowledged before the call; a node that can't be asked leaves its volumes
//! open, so that W_data waits for it instead of passing it over.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures::future::join_all;
use meridian_types::Timestamp;
use meridian_wire::call;
use meridian_wire::replication::CloseNodeRequest;

use crate::ReplicationError;
use crate::driver::Inner;
use crate::error::reason_of;

impl Inner {
    /// Closes everything of this datacenter at "now": no mutation, no needle and no volume of it is stamped at or
    /// below the answer after this, and everything acknowledged before the call is (rules 9, 13).
    pub async fn close_now(&self) -> Result<Timestamp, ReplicationError> {
        let datacenter = self.own();
        let own = self.clock.next_waiting().await?;
        // Another node's clock may be ahead, and what it stamped was acknowledged as well.
        let now = self.ask_siblings(Timestamp::ZERO).await.into_iter().fold(own, Timestamp::max);
        self.clock.observe(now);
        self.close_own_volumes(now);
        let partitions = self.meta.close_all(now);
        let registry = self.control.close_registry(now);
        let (meta, registry, _) = futures::join!(partitions, registry, self.ask_siblings(now));
        meta.map_err(|source| ReplicationError::Meta { what: "close the partitions", datacenter, source })?;
        registry?;
        self.volumes_moved.send_modify(|version| *version += 1);
        Ok(now)
    }

    /// Closes the volumes of this node.
    pub fn close_own_volumes(&self, at: Timestamp) {
        self.volumes.close_through(at);
        self.node_volumes_moved.send_modify(|version| *version += 1);
        self.volumes_moved.send_modify(|version| *version += 1);
    }

    /// Asks all other nodes of this datacenter to close their volumes at a stamp, or at zero only for their clocks.
    async fn ask_siblings(&self, at: Timestamp) -> Vec<Timestamp> {
        let asked = self.siblings.iter().map(|sibling| async move {
            let mut client = sibling.client();
            let request = CloseNodeRequest { caller: self.config.local.caller(), timestamp: at.raw() };
            let deadline = self.config.limits.sibling_deadline;
            match call(deadline, request, |request| async move { client.close_node(request).await }).await {
                Ok(reply) => Some(Timestamp::from_raw(reply.timestamp)),
                Err(status) => {
                    // What it led is led by others, whose clocks know what they applied.
                    tracing::debug!(node = %sibling.name, reason = reason_of(&status), "a node does not close");
                    None
                }
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

/// Closes this node's volumes and the registry, so that silence is not lag (rule 13): soon after bytes moved, seldom
/// while nothing happens.
pub(crate) async fn close_periodically(inner: Arc<Inner>) {
    let limits = &inner.config.limits;
    let committed = |inner: &Inner| inner.volumes.states().iter().map(|v| v.committed).sum::<u64>();
    let mut bytes = committed(&inner);
    let mut closed_at = Instant::now();
    loop {
        tokio::time::sleep(limits.close_interval).await;
        let bytes_now = committed(&inner);
        let has_moved = bytes_now != bytes;
        if !has_moved && closed_at.elapsed() < limits.close_interval_idle {
            continue;
        }
        (bytes, closed_at) = (bytes_now, Instant::now());
        let now = match inner.clock.next_waiting().await {
            Ok(now) => now,
            Err(error) => {
                tracing::warn!(%error, "the volumes can't be closed");
                continue;
            }
        };
        if has_moved {
            inner.bytes_moved_at.store(now.raw(), Ordering::Relaxed);
        }
        inner.close_own_volumes(now);
        // One of the nodes is enough, and its leader spares a round trip.
        if inner.control.is_leader()
            && let Err(error) = inner.control.close_registry(now).await
        {
            tracing::debug!(%error, "close the volume registry");
        }
    }
}
