//! The group commit: one thread makes durable what all groups wait for.
//!
//! While one sync runs, further waiters gather; the next sync serves all of them. Nobody waiting, nothing is synced.
//!
//! Invariants: a callback runs after a sync that began after its `sync` call, or with the error of the store; every
//! callback runs exactly once; after a failed sync no callback ever gets `Ok` (rule 6). The thread is joined on drop,
//! because a detached one that owns the database aborts the process at exit.

use std::mem;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

use crate::StoreError;
use crate::engine::Engine;

/// Told once whether all that was written before is durable. Runs on the flusher's thread: it must be quick.
pub(crate) type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

#[derive(Default)]
struct Waiting {
    callbacks: Vec<Done>,
    stopping: bool,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

pub(crate) struct Flusher {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(crate) fn start(engine: Arc<Engine>) -> Result<Self, std::io::Error> {
        let queue = Arc::new(Queue::default());
        let thread = thread::Builder::new().name("store-sync".to_owned()).spawn({
            let queue = queue.clone();
            move || run(&engine, &queue)
        })?;
        Ok(Self { queue, thread: Some(thread) })
    }

    pub(crate) fn sync(&self, done: Done) {
        let mut waiting = self.queue.waiting.lock();
        if waiting.stopping {
            drop(waiting);
            return done(Err(StoreError::Closed));
        }
        waiting.callbacks.push(done);
        // A thread in the middle of a sync looks at the queue again before it sleeps: this wakes only a sleeping one.
        self.queue.changed.notify_one();
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.queue.waiting.lock().stopping = true;
        self.queue.changed.notify_one();
        let Some(thread) = self.thread.take() else { return };
        // The last handle of a store may die inside a callback; a thread can't join itself, and it is about to end.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!("the sync thread panicked");
        }
    }
}

fn run(engine: &Engine, queue: &Queue) {
    loop {
        let callbacks = {
            let mut waiting = queue.waiting.lock();
            while waiting.callbacks.is_empty() && !waiting.stopping {
                queue.changed.wait(&mut waiting);
            }
            mem::take(&mut waiting.callbacks)
        };
        if callbacks.is_empty() {
            break;
        }
        let synced = engine.sync();
        for done in callbacks {
            done(synced.clone());
        }
    }
    // A clean close leaves nothing behind for recovery to guess about. A store that failed has said so already.
    if let Err(error) = engine.sync() {
        tracing::warn!(%error, "closed without a last sync");
    }
}
