//! Mirrors: the same bytes as the source, whatever the pieces they come in and whatever happens meanwhile.

use std::sync::Arc;

use bytes::Bytes;
use meridian_env::HybridClock;
use meridian_env::disk::SimulatedDisk;
use meridian_types::limits::NEEDLE_SIZE_MAX;
use meridian_types::{Epoch, FileGeneration};
use meridian_volume::{NEEDLE_SPAN_MAX, VolumeError, VolumeSet};

use crate::setup::{GENERATION, Random, append, assert_reads, clock, fid, header, open, path, volume};

fn length(key: u64) -> usize {
    [10, 0, 3000, 70_000, 1, 65_536, 200_000, 8][key as usize % 8]
}

async fn source(disk: &Arc<SimulatedDisk>, clock: &Arc<HybridClock>, count: u64) -> Arc<VolumeSet> {
    let set = open(disk, clock);
    set.create(header(1)).unwrap();
    for key in 0..count {
        append(&set, 1, key, length(key)).await.unwrap();
    }
    set
}

#[tokio::test]
async fn a_mirror_fed_by_arbitrary_cuts_is_the_same_file() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let (source_disk, mirror_disk, clock) = (SimulatedDisk::new(), SimulatedDisk::new(), clock());
        let source = source(&source_disk, &clock, 16).await;
        let mirror = open(&mirror_disk, &clock);
        mirror.create_mirror(header(1)).unwrap();
        let end = source.state(volume(1)).unwrap().committed;
        let mut have = mirror.state(volume(1)).unwrap().committed;
        let mut size_max = 1000;
        while have < end {
            let from = have.saturating_sub(random.below(3) * random.below(5000)); // sometimes again what is here
            let size = 1 + random.below(size_max) as usize;
            let bytes = source.read_raw(volume(1), GENERATION, from, size).await.unwrap();
            let now = mirror.mirror_append(volume(1), GENERATION, from, bytes).await.unwrap();
            assert!(now >= have);
            size_max = if now == have { size_max * 2 } else { 1000 };
            have = now;
            if random.below(20) == 0 {
                assert!(
                    source_disk
                        .content(&path(1, "data"))
                        .unwrap()
                        .starts_with(&mirror_disk.content(&path(1, "data")).unwrap())
                );
            }
        }
        assert!(source_disk.content(&path(1, "data")) == mirror_disk.content(&path(1, "data")), "seed {seed}");
        for key in 0..16 {
            assert_reads(&mirror, 1, key, length(key)).await;
        }
        let (of_source, of_mirror) = (source.state(volume(1)).unwrap(), mirror.state(volume(1)).unwrap());
        assert_eq!((of_source.needles, of_source.closed), (of_mirror.needles, of_mirror.closed));
        assert!(of_mirror.mirror && !of_source.mirror);
    }
}

#[tokio::test]
async fn the_largest_needle_crosses_in_one_piece() {
    let clock = clock();
    let source = open(&SimulatedDisk::new(), &clock);
    let mirror = open(&SimulatedDisk::new(), &clock);
    source.create(header(1)).unwrap();
    mirror.create_mirror(header(1)).unwrap();
    append(&source, 1, 1, NEEDLE_SIZE_MAX).await.unwrap();
    let part = source.read_raw(volume(1), GENERATION, 64, NEEDLE_SPAN_MAX as usize - 1).await.unwrap();
    assert_eq!(mirror.mirror_append(volume(1), GENERATION, 64, part).await.unwrap(), 64);
    let whole = source.read_raw(volume(1), GENERATION, 64, NEEDLE_SPAN_MAX as usize).await.unwrap();
    assert_eq!(mirror.mirror_append(volume(1), GENERATION, 64, whole).await.unwrap(), 64 + NEEDLE_SPAN_MAX);
    assert_reads(&mirror, 1, 1, NEEDLE_SIZE_MAX).await;
}

#[tokio::test]
async fn a_corrupt_needle_is_refused_and_the_ones_before_it_are_kept() {
    let clock = clock();
    let source = source(&SimulatedDisk::new(), &clock, 5).await;
    let mirror = open(&SimulatedDisk::new(), &clock);
    mirror.create_mirror(header(1)).unwrap();
    let good = source.read_raw(volume(1), GENERATION, 64, 1 << 20).await.unwrap();
    let third = 64 + 48 + 32; // behind needles of 10 and 0 bytes
    for at in [4usize, 20, 100] {
        let mut bytes = good.to_vec();
        bytes[third - 64 + at] ^= 1;
        let refused = mirror.mirror_append(volume(1), GENERATION, 64, Bytes::from(bytes)).await;
        // A flipped length may also make the needle look unfinished; it is kept out all the same.
        match refused {
            Err(VolumeError::CorruptNeedle { offset, .. }) => assert_eq!(offset, third as u64),
            other => assert_eq!(other.unwrap(), third as u64),
        }
        assert_eq!(mirror.state(volume(1)).unwrap().committed, third as u64);
    }
    let end = mirror.mirror_append(volume(1), GENERATION, 64, good).await.unwrap();
    assert_eq!(end, source.state(volume(1)).unwrap().committed);
}

#[tokio::test]
async fn gaps_wrong_generations_and_wrong_roles_are_refused() {
    let clock = clock();
    let source = source(&SimulatedDisk::new(), &clock, 2).await;
    let mirror = open(&SimulatedDisk::new(), &clock);
    mirror.create_mirror(header(1)).unwrap();
    let bytes = source.read_raw(volume(1), GENERATION, 64, 1000).await.unwrap();
    let gap = mirror.mirror_append(volume(1), GENERATION, 72, bytes.clone()).await;
    assert!(matches!(gap, Err(VolumeError::Gap { committed: 64, .. })));
    let generation = mirror.mirror_append(volume(1), FileGeneration(1), 64, bytes.clone()).await;
    assert!(matches!(generation, Err(VolumeError::WrongGeneration { .. })));
    assert!(matches!(source.mirror_append(volume(1), GENERATION, 64, bytes).await, Err(VolumeError::NotMirror(_))));
    assert!(matches!(append(&mirror, 1, 9, 1).await, Err(VolumeError::IsMirror(_))));
    assert!(matches!(source.read_raw(volume(1), GENERATION, 10_000, 1).await, Err(VolumeError::Gap { .. })));
    assert!(matches!(
        source.read_raw(volume(1), FileGeneration(1), 0, 1).await,
        Err(VolumeError::WrongGeneration { .. })
    ));
    mirror.close_through(clock.next_waiting().await.unwrap()); // only the source can close its volume
    assert_eq!(mirror.state(volume(1)).unwrap().closed, meridian_types::Timestamp::ZERO);
}

#[tokio::test]
async fn a_mirror_seals_only_at_a_length_it_has() {
    let clock = clock();
    let source = source(&SimulatedDisk::new(), &clock, 3).await;
    let disk = SimulatedDisk::new();
    let mirror = open(&disk, &clock);
    mirror.create_mirror(header(1)).unwrap();
    let length = source.seal(volume(1), Epoch(2)).await.unwrap();
    let bytes = source.read_raw(volume(1), GENERATION, 64, 1 << 20).await.unwrap();
    assert_eq!(bytes.len() as u64 + 64, length);
    mirror.mirror_append(volume(1), GENERATION, 64, bytes).await.unwrap();
    mirror.fence(volume(1), Epoch(2)).await.unwrap();
    let longer = mirror.seal_at(volume(1), Epoch(2), length + 8).await;
    assert!(matches!(longer, Err(VolumeError::Incomplete { .. })));
    mirror.seal_at(volume(1), Epoch(2), length).await.unwrap();
    drop(mirror);
    disk.restore(3);
    let mirror = open(&disk, &clock);
    let status = mirror.state(volume(1)).unwrap();
    assert!(status.sealed && status.mirror && status.committed == length);
    assert_eq!(mirror.read(fid(1, 2), 0..3000).await.unwrap().len(), 3000);
}

#[tokio::test]
async fn a_mirror_keeps_what_it_answered_through_power_cuts() {
    for seed in 0..250 {
        let mut random = Random(seed ^ 0xabc);
        let (source_disk, mirror_disk, clock) = (SimulatedDisk::new(), SimulatedDisk::new(), clock());
        let source = source(&source_disk, &clock, 10).await;
        open(&mirror_disk, &clock).create_mirror(header(1)).unwrap();
        let end = source.state(volume(1)).unwrap().committed;
        let mut answered = 64;
        while answered < end {
            let mirror = open(&mirror_disk, &clock);
            let status = mirror.state(volume(1)).unwrap();
            assert!(status.committed >= answered, "seed {seed}: {} after {answered}", status.committed);
            assert_eq!((status.damaged, status.failed), (vec![], None), "seed {seed}");
            answered = status.committed;
            mirror_disk.cut_power_after(random.below(12));
            while answered < end {
                let size = 1 + random.below(400_000) as usize;
                let bytes = source.read_raw(volume(1), GENERATION, answered, size).await.unwrap();
                match mirror.mirror_append(volume(1), GENERATION, answered, bytes).await {
                    Ok(now) => answered = now,
                    Err(_) => break,
                }
            }
            drop(mirror);
            mirror_disk.restore(random.below(u64::MAX));
        }
        let mirror = open(&mirror_disk, &clock);
        assert!(source_disk.content(&path(1, "data")) == mirror_disk.content(&path(1, "data")), "seed {seed}");
        for key in 0..10 {
            assert_reads(&mirror, 1, key, length(key)).await;
        }
    }
}
