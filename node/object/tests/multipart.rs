//! Multipart uploads and copies over the real stack.

mod stack;

use meridian_object::{
    Attributes, ChosenPart, CompleteRequest, Condition, CopyPartRequest, CopyRequest, CopySource, CreateUploadRequest,
    Directive, GetRequest, ListPartsRequest, ListUploadsRequest, ObjectError, PartOutcome, Preconditions,
    PutPartRequest, PutRequest, RangeSpec,
};
use meridian_types::limits::CHUNK_SIZE_MAX;
use meridian_types::{BucketName, DatacenterId, UploadId};
use stack::{Stack, body, collect, delete_item, get_request, key, md5_of, pattern, put_request};
use tempfile::tempdir;

const PART: usize = 5 << 20;

fn part_request(bucket: &BucketName, upload: UploadId, number: u16, data: &[u8]) -> PutPartRequest {
    PutPartRequest {
        bucket: bucket.clone(),
        key: key("k"),
        upload,
        number,
        body: body(data),
        length: Some(data.len() as u64),
        content_md5: Some(md5_of(data)),
        finish: None,
    }
}

fn copy_source(bucket: &BucketName, name: &str) -> CopySource {
    CopySource { bucket: bucket.clone(), key: key(name), version: None, preconditions: Preconditions::default() }
}

async fn create(stack: &Stack, bucket: &BucketName, name: &str) -> UploadId {
    let attributes = Attributes { content_type: Some("video/mp4".to_owned()), ..Attributes::default() };
    let request = CreateUploadRequest { bucket: bucket.clone(), key: key(name), attributes, checksum: None };
    stack.objects.create_upload(request).await.unwrap().upload
}

async fn put_part(stack: &Stack, bucket: &BucketName, upload: UploadId, number: u16, data: &[u8]) -> PartOutcome {
    stack.objects.put_part(part_request(bucket, upload, number, data)).await.unwrap()
}

fn complete(bucket: &BucketName, upload: UploadId, parts: &[(u16, &str)]) -> CompleteRequest {
    let choice =
        |(number, etag): &(u16, &str)| ChosenPart { number: *number, etag: (*etag).to_owned(), checksum: None };
    CompleteRequest {
        bucket: bucket.clone(),
        key: key("k"),
        upload,
        parts: parts.iter().map(choice).collect(),
        condition: Condition::None,
        checksums: Vec::new(),
        composite: None,
        size: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_become_one_object() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("multipart").await;
    let upload = create(&stack, &bucket, "k").await;
    let data: Vec<Vec<u8>> = [PART, PART + 11, 1234].iter().zip(0..).map(|(size, n)| pattern(*size, n)).collect();
    put_part(&stack, &bucket, upload, 2, b"replaced by the next").await;
    let mut etags = Vec::new();
    for (number, data) in [(1, &data[0]), (2, &data[1]), (7, &data[2])] {
        let part = put_part(&stack, &bucket, upload, number, data).await;
        assert_eq!((part.size, &part.etag), (data.len() as u64, &hex::encode(md5_of(data))));
        etags.push(part.etag);
    }
    assert!(matches!(stack.get(&bucket, "k").await, Err(ObjectError::NoSuchKey { .. })));

    let listed = |after, limit| ListPartsRequest { bucket: bucket.clone(), key: key("k"), upload, after, limit };
    let page = stack.objects.list_parts(listed(0, 2)).await.unwrap();
    assert_eq!(page.parts.iter().map(|part| part.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((page.truncated, page.next), (true, Some(2)));
    let page = stack.objects.list_parts(listed(2, 2)).await.unwrap();
    assert_eq!((page.parts.len(), page.parts[0].number, page.truncated, page.next), (1, 7, false, None));
    assert_eq!(page.attributes.content_type.as_deref(), Some("video/mp4"));

    let parts = [(1, etags[0].as_str()), (2, &etags[1]), (7, &etags[2])];
    let swapped = [parts[1], parts[0]];
    let wrong = [(1, etags[1].as_str())];
    let small = [parts[0], parts[2], (9, "none")];
    let refused = |parts: &[(u16, &str)]| stack.objects.complete_upload(complete(&bucket, upload, parts));
    assert!(matches!(refused(&swapped).await, Err(ObjectError::InvalidPartOrder)));
    assert!(matches!(refused(&wrong).await, Err(ObjectError::InvalidPart(1))));
    assert!(matches!(refused(&small).await, Err(ObjectError::InvalidPart(9) | ObjectError::EntityTooSmall(7))));

    let outcome = stack.objects.complete_upload(complete(&bucket, upload, &parts)).await.unwrap();
    let whole = data.concat();
    let md5s: Vec<u8> = data.iter().flat_map(|data| md5_of(data)).collect();
    assert_eq!(outcome.etag, format!("{}-3", hex::encode(md5_of(&md5s))));
    assert_eq!(outcome.size, whole.len() as u64);
    assert!(stack.get(&bucket, "k").await.unwrap() == whole);
    let across =
        stack.get_range(&bucket, "k", RangeSpec::FromTo(PART as u64 - 3, Some(PART as u64 + 3))).await.unwrap();
    assert_eq!(across, whole[PART - 3..PART + 4]);

    let numbered = |number| GetRequest { part_number: Some(number), ..get_request(&bucket, "k") };
    let part = stack.objects.get(numbered(2)).await.unwrap();
    assert_eq!((part.info.parts.len(), part.range.clone()), (3, PART as u64..(2 * PART + 11) as u64));
    assert!(collect(part.body).await.unwrap() == data[1]);
    assert!(matches!(stack.objects.get(numbered(3)).await, Err(ObjectError::InvalidPartNumber { .. })));

    // A repeated Complete gets the remembered answer (rule 22), and the object is not written again.
    let again = stack.objects.complete_upload(complete(&bucket, upload, &parts)).await.unwrap();
    assert_eq!(again, outcome);
    assert_eq!(stack.objects.head(get_request(&bucket, "k")).await.unwrap().info.stamp, outcome.stamp);
    let late = stack.objects.put_part(part_request(&bucket, upload, 3, b"late")).await;
    assert!(matches!(late, Err(ObjectError::NoSuchUpload { .. })));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_too_small_is_refused_and_can_be_mended() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("small-parts").await;
    let upload = create(&stack, &bucket, "k").await;
    let (one, two) =
        (put_part(&stack, &bucket, upload, 1, b"small").await, put_part(&stack, &bucket, upload, 2, b"x").await);
    let refused = stack.objects.complete_upload(complete(&bucket, upload, &[(1, &one.etag), (2, &two.etag)])).await;
    assert!(matches!(refused, Err(ObjectError::EntityTooSmall(1))), "{refused:?}");
    stack.objects.complete_upload(complete(&bucket, upload, &[(2, &two.etag)])).await.unwrap();
    assert_eq!(stack.get(&bucket, "k").await.unwrap(), b"x");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_upload_is_refused_before_its_bytes_are_taken() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("unknown").await;
    let upload = create(&stack, &bucket, "k").await;
    stack.objects.abort_upload(&bucket, &key("k"), upload).await.unwrap();
    let untouchable = || Box::pin(futures::stream::poll_fn(|_| panic!("the body was read")));
    let request = PutPartRequest { body: untouchable(), ..part_request(&bucket, upload, 1, b"") };
    assert!(matches!(stack.objects.put_part(request).await, Err(ObjectError::NoSuchUpload { .. })));
    let elsewhere = UploadId::new(DatacenterId::new(2).unwrap(), [7; 15]);
    let request = PutPartRequest { body: untouchable(), ..part_request(&bucket, elsewhere, 1, b"") };
    assert!(matches!(stack.objects.put_part(request).await, Err(ObjectError::UploadElsewhere { .. })));
    for number in [0, 10_001] {
        let request = PutPartRequest { body: untouchable(), ..part_request(&bucket, upload, number, b"") };
        assert!(matches!(stack.objects.put_part(request).await, Err(ObjectError::InvalidArgument { .. })));
    }
    let aborted = stack.objects.abort_upload(&bucket, &key("k"), upload).await;
    assert!(matches!(aborted, Ok(()) | Err(ObjectError::NoSuchUpload { .. })));
    let completed = stack.objects.complete_upload(complete(&bucket, upload, &[(1, "x")])).await;
    assert!(matches!(completed, Err(ObjectError::NoSuchUpload { .. })));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_listed_by_key_then_id() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("uploads").await;
    let mut expected = Vec::new();
    for name in ["a/1", "a/2", "a/2", "b", "b", "b", "c/x/1", "d"] {
        expected.push((name.to_owned(), create(&stack, &bucket, name).await));
    }
    expected.sort();
    for limit in 1..=9 {
        let mut request = ListUploadsRequest {
            bucket: bucket.clone(),
            prefix: String::new(),
            delimiter: None,
            after_key: None,
            after_upload: None,
            limit,
        };
        let mut seen = Vec::new();
        loop {
            let page = stack.objects.list_uploads(request.clone()).await.unwrap();
            assert!(page.uploads.len() <= limit);
            seen.extend(page.uploads.into_iter().map(|info| (info.key.as_str().to_owned(), info.upload)));
            if !page.truncated {
                break;
            }
            (request.after_key, request.after_upload) = (page.next_key, page.next_upload);
        }
        assert_eq!(seen, expected, "limit {limit}");

        request =
            ListUploadsRequest { delimiter: Some("/".to_owned()), after_key: None, after_upload: None, ..request };
        let (mut keys, mut prefixes) = (Vec::new(), Vec::new());
        loop {
            let page = stack.objects.list_uploads(request.clone()).await.unwrap();
            assert!(page.uploads.len() + page.common_prefixes.len() <= limit);
            keys.extend(page.uploads.into_iter().map(|info| info.key.as_str().to_owned()));
            prefixes.extend(page.common_prefixes);
            if !page.truncated {
                break;
            }
            (request.after_key, request.after_upload) = (page.next_key, page.next_upload);
        }
        assert_eq!(
            (keys, prefixes),
            (["b", "b", "b", "d"].map(String::from).to_vec(), ["a/", "c/"].map(String::from).to_vec())
        );
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_has_bytes_of_its_own() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let (bucket, other) = (stack.bucket("copies").await, stack.bucket("copied").await);
    let data = pattern(CHUNK_SIZE_MAX * 2 + 1, 9);
    let attributes = Attributes {
        content_type: Some("text/plain".to_owned()),
        tags: vec![("a".to_owned(), "b".to_owned())],
        ..Attributes::default()
    };
    let put = PutRequest { attributes: attributes.clone(), ..put_request(&bucket, "from", &data) };
    let original = stack.objects.put(put).await.unwrap();
    let copy = |metadata, tags| CopyRequest {
        source: copy_source(&bucket, "from"),
        bucket: other.clone(),
        key: key("to"),
        metadata,
        tags,
        attributes: Attributes { content_type: Some("new".to_owned()), ..Attributes::default() },
        condition: Condition::None,
        changes: false,
        digest: None,
    };
    let (copied, source) = stack.objects.copy(copy(Directive::Copy, Directive::Copy)).await.unwrap();
    assert_eq!((copied.etag, source.stamp), (original.etag, original.stamp));
    assert_eq!(stack.objects.head(get_request(&other, "to")).await.unwrap().info.attributes, attributes);
    stack.objects.delete(&bucket, delete_item("from")).await.unwrap();
    assert!(stack.get(&other, "to").await.unwrap() == data);
    let gone = stack.objects.copy(copy(Directive::Copy, Directive::Copy)).await;
    assert!(matches!(gone, Err(ObjectError::NoSuchKey { .. })));

    let onto_itself = |metadata| CopyRequest { source: copy_source(&other, "to"), ..copy(metadata, Directive::Copy) };
    let unchanged = stack.objects.copy(onto_itself(Directive::Copy)).await;
    assert!(matches!(unchanged, Err(ObjectError::CopyOntoItself)));
    stack.objects.copy(onto_itself(Directive::Replace)).await.unwrap();
    let info = stack.objects.head(get_request(&other, "to")).await.unwrap().info;
    assert_eq!((info.attributes.content_type.as_deref(), info.attributes.tags), (Some("new"), attributes.tags));
    assert!(stack.get(&other, "to").await.unwrap() == data);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_an_object_becomes_a_part() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("part-copies").await;
    let data = pattern(PART * 2, 4);
    stack.put(&bucket, "from", &data).await.unwrap();
    let upload = create(&stack, &bucket, "k").await;
    let request = |number, range| CopyPartRequest {
        source: copy_source(&bucket, "from"),
        range,
        bucket: bucket.clone(),
        key: key("k"),
        upload,
        number,
    };
    let first = RangeSpec::FromTo(3, Some(PART as u64 + 2));
    let (one, source) = stack.objects.copy_part(request(1, Some(first))).await.unwrap();
    assert_eq!((one.size, source.size), (PART as u64, 2 * PART as u64));
    let (two, _) = stack.objects.copy_part(request(2, None)).await.unwrap();
    let past = stack.objects.copy_part(request(3, Some(RangeSpec::FromTo(0, Some(2 * PART as u64))))).await;
    assert!(matches!(past, Err(ObjectError::InvalidRange { .. })));
    stack.objects.complete_upload(complete(&bucket, upload, &[(1, &one.etag), (2, &two.etag)])).await.unwrap();
    assert!(stack.get(&bucket, "k").await.unwrap() == [&data[3..PART + 3], &data[..]].concat());
    stack.stop().await;
}
