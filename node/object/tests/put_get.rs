//! PUT, GET, HEAD and DELETE over the real stack.

mod stack;

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, stream};
use meridian_object::{
    Attributes, Condition, DeleteItem, EtagMatch, GetRequest, ObjectError, Preconditions, PutRequest, RangeSpec,
    StreamError,
};
use meridian_types::limits::CHUNK_SIZE_MAX;
use stack::{Settings, Stack, body, collect, delete_item, get_request, md5_of, pattern, put_request};
use tempfile::tempdir;

const ORPHANS_WAIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_every_size_come_back_whole_and_in_ranges() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("sizes").await;
    let sizes = [0, 1, CHUNK_SIZE_MAX - 1, CHUNK_SIZE_MAX, CHUNK_SIZE_MAX + 1, 3 * CHUNK_SIZE_MAX + 77];
    for (seed, size) in sizes.into_iter().enumerate() {
        let (name, data) = (format!("size-{size}"), pattern(size, seed as u64));
        let outcome = stack.put(&bucket, &name, &data).await.unwrap();
        assert_eq!((outcome.size, outcome.etag), (size as u64, hex::encode(md5_of(&data))));
        assert!(!outcome.replaced);
        assert!(stack.get(&bucket, &name).await.unwrap() == data, "{size} bytes differ");
        let head = stack.objects.head(get_request(&bucket, &name)).await.unwrap();
        assert_eq!((head.info.size, head.range), (size as u64, 0..size as u64));

        // The same with a body whose length nobody announced.
        let unannounced = PutRequest { length: None, ..put_request(&bucket, "unannounced", &data) };
        assert_eq!(stack.objects.put(unannounced).await.unwrap().size, size as u64);
        assert!(stack.get(&bucket, "unannounced").await.unwrap() == data, "{size} bytes differ");

        let edges = [0, 1, CHUNK_SIZE_MAX - 1, CHUNK_SIZE_MAX, CHUNK_SIZE_MAX + 1, 2 * CHUNK_SIZE_MAX, size / 2];
        for first in edges {
            for last in edges.into_iter().chain([size]) {
                if first > last || first >= size {
                    continue;
                }
                let range = RangeSpec::FromTo(first as u64, Some(last as u64));
                let part = stack.get_range(&bucket, &name, range).await.unwrap();
                assert!(part == data[first..size.min(last + 1)], "{first}..={last} of {size} differs");
            }
        }
    }
    assert_eq!(stack.objects.chunk_budget_free_bytes(), Settings::default().chunk_budget_bytes);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let directory = tempdir().unwrap();
    let data = pattern(CHUNK_SIZE_MAX + 5, 3);
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("durable").await;
    let attributes = Attributes {
        content_type: Some("text/plain".to_owned()),
        user_metadata: vec![("color".to_owned(), "grün".to_owned())],
        ..Attributes::default()
    };
    let put = PutRequest { attributes: attributes.clone(), ..put_request(&bucket, "kept", &data) };
    let stamp = stack.objects.put(put).await.unwrap().stamp;
    stack.put(&bucket, "deleted", b"x").await.unwrap();
    stack.objects.delete(&bucket, delete_item("deleted")).await.unwrap();
    stack.stop().await;

    let stack = Stack::start_with(directory.path(), Settings::default(), 2).await;
    assert!(stack.get(&bucket, "kept").await.unwrap() == data);
    let info = stack.objects.head(get_request(&bucket, "kept")).await.unwrap().info;
    assert_eq!((info.attributes, info.stamp), (attributes, stamp));
    assert!(matches!(stack.get(&bucket, "deleted").await, Err(ObjectError::NoSuchKey { .. })));
    assert!(stack.put(&bucket, "kept", b"new").await.unwrap().stamp > stamp);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_write_is_read_and_a_delete_ends_it() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("overwrite").await;
    let first = stack.put(&bucket, "k", b"one").await.unwrap();
    let second = stack.put(&bucket, "k", b"two").await.unwrap();
    assert!(second.replaced && second.stamp > first.stamp);
    assert_eq!(stack.get(&bucket, "k").await.unwrap(), b"two");
    let deleted = stack.objects.delete(&bucket, delete_item("k")).await.unwrap();
    assert!(deleted.existed && deleted.stamp > second.stamp);
    assert!(matches!(stack.get(&bucket, "k").await, Err(ObjectError::NoSuchKey { .. })));
    assert!(!stack.objects.delete(&bucket, delete_item("k")).await.unwrap().existed);
    assert!(!stack.put(&bucket, "k", b"three").await.unwrap().replaced);
    assert_eq!(stack.get(&bucket, "k").await.unwrap(), b"three");

    let items = ["k", "never", "k"].map(delete_item);
    let answers = stack.objects.delete_many(&bucket, items.to_vec()).await.unwrap();
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(Result::is_ok));
    assert!(matches!(stack.get(&bucket, "k").await, Err(ObjectError::NoSuchKey { .. })));
    let too_many = vec![items[0].clone(); 1001];
    let refused = stack.objects.delete_many(&bucket, too_many).await;
    assert!(matches!(refused, Err(ObjectError::InvalidArgument { .. })));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_fails_in_any_way_commits_nothing() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("failing").await;
    let data = pattern(2 * CHUNK_SIZE_MAX + 9, 1);
    let request = || put_request(&bucket, "k", &data);
    stack.put(&bucket, "k", b"before").await.unwrap();
    let before = live_needles(&stack);

    let short = PutRequest { length: Some(data.len() as u64 + 1), ..request() };
    let answer = stack.objects.put(short).await;
    assert!(matches!(answer, Err(ObjectError::IncompleteBody { .. })), "{answer:?}");
    let long = PutRequest { length: Some(data.len() as u64 - 1), ..request() };
    assert!(matches!(stack.objects.put(long).await, Err(ObjectError::BodyTooLong { .. })));
    let digest = PutRequest { content_md5: Some(md5_of(b"other")), ..request() };
    assert!(matches!(stack.objects.put(digest).await, Err(ObjectError::BadDigest)));
    let mismatch = || Err(ObjectError::ChecksumMismatch { algorithm: "CRC32".to_owned() });
    let checksum = PutRequest { finish: Some(Box::new(mismatch)), ..request() };
    assert!(matches!(stack.objects.put(checksum).await, Err(ObjectError::ChecksumMismatch { .. })));
    let broken = body(&data[..CHUNK_SIZE_MAX + 3]).chain(stream::iter([Err(StreamError::Client("reset".to_owned()))]));
    let broken = PutRequest { body: broken.boxed(), ..request() };
    assert!(matches!(stack.objects.put(broken).await, Err(ObjectError::Body(StreamError::Client(_)))));
    let huge = PutRequest { length: Some((5 << 30) + 1), ..request() };
    assert!(matches!(stack.objects.put(huge).await, Err(ObjectError::EntityTooLarge { .. })));
    let attributes = Attributes { user_metadata: vec![("k".into(), "v".repeat(2048))], ..Attributes::default() };
    let metadata = PutRequest { attributes, ..request() };
    assert!(matches!(stack.objects.put(metadata).await, Err(ObjectError::MetadataTooLarge)));

    assert_eq!(stack.get(&bucket, "k").await.unwrap(), b"before");
    // What failed bodies left is hashed and appended to its end, then deleted, and gives its budget back.
    let budget = Settings::default().chunk_budget_bytes;
    let started = Instant::now();
    while stack.objects.chunk_budget_free_bytes() != budget || live_needles(&stack) != before {
        assert!(started.elapsed() < ORPHANS_WAIT, "orphans stay: {} needles, {before} before", live_needles(&stack));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stack.stop().await;
}

fn live_needles(stack: &Stack) -> u64 {
    stack.volumes.states().iter().map(|state| state.needles).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn checksums_of_the_hook_are_kept() {
    use meridian_object::{Checksum, ChecksumAlgorithm};
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("checksums").await;
    let checksum = Checksum { algorithm: ChecksumAlgorithm::Crc32c, value: vec![1, 2, 3, 4], composite: false };
    let kept = vec![checksum];
    let given = kept.clone();
    let put = PutRequest { finish: Some(Box::new(move || Ok(given))), ..put_request(&bucket, "k", b"data") };
    assert_eq!(stack.objects.put(put).await.unwrap().checksums, kept);
    assert_eq!(stack.objects.head(get_request(&bucket, "k")).await.unwrap().info.checksums, kept);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_of_writes_hold() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("conditions").await;
    let conditional =
        |condition, data: &'static [u8]| stack.objects.put(PutRequest { condition, ..put_request(&bucket, "k", data) });
    let first = conditional(Condition::Absent, b"one").await.unwrap();
    assert!(matches!(conditional(Condition::Absent, b"two").await, Err(ObjectError::PreconditionFailed(_))));
    let second = conditional(Condition::Etag(first.etag.clone()), b"two").await.unwrap();
    let stale = Condition::Etag(first.etag);
    assert!(matches!(conditional(stale.clone(), b"three").await, Err(ObjectError::PreconditionFailed(_))));
    let refused = stack.objects.delete(&bucket, DeleteItem { condition: stale, ..delete_item("k") }).await;
    assert!(matches!(refused, Err(ObjectError::PreconditionFailed(_))));
    assert_eq!(stack.get(&bucket, "k").await.unwrap(), b"two");
    let matching = DeleteItem { condition: Condition::Etag(second.etag.clone()), ..delete_item("k") };
    stack.objects.delete(&bucket, matching).await.unwrap();
    assert!(matches!(conditional(Condition::Etag(second.etag), b"x").await, Err(ObjectError::NoSuchKey { .. })));
    conditional(Condition::Absent, b"four").await.unwrap();
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_creators_at_once_exactly_one_wins() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("creators").await;
    let bodies: Vec<Vec<u8>> = (0..16).map(|seed| pattern(1000, seed)).collect();
    let puts = bodies.iter().map(|data| {
        let request = PutRequest { condition: Condition::Absent, ..put_request(&bucket, "k", data) };
        stack.objects.put(request)
    });
    let answers = futures::future::join_all(puts).await;
    let winners: Vec<_> = answers.iter().enumerate().filter(|(_, answer)| answer.is_ok()).collect();
    assert_eq!(winners.len(), 1);
    assert!(stack.get(&bucket, "k").await.unwrap() == bodies[winners[0].0]);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn preconditions_of_reads_are_judged_on_the_stored_object() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("preconditions").await;
    let etag = stack.put(&bucket, "k", b"data").await.unwrap().etag;
    let read = |preconditions| stack.objects.get(GetRequest { preconditions, ..get_request(&bucket, "k") });
    let one = |etag: &str| Some(EtagMatch::OneOf(vec![etag.to_owned()]));
    let unmodified = Preconditions { if_none_match: one(&etag), ..Preconditions::default() };
    assert!(matches!(read(unmodified).await, Err(ObjectError::NotModified { etag: known, .. }) if known == etag));
    let other = Preconditions { if_match: one("other"), ..Preconditions::default() };
    assert!(matches!(read(other).await, Err(ObjectError::PreconditionFailed("If-Match"))));
    let same = Preconditions { if_match: one(&etag), if_unmodified_since_unix_ms: Some(0), ..Preconditions::default() };
    assert!(read(same).await.is_ok());
    let outside = stack.get_range(&bucket, "k", RangeSpec::FromTo(4, None)).await;
    assert!(matches!(outside, Err(ObjectError::InvalidRange { size: 4 })));
    assert_eq!(stack.get_range(&bucket, "k", RangeSpec::Suffix(2)).await.unwrap(), b"ta");
    let nowhere = "nowhere".parse().unwrap();
    assert!(matches!(stack.get(&nowhere, "k").await, Err(ObjectError::NoSuchBucket(_))));
    assert!(matches!(stack.put(&nowhere, "k", b"").await, Err(ObjectError::NoSuchBucket(_))));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_is_left_for_another() {
    let directory = tempdir().unwrap();
    let settings = Settings { volume_size_max: 10 << 20, ..Settings::default() };
    let stack = Stack::start_with(directory.path(), settings, 1).await;
    let bucket = stack.bucket("volumes").await;
    let data = pattern(9 * CHUNK_SIZE_MAX, 5);
    stack.put(&bucket, "k", &data).await.unwrap();
    assert!(stack.get(&bucket, "k").await.unwrap() == data);
    assert!(stack.volumes.states().iter().filter(|state| state.needles > 0).count() >= 4);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_budget_a_request_is_told_to_slow_down() {
    let directory = tempdir().unwrap();
    let settings = Settings { chunk_budget_bytes: 2 * CHUNK_SIZE_MAX, ..Settings::default() };
    let stack = Stack::start_with(directory.path(), settings, 1).await;
    let bucket = stack.bucket("budget").await;
    stack.put(&bucket, "k", b"data").await.unwrap();
    // Two clients that announced a chunk each and send nothing.
    let stalled = || {
        let body = stream::pending::<Result<Bytes, StreamError>>().boxed();
        let length = Some(CHUNK_SIZE_MAX as u64);
        tokio::spawn({
            let objects = stack.objects.clone();
            let request = PutRequest { body, length, ..put_request(&bucket, "stalled", b"") };
            async move { objects.put(request).await }
        })
    };
    let (one, two) = (stalled(), stalled());
    while stack.objects.chunk_budget_free_bytes() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(stack.put(&bucket, "other", b"x").await, Err(ObjectError::Busy(_))));
    one.abort();
    two.abort();
    assert!(one.await.is_err() && two.await.is_err());
    stack.put(&bucket, "other", b"x").await.unwrap();
    // A reader that keeps what it got holds its bytes in the budget, and gives them back.
    let large = pattern(CHUNK_SIZE_MAX, 1);
    stack.put(&bucket, "large", &large).await.unwrap();
    let mut outcome = stack.objects.get(get_request(&bucket, "large")).await.unwrap();
    let first = outcome.body.next().await.unwrap().unwrap();
    assert!(stack.objects.chunk_budget_free_bytes() < 2 * CHUNK_SIZE_MAX);
    let rest = collect(outcome.body).await.unwrap();
    assert!([&first[..], &rest[..]].concat() == large);
    drop(first);
    assert_eq!(stack.objects.chunk_budget_free_bytes(), 2 * CHUNK_SIZE_MAX);
    stack.stop().await;
}
