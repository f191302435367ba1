//! LIST over the real stack against a sorted reference.

mod stack;

use std::collections::BTreeSet;

use futures::{StreamExt, stream};
use meridian_object::{ListPage, ListRequest, ObjectError};
use meridian_types::BucketName;
use stack::{Stack, delete_item};
use tempfile::tempdir;

fn request(bucket: &BucketName) -> ListRequest {
    ListRequest { bucket: bucket.clone(), prefix: String::new(), delimiter: None, after: None, limit: 1000 }
}

/// What S3 says a listing is: everything under the prefix, keys behind a delimiter rolled up, in byte order.
fn reference(keys: &BTreeSet<String>, request: &ListRequest) -> (Vec<String>, bool) {
    let mut items = BTreeSet::new();
    for key in keys.iter().filter(|key| key.starts_with(&request.prefix)) {
        let rolled = request.delimiter.as_ref().and_then(|delimiter| {
            let rest = &key[request.prefix.len()..];
            rest.find(delimiter.as_str()).map(|at| &key[..request.prefix.len() + at + delimiter.len()])
        });
        items.insert(rolled.unwrap_or(key).to_owned());
    }
    let after = request.after.as_deref().unwrap_or("");
    let items: Vec<_> = items.into_iter().filter(|item| item.as_str() > after).collect();
    let truncated = items.len() > request.limit;
    (items.into_iter().take(request.limit).collect(), truncated && request.limit > 0)
}

fn items(page: &ListPage) -> Vec<String> {
    let keys = page.entries.iter().map(|info| info.key.as_str().to_owned());
    assert!(page.entries.is_sorted_by(|a, b| a.key < b.key) && page.common_prefixes.is_sorted());
    let mut items: Vec<_> = keys.chain(page.common_prefixes.iter().cloned()).collect();
    items.sort();
    items
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_equal_a_sorted_reference_whatever_is_asked() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("many").await;
    let other = stack.bucket("other").await;
    stack.put(&other, "a/not-mine", b"").await.unwrap();
    let mut keys = BTreeSet::new();
    for n in 0..2500u32 {
        let name = match n % 5 {
            0 => format!("flat-{:05}", n.wrapping_mul(7919) % 100_000),
            1 => format!("a/{}/{n}", n % 40),
            2 => format!("deep/{}/{}/{n}", n % 7, n % 3),
            3 => format!("ünï/{}//{n}", n % 11),
            _ => format!("z{n}/"),
        };
        keys.insert(name);
    }
    let deleted: Vec<String> = keys.iter().step_by(9).cloned().collect();
    stream::iter(&keys)
        .for_each_concurrent(64, |name| async {
            stack.put(&bucket, name, b"").await.unwrap();
        })
        .await;
    stream::iter(&deleted)
        .for_each_concurrent(64, |name| async {
            stack.objects.delete(&bucket, delete_item(name)).await.unwrap();
        })
        .await;
    for name in &deleted {
        keys.remove(name);
    }
    for prefix in ["", "a/", "a/1", "deep/", "flat-", "nothing", "ünï/", "z", "deep/3/"] {
        for delimiter in [None, Some("/"), Some("//"), Some("-"), Some("")] {
            for limit in [0, 1, 2, 7, 100, 1000] {
                let mut asked = ListRequest {
                    prefix: prefix.to_owned(),
                    delimiter: delimiter.map(str::to_owned),
                    limit,
                    ..request(&bucket)
                };
                // A few pages of small limits, all pages of great ones.
                for _ in 0..if limit < 100 { 4 } else { usize::MAX } {
                    let page = stack.objects.list(asked.clone()).await.unwrap();
                    let plain =
                        ListRequest { delimiter: asked.delimiter.clone().filter(|d| !d.is_empty()), ..asked.clone() };
                    let (expected, truncated) = reference(&keys, &plain);
                    assert_eq!(items(&page), expected, "{asked:?}");
                    assert_eq!(page.truncated, truncated, "{asked:?}");
                    assert_eq!(page.next, expected.last().filter(|_| truncated).cloned(), "{asked:?}");
                    let Some(next) = page.next else { break };
                    asked.after = Some(next);
                }
            }
        }
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_shows_every_acknowledged_write() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("fresh").await;
    for n in 0..50 {
        let outcome = stack.put(&bucket, &format!("k{n:02}"), b"x").await.unwrap();
        let page = stack.objects.list(request(&bucket)).await.unwrap();
        assert_eq!(page.entries.len(), n + 1);
        let last = page.entries.last().unwrap();
        assert_eq!((last.etag.as_str(), last.size, last.stamp), (outcome.etag.as_str(), 1, outcome.stamp));
    }
    let nowhere = ListRequest { limit: 0, ..request(&"nowhere".parse().unwrap()) };
    assert!(matches!(stack.objects.list(nowhere).await, Err(ObjectError::NoSuchBucket(_))));
    stack.stop().await;
}
