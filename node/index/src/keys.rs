//! The layout of keys inside a group: one letter, then fields of fixed length, then at most one key or name.
//!
//! ```text
//! o bucket(16) key 00 00                            object: the null version
//! o bucket(16) key 00 01 inverted stamp(9)          object: a version, newest first
//! v bucket(16)                                      marker: the bucket holds versions here
//! l origin(1) incarnation(4) sequence(8)            log entry
//! c origin(1)                                       cursor
//! s                                                 partition state
//! i request(16)   j slot(4)                         remembered outcome, and the ring that bounds them
//! m upload(16)    n slot(4)                         answer of a completed upload, and its ring
//! u bucket(16) key 00 upload(16)                    upload
//! p bucket(16) key 00 upload(16) number(2)          part
//! q stamp(9) bucket(16) key 00 00 superseded(9)     reclaim queue: a superseded version
//! q stamp(9) bucket(16) key 00 01 upload(16) number(2)  … or part
//! k loser(9) bucket(16) key 00                      conflict; of a bucket row with an empty key
//! f bucket(16)                                      fence
//! t                                                 stable times, and how far they have released rows
//! b name                                            catalog: bucket
//! d bucket(16) name                                 catalog: bucket id → name
//! w name                                            catalog: user
//! y access key 00 user name                         catalog: access key → user
//! g name                                            catalog: group
//! x                                                 catalog: how often users and groups have changed here
//! ```
//!
//! Numbers are big-endian, so that rows sort like their fields. A key holds no NUL, so a NUL ends it and rows sort like
//! the keys do bytewise; that is why LIST can seek. Invariant: nothing outside of this file builds or parses a key.

use meridian_types::{
    BucketId, BucketName, DatacenterId, Incarnation, ObjectKey, RequestId, Sequence, Stamp, Timestamp, UploadId,
};

const BUCKET_LENGTH: usize = 16;
const KEY_END: u8 = 0;
const SLOT_NULL: u8 = 0;
const SLOT_VERSION: u8 = 1;
const TAG_VERSION: u8 = 0;
const TAG_PART: u8 = 1;
/// Letter and bucket.
const BUCKET_PREFIX_LENGTH: usize = 1 + BUCKET_LENGTH;

pub(crate) const STATE: &[u8] = b"s";
pub(crate) const STABLE: &[u8] = b"t";
pub(crate) const CURSORS: &[u8] = b"c";
pub(crate) const CONFLICTS: &[u8] = b"k";
pub(crate) const RECLAIM: &[u8] = b"q";
pub(crate) const BUCKETS: &[u8] = b"b";
pub(crate) const USERS: &[u8] = b"w";
pub(crate) const GROUPS: &[u8] = b"g";
pub(crate) const USER_CHANGES: &[u8] = b"x";

fn join(letter: u8, fields: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + fields.iter().map(|field| field.len()).sum::<usize>());
    key.push(letter);
    for field in fields {
        key.extend_from_slice(field);
    }
    key
}

/// The first key that does not start with `prefix`, which must hold a byte below 0xff.
pub(crate) fn successor(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            break;
        }
    }
    assert!(!prefix.is_empty(), "every key starts with a letter");
    prefix
}

pub(crate) fn object_null(bucket: BucketId, key: &ObjectKey) -> Vec<u8> {
    join(b'o', &[&bucket.0, key.as_str().as_bytes(), &[KEY_END, SLOT_NULL]])
}

pub(crate) fn object_version(bucket: BucketId, key: &ObjectKey, stamp: Stamp) -> Vec<u8> {
    join(b'o', &[&bucket.0, key.as_str().as_bytes(), &[KEY_END, SLOT_VERSION], &stamp.to_inverted_bytes()])
}

/// The versions of a key without the null one, newest first: `[start, end)`.
pub(crate) fn object_versions(bucket: BucketId, key: &ObjectKey) -> (Vec<u8>, Vec<u8>) {
    let start = join(b'o', &[&bucket.0, key.as_str().as_bytes(), &[KEY_END, SLOT_VERSION]]);
    (start, objects_after(bucket, key.as_str()))
}

/// Where rows of keys that start with `prefix` start.
pub(crate) fn objects_from(bucket: BucketId, prefix: &str) -> Vec<u8> {
    join(b'o', &[&bucket.0, prefix.as_bytes()])
}

/// Where rows of keys above `key` start: behind all rows of `key`.
pub(crate) fn objects_after(bucket: BucketId, key: &str) -> Vec<u8> {
    join(b'o', &[&bucket.0, key.as_bytes(), &[KEY_END + 1]])
}

/// The key text of an object row, and whether it is the null version's.
pub(crate) fn parse_object(row: &[u8]) -> Option<(&str, bool)> {
    let rest = row.get(BUCKET_PREFIX_LENGTH..)?;
    let end = rest.iter().position(|byte| *byte == KEY_END)?;
    let is_null = *rest.get(end + 1)? == SLOT_NULL;
    Some((std::str::from_utf8(&rest[..end]).ok()?, is_null))
}

pub(crate) fn versions_marker(bucket: BucketId) -> Vec<u8> {
    join(b'v', &[&bucket.0])
}

pub(crate) fn log(origin: DatacenterId, incarnation: Incarnation, sequence: Sequence) -> Vec<u8> {
    join(b'l', &[&[origin.get()], &incarnation.0.to_be_bytes(), &sequence.0.to_be_bytes()])
}

/// The whole log of an origin: `[start, end)`.
pub(crate) fn log_of(origin: DatacenterId) -> (Vec<u8>, Vec<u8>) {
    let start = vec![b'l', origin.get()];
    (start.clone(), successor(start))
}

/// The sequence of a log row.
pub(crate) fn parse_log_sequence(row: &[u8]) -> Option<Sequence> {
    let sequence = row.get(1 + 1 + 4..)?;
    Some(Sequence(u64::from_be_bytes(sequence.try_into().ok()?)))
}

pub(crate) fn cursor(origin: DatacenterId) -> Vec<u8> {
    vec![b'c', origin.get()]
}

pub(crate) fn request(request: RequestId) -> Vec<u8> {
    join(b'i', &[&request.0])
}

pub(crate) fn request_slot(slot: u32) -> Vec<u8> {
    join(b'j', &[&slot.to_be_bytes()])
}

pub(crate) fn completion(upload: UploadId) -> Vec<u8> {
    join(b'm', &[upload.as_bytes()])
}

pub(crate) fn completion_slot(slot: u32) -> Vec<u8> {
    join(b'n', &[&slot.to_be_bytes()])
}

pub(crate) fn upload(bucket: BucketId, key: &ObjectKey, upload: UploadId) -> Vec<u8> {
    join(b'u', &[&bucket.0, key.as_str().as_bytes(), &[KEY_END], upload.as_bytes()])
}

/// Where uploads of keys that start with `prefix` start.
pub(crate) fn uploads_from(bucket: BucketId, prefix: &str) -> Vec<u8> {
    join(b'u', &[&bucket.0, prefix.as_bytes()])
}

/// Where uploads of keys above `key` start.
pub(crate) fn uploads_after(bucket: BucketId, key: &ObjectKey) -> Vec<u8> {
    join(b'u', &[&bucket.0, key.as_str().as_bytes(), &[KEY_END + 1]])
}

pub(crate) fn part(bucket: BucketId, key: &ObjectKey, upload: UploadId, number: u16) -> Vec<u8> {
    join(b'p', &[&bucket.0, key.as_str().as_bytes(), &[KEY_END], upload.as_bytes(), number.to_be_bytes().as_slice()])
}

/// Where the rows behind all parts of an upload start.
pub(crate) fn parts_end(bucket: BucketId, key: &ObjectKey, upload: UploadId) -> Vec<u8> {
    successor(join(b'p', &[&bucket.0, key.as_str().as_bytes(), &[KEY_END], upload.as_bytes()]))
}

/// The number of a part's row.
pub(crate) fn parse_part_number(row: &[u8]) -> Option<u16> {
    let (_, number) = row.split_at_checked(row.len().checked_sub(2)?)?;
    Some(u16::from_be_bytes(number.try_into().ok()?))
}

pub(crate) fn reclaim_version(superseding: Stamp, bucket: BucketId, key: &ObjectKey, superseded: Stamp) -> Vec<u8> {
    let end = [KEY_END, TAG_VERSION];
    join(b'q', &[&superseding.to_bytes(), &bucket.0, key.as_str().as_bytes(), &end, &superseded.to_bytes()])
}

pub(crate) fn reclaim_part(
    superseding: Stamp,
    bucket: BucketId,
    key: &ObjectKey,
    upload: UploadId,
    number: u16,
) -> Vec<u8> {
    let (stamp, end, number) = (superseding.to_bytes(), [KEY_END, TAG_PART], number.to_be_bytes());
    join(b'q', &[&stamp, &bucket.0, key.as_str().as_bytes(), &end, upload.as_bytes(), &number])
}

/// Where rows superseded above `through` start.
pub(crate) fn reclaim_behind(through: Timestamp) -> Vec<u8> {
    match through.raw().checked_add(1) {
        Some(next) => join(b'q', &[&next.to_be_bytes()]),
        None => successor(RECLAIM.to_vec()),
    }
}

/// Superseding stamp, bucket and key of a reclaim row.
pub(crate) fn parse_reclaim(row: &[u8]) -> Option<(Stamp, BucketId, ObjectKey)> {
    let (stamp, rest) = row.get(1..)?.split_first_chunk::<{ Stamp::LENGTH }>()?;
    let (bucket, rest) = rest.split_first_chunk::<BUCKET_LENGTH>()?;
    let end = rest.iter().position(|byte| *byte == KEY_END)?;
    let key = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    Some((Stamp::from_bytes(*stamp).ok()?, BucketId(*bucket), key))
}

/// `key` is empty for the conflict of a bucket row.
pub(crate) fn conflict(loser: Stamp, bucket: BucketId, key: &str) -> Vec<u8> {
    join(b'k', &[&loser.to_bytes(), &bucket.0, key.as_bytes(), &[KEY_END]])
}

/// Where conflicts whose loser is stamped above `stamp` start.
pub(crate) fn conflicts_after(stamp: Stamp) -> Vec<u8> {
    successor(join(b'k', &[&stamp.to_bytes()]))
}

pub(crate) fn fence(bucket: BucketId) -> Vec<u8> {
    join(b'f', &[&bucket.0])
}

pub(crate) fn bucket(name: &BucketName) -> Vec<u8> {
    join(b'b', &[name.as_str().as_bytes()])
}

pub(crate) fn bucket_name(bucket: BucketId, name: &BucketName) -> Vec<u8> {
    join(b'd', &[&bucket.0, name.as_str().as_bytes()])
}

pub(crate) fn bucket_names(bucket: BucketId) -> Vec<u8> {
    join(b'd', &[&bucket.0])
}

/// The name in a row of `bucket_name`.
pub(crate) fn parse_bucket_name(row: &[u8]) -> Option<BucketName> {
    std::str::from_utf8(row.get(BUCKET_PREFIX_LENGTH..)?).ok()?.parse().ok()
}

pub(crate) fn user(name: &str) -> Vec<u8> {
    join(b'w', &[name.as_bytes()])
}

pub(crate) fn group(name: &str) -> Vec<u8> {
    join(b'g', &[name.as_bytes()])
}

pub(crate) fn access_key(access_key: &str, user: &str) -> Vec<u8> {
    join(b'y', &[access_key.as_bytes(), &[KEY_END], user.as_bytes()])
}

pub(crate) fn access_keys(access_key: &str) -> Vec<u8> {
    join(b'y', &[access_key.as_bytes(), &[KEY_END]])
}

/// The user name in a row of `access_key`.
pub(crate) fn parse_access_key_user(row: &[u8]) -> Option<&str> {
    let end = row.iter().position(|byte| *byte == KEY_END)?;
    std::str::from_utf8(&row[end + 1..]).ok()
}

#[cfg(test)]
mod tests {
    use meridian_types::{BucketId, DatacenterId, ObjectKey, Stamp, Timestamp};

    use super::{
        KEY_END, object_null, object_version, objects_after, objects_from, parse_object, parse_reclaim,
        reclaim_version, successor,
    };

    const BUCKET: BucketId = BucketId([0xff; 16]);

    fn key(text: &str) -> ObjectKey {
        text.parse().unwrap()
    }

    fn stamp(raw: u64) -> Stamp {
        Stamp::new(Timestamp::from_raw(raw), DatacenterId::new(1).unwrap())
    }

    #[test]
    fn golden_bytes() {
        let bucket = BucketId([0xab; 16]);
        assert_eq!(hex::encode(object_null(bucket, &key("a/b"))), format!("6f{}612f620000", "ab".repeat(16)));
        assert_eq!(
            hex::encode(object_version(bucket, &key("a"), stamp(1))),
            format!("6f{}610001fffffffffffffffefe", "ab".repeat(16))
        );
    }

    #[test]
    fn rows_sort_like_keys_and_the_newest_version_first() {
        let mut keys = vec!["a", "a\u{1}", "a\u{1}b", "a!", "ab", "b", "\u{10ffff}", "\u{10ffff}a", "é"];
        keys.sort_unstable();
        let mut rows = Vec::new();
        for text in &keys {
            rows.push(object_null(BUCKET, &key(text)));
            rows.push(object_version(BUCKET, &key(text), stamp(9)));
            rows.push(object_version(BUCKET, &key(text), stamp(3)));
        }
        assert!(rows.is_sorted());
        for (text, rows) in keys.iter().zip(rows.chunks(3)) {
            assert!(objects_from(BUCKET, text) <= rows[0] && rows[2] < objects_after(BUCKET, text));
            assert_eq!(parse_object(&rows[0]), Some((*text, true)));
            assert_eq!(parse_object(&rows[1]), Some((*text, false)));
        }
    }

    #[test]
    fn successor_passes_over_trailing_ff() {
        assert_eq!(successor(objects_from(BUCKET, "")), b"p".to_vec());
        assert_eq!(successor(objects_from(BUCKET, "a")).last(), Some(&b'b'));
    }

    #[test]
    fn damaged_keys_parse_to_nothing() {
        assert_eq!(parse_object(b"o"), None);
        assert_eq!(parse_object(&objects_from(BUCKET, "a")), None);
        let row = reclaim_version(stamp(5), BUCKET, &key("k"), stamp(4));
        assert_eq!(parse_reclaim(&row), Some((stamp(5), BUCKET, key("k"))));
        for length in 0..row.len() - 11 {
            assert_eq!(parse_reclaim(&row[..length]), None);
        }
        assert_eq!(row[row.len() - 11], KEY_END);
    }
}
