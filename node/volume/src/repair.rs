//! Puts right a replica with the bytes of another one: replicas are byte-identical, so a repair is a copy of a range.
//!
//! Which replica to ask is decided above. Invariants: only verified needles are written; a repaired range is read back
//! before it counts as whole; a copy in the making counts for nothing until `seal_at` ends it (rule 1).

use bytes::Bytes;
use meridian_types::Epoch;

use crate::index::Place;
use crate::needle::{span, verify};
use crate::state::Phase;
use crate::volume::Volume;
use crate::{DamagedRange, VolumeError};

/// Writes whole needles over the damaged range that starts at `offset`. Blocks.
pub(crate) fn repair(volume: &Volume, offset: u64, data: &Bytes) -> Result<(), VolumeError> {
    let id = volume.id();
    let end = offset + data.len() as u64;
    let committed = volume.committed();
    if end > committed {
        return Err(VolumeError::Gap { volume: id, offset: end, committed });
    }
    let mut needles = Vec::new();
    let mut at = offset;
    while at < end {
        let header = verify(volume.identity, at, &data[(at - offset) as usize..])
            .map_err(|_| VolumeError::CorruptNeedle { volume: id, offset: at })?;
        needles.push((header.key, Place::new(at, header.length)));
        at += span(header.length);
    }
    let _journal = volume.journal.lock();
    volume.data.write_at(&[std::io::IoSlice::new(data)], offset).map_err(|error| volume.fail(&error))?;
    volume.data.sync_data().map_err(|error| volume.fail(&error))?;
    let mut seen = vec![0; data.len()];
    let read = volume.data.read_at(&mut seen, offset)?;
    if seen[..read] != data[..] {
        return Err(VolumeError::CorruptNeedle { volume: id, offset });
    }
    // Needles of a range of which nothing was known are known now; one that was deleted stays so.
    let unknown: Vec<DamagedRange> = volume.tail.lock().damaged.clone();
    for (key, place) in needles {
        let hidden = unknown.iter().any(|range| {
            range.key.is_none() && range.offset <= place.offset() && place.offset() < range.offset + range.length
        });
        if hidden && !volume.deletes.holds(key, place.offset()) {
            volume.index.write().restore(key, place);
        }
    }
    volume.tail.lock().damaged.retain(|range| range.offset < offset || range.offset + range.length > end);
    tracing::warn!(volume = %id, offset, bytes = data.len(), "damaged bytes repaired from another replica");
    volume.bump();
    Ok(())
}

/// Makes a short replica of a sealed volume take the bytes that it lacks. Returns where they go on. Blocks.
pub(crate) fn begin_filling(volume: &Volume, epoch: Epoch) -> Result<u64, VolumeError> {
    let _lifecycle = volume.lifecycle.lock();
    let mut journal = volume.journal.lock(); // nobody writes
    let (current, phase, durable) = {
        let tail = volume.tail.lock();
        (tail.epoch, tail.phase, tail.durable)
    };
    match phase {
        Phase::Filling if current == epoch => return Ok(durable),
        Phase::Open | Phase::Fenced if current <= epoch => {}
        _ => return Err(VolumeError::StaleEpoch { volume: volume.id(), current, asked: epoch }),
    }
    // One primary wrote the epoch, so what is here is the beginning of what the others have.
    volume.commit_pending(&mut journal, durable)?;
    journal.blocks.sync()?;
    drop(journal);
    volume.write_state(Phase::Filling, epoch)?;
    let mut tail = volume.tail.lock();
    (tail.phase, tail.epoch) = (Phase::Filling, epoch);
    Ok(durable)
}
