//! Appends and reads that go well, the limits, and starts after a clean end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use meridian_env::RealDisk;
use meridian_env::disk::{Fault, FaultDisk, SimulatedDisk};
use meridian_types::limits::NEEDLE_SIZE_MAX;
use meridian_types::{Cookie, Fid, NeedleKey, Timestamp};
use meridian_volume::{BLOCK_SIZE, VOLUME_HEADER_SIZE, VolumeError, VolumeOptions, VolumeSet};
use proptest::prelude::*;

use crate::setup::{
    COOKIE, GENERATION, append, assert_reads, clock, content, fid, header, open, open_limited, path, volume,
};

const LENGTHS: [usize; 10] = [0, 1, 7, 8, 4096, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 3 * BLOCK_SIZE, 4 << 20];

#[tokio::test]
async fn needles_of_all_sizes_read_back_from_real_files_and_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (clock, disk) = (clock(), RealDisk::new());
    let set = VolumeSet::open(directory.path(), disk.clone(), clock.clone()).unwrap();
    set.create(header(1)).unwrap();
    let (mut end, mut stamp) = (VOLUME_HEADER_SIZE, Timestamp::ZERO);
    for (key, length) in LENGTHS.into_iter().enumerate() {
        let appended = append(&set, 1, key as u64, length).await.unwrap();
        assert!(appended.end_offset > end && appended.stamp > stamp);
        (end, stamp) = (appended.end_offset, appended.stamp);
        assert_eq!(set.state(volume(1)).unwrap().committed, end);
    }
    set.shutdown().await;
    assert!(matches!(append(&set, 1, 99, 1).await, Err(VolumeError::ShuttingDown)));
    assert_reads(&set, 1, 4, LENGTHS[4]).await;
    let before = set.states();
    drop(set);

    // With the index journal, without it, and without the clean end's record of the committed length.
    for _ in 0..2 {
        let set = VolumeSet::open(directory.path(), disk.clone(), clock.clone()).unwrap();
        assert_eq!(set.states(), before);
        for (key, length) in LENGTHS.into_iter().enumerate() {
            assert_reads(&set, 1, key as u64, length).await;
            assert_eq!(set.needle_size(fid(1, key as u64)).unwrap() as usize, length);
        }
        drop(set);
        std::fs::remove_file(directory.path().join(path(1, "index").file_name().unwrap())).unwrap();
    }
}

#[tokio::test]
async fn a_wrong_cookie_and_an_unknown_key_are_no_needle() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let set = open(&disk, &clock);
    set.create(header(1)).unwrap();
    for (key, length) in [(1, 10), (2, 100_000)] {
        append(&set, 1, key, length).await.unwrap();
        let wrong = Fid { cookie: Cookie(1), ..fid(1, key) };
        assert!(matches!(set.read(wrong, 0..10).await, Err(VolumeError::NoSuchNeedle(_))));
        assert!(matches!(set.read(wrong, 0..u32::MAX).await, Err(VolumeError::NoSuchNeedle(_))));
        assert!(matches!(set.needle_size(wrong), Err(VolumeError::NoSuchNeedle(_))));
        assert!(matches!(set.delete(wrong).await, Err(VolumeError::NoSuchNeedle(_))));
        let outside = set.read(fid(1, key), 5..length as u32 + 1).await;
        assert!(matches!(outside, Err(VolumeError::RangeOutside { size, .. }) if size == length as u32));
        #[expect(clippy::reversed_empty_ranges)]
        let reversed = set.read(fid(1, key), 5..4).await;
        assert!(matches!(reversed, Err(VolumeError::RangeOutside { .. })));
    }
    assert!(matches!(set.read(fid(1, 3), 0..1).await, Err(VolumeError::NoSuchNeedle(_))));
    assert!(matches!(set.read(fid(2, 1), 0..1).await, Err(VolumeError::NoSuchVolume(_))));
}

#[tokio::test]
async fn a_full_volume_and_a_used_key_and_a_large_needle_are_refused() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let set = open_limited(&disk, &clock, VOLUME_HEADER_SIZE + 3 * 136);
    set.create(header(1)).unwrap();
    for key in 0..3 {
        append(&set, 1, key, 100).await.unwrap();
    }
    let full = append(&set, 1, 3, 0).await.unwrap_err();
    assert!(matches!(full, VolumeError::Full(_)) && full.take_another());
    set.create(header(2)).unwrap();
    append(&set, 2, 7, 8).await.unwrap();
    let used = append(&set, 2, 7, 8).await.unwrap_err();
    assert!(matches!(used, VolumeError::KeyUsed { .. }) && !used.take_another());
    let large = append(&set, 2, 8, NEEDLE_SIZE_MAX + 1).await.unwrap_err();
    assert!(matches!(large, VolumeError::NeedleTooLarge { .. }));
}

#[tokio::test]
async fn creation_is_repeatable_and_never_changes_a_volume() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let set = open(&disk, &clock);
    set.create(header(1)).unwrap();
    append(&set, 1, 1, 8).await.unwrap();
    set.create(header(1)).unwrap();
    assert_reads(&set, 1, 1, 8).await;
    assert!(matches!(set.create_mirror(header(1)), Err(VolumeError::Exists(_))));
    let other = meridian_volume::VolumeHeader { code: "000".parse().unwrap(), ..header(1) };
    assert!(matches!(set.create(other), Err(VolumeError::Exists(_))));
}

#[tokio::test]
async fn deleted_needles_stay_deleted() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let set = open(&disk, &clock);
    set.create(header(1)).unwrap();
    for key in 0..20 {
        append(&set, 1, key, 100).await.unwrap();
    }
    let deletes = (0..10).map(|key| set.delete(fid(1, key)));
    for outcome in futures_join(deletes).await {
        outcome.unwrap();
    }
    assert!(matches!(set.delete(fid(1, 3)).await, Err(VolumeError::NoSuchNeedle(_))));
    let before = set.states();
    assert_eq!((before[0].needles, before[0].bytes), (10, 1000));
    drop(set);
    disk.restore(1); // power cut: deletes were durable
    let set = open(&disk, &clock);
    assert_eq!(set.states()[0].needles, 10);
    assert!(matches!(set.read(fid(1, 3), 0..1).await, Err(VolumeError::NoSuchNeedle(_))));
    assert_reads(&set, 1, 13, 100).await;
}

/// Polls all futures together on this task.
async fn futures_join<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outcomes: Vec<Option<F::Output>> = waiting.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, outcome) in waiting.iter_mut().zip(&mut outcomes) {
            if outcome.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *outcome = Some(value);
            }
        }
        if outcomes.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    outcomes.into_iter().flatten().collect()
}

#[tokio::test]
async fn one_sync_serves_every_append_that_waits_and_answers_keep_their_order() {
    let (disk, clock) = (FaultDisk::new(SimulatedDisk::new()), clock());
    let set = open(&disk, &clock);
    set.create(header(1)).unwrap();
    disk.stall(".data");
    let first = {
        let set = set.clone();
        tokio::spawn(async move { append(&set, 1, 0, 10).await })
    };
    tokio::task::spawn_blocking({
        let disk = disk.clone();
        move || disk.wait_for_stalled()
    })
    .await
    .unwrap();
    disk.plan(Fault::Sync, ".data", 2); // the stalled sync and one more succeed, a third would not
    let mut others = Box::pin(tokio::task::unconstrained(futures_join((1..=200).map(|key| append(&set, 1, key, 10)))));
    assert!(futures_poll(&mut others).await, "acknowledged during a stall"); // all of them are in the queue now
    disk.resume();
    let mut ends = vec![first.await.unwrap().unwrap().end_offset];
    ends.extend(others.await.into_iter().map(|outcome| outcome.unwrap().end_offset));
    assert!(ends.is_sorted(), "not in the order of the queue");
    assert_eq!(disk.pending(), 1);
}

/// Polls once; true when the future still waits.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|context| std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending()))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_append_while_others_read_and_a_mirror_tails() {
    const TASKS: u64 = 16;
    const EACH: u64 = 60;
    let directory = tempfile::tempdir().unwrap();
    let (clock, disk) = (clock(), RealDisk::new());
    let source = VolumeSet::open(&directory.path().join("a"), disk.clone(), clock.clone()).unwrap();
    let mirror = VolumeSet::open(&directory.path().join("b"), disk.clone(), clock.clone()).unwrap();
    source.create(header(1)).unwrap();
    mirror.create_mirror(header(1)).unwrap();
    let length = |key: u64| (key as usize * 977) % 90_000;
    let (done, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));

    let tail = {
        let (source, mirror, done) = (source.clone(), mirror.clone(), done.clone());
        tokio::spawn(async move {
            let mut changed = source.changed();
            let mut have = mirror.state(volume(1)).unwrap().committed;
            loop {
                let finished = done.load(Ordering::SeqCst);
                changed.borrow_and_update();
                let bytes = source.read_raw(volume(1), GENERATION, have, 300_000).await.unwrap();
                if !bytes.is_empty() {
                    have = mirror.mirror_append(volume(1), GENERATION, have, bytes).await.unwrap();
                } else if finished {
                    return have;
                } else {
                    changed.changed().await.unwrap();
                }
            }
        })
    };
    let writers: Vec<_> = (0..TASKS)
        .map(|task| {
            let (set, acknowledged) = (source.clone(), acknowledged.clone());
            tokio::spawn(async move {
                for key in (task..TASKS * EACH).step_by(TASKS as usize) {
                    append(&set, 1, key, length(key)).await.unwrap();
                    assert_reads(&set, 1, key, length(key)).await; // read your own write
                    acknowledged.fetch_max(key, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let readers: Vec<_> = (0..4u64)
        .map(|reader| {
            let (set, done, acknowledged) = (source.clone(), done.clone(), acknowledged.clone());
            tokio::spawn(async move {
                let mut step = reader;
                while !done.load(Ordering::SeqCst) {
                    step = step.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(7);
                    let key = (step >> 33) % (acknowledged.load(Ordering::SeqCst) + 1);
                    match set.read(fid(1, key), 0..length(key) as u32).await {
                        Ok(bytes) => assert!(bytes == content(key, length(key))),
                        Err(VolumeError::NoSuchNeedle(_)) => {} // another writer is not so far
                        Err(error) => panic!("{error}"),
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    source.close_through(clock.next_waiting().await.unwrap()); // wakes the tail
    for reader in readers {
        reader.await.unwrap();
    }
    let committed = source.state(volume(1)).unwrap().committed;
    assert_eq!(tail.await.unwrap(), committed);
    let file = path(1, "data").file_name().unwrap().to_owned();
    let bytes = |side: &str| std::fs::read(directory.path().join(side).join(&file)).unwrap();
    assert!(bytes("a") == bytes("b"), "mirror and source differ");
    for key in 0..TASKS * EACH {
        assert_reads(&mirror, 1, key, length(key)).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_range_reads_as_the_slice_of_the_whole(
        length in prop_oneof![1usize..300, 65_500usize..65_600, 130_000usize..400_000],
        ranges in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let options = VolumeOptions::default();
        let set = VolumeSet::open_with(directory.path(), RealDisk::new(), clock(), options).unwrap();
        set.create(header(1)).unwrap();
        let whole = content(5, length);
        runtime.block_on(async {
            set.append(volume(1), NeedleKey(4), COOKIE, content(4, 33)).await.unwrap();
            set.append(volume(1), NeedleKey(5), COOKIE, whole.clone()).await.unwrap();
            for (a, b) in ranges {
                let (a, b) = (a.index(length + 1), b.index(length + 1));
                let range = a.min(b)..a.max(b);
                let read = set.read(fid(1, 5), range.start as u32..range.end as u32).await.unwrap();
                assert!(read == whole[range.clone()], "{range:?} of {length}");
            }
        });
    }
}
