//! Codes and statuses as S3 publishes them.

use meridian_types::{BucketName, DatacenterId, ObjectKey, UploadId};

use super::*;

fn bucket() -> BucketName {
    "photos".parse().unwrap()
}

fn key() -> ObjectKey {
    "a/b".parse().unwrap()
}

fn upload() -> UploadId {
    UploadId::new(DatacenterId::new(1).unwrap(), [7; 15])
}

fn answer(failure: ObjectError) -> (String, u16) {
    let error = object_error(failure, None);
    (error.code().as_str().to_owned(), error.status_code().unwrap().as_u16())
}

#[test]
fn every_object_error_has_its_code_and_status() {
    let cases = [
        (ObjectError::NoSuchBucket(bucket()), "NoSuchBucket", 404),
        (ObjectError::BucketBeingDeleted(bucket()), "OperationAborted", 409),
        (ObjectError::BucketAlreadyExists(bucket()), "BucketAlreadyExists", 409),
        (ObjectError::BucketAlreadyOwnedByYou(bucket()), "BucketAlreadyOwnedByYou", 409),
        (ObjectError::BucketNotEmpty(bucket()), "BucketNotEmpty", 409),
        (ObjectError::NoSuchKey { bucket: bucket(), key: key() }, "NoSuchKey", 404),
        (ObjectError::NoSuchUpload { key: key(), upload: upload() }, "NoSuchUpload", 404),
        (
            ObjectError::UploadElsewhere { upload: upload(), datacenter: DatacenterId::new(2).unwrap() },
            "NotImplemented",
            501,
        ),
        (ObjectError::InvalidPart(3), "InvalidPart", 400),
        (ObjectError::InvalidPartOrder, "InvalidPartOrder", 400),
        (ObjectError::EntityTooSmall(1), "EntityTooSmall", 400),
        (ObjectError::EntityTooLarge { size: 9, size_max: 5 }, "EntityTooLarge", 400),
        (ObjectError::MetadataTooLarge, "MetadataTooLarge", 400),
        (ObjectError::InvalidArgument { argument: "x", reason: "y".to_owned() }, "InvalidArgument", 400),
        (ObjectError::CopyOntoItself, "InvalidRequest", 400),
        (ObjectError::BadDigest, "BadDigest", 400),
        (ObjectError::ChecksumMismatch { algorithm: "CRC32".to_owned() }, "BadDigest", 400),
        (ObjectError::Refused { code: "InvalidRequest", message: "m".to_owned() }, "InvalidRequest", 400),
        (ObjectError::Refused { code: "AccessDenied", message: "m".to_owned() }, "AccessDenied", 403),
        (ObjectError::Refused { code: "NeverHeardOf", message: "m".to_owned() }, "NeverHeardOf", 400),
        (ObjectError::IncompleteBody { expected: 5, received: 4 }, "IncompleteBody", 400),
        (ObjectError::BodyTooLong { expected: 5 }, "IncompleteBody", 400),
        (ObjectError::Body(StreamError::Client("gone".to_owned())), "IncompleteBody", 400),
        (ObjectError::InvalidRange { size: 5 }, "InvalidRange", 416),
        (ObjectError::InvalidPartNumber { number: 9, parts: 2 }, "InvalidPartNumber", 416),
        (ObjectError::PreconditionFailed("If-Match"), "PreconditionFailed", 412),
        (ObjectError::NotModified { etag: "a".to_owned(), last_modified_unix_ms: 0 }, "NotModified", 304),
        (ObjectError::Busy("x"), "SlowDown", 503),
        (ObjectError::Unavailable { reason: "x".to_owned(), retry_after_s: 2 }, "ServiceUnavailable", 503),
        (ObjectError::Storage("x".to_owned()), "InternalError", 500),
    ];
    for (failure, code, status) in cases {
        let text = failure.to_string();
        assert_eq!(answer(failure), (code.to_owned(), status), "{text}");
    }
}

#[test]
fn those_who_must_wait_are_told_how_long() {
    let retry_after = |failure| {
        let error = object_error(failure, None);
        error.headers().unwrap()[RETRY_AFTER].to_str().unwrap().to_owned()
    };
    assert_eq!(retry_after(ObjectError::Busy("x")), "1");
    assert_eq!(retry_after(ObjectError::Unavailable { reason: "r".to_owned(), retry_after_s: 7 }), "7");
}

#[test]
fn a_range_outside_tells_the_size_and_not_modified_the_validators() {
    let error = object_error(ObjectError::InvalidRange { size: 5 }, None);
    assert_eq!(error.headers().unwrap()[CONTENT_RANGE], "bytes */5");
    let failure = ObjectError::NotModified { etag: "abc".to_owned(), last_modified_unix_ms: 1_440_938_160_500 };
    let error = object_error(failure, None);
    let headers = error.headers().unwrap();
    assert_eq!(
        (&headers[ETAG], &headers[LAST_MODIFIED]),
        (&"\"abc\"".parse().unwrap(), &"Sun, 30 Aug 2015 12:36:00 GMT".parse().unwrap())
    );
}

#[test]
fn a_fault_seen_in_the_body_explains_the_failure() {
    for (fault, code, status) in [
        (BodyFault::Idle, "RequestTimeout", 400),
        (BodyFault::Framing, "InvalidRequest", 400),
        (BodyFault::ChunkTooLarge, "InvalidChunkSizeError", 400),
        (BodyFault::PayloadHash, "XAmzContentSHA256Mismatch", 400),
        (BodyFault::ChunkSignature, "SignatureDoesNotMatch", 403),
    ] {
        let context = RequestContext::new("1".to_owned(), None);
        context.set_body_fault(fault);
        let failure = ObjectError::Body(StreamError::Client("cut".to_owned()));
        let error = object_error(failure, Some(&context));
        assert_eq!((error.code().as_str(), error.status_code().unwrap().as_u16()), (code, status));
    }
}

#[test]
fn names_are_refused_in_the_words_of_s3() {
    let code = |failure: NameError| name_error(&failure).code().as_str().to_owned();
    assert_eq!(code("A".parse::<BucketName>().unwrap_err()), "InvalidBucketName");
    assert_eq!(code("a".repeat(1025).parse::<ObjectKey>().unwrap_err()), "KeyTooLongError");
    assert_eq!(code("a\0".parse::<ObjectKey>().unwrap_err()), "InvalidURI");
}
