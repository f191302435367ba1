//! States that this node keeps pinned for readers on nodes without a replica.
//!
//! Invariants: at most `VIEWS_HELD_MAX`, none longer than `VIEW_AGE_MAX` after its last use; the oldest makes room for a
//! new one, so that readers that never close can't keep others out. A pinned state keeps the store from dropping
//! overwritten rows, which is why both limits are small.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use meridian_store::GroupView;
use meridian_types::NodeId;
use parking_lot::Mutex;

/// Pinned states of all readers together.
const VIEWS_HELD_MAX: usize = 1024;
/// How long a state that nobody reads stays pinned.
const VIEW_AGE_MAX: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct HeldViews {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    last: u64,
    views: BTreeMap<u64, (NodeId, Instant, GroupView)>,
}

impl HeldViews {
    /// Pins `view` for `reader`; the name is valid on this node until it restarts.
    pub(crate) fn hold(&self, reader: NodeId, view: GroupView) -> u64 {
        let mut held = self.held.lock();
        let now = Instant::now();
        held.views.retain(|_, (_, used, _)| now.duration_since(*used) < VIEW_AGE_MAX);
        while held.views.len() >= VIEWS_HELD_MAX {
            let oldest = held.views.iter().min_by_key(|(_, (_, used, _))| *used).map(|(id, _)| *id);
            oldest.and_then(|id| held.views.remove(&id));
        }
        if held.last == 0 {
            // A name from before a restart must not open another state.
            held.last = now_unique();
        }
        held.last += 1;
        let id = held.last;
        held.views.insert(id, (reader, now, view));
        id
    }

    pub(crate) fn get(&self, reader: NodeId, id: u64) -> Option<GroupView> {
        let mut held = self.held.lock();
        let (owner, used, view) = held.views.get_mut(&id)?;
        if *owner != reader {
            return None;
        }
        *used = Instant::now();
        Some(view.clone())
    }

    pub(crate) fn close(&self, reader: NodeId, id: u64) {
        let mut held = self.held.lock();
        if held.views.get(&id).is_some_and(|(owner, _, _)| *owner == reader) {
            held.views.remove(&id);
        }
    }

    /// Lets go of all of them: the store is about to close.
    pub(crate) fn clear(&self) {
        self.held.lock().views.clear();
    }
}

fn now_unique() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8) >> 1
}
