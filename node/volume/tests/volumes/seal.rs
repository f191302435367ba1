//! Fencing and sealing (rules 1, 2).

use meridian_env::disk::{FaultDisk, SimulatedDisk};
use meridian_types::Epoch;
use meridian_volume::{VolumeError, VolumeSet};

use crate::setup::{append, assert_reads, clock, fid, header, open, path, volume};

async fn assert_sealed(set: &VolumeSet, length: u64) {
    let status = set.state(volume(1)).unwrap();
    assert!(status.sealed && !status.fenced && status.failed.is_none());
    assert_eq!((status.committed, status.header.epoch, status.needles), (length, Epoch(2), 3));
    let refused = append(set, 1, 77, 10).await.unwrap_err();
    assert!(matches!(refused, VolumeError::Sealed(_)) && refused.take_another());
    for key in [1, 2, 3] {
        assert_reads(set, 1, key, 100).await;
    }
    for key in [0, 4] {
        assert!(matches!(set.read(fid(1, key), 0..1).await, Err(VolumeError::NoSuchNeedle(_))));
    }
}

#[tokio::test]
async fn a_sealed_volume_keeps_its_length_and_takes_nothing() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let set = open(&disk, &clock);
    set.create(header(1)).unwrap();
    for key in 0..5 {
        append(&set, 1, key, 100).await.unwrap();
    }
    set.delete(fid(1, 4)).await.unwrap();
    let length = set.seal(volume(1), Epoch(2)).await.unwrap();
    assert_eq!(length, 64 + 5 * 136);
    assert_eq!(set.seal(volume(1), Epoch(2)).await.unwrap(), length, "asked again");
    set.delete(fid(1, 0)).await.unwrap();
    assert_sealed(&set, length).await;
    let t = clock.next_waiting().await.unwrap();
    set.close_through(t);
    assert!(set.state(volume(1)).unwrap().closed >= t);
    for seed in 0..6 {
        disk.restore(seed); // a power cut
        assert_sealed(&open(&disk, &clock), length).await;
    }
}

#[tokio::test]
async fn an_epoch_that_is_not_above_the_volumes_is_refused() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let set = open(&disk, &clock);
    set.create(header(1)).unwrap();
    for epoch in [0, 1] {
        assert!(matches!(set.fence(volume(1), Epoch(epoch)).await, Err(VolumeError::StaleEpoch { .. })));
    }
    append(&set, 1, 1, 10).await.unwrap();
    set.fence(volume(1), Epoch(3)).await.unwrap();
    assert!(matches!(set.seal(volume(1), Epoch(2)).await, Err(VolumeError::StaleEpoch { .. })));
    assert!(matches!(set.seal(volume(1), Epoch(4)).await, Err(VolumeError::StaleEpoch { .. })));
    set.seal(volume(1), Epoch(3)).await.unwrap();
}

#[tokio::test]
async fn a_fence_outlives_a_power_cut() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let set = open(&disk, &clock);
    set.create(header(1)).unwrap();
    append(&set, 1, 1, 100).await.unwrap();
    let length = set.fence(volume(1), Epoch(2)).await.unwrap();
    assert!(set.state(volume(1)).unwrap().fenced);
    drop(set);
    disk.restore(5);
    let set = open(&disk, &clock);
    assert!(matches!(append(&set, 1, 2, 100).await, Err(VolumeError::Sealed(_))));
    assert_eq!(set.fence(volume(1), Epoch(2)).await.unwrap(), length);
    set.seal_at(volume(1), Epoch(2), length).await.unwrap();
    assert_reads(&set, 1, 1, 100).await;
}

#[tokio::test]
async fn a_replica_beyond_the_sealed_length_is_cut_before_it_serves() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let set = open(&disk, &clock);
    set.create(header(1)).unwrap();
    for key in 0..5 {
        append(&set, 1, key, 100).await.unwrap();
    }
    set.fence(volume(1), Epoch(2)).await.unwrap();
    let length = 64 + 3 * 136;
    set.seal_at(volume(1), Epoch(2), length).await.unwrap();
    let whole = disk.content(&path(1, "data")).unwrap();
    for _ in 0..2 {
        let status = open(&disk, &clock).state(volume(1)).unwrap();
        assert_eq!(disk.content(&path(1, "data")).unwrap().len() as u64, length);
        assert_eq!((status.needles, status.committed, status.failed), (3, length, None));
        // As if the cut had been lost in a crash after the record: the next start does it.
        disk.corrupt(&path(1, "data"), |bytes| bytes.extend_from_slice(&whole[64..200]));
    }
    let set = open(&disk, &clock);
    assert!(matches!(set.read(fid(1, 3), 0..1).await, Err(VolumeError::NoSuchNeedle(_))));
    assert_eq!(disk.content(&path(1, "data")).unwrap().len() as u64, length);
}

#[tokio::test]
async fn a_seal_waits_for_the_append_in_flight_and_counts_it() {
    let (disk, clock) = (FaultDisk::new(SimulatedDisk::new()), clock());
    let set = open(&disk, &clock);
    set.create(header(1)).unwrap();
    disk.stall(".data");
    let appending = tokio::spawn({
        let set = set.clone();
        async move { append(&set, 1, 1, 100).await }
    });
    let stalled = disk.clone();
    tokio::task::spawn_blocking(move || stalled.wait_for_stalled()).await.unwrap();
    let sealing = tokio::spawn({
        let set = set.clone();
        async move { set.seal(volume(1), Epoch(2)).await }
    });
    let mut changed = set.changed();
    while !set.state(volume(1)).unwrap().fenced {
        changed.changed().await.unwrap();
    }
    assert!(!sealing.is_finished());
    assert!(matches!(append(&set, 1, 2, 100).await, Err(VolumeError::Sealed(_))));
    disk.resume();
    let appended = appending.await.unwrap().unwrap();
    assert_eq!(sealing.await.unwrap().unwrap(), appended.end_offset);
    assert_reads(&set, 1, 1, 100).await;
}
