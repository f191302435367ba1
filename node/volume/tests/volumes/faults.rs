//! Disks that fail, fill up or lie still: what is acknowledged, and what goes on.

use meridian_env::disk::{Fault, FaultDisk, SimulatedDisk};
use meridian_env::{Disk, RealDisk};
use meridian_types::{Epoch, NeedleKey};
use meridian_volume::{VolumeError, VolumeSet};

use crate::setup::{COOKIE, append, assert_reads, clock, content, fid, header, open, path, volume};

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_by_any_volume_of_the_disk() {
    for passes in 0..5 {
        let directory = tempfile::tempdir().unwrap();
        let disk = FaultDisk::new(RealDisk::new());
        let set = VolumeSet::open(directory.path(), disk.clone(), clock()).unwrap();
        set.create(header(1)).unwrap();
        set.create(header(2)).unwrap();
        disk.plan(Fault::Sync, ".data", passes);
        let mut acknowledged = 0;
        while append(&set, 1, acknowledged, 50).await.is_ok() {
            acknowledged += 1;
        }
        assert_eq!(acknowledged, u64::from(passes));
        assert!(disk.failed().is_some());
        let committed = set.state(volume(1)).unwrap().committed;
        for counter in [1, 2] {
            for key in 100..104 {
                let refused = append(&set, counter, key, 50).await.unwrap_err();
                assert!(matches!(refused, VolumeError::Failed { .. }) && refused.take_another(), "{refused}");
            }
            assert!(set.state(volume(counter)).unwrap().failed.is_some());
        }
        let status = set.state(volume(1)).unwrap();
        assert_eq!((status.committed, status.needles), (committed, acknowledged));
        for key in 0..acknowledged {
            assert_reads(&set, 1, key, 50).await; // reads go on
        }
        assert!(matches!(set.read(fid(1, acknowledged), 0..1).await, Err(VolumeError::NoSuchNeedle(_))));
        assert!(set.read_raw(volume(1), meridian_types::FileGeneration(0), committed, 100).await.unwrap().is_empty());
        assert!(set.delete(fid(1, 0)).await.is_err() && set.seal(volume(1), Epoch(2)).await.is_err());
        set.shutdown().await;
    }
}

#[tokio::test]
async fn appends_waiting_behind_a_failed_sync_are_refused_too() {
    let disk = FaultDisk::new(SimulatedDisk::new());
    let set = open(&disk, &clock());
    set.create(header(1)).unwrap();
    disk.stall(".data");
    let waiting: Vec<_> = (0..50)
        .map(|key| {
            let set = set.clone();
            tokio::spawn(async move { append(&set, 1, key, 10).await })
        })
        .collect();
    let stalled = disk.clone();
    tokio::task::spawn_blocking(move || stalled.wait_for_stalled()).await.unwrap();
    disk.plan(Fault::Sync, ".data", 0);
    disk.resume();
    for outcome in waiting {
        assert!(matches!(outcome.await.unwrap(), Err(VolumeError::Failed { .. })));
    }
}

#[tokio::test]
async fn a_failed_or_short_write_fails_the_volume_and_the_next_start_cuts_it() {
    for fault in [Fault::Write, Fault::ShortWrite { bytes: 1 }, Fault::ShortWrite { bytes: 70 }] {
        let inner = SimulatedDisk::new();
        let (disk, clock) = (FaultDisk::new(inner.clone()), clock());
        let set = open(&disk, &clock);
        set.create(header(1)).unwrap();
        append(&set, 1, 1, 100).await.unwrap();
        disk.plan(fault, ".data", 0);
        assert!(matches!(append(&set, 1, 2, 100).await, Err(VolumeError::Failed { .. })));
        assert!(disk.failed().is_some());
        assert!(append(&set, 1, 3, 100).await.is_err());
        drop(set);
        let set = open(&inner, &clock);
        let status = set.state(volume(1)).unwrap();
        assert_eq!((status.needles, status.committed, &status.damaged[..]), (1, 64 + 136, &[][..]));
        append(&set, 1, 4, 100).await.unwrap();
        assert_reads(&set, 1, 1, 100).await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_the_append_and_leaves_the_volume_whole() {
    for bytes in [0, 10, 100] {
        let inner = SimulatedDisk::new();
        let (disk, clock) = (FaultDisk::new(inner.clone()), clock());
        let set = open(&disk, &clock);
        set.create(header(1)).unwrap();
        append(&set, 1, 1, 100).await.unwrap();
        disk.plan(Fault::NoSpace { bytes }, ".data", 0);
        let full = append(&set, 1, 2, 100).await.unwrap_err();
        assert!(matches!(full, VolumeError::DiskFull(_)) && !full.take_another(), "{full}");
        assert_eq!(inner.content(&path(1, "data")).unwrap().len(), 64 + 136);
        append(&set, 1, 2, 100).await.unwrap(); // there is space again
        disk.plan(Fault::NoSpace { bytes }, ".index", 0);
        append(&set, 1, 3, 100).await.unwrap(); // the journal only speeds up the next start
        append(&set, 1, 4, 100).await.unwrap();
        disk.plan(Fault::NoSpace { bytes }, ".deletes", 0);
        assert!(matches!(set.delete(fid(1, 1)).await, Err(VolumeError::DiskFull(_))));
        set.delete(fid(1, 1)).await.unwrap();
        drop(set);
        inner.restore(bytes as u64);
        let set = open(&inner, &clock);
        for key in [2, 3, 4] {
            assert_reads(&set, 1, key, 100).await;
        }
        assert_eq!(set.state(volume(1)).unwrap().needles, 3);
    }
}

#[tokio::test]
async fn a_full_disk_that_can_not_be_cut_back_fails_the_volume() {
    let disk = FaultDisk::new(SimulatedDisk::new());
    let set = open(&disk, &clock());
    set.create(header(1)).unwrap();
    disk.plan(Fault::NoSpace { bytes: 10 }, ".data", 0);
    disk.plan(Fault::Truncate, ".data", 0);
    assert!(matches!(append(&set, 1, 1, 100).await, Err(VolumeError::Failed { .. })));
    assert!(matches!(append(&set, 1, 2, 100).await, Err(VolumeError::Failed { .. })));
}

#[tokio::test]
async fn an_unreadable_device_is_an_error_and_no_absence() {
    let disk = FaultDisk::new(SimulatedDisk::new());
    let set = open(&disk, &clock());
    set.create(header(1)).unwrap();
    set.append(volume(1), NeedleKey(1), COOKIE, content(1, 100_000)).await.unwrap();
    disk.plan(Fault::Read, ".data", 1);
    assert!(matches!(set.read(fid(1, 1), 0..100_000).await, Err(VolumeError::Disk(_))));
    assert_reads(&set, 1, 1, 100_000).await;
    assert_eq!(set.state(volume(1)).unwrap().damaged, []);
}

#[tokio::test]
async fn a_mirror_acknowledges_nothing_after_a_failed_sync() {
    for suffix in [".data", ".index"] {
        let clock = clock();
        let source = open(&SimulatedDisk::new(), &clock);
        let disk = FaultDisk::new(SimulatedDisk::new());
        let mirror = open(&disk, &clock);
        source.create(header(1)).unwrap();
        mirror.create_mirror(header(1)).unwrap();
        append(&source, 1, 1, 100).await.unwrap();
        let generation = header(1).generation;
        let bytes = source.read_raw(volume(1), generation, 64, 1000).await.unwrap();
        disk.plan(Fault::Sync, suffix, 0);
        for _ in 0..2 {
            let refused = mirror.mirror_append(volume(1), generation, 64, bytes.clone()).await;
            assert!(matches!(refused, Err(VolumeError::Failed { .. })));
        }
        assert_eq!(mirror.state(volume(1)).unwrap().committed, 64);
    }
}

#[tokio::test]
async fn a_mirror_on_a_full_disk_goes_on_when_there_is_space() {
    for suffix in [".data", ".index"] {
        let clock = clock();
        let source = open(&SimulatedDisk::new(), &clock);
        let disk = FaultDisk::new(SimulatedDisk::new());
        let mirror = open(&disk, &clock);
        source.create(header(1)).unwrap();
        mirror.create_mirror(header(1)).unwrap();
        append(&source, 1, 1, 100).await.unwrap();
        let generation = header(1).generation;
        let bytes = source.read_raw(volume(1), generation, 64, 1000).await.unwrap();
        disk.plan(Fault::NoSpace { bytes: 33 }, suffix, 0);
        let full = mirror.mirror_append(volume(1), generation, 64, bytes.clone()).await;
        assert!(matches!(full, Err(VolumeError::DiskFull(_))));
        assert_eq!(mirror.mirror_append(volume(1), generation, 64, bytes).await.unwrap(), 64 + 136);
        assert_reads(&mirror, 1, 1, 100).await;
    }
}
