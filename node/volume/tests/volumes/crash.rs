//! Power cuts at any moment, again and again: every acknowledged needle reads back, and nothing is called damaged.

use std::collections::BTreeMap;
use std::sync::Arc;

use meridian_env::disk::{Fault, FaultDisk, SimulatedDisk};
use meridian_env::{Disk, HybridClock};
use meridian_types::Timestamp;
use meridian_volume::VolumeError;

use crate::setup::{Random, append, assert_reads, clock, fid, header, open, path, volume};

const ROUNDS: u64 = 400;
const LIVES: u64 = 4;
const TASKS: u64 = 6;

/// What was answered, over all lives of a disk.
#[derive(Default)]
struct Answered {
    lengths: BTreeMap<u64, usize>,
    deleted: Vec<u64>,
    /// Deletes without an answer: either way is right.
    uncertain: Vec<u64>,
    last: Timestamp,
    end: u64,
}

fn length(random: &mut Random) -> usize {
    match random.below(10) {
        0 => 65_536 + random.below(200_000) as usize,
        1..4 => random.below(20_000) as usize,
        _ => random.below(600) as usize,
    }
}

async fn check(seed: u64, disk: &Arc<SimulatedDisk>, clock: &Arc<HybridClock>, answered: &Answered) {
    let set = open(disk, clock);
    let status = set.state(volume(1)).expect("the volume was created");
    assert_eq!((status.damaged, status.failed), (vec![], None), "seed {seed}");
    assert!(status.committed >= answered.end, "seed {seed}: {} of {} bytes", status.committed, answered.end);
    assert!(status.closed >= answered.last, "seed {seed}");
    assert_eq!(disk.content(&path(1, "data")).unwrap().len() as u64, status.committed, "seed {seed}");
    for (key, length) in &answered.lengths {
        if answered.deleted.contains(key) {
            let read = set.read(fid(1, *key), 0..0).await;
            assert!(matches!(read, Err(VolumeError::NoSuchNeedle(_))), "seed {seed}: needle {key} is back");
        } else if answered.uncertain.contains(key) {
            match set.read(fid(1, *key), 0..*length as u32).await {
                Ok(_) | Err(VolumeError::NoSuchNeedle(_)) => {}
                Err(error) => panic!("seed {seed}: {error}"),
            }
        } else {
            assert_reads(&set, 1, *key, *length).await;
        }
    }
}

/// Tasks append and delete until the power goes.
async fn live(
    disk: &Arc<SimulatedDisk>,
    clock: &Arc<HybridClock>,
    random: &mut Random,
    first_key: u64,
    answered: &mut Answered,
) {
    let set = open(disk, clock);
    disk.cut_power_after(random.below(40));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (set, mut random) = (set.clone(), Random(random.below(u64::MAX)));
            tokio::spawn(async move {
                let (mut stored, mut deleted, mut uncertain) = (Vec::new(), Vec::new(), None);
                for key in (first_key + task..).step_by(TASKS as usize) {
                    let length = length(&mut random);
                    match append(&set, 1, key, length).await {
                        Ok(appended) => stored.push((key, length, appended)),
                        Err(_) => break,
                    }
                    if random.below(5) == 0 {
                        let (victim, ..) = stored[random.below(stored.len() as u64) as usize];
                        match set.delete(fid(1, victim)).await {
                            Ok(()) => deleted.push(victim),
                            Err(VolumeError::NoSuchNeedle(_)) => {}
                            Err(_) => {
                                uncertain = Some(victim);
                                break;
                            }
                        }
                    }
                }
                (stored, deleted, uncertain)
            })
        })
        .collect();
    for task in tasks {
        let (stored, deleted, uncertain) = task.await.unwrap();
        for (key, length, appended) in stored {
            answered.lengths.insert(key, length);
            answered.last = answered.last.max(appended.stamp);
            answered.end = answered.end.max(appended.end_offset);
        }
        answered.deleted.extend(deleted);
        answered.uncertain.extend(uncertain);
    }
}

#[tokio::test]
async fn every_acknowledged_needle_survives_any_power_cut() {
    let clock = clock();
    let mut acknowledged = 0;
    for seed in 0..ROUNDS {
        let mut random = Random(seed);
        let disk = SimulatedDisk::new();
        open(&disk, &clock).create(header(1)).unwrap();
        let mut answered = Answered::default();
        for life in 0..LIVES {
            live(&disk, &clock, &mut random, life * 1_000_000, &mut answered).await;
            disk.restore(random.below(u64::MAX));
            if random.below(8) == 0 {
                disk.remove(&path(1, "index")).unwrap(); // and the journal is lost too
                disk.sync_directory(std::path::Path::new(crate::setup::DIRECTORY)).unwrap();
                let set = open(&disk, &clock); // without its proof a torn commit may count as damage, but nothing is lost
                for (key, length) in &answered.lengths {
                    if !answered.deleted.contains(key) && !answered.uncertain.contains(key) {
                        assert_reads(&set, 1, *key, *length).await;
                    }
                }
                break;
            }
            check(seed, &disk, &clock, &answered).await;
        }
        acknowledged += answered.lengths.len();
    }
    assert!(
        acknowledged as u64 > ROUNDS * 10,
        "only {acknowledged} needles were acknowledged: the cuts come too early"
    );
}

#[tokio::test]
async fn a_power_cut_during_a_start_loses_nothing_either() {
    let clock = clock();
    for seed in 0..150 {
        let mut random = Random(seed ^ 0x5eed);
        let disk = SimulatedDisk::new();
        open(&disk, &clock).create(header(1)).unwrap();
        let mut answered = Answered::default();
        live(&disk, &clock, &mut random, 0, &mut answered).await;
        disk.restore(random.below(u64::MAX));
        for _ in 0..3 {
            disk.cut_power_after(random.below(6));
            let directory = std::path::Path::new(crate::setup::DIRECTORY);
            let _ = meridian_volume::VolumeSet::open(directory, disk.clone(), clock.clone()); // may or may not get through
            disk.restore(random.below(u64::MAX));
        }
        check(seed, &disk, &clock, &answered).await;
    }
}

#[tokio::test]
async fn a_power_cut_during_a_creation_leaves_a_volume_or_none() {
    let clock = clock();
    let mut created = 0;
    for seed in 0..200 {
        let disk = SimulatedDisk::new();
        let set = open(&disk, &clock);
        disk.cut_power_after(seed % 12);
        let answered = set.create(header(1)).is_ok();
        drop(set);
        disk.restore(seed);
        let set = open(&disk, &clock);
        assert!(!answered || set.state(volume(1)).is_some(), "seed {seed}");
        set.create(header(1)).unwrap();
        append(&set, 1, 1, 100).await.unwrap();
        assert_reads(&set, 1, 1, 100).await;
        created += u32::from(answered);
    }
    assert!(created > 20 && created < 200, "{created}");
}

#[tokio::test]
async fn a_power_cut_during_a_seal_leaves_it_to_be_asked_again() {
    let clock = clock();
    for seed in 0..150 {
        let mut random = Random(seed);
        let disk = SimulatedDisk::new();
        let set = open(&disk, &clock);
        set.create(header(1)).unwrap();
        for key in 0..5 {
            append(&set, 1, key, 100).await.unwrap();
        }
        disk.cut_power_after(random.below(8));
        let sealed = set.seal(volume(1), meridian_types::Epoch(2)).await;
        drop(set);
        disk.restore(random.below(u64::MAX));
        let set = open(&disk, &clock);
        let status = set.state(volume(1)).unwrap();
        assert!(status.sealed || sealed.is_err(), "seed {seed}: a seal was lost");
        assert_eq!(set.seal(volume(1), meridian_types::Epoch(2)).await.unwrap(), 64 + 5 * 136, "seed {seed}");
        for key in 0..5 {
            assert_reads(&set, 1, key, 100).await;
        }
    }
}

#[tokio::test]
async fn what_a_start_shows_as_committed_is_durable() {
    let clock = clock();
    for seed in 0..60 {
        let inner = SimulatedDisk::new();
        let disk = FaultDisk::new(inner.clone());
        let set = open(&disk, &clock);
        set.create(header(1)).unwrap();
        append(&set, 1, 1, 100).await.unwrap();
        disk.plan(Fault::Sync, ".data", 0);
        append(&set, 1, 2, 3000).await.unwrap_err(); // written, not synced, not acknowledged
        drop(set); // a kill: the page cache stays
        let shown = open(&inner, &clock).state(volume(1)).unwrap().committed;
        assert!(shown > 3000, "a whole needle is not cut");
        inner.restore(seed); // and only now the power goes: a mirror may have taken what was shown
        let set = open(&inner, &clock);
        assert!(set.state(volume(1)).unwrap().committed >= shown, "seed {seed}");
        assert_reads(&set, 1, 2, 3000).await;
    }
}
