//! Buckets, and what this datacenter asks of the others, over the real stack.

mod stack;

use bytes::Bytes;
use meridian_index::{FenceAttempt, queries};
use meridian_object::{BucketSettings, FencePosition, FenceReport, ObjectError, StreamError, fence_bucket};
use meridian_types::limits::CHUNK_SIZE_MAX;
use meridian_types::{BucketName, DatacenterId, Fid, Incarnation, PartitionId, RequestId, Sequence, partition_of};
use stack::{PARTITIONS, Stack, collect, delete_item, get_request, here, key, pattern};
use tempfile::tempdir;

fn elsewhere(empty: bool) -> FenceReport {
    FenceReport { datacenter: DatacenterId::new(2).unwrap(), empty, positions: Vec::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_created_once_and_belongs_to_its_owner() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let name = stack.bucket("mine").await;
    let again = stack.objects.create_bucket(&name, BucketSettings::default(), "owner").await.unwrap();
    assert!(again.existed);
    let stolen = stack.objects.create_bucket(&name, BucketSettings::default(), "thief").await;
    assert!(matches!(stolen, Err(ObjectError::BucketAlreadyExists(_))));
    stack.bucket("another").await;
    let names: Vec<_> = stack.objects.list_buckets().await.unwrap().into_iter().map(|row| row.name).collect();
    assert_eq!(names.iter().map(BucketName::as_str).collect::<Vec<_>>(), ["another", "mine"]);
    let settings = BucketSettings { code: Some("010".parse().unwrap()), ..BucketSettings::default() };
    stack.objects.update_bucket(&name, settings.clone()).await.unwrap();
    assert_eq!(stack.objects.head_bucket(&name).await.unwrap().settings, settings);
    // A code that one node can't meet refuses the write: never silently degraded.
    let refused = stack.put(&name, "k", b"x").await;
    let Err(ObjectError::InvalidArgument { argument: "replication", reason }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("rack"), "{reason}");
    assert!(matches!(stack.get(&name, "k").await, Err(ObjectError::NoSuchKey { .. })));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_bucket_is_deleted_and_its_name_starts_anew() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let name = stack.bucket("short-lived").await;
    let first = stack.objects.head_bucket(&name).await.unwrap().id;
    stack.put(&name, "k", b"x").await.unwrap();
    assert!(matches!(stack.objects.delete_bucket(&name).await, Err(ObjectError::BucketNotEmpty(_))));
    assert!(stack.elsewhere.fences.lock().is_empty());
    stack.objects.delete(&name, delete_item("k")).await.unwrap();
    *stack.elsewhere.reports.lock() = vec![elsewhere(true)];
    stack.objects.delete_bucket(&name).await.unwrap();
    assert_eq!(*stack.elsewhere.fences.lock(), [(first, true)]);
    assert!(matches!(stack.objects.head_bucket(&name).await, Err(ObjectError::NoSuchBucket(_))));
    assert!(matches!(stack.put(&name, "k", b"x").await, Err(ObjectError::NoSuchBucket(_))));
    assert!(matches!(stack.objects.delete_bucket(&name).await, Err(ObjectError::NoSuchBucket(_))));
    stack.bucket("short-lived").await;
    assert_ne!(stack.objects.head_bucket(&name).await.unwrap().id, first);
    stack.put(&name, "k", b"new").await.unwrap();
    assert_eq!(stack.get(&name, "k").await.unwrap(), b"new");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_a_member_does_not_agree_to_lifts_every_fence() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let name = stack.bucket("kept").await;
    let id = stack.objects.head_bucket(&name).await.unwrap().id;
    // It never becomes empty there, though nothing that it holds is on its way here.
    *stack.elsewhere.reports.lock() = vec![elsewhere(true), elsewhere(false)];
    let answer = stack.objects.delete_bucket(&name).await;
    assert!(matches!(answer, Err(ObjectError::Unavailable { .. })), "{answer:?}");
    assert_eq!(stack.elsewhere.fences.lock().iter().filter(|fence| **fence == (id, false)).count(), 1);
    assert_eq!(stack.elsewhere.fences.lock().last(), Some(&(id, false)));
    stack.put(&name, "k", b"x").await.unwrap();
    stack.objects.delete(&name, delete_item("k")).await.unwrap();

    *stack.elsewhere.unreachable.lock() = true;
    let answer = stack.objects.delete_bucket(&name).await;
    let Err(ObjectError::Unavailable { reason, .. }) = answer else { panic!("{answer:?}") };
    assert!(reason.contains("dc-b"), "{reason}");
    stack.put(&name, "k", b"x").await.unwrap();
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_waits_for_the_others_to_apply_the_deletes_before_it() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let name = stack.bucket("emptied").await;
    let id = stack.objects.head_bucket(&name).await.unwrap().id;
    *stack.elsewhere.reports.lock() = vec![elsewhere(false)];
    *stack.elsewhere.later_reports.lock() = Some(vec![elsewhere(true)]);
    stack.objects.delete_bucket(&name).await.unwrap();
    assert_eq!(*stack.elsewhere.fences.lock(), [(id, true), (id, true)]);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_bucket_takes_no_mutation() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let name = stack.bucket("fenced").await;
    stack.put(&name, "k", b"x").await.unwrap();
    let id = stack.objects.head_bucket(&name).await.unwrap().id;
    let attempt = FenceAttempt { datacenter: here(), attempt: RequestId([7; 16]) };
    let report = fence_bucket(&stack.meta, here(), id, attempt, true).await.unwrap();
    assert!(!report.empty);
    assert_eq!(report.positions.len(), usize::from(PARTITIONS));
    let written = partition_of(id, &key("k"), PARTITIONS);
    for FencePosition { partition, sequence, .. } in report.positions {
        assert_eq!(sequence, Sequence(u64::from(partition == written)));
    }
    assert!(matches!(stack.put(&name, "new", b"x").await, Err(ObjectError::BucketBeingDeleted(_))));
    assert_eq!(stack.get(&name, "k").await.unwrap(), b"x");
    fence_bucket(&stack.meta, here(), id, attempt, false).await.unwrap();
    stack.put(&name, "new", b"x").await.unwrap();
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_waits_for_the_logs_of_the_others() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let name = stack.bucket("waiting").await;
    let position = FencePosition { partition: PartitionId(1), incarnation: Incarnation(0), sequence: Sequence(5) };
    *stack.elsewhere.reports.lock() = vec![FenceReport { positions: vec![position], ..elsewhere(true) }];
    // Nothing of the other's log ever arrives here: the deletion gives up and lifts the fence.
    let answer = stack.objects.delete_bucket(&name).await;
    assert!(matches!(answer, Err(ObjectError::Unavailable { .. })), "{answer:?}");
    stack.put(&name, "k", b"x").await.unwrap();
    stack.stop().await;
}

/// The chunks of an object, as its row says.
async fn chunks(stack: &Stack, bucket: &BucketName, name: &str) -> Vec<Fid> {
    let id = stack.objects.head_bucket(bucket).await.unwrap().id;
    let view = stack.meta.read(partition_of(id, &key(name), PARTITIONS)).await.unwrap();
    let version = queries::object(&view, id, &key(name)).unwrap().unwrap();
    version.body().unwrap().chunks.iter().map(|chunk| chunk.fid).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_here_come_from_elsewhere_or_the_answer_says_why_not() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("proxied").await;
    let data = pattern(2 * CHUNK_SIZE_MAX, 6);
    stack.put(&bucket, "k", &data).await.unwrap();
    let fids = chunks(&stack, &bucket, "k").await;
    assert_eq!(fids.len(), 2);

    // The second chunk is gone: the answer starts, and must not end early without an error.
    stack.volumes.delete(fids[1]).await.unwrap();
    *stack.elsewhere.unreachable.lock() = true;
    let outcome = stack.objects.get(get_request(&bucket, "k")).await.unwrap();
    assert!(matches!(collect(outcome.body).await, Err(StreamError::Storage(_))));
    *stack.elsewhere.unreachable.lock() = false;
    stack.elsewhere.needles.lock().insert(fids[1], Bytes::copy_from_slice(&data[CHUNK_SIZE_MAX..]));
    assert!(stack.get(&bucket, "k").await.unwrap() == data);
    assert!(stack.elsewhere.fetches.lock().iter().all(|(fid, _)| *fid == fids[1]));

    stack.volumes.delete(fids[0]).await.unwrap();
    for unreachable in [true, false] {
        *stack.elsewhere.unreachable.lock() = unreachable;
        let answer = stack.objects.get(get_request(&bucket, "k")).await;
        let Err(ObjectError::Unavailable { reason, retry_after_s }) = answer.map(|_| ()) else { panic!("no error") };
        assert!(retry_after_s > 0 && reason.contains(if unreachable { "dc-b" } else { "nowhere" }), "{reason}");
    }
    stack.stop().await;
}
