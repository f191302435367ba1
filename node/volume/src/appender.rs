//! Group commit: the one thread that appends to an open own volume.
//!
//! It takes whatever waits in its queue, stamps it, writes it with one vectored write, syncs once, publishes and answers, in
//! the queue's order (rule 1). The queue is bounded in needles and in bytes; callers beyond it wait.
//!
//! Invariants:
//! - A batch is written only when the one before it is durable: its first needle says so with a flag, by which a start tells
//!   a torn batch from damage (`scan::cut_at`).
//! - Nothing is answered with success that is not durable, and nothing at all after a failed write or sync (rule 6).
//! - Stamps rise with the offsets, and each is above everything that `close_through` was given before it (rule 13).

use std::io::IoSlice;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use meridian_env::HybridClock;
use meridian_types::limits::NEEDLE_SIZE_MAX;
use meridian_types::{Cookie, NeedleKey, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::index::Place;
use crate::journal::Entry;
use crate::needle::{ALIGNMENT, block_table, span};
use crate::placing::{Placing, Seat};
use crate::volume::Volume;
use crate::{Appended, VolumeError};

/// Most appends that wait for one volume.
const QUEUE_NEEDLES_MAX: usize = 1024;
/// Most bytes that wait for one volume, in KiB.
const QUEUE_KIB_MAX: u32 = 64 << 10;
/// Most needles of one group commit; each is three pieces of the vectored write, which Linux takes 1024 of.
const BATCH_NEEDLES_MAX: usize = 256;
/// A group commit takes no further needle when it has this many bytes.
const BATCH_BYTES_MAX: u64 = 16 << 20;

const _: () = assert!(NEEDLE_SIZE_MAX / 1024 < QUEUE_KIB_MAX as usize, "the largest needle must fit into the queue");

type Answer = oneshot::Sender<Result<Appended, VolumeError>>;

struct Append {
    key: NeedleKey,
    cookie: Cookie,
    data: Bytes,
    table: Vec<u8>,
    answer: Answer,
    _budget: OwnedSemaphorePermit,
}

enum Command {
    Append(Append),
    /// Commits nothing that comes behind it.
    Stop,
}

/// The handle of the thread. Dropping it lets the thread finish its batch and waits for it.
pub(crate) struct Appender {
    queue: Mutex<Option<mpsc::Sender<Command>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    budget: Arc<Semaphore>,
}

impl Appender {
    /// Starts the thread of `volume`, whose file may grow to `size_max` bytes.
    pub(crate) fn start(volume: Arc<Volume>, clock: Arc<HybridClock>, size_max: u64) -> std::io::Result<Self> {
        let (sender, queue) = mpsc::channel(QUEUE_NEEDLES_MAX);
        let name = format!("append-{}", volume.id());
        let thread =
            std::thread::Builder::new().name(name).spawn(move || Batches { volume, clock, size_max }.run(queue))?;
        Ok(Self {
            queue: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            budget: Arc::new(Semaphore::new(QUEUE_KIB_MAX as usize)),
        })
    }

    /// Appends a needle; durable on return. If the caller goes away it may be appended all the same.
    pub(crate) async fn append(
        &self,
        volume: &Volume,
        key: NeedleKey,
        cookie: Cookie,
        data: Bytes,
    ) -> Result<Appended, VolumeError> {
        let kib = u32::try_from(data.len() / 1024 + 1).expect("a needle's size was checked");
        let budget = self.budget.clone().acquire_many_owned(kib).await.map_err(|_| volume.refusal())?;
        let queue = self.queue.lock().clone().ok_or_else(|| volume.refusal())?;
        let table = block_table(&data); // here and not in the thread, so that large needles are summed in parallel
        let (answer, outcome) = oneshot::channel();
        let append = Append { key, cookie, data, table, answer, _budget: budget };
        queue.send(Command::Append(append)).await.map_err(|_| volume.refusal())?;
        drop(queue);
        outcome.await.unwrap_or_else(|_| Err(volume.refusal()))
    }

    /// Lets the thread commit what is queued and waits until it has ended. Blocks; not for async tasks.
    pub(crate) fn stop(&self) {
        let queue = self.queue.lock().take();
        if let Some(queue) = queue {
            let _ = queue.blocking_send(Command::Stop); // an error: it has ended
        }
        self.join();
    }

    fn join(&self) {
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join(); // a panic there has been printed, and its callers were refused
        }
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        *self.queue.lock() = None;
        self.join();
    }
}

/// The thread's own.
struct Batches {
    volume: Arc<Volume>,
    clock: Arc<HybridClock>,
    size_max: u64,
}

/// A needle of the batch at hand, with its place and stamp.
struct Placed {
    append: Append,
    offset: u64,
    stamp: Timestamp,
    front: Vec<u8>,
}

impl Placed {
    fn length(&self) -> u32 {
        self.append.data.len() as u32
    }

    fn end(&self) -> u64 {
        self.offset + span(self.length())
    }
}

impl Batches {
    fn run(self, mut queue: mpsc::Receiver<Command>) {
        let mut stopping = false;
        while !stopping {
            let Some(first) = queue.blocking_recv() else { return };
            let (mut batch, mut bytes, mut next) = (Vec::new(), 0, Some(first));
            while let Some(command) = next.take() {
                match command {
                    Command::Append(append) => {
                        bytes += append.data.len() as u64;
                        batch.push(append);
                    }
                    Command::Stop => {
                        stopping = true;
                        break;
                    }
                }
                if batch.len() < BATCH_NEEDLES_MAX && bytes < BATCH_BYTES_MAX {
                    next = queue.try_recv().ok();
                }
            }
            // A failed volume takes nothing more: rule 6.
            stopping |= self.commit(batch).is_err();
        }
        queue.close(); // those still in the queue find their answer gone and are refused
    }

    /// One group commit. An error has failed the volume.
    fn commit(&self, batch: Vec<Append>) -> Result<(), ()> {
        let start = self.volume.begin_flight();
        let placed = self.place(batch, start);
        let Some(last) = placed.last() else {
            self.volume.end_flight();
            return Ok(());
        };
        let (end, last_stamp) = (last.end(), last.stamp);
        if let Err(error) = self.volume.data.write_at(&pieces(&placed), start) {
            if !error.is_no_space() {
                return self.fail(placed, &error);
            }
            let refusal = self.volume.undo_write();
            if !matches!(refusal, VolumeError::DiskFull(_)) {
                return self.fail(placed, &error);
            }
            tracing::warn!(volume = %self.volume.id(), %error, "append refused");
            self.volume.end_flight();
            refuse(placed, || VolumeError::DiskFull(self.volume.id()));
            return Ok(());
        }
        if let Err(error) = self.volume.data.sync_data() {
            return self.fail(placed, &error); // rule 6: no retry
        }
        let needles: Vec<Entry> =
            placed.iter().map(|needle| (needle.append.key, Place::new(needle.offset, needle.length()))).collect();
        if let Err(error) = self.volume.commit(&mut self.volume.journal.lock(), &needles, end, last_stamp) {
            return self.fail(placed, &error);
        }
        self.volume.end_flight();
        for needle in placed {
            let appended = Appended { end_offset: needle.end(), stamp: needle.stamp };
            let _ = needle.append.answer.send(Ok(appended)); // a caller that has gone needs no answer
        }
        Ok(())
    }

    /// Gives each needle of the batch that the volume can take its place and stamp, and answers the others.
    fn place(&self, batch: Vec<Append>, start: u64) -> Vec<Placed> {
        let mut placing = Placing::new(&self.volume, &self.clock, self.size_max, start);
        let mut placed = Vec::with_capacity(batch.len());
        for append in batch {
            match placing.place(append.key, append.cookie, &append.table, &append.data) {
                Ok(Seat { offset, stamp, front }) => placed.push(Placed { append, offset, stamp, front }),
                Err(refusal) => {
                    let _ = append.answer.send(Err(refusal));
                }
            }
        }
        placed
    }

    /// Fails the volume and refuses the batch. The flight does not end: what is in the file behind the committed bytes may
    /// still turn out to be there, so the volume is not closed any further (rule 13).
    fn fail(&self, placed: Vec<Placed>, error: &meridian_env::DiskError) -> Result<(), ()> {
        self.volume.fail(error);
        refuse(placed, || self.volume.refusal());
        Err(())
    }
}

fn refuse(placed: Vec<Placed>, refusal: impl Fn() -> VolumeError) {
    for needle in placed {
        let _ = needle.append.answer.send(Err(refusal()));
    }
}

fn pieces(placed: &[Placed]) -> Vec<IoSlice<'_>> {
    const ZEROS: [u8; ALIGNMENT as usize] = [0; ALIGNMENT as usize];
    let mut pieces = Vec::with_capacity(placed.len() * 3);
    for needle in placed {
        let padding = needle.end() - needle.offset - (needle.front.len() + needle.append.data.len()) as u64;
        pieces.push(IoSlice::new(&needle.front));
        pieces.push(IoSlice::new(&needle.append.data));
        pieces.push(IoSlice::new(&ZEROS[..padding as usize]));
    }
    pieces
}
