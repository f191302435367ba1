//! Blobs over real volumes: what is kept, whose fids are taken, when a blob is none, and the memory that it holds.

mod stack;

use bytes::Bytes;
use futures::{StreamExt, stream};
use meridian_object::{
    BLOB_SIZE_MAX, BlobAddress, BlobBody, BlobError, ObjectError, Preconditions, PutBlob, StreamError,
};
use meridian_types::{Cookie, Fid, NeedleKey};
use tempfile::tempdir;

use stack::{Settings, Stack, body};

fn put(address: BlobAddress, data: &[u8]) -> PutBlob {
    PutBlob {
        address,
        name: "a.txt".to_owned(),
        content_type: "text/plain".to_owned(),
        modified_unix_ms: Some(5_000),
        lives_ms: None,
        body: body(data),
        length: Some(data.len() as u64),
        size_hint: None,
        content_md5: None,
        sha256: None,
    }
}

async fn assign(stack: &Stack, count: u64) -> Fid {
    stack.objects.assign_blobs(count, None).await.unwrap().first
}

fn at(first: Fid) -> BlobAddress {
    BlobAddress { first, delta: 0 }
}

async fn read(stack: &Stack, address: BlobAddress) -> Result<Vec<u8>, BlobError> {
    let opened = stack.objects.open_blob(address).await?;
    let range = opened.requested(&Preconditions::default(), None).unwrap();
    match opened.body(range).await? {
        BlobBody::Whole(bytes) => Ok(bytes.to_vec()),
        BlobBody::Stream(stream) => Ok(stack::collect(stream).await.unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_of_a_blob_is_kept_over_a_restart() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let (small, large) = (assign(&stack, 1).await, assign(&stack, 1).await);
    let stored = stack.objects.put_blob(put(at(small), b"hello")).await.unwrap();
    let data: Vec<u8> = (0..2_000_000u32).map(|i| i as u8).collect();
    stack.objects.put_blob(put(at(large), &data)).await.unwrap();
    stack.stop().await;
    let stack = Stack::start_with(directory.path(), Settings::default(), 2).await;
    let info = stack.objects.open_blob(at(small)).await.unwrap().info;
    assert_eq!((info.size, &info.etag, info.modified_unix_ms), (5, &stored.etag, 5_000));
    assert_eq!((info.name.as_str(), info.content_type.as_str()), ("a.txt", "text/plain"));
    assert_eq!(read(&stack, at(small)).await.unwrap(), b"hello");
    assert!(read(&stack, at(large)).await.unwrap() == data);
    assert_eq!(stack.objects.delete_blob(at(small)).await.unwrap(), 5);
    assert!(matches!(read(&stack, at(small)).await, Err(BlobError::NotFound)));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_fids_that_were_handed_out_are_written_and_only_blobs_are_read() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let first = assign(&stack, 2).await;
    for made_up in
        [Fid { key: NeedleKey(first.key.0 + 1), ..first }, Fid { cookie: Cookie(first.cookie.0 ^ 1), ..first }]
    {
        let refused = stack.objects.put_blob(put(at(made_up), b"x")).await;
        assert!(matches!(refused, Err(BlobError::NotAssigned)));
    }
    let second = BlobAddress { first, delta: 1 };
    stack.objects.put_blob(put(second, b"second")).await.unwrap();
    assert_eq!(read(&stack, second).await.unwrap(), b"second");
    assert!(matches!(read(&stack, at(first)).await, Err(BlobError::NotFound)));
    // A fid names one content: the same again is the same success.
    stack.objects.put_blob(put(second, b"second")).await.unwrap();
    assert!(matches!(stack.objects.put_blob(put(second, b"other")).await, Err(BlobError::Exists)));
    assert_eq!(read(&stack, second).await.unwrap(), b"second");

    // A chunk of an object, whose fid somebody came to know, is no blob.
    let chunk = assign(&stack, 1).await;
    stack.volumes.append(chunk.volume, chunk.key, chunk.cookie, Bytes::from_static(b"a chunk")).await.unwrap();
    assert!(matches!(read(&stack, at(chunk)).await, Err(BlobError::NotFound)));
    assert!(matches!(stack.objects.delete_blob(at(chunk)).await, Err(BlobError::NotFound)));
    assert_eq!(stack.volumes.read(chunk, 0..7).await.unwrap(), "a chunk");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_whose_life_has_ended_is_unknown() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    for (lives_ms, is_there) in [(Some(0), false), (Some(3_600_000), true), (None, true)] {
        let fid = assign(&stack, 1).await;
        stack.objects.put_blob(PutBlob { lives_ms, ..put(at(fid), b"x") }).await.unwrap();
        assert_eq!(read(&stack, at(fid)).await.is_ok(), is_there, "{lives_ms:?}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_what_was_said_leaves_nothing_and_gives_its_memory_back() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let free = stack.objects.chunk_budget_free_bytes();
    let fid = assign(&stack, 1).await;
    let refused = async |put| stack.objects.put_blob(put).await.unwrap_err();
    let with = |change: &dyn Fn(&mut PutBlob)| {
        let mut put = put(at(fid), b"hello");
        change(&mut put);
        put
    };
    let error = refused(with(&|put| put.length = Some(6))).await;
    assert!(matches!(error, BlobError::Incomplete { expected: 6, received: 5 }));
    let error = refused(with(&|put| put.length = Some(4))).await;
    assert!(matches!(error, BlobError::Incomplete { expected: 4, .. }));
    let error = refused(with(&|put| put.length = Some(BLOB_SIZE_MAX as u64 + 1))).await;
    assert!(matches!(error, BlobError::TooLarge { .. }));
    assert!(matches!(refused(with(&|put| put.content_md5 = Some([0; 16]))).await, BlobError::BadDigest));
    assert!(matches!(refused(with(&|put| put.sha256 = Some([0; 32]))).await, BlobError::BadDigest));
    let long = with(&|put| put.name = "n".repeat(256));
    assert!(matches!(refused(long).await, BlobError::InvalidArgument { argument: "name", .. }));
    let broken = with(&|put| {
        let pieces = [Ok(Bytes::from_static(b"he")), Err(StreamError::Client("gone".to_owned()))];
        put.body = stream::iter(pieces).boxed();
    });
    assert!(matches!(refused(broken).await, BlobError::Body(_)));
    // Of unknown length: taken as it comes, up to the limit.
    let endless = with(&|put| {
        put.length = None;
        put.body = stream::repeat_with(|| Ok(Bytes::from(vec![0; 1 << 20]))).boxed();
    });
    assert!(matches!(refused(endless).await, BlobError::TooLarge { .. }));
    assert!(matches!(read(&stack, at(fid)).await, Err(BlobError::NotFound)));
    assert_eq!(stack.objects.chunk_budget_free_bytes(), free);
    let largest = vec![1; BLOB_SIZE_MAX];
    stack.objects.put_blob(PutBlob { length: None, ..put(at(fid), &largest) }).await.unwrap();
    assert_eq!(stack.objects.open_blob(at(fid)).await.unwrap().info.size, BLOB_SIZE_MAX as u64);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_and_ranges_hold_for_blobs() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let fid = assign(&stack, 1).await;
    let stored = stack.objects.put_blob(put(at(fid), b"hello")).await.unwrap();
    let opened = stack.objects.open_blob(at(fid)).await.unwrap();
    let known = meridian_object::EtagMatch::OneOf(vec![stored.etag]);
    let unless = Preconditions { if_none_match: Some(known), ..Preconditions::default() };
    assert!(matches!(opened.requested(&unless, None), Err(ObjectError::NotModified { .. })));
    let range = opened.requested(&Preconditions::default(), Some(meridian_object::RangeSpec::Suffix(2))).unwrap();
    assert_eq!(range, 3..5);
    let BlobBody::Whole(bytes) = opened.body(range).await.unwrap() else { panic!("a small blob comes at once") };
    assert_eq!(bytes, "lo");
    stack.stop().await;
}
