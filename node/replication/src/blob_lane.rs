//! The blob lane: one task a source datacenter follows its volumes and fetches what this datacenter mirrors, range
//! by range, each needle verified and durable before it counts.
//!
//! What counts for W_data is decided by `replicator::DataWatermark`. Chunks travel when they are written, not when
//! their object commits. After a restart a mirror goes on at the durable length of its file.
//!
//! Invariants: one fetch a volume, `mirror_fetches_max` a source; a range that fails its checks time after time is
//! parked: listed, retried slowly, and W_data stands still (rule 5, 13).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meridian_replicator::{RegistryReport, VolumeReport};
use meridian_types::{DatacenterId, Epoch, FileGeneration, ReplicaCode, Timestamp, VolumeId};
use meridian_volume::{VOLUME_HEADER_SIZE, VolumeError, VolumeHeader};
use meridian_wire::replication::{VolumeInfo, VolumesReply, VolumesRequest};
use meridian_wire::{call, fields};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::bulk_server::{RANGE_BYTES_MAX, range_path};
use crate::driver::Inner;
use crate::error::reason_of;
use crate::sources::{LaneState, Source, SourceFacts};

/// Deadline of one range. Bytes that arrive before a stall are kept, so a slow link gets through all the same.
const RANGE_DEADLINE: Duration = Duration::from_secs(300);

/// A volume of the source, checked.
struct RemoteVolume {
    id: VolumeId,
    generation: FileGeneration,
    epoch: Epoch,
    code: ReplicaCode,
    committed: u64,
    closed: Timestamp,
    sealed: bool,
    mirrored_here: bool,
}

/// How far each mirror shall come; a running fetch sees it grow.
type Targets = Arc<Mutex<BTreeMap<VolumeId, Target>>>;

struct Target {
    committed: u64,
    fetching: bool,
}

/// Follows one source's volumes until the driver stops.
pub(crate) async fn run(inner: Arc<Inner>, source: Arc<Source>) {
    let limits = inner.config.limits.clone();
    let targets = Targets::default();
    let permits = Arc::new(Semaphore::new(limits.mirror_fetches_max));
    let mut fetches = JoinSet::new();
    let mut known_version = 0;
    let mut pause = limits.backoff_min;
    loop {
        while let Some(ended) = fetches.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "a mirror's fetch ended early; the next report starts it again");
            }
        }
        let request = VolumesRequest {
            caller: inner.config.local.caller(),
            known_version,
            wait_ms: limits.long_poll.as_millis() as u32,
        };
        let mut client = source.client();
        let deadline = limits.long_poll + limits.call_grace;
        let reply = call(deadline, request, |request| async move { client.list_volumes(request).await }).await;
        let problem = match reply {
            Ok(reply) => match take_report(&inner, &source, &reply).await {
                Ok(volumes) => {
                    (known_version, pause) = (reply.version, limits.backoff_min);
                    for volume in volumes {
                        start_fetch(&inner, &source, &targets, &permits, &mut fetches, volume);
                    }
                    continue;
                }
                Err(problem) => problem,
            },
            Err(status) => {
                source.prefer_another();
                known_version = 0; // versions of another life of the source say nothing
                reason_of(&status)
            }
        };
        source.update(|facts| facts.blob_lane = LaneState::Failing { reason: problem });
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(limits.backoff_max);
    }
}

/// Takes a report over: makes the files of new mirrors, then feeds the watermark. Returns the volumes to fetch; one
/// whose mirror can't be made now is shown and tried again with the next report, and holds up no other.
async fn take_report(inner: &Arc<Inner>, source: &Source, reply: &VolumesReply) -> Result<Vec<RemoteVolume>, String> {
    let check = |info| check_volume(info, source.id());
    let volumes = reply.volumes.iter().map(check).collect::<Result<Vec<_>, String>>()?;
    let mut failed = BTreeMap::new();
    for volume in volumes.iter().filter(|volume| volume.mirrored_here) {
        if inner.volumes.state(volume.id).is_none()
            && let Err(error) = create_mirror(inner, volume).await
        {
            tracing::warn!(volume = %volume.id, %error, "a mirror can't be made");
            failed.insert(volume.id, error);
        }
    }
    let report = RegistryReport {
        registry_closed: Timestamp::from_raw(reply.registry_closed),
        volumes: volumes.iter().map(volume_report).collect(),
    };
    source.update(|facts| {
        facts.blob_lane = LaneState::Answered;
        facts.watermark.report(&report);
        for volume in volumes.iter().filter(|volume| volume.mirrored_here) {
            take_mirror_state(inner, facts, volume);
        }
        facts.retrying.extend(failed.clone());
    });
    Ok(volumes.into_iter().filter(|volume| volume.mirrored_here && !failed.contains_key(&volume.id)).collect())
}

/// What this datacenter has of a volume, for the watermark. Ranges that are not to be trusted are parked first.
fn take_mirror_state(inner: &Inner, facts: &mut SourceFacts, volume: &RemoteVolume) {
    let Some(state) = inner.volumes.state(volume.id) else { return };
    if !state.mirror || state.header.generation != volume.generation {
        return;
    }
    // A volume that has no file yet says 0, and a new mirror is its header.
    if state.committed > volume.committed.max(VOLUME_HEADER_SIZE) {
        // Targets come from earlier reports, so a mirror is ahead only of a source that lost bytes (rule 1).
        facts.watermark.park(volume.id, volume.generation, 0..state.committed);
        let (has, had) = (volume.committed, state.committed);
        facts.parked.insert(volume.id, format!("the source has {has} bytes and had {had}: it went back in time"));
    }
    for damaged in &state.damaged {
        facts.watermark.park(volume.id, volume.generation, damaged.offset..damaged.offset + damaged.length);
        facts.parked.insert(volume.id, format!("the mirror is damaged at {}", damaged.offset));
    }
    facts.watermark.have(volume.id, volume.generation, state.committed);
}

async fn create_mirror(inner: &Arc<Inner>, volume: &RemoteVolume) -> Result<(), String> {
    let header =
        VolumeHeader { volume: volume.id, generation: volume.generation, epoch: volume.epoch, code: volume.code };
    let set = Arc::clone(&inner.volumes);
    tokio::task::spawn_blocking(move || set.create_mirror(header))
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}

fn check_volume(info: &VolumeInfo, source: DatacenterId) -> Result<RemoteVolume, String> {
    let id = fields::volume("volume", info.volume).map_err(|error| error.to_string())?;
    if id.datacenter() != source {
        return Err(format!("volume {id} does not belong to datacenter {source}"));
    }
    Ok(RemoteVolume {
        id,
        generation: FileGeneration(info.generation),
        epoch: Epoch(info.epoch),
        code: fields::code("code", &info.code).map_err(|error| error.to_string())?,
        committed: info.committed_bytes,
        closed: Timestamp::from_raw(info.closed),
        sealed: info.sealed,
        mirrored_here: info.mirrored_here,
    })
}

fn volume_report(volume: &RemoteVolume) -> VolumeReport {
    VolumeReport {
        volume: volume.id,
        generation: volume.generation,
        committed: volume.committed,
        closed: volume.closed,
        sealed: volume.sealed,
        mirrored_here: volume.mirrored_here,
    }
}

fn start_fetch(
    inner: &Arc<Inner>,
    source: &Arc<Source>,
    targets: &Targets,
    permits: &Arc<Semaphore>,
    fetches: &mut JoinSet<()>,
    volume: RemoteVolume,
) {
    let have = inner.volumes.state(volume.id).map_or(0, |state| state.committed);
    {
        let mut targets = targets.lock();
        let target = targets.entry(volume.id).or_insert(Target { committed: 0, fetching: false });
        target.committed = target.committed.max(volume.committed);
        if target.fetching || have >= target.committed {
            return;
        }
        target.fetching = true;
    }
    let fetch = MirrorFetch {
        inner: Arc::clone(inner),
        source: Arc::clone(source),
        targets: Arc::clone(targets),
        permits: Arc::clone(permits),
        volume: volume.id,
        generation: volume.generation,
    };
    fetches.spawn(fetch.run(have));
}

/// Brings one mirror as far as its target, which may grow meanwhile.
struct MirrorFetch {
    inner: Arc<Inner>,
    source: Arc<Source>,
    targets: Targets,
    permits: Arc<Semaphore>,
    volume: VolumeId,
    generation: FileGeneration,
}

impl MirrorFetch {
    async fn run(self, mut have: u64) {
        let _running = Running { targets: Arc::clone(&self.targets), volume: self.volume };
        let limits = &self.inner.config.limits;
        let mut pause = limits.backoff_min;
        let mut failed_checks = 0;
        while let Some(target) = self.next_target(have) {
            match self.fetch_range(have, target).await {
                Ok(reached) => {
                    have = reached;
                    (pause, failed_checks) = (limits.backoff_min, 0);
                    self.source.update(|facts| {
                        facts.watermark.have(self.volume, self.generation, have);
                        facts.retrying.remove(&self.volume);
                        if facts.parked.remove(&self.volume).is_some() {
                            facts.watermark.unpark(self.volume, self.generation, 0..u64::MAX);
                        }
                    });
                }
                Err(failure) => {
                    failed_checks += u32::from(failure.corrupt);
                    tracing::warn!(volume = %self.volume, offset = have, reason = failure.reason, "a mirror's range failed");
                    self.source.update(|facts| {
                        facts.retrying.insert(self.volume, failure.reason.clone());
                        if failed_checks >= limits.mirror_attempts_max {
                            facts.watermark.park(self.volume, self.generation, have..target);
                            facts.parked.insert(self.volume, failure.reason);
                        }
                    });
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(limits.backoff_max);
                }
            }
        }
    }

    /// The offset to reach, or None when the mirror is there: decided under the lock that `start_fetch` takes.
    fn next_target(&self, have: u64) -> Option<u64> {
        let mut targets = self.targets.lock();
        let target = targets.get_mut(&self.volume).expect("a fetch has a target");
        target.fetching = have < target.committed;
        target.fetching.then_some(target.committed)
    }

    async fn fetch_range(&self, have: u64, target: u64) -> Result<u64, FetchFailure> {
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        let mut length = self.inner.config.limits.mirror_range_bytes;
        loop {
            let wanted = usize::try_from(target - have).unwrap_or(usize::MAX).min(length);
            let path = range_path(self.volume, self.generation, have, wanted);
            let bulk = Arc::clone(&self.source.link().bulk);
            let bytes = bulk.get_some(&path, wanted, RANGE_DEADLINE).await.map_err(|error| {
                self.source.prefer_another();
                FetchFailure { reason: error.to_string(), corrupt: false }
            })?;
            let received = bytes.len();
            let reached =
                self.inner.volumes.mirror_append(self.volume, self.generation, have, bytes).await.map_err(|error| {
                    let corrupt = matches!(error, VolumeError::CorruptNeedle { .. });
                    FetchFailure { reason: error.to_string(), corrupt }
                })?;
            if reached > have {
                return Ok(reached);
            }
            // Not even one whole needle: take the largest that one can be, once. A short answer is a slow link.
            let corrupt = received == wanted;
            if !corrupt || length >= RANGE_BYTES_MAX {
                return Err(FetchFailure { reason: format!("{received} bytes hold no whole needle"), corrupt });
            }
            length = RANGE_BYTES_MAX;
        }
    }
}

/// Lets another fetch of the volume start, however this one ended.
struct Running {
    targets: Targets,
    volume: VolumeId,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(target) = self.targets.lock().get_mut(&self.volume) {
            target.fetching = false;
        }
    }
}

struct FetchFailure {
    reason: String,
    /// The bytes came and failed their checks.
    corrupt: bool,
}
