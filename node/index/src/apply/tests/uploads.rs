//! Multipart uploads.

use md5::{Digest, Md5};
use meridian_types::limits::PART_SIZE_MIN;
use meridian_types::{Sequence, UploadId};

use crate::testing::{BUCKET, Group, attempt, chunk, create_upload, dc, key, put, stamp, time, upload_id};
use crate::{
    Checksum, ChecksumAlgorithm, Command, Condition, Operation, Outcome, Part, PartChoice, PartSize, ReclaimRow,
    VersionId, VersionMode, queries,
};

fn part(number: u64, size: u64) -> Part {
    let value = number.to_be_bytes().to_vec();
    Part {
        size,
        etag: format!("{number:032x}"),
        chunks: vec![chunk(number, size as u32)],
        stored: time(number),
        checksums: vec![Checksum { algorithm: ChecksumAlgorithm::Crc64Nvme, value, composite: false }],
    }
}

fn put_part(upload: UploadId, number: u16, part: Part) -> Operation {
    Operation::PutPart { bucket: BUCKET, key: key("k"), upload, number, part }
}

fn complete(upload: UploadId, parts: &[(u16, u64)]) -> Operation {
    complete_if(upload, parts, Condition::None)
}

fn complete_if(upload: UploadId, parts: &[(u16, u64)], condition: Condition) -> Operation {
    let choice = |(number, etag): &(u16, u64)| PartChoice { number: *number, etag: format!("{etag:032X}") };
    let parts = parts.iter().map(choice).collect();
    let (mode, checksums) = (VersionMode::Null, vec![whole_checksum()]);
    Operation::CompleteUpload { bucket: BUCKET, key: key("k"), upload, parts, mode, condition, checksums }
}

fn whole_checksum() -> Checksum {
    Checksum { algorithm: ChecksumAlgorithm::Crc64Nvme, value: vec![7; 8], composite: false }
}

fn abort(upload: UploadId) -> Operation {
    Operation::AbortUpload { bucket: BUCKET, key: key("k"), upload }
}

/// A group with an upload of parts 1 (large), 2 (large), 3 (small), 5 (small).
fn uploading() -> (Group, UploadId) {
    let (mut group, upload) = (Group::new(1), upload_id(1, 7));
    assert_eq!(group.propose(create_upload("k", upload)), Outcome::UploadCreated);
    for (number, size) in [(1, PART_SIZE_MIN), (2, PART_SIZE_MIN + 1), (3, 10), (5, 20)] {
        let outcome = group.propose(put_part(upload, number, part(u64::from(number), size)));
        assert_eq!(outcome, Outcome::PartStored);
    }
    (group, upload)
}

fn queued_parts(group: &Group) -> Vec<(u16, Part)> {
    let queue = queries::superseded(&group.kv, time(u64::MAX), 99).unwrap();
    let part = |row| match row {
        ReclaimRow::Part { number, part, .. } => Some((number, part)),
        ReclaimRow::Version(_) => None,
    };
    queue.into_iter().filter_map(|found| part(found.row)).collect()
}

#[test]
fn a_completed_upload_is_one_object_of_its_chosen_parts() {
    let (mut group, upload) = uploading();
    assert_eq!(group.rows_of(b'l').len(), 0, "uploads are in no log");
    let outcome = group.propose(complete(upload, &[(1, 1), (2, 2), (5, 5)]));
    let mut md5s = Md5::new();
    for number in [1u128, 2, 5] {
        md5s.update(number.to_be_bytes());
    }
    let (etag, size) = (format!("{}-3", hex::encode(md5s.finalize())), 2 * PART_SIZE_MIN + 21);
    assert_eq!(
        outcome,
        Outcome::Completed {
            stamp: stamp(6, 1),
            etag: etag.clone(),
            size,
            version: VersionId::Null,
            checksums: vec![whole_checksum()],
        }
    );

    let object = group.object("k").unwrap();
    let body = object.body().unwrap();
    assert_eq!((&body.etag, body.size), (&etag, size));
    assert_eq!(body.attributes.content_type.as_deref(), Some("text/x"));
    assert_eq!(body.chunks, [chunk(1, PART_SIZE_MIN as u32), chunk(2, PART_SIZE_MIN as u32 + 1), chunk(5, 20)]);
    let checksum = |number: u16| Some(u64::from(number).to_be_bytes().to_vec());
    let sizes = [(1, PART_SIZE_MIN), (2, PART_SIZE_MIN + 1), (5, 20)].map(|(number, size)| PartSize {
        number,
        size,
        checksum: checksum(number),
    });
    assert_eq!(body.parts, sizes);
    assert_eq!(queries::log_head(&group.kv, dc(1)).unwrap().position.sequence, Sequence(1));
    assert_eq!(queued_parts(&group), [(3, part(3, 10))], "the part left out is reclaimed");
    assert_eq!((group.rows_of(b'u').len(), group.rows_of(b'p').len()), (0, 0));
}

#[test]
fn a_repeated_complete_gets_the_same_answer_and_changes_nothing() {
    let (mut group, upload) = uploading();
    let outcome = group.propose(complete(upload, &[(1, 1)]));
    assert!(matches!(outcome, Outcome::Completed { .. }));
    group.propose(put("k", 99));
    assert_eq!(group.propose(complete(upload, &[(1, 1)])), outcome);
    group.apply(&Command::Fence { bucket: BUCKET, attempt: attempt(1, 1), raised: true });
    assert_eq!(group.propose(complete(upload, &[(2, 2)])), outcome);
    assert_eq!(group.object("k").unwrap().body().unwrap().size, 1099, "the later write stands");
    assert_eq!(group.rows_of(b'l').len(), 2);
}

#[test]
fn whichever_of_complete_and_abort_comes_first_stands() {
    let (mut group, upload) = uploading();
    let mut other = group.clone();
    assert!(matches!(group.propose(complete(upload, &[(1, 1)])), Outcome::Completed { .. }));
    assert_eq!(group.propose(abort(upload)), Outcome::NoSuchUpload);
    assert!(group.object("k").is_some());

    assert_eq!(other.propose(abort(upload)), Outcome::Aborted);
    assert_eq!(other.propose(complete(upload, &[(1, 1)])), Outcome::NoSuchUpload);
    assert_eq!(other.propose(put_part(upload, 1, part(1, 1))), Outcome::NoSuchUpload);
    assert_eq!(other.propose(abort(upload)), Outcome::NoSuchUpload);
    assert_eq!((other.object("k"), queued_parts(&other).len()), (None, 4));
    assert_eq!((other.rows_of(b'u').len(), other.rows_of(b'p').len()), (0, 0));
}

#[test]
fn a_wrong_choice_of_parts_is_named_and_changes_nothing() {
    let (mut group, upload) = uploading();
    let wanted: [(&[(u16, u64)], Outcome); 7] = [
        (&[], Outcome::InvalidPart(0)),
        (&[(2, 2), (1, 1)], Outcome::InvalidPartOrder),
        (&[(1, 1), (1, 1)], Outcome::InvalidPartOrder),
        (&[(1, 1), (4, 4)], Outcome::InvalidPart(4)),
        (&[(1, 2)], Outcome::InvalidPart(1)),
        (&[(1, 1), (3, 3), (5, 5)], Outcome::PartTooSmall(3)),
        (&[(3, 3), (5, 5)], Outcome::PartTooSmall(3)),
    ];
    for (parts, outcome) in wanted {
        assert_eq!(group.propose(complete(upload, parts)), outcome, "{parts:?}");
    }
    group.propose(put("k", 1));
    assert_eq!(group.propose(complete_if(upload, &[(1, 1)], Condition::Absent)), Outcome::PreconditionFailed);
    assert_eq!((group.rows_of(b'p').len(), group.rows_of(b'l').len()), (4, 1));
    assert_eq!(group.propose(complete(upload_id(1, 8), &[(1, 1)])), Outcome::NoSuchUpload);
    assert!(matches!(group.propose(complete(upload, &[(3, 3)])), Outcome::Completed { size: 10, .. }));
}

#[test]
fn a_part_put_again_replaces_the_one_before() {
    let (mut group, upload) = uploading();
    group.propose(put_part(upload, 3, part(33, 11)));
    assert_eq!(queued_parts(&group), [(3, part(3, 10))]);
    let parts = queries::parts(&group.kv, BUCKET, &key("k"), upload, 1, 2).unwrap();
    assert_eq!(parts, [(2, part(2, PART_SIZE_MIN + 1)), (3, part(33, 11))]);
    assert_eq!(group.propose(complete(upload, &[(3, 3)])), Outcome::InvalidPart(3));
    for number in [0, 10_001] {
        assert_eq!(group.propose(put_part(upload, number, part(1, 1))), Outcome::InvalidPart(number));
    }
    assert!(queries::parts(&group.kv, BUCKET, &key("k"), upload, u16::MAX, 9).unwrap().is_empty());
}

#[test]
fn a_part_retried_under_its_request_does_not_reclaim_itself() {
    let (mut group, upload) = uploading();
    let proposal = group.proposal(put_part(upload, 9, part(9, 9)));
    assert_eq!(group.submit(proposal.clone()), Outcome::PartStored);
    assert_eq!(group.submit(proposal), Outcome::PartStored);
    assert!(queued_parts(&group).is_empty());
}

#[test]
fn a_fence_refuses_uploads_but_lets_them_be_aborted() {
    let (mut group, upload) = uploading();
    group.apply(&Command::Fence { bucket: BUCKET, attempt: attempt(1, 1), raised: true });
    assert_eq!(group.propose(create_upload("k", upload_id(1, 8))), Outcome::Fenced);
    assert_eq!(group.propose(put_part(upload, 1, part(1, 1))), Outcome::Fenced);
    assert_eq!(group.propose(complete(upload, &[(1, 1)])), Outcome::Fenced);
    assert!(queries::bucket_is_empty(&group.kv, BUCKET).unwrap(), "uploads do not keep a bucket");
    assert_eq!(group.propose(abort(upload)), Outcome::Aborted);
}

#[test]
fn an_upload_of_another_datacenter_is_refused() {
    assert_eq!(Group::new(1).propose(create_upload("k", upload_id(2, 1))), Outcome::Misdirected);
}

#[test]
fn uploads_are_listed_by_key_and_id() {
    let mut group = Group::new(1);
    for (text, number) in [("a/1", 1), ("a/1", 2), ("a/1\u{1}", 1), ("a/2", 3), ("b", 4)] {
        group.propose(create_upload(text, upload_id(1, number)));
    }
    let list = |prefix: &str, after: Option<(&str, Option<u8>)>, limit| -> Vec<(String, UploadId)> {
        let after = after.map(|(text, number)| (key(text), number.map(|number| upload_id(1, number))));
        let after = after.as_ref().map(|(key, upload)| (key, *upload));
        let found = queries::uploads(&group.kv, BUCKET, prefix, after, limit).unwrap();
        found.into_iter().map(|row| (row.key.as_str().to_owned(), row.upload)).collect()
    };
    let named = |text: &str, number| (text.to_owned(), upload_id(1, number));
    let (one, two, odd) = (named("a/1", 1), named("a/1", 2), named("a/1\u{1}", 1));
    assert_eq!(list("a/", None, 9), [one.clone(), two.clone(), odd.clone(), named("a/2", 3)]);
    assert_eq!(list("", None, 2), [one, two.clone()]);
    assert_eq!(list("", Some(("a/1", Some(1))), 2), [two, odd.clone()]);
    assert_eq!(list("a/1", Some(("a/1", None)), 9), [odd]);
    assert_eq!(list("b", Some(("a/1", None)), 9), [named("b", 4)]);
    assert!(list("a", Some(("b", None)), 9).is_empty());
}
