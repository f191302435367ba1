//! The shell of a secondary: performs what `protocol::secondary` decides on this node's file.
//!
//! Invariants: every needle is verified before a byte is written; at most `WINDOW_BATCHES_MAX` batches are held, and one is
//! written; an answer means durable.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use meridian_types::Epoch;
use meridian_volume::{Batch, ReplicaFile};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::inbox::Inbox;
use crate::protocol::Session;
use crate::protocol::secondary::{Effect, Event, Refused, Request, Secondary};

/// What the primary asks.
pub(crate) enum Asked {
    Begin { session: Session },
    Append { session: Session, offset: u64, committed: u64, data: Bytes },
    Tell { session: Session, committed: u64 },
}

enum Item {
    Asked { epoch: Epoch, asked: Asked, answer: oneshot::Sender<Result<u64, Refused>> },
    Fenced { epoch: Epoch },
}

struct Work {
    core: Secondary,
    request_next: Request,
    answers: HashMap<Request, oneshot::Sender<Result<u64, Refused>>>,
    batches: HashMap<Request, Batch>,
}

/// See the module.
pub(crate) struct SecondaryReplica {
    file: ReplicaFile,
    inbox: Inbox<Item>,
    work: Mutex<Work>,
    runtime: Handle,
}

impl SecondaryReplica {
    pub(crate) fn new(file: ReplicaFile) -> Arc<Self> {
        let (epoch, durable, committed) = file.ends();
        let core = Secondary::new(epoch, durable, committed);
        let work = Work { core, request_next: 0, answers: HashMap::new(), batches: HashMap::new() };
        Arc::new(Self { file, inbox: Inbox::new(), work: Mutex::new(work), runtime: Handle::current() })
    }

    /// Returns the durable end once the call is done.
    pub(crate) async fn ask(self: &Arc<Self>, epoch: Epoch, asked: Asked) -> Result<u64, Refused> {
        let (answer, outcome) = oneshot::channel();
        self.put(Item::Asked { epoch, asked, answer });
        outcome.await.unwrap_or_else(|_| Err(Refused::Failed("the node shuts down".to_owned())))
    }

    /// The volume's new epoch is durable here.
    pub(crate) fn fenced(self: &Arc<Self>, epoch: Epoch) {
        self.put(Item::Fenced { epoch });
    }

    fn put(self: &Arc<Self>, item: Item) {
        if self.inbox.put(item) {
            let replica = Arc::clone(self);
            self.runtime.spawn_blocking(move || replica.work());
        }
    }

    fn work(self: Arc<Self>) {
        let mut work = self.work.lock();
        while let Some(items) = self.inbox.take(true) {
            for item in items {
                match item {
                    Item::Asked { epoch, asked, answer } => self.asked(&mut work, epoch, asked, answer),
                    Item::Fenced { epoch } => self.step(&mut work, Event::Fenced { epoch }),
                }
            }
        }
    }

    fn asked(&self, work: &mut Work, epoch: Epoch, asked: Asked, answer: oneshot::Sender<Result<u64, Refused>>) {
        let request = work.request_next;
        work.request_next += 1;
        let event = match asked {
            Asked::Begin { session } => Event::Begin { request, epoch, session },
            Asked::Tell { session, committed } => Event::Tell { request, epoch, session, committed },
            Asked::Append { session, offset, committed, data } => match self.file.verify(offset, data) {
                Ok(batch) => {
                    let to = batch.end();
                    work.batches.insert(request, batch);
                    Event::Append { request, epoch, session, offset, to, committed }
                }
                Err(error) => {
                    let _ = answer.send(Err(Refused::from(&error)));
                    return;
                }
            },
        };
        work.answers.insert(request, answer);
        self.step(work, event);
    }

    fn step(&self, work: &mut Work, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let mut effects = Vec::new();
            work.core.step(event, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Write { request } => {
                        let batch = &work.batches[&request];
                        events.push_back(match self.file.write(batch) {
                            Ok(_) => Event::Synced,
                            Err(error) => Event::WriteFailed { reason: error.to_string() },
                        });
                    }
                    Effect::Answer { request, outcome } => {
                        work.batches.remove(&request);
                        if let Some(answer) = work.answers.remove(&request) {
                            let _ = answer.send(outcome); // a primary that has gone needs no answer
                        }
                    }
                    // What is refused here waits for the seal, or is told again.
                    Effect::Commit { to } => {
                        if let Err(error) = self.file.commit(to) {
                            tracing::debug!(%error, "a secondary does not commit");
                        }
                    }
                }
            }
        }
    }
}
