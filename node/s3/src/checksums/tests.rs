//! Checksums of known texts, and what happens to bodies that do not have theirs.

use bytes::Bytes;
use futures::TryStreamExt;
use http::HeaderValue;

use super::*;

/// Of `123456789`: the check values that define the CRCs, and the digests.
const KNOWN: [(ChecksumAlgorithm, &str); 5] = [
    (ChecksumAlgorithm::Crc32, "y/Q5Jg=="),
    (ChecksumAlgorithm::Crc32c, "4waSgw=="),
    (ChecksumAlgorithm::Crc64Nvme, "rosUhgp5mIg="),
    (ChecksumAlgorithm::Sha1, "98O8HYCOBHMq32eZZczDTKeuNEE="),
    (ChecksumAlgorithm::Sha256, "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="),
];

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect()
}

fn blob(pieces: &'static [&'static [u8]]) -> StreamingBlob {
    let pieces = pieces.iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece)));
    StreamingBlob::wrap(futures::stream::iter(pieces))
}

async fn drain(mut body: VerifiedBody) -> Result<Vec<Checksum>, ObjectError> {
    while let Some(piece) = body.stream.next().await {
        piece.map_err(ObjectError::Body)?;
    }
    body.finish.map_or(Ok(Vec::new()), |finish| finish())
}

#[tokio::test]
async fn known_checksums_are_verified_and_given_back() {
    for (algorithm, value) in KNOWN {
        let promised = promised(&headers(&[(header(algorithm), value)])).unwrap();
        let body = verified(Some(blob(&[b"1234", b"", b"56789"])), promised.clone(), None, None);
        let checksums = drain(body).await.unwrap();
        assert_eq!((checksums.len(), text(&checksums[0], 0)), (1, value.to_owned()));
        let wrong = verified(Some(blob(&[b"1234", b"56780"])), promised, None, None);
        let error = drain(wrong).await.unwrap_err();
        assert!(matches!(error, ObjectError::ChecksumMismatch { algorithm: named } if named == name(algorithm)));
    }
}

#[tokio::test]
async fn an_absent_body_is_an_empty_one() {
    let of_nothing = promised(&headers(&[("x-amz-checksum-crc32", "AAAAAA==")])).unwrap();
    assert_eq!(drain(verified(None, of_nothing, None, None)).await.unwrap().len(), 1);
    let of_something = promised(&headers(&[("x-amz-checksum-crc32", "y/Q5Jg==")])).unwrap();
    assert!(drain(verified(None, of_something, None, None)).await.is_err());
    assert!(drain(verified(None, None, None, None)).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_promised_trailer_that_does_not_come_is_refused() {
    let promised = promised(&headers(&[("x-amz-trailer", "x-amz-checksum-crc32")])).unwrap();
    assert_eq!(promised, Some(Promised { algorithm: ChecksumAlgorithm::Crc32, value: None }));
    let error = drain(verified(Some(blob(&[b"123456789"])), promised, None, None)).await.unwrap_err();
    assert!(matches!(error, ObjectError::Refused { code: "InvalidRequest", .. }));
}

#[test]
fn bad_promises_are_refused() {
    for pairs in [
        &[("x-amz-checksum-crc32", "AAAA")][..],
        &[("x-amz-checksum-crc32", "not base64")],
        &[("x-amz-checksum-sha256", "y/Q5Jg==")],
        &[("x-amz-checksum-crc32", "y/Q5Jg=="), ("x-amz-checksum-crc32c", "4waSgw==")],
        &[("x-amz-checksum-crc32", "y/Q5Jg=="), ("x-amz-trailer", "x-amz-checksum-crc32c")],
        &[("x-amz-trailer", "x-amz-meta-a")],
        &[("x-amz-trailer", "x-amz-checksum-crc32, x-amz-checksum-sha1")],
        &[("x-amz-sdk-checksum-algorithm", "CRC32")],
        &[("x-amz-sdk-checksum-algorithm", "CRC32C"), ("x-amz-checksum-crc32", "y/Q5Jg==")],
        &[("x-amz-sdk-checksum-algorithm", "MD4"), ("x-amz-checksum-crc32", "y/Q5Jg==")],
    ] {
        assert!(promised(&headers(pairs)).is_err(), "{pairs:?}");
    }
    let announced = [("x-amz-sdk-checksum-algorithm", "crc32"), ("x-amz-trailer", "x-amz-checksum-crc32")];
    assert!(promised(&headers(&announced)).unwrap().is_some_and(|promised| promised.value.is_none()));
}

#[test]
fn composite_checksums_carry_the_count_of_parts() {
    let given = [Some("y/Q5Jg==-3"), None, Some("rosUhgp5mIg="), None, None];
    let checksums = of_whole_object(given).unwrap();
    assert_eq!(checksums.iter().map(|checksum| checksum.composite).collect::<Vec<_>>(), [true, false]);
    assert_eq!((text(&checksums[0], 3), text(&checksums[1], 3)), ("y/Q5Jg==-3".to_owned(), "rosUhgp5mIg=".to_owned()));
    assert!(of_whole_object([Some("y/Q5Jg==-x"), None, None, None, None]).is_err());
}

#[test]
fn the_texts_of_s3s_errors_are_understood() {
    for (text, fault) in [
        ("UploadStreamError: Sha256Mismatch", BodyFault::PayloadHash),
        ("UploadStreamError: Incomplete", BodyFault::Incomplete),
        ("UploadStreamError: LengthMismatch", BodyFault::TooLong),
        ("AwsChunkedStreamError: SignatureMismatch", BodyFault::ChunkSignature),
        ("AwsChunkedStreamError: Incomplete", BodyFault::Incomplete),
        ("AwsChunkedStreamError: FormatError", BodyFault::Framing),
        ("AwsChunkedStreamError: TrailersTooLarge: size 20000 exceeds limit 16384", BodyFault::Framing),
        ("reset by peer", BodyFault::Disconnected("reset by peer".to_owned())),
    ] {
        assert_eq!(fault_of(text), fault);
    }
}

#[tokio::test]
async fn copied_bytes_get_the_checksum_that_is_asked_for() {
    let pieces = [Ok(Bytes::from_static(b"1234")), Ok(Bytes::from_static(b"56789"))];
    let (body, finish) = computed(named("CRC32").unwrap())(Box::pin(futures::stream::iter(pieces)));
    assert_eq!(body.try_collect::<Vec<_>>().await.unwrap().concat(), b"123456789");
    assert_eq!(text(&finish().unwrap()[0], 0), "y/Q5Jg==");
}

#[test]
fn uploads_ask_for_checksums_that_exist() {
    for (algorithm, kind) in [
        (None, None),
        (Some("SHA1"), None),
        (Some("SHA256"), Some("COMPOSITE")),
        (Some("CRC32"), Some("COMPOSITE")),
        (Some("CRC32C"), Some("FULL_OBJECT")),
        (Some("CRC64NVME"), Some("FULL_OBJECT")),
    ] {
        assert!(upload_checksum(algorithm, kind).is_ok(), "{algorithm:?} {kind:?}");
    }
    for (algorithm, kind) in [
        (Some("MD5"), None),
        (None, Some("FULL_OBJECT")),
        (Some("SHA1"), Some("FULL_OBJECT")),
        (Some("CRC64NVME"), Some("COMPOSITE")),
        (Some("CRC32"), Some("HALF")),
    ] {
        let refused = upload_checksum(algorithm, kind).unwrap_err();
        assert_eq!(refused.code().as_str(), "InvalidRequest", "{algorithm:?} {kind:?}");
    }
}
