//! Who leads a group, as a value to watch.
//!
//! Invariants: `serving` is true only while this node leads and an entry of its own term is applied (rule 9); when the
//! group stops here it says so: no leader, not serving.

use meridian_types::NodeId;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use tokio::sync::watch;

use crate::types::{Raft, TypeConfig};

/// What a node knows about who leads a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    pub leader: Option<NodeId>,
    /// Raised by each election; at most one node leads in a term.
    pub term: u64,
    /// This node leads, and its own term's first entry is applied: only then may it stamp (rule 9).
    pub serving: bool,
}

impl Leadership {
    fn of(metrics: &RaftServerMetrics<TypeConfig>, applied_term: u64) -> Self {
        let term = metrics.vote.leader_id.term;
        Self {
            leader: metrics.current_leader.and_then(|id| u32::try_from(id).ok()).map(NodeId),
            term,
            serving: metrics.state == ServerState::Leader && metrics.vote.committed && applied_term == term,
        }
    }
}

/// Follows a group until it stops. Wakes only when something changed.
///
/// It also stops the ticks of a group whose one member is this node: nobody can take the lead from it and nobody follows,
/// so that it needs no timer at all, and an idle process of many such groups does not wake.
pub(crate) async fn follow(raft: Raft, mut applied_term: watch::Receiver<u64>, publish: watch::Sender<Leadership>) {
    let mut metrics = raft.server_metrics();
    loop {
        let (now, alone) = {
            let metrics = metrics.borrow_watched();
            let mut members = metrics.membership_config.nodes().map(|(id, ())| *id);
            let alone = members.next() == Some(metrics.id) && members.next().is_none();
            (Leadership::of(&metrics, *applied_term.borrow_and_update()), alone)
        };
        raft.runtime_config().tick(!alone);
        publish.send_if_modified(|last| std::mem::replace(last, now) != now);
        let going_on = tokio::select! {
            changed = metrics.changed() => changed.is_ok(),
            changed = applied_term.changed() => changed.is_ok(),
        };
        if !going_on {
            break;
        }
    }
    publish.send_modify(|last| *last = Leadership { leader: None, serving: false, ..*last });
}
