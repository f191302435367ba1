//! All volumes of a node's disk, own ones and mirrors: the interface of this crate.
//!
//! It finds a volume and hands the call to what does it; which volume to write to, who mirrors what, and when one is sealed
//! is for others to decide.
//!
//! Invariants: one appender thread for each open own volume; a volume is in the set only when its files are durable.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use meridian_env::{Disk, DiskError, HybridClock};
use meridian_types::limits::{NEEDLE_SIZE_MAX, VOLUME_SIZE_MAX};
use meridian_types::{Cookie, Epoch, Fid, FileGeneration, NeedleKey, Timestamp, VolumeId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::appender::Appender;
use crate::reader::{self, blocking};
use crate::replica_file::ReplicaFile;
use crate::state::Phase;
use crate::status::{Appended, FenceReport, ReplicaRole, VolumeHeader, VolumeOptions, VolumeStatus};
use crate::volume::{Files, Volume};
use crate::{VolumeError, mirror, open, repair};

/// See the module.
pub struct VolumeSet {
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    clock: Arc<HybridClock>,
    size_max: u64,
    slots: RwLock<BTreeMap<VolumeId, Arc<Slot>>>,
    /// One creation at a time.
    creating: Mutex<()>,
    unopened: Vec<(String, String)>,
    changed: Arc<watch::Sender<u64>>,
}

struct Slot {
    volume: Arc<Volume>,
    appender: Option<Appender>,
}

impl VolumeSet {
    /// Opens all volumes in `directory`, which is made if need be. Blocks on the disk.
    ///
    /// A volume that can't be opened does not keep the others from it: see `unopened`.
    ///
    /// # Errors
    /// `Disk` when the directory itself can't be read.
    pub fn open(directory: &Path, disk: Arc<dyn Disk>, clock: Arc<HybridClock>) -> Result<Arc<Self>, VolumeError> {
        Self::open_with(directory, disk, clock, VolumeOptions::default())
    }

    /// `open` with settings.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_with(
        directory: &Path,
        disk: Arc<dyn Disk>,
        clock: Arc<HybridClock>,
        options: VolumeOptions,
    ) -> Result<Arc<Self>, VolumeError> {
        disk.create_directory(directory)?;
        let mut set = Self {
            directory: directory.to_owned(),
            disk,
            clock,
            size_max: options.size_max.min(VOLUME_SIZE_MAX),
            slots: RwLock::default(),
            creating: Mutex::default(),
            unopened: Vec::new(),
            changed: Arc::new(watch::Sender::new(0)),
        };
        for (stem, has_state) in stems(&set.disk.list(directory)?) {
            if let Err(error) = set.open_one(&stem, has_state) {
                tracing::error!(file = stem, %error, "volume not opened");
                set.unopened.push((stem, error.to_string()));
            }
        }
        Ok(Arc::new(set))
    }

    fn open_one(&self, stem: &str, has_state: bool) -> Result<(), VolumeError> {
        let files = Files::of_stem(&self.directory, stem);
        if !has_state {
            // What an interrupted creation leaves is empty; anything else is somebody's needles.
            if self.disk.open(&files.data)?.length()? <= crate::VOLUME_HEADER_SIZE {
                return Ok(());
            }
            let reason = "it holds needles, but has no state file".to_owned();
            return Err(VolumeError::BadFile { file: files.data.display().to_string(), reason });
        }
        let volume = open::open(&self.disk, &files, &self.changed)?;
        if self.slots.read().contains_key(&volume.id()) {
            let reason = "another file of this volume is open".to_owned();
            return Err(VolumeError::BadFile { file: files.data.display().to_string(), reason });
        }
        self.add(volume)
    }

    fn add(&self, volume: Volume) -> Result<(), VolumeError> {
        let volume = Arc::new(volume);
        let appends = volume.role == ReplicaRole::Sole && {
            let tail = volume.tail.lock();
            tail.phase == Phase::Open && tail.failed.is_none()
        };
        let appender = if appends {
            let started = Appender::start(volume.clone(), self.clock.clone(), self.size_max);
            let failed =
                |source| DiskError::Io { act: "start the appender of", path: volume.files.data.clone(), source };
            Some(started.map_err(failed)?)
        } else {
            None
        };
        self.slots.write().insert(volume.id(), Arc::new(Slot { volume, appender }));
        self.changed.send_modify(|changes| *changes += 1);
        Ok(())
    }

    fn slot(&self, volume: VolumeId) -> Result<Arc<Slot>, VolumeError> {
        self.slots.read().get(&volume).cloned().ok_or(VolumeError::NoSuchVolume(volume))
    }

    fn slots(&self) -> Vec<Arc<Slot>> {
        self.slots.read().values().cloned().collect()
    }

    /// Makes a new own volume; durable on return: its primary replica if its code asks for others in this datacenter, else
    /// its only one. The same header again is no error. Blocks on the disk.
    ///
    /// # Errors
    /// `Exists` with another code, generation or role; `BadFile` when files are in the way; `Disk`.
    pub fn create(&self, header: VolumeHeader) -> Result<(), VolumeError> {
        let others = header.code.other_racks() + header.code.same_rack();
        let role = if others > 0 { ReplicaRole::Primary } else { ReplicaRole::Sole };
        self.create_as(header, role, Phase::Open)
    }

    /// Makes an empty secondary replica, to which the primary appends; else as `create`.
    ///
    /// # Errors
    /// As `create`.
    pub fn create_secondary(&self, header: VolumeHeader) -> Result<(), VolumeError> {
        self.create_as(header, ReplicaRole::Secondary, Phase::Open)
    }

    /// Begins a copy of a sealed volume, whose epoch the header names: `fill` brings the bytes, `seal_at` ends it. A short
    /// replica that is here already goes on from its durable end. Blocks on the disk.
    ///
    /// # Errors
    /// As `create`; `StaleEpoch` when the replica here is sealed.
    pub fn begin_filling(&self, header: VolumeHeader) -> Result<u64, VolumeError> {
        if self.slot(header.volume).is_err() {
            self.create_as(header, ReplicaRole::Secondary, Phase::Filling)?;
        }
        repair::begin_filling(&self.slot(header.volume)?.volume, header.epoch)
    }

    /// Makes the empty mirror of another datacenter's volume; else as `create`.
    ///
    /// # Errors
    /// As `create`.
    pub fn create_mirror(&self, header: VolumeHeader) -> Result<(), VolumeError> {
        self.create_as(header, ReplicaRole::Mirror, Phase::Open)
    }

    fn create_as(&self, header: VolumeHeader, role: ReplicaRole, phase: Phase) -> Result<(), VolumeError> {
        let _creating = self.creating.lock();
        if let Ok(slot) = self.slot(header.volume) {
            let volume = &slot.volume;
            let same = (volume.identity.generation, volume.code, volume.role) == (header.generation, header.code, role);
            return if same { Ok(()) } else { Err(VolumeError::Exists(header.volume)) };
        }
        self.add(open::create(&self.disk, &self.directory, &header, (role, phase), &self.changed)?)
    }

    /// Appends a needle to an own volume; durable on return, together with everything appended before it.
    ///
    /// If the caller goes away while it waits, the needle may be appended all the same.
    ///
    /// # Errors
    /// `take_another` tells whether another volume may take it at once; `DiskFull`, `Clock`, `KeyUsed`, `NeedleTooLarge`,
    /// `ShuttingDown`. After `Failed` it is not known whether the needle is in the volume.
    pub async fn append(
        &self,
        volume: VolumeId,
        key: NeedleKey,
        cookie: Cookie,
        data: Bytes,
    ) -> Result<Appended, VolumeError> {
        if data.len() > NEEDLE_SIZE_MAX {
            return Err(VolumeError::NeedleTooLarge { size: data.len(), size_max: NEEDLE_SIZE_MAX });
        }
        let slot = self.slot(volume)?;
        match slot.volume.role {
            ReplicaRole::Sole => {}
            ReplicaRole::Mirror => return Err(VolumeError::IsMirror(volume)),
            ReplicaRole::Primary | ReplicaRole::Secondary => return Err(VolumeError::Replicated(volume)),
        }
        slot.volume.check_open()?;
        let appender = slot.appender.as_ref().ok_or_else(|| slot.volume.refusal())?;
        appender.append(&slot.volume, key, cookie, data).await
    }

    /// The bytes `range` of a needle's data, checked.
    ///
    /// # Errors
    /// `NoSuchNeedle` also for a wrong cookie; `MaybeDamaged` and `CorruptNeedle`: ask another copy; `RangeOutside`; `Disk`.
    pub async fn read(&self, fid: Fid, range: Range<u32>) -> Result<Bytes, VolumeError> {
        reader::read(self.slot(fid.volume)?.volume.clone(), fid, range).await
    }

    /// The first bytes of a needle's data, checked, at most `size_max` of them, and the size of all its data.
    ///
    /// # Errors
    /// As `read`.
    pub async fn read_prefix(&self, fid: Fid, size_max: u32) -> Result<(Bytes, u32), VolumeError> {
        reader::read_prefix(self.slot(fid.volume)?.volume.clone(), fid, size_max).await
    }

    /// The size of a needle's data in bytes, once its cookie is checked. May wait for the device, for one small read.
    ///
    /// # Errors
    /// As `read`.
    pub fn needle_size(&self, fid: Fid) -> Result<u32, VolumeError> {
        reader::size(&self.slot(fid.volume)?.volume, fid)
    }

    /// What the file of a volume is here.
    pub fn role(&self, volume: VolumeId) -> Option<ReplicaRole> {
        Some(self.slots.read().get(&volume)?.volume.role)
    }

    /// The file of a primary or secondary replica, for the one that replicates.
    ///
    /// # Errors
    /// `NoSuchVolume`; `IsMirror` or `Sealed` when it is no such replica, or takes nothing any more.
    pub fn replica(&self, volume: VolumeId) -> Result<ReplicaFile, VolumeError> {
        let slot = self.slot(volume)?;
        if !slot.volume.role.is_replicated() {
            return Err(VolumeError::IsMirror(volume));
        }
        slot.volume.check_open()?;
        Ok(ReplicaFile::new(slot.volume.clone(), self.clock.clone(), self.size_max))
    }

    /// Appends bytes of another replica from `offset` on to a copy in the making; else as `mirror_append`.
    ///
    /// # Errors
    /// As `mirror_append`.
    pub async fn fill(
        &self,
        volume: VolumeId,
        generation: FileGeneration,
        offset: u64,
        data: Bytes,
    ) -> Result<u64, VolumeError> {
        self.mirror_append(volume, generation, offset, data).await
    }

    /// Writes another replica's bytes over a damaged range of this one. They are whole needles from `offset` on, and are
    /// verified before and read back after; durable on return.
    ///
    /// # Errors
    /// `CorruptNeedle` when they are no better; `Gap` beyond the committed length; `WrongGeneration`, `Disk`.
    pub async fn repair(
        &self,
        volume: VolumeId,
        generation: FileGeneration,
        offset: u64,
        data: Bytes,
    ) -> Result<(), VolumeError> {
        let volume = self.slot(volume)?.volume.clone();
        volume.check_generation(generation)?;
        blocking(move || repair::repair(&volume, offset, &data)).await
    }

    /// What is known of a volume here.
    pub fn state(&self, volume: VolumeId) -> Option<VolumeStatus> {
        Some(self.slot(volume).ok()?.volume.status())
    }

    /// All volumes here, by id.
    pub fn states(&self) -> Vec<VolumeStatus> {
        self.slots().iter().map(|slot| slot.volume.status()).collect()
    }

    /// The volume files that could not be opened, with the reasons.
    pub fn unopened(&self) -> &[(String, String)] {
        &self.unopened
    }

    /// No later append of any own volume gets a stamp up to `t` (rule 13). A volume's `closed` reaches `t` as soon as what
    /// it has in flight is committed; that of a failed volume only when it is sealed.
    pub fn close_through(&self, t: Timestamp) {
        self.clock.observe(t); // first: from here on every stamp is above `t`
        let moved = self.slots().iter().filter(|slot| slot.volume.close_through(t)).count();
        if moved > 0 {
            self.changed.send_modify(|changes| *changes += 1);
        }
    }

    /// Changes whenever a committed length, a `closed`, or the standing of a volume moves. The number means nothing.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// At most `size_max` bytes of the volume file, up to its committed length and as they are there: not verified, and
    /// not cut at needles. Empty at the committed length.
    ///
    /// # Errors
    /// `WrongGeneration` (rule 4), `Gap` beyond the committed length, `Disk`.
    pub async fn read_raw(
        &self,
        volume: VolumeId,
        generation: FileGeneration,
        offset: u64,
        size_max: usize,
    ) -> Result<Bytes, VolumeError> {
        let volume = self.slot(volume)?.volume.clone();
        volume.check_generation(generation)?;
        reader::read_raw(volume, offset, size_max).await
    }

    /// Appends bytes of the source's file from `offset` on to a mirror, and returns the mirror's durable end.
    ///
    /// The bytes may start in what is here already and end inside a needle: only whole, verified needles behind the present
    /// end are kept. Without progress the caller needs more bytes at once: up to `NEEDLE_SPAN_MAX`.
    ///
    /// # Errors
    /// `CorruptNeedle`: the needles before it are kept and durable. `Gap`: ask from the committed length on. `DiskFull`:
    /// nothing was kept. `NotMirror`, `WrongGeneration`, `Sealed`, `Failed`.
    pub async fn mirror_append(
        &self,
        volume: VolumeId,
        generation: FileGeneration,
        offset: u64,
        data: Bytes,
    ) -> Result<u64, VolumeError> {
        let volume = self.slot(volume)?.volume.clone();
        volume.check_generation(generation)?;
        blocking(move || mirror::append(&volume, offset, &data)).await
    }

    /// Deletes a needle; durable on return. Its bytes stay until the volume is compacted.
    ///
    /// # Errors
    /// As `read`; `DiskFull`; `Failed` when the journal can't be written.
    pub async fn delete(&self, fid: Fid) -> Result<(), VolumeError> {
        let volume = self.slot(fid.volume)?.volume.clone();
        blocking(move || {
            let offset = reader::locate(&volume, fid)?;
            let answer = volume.deletes.enqueue((fid.key, offset));
            volume.deletes.flush(|deletes| {
                let mut index = volume.index.write();
                for (key, offset) in deletes {
                    index.remove(*key, *offset);
                }
            });
            volume.bump();
            match answer.blocking_recv() {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) if error.is_no_space() => Err(VolumeError::DiskFull(fid.volume)),
                Ok(Err(error)) => Err(VolumeError::Failed { volume: fid.volume, reason: error.to_string() }),
                Err(_) => Err(VolumeError::ShuttingDown),
            }
        })
        .await
    }

    /// Records `epoch`, refuses all further appends, waits for those in flight, and returns the committed length: the first
    /// half of a seal (rule 1). Asked again with the same epoch, it answers again.
    ///
    /// # Errors
    /// `StaleEpoch` when `epoch` is not above the volume's; `Disk`.
    pub async fn fence(&self, volume: VolumeId, epoch: Epoch) -> Result<u64, VolumeError> {
        Ok(self.fence_report(volume, epoch).await?.length)
    }

    /// `fence`, and what else is to be known of the replica (rule 1). A replica that is sealed at this epoch answers too.
    ///
    /// # Errors
    /// As `fence`; `Incomplete` when acknowledged bytes are gone from it; `Filling`.
    pub async fn fence_report(&self, volume: VolumeId, epoch: Epoch) -> Result<FenceReport, VolumeError> {
        let slot = self.slot(volume)?;
        blocking(move || {
            slot.volume.fence(epoch)?;
            if let Some(appender) = &slot.appender {
                appender.stop();
            }
            drop(slot.volume.journal.lock()); // a mirror's append in flight ends
            slot.volume.fence_report()
        })
        .await
    }

    /// Ends a fenced volume at `length`, cutting what is behind it (rule 2).
    ///
    /// # Errors
    /// `Incomplete` when less than that is here; `StaleEpoch` when it is not fenced at `epoch`; `Disk`.
    pub async fn seal_at(&self, volume: VolumeId, epoch: Epoch, length: u64) -> Result<(), VolumeError> {
        let slot = self.slot(volume)?;
        blocking(move || slot.volume.seal_at(epoch, length)).await
    }

    /// Fences a volume of which this is the only replica and seals it at its committed length, which is returned.
    ///
    /// # Errors
    /// As `fence`. `Disk` on a failed disk, which can record nothing: the volume takes no append there in this life of the
    /// process anyway (`state` still tells its committed length), and is to be fenced again after a restart, before use.
    pub async fn seal(&self, volume: VolumeId, epoch: Epoch) -> Result<u64, VolumeError> {
        let length = self.fence(volume, epoch).await?;
        self.seal_at(volume, epoch, length).await?;
        Ok(length)
    }

    /// Commits what is queued, refuses the rest, and records how far each volume is committed. Reads go on.
    pub async fn shutdown(&self) {
        for slot in self.slots() {
            let settled = blocking(move || {
                slot.volume.stop();
                if let Some(appender) = &slot.appender {
                    appender.stop();
                }
                if slot.volume.disk.failed().is_none() && slot.volume.tail.lock().failed.is_none() {
                    slot.volume.settle()?;
                }
                Ok(())
            });
            if let Err(error) = settled.await {
                tracing::warn!(%error, "volume not settled at shutdown; its next start scans more");
            }
        }
    }
}

/// The volumes that `names` are files of, the newest generation of each first, and whether each has a state file.
fn stems(names: &[String]) -> Vec<(String, bool)> {
    let with = |ending: &str| -> BTreeSet<&str> { names.iter().filter_map(|name| name.strip_suffix(ending)).collect() };
    let (states, data) = (with(Files::STATE), with(Files::DATA));
    let generation = |stem: &str| stem.rsplit_once('-').and_then(|(_, number)| number.parse::<u32>().ok());
    let mut stems: Vec<(String, bool)> =
        states.union(&data).map(|stem| ((*stem).to_owned(), states.contains(stem))).collect();
    stems.sort_by_key(|(stem, _)| std::cmp::Reverse(generation(stem)));
    stems
}
