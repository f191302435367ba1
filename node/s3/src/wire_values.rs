//! Small values between the wire and the inside: names, ETags, times, numbers, opaque tokens.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use meridian_types::{BucketName, ObjectKey, UploadId};
use s3s::dto::{ETag, Timestamp, TimestampFormat};
use s3s::{S3Error, S3Result};

use crate::errors::{invalid_argument, name_error, no_such_upload};

/// First byte of every token, so that a later form is told apart from a wrong one.
const TOKEN_VERSION: u8 = b'1';

pub(crate) fn bucket_name(text: &str) -> S3Result<BucketName> {
    text.parse().map_err(|error| name_error(&error))
}

pub(crate) fn object_key(text: &str) -> S3Result<ObjectKey> {
    text.parse().map_err(|error| name_error(&error))
}

/// An id that is none is an upload that does not exist.
pub(crate) fn upload_id(text: &str) -> S3Result<UploadId> {
    text.parse().map_err(|_| no_such_upload())
}

/// Inside ETags have no quotes; s3s adds them on the wire.
pub(crate) fn etag(inside: &str) -> ETag {
    ETag::Strong(inside.to_owned())
}

pub(crate) fn timestamp(unix_ms: u64) -> Timestamp {
    Timestamp::from(UNIX_EPOCH + Duration::from_millis(unix_ms))
}

/// `Sun, 30 Aug 2015 12:36:00 GMT`
pub(crate) fn http_date(unix_ms: u64) -> String {
    format_timestamp(&timestamp(unix_ms), TimestampFormat::HttpDate).unwrap_or_default()
}

pub(crate) fn format_timestamp(timestamp: &Timestamp, format: TimestampFormat) -> Option<String> {
    let mut text = Vec::new();
    timestamp.format(format, &mut text).ok()?;
    String::from_utf8(text).ok()
}

/// Milliseconds since 1970; earlier times count as 1970.
pub(crate) fn unix_ms(timestamp: &Timestamp) -> u64 {
    let text = format_timestamp(timestamp, TimestampFormat::EpochSeconds).unwrap_or_default();
    let seconds: f64 = text.parse().unwrap_or_default();
    (seconds * 1000.0).round().max(0.0) as u64
}

/// A count that a client may set: 0..=`max`, cut to it; `max` when absent.
///
/// # Errors
/// `InvalidArgument` for negative ones.
pub(crate) fn page_size(name: &'static str, value: Option<i32>, max: usize) -> S3Result<usize> {
    let Some(value) = value else { return Ok(max) };
    let value = usize::try_from(value).map_err(|_| invalid_argument(name, "must not be negative"))?;
    Ok(value.min(max))
}

/// A part number on the wire.
///
/// # Errors
/// `InvalidArgument` outside of 1..=10000.
pub(crate) fn part_number(value: i32) -> S3Result<u16> {
    let valid =
        u16::try_from(value).ok().filter(|number| (1..=meridian_types::limits::PART_NUMBER_MAX).contains(number));
    valid.ok_or_else(|| invalid_argument("partNumber", "must be an integer between 1 and 10000, inclusive"))
}

/// Hides `text` from clients, who would otherwise build such tokens themselves.
pub(crate) fn token(text: &str) -> String {
    let mut bytes = vec![TOKEN_VERSION];
    bytes.extend_from_slice(text.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn open_token(token: &str) -> S3Result<String> {
    let refused = || -> S3Error { invalid_argument("continuation-token", "the token provided is incorrect") };
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| refused())?;
    match bytes.split_first() {
        Some((&TOKEN_VERSION, text)) => String::from_utf8(text.to_vec()).map_err(|_| refused()),
        _ => Err(refused()),
    }
}

/// `encoding-type=url`: all but unreserved characters and the slash are percent-encoded.
pub(crate) fn url_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => encoded.push(byte as char),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_keep_their_milliseconds() {
        assert_eq!(unix_ms(&timestamp(1_440_938_160_123)), 1_440_938_160_123);
        assert_eq!(http_date(1_440_938_160_999), "Sun, 30 Aug 2015 12:36:00 GMT");
        let date = Timestamp::parse(TimestampFormat::HttpDate, "Sun, 30 Aug 2015 12:36:00 GMT").unwrap();
        assert_eq!(unix_ms(&date), 1_440_938_160_000);
        let early = Timestamp::parse(TimestampFormat::HttpDate, "Wed, 01 Jan 1969 00:00:00 GMT").unwrap();
        assert_eq!(unix_ms(&early), 0);
    }

    #[test]
    fn page_sizes_and_part_numbers_are_checked() {
        assert_eq!(page_size("max-keys", None, 1000).unwrap(), 1000);
        assert_eq!(page_size("max-keys", Some(0), 1000).unwrap(), 0);
        assert_eq!(page_size("max-keys", Some(i32::MAX), 1000).unwrap(), 1000);
        assert!(page_size("max-keys", Some(-1), 1000).is_err());
        assert_eq!((part_number(1).unwrap(), part_number(10_000).unwrap()), (1, 10_000));
        assert!([0, -1, 10_001, i32::MAX].iter().all(|number| part_number(*number).is_err()));
    }

    #[test]
    fn keys_are_encoded_as_s3_does() {
        assert_eq!(url_encode("foo+1/bar"), "foo%2B1/bar");
        assert_eq!(url_encode("quux ab/thud"), "quux%20ab/thud");
        assert_eq!(url_encode("é\u{1}~"), "%C3%A9%01~");
    }

    #[test]
    fn foreign_tokens_are_refused() {
        for text in ["x", "MQ==", "Mg", "!", "a key"] {
            assert!(open_token(text).is_err(), "{text:?} opened");
        }
        assert_eq!(open_token("MQ").unwrap(), "");
    }

    proptest! {
        #[test]
        fn tokens_round_trip_and_show_nothing_of_a_key(text in "\\PC{1,40}") {
            let opaque = token(&text);
            prop_assert_eq!(open_token(&opaque).unwrap(), text);
            prop_assert!(opaque.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
        }

        #[test]
        fn any_token_is_opened_or_refused(text in ".{0,60}") {
            let _ = open_token(&text);
        }
    }
}
