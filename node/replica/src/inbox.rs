//! A queue whose owner runs on a blocking thread while there is something in it, and on none while there is not.
//!
//! Invariants: one owner at a time, so what it owns needs no further order; nothing that was put is left behind. The queue
//! itself has no limit: each kind of item is bounded where it comes from.

use std::collections::VecDeque;

use parking_lot::Mutex;

pub(crate) struct Inbox<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    queue: VecDeque<T>,
    owned: bool,
}

impl<T> Inbox<T> {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { queue: VecDeque::new(), owned: false }) }
    }

    /// True when the caller is to start an owner.
    pub(crate) fn put(&self, item: T) -> bool {
        let mut state = self.state.lock();
        state.queue.push_back(item);
        !std::mem::replace(&mut state.owned, true)
    }

    /// The owner takes all there is; with nothing there and nothing else to do it ceases to be the owner.
    pub(crate) fn take(&self, idle: bool) -> Option<VecDeque<T>> {
        let mut state = self.state.lock();
        if state.queue.is_empty() && idle {
            state.owned = false;
            return None;
        }
        Some(std::mem::take(&mut state.queue))
    }
}
