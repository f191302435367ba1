//! One volume in memory: its files, its index, and how far it is committed.
//!
//! Who changes what: the appender thread (own volumes) or `mirror` (mirrors) write the data file and call `commit`;
//! `fence` and `seal_at` end the volume; readers only look. Locks are held for moments, except `journal` and `lifecycle`,
//! which the one writer holds across its I/O.
//!
//! Invariants:
//! - `committed` counts durable bytes only, ends at a needle's end, and never goes back while the volume is open; readers and
//!   mirrors see nothing behind it (rule 2).
//! - Every needle with a stamp up to `closed` is before `committed`, and no later append gets such a stamp (rule 13).
//! - A volume that failed stays failed: nothing is acknowledged after that (rule 6).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use meridian_env::{Disk, DiskError, DiskFile};
use meridian_types::{Epoch, Fid, FileGeneration, NeedleKey, ReplicaCode, Timestamp, VolumeId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::deletes::DeleteJournal;
use crate::file_header::VOLUME_HEADER_SIZE;
use crate::index::{Index, Place};
use crate::journal::{Entry, IndexJournal};
use crate::needle::FileIdentity;
use crate::replica_file::Pending;
use crate::state::{Phase, VolumeState};
use crate::{DamagedRange, FenceReport, ReplicaRole, VolumeError, VolumeHeader, VolumeStatus};

/// Most damaged ranges that are listed of one volume.
const DAMAGED_RANGES_MAX: usize = 65_536;
/// An own volume's index journal is synced when it tells of this many bytes more: what a start after a power cut scans.
const JOURNAL_SYNC_EVERY_BYTES: u64 = 64 << 20;

/// The paths of a volume's files.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) state: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) index: PathBuf,
    pub(crate) deletes: PathBuf,
}

impl Files {
    pub(crate) const STATE: &'static str = ".state";
    pub(crate) const DATA: &'static str = ".data";

    pub(crate) fn new(directory: &Path, volume: VolumeId, generation: FileGeneration) -> Self {
        Self::of_stem(directory, &format!("{volume}-{generation}"))
    }

    pub(crate) fn of_stem(directory: &Path, stem: &str) -> Self {
        let path = |ending: &str| directory.join(format!("{stem}{ending}"));
        Self { state: path(Self::STATE), data: path(Self::DATA), index: path(".index"), deletes: path(".deletes") }
    }
}

/// What changes together, under one lock.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) committed: u64,
    /// What is durable here: above `committed` only where other replicas have a say in that.
    pub(crate) durable: u64,
    pub(crate) closed: Timestamp,
    /// No append gets a stamp up to this, but one that has such a stamp may be in flight.
    pub(crate) close_wanted: Timestamp,
    /// The committed length recorded at the start: above `committed` when acknowledged bytes are gone.
    pub(crate) acknowledged: u64,
    /// Stamps are given to needles that are not committed yet.
    pub(crate) in_flight: bool,
    pub(crate) phase: Phase,
    pub(crate) epoch: Epoch,
    pub(crate) failed: Option<String>,
    pub(crate) stopping: bool,
    pub(crate) damaged: Vec<DamagedRange>,
}

/// See the module.
pub(crate) struct Volume {
    pub(crate) identity: FileIdentity,
    pub(crate) code: ReplicaCode,
    pub(crate) role: ReplicaRole,
    pub(crate) files: Files,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) data: Arc<dyn DiskFile>,
    pub(crate) index: RwLock<Index>,
    pub(crate) deletes: DeleteJournal,
    pub(crate) deletes_damaged: u64,
    pub(crate) tail: Mutex<Tail>,
    /// Held by whoever writes needles, across the I/O.
    pub(crate) journal: Mutex<Journal>,
    /// Held while the state file is written.
    pub(crate) lifecycle: Mutex<()>,
    /// Needles that are in the file between `committed` and its end.
    pub(crate) pending: Mutex<Pending>,
    pub(crate) changed: Arc<watch::Sender<u64>>,
}

/// The index journal and when it was synced.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) blocks: IndexJournal,
    pub(crate) synced_through: u64,
}

impl Volume {
    pub(crate) fn id(&self) -> VolumeId {
        self.identity.volume
    }

    pub(crate) fn status(&self) -> VolumeStatus {
        let (needles, bytes) = {
            let index = self.index.read();
            (index.needles(), index.bytes())
        };
        let tail = self.tail.lock();
        VolumeStatus {
            header: VolumeHeader {
                volume: self.identity.volume,
                generation: self.identity.generation,
                epoch: tail.epoch,
                code: self.code,
            },
            committed: tail.committed,
            closed: tail.closed,
            sealed: matches!(tail.phase, Phase::Sealed { .. }),
            fenced: tail.phase == Phase::Fenced,
            mirror: self.role == ReplicaRole::Mirror,
            role: self.role,
            durable: tail.durable,
            filling: tail.phase == Phase::Filling,
            needles,
            bytes,
            damaged: tail.damaged.clone(),
            deletes_damaged: self.deletes_damaged,
            failed: tail.failed.clone(),
        }
    }

    pub(crate) fn committed(&self) -> u64 {
        self.tail.lock().committed
    }

    /// Refuses appends and mirrored bytes when the volume takes none.
    pub(crate) fn check_open(&self) -> Result<(), VolumeError> {
        let tail = self.tail.lock();
        if tail.failed.is_none() && tail.phase == Phase::Open && !tail.stopping {
            return Ok(());
        }
        Err(self.refusal_of(&tail))
    }

    /// Refuses bytes that are copied from elsewhere, unless the file is a mirror or being filled.
    pub(crate) fn check_takes_copies(&self) -> Result<(), VolumeError> {
        let tail = self.tail.lock();
        let takes = match tail.phase {
            Phase::Filling => true,
            _ if self.role != ReplicaRole::Mirror => return Err(VolumeError::NotMirror(self.id())),
            phase => phase == Phase::Open,
        };
        if takes && tail.failed.is_none() && !tail.stopping { Ok(()) } else { Err(self.refusal_of(&tail)) }
    }

    /// Why the volume took no more, once it has been found that it does not.
    pub(crate) fn refusal(&self) -> VolumeError {
        self.refusal_of(&self.tail.lock())
    }

    fn refusal_of(&self, tail: &Tail) -> VolumeError {
        let volume = self.id();
        match &tail.failed {
            Some(reason) => VolumeError::Failed { volume, reason: reason.clone() },
            None if tail.phase != Phase::Open => VolumeError::Sealed(volume),
            None if tail.stopping => VolumeError::ShuttingDown,
            None => VolumeError::Failed { volume, reason: "its appender has ended".to_owned() },
        }
    }

    pub(crate) fn check_generation(&self, asked: FileGeneration) -> Result<(), VolumeError> {
        let current = self.identity.generation;
        if asked == current { Ok(()) } else { Err(VolumeError::WrongGeneration { volume: self.id(), current, asked }) }
    }

    /// Fails the volume for good (rule 6).
    pub(crate) fn fail(&self, error: &dyn std::fmt::Display) -> VolumeError {
        let reason = error.to_string();
        tracing::error!(volume = %self.id(), reason, "volume failed");
        self.tail.lock().failed.get_or_insert_with(|| reason.clone());
        self.bump();
        VolumeError::Failed { volume: self.id(), reason }
    }

    /// Cuts off what a failed write left behind the committed bytes, when the disk was only full.
    pub(crate) fn undo_write(&self) -> VolumeError {
        match self.data.truncate(self.committed()) {
            Ok(()) => VolumeError::DiskFull(self.id()),
            Err(error) => self.fail(&error),
        }
    }

    /// Publishes needles that are durable, up to `to`. First the journal, so that a kill after the answer finds the proof
    /// there; then the index, so that whoever sees the new length can read what is below it.
    pub(crate) fn commit(
        &self,
        journal: &mut Journal,
        needles: &[Entry],
        to: u64,
        last: Timestamp,
    ) -> Result<(), DiskError> {
        journal.blocks.append(needles, to, last)?;
        if to - journal.synced_through >= JOURNAL_SYNC_EVERY_BYTES {
            journal.blocks.sync()?;
            journal.synced_through = to;
        }
        self.publish(needles, to, last);
        Ok(())
    }

    /// The part of `commit` that is in memory.
    pub(crate) fn publish(&self, needles: &[Entry], to: u64, last: Timestamp) {
        {
            let mut index = self.index.write();
            for (key, place) in needles {
                index.insert(*key, *place);
            }
        }
        let mut tail = self.tail.lock();
        assert!(to >= tail.committed, "a committed length never goes back");
        tail.committed = to;
        tail.durable = tail.durable.max(to);
        tail.closed = tail.closed.max(last);
        drop(tail);
        self.bump();
    }

    /// Stamps may be given from here on; they are not committed before `end_flight`.
    pub(crate) fn begin_flight(&self) -> u64 {
        let mut tail = self.tail.lock();
        tail.in_flight = true;
        tail.committed
    }

    /// All stamps that were given are committed or will never be.
    pub(crate) fn end_flight(&self) {
        let mut tail = self.tail.lock();
        tail.in_flight = false;
        let moved = tail.close_wanted > tail.closed;
        tail.closed = tail.closed.max(tail.close_wanted);
        drop(tail);
        if moved {
            self.bump();
        }
    }

    /// `first` is the stamp of the first needle that is not committed yet, if there is one: stamps rise, so everything
    /// below it is committed, and a volume that is never idle is closed all the same.
    pub(crate) fn end_flight_before(&self, first: Option<Timestamp>) {
        let Some(first) = first else { return self.end_flight() };
        let mut tail = self.tail.lock();
        let below = Timestamp::from_raw(first.raw().saturating_sub(1)).min(tail.close_wanted);
        let moved = below > tail.closed;
        tail.closed = tail.closed.max(below);
        drop(tail);
        if moved {
            self.bump();
        }
    }

    /// No later append gets a stamp up to `t`: the caller has made the clock observe it. True when `closed` moved.
    ///
    /// A failed volume is not closed before it is sealed: what was in flight may still turn out to be there (rule 13).
    pub(crate) fn close_through(&self, t: Timestamp) -> bool {
        let mut tail = self.tail.lock();
        let sealed = matches!(tail.phase, Phase::Sealed { .. });
        let theirs = match self.role {
            ReplicaRole::Mirror => true,
            ReplicaRole::Secondary => !sealed, // the primary stamps, so only it can promise
            ReplicaRole::Sole | ReplicaRole::Primary => false,
        };
        if theirs || t <= tail.close_wanted || tail.acknowledged > tail.committed {
            return false;
        }
        tail.close_wanted = t;
        if (tail.in_flight || tail.failed.is_some()) && !sealed {
            return false;
        }
        let moved = t > tail.closed;
        tail.closed = tail.closed.max(t);
        moved
    }

    /// Records `epoch`; from then on the volume takes nothing more (rule 1). The caller then waits for what is in flight.
    pub(crate) fn fence(&self, epoch: Epoch) -> Result<(), VolumeError> {
        let _lifecycle = self.lifecycle.lock();
        let (current, phase) = {
            let tail = self.tail.lock();
            (tail.epoch, tail.phase)
        };
        if epoch == current && phase != Phase::Open {
            return Ok(()); // asked again
        }
        if phase == Phase::Filling {
            return Err(VolumeError::Filling(self.id()));
        }
        if epoch <= current || phase != Phase::Open {
            return Err(VolumeError::StaleEpoch { volume: self.id(), current, asked: epoch });
        }
        self.write_state(Phase::Fenced, epoch)?;
        let mut tail = self.tail.lock();
        (tail.phase, tail.epoch) = (Phase::Fenced, epoch);
        drop(tail);
        self.bump();
        Ok(())
    }

    /// What is durable here, as long as nothing that was acknowledged is missing from it (rule 1).
    pub(crate) fn fence_report(&self) -> Result<FenceReport, VolumeError> {
        let tail = self.tail.lock();
        if tail.durable < tail.acknowledged {
            let (volume, committed, sealed) = (self.id(), tail.durable, tail.acknowledged);
            return Err(VolumeError::Incomplete { volume, committed, sealed });
        }
        Ok(FenceReport { epoch: tail.epoch, length: tail.durable, committed: tail.committed })
    }

    /// Ends a fenced volume at `length`. The record comes first: a replica that is longer cuts itself before it serves
    /// (rule 2), at its next start if it does not get to it now.
    pub(crate) fn seal_at(&self, epoch: Epoch, length: u64) -> Result<(), VolumeError> {
        let volume = self.id();
        let _lifecycle = self.lifecycle.lock();
        let (current, phase, committed, durable) = {
            let tail = self.tail.lock();
            (tail.epoch, tail.phase, tail.committed, tail.durable)
        };
        match phase {
            Phase::Sealed { length: sealed } if epoch == current && sealed == length => return Ok(()),
            Phase::Fenced | Phase::Filling if epoch == current => {}
            _ => return Err(VolumeError::StaleEpoch { volume, current, asked: epoch }),
        }
        if durable < length {
            return Err(VolumeError::Incomplete { volume, committed: durable, sealed: length });
        }
        if self.role.is_replicated() && length < committed {
            return Err(VolumeError::BelowCommitted { volume, committed, sealed: length });
        }
        let mut journal = self.journal.lock(); // nobody writes any more
        self.commit_pending(&mut journal, length)?;
        self.pending.lock().clear(); // what is behind the sealed length was never acknowledged
        journal.blocks.sync()?;
        self.write_state_of(Phase::Sealed { length }, epoch, length)?;
        if self.data.length()? > length {
            self.data.truncate(length)?;
            self.data.sync_data()?;
        }
        let mut index = self.index.write();
        index.truncate(length);
        index.seal();
        let mut tail = self.tail.lock();
        tail.phase = Phase::Sealed { length };
        (tail.committed, tail.durable) = (length, length);
        tail.in_flight = false;
        tail.closed = tail.closed.max(tail.close_wanted);
        drop((tail, index, journal));
        self.bump();
        Ok(())
    }

    /// Takes nothing more until the next start.
    pub(crate) fn stop(&self) {
        self.tail.lock().stopping = true;
    }

    /// Records the committed length, for a start that finds its index journal damaged.
    pub(crate) fn settle(&self) -> Result<(), DiskError> {
        let _lifecycle = self.lifecycle.lock();
        self.journal.lock().blocks.sync()?;
        let (phase, epoch) = {
            let tail = self.tail.lock();
            (tail.phase, tail.epoch)
        };
        match phase {
            Phase::Sealed { .. } => Ok(()),
            Phase::Open | Phase::Fenced | Phase::Filling => self.write_state(phase, epoch),
        }
    }

    pub(crate) fn write_state(&self, phase: Phase, epoch: Epoch) -> Result<(), DiskError> {
        self.write_state_of(phase, epoch, self.committed())
    }

    fn write_state_of(&self, phase: Phase, epoch: Epoch, committed: u64) -> Result<(), DiskError> {
        let FileIdentity { volume, generation } = self.identity;
        let state = VolumeState { volume, generation, epoch, code: self.code, role: self.role, phase, committed };
        state.write(&*self.disk, &self.files.state)
    }

    /// Lists bytes that fail their checksum, once.
    pub(crate) fn note_damage(&self, range: DamagedRange) {
        let mut tail = self.tail.lock();
        if tail.damaged.iter().any(|known| known.offset == range.offset) {
            return;
        }
        tracing::error!(volume = %self.id(), ?range, "damaged bytes in a volume");
        if tail.damaged.len() < DAMAGED_RANGES_MAX {
            tail.damaged.push(range);
        }
        drop(tail);
        self.bump();
    }

    /// Where a needle is.
    ///
    /// # Errors
    /// `MaybeDamaged` when it may be in a range whose needles are not known: its absence is not proven.
    pub(crate) fn find(&self, fid: Fid) -> Result<Place, VolumeError> {
        if let Some(place) = self.index.read().get(fid.key) {
            return Ok(place);
        }
        let unknown = |range: &DamagedRange| range.key.is_none() && range.offset >= VOLUME_HEADER_SIZE;
        let unknown = self.tail.lock().damaged.iter().any(unknown);
        Err(if unknown { VolumeError::MaybeDamaged(fid) } else { VolumeError::NoSuchNeedle(fid) })
    }

    pub(crate) fn has_key(&self, key: NeedleKey) -> bool {
        self.index.read().get(key).is_some() || self.pending.lock().has(key)
    }

    pub(crate) fn bump(&self) {
        self.changed.send_modify(|changes| *changes += 1);
    }
}
