//! The published examples of AWS, and what tampering with a signed request gets.

use http::{HeaderValue, Method, Request};
use proptest::prelude::*;

use super::*;
use crate::sign::{Credentials, sign};

const S3_ACCESS: &str = "AKIAIOSFODNN7EXAMPLE";
const S3_SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const S3_TIME_UNIX_MS: u64 = 1_369_353_600_000; // 20130524T000000Z
const IAM_TIME_UNIX_MS: u64 = 1_440_938_160_000; // 20150830T123600Z

fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn signed_s3(method: &str, uri: &str, headers: &[(&str, &str)], body: &[u8]) -> Parts {
    let mut parts = parts(method, uri, headers);
    let credentials = Credentials { access_key: S3_ACCESS.to_owned(), secret_key: SecretKey::new(S3_SECRET) };
    sign(&mut parts, &PayloadHash::of(body), &credentials, &Scope::new("us-east-1", "s3"), S3_TIME_UNIX_MS).unwrap();
    parts
}

fn check(parts: &Parts, now_unix_ms: u64) -> Result<(), VerifyError> {
    check_with(parts, S3_SECRET, now_unix_ms)
}

fn check_with(parts: &Parts, secret: &str, now_unix_ms: u64) -> Result<(), VerifyError> {
    let claim = Claim::parse(parts)?;
    Verifier::new("s3").verify(parts, &claim, &SecretKey::new(secret), None, now_unix_ms)
}

fn signature(parts: &Parts) -> &str {
    parts.headers[AUTHORIZATION].to_str().unwrap().rsplit_once("Signature=").unwrap().1
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>
#[test]
fn the_examples_of_the_s3_documentation_sign_as_published() {
    let host = "https://examplebucket.s3.amazonaws.com";
    let get = signed_s3("GET", &format!("{host}/test.txt"), &[("range", "bytes=0-9")], b"");
    assert_eq!(signature(&get), "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
    let put = signed_s3(
        "PUT",
        &format!("{host}/test$file.text"),
        &[("date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")],
        b"Welcome to Amazon S3.",
    );
    assert_eq!(signature(&put), "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
    let lifecycle = signed_s3("GET", &format!("{host}/?lifecycle"), &[], b"");
    assert_eq!(signature(&lifecycle), "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
    let list = signed_s3("GET", &format!("{host}/?max-keys=2&prefix=J"), &[], b"");
    assert_eq!(signature(&list), "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
    for parts in [get, put, lifecycle, list] {
        assert_eq!(check(&parts, S3_TIME_UNIX_MS), Ok(()));
    }
}

/// The `ListUsers` example: no payload header, so that the hash is that of the body.
#[test]
fn the_iam_example_verifies_with_the_hash_of_its_body() {
    let authorization = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
        SignedHeaders=content-type;host;x-amz-date, \
        Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";
    let parts = parts(
        "GET",
        "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08",
        &[
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("host", "iam.amazonaws.com"),
            ("x-amz-date", "20150830T123600Z"),
            ("authorization", authorization),
        ],
    );
    let secret = SecretKey::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
    let (verifier, claim) = (Verifier::new("iam"), Claim::parse(&parts).unwrap());
    assert_eq!((claim.access_key(), claim.payload()), ("AKIDEXAMPLE", &PayloadClaim::Body));
    let verify = |body: Option<&[u8]>| {
        let hash = body.map(PayloadHash::of);
        verifier.verify(&parts, &claim, &secret, hash.as_ref(), IAM_TIME_UNIX_MS)
    };
    assert_eq!(verify(Some(b"")), Ok(()));
    assert_eq!(verify(Some(b"")), Ok(()), "the cached key verifies as well");
    assert_eq!(verify(Some(b"x")), Err(VerifyError::Mismatch));
    assert_eq!(verify(None), Err(VerifyError::Payload));
}

fn admin_request() -> Parts {
    signed_s3("POST", "http://127.0.0.1:9001/v1/buckets?force=1", &[("x-amz-meta-a", "b")], b"{}")
}

#[test]
fn tampering_after_signing_is_refused() {
    let intact = admin_request();
    assert_eq!(check(&intact, S3_TIME_UNIX_MS), Ok(()));

    let mut method = admin_request();
    method.method = Method::DELETE;
    let mut path = admin_request();
    path.uri = "http://127.0.0.1:9001/v1/users?force=1".parse().unwrap();
    let mut query = admin_request();
    query.uri = "http://127.0.0.1:9001/v1/buckets?force=0".parse().unwrap();
    let mut header = admin_request();
    header.headers.insert("x-amz-meta-a", HeaderValue::from_static("c"));
    let mut host = admin_request();
    host.headers.insert("host", HeaderValue::from_static("127.0.0.1:9999"));
    let mut payload = admin_request();
    payload.headers.insert("x-amz-content-sha256", PayloadHash::of(b"[]").to_string().parse().unwrap());
    let mut removed = admin_request();
    removed.headers.remove("x-amz-meta-a");
    for parts in [method, path, query, header, host, payload, removed] {
        assert_eq!(check(&parts, S3_TIME_UNIX_MS), Err(VerifyError::Mismatch));
    }
    assert_eq!(check_with(&intact, "another secret", S3_TIME_UNIX_MS), Err(VerifyError::Mismatch));
}

#[test]
fn a_header_added_unsigned_is_refused() {
    let mut parts = admin_request();
    parts.headers.insert("x-amz-acl", HeaderValue::from_static("public-read"));
    assert_eq!(check(&parts, S3_TIME_UNIX_MS), Err(VerifyError::Unsigned("x-amz-acl".to_owned())));
}

#[test]
fn a_body_other_than_the_signed_one_is_refused() {
    let parts = admin_request();
    let (verifier, claim, secret) = (Verifier::new("s3"), Claim::parse(&parts).unwrap(), SecretKey::new(S3_SECRET));
    let verify = |body: &[u8]| verifier.verify(&parts, &claim, &secret, Some(&PayloadHash::of(body)), S3_TIME_UNIX_MS);
    assert_eq!((verify(b"{}"), verify(b"{ }")), (Ok(()), Err(VerifyError::Payload)));
}

#[test]
fn fifteen_minutes_of_skew_pass_and_one_more_second_does_not() {
    let parts = admin_request();
    for now in [S3_TIME_UNIX_MS - SKEW_MS_MAX, S3_TIME_UNIX_MS + SKEW_MS_MAX] {
        assert_eq!(check(&parts, now), Ok(()));
    }
    for now in [S3_TIME_UNIX_MS - SKEW_MS_MAX - 1000, S3_TIME_UNIX_MS + SKEW_MS_MAX + 1000] {
        assert_eq!(check(&parts, now), Err(VerifyError::Skewed { skew_ms: SKEW_MS_MAX + 1000 }));
    }
}

#[test]
fn another_service_and_unsigned_payloads_are_refused_unless_allowed() {
    let parts = admin_request();
    let (claim, secret) = (Claim::parse(&parts).unwrap(), SecretKey::new(S3_SECRET));
    assert!(matches!(
        Verifier::new("meridian").verify(&parts, &claim, &secret, None, S3_TIME_UNIX_MS),
        Err(VerifyError::Service { .. })
    ));
    let mut unsigned = admin_request();
    unsigned.headers.insert("x-amz-content-sha256", HeaderValue::from_static("UNSIGNED-PAYLOAD"));
    let claim = Claim::parse(&unsigned).unwrap();
    let strict = Verifier::new("s3").verify(&unsigned, &claim, &secret, None, S3_TIME_UNIX_MS);
    let lax = Verifier::new("s3").allow_unsigned_payload().verify(&unsigned, &claim, &secret, None, S3_TIME_UNIX_MS);
    assert_eq!((strict, lax), (Err(VerifyError::Payload), Err(VerifyError::Mismatch)));
}

#[test]
fn malformed_headers_are_named() {
    let with = |authorization: &str| {
        let mut parts = admin_request();
        parts.headers.insert(AUTHORIZATION, authorization.parse().unwrap());
        Claim::parse(&parts).map(|_| ())
    };
    let good = admin_request().headers[AUTHORIZATION].to_str().unwrap().to_owned();
    assert_eq!(with(&good), Ok(()));
    for bad in [
        "",
        "AWS AKID:signature",
        "Bearer x",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=a/20130524/r/s3/aws4_request",
        &good.replace("aws4_request", "aws5_request"),
        &good.replace("SignedHeaders=host", "SignedHeaders=Host"),
        &good.replace("host;", "host;host;"),
        &good.replace("Signature=", "Signature=00"),
        &format!("{good}, Signature=00"),
        &good.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
    ] {
        assert_eq!(with(bad), Err(VerifyError::Malformed), "{bad:?}");
    }
    assert_eq!(with(&good.replace("20130524", "20130525")), Err(VerifyError::Date));

    let mut missing = admin_request();
    missing.headers.remove(AUTHORIZATION);
    assert_eq!(Claim::parse(&missing).map(|_| ()), Err(VerifyError::Missing));
    let mut twice = admin_request();
    twice.headers.append("x-amz-date", HeaderValue::from_static("20130524T000000Z"));
    assert_eq!(Claim::parse(&twice).map(|_| ()), Err(VerifyError::Date));
}

proptest! {
    #[test]
    fn what_is_signed_verifies_and_any_flipped_hex_digit_does_not(
        path in "[a-zA-Z0-9/._~-]{0,20}", value in "[ -~]{0,20}", digit in 0usize..64,
    ) {
        let uri = format!("http://localhost:9001/{path}");
        let mut parts = signed_s3("GET", &uri, &[("x-amz-meta-v", &value)], b"");
        prop_assert_eq!(check(&parts, S3_TIME_UNIX_MS), Ok(()));
        let text = parts.headers[AUTHORIZATION].to_str().unwrap().to_owned();
        let at = text.len() - 64 + digit;
        let flipped = if text.as_bytes()[at] == b'0' { "1" } else { "0" };
        let tampered = format!("{}{flipped}{}", &text[..at], &text[at + 1..]);
        parts.headers.insert(AUTHORIZATION, tampered.parse().unwrap());
        prop_assert_eq!(check(&parts, S3_TIME_UNIX_MS), Err(VerifyError::Mismatch));
    }

    #[test]
    fn any_header_is_parsed_or_refused(text in "[ -~]{0,200}") {
        let mut parts = admin_request();
        parts.headers.insert(AUTHORIZATION, text.parse().unwrap());
        let _ = Claim::parse(&parts);
    }
}
