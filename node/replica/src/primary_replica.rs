//! The shell of a volume's primary: performs what `protocol::primary` decides, on this node's file and over the links.
//!
//! Appends wait in a bounded queue; whoever owns the inbox places what waits as one batch, sends it to the secondaries, and
//! writes and syncs it here meanwhile. So one sync a replica serves every append that waited, and the next batch leaves
//! before the last is acknowledged.
//!
//! Invariants: an append is answered with success only on the core's `Commit`, in the order of the offsets; with the first
//! failure everything that waits is refused, and nothing is ever answered with success again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meridian_types::{Cookie, NeedleKey, NodeId};
use meridian_volume::{Appended, Batch, NewNeedle, ReplicaFile, VolumeError};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::call::Verb;
use crate::directory::Placement;
use crate::error::{PeerError, Refusal, ReplicaError};
use crate::inbox::Inbox;
use crate::peers::Peers;
use crate::protocol::Session;
use crate::protocol::primary::{Effect, Event, Primary};
use crate::protocol::secondary::Refused;

/// Most appends that wait for one volume.
const QUEUE_NEEDLES_MAX: usize = 1024;
/// Most bytes that wait for one volume, in KiB.
const QUEUE_KIB_MAX: usize = 64 << 10;
/// Most needles of one batch; each is three pieces of the vectored write, which Linux takes 1024 of.
const BATCH_NEEDLES_MAX: usize = 256;
/// A batch takes no further needle when it has this many bytes.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// How long secondaries may be left without word of what is committed.
const TELL_INTERVAL: Duration = Duration::from_millis(100);

/// Most bytes of one batch: it may end with the largest needle.
pub(crate) const BATCH_SIZE_MAX: usize = BATCH_BYTES_MAX + meridian_volume::NEEDLE_SPAN_MAX as usize + (1 << 20);

type Answer = oneshot::Sender<Result<Appended, ReplicaError>>;

struct Append {
    needle: NewNeedle,
    answer: Answer,
    _budget: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

enum Item {
    Append(Box<Append>),
    Event(Event),
}

/// What the owner of the inbox works on.
struct Work {
    core: Primary,
    waiting: VecDeque<Append>,
    /// Batches that are not committed, by their ends, with those who wait for them.
    batches: BTreeMap<u64, Sent>,
    failed: Option<String>,
    tell_due: bool,
}

struct Sent {
    batch: Batch,
    waiting: Vec<(Append, Appended)>,
}

/// See the module.
pub(crate) struct PrimaryReplica {
    placement: Placement,
    session: Session,
    file: ReplicaFile,
    peers: Arc<Peers>,
    acknowledge_max: Duration,
    inbox: Inbox<Item>,
    work: Mutex<Work>,
    needles: Arc<Semaphore>,
    kib: Arc<Semaphore>,
    runtime: Handle,
}

impl PrimaryReplica {
    /// Begins the session with all secondaries; appends wait until that is done. To be called on the runtime.
    pub(crate) fn start(
        placement: Placement,
        session: Session,
        file: ReplicaFile,
        peers: Arc<Peers>,
        acknowledge_max: Duration,
    ) -> Arc<Self> {
        let (_, durable, committed) = file.ends();
        let core = Primary::new(placement.secondaries.iter().copied(), durable, committed);
        let work = Work { core, waiting: VecDeque::new(), batches: BTreeMap::new(), failed: None, tell_due: false };
        let replica = Arc::new(Self {
            placement,
            session,
            file,
            peers,
            acknowledge_max,
            inbox: Inbox::new(),
            work: Mutex::new(work),
            needles: Arc::new(Semaphore::new(QUEUE_NEEDLES_MAX)),
            kib: Arc::new(Semaphore::new(QUEUE_KIB_MAX)),
            runtime: Handle::current(),
        });
        replica.put(Item::Event(Event::Start));
        replica
    }

    /// Appends a needle; durable on all replicas on return. If the caller goes away it may be appended all the same.
    pub(crate) async fn append(
        self: &Arc<Self>,
        key: NeedleKey,
        cookie: Cookie,
        data: Bytes,
    ) -> Result<Appended, ReplicaError> {
        let kib = u32::try_from(data.len() / 1024 + 1).unwrap_or(u32::MAX).min(QUEUE_KIB_MAX as u32);
        let closed = |_| self.refusal("it is closed");
        let budget = (
            Arc::clone(&self.needles).acquire_owned().await.map_err(closed)?,
            Arc::clone(&self.kib).acquire_many_owned(kib).await.map_err(closed)?,
        );
        let needle = NewNeedle::new(key, cookie, data)?;
        let (answer, outcome) = oneshot::channel();
        self.put(Item::Append(Box::new(Append { needle, answer, _budget: budget })));
        outcome.await.unwrap_or_else(|_| Err(self.refusal("the node shuts down")))
    }

    /// The volume's new epoch is durable here: everything that waits is refused.
    pub(crate) fn fenced(self: &Arc<Self>) {
        self.put(Item::Event(Event::Fenced));
    }

    fn refusal(&self, reason: &str) -> ReplicaError {
        ReplicaError::TakeAnother { volume: self.placement.volume, reason: reason.to_owned() }
    }

    fn put(self: &Arc<Self>, item: Item) {
        if self.inbox.put(item) {
            let replica = Arc::clone(self);
            self.runtime.spawn_blocking(move || replica.work());
        }
    }

    fn work(self: Arc<Self>) {
        let mut work = self.work.lock();
        loop {
            let idle = work.waiting.is_empty() || !(work.core.has_room() || work.failed.is_some());
            let Some(items) = self.inbox.take(idle) else { return };
            for item in items {
                match item {
                    Item::Append(append) => work.waiting.push_back(*append),
                    Item::Event(event) => self.step(&mut work, event),
                }
            }
            if work.failed.is_some() {
                self.refuse_waiting(&mut work);
            } else if work.core.has_room() && !work.waiting.is_empty() {
                self.send_batch(&mut work);
            }
        }
    }

    /// Takes what waits as one batch.
    fn send_batch(self: &Arc<Self>, work: &mut Work) {
        let (mut taken, mut bytes) = (0, 0);
        while taken < work.waiting.len() && taken < BATCH_NEEDLES_MAX && bytes < BATCH_BYTES_MAX {
            bytes += work.waiting[taken].needle.size();
            taken += 1;
        }
        let (needles, rest): (Vec<NewNeedle>, Vec<_>) =
            work.waiting.drain(..taken).map(|Append { needle, answer, _budget }| (needle, (answer, _budget))).unzip();
        let placed = self.file.place(&needles);
        let mut waiting = Vec::with_capacity(taken);
        for ((needle, (answer, budget)), outcome) in needles.into_iter().zip(rest).zip(placed.outcomes) {
            match outcome {
                Ok(appended) => waiting.push((Append { needle, answer, _budget: budget }, appended)),
                Err(refusal) => {
                    let _ = answer.send(Err(refusal.into())); // a caller that has gone needs no answer
                }
            }
        }
        if let Some(batch) = placed.batch {
            let end = batch.end();
            work.batches.insert(end, Sent { batch, waiting });
            self.step(work, Event::Placed { end });
        }
    }

    fn step(self: &Arc<Self>, work: &mut Work, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            if event == Event::TellDue {
                work.tell_due = false;
            }
            let mut effects = Vec::new();
            work.core.step(event, &mut effects);
            for effect in effects {
                if let Some(outcome) = self.perform(work, effect) {
                    events.push_back(outcome);
                }
            }
        }
        if work.core.has_news() && !std::mem::replace(&mut work.tell_due, true) {
            let replica = Arc::downgrade(self);
            self.runtime.spawn(async move {
                tokio::time::sleep(TELL_INTERVAL).await;
                if let Some(replica) = replica.upgrade() {
                    replica.put(Item::Event(Event::TellDue));
                }
            });
        }
    }

    fn perform(self: &Arc<Self>, work: &mut Work, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Begin { node, attempt } => {
                self.ask(node, attempt, Verb::Begin { session: self.session }, Vec::new(), move |end| Event::Begun {
                    node,
                    attempt,
                    end,
                });
            }
            Effect::Send { node, attempt, to, committed } => {
                let batch = &work.batches.get(&to).expect("a batch is kept until it is committed").batch;
                let verb = Verb::Write { session: self.session, offset: batch.offset(), committed };
                self.ask(node, attempt, verb, batch.pieces().to_vec(), move |end| Event::Acknowledged { node, end });
            }
            Effect::Write { to } => {
                let batch = &work.batches.get(&to).expect("a batch is kept until it is committed").batch;
                return Some(match self.file.write(batch) {
                    Ok(end) => Event::Synced { end },
                    Err(error) => Event::LocalFailed { reason: error.to_string() },
                });
            }
            Effect::Commit { to } => {
                if let Err(error) = self.file.commit(to) {
                    return Some(Event::LocalFailed { reason: error.to_string() });
                }
                let behind = work.batches.split_off(&(to + 1));
                for (append, appended) in
                    std::mem::replace(&mut work.batches, behind).into_values().flat_map(|sent| sent.waiting)
                {
                    let _ = append.answer.send(Ok(appended));
                }
            }
            Effect::Tell { node, committed } => {
                let (peers, placement) = (Arc::clone(&self.peers), self.placement.clone());
                let (session, deadline) = (self.session, self.acknowledge_max);
                self.runtime.spawn(async move {
                    let verb = Verb::Tell { session, committed };
                    let told: Result<u64, PeerError> = peers.ask_for(node, &placement, verb, &[], deadline).await;
                    if let Err(error) = told {
                        // The next append finds out what is the matter.
                        tracing::debug!(volume = %placement.volume, %node, %error, "a secondary was not told");
                    }
                });
            }
            Effect::Fail { reason } => self.fail(work, reason),
        }
        None
    }

    /// Asks a secondary, and puts what it says, or that it does not, into the inbox.
    fn ask(
        self: &Arc<Self>,
        node: NodeId,
        attempt: u32,
        verb: Verb,
        body: Vec<Bytes>,
        done: impl FnOnce(u64) -> Event + Send + 'static,
    ) {
        let replica = Arc::clone(self);
        self.runtime.spawn(async move {
            let Self { peers, placement, acknowledge_max, .. } = &*replica;
            let answer: Result<u64, PeerError> = peers.ask_for(node, placement, verb, &body, *acknowledge_max).await;
            let event = match answer {
                Ok(end) => done(end),
                Err(PeerError::Refused { refusal: Refusal::Protocol(Refused::UnknownSession), .. }) => {
                    Event::SessionLost { node, attempt }
                }
                Err(error) => {
                    if let PeerError::Refused { refusal, .. } = &error
                        && !matches!(refusal, Refusal::WrongEpoch { .. })
                    {
                        peers.suspect(node); // its disk, or its file: not the fence of a seal
                    }
                    Event::LinkFailed { node, reason: error.to_string() }
                }
            };
            replica.put(Item::Event(event));
        });
    }

    fn fail(&self, work: &mut Work, reason: String) {
        let volume = self.placement.volume;
        tracing::warn!(%volume, reason, "a volume takes no more appends");
        work.failed = Some(reason.clone());
        for (append, _) in std::mem::take(&mut work.batches).into_values().flat_map(|sent| sent.waiting) {
            let _ = append.answer.send(Err(self.refusal(&reason)));
        }
        self.refuse_waiting(work);
        let peers = Arc::clone(&self.peers);
        self.runtime.spawn(async move {
            if let Some(directory) = peers.directory() {
                directory.report_failed(volume, &reason).await;
            }
        });
    }

    fn refuse_waiting(&self, work: &mut Work) {
        let reason = work.failed.clone().unwrap_or_default();
        for append in work.waiting.drain(..) {
            let _ = append.answer.send(Err(self.refusal(&reason)));
        }
    }
}

impl From<&VolumeError> for Refused {
    fn from(error: &VolumeError) -> Self {
        Refused::Failed(error.to_string())
    }
}
