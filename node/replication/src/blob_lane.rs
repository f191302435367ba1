//! The blob lane: one task a source datacenter follows its volumes and has fetched what this datacenter mirrors.
//!
//! What counts for W_data is decided by `replicator::DataWatermark`; the bytes are `mirror_fetch`'s business. Chunks
//! travel when they are written, not when their object commits. After a restart a mirror goes on at the durable length
//! of its file.
//!
//! Invariants: one fetch a volume; a mirror that can't be made is shown, tried again, and holds up no other; a source
//! that has fewer bytes than were here when it was asked went back in time, and W_data stands still (rules 1, 13).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use meridian_replicator::{RegistryReport, VolumeReport};
use meridian_types::{DatacenterId, Epoch, FileGeneration, NodeId, ReplicaCode, Timestamp, VolumeId};
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
    primary: NodeId,
    /// Nothing is known of how far it is.
    unreported: bool,
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
            durable_through: inner.lag_told(&source),
        };
        let link = source.link();
        let mut client = link.client();
        let deadline = limits.long_poll + limits.call_grace;
        // Taken before the source is asked: fetches run ahead of what it answers.
        let had: Lengths = inner.volumes.states().iter().map(|state| (state.header.volume, state.committed)).collect();
        let reply = call(deadline, request, |request| async move { client.list_volumes(request).await }).await;
        let problem = match reply {
            Ok(reply) => match take_report(&inner, &source, &reply, (link.node, &had)).await {
                Ok(volumes) => {
                    link.answered();
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
                source.failed(link.node);
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
    (asked, had): (NodeId, &Lengths),
) -> Result<Vec<RemoteVolume>, String> {
    let check = |info| check_volume(info, source.id());
    let mut volumes = reply.volumes.iter().map(check).collect::<Result<Vec<_>, String>>()?;
    let mirror_moves = inner.control.mirror_moves(source.id()); // before the mirrors are read
    let unassigned = share_mirrors(inner, &mut volumes).await?;
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
        volumes: volumes.iter().map(|volume| volume_report(volume, unassigned.contains(&volume.id))).collect(),
    };
    source.update(|facts| {
        facts.blob_lane = LaneState::Answered;
        facts.primaries.extend(volumes.iter().map(|volume| (volume.id, volume.primary)));
        if facts.watermark.begins_mirrors(&report) {
            // A mirror was moved here: only what the datacenter has committed was true with it (rule 13).
            let committed = inner.control.watermarks().into_iter().find(|report| report.source == source.id());
            facts.watermark.restart(committed.map_or(Timestamp::ZERO, |report| report.data));
        }
        facts.mirror_moves = mirror_moves;
        facts.watermark.report(&report);
        for volume in volumes.iter().filter(|volume| volume.mirrored_here && !volume.unreported) {
            // Only the primary knows how far it is: what another node heard from it may be older than what is here.
            let had = if volume.primary == asked { had.get(&volume.id).copied().unwrap_or(0) } else { 0 };
            take_mirror_state(inner, facts, volume, had);
        }
        facts.retrying.extend(failed.clone());
    });
    if !unassigned.is_empty() {
        return Err(format!("{} mirrors have no node here yet", unassigned.len()));
    }
    let is_due = |volume: &RemoteVolume| volume.mirrored_here && !volume.unreported && !failed.contains_key(&volume.id);
    Ok(volumes.into_iter().filter(is_due).collect())
}

/// Gives mirrors that nobody holds to nodes of this datacenter, and leaves `mirrored_here` to those that are this node's.
/// Returns the ones that could not be given away: they count as missing for every node (rule 13).
async fn share_mirrors(inner: &Inner, volumes: &mut [RemoteVolume]) -> Result<BTreeSet<VolumeId>, String> {
    if inner.siblings.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut mirrors = inner.control.mirrors();
    let without = |mirrors: &BTreeMap<VolumeId, NodeId>, volumes: &[RemoteVolume]| -> Vec<VolumeId> {
        let missing = volumes.iter().filter(|volume| volume.mirrored_here && !mirrors.contains_key(&volume.id));
        missing.map(|volume| volume.id).collect()
    };
    let missing = without(&mirrors, volumes);
    if !missing.is_empty() {
        if let Err(error) = inner.control.assign_mirrors(&missing).await {
            tracing::warn!(%error, "mirrors are not given to nodes yet");
        }
        mirrors = inner.control.mirrors();
    }
    let unassigned = without(&mirrors, volumes).into_iter().collect();
    for volume in volumes.iter_mut().filter(|volume| volume.mirrored_here) {
        volume.mirrored_here = mirrors.get(&volume.id) == Some(&inner.config.local.node);
    }
    Ok(unassigned)
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
        primary: NodeId(info.primary),
        unreported: info.unreported,
    })
}

/// `is_unassigned`: it is to be mirrored in this datacenter, and nobody does yet.
fn volume_report(volume: &RemoteVolume, is_unassigned: bool) -> VolumeReport {
    VolumeReport {
        volume: volume.id,
        generation: volume.generation,
        committed: volume.committed,
        closed: volume.closed,
        sealed: volume.sealed,
        mirrored_here: volume.mirrored_here || is_unassigned,
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
            primary: volume.primary,
            unanswered: AtomicUsize::new(0),
        };
        fetches.spawn(fetch.run(have));
    }
}
