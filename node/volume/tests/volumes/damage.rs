//! Bytes that rot: never served, always listed, and nothing else is lost with them.

use std::sync::Arc;

use meridian_env::Disk;
use meridian_env::HybridClock;
use meridian_env::disk::SimulatedDisk;
use meridian_types::NeedleKey;
use meridian_volume::{VolumeError, VolumeSet};

use crate::setup::{append, assert_reads, clock, fid, header, open, path, volume};

const SPAN: usize = 136; // of a needle of 100 bytes

/// A volume of `count` needles of 100 bytes, each its own group commit.
async fn filled(disk: &Arc<SimulatedDisk>, clock: &Arc<HybridClock>, count: u64) -> Arc<VolumeSet> {
    let set = open(disk, clock);
    set.create(header(1)).unwrap();
    for key in 0..count {
        append(&set, 1, key, 100).await.unwrap();
    }
    set
}

fn flip(disk: &SimulatedDisk, at: usize) {
    disk.corrupt(&path(1, "data"), |bytes| bytes[at] ^= 0x10);
}

#[tokio::test]
async fn a_flipped_bit_is_an_error_at_the_read_and_is_listed() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let set = filled(&disk, &clock, 3).await;
    for at in [0, 9, 17, 30, 40, 131] {
        flip(&disk, 64 + SPAN + at);
        let read = set.read(fid(1, 1), 0..100).await;
        assert!(
            matches!(read, Err(VolumeError::CorruptNeedle { offset, .. }) if offset == 64 + SPAN as u64),
            "{at}: {read:?}"
        );
        flip(&disk, 64 + SPAN + at);
    }
    let damaged = set.state(volume(1)).unwrap().damaged;
    assert_eq!(damaged.len(), 1);
    assert_eq!((damaged[0].offset, damaged[0].length, damaged[0].key), (64 + 136, 136, Some(NeedleKey(1))));
}

#[tokio::test]
async fn a_range_of_a_large_needle_is_checked_and_damage_elsewhere_does_not_hide_it() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let set = open(&disk, &clock);
    set.create(header(1)).unwrap();
    append(&set, 1, 1, 300_000).await.unwrap();
    flip(&disk, 64 + 32 + 20 + 3 * 65_536 + 5);
    assert_eq!(set.read(fid(1, 1), 10..1000).await.unwrap().len(), 990);
    assert_eq!(set.read(fid(1, 1), 262_144..300_000).await.unwrap().len(), 37_856);
    for range in [0..300_000, 196_608..196_609, 150_000..250_000] {
        assert!(matches!(set.read(fid(1, 1), range).await, Err(VolumeError::CorruptNeedle { .. })));
    }
}

#[tokio::test]
async fn a_rebuild_lists_damage_in_the_middle_and_keeps_every_other_needle() {
    for at in [0, 5, 8, 21, 50] {
        for rebuild in [true, false] {
            let (disk, clock) = (SimulatedDisk::new(), clock());
            let set = filled(&disk, &clock, 5).await;
            set.shutdown().await;
            let committed = set.state(volume(1)).unwrap().committed;
            drop(set);
            flip(&disk, 64 + 2 * SPAN + at);
            if rebuild {
                disk.remove(&path(1, "index")).unwrap();
            } else {
                disk.corrupt(&path(1, "index"), |bytes| bytes[64 + 60] ^= 1); // the second block
            }
            for _ in 0..2 {
                let set = open(&disk, &clock); // the second time from the journal that the first has written
                let status = set.state(volume(1)).unwrap();
                assert_eq!((status.committed, status.failed), (committed, None));
                assert_eq!(status.damaged.len(), 1, "byte {at}: {:?}", status.damaged);
                assert_eq!((status.damaged[0].offset, status.damaged[0].length), (64 + 2 * SPAN as u64, SPAN as u64));
                assert_eq!(status.damaged[0].key, None, "the key may be what is damaged");
                for key in [0, 1, 3, 4] {
                    assert_reads(&set, 1, key, 100).await;
                }
                let read = set.read(fid(1, 2), 0..100).await;
                assert!(matches!(read, Err(VolumeError::MaybeDamaged(_))), "damage read as absence: {read:?}");
            }
            let set = open(&disk, &clock);
            let appended = append(&set, 1, 100, 100).await.unwrap();
            assert_eq!(appended.end_offset, committed + SPAN as u64);
            assert_reads(&set, 1, 100, 100).await;
        }
    }
}

#[tokio::test]
async fn damage_before_a_later_commit_is_listed_even_when_the_journal_lost_its_end() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    drop(filled(&disk, &clock, 5).await); // five commits; a power cut then takes the journal's unsynced blocks
    disk.corrupt(&path(1, "index"), |bytes| bytes.truncate(64 + 56));
    flip(&disk, 64 + 2 * SPAN + 50);
    let set = open(&disk, &clock);
    let status = set.state(volume(1)).unwrap();
    assert_eq!((status.committed, status.damaged.len()), (64 + 5 * SPAN as u64, 1));
    for key in [0, 1, 3, 4] {
        assert_reads(&set, 1, key, 100).await;
    }
}

#[tokio::test]
async fn damage_stays_listed_through_further_starts() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let set = filled(&disk, &clock, 5).await;
    set.shutdown().await;
    drop(set);
    flip(&disk, 64 + 2 * SPAN + 5);
    disk.remove(&path(1, "index")).unwrap();
    for _ in 0..3 {
        let set = open(&disk, &clock);
        assert_eq!(set.state(volume(1)).unwrap().damaged.len(), 1);
        set.shutdown().await;
    }
}

#[tokio::test]
async fn damage_in_the_last_acknowledged_needle_is_never_cut() {
    for clean in [true, false] {
        let (disk, clock) = (SimulatedDisk::new(), clock());
        let set = filled(&disk, &clock, 3).await;
        if clean {
            set.shutdown().await;
        }
        drop(set); // else a kill: the page cache has everything
        flip(&disk, 64 + 2 * SPAN + 60);
        if clean {
            disk.remove(&path(1, "index")).unwrap(); // the state file still knows how much was committed
        }
        let set = open(&disk, &clock);
        assert_eq!(set.state(volume(1)).unwrap().committed, 64 + 3 * SPAN as u64);
        match set.read(fid(1, 2), 0..100).await {
            Err(VolumeError::CorruptNeedle { .. }) => assert!(!clean),
            Err(VolumeError::MaybeDamaged(_)) => assert!(clean, "the journal names the needle"),
            other => panic!("{other:?}"),
        }
        assert_reads(&set, 1, 1, 100).await;
    }
}

#[tokio::test]
async fn a_tail_that_is_no_needle_is_cut_and_appends_go_on() {
    for tail in [vec![0u8; 5], vec![0; 4096], b"Mn garbage that is not a needle at all, and long".to_vec()] {
        for rebuild in [true, false] {
            let (disk, clock) = (SimulatedDisk::new(), clock());
            drop(filled(&disk, &clock, 3).await);
            disk.corrupt(&path(1, "data"), |bytes| bytes.extend_from_slice(&tail));
            if rebuild {
                disk.remove(&path(1, "index")).unwrap();
            }
            let set = open(&disk, &clock);
            let status = set.state(volume(1)).unwrap();
            assert_eq!((status.committed, status.needles, status.damaged), (64 + 3 * SPAN as u64, 3, vec![]));
            assert_eq!(disk.content(&path(1, "data")).unwrap().len(), 64 + 3 * SPAN);
            append(&set, 1, 9, 100).await.unwrap();
            assert_reads(&set, 1, 9, 100).await;
        }
    }
}

#[tokio::test]
async fn a_file_that_lost_acknowledged_bytes_fails_its_volume_and_still_reads() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let set = filled(&disk, &clock, 3).await;
    set.shutdown().await;
    drop(set);
    disk.corrupt(&path(1, "data"), |bytes| bytes.truncate(64 + 2 * SPAN + 8));
    for _ in 0..2 {
        let set = open(&disk, &clock);
        let status = set.state(volume(1)).unwrap();
        assert!(status.failed.is_some_and(|reason| reason.contains("of 472 committed bytes")));
        assert!(matches!(append(&set, 1, 9, 100).await, Err(VolumeError::Failed { .. })));
        assert_reads(&set, 1, 1, 100).await;
        assert!(
            set.read(fid(1, 2), 0..100).await.is_err_and(|error| matches!(error, VolumeError::CorruptNeedle { .. }))
        );
    }
}

#[tokio::test]
async fn a_volume_kept_as_an_object_does_not_confuse_a_rebuild() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let set = filled(&disk, &clock, 10).await;
    let copy = bytes::Bytes::from(disk.content(&path(1, "data")).unwrap());
    set.append(volume(1), NeedleKey(50), crate::setup::COOKIE, copy.clone()).await.unwrap();
    append(&set, 1, 51, 100).await.unwrap();
    drop(set);
    flip(&disk, 64 + 10 * SPAN + 4); // the header of the object: a rebuild looks for needles inside it
    disk.remove(&path(1, "index")).unwrap();
    let set = open(&disk, &clock);
    let status = set.state(volume(1)).unwrap();
    assert_eq!((status.needles, status.damaged.len()), (11, 1));
    assert_eq!(status.damaged[0].length as usize, (32 + copy.len()).next_multiple_of(8));
}

#[tokio::test]
async fn a_damaged_state_file_leaves_a_volume_that_only_reads_and_a_lost_one_is_reported() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    drop(filled(&disk, &clock, 3).await);
    disk.corrupt(&path(1, "state"), |bytes| bytes[3] ^= 1);
    let set = open(&disk, &clock);
    assert!(set.state(volume(1)).unwrap().failed.is_some());
    assert_reads(&set, 1, 1, 100).await;
    assert!(append(&set, 1, 9, 1).await.is_err());
    drop(set);
    disk.remove(&path(1, "state")).unwrap();
    let set = VolumeSet::open(std::path::Path::new(crate::setup::DIRECTORY), disk.clone(), clock).unwrap();
    assert_eq!(set.unopened().len(), 1);
    assert!(matches!(set.create(header(1)), Err(VolumeError::BadFile { .. })), "a creation would drop needles");
}

#[tokio::test]
async fn a_large_needle_with_damaged_data_keeps_its_name() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let set = open(&disk, &clock);
    set.create(header(1)).unwrap();
    for key in 0..3 {
        append(&set, 1, key, 200_000).await.unwrap();
    }
    let span = (set.state(volume(1)).unwrap().committed - 64) / 3;
    set.shutdown().await;
    drop(set);
    flip(&disk, 64 + span as usize + 150_000);
    disk.remove(&path(1, "index")).unwrap();
    for _ in 0..2 {
        let set = open(&disk, &clock);
        let damaged = set.state(volume(1)).unwrap().damaged;
        assert_eq!((damaged.len(), damaged[0].offset, damaged[0].length), (1, 64 + span, span));
        assert_eq!(damaged[0].key, Some(NeedleKey(1)));
        assert!(matches!(set.read(fid(1, 1), 0..200_000).await, Err(VolumeError::CorruptNeedle { .. })));
        assert_eq!(set.read(fid(1, 1), 0..1000).await.unwrap().len(), 1000, "its other blocks are whole");
        assert!(matches!(set.read(fid(1, 9), 0..1).await, Err(VolumeError::NoSuchNeedle(_))));
        assert_reads(&set, 1, 2, 200_000).await;
    }
}
