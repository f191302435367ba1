//! Tells the other nodes by gossip what is free on this node's disk, so that placement can choose by it.
//!
//! Gossip advises: an old figure only makes a choice worse, and what does not fit fails by itself (ENOSPC ends a volume).
//!
//! Invariant: a figure is rounded down, so that a busy disk does not keep gossip busy.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use meridian_gossip::{ChitchatMembership, Membership};
use meridian_types::NodeId;

/// The gossip key; its value is in bytes, as decimal digits.
const KEY: &str = "free_bytes";
const INTERVAL: Duration = Duration::from_secs(5);
/// Figures are multiples of this.
const STEP: u64 = 16 << 20;

/// Says what is free below `directory` until the membership is gone.
async fn tell(gossip: Weak<ChitchatMembership>, directory: PathBuf) {
    loop {
        let asked = directory.clone();
        let free = tokio::task::spawn_blocking(move || meridian_env::free_bytes(&asked)).await;
        let Some(gossip) = gossip.upgrade() else { return };
        match free {
            Ok(Ok(free)) => {
                if let Err(error) = gossip.set(KEY, &(free / STEP * STEP).to_string()) {
                    tracing::warn!(%error, "the free space of this node is not told");
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "ask for the free space of this node's disk"),
            Err(_) => return, // the runtime ends
        }
        drop(gossip);
        tokio::time::sleep(INTERVAL).await;
    }
}

/// `tell`, until `stopped`.
pub async fn tell_until(
    gossip: Weak<ChitchatMembership>,
    directory: PathBuf,
    stopped: impl Future<Output = ()> + Send,
) {
    tokio::select! {
        () = tell(gossip, directory) => {}
        () = stopped => {}
    }
}

/// What a node says is free there; `None` before it has said so.
pub fn of(gossip: &Arc<ChitchatMembership>, node: NodeId) -> Option<u64> {
    let members = gossip.members();
    members.iter().find(|member| member.node == node)?.values.get(KEY)?.parse().ok()
}
