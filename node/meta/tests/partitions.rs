//! The promises of a partition over the real stack of one node.

mod stack;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use meridian_env::{SystemClock, entropy};
use meridian_index::{
    BucketSettings, Condition, FenceAttempt, Mutation, ObjectBody, Operation, Outcome, RemoteOutcome, VersionKind,
    VersionMode, queries,
};
use meridian_meta::MetaError;
use meridian_replicator::{Batch, CursorVector, LogEntry};
use meridian_store::SyncHook;
use meridian_types::{Incarnation, LogPosition, PartitionId, Sequence, Stamp, Timestamp};
use stack::{PARTITION, PARTITIONS, SKEW_MS_MAX, Stack, bucket, datacenter, put, stamp_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_proposals_keep_the_order_of_their_stamps_in_the_log() {
    const WRITERS: usize = 16;
    const PUTS: usize = 40;
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let writers = (0..WRITERS).map(|writer| {
        let meta = stack.meta.clone();
        tokio::spawn(async move {
            let mut last = None;
            for number in 0..PUTS {
                let operation = put(&format!("{writer}/{number}"));
                let outcome = meta.propose(PARTITION, entropy::request_id(), operation, Timestamp::ZERO).await;
                let stamp = stamp_of(outcome.unwrap());
                assert!(last < Some(stamp), "a later call has a later stamp");
                last = Some(stamp);
            }
        })
    });
    for writer in futures::future::join_all(writers).await {
        writer.unwrap();
    }
    let log = stack.log();
    assert_eq!(log.len(), WRITERS * PUTS);
    assert!(log.windows(2).all(|pair| pair[0].stamp < pair[1].stamp));
    assert!(log.iter().zip(1..).all(|(entry, sequence)| entry.sequence == Sequence(sequence)));
    stack.stop().await;
}

#[tokio::test]
async fn a_retry_under_the_same_request_id_is_applied_once() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let request = entropy::request_id();
    let propose = || stack.meta.propose(PARTITION, request, put("k"), Timestamp::ZERO);
    let (first, second) = tokio::join!(propose(), propose());
    let first = stamp_of(first.unwrap());
    assert_eq!(stamp_of(second.unwrap()), first);
    stack.put_stamped("k").await; // rule 11: the retry of the old value must not come back over this
    assert_eq!(stamp_of(propose().await.unwrap()), first);
    assert_eq!(stack.log().len(), 2);
    let view = stack.meta.read(PARTITION).await.unwrap();
    assert!(queries::object(&view, bucket(), &"k".parse().unwrap()).unwrap().unwrap().stamp > first);
    stack.stop().await;
}

#[tokio::test]
async fn a_restart_loses_nothing_and_stamps_above_everything_before() {
    let directory = tempfile::tempdir().unwrap();
    let mut last = None;
    for life in 0..3 {
        let stack = Stack::start(directory.path()).await;
        assert_eq!(stack.log().len(), life * 5);
        for number in 0..5 {
            let stamp = stack.put_stamped(&format!("{life}/{number}")).await;
            assert!(last < Some(stamp), "{last:?} then {stamp:?}");
            last = Some(stamp);
        }
        let view = stack.meta.read(PARTITION).await.unwrap();
        for life in 0..=life {
            let key = format!("{life}/4").parse().unwrap();
            assert!(queries::object(&view, bucket(), &key).unwrap().is_some(), "{key}");
        }
        drop(view);
        stack.stop().await;
    }
}

#[tokio::test]
async fn a_stamp_after_a_close_is_above_it() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let at = stack.clock.wall().plus_ms(100);
    assert!(stack.meta.close(PARTITION, at).await.unwrap() >= at);
    assert!(stack.put_stamped("k").await.timestamp > at);
    let later = at.plus_ms(50);
    stack.meta.close_all(later).await.unwrap();
    for partition in stack.meta.partitions() {
        let view = stack.meta.local_view(partition).unwrap();
        assert!(queries::log_head(&view, datacenter(1)).unwrap().closed >= later, "partition {partition}");
    }
    assert!(stack.meta.close(PARTITION, at).await.unwrap() >= later, "never back");
    stack.stop().await;
}

#[tokio::test]
async fn chunk_stamps_are_observed_before_the_mutation_is_stamped() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let seen = stack.clock.wall().plus_ms(150);
    let outcome = stack.meta.propose(PARTITION, entropy::request_id(), put("k"), seen).await.unwrap();
    assert!(stamp_of(outcome).timestamp > seen);
    stack.stop().await;
}

/// A batch of datacenter 2's log with one put, stamped `timestamp`.
fn remote_batch(timestamp: Timestamp) -> Batch {
    let kind = VersionKind::Object(ObjectBody {
        etag: "d41d8cd98f00b204e9800998ecf8427e".to_owned(),
        ..ObjectBody::default()
    });
    let key = "remote".parse().unwrap();
    let entry = LogEntry {
        stamp: Stamp::new(timestamp, datacenter(2)),
        incarnation: Incarnation(0),
        sequence: Sequence(1),
        cursors: CursorVector::new(),
        mutation: Mutation::Object { bucket: bucket(), key, mode: VersionMode::Null, kind }.encode(),
    };
    let entries = vec![Bytes::from(entry.encode())];
    Batch { source: datacenter(2), after: LogPosition::start(datacenter(2)), entries, closed: timestamp }
}

#[tokio::test]
async fn a_skewed_batch_is_not_proposed_and_a_good_one_raises_the_clock() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let skewed = remote_batch(stack.clock.wall().plus_ms(SKEW_MS_MAX + 60_000));
    match stack.meta.apply_remote(PARTITION, skewed).await {
        Err(MetaError::Skewed { ahead_ms }) => {
            assert!((SKEW_MS_MAX + 50_000..=SKEW_MS_MAX + 60_000).contains(&ahead_ms))
        }
        other => panic!("{other:?}"),
    }
    let cursor = |stack: &Stack| queries::cursor(&stack.meta.local_view(PARTITION).unwrap(), datacenter(2)).unwrap();
    assert_eq!(cursor(&stack).position.sequence, Sequence::ZERO);
    assert!(
        stack.put_stamped("k").await.timestamp < stack.clock.wall().plus_ms(SKEW_MS_MAX),
        "the skewed one was not merged"
    );

    let remote = stack.clock.wall().plus_ms(SKEW_MS_MAX / 2);
    let batch = remote_batch(remote);
    assert!(matches!(stack.meta.apply_remote(PARTITION, batch.clone()).await, Ok(RemoteOutcome::Applied(_))));
    assert!(matches!(stack.meta.apply_remote(PARTITION, batch).await, Ok(RemoteOutcome::Ignored(_))), "rule 12");
    assert_eq!(cursor(&stack).position.sequence, Sequence(1));
    assert!(stack.put_stamped("remote").await.timestamp > remote, "an overwrite of what was read wins (rule 9)");
    stack.stop().await;
}

#[tokio::test]
async fn idle_partitions_are_closed_soon_after_activity_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start_with(directory.path(), |config| {
        config.closed_interval_ms = 20;
        config.closed_interval_idle_ms = 3_600_000; // only activity can bring a tick
    })
    .await;
    let stamp = stack.put_stamped("k").await;
    stack
        .until(|meta| {
            meta.partitions().all(|partition| {
                let view = meta.local_view(partition).unwrap();
                queries::log_head(&view, datacenter(1)).unwrap().closed >= stamp.timestamp
            })
        })
        .await;
    stack.stop().await;
}

#[tokio::test]
async fn idle_partitions_are_closed_without_any_activity() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start_with(directory.path(), |config| config.closed_interval_idle_ms = 20).await;
    let now = stack.clock.next_waiting().await.unwrap();
    stack
        .until(|meta| {
            let view = meta.local_view(PartitionId(1)).unwrap();
            queries::log_head(&view, datacenter(1)).unwrap().closed >= now
        })
        .await;
    stack.stop().await;
}

#[tokio::test]
async fn a_wall_clock_that_went_back_refuses_writes_and_lets_reads_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start_at(directory.path(), SystemClock::with_offset_ms(3_600_000), |_| {}).await;
    let ahead = stack.put_stamped("k").await;
    stack.stop().await;
    let stack = Stack::start(directory.path()).await;
    let refused = stack.put("k").await;
    assert!(matches!(refused, Err(MetaError::Clock { .. })), "rule 10: never below what was stamped: {refused:?}");
    let view = stack.meta.read(PARTITION).await.unwrap();
    assert_eq!(queries::object(&view, bucket(), &"k".parse().unwrap()).unwrap().unwrap().stamp, ahead);
    stack.stop().await;
}

#[tokio::test] // one thread: the proposer can't take anything while the calls are made
async fn a_full_queue_refuses_and_what_it_took_is_applied() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let keys: Vec<_> = (0..5000).map(|number| format!("{number:04}")).collect();
    let outcomes = futures::future::join_all(keys.iter().map(|key| stack.put(key))).await;
    let stored = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Outcome::Stored { .. }))).count();
    let busy = outcomes.iter().filter(|outcome| matches!(outcome, Err(MetaError::Busy { .. }))).count();
    assert!(stored >= 1000 && busy > 0, "{stored} stored, {busy} refused");
    assert_eq!(stored + busy, keys.len());
    let stamps: BTreeSet<_> =
        outcomes.into_iter().filter_map(Result::ok).map(|outcome| stamp_of(outcome).timestamp).collect();
    assert_eq!(stamps.len(), stored, "every mutation has a stamp of its own");
    assert_eq!(stack.log().len(), stored, "what was refused was not applied");
    stack.stop().await;
}

#[tokio::test]
async fn what_can_not_be_proposed_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let unknown = PartitionId(PARTITIONS);
    assert_eq!(stack.meta.read(unknown).await.err(), Some(MetaError::NoSuchPartition { partition: unknown }));
    let body = ObjectBody {
        etag: "d41d8cd98f00b204e9800998ecf8427e".to_owned(),
        attributes: meridian_index::Attributes { content_type: Some("x".repeat(4 << 20)), ..Default::default() },
        ..ObjectBody::default()
    };
    let (bucket, key) = (bucket(), "k".parse().unwrap());
    let large = Operation::Put { bucket, key, mode: VersionMode::Null, body, condition: Condition::None };
    let outcome = stack.meta.propose(PARTITION, entropy::request_id(), large, Timestamp::ZERO).await;
    assert!(matches!(outcome, Err(MetaError::TooLarge { .. })), "{outcome:?}");
    stack.meta.shutdown().await;
    assert_eq!(stack.put("k").await, Err(MetaError::Stopped));
    stack.stop().await;
}

#[tokio::test]
async fn after_a_failed_sync_everything_is_refused_at_once_and_says_why() {
    let (directory, failing) = (tempfile::tempdir().unwrap(), Arc::new(AtomicBool::new(false)));
    let fails = failing.clone();
    let hook: SyncHook = Arc::new(move || match fails.load(Ordering::Relaxed) {
        true => Err("injected".to_owned()),
        false => Ok(()),
    });
    let stack = Stack::start_syncing(directory.path(), SystemClock::new(), |_| {}, Some(hook)).await;
    stack.put_stamped("before").await;
    failing.store(true, Ordering::Relaxed);
    let lost = stack.put("lost").await;
    assert_eq!(lost, Err(MetaError::Unknown { partition: PARTITION }), "nobody knows what the disk has of it");

    let began = Instant::now();
    let is_said = |error: Option<MetaError>| matches!(&error, Some(MetaError::DiskFailed { reason, .. }) if reason.contains("injected"));
    assert!(is_said(stack.put("after").await.err()));
    assert!(is_said(stack.meta.read(PARTITION).await.err()));
    assert!(is_said(stack.meta.read(PartitionId::CATALOG).await.err()), "one disk has them all");
    assert!(is_said(stack.meta.close(PARTITION, stack.clock.wall()).await.err()));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    stack.stop().await;
}

#[tokio::test]
async fn the_catalog_is_a_partition_and_a_fence_holds_back_one_bucket() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let name: meridian_types::BucketName = "photos".parse().unwrap();
    let (settings, owner) = (BucketSettings::default(), "root".to_owned());
    let create = Operation::CreateBucket { name: name.clone(), settings, owner };
    let created =
        stack.meta.propose(PartitionId::CATALOG, entropy::request_id(), create, Timestamp::ZERO).await.unwrap();
    assert!(matches!(created, Outcome::BucketCreated { existed: false, .. }));
    let view = stack.meta.read(PartitionId::CATALOG).await.unwrap();
    assert_eq!(queries::bucket(&view, &name).unwrap().unwrap().owner, "root");

    let attempt = FenceAttempt { datacenter: datacenter(1), attempt: entropy::request_id() };
    stack.meta.fence(PARTITION, bucket(), attempt, true).await.unwrap();
    assert_eq!(stack.put("k").await, Ok(Outcome::Fenced));
    stack.meta.fence(PARTITION, bucket(), attempt, false).await.unwrap();
    stack.put_stamped("k").await;
    stack.stop().await;
}
