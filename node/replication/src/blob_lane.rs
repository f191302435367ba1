//! The blob lane: one task a source datacenter follows its volumes and has fetched what this datacenter mirrors.
//!
//! What counts for W_data is decided by `replicator::DataWatermark`; the bytes are `mirror_fetch`'s business. Chunks
//! travel when they are written, not when their object commits. After a restart a mirror goes on at the durable length
//! of its file.
//!
//! Invariants: one fetch a volume; a mirror that can't be made is shown, tried again, and holds up no other; a source
//! that has fewer bytes than were here when it was asked went back in time, and W_data stands still (rules 1, 13).

use std::collections::BTreeMap;
use std::sync::Arc;

use meridian_replicator::{RegistryReport, VolumeReport};
use meridian_types::{DatacenterId, Epoch, FileGeneration, ReplicaCode, Timestamp, VolumeId};
use meridian_volume::{VOLUME_HEADER_SIZE, VolumeHeader};
use meridian_wire::replication::{VolumeInfo, VolumesReply, VolumesRequest};
use meridian_wire::{call, fields};
use tokio::task::JoinSet;

use crate::driver::Inner;
use crate::error::reason_of;
use crate::link_limits::Backoff;
use crate::mirror_fetch::{MirrorFetch, Reached, Targets};
use crate::sources::{LaneState, Source, SourceFacts};

/// How long each volume's file was here at some moment.
type Lengths = BTreeMap<VolumeId, u64>;

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

/// Follows one source's volumes until the driver stops.
pub(crate) async fn run(inner: Arc<Inner>, source: Arc<Source>) {
    let limits = inner.config.limits.clone();
    let targets = Targets::default();
    let mut fetches = JoinSet::new();
    let mut known_version = 0;
    let mut backoff = Backoff::new(limits.backoff_min, limits.backoff_max);
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
        // Taken before the source is asked: fetches run ahead of what it answers.
        let had: Lengths = inner.volumes.states().iter().map(|state| (state.header.volume, state.committed)).collect();
        let reply = call(deadline, request, |request| async move { client.list_volumes(request).await }).await;
        let problem = match reply {
            Ok(reply) => match take_report(&inner, &source, &reply, &had).await {
                Ok(volumes) => {
                    known_version = reply.version;
                    backoff.reset();
                    for volume in volumes {
                        start_fetch(&inner, &source, &targets, &mut fetches, &volume);
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
        backoff.pause().await;
    }
}

/// Takes a report over: makes the files of new mirrors, then feeds the watermark. Returns the volumes to fetch; one
/// whose mirror can't be made now is shown and tried again with the next report, and holds up no other.
async fn take_report(
    inner: &Arc<Inner>,
    source: &Source,
    reply: &VolumesReply,
    had: &Lengths,
) -> Result<Vec<RemoteVolume>, String> {
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
            take_mirror_state(inner, facts, volume, had.get(&volume.id).copied().unwrap_or(0));
        }
        facts.retrying.extend(failed.clone());
    });
    Ok(volumes.into_iter().filter(|volume| volume.mirrored_here && !failed.contains_key(&volume.id)).collect())
}

/// What this datacenter has of a volume, for the watermark. Ranges that are not to be trusted are parked first.
fn take_mirror_state(inner: &Inner, facts: &mut SourceFacts, volume: &RemoteVolume, had: u64) {
    let Some(state) = inner.volumes.state(volume.id) else { return };
    if !state.mirror || state.header.generation != volume.generation {
        return;
    }
    // A volume that has no file yet says 0, and a new mirror is its header.
    if had > volume.committed.max(VOLUME_HEADER_SIZE) {
        // What was here when the source was asked had been committed there: it has lost bytes (rule 1).
        facts.watermark.park(volume.id, volume.generation, 0..state.committed);
        let has = volume.committed;
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
    fetches: &mut JoinSet<()>,
    volume: &RemoteVolume,
) {
    let have = inner.volumes.state(volume.id).map_or(0, |state| state.committed);
    let reached = Reached { committed: volume.committed, sealed: volume.sealed };
    if targets.start(volume.id, have, reached) {
        let fetch = MirrorFetch {
            inner: Arc::clone(inner),
            source: Arc::clone(source),
            targets: targets.clone(),
            volume: volume.id,
            generation: volume.generation,
        };
        fetches.spawn(fetch.run(have));
    }
}
