//! Versions, tags and locks over the real stack.

mod stack;

use meridian_object::{
    Attributes, BucketSettings, Change, ChangeRequest, CopyRequest, CopySource, DefaultRetention, DeleteItem,
    Directive, GetRequest, ListVersionsRequest, ObjectError, ObjectLock, PutRequest, Retention, RetentionMode,
    VersionId, Versioning,
};
use meridian_types::BucketName;
use stack::{Stack, collect, delete_item, get_request, key, pattern, put_request};
use tempfile::tempdir;

async fn set(stack: &Stack, bucket: &BucketName, versioning: Versioning) {
    let settings = BucketSettings { versioning, ..BucketSettings::default() };
    stack.objects.update_bucket(bucket, settings).await.unwrap();
}

async fn read(stack: &Stack, bucket: &BucketName, version: Option<VersionId>) -> Result<Vec<u8>, ObjectError> {
    let outcome = stack.objects.get(GetRequest { version, ..get_request(bucket, "k") }).await?;
    Ok(collect(outcome.body).await.unwrap())
}

fn change(bucket: &BucketName, version: Option<VersionId>, change: Change) -> ChangeRequest {
    ChangeRequest { bucket: bucket.clone(), key: key("k"), version, change, bypass_governance: false }
}

fn removal(version: VersionId) -> DeleteItem {
    DeleteItem { version: Some(version), ..delete_item("k") }
}

fn list(bucket: &BucketName, after: Option<(String, VersionId)>, limit: usize) -> ListVersionsRequest {
    let (after_key, after_version) = after.map_or((None, None), |(key, version)| (Some(key), Some(version)));
    let (bucket, prefix, delimiter) = (bucket.clone(), String::new(), None);
    ListVersionsRequest { bucket, prefix, delimiter, after_key, after_version, limit }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_written_read_hidden_and_removed() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("versions").await;
    let unversioned = stack.put(&bucket, "k", b"zero").await.unwrap();
    assert_eq!(unversioned.version, None, "no ids before there are versions");
    set(&stack, &bucket, Versioning::Enabled).await;
    let mut versions = vec![VersionId::Null];
    for data in [b"one".as_slice(), b"two"] {
        versions.push(stack.put(&bucket, "k", data).await.unwrap().version.unwrap());
    }
    assert_eq!(read(&stack, &bucket, None).await.unwrap(), b"two");
    for (version, data) in versions.iter().zip([b"zero".as_slice(), b"one", b"two"]) {
        assert_eq!(read(&stack, &bucket, Some(*version)).await.unwrap(), data);
    }
    let deleted = stack.objects.delete(&bucket, delete_item("k")).await.unwrap();
    let marker = deleted.version.unwrap();
    assert!(deleted.marker);
    assert!(matches!(
        read(&stack, &bucket, None).await,
        Err(ObjectError::DeleteMarker { named: false, version, .. }) if version == marker
    ));
    assert!(matches!(read(&stack, &bucket, Some(marker)).await, Err(ObjectError::DeleteMarker { named: true, .. })));

    let page = stack.objects.list_versions(list(&bucket, None, 10)).await.unwrap();
    let seen: Vec<_> = page.versions.iter().map(|info| (info.version, info.is_latest, info.object.is_some())).collect();
    let expected = [(marker, true, false), (versions[2], false, true), (versions[1], false, true)];
    assert_eq!(seen, [&expected[..], &[(VersionId::Null, false, true)]].concat());
    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let page = stack.objects.list_versions(list(&bucket, after.take(), 1)).await.unwrap();
        paged.extend(page.versions.iter().map(|info| (info.version, info.is_latest, info.object.is_some())));
        if !page.truncated {
            break;
        }
        after = Some((page.next_key.unwrap(), page.next_version.unwrap()));
    }
    assert_eq!(paged, seen, "pages of one");

    let removed = stack.objects.delete(&bucket, removal(marker)).await.unwrap();
    assert!(removed.marker && removed.version == Some(marker));
    assert_eq!(read(&stack, &bucket, None).await.unwrap(), b"two", "removing the marker undeletes");
    for version in &versions {
        assert!(stack.objects.delete(&bucket, removal(*version)).await.unwrap().existed);
        assert!(matches!(read(&stack, &bucket, Some(*version)).await, Err(ObjectError::NoSuchVersion { .. })));
    }
    assert!(matches!(read(&stack, &bucket, None).await, Err(ObjectError::NoSuchKey { .. })));
    stack.objects.delete_bucket(&bucket).await.unwrap();
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_bucket_keeps_its_versions_and_replaces_its_null_one() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("suspended").await;
    set(&stack, &bucket, Versioning::Enabled).await;
    let kept = stack.put(&bucket, "k", b"kept").await.unwrap().version.unwrap();
    set(&stack, &bucket, Versioning::Suspended).await;
    for data in [b"a".as_slice(), b"b"] {
        assert_eq!(stack.put(&bucket, "k", data).await.unwrap().version, Some(VersionId::Null));
    }
    let deleted = stack.objects.delete(&bucket, delete_item("k")).await.unwrap();
    assert_eq!((deleted.version, deleted.marker), (Some(VersionId::Null), true));
    let page = stack.objects.list_versions(list(&bucket, None, 10)).await.unwrap();
    let seen: Vec<_> = page.versions.iter().map(|info| (info.version, info.object.is_some())).collect();
    assert_eq!(seen, [(VersionId::Null, false), (kept, true)]);
    assert_eq!(read(&stack, &bucket, Some(kept)).await.unwrap(), b"kept");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_change_without_the_object_and_survive_a_restart() {
    let directory = tempdir().unwrap();
    let mut stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("tags").await;
    let missing = stack.objects.change(change(&bucket, None, Change::Tags(Vec::new()))).await;
    assert!(matches!(missing, Err(ObjectError::NoSuchKey { .. })));
    let data = pattern(100_000, 3);
    let put = stack.put(&bucket, "k", &data).await.unwrap();
    let tags = vec![("a".to_owned(), "b".to_owned())];
    stack.objects.change(change(&bucket, None, Change::Tags(tags.clone()))).await.unwrap();
    stack.stop().await;
    stack = Stack::start_with(directory.path(), stack::Settings::default(), 2).await;
    let info = stack.objects.head(get_request(&bucket, "k")).await.unwrap().info;
    assert_eq!((info.attributes.tags, info.stamp, info.etag), (tags, put.stamp, put.etag));
    assert!(stack.get(&bucket, "k").await.unwrap() == data);
    stack.put(&bucket, "k", b"new").await.unwrap();
    let info = stack.objects.head(get_request(&bucket, "k")).await.unwrap().info;
    assert!(info.attributes.tags.is_empty(), "a new object has its own tags");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_with_locks_locks_what_is_written_and_what_is_copied() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let (bucket, plain) = (stack.bucket("locked").await, stack.bucket("plain").await);
    let mode = RetentionMode::Governance;
    let settings = BucketSettings {
        versioning: Versioning::Enabled,
        object_lock: Some(ObjectLock { default: Some(DefaultRetention { mode, days: 1, years: 0 }) }),
        ..BucketSettings::default()
    };
    stack.objects.update_bucket(&bucket, settings).await.unwrap();
    let version = stack.put(&bucket, "k", b"locked").await.unwrap().version.unwrap();
    let retention = stack.objects.head(get_request(&bucket, "k")).await.unwrap().info.attributes.retention.unwrap();
    assert_eq!(retention.mode, mode);
    assert!(matches!(stack.objects.delete(&bucket, removal(version)).await, Err(ObjectError::Locked)));
    assert!(stack.objects.delete(&bucket, delete_item("k")).await.unwrap().marker, "a marker hides it all the same");
    let shorter = Some(Retention { until_unix_ms: retention.until_unix_ms - 1, ..retention });
    let shorten = change(&bucket, Some(version), Change::Retention(shorter));
    assert!(matches!(stack.objects.change(shorten.clone()).await, Err(ObjectError::Locked)));
    stack.objects.change(ChangeRequest { bypass_governance: true, ..shorten }).await.unwrap();
    let source =
        CopySource { bucket: bucket.clone(), key: key("k"), version: Some(version), preconditions: Default::default() };
    let copy = CopyRequest {
        source,
        bucket: plain.clone(),
        key: key("k"),
        metadata: Directive::Copy,
        tags: Directive::Copy,
        attributes: Attributes::default(),
        condition: Default::default(),
        changes: false,
        digest: None,
    };
    stack.objects.copy(copy).await.unwrap();
    let copied = stack.objects.head(get_request(&plain, "k")).await.unwrap().info;
    assert_eq!(copied.attributes.retention, None, "locks are not copied");
    let attributes = Attributes { legal_hold: Some(true), ..Attributes::default() };
    let refused = stack.objects.put(PutRequest { attributes, ..put_request(&plain, "k", b"x") }).await;
    assert!(matches!(refused, Err(ObjectError::NoObjectLock)));
    let bypassed = DeleteItem { bypass_governance: true, ..removal(version) };
    assert!(stack.objects.delete(&bucket, bypassed).await.unwrap().existed);
    stack.stop().await;
}
