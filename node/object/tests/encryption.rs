//! Encrypted objects over the real stack: every way of encryption, ranges, parts, copies, and what lies on the disk.

mod stack;

use std::path::Path;

use meridian_object::{
    ChosenPart, CompleteRequest, Condition, CopyPartRequest, CopyRequest, CopySource, CreateUploadRequest, CustomerKey,
    DefaultEncryption, DefaultMethod, Directive, DocumentKind, EncryptionMethod, EncryptionWish, GetRequest,
    ObjectError, Objects, PutPartRequest, RangeSpec, SettingChange,
};
use meridian_types::BucketName;
use meridian_types::limits::CHUNK_SIZE_MAX;
use stack::{Settings, Stack, body, collect, get_request, key, md5_of, pattern, put_request};
use tempfile::tempdir;

const PART: usize = 5 << 20;
const BLOCK: usize = 64 << 10;

fn customer(byte: u8) -> CustomerKey {
    CustomerKey::new(&[byte; 32]).unwrap()
}

fn kms(name: &str) -> EncryptionWish {
    EncryptionWish::Kms { key_id: Some(name.to_owned()), context: Some("e30=".to_owned()), bucket_key: Some(true) }
}

/// The ways to encrypt, each with the key that reads need.
fn wishes() -> [(&'static str, EncryptionWish, Option<CustomerKey>); 4] {
    let store = EncryptionWish::Kms { key_id: None, context: None, bucket_key: None };
    [
        ("managed", EncryptionWish::Managed, None),
        ("kms", kms("reports"), None),
        ("kms-of-the-store", store, None),
        ("customer", EncryptionWish::Customer(customer(3)), Some(customer(3))),
    ]
}

async fn read(
    objects: &Objects,
    request: GetRequest,
    customer: Option<&CustomerKey>,
) -> Result<(std::ops::Range<u64>, Vec<u8>), ObjectError> {
    let outcome = objects.get_with_key(request, customer).await?;
    Ok((outcome.range, collect(outcome.body).await.unwrap()))
}

fn refusal<T>(result: Result<T, ObjectError>) -> &'static str {
    match result {
        Err(ObjectError::Refused { code, .. }) => code,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it was let through"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_range_of_an_encrypted_object_reads_as_it_was_written() {
    let directory = tempdir().unwrap();
    // A budget for one encrypted chunk at a time: none may wait for itself.
    let settings = Settings { chunk_budget_bytes: 2 * CHUNK_SIZE_MAX, ..Settings::default() };
    let stack = Stack::start_with(directory.path(), settings, 1).await;
    let bucket = stack.bucket("ranges").await;
    let size = CHUNK_SIZE_MAX + 3 * BLOCK + 77;
    let data = pattern(size, 5);
    for (name, wish, customer) in wishes() {
        let put = stack.objects.put_with_key(put_request(&bucket, name, &data), wish).await.unwrap();
        let md5 = hex::encode(md5_of(&data));
        assert_eq!((put.size, put.etag == md5), (size as u64, name == "managed"), "only SSE-S3 shows the MD5");
        let customer = customer.as_ref();
        let (range, whole) = read(&stack.objects, get_request(&bucket, name), customer).await.unwrap();
        assert_eq!(range, 0..size as u64);
        assert!(whole == data, "{name}");
        let edges = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, CHUNK_SIZE_MAX - 1, CHUNK_SIZE_MAX, size - 1];
        for from in edges {
            for to in edges.into_iter().filter(|to| from <= *to) {
                let range = Some(RangeSpec::FromTo(from as u64, Some(to as u64)));
                let request = GetRequest { range, ..get_request(&bucket, name) };
                let (_, bytes) = read(&stack.objects, request, customer).await.unwrap();
                assert!(bytes == data[from..=to], "{name} {from}..={to}");
            }
        }
    }
    let empty = stack.objects.put_with_key(put_request(&bucket, "empty", b""), EncryptionWish::Managed).await.unwrap();
    assert_eq!((empty.size, stack.get(&bucket, "empty").await.unwrap()), (0, Vec::new()));
    assert_eq!(stack.objects.chunk_budget_free_bytes(), 2 * CHUNK_SIZE_MAX);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_does_not_fit_is_refused_and_tells_nothing() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("keys").await;
    stack.put(&bucket, "plain", b"plain").await.unwrap();
    for (name, wish, _) in wishes() {
        stack.objects.put_with_key(put_request(&bucket, name, b"secret"), wish).await.unwrap();
    }
    for (name, given, code) in [
        ("customer", None, "InvalidRequest"),
        ("customer", Some(4), "AccessDenied"),
        ("plain", Some(3), "InvalidRequest"),
        ("managed", Some(3), "InvalidRequest"),
        ("kms", Some(3), "InvalidRequest"),
    ] {
        let given = given.map(customer);
        let request = || get_request(&bucket, name);
        assert_eq!(refusal(stack.objects.get_with_key(request(), given.as_ref()).await), code, "{name}");
        assert_eq!(refusal(stack.objects.head_with_key(request(), given.as_ref()).await), code, "{name}");
    }
    let info = stack.objects.head(get_request(&bucket, "customer")).await.unwrap().info;
    assert_eq!(info.attributes.encryption.unwrap().method, EncryptionMethod::Customer);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_encrypted_with_the_key_of_their_upload() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("parts").await;
    let data = [pattern(PART, 1), pattern(PART + 9, 2), pattern(100, 3)];
    for (name, wish, customer_key) in wishes() {
        let request = CreateUploadRequest {
            bucket: bucket.clone(),
            key: key(name),
            attributes: Default::default(),
            checksum: None,
        };
        let created = stack.objects.create_upload_with_key(request, wish).await.unwrap();
        assert!(created.encryption.is_some());
        let part = |number: u16, data: &[u8]| PutPartRequest {
            bucket: bucket.clone(),
            key: key(name),
            upload: created.upload,
            number,
            body: body(data),
            length: Some(data.len() as u64),
            content_md5: Some(md5_of(data)),
            finish: None,
        };
        let misfits = match customer_key {
            Some(_) => [None, Some(customer(9))],
            None => [Some(customer(3)), Some(customer(9))],
        };
        for misfit in misfits {
            let refused = stack.objects.put_part_with_key(part(1, b"x"), misfit.as_ref()).await;
            assert_eq!(refusal(refused), "InvalidRequest", "{name}");
        }
        let mut parts = Vec::new();
        for (number, data) in [(2, b"replaced by the next".as_slice()), (2, &data[0]), (5, &data[1]), (9, &data[2])] {
            let stored = stack.objects.put_part_with_key(part(number, data), customer_key.as_ref()).await.unwrap();
            assert_eq!(stored.size, data.len() as u64);
            parts.retain(|part: &ChosenPart| part.number != number);
            parts.push(ChosenPart { number, etag: stored.etag, checksum: None });
        }
        let complete = CompleteRequest {
            bucket: bucket.clone(),
            key: key(name),
            upload: created.upload,
            parts,
            condition: Condition::None,
            checksums: Vec::new(),
            composite: None,
            size: None,
        };
        let outcome = stack.objects.complete_upload(complete).await.unwrap();
        assert_eq!(outcome.encryption, created.encryption);
        let whole = data.concat();
        let customer_key = customer_key.as_ref();
        assert!(read(&stack.objects, get_request(&bucket, name), customer_key).await.unwrap().1 == whole, "{name}");
        let range = Some(RangeSpec::FromTo(PART as u64 - 3, Some(PART as u64 + 3)));
        let across = GetRequest { range, ..get_request(&bucket, name) };
        assert_eq!(read(&stack.objects, across, customer_key).await.unwrap().1, whole[PART - 3..PART + 4]);
        let numbered = GetRequest { part_number: Some(9), ..get_request(&bucket, name) };
        assert_eq!(read(&stack.objects, numbered, customer_key).await.unwrap().1, data[2]);
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_go_from_every_way_to_every_other() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let (bucket, other) = (stack.bucket("copies").await, stack.bucket("copied").await);
    let data = pattern(BLOCK * 2 + 5, 8);
    let plain = ("plain", EncryptionWish::BucketDefault, None);
    let ways = || std::iter::once(plain.clone()).chain(wishes());
    for (name, wish, _) in ways() {
        stack.objects.put_with_key(put_request(&bucket, name, &data), wish).await.unwrap();
    }
    let source = |name: &str| CopySource {
        bucket: bucket.clone(),
        key: key(name),
        version: None,
        preconditions: Default::default(),
    };
    for (from, _, from_key) in ways() {
        for (to, wish, to_key) in ways() {
            let copy = CopyRequest {
                source: source(from),
                bucket: other.clone(),
                key: key(to),
                metadata: Directive::Copy,
                tags: Directive::Copy,
                attributes: Default::default(),
                condition: Condition::None,
                changes: false,
                digest: None,
            };
            let (made, _) = stack.objects.copy_with_keys(copy, from_key.clone(), wish).await.unwrap();
            assert_eq!(made.encryption.is_some(), to != "plain");
            let copied = read(&stack.objects, get_request(&other, to), to_key.as_ref()).await.unwrap().1;
            assert!(copied == data, "{from} to {to}");
        }
    }
    let copy = CopyRequest {
        source: source("customer"),
        bucket: other.clone(),
        key: key("x"),
        metadata: Directive::Copy,
        tags: Directive::Copy,
        attributes: Default::default(),
        condition: Condition::None,
        changes: false,
        digest: None,
    };
    assert_eq!(refusal(stack.objects.copy(copy).await), "InvalidRequest");

    let request =
        CreateUploadRequest { bucket: other.clone(), key: key("k"), attributes: Default::default(), checksum: None };
    let wish = EncryptionWish::Customer(customer(7));
    let upload = stack.objects.create_upload_with_key(request, wish).await.unwrap().upload;
    let part = CopyPartRequest {
        source: source("customer"),
        range: Some(RangeSpec::FromTo(3, Some(BLOCK as u64 + 3))),
        bucket: other.clone(),
        key: key("k"),
        upload,
        number: 1,
    };
    let keys = (customer(3), customer(7));
    let (copied, _) = stack.objects.copy_part_with_keys(part, Some(&keys.0), Some(&keys.1)).await.unwrap();
    assert_eq!(copied.size, BLOCK as u64 + 1);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_encrypts_what_says_nothing() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket = stack.bucket("defaults").await;
    let set = async |text: Option<String>| {
        let change = SettingChange::Document(DocumentKind::Encryption, text);
        stack.objects.change_bucket(&bucket, change).await.unwrap();
    };
    let method = async |name: &str| {
        let put = stack.put(&bucket, name, b"bytes").await.unwrap();
        assert_eq!(stack.get(&bucket, name).await.unwrap(), b"bytes");
        put.encryption.map(|encryption| encryption.method)
    };
    assert_eq!(method("plain").await, None);
    set(Some(DefaultEncryption { method: DefaultMethod::Managed, bucket_key: false }.to_text())).await;
    assert_eq!(method("managed").await, Some(EncryptionMethod::Managed { version: 1 }));
    let key_id = Some("reports".to_owned());
    set(Some(DefaultEncryption { method: DefaultMethod::Kms { key_id }, bucket_key: true }.to_text())).await;
    let kms = EncryptionMethod::Kms { key_id: "reports".to_owned(), version: 1, context: None, bucket_key: true };
    assert_eq!(method("kms").await, Some(kms));
    set(Some("<Rule/>".to_owned())).await;
    let damaged = stack.put(&bucket, "damaged", b"bytes").await;
    assert!(matches!(damaged, Err(ObjectError::Storage(_))), "nothing is stored plain by mistake: {damaged:?}");
    set(None).await;
    assert_eq!(method("plain").await, None);
    stack.stop().await;
}

/// The names of the files that hold some bytes.
fn files_with(directory: &Path, wanted: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, wanted));
        } else if std::fs::read(&path).unwrap().windows(wanted.len()).any(|window| window == wanted) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_plain_bytes_nor_keys_lie_on_the_disk() {
    let directory = tempdir().unwrap();
    let stack = Stack::start(directory.path()).await;
    let bucket: BucketName = stack.bucket("disk").await;
    let customer_key: [u8; 32] = pattern(32, 77).try_into().unwrap();
    let marker = |name: &str| format!("what {name} wrote shall not be read here").into_bytes();
    let mut ways: Vec<(&str, EncryptionWish)> = wishes().into_iter().map(|(name, wish, _)| (name, wish)).collect();
    ways[3].1 = EncryptionWish::Customer(CustomerKey::new(&customer_key).unwrap());
    for (name, wish) in ways.clone() {
        stack.objects.put_with_key(put_request(&bucket, name, &marker(name)), wish).await.unwrap();
    }
    stack.put(&bucket, "plain", &marker("plain")).await.unwrap();
    stack.stop().await;
    assert_eq!(files_with(directory.path(), &marker("plain")).len(), 1, "plain bytes would be found");
    for (name, _) in ways {
        assert_eq!(files_with(directory.path(), &marker(name)), [""; 0], "{name}");
    }
    assert_eq!(files_with(directory.path(), &customer_key), [""; 0]);
    assert_eq!(files_with(directory.path(), &[7; 32]), [""; 0], "the cluster's key");
}
