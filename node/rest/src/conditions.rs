//! Conditional and range headers of a read (RFC 9110 §13 and §14). What can't be understood is passed over, as the RFC says.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use axum::http::header::{self, HeaderName};
use meridian_object::{EtagMatch, Preconditions, RangeSpec};

pub(crate) fn preconditions(headers: &HeaderMap) -> Preconditions {
    let etags = |name: HeaderName| etag_match(headers.get_all(name).iter().filter_map(|value| value.to_str().ok()));
    let time = |name| headers.get(name).and_then(|value| unix_ms(value.to_str().ok()?));
    Preconditions {
        if_match: etags(header::IF_MATCH),
        if_none_match: etags(header::IF_NONE_MATCH),
        if_modified_since_unix_ms: time(header::IF_MODIFIED_SINCE),
        if_unmodified_since_unix_ms: time(header::IF_UNMODIFIED_SINCE),
    }
}

/// One range. Several are answered with the whole, which the RFC allows.
pub(crate) fn range(headers: &HeaderMap) -> Option<RangeSpec> {
    let text = headers.get(header::RANGE)?.to_str().ok()?;
    let (unit, spec) = text.split_once('=')?;
    let (first, last) = spec.trim().split_once('-').filter(|_| unit.trim().eq_ignore_ascii_case("bytes"))?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    match (first.trim(), last.trim()) {
        ("", last) => Some(RangeSpec::Suffix(number(last)?)),
        (first, "") => Some(RangeSpec::FromTo(number(first)?, None)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(RangeSpec::FromTo(first, Some(last)))
        }
    }
}

pub(crate) fn http_date(unix_ms: u64) -> String {
    // Later than any calendar: the last second that the form has.
    let seconds = (unix_ms / 1000).min(253_402_300_799);
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn unix_ms(text: &str) -> Option<u64> {
    let time: SystemTime = httpdate::parse_http_date(text).ok()?;
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

fn etag_match<'a>(values: impl Iterator<Item = &'a str>) -> Option<EtagMatch> {
    let mut etags = Vec::new();
    for etag in values.flat_map(|value| value.split(',')).map(str::trim) {
        if etag == "*" {
            return Some(EtagMatch::Any);
        }
        // Weak tags compare like strong ones where this is allowed, and blobs have only strong ones.
        let etag = etag.strip_prefix("W/").unwrap_or(etag);
        etags.push(etag.trim_matches('"').to_owned());
    }
    (!etags.is_empty()).then_some(EtagMatch::OneOf(etags))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn one_range_of_bytes_is_understood() {
        let range = |text| range(&headers(header::RANGE, text));
        assert_eq!(range("bytes=5-9"), Some(RangeSpec::FromTo(5, Some(9))));
        assert_eq!(range("bytes=5-"), Some(RangeSpec::FromTo(5, None)));
        assert_eq!(range("Bytes = -5"), Some(RangeSpec::Suffix(5)));
        for text in ["bytes=9-5", "bytes=1-2,4-5", "rows=1-2", "bytes=+1-2", "bytes", "bytes=a-b"] {
            assert_eq!(range(text), None, "{text}");
        }
    }

    #[test]
    fn etags_and_dates_are_understood() {
        let found = preconditions(&headers(header::IF_NONE_MATCH, "\"a\", W/\"b\""));
        assert_eq!(found.if_none_match, Some(EtagMatch::OneOf(vec!["a".into(), "b".into()])));
        assert_eq!(preconditions(&headers(header::IF_MATCH, "*")).if_match, Some(EtagMatch::Any));
        let date = http_date(784_111_777_999);
        assert_eq!(date, "Sun, 06 Nov 1994 08:49:37 GMT");
        let found = preconditions(&headers(header::IF_MODIFIED_SINCE, &date));
        assert_eq!(found.if_modified_since_unix_ms, Some(784_111_777_000));
        assert_eq!(preconditions(&headers(header::IF_MODIFIED_SINCE, "yesterday")), Preconditions::default());
        assert_eq!(http_date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
