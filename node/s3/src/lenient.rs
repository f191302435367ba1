//! Headers of reads that S3 passes over when they make no sense: a range that is none or many, a date that is none. And
//! the date of a signature, which may stand in either of two headers.
//!
//! s3s refuses what it can't parse, after it has verified the signature. So a read with such a header is asked twice: the
//! first time for its signature and its right alone, the second time without the header and as the one who signed the
//! first. Requests that did not sign the header are asked once.
//!
//! Invariants: nothing is passed over in a request that changes anything; the second question is asked only by whom the
//! first one proved to be.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html>; RFC 9110 §13.1.3 and §14.2.

use http::header::{AUTHORIZATION, DATE, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, RANGE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use meridian_sigv4::{AmzDate, DATE_HEADER};
use s3s::dto::{Range, Timestamp, TimestampFormat};

use crate::wire_values::unix_ms;

/// The headers of a read that say nothing that S3 understands.
pub(crate) fn odd_headers(parts: &Parts) -> Vec<HeaderName> {
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Vec::new();
    }
    let is_odd = |name: &HeaderName| parts.headers.get(name).is_some_and(|value| !is_understood(name, value));
    [RANGE, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE].into_iter().filter(is_odd).collect()
}

fn is_understood(name: &HeaderName, value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    if name == RANGE {
        // s3s takes a suffix without a length for one of no bytes.
        return Range::parse(text).is_ok() && text.bytes().any(|byte| byte.is_ascii_digit());
    }
    Timestamp::parse(TimestampFormat::HttpDate, text).is_ok()
}

/// The moment in a `Date` header; botocore writes the zone as mail does.
pub(crate) fn date_of(value: &HeaderValue) -> Option<AmzDate> {
    let text = value.to_str().ok()?;
    let moment = [" GMT", " -0000", " +0000"].iter().find_map(|zone| text.strip_suffix(zone))?;
    let date = Timestamp::parse(TimestampFormat::HttpDate, &format!("{moment} GMT")).ok()?;
    AmzDate::from_unix_ms(unix_ms(&date)).ok()
}

/// A signature may be dated by `Date`; s3s reads `x-amz-date` alone, and this one is derived from what is signed.
pub(crate) fn date_signature(headers: &mut HeaderMap) {
    if !headers.contains_key(AUTHORIZATION) || headers.contains_key(DATE_HEADER) {
        return;
    }
    let date = headers.get(DATE).and_then(date_of);
    if let Some(value) = date.and_then(|date| HeaderValue::from_str(date.as_str()).ok()) {
        headers.insert(DATE_HEADER, value);
    }
}

/// Whether the request's signature covers one of these headers.
pub(crate) fn are_signed(parts: &Parts, names: &[HeaderName]) -> bool {
    let Some(authorization) = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let fields = authorization.split([',', ' ']).find_map(|field| field.trim().strip_prefix("SignedHeaders="));
    fields.is_some_and(|signed| signed.split(';').any(|name| names.iter().any(|odd| odd.as_str() == name)))
}

/// The same question without these headers; without its signature too, when that covered them.
pub(crate) fn without(mut parts: Parts, names: &[HeaderName]) -> Parts {
    if are_signed(&parts, names) {
        parts.headers.remove(AUTHORIZATION);
    }
    for name in names {
        parts.headers.remove(name);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn request(method: Method, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri("/b/k");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_s3_understands_is_kept() {
        for (name, value) in [
            ("range", "bytes=0-5"),
            ("range", "bytes=-5"),
            ("range", "bytes=5-"),
            ("if-modified-since", "Sun, 30 Aug 2015 12:36:00 GMT"),
            ("if-none-match", "nonsense"),
        ] {
            assert!(odd_headers(&request(Method::GET, &[(name, value)])).is_empty(), "{name}: {value}");
        }
    }

    #[test]
    fn ranges_and_dates_that_are_none_are_odd_in_reads_alone() {
        for (name, value) in [
            ("range", "bytes=x-"),
            ("range", "bytes=-"),
            ("range", "bytes=5-2"),
            ("range", "bytes=0-1,3-4"),
            ("range", "lines=1-2"),
            ("range", ""),
            ("if-modified-since", "yesterday"),
            ("if-unmodified-since", "2015-08-30"),
        ] {
            assert_eq!(odd_headers(&request(Method::HEAD, &[(name, value)])).len(), 1, "{name}: {value}");
            assert!(odd_headers(&request(Method::PUT, &[(name, value)])).is_empty());
        }
    }

    #[test]
    fn a_signature_is_dated_by_either_header() {
        let dated = |headers: &[(&str, &str)]| {
            let mut parts = request(Method::GET, headers);
            date_signature(&mut parts.headers);
            parts.headers.get(DATE_HEADER).map(|value| value.to_str().unwrap().to_owned())
        };
        let date = ("date", "Sun, 30 Aug 2015 12:36:00 GMT");
        assert_eq!(dated(&[("authorization", "x"), date]).as_deref(), Some("20150830T123600Z"));
        let by_mail = ("date", "Sun, 30 Aug 2015 12:36:00 -0000");
        assert_eq!(dated(&[("authorization", "x"), by_mail]).as_deref(), Some("20150830T123600Z"));
        assert_eq!(dated(&[("authorization", "x"), date, ("x-amz-date", "y")]).as_deref(), Some("y"));
        assert_eq!(dated(&[date]), None);
        assert_eq!(dated(&[("authorization", "x"), ("date", "yesterday")]), None);
    }

    #[test]
    fn a_signature_goes_with_the_header_that_it_covers() {
        let signed = "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host;range;x-amz-date, Signature=c";
        let parts = request(Method::GET, &[("authorization", signed), ("range", "x"), ("if-modified-since", "y")]);
        assert!(are_signed(&parts, &[RANGE]) && !are_signed(&parts, &[IF_MODIFIED_SINCE]));
        let kept = without(parts.clone(), &[IF_MODIFIED_SINCE]);
        assert!(kept.headers.contains_key(AUTHORIZATION) && !kept.headers.contains_key(IF_MODIFIED_SINCE));
        let dropped = without(parts, &[RANGE]);
        assert!(!dropped.headers.contains_key(AUTHORIZATION) && !dropped.headers.contains_key(RANGE));
    }
}
