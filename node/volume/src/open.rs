//! Creates a volume's files, and opens them again after whatever happened.
//!
//! What a start does, and why in this order: the state file says what the volume is; the index journal tells of the needles up
//! to some offset and how much was surely committed; the data behind that offset is scanned; an end that a crash tore is
//! cut; then everything that is left is synced, because after a kill it may still be only in the page cache, and a reader
//! or mirror may see only durable bytes (rule 2). The journals come last: they only repeat what the data says.
//!
//! Invariants: nothing that was acknowledged is cut; everything else that fails its checksum is listed, and stays.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use meridian_env::{Disk, DiskFile};
use meridian_types::limits::VOLUME_SIZE_MAX;
use meridian_types::{Epoch, Timestamp};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::deletes::DeleteJournal;
use crate::file_header::{self, FileHeader, FileKind, VOLUME_HEADER_SIZE};
use crate::index::{Index, Place};
use crate::journal::{Entry, IndexJournal};
use crate::needle::{FileIdentity, span};
use crate::replica_file::Pending;
use crate::scan::{Evidence, Scan, cut_at, scan};
use crate::state::{Phase, VolumeState};
use crate::volume::{Files, Journal, Tail, Volume};
use crate::{DamagedRange, ReplicaRole, VolumeError, VolumeHeader};

/// Makes the files of a new, empty volume; all durable on return. What an interrupted creation left is replaced.
pub(crate) fn create(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    header: &VolumeHeader,
    (role, phase): (ReplicaRole, Phase),
    changed: &Arc<watch::Sender<u64>>,
) -> Result<Volume, VolumeError> {
    let VolumeHeader { volume, generation, epoch, code } = *header;
    let files = Files::new(directory, volume, generation);
    let file_header = FileHeader { identity: FileIdentity { volume, generation }, code };
    refuse_leftovers(&**disk, &files)?;
    disk.remove(&files.data)?;
    disk.remove(&files.deletes)?;
    let data = disk.create(&files.data)?;
    data.write_at(&[IoSlice::new(&file_header::encode(FileKind::Data, &file_header))], 0)?;
    data.sync_data()?;
    IndexJournal::create(&**disk, &files.index, &file_header)?;
    // Last, and with the directory's sync: a volume with a state file has all its files.
    let state = VolumeState { volume, generation, epoch, code, role, phase, committed: VOLUME_HEADER_SIZE };
    state.write(&**disk, &files.state)?;
    open(disk, &files, changed)
}

/// Refuses to replace files that may hold needles.
fn refuse_leftovers(disk: &dyn Disk, files: &Files) -> Result<(), VolumeError> {
    let bad = |path: &Path, reason: &str| {
        Err(VolumeError::BadFile { file: path.display().to_string(), reason: reason.to_owned() })
    };
    match disk.open(&files.state) {
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
        Ok(_) => return bad(&files.state, "it exists, but its volume could not be opened"),
    }
    match disk.open(&files.data) {
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
        Ok(file) if file.length()? > VOLUME_HEADER_SIZE => bad(&files.data, "it holds needles, but has no state file"),
        Ok(_) => Ok(()),
    }
}

/// Opens a volume, repairing a torn end.
///
/// # Errors
/// `BadFile` when it can't be said which volume this is; `Disk`.
pub(crate) fn open(
    disk: &Arc<dyn Disk>,
    files: &Files,
    changed: &Arc<watch::Sender<u64>>,
) -> Result<Volume, VolumeError> {
    let data = disk.open(&files.data)?;
    let mut first = [0; VOLUME_HEADER_SIZE as usize];
    let read = data.read_at(&mut first, 0)?;
    let found = file_header::decode(FileKind::Data, &first[..read]);
    let mut damaged = Vec::new();
    let mut failed = None;
    let state = match (VolumeState::read(&**disk, &files.state)?, &found) {
        (Ok(state), Ok(found))
            if (state.volume, state.generation) != (found.identity.volume, found.identity.generation) =>
        {
            return Err(bad_file(files, format!("it is of volume {}", found.identity.volume)));
        }
        (Ok(state), Ok(_)) => state,
        (Ok(state), Err(reason)) => {
            tracing::error!(file = %files.data.display(), reason, "volume file header damaged");
            damaged.push(DamagedRange { offset: 0, length: VOLUME_HEADER_SIZE, key: None });
            state
        }
        (Err(error), Ok(found)) => {
            failed = Some(format!("its state file is damaged: {error}"));
            VolumeState {
                volume: found.identity.volume,
                generation: found.identity.generation,
                epoch: Epoch::default(),
                code: found.code,
                role: ReplicaRole::Sole,
                phase: Phase::Open,
                committed: VOLUME_HEADER_SIZE,
            }
        }
        (Err(error), Err(reason)) => return Err(bad_file(files, format!("{reason}, and its state: {error}"))),
    };
    let identity = FileIdentity { volume: state.volume, generation: state.generation };
    let header = FileHeader { identity, code: state.code };

    let recovery = Recovery { disk, files, data: &data, header, state: &state };
    let mut recovered = recovery.run()?;
    recovered.damaged.extend(damaged);
    let failed = failed.or(recovered.failed);

    let deletes = DeleteJournal::load(disk.clone(), files.deletes.clone(), header)?;
    if let Phase::Sealed { .. } = state.phase {
        recovered.index.seal();
    }
    for (key, offset) in deletes.deletes {
        recovered.index.remove(key, offset);
    }
    if let Some(reason) = &failed {
        tracing::error!(volume = %state.volume, reason, "volume failed at its start");
    }
    // What is gone was stamped below: a volume that lost bytes closes nothing (rule 13).
    let closed = if recovered.acknowledged > recovered.committed { Timestamp::ZERO } else { recovered.last };
    Ok(Volume {
        identity,
        code: state.code,
        role: state.role,
        files: files.clone(),
        disk: disk.clone(),
        data,
        index: RwLock::new(recovered.index),
        deletes: deletes.journal,
        deletes_damaged: deletes.damaged,
        tail: Mutex::new(Tail {
            committed: recovered.committed,
            durable: recovered.durable,
            // What is gone was stamped below: a volume that lost bytes closes nothing (rule 13).
            closed,
            close_wanted: closed,
            acknowledged: recovered.acknowledged,
            in_flight: recovered.durable > recovered.committed,
            phase: state.phase,
            epoch: state.epoch,
            failed,
            stopping: false,
            damaged: recovered.damaged,
        }),
        journal: Mutex::new(Journal { synced_through: recovered.journal.through(), blocks: recovered.journal }),
        lifecycle: Mutex::new(()),
        pending: Mutex::new(recovered.pending),
        changed: changed.clone(),
    })
}

fn bad_file(files: &Files, reason: String) -> VolumeError {
    VolumeError::BadFile { file: files.data.display().to_string(), reason }
}

struct Recovery<'a> {
    disk: &'a Arc<dyn Disk>,
    files: &'a Files,
    data: &'a Arc<dyn DiskFile>,
    header: FileHeader,
    state: &'a VolumeState,
}

struct Recovered {
    index: Index,
    journal: IndexJournal,
    committed: u64,
    durable: u64,
    /// What lies between the two.
    pending: Pending,
    /// The greatest committed length that was recorded: above `committed` when acknowledged bytes are gone.
    acknowledged: u64,
    last: Timestamp,
    damaged: Vec<DamagedRange>,
    failed: Option<String>,
}

impl Recovery<'_> {
    fn run(&self) -> Result<Recovered, VolumeError> {
        let sealed = match self.state.phase {
            Phase::Sealed { length } => Some(length),
            Phase::Open | Phase::Fenced | Phase::Filling => None,
        };
        let mut index = if sealed.is_some() { Index::gathering() } else { Index::default() };
        let loaded = IndexJournal::load(&**self.disk, &self.files.index, &self.header, &mut |(key, place): Entry| {
            if sealed.is_none_or(|sealed| place.offset() + span(place.length) <= sealed) {
                index.insert(key, place);
            }
        })?;
        let mut journal = loaded.journal;
        let length = self.cut_to_sealed(sealed)?.min(VOLUME_SIZE_MAX);
        let recorded = sealed.unwrap_or(loaded.recorded.max(self.state.committed));
        if length < recorded {
            // Rule 1: acknowledged bytes are gone. The volume reads what is left, so that it can be compared and copied.
            let failed = Some(format!("its file has {length} of {recorded} committed bytes"));
            let scan = scan(self.data, self.header.identity, journal.through().min(length), length)?;
            let last = journal.stamp().max(last_stamp(&scan));
            insert(&mut index, &scan);
            let damaged = [loaded.damaged, scan.damaged].concat();
            let (committed, durable, pending) = (length, length, Pending::default());
            let acknowledged = recorded;
            return Ok(Recovered { index, journal, committed, durable, pending, acknowledged, last, damaged, failed });
        }

        let told = journal.through().min(length);
        let mut scanned = scan(self.data, self.header.identity, told, recorded.max(told))?;
        let mut behind = scan(self.data, self.header.identity, recorded.max(told), length)?;
        let mut end = length;
        let copied = self.state.role == ReplicaRole::Mirror || self.state.phase == Phase::Filling;
        let evidence = match (loaded.intact, copied) {
            (false, _) => Evidence::None,
            (true, true) => Evidence::Mirror,
            (true, false) => Evidence::Own,
        };
        if let Some(cut) = cut_at(&behind, length, evidence) {
            tracing::warn!(volume = %self.state.volume, at = cut, bytes = length - cut, ?evidence, "torn end of a volume cut");
            self.data.truncate(cut)?;
            behind.needles.retain(|found| found.offset < cut);
            behind.damaged.retain(|range| range.offset < cut);
            end = cut;
        }
        if length > told {
            self.data.sync_data()?; // rule 2: only what is durable is shown
        }
        // Where others have a say, what is not known to be committed waits for them, or for the seal (rule 2).
        let waits = self.state.role.is_replicated() && sealed.is_none() && !copied;
        let mut pending = Pending::default();
        let mut committed = end;
        if waits {
            committed = recorded.max(told);
            behind.needles.drain(..).for_each(|found| pending.push(found));
        }
        scanned.needles.append(&mut behind.needles);
        let mut later = std::mem::take(&mut behind.damaged);
        if !waits {
            scanned.damaged.append(&mut later);
        }

        let last = journal.stamp().max(last_stamp(&scanned));
        let entries = insert(&mut index, &scanned);
        if committed > journal.through() {
            journal.append(&entries, committed, last)?;
            journal.append_damaged(&scanned.damaged)?;
            journal.sync()?;
        }
        let damaged = [loaded.damaged, scanned.damaged, later].concat();
        let (durable, acknowledged, failed) = (end, committed, None);
        Ok(Recovered { index, journal, committed, durable, pending, acknowledged, last, damaged, failed })
    }

    /// Rule 2: a replica beyond the sealed length truncates before it serves. Returns the file's length.
    fn cut_to_sealed(&self, sealed: Option<u64>) -> Result<u64, VolumeError> {
        let length = self.data.length()?;
        match sealed {
            Some(sealed) if length > sealed => {
                self.data.truncate(sealed)?;
                self.data.sync_data()?;
                Ok(sealed)
            }
            _ => Ok(length),
        }
    }
}

fn insert(index: &mut Index, scan: &Scan) -> Vec<Entry> {
    let entries: Vec<Entry> =
        scan.needles.iter().map(|found| (found.key, Place::new(found.offset, found.length))).collect();
    for (key, place) in &entries {
        index.insert(*key, *place);
    }
    entries
}

fn last_stamp(scan: &Scan) -> Timestamp {
    scan.needles.iter().filter(|found| found.whole).map(|found| found.stamp).max().unwrap_or_default()
}
