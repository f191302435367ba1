//! Where a group is led: by its first voter, so that leaders are spread over the nodes again after a restart; and by anybody
//! else once this node is told to stop, so that writes need not wait for an election.
//!
//! openraft moves the lead: it takes no further proposal, tells the voters, and the chosen one stands for election at once.
//! Should that one die in between, an ordinary election follows. What does not happen here: moving members.
//!
//! Invariant: the lead is given only to a voter that has the log but for a few entries and was heard of lately.

use std::time::Duration;

use meridian_store::GroupId;
use meridian_types::NodeId;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant as _, ServerState};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::leadership::Leadership;
use crate::types::Raft;

/// The first voter must have kept up for so many looks, one every heartbeat, before it is given the lead: a node that just
/// came back has other things to do.
const LOOKS: u32 = 20;
/// A home that could not take the lead, or soon lost it again, is looked at twice as often before the next time, up to so
/// many looks: each vain attempt costs the group an election. Once it kept the lead for as long as that, it is as new.
const LOOKS_MAX: u32 = 1000;
/// How many entries it may be behind; openraft sends them before it hands over.
const BEHIND_MAX: u64 = 256;
/// A voter was heard of lately if it answered within so many heartbeats.
const HEARTBEATS_FRESH: u32 = 3;
/// A lead that was not taken in so many heartbeats is looked at again.
const HEARTBEATS_TAKEN: u32 = 8;

/// Gives the lead of a group to `home` whenever this node has it and `home` keeps up. Ends with the group.
pub(crate) async fn bring_home(
    group: GroupId,
    raft: Raft,
    home: NodeId,
    heartbeat: Duration,
    mut leadership: watch::Receiver<Leadership>,
) {
    let mut looks = LOOKS;
    let mut given: Option<Instant> = None;
    loop {
        if leadership.wait_for(|leadership| leadership.serving).await.is_err() {
            return;
        }
        looks = match given {
            Some(given) if given.elapsed() < heartbeat * LOOKS_MAX => (looks * 2).min(LOOKS_MAX),
            _ => LOOKS,
        };
        let mut kept_up = 0;
        while kept_up < looks && leadership.borrow().serving {
            tokio::time::sleep(heartbeat).await;
            kept_up = if keeping_up(&raft, heartbeat).contains(&home) { kept_up + 1 } else { 0 };
        }
        if !leadership.borrow().serving {
            continue;
        }
        tracing::info!(%group, %home, "giving the lead back");
        given = Some(Instant::now());
        if raft.trigger().transfer_leader(u64::from(home.0)).await.is_err() {
            return; // the group has stopped
        }
        let _ =
            tokio::time::timeout(heartbeat * HEARTBEATS_TAKEN, leadership.wait_for(|leadership| !leadership.serving))
                .await;
    }
}

/// Gives the lead of a group to another voter, if this node has it and one keeps up; returns whom it was given to.
pub(crate) async fn hand_over(raft: &Raft, heartbeat: Duration) -> Option<NodeId> {
    let to = keeping_up(raft, heartbeat).into_iter().next()?;
    raft.trigger().transfer_leader(u64::from(to.0)).await.ok()?;
    Some(to)
}

/// The other voters that have the log of this leader and were heard of lately, those with most of it first.
fn keeping_up(raft: &Raft, heartbeat: Duration) -> Vec<NodeId> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let (Some(matched), Some(heard)) = (&metrics.replication, &metrics.heartbeat) else { return Vec::new() };
    if metrics.state != ServerState::Leader {
        return Vec::new();
    }
    let last = metrics.last_log_index.unwrap_or(0);
    let is_fresh = |id: &u64| {
        let heard = heard.get(id).and_then(|heard| heard.as_ref());
        heard.is_some_and(|heard| heard.elapsed() <= heartbeat * HEARTBEATS_FRESH)
    };
    let mut found: Vec<(u64, NodeId)> = metrics
        .membership_config
        .membership()
        .voter_ids()
        .filter(|id| *id != metrics.id && is_fresh(id))
        .filter_map(|id| {
            let index = matched.get(&id)?.as_ref()?.index;
            let node = NodeId(u32::try_from(id).ok()?);
            (index + BEHIND_MAX >= last).then_some((index, node))
        })
        .collect();
    found.sort_unstable_by_key(|(index, node)| (std::cmp::Reverse(*index), *node));
    found.into_iter().map(|(_, node)| node).collect()
}
