//! Conditions and ranges, from their headers to the words of `meridian-object`.

use meridian_object::{Condition, EtagMatch, Preconditions, RangeSpec};
use s3s::S3Result;
use s3s::dto::{ETag, ETagCondition, Range, Timestamp};

use crate::errors::{invalid_argument, not_implemented};
use crate::wire_values::unix_ms;

/// The headers of a conditional read, or of a copy's source.
#[derive(Default)]
pub(crate) struct ReadConditions {
    pub if_match: Option<ETagCondition>,
    pub if_none_match: Option<ETagCondition>,
    pub if_modified_since: Option<Timestamp>,
    pub if_unmodified_since: Option<Timestamp>,
}

impl From<ReadConditions> for Preconditions {
    fn from(conditions: ReadConditions) -> Self {
        Self {
            if_match: conditions.if_match.map(etag_match),
            if_none_match: conditions.if_none_match.map(etag_match),
            if_modified_since_unix_ms: conditions.if_modified_since.as_ref().map(unix_ms),
            if_unmodified_since_unix_ms: conditions.if_unmodified_since.as_ref().map(unix_ms),
        }
    }
}

fn etag_match(condition: ETagCondition) -> EtagMatch {
    match condition {
        ETagCondition::Any => EtagMatch::Any,
        ETagCondition::ETag(etag) => EtagMatch::OneOf(listed(&etag)),
    }
}

/// s3s takes `"a", "b"` for one ETag with quotes inside; RFC 9110 says it is a list.
fn listed(etag: &ETag) -> Vec<String> {
    let trimmed = |part: &str| part.trim().trim_start_matches("W/").trim_matches('"').to_owned();
    etag.value().split("\",").map(trimmed).collect()
}

/// The condition of a write.
///
/// # Errors
/// `NotImplemented` for `If-None-Match` with an ETag, as S3; `InvalidArgument` for both conditions at once.
pub(crate) fn write_condition(
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
) -> S3Result<Condition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Condition::None),
        (None, Some(ETagCondition::Any)) => Ok(Condition::Absent),
        (None, Some(ETagCondition::ETag(_))) => Err(not_implemented("If-None-Match with an ETag on a write")),
        (Some(ETagCondition::Any), None) => Ok(Condition::Etag("*".to_owned())),
        (Some(ETagCondition::ETag(etag)), None) => Ok(Condition::Etag(etag.into_value())),
        (Some(_), Some(_)) => Err(invalid_argument("If-Match", "excludes If-None-Match")),
    }
}

pub(crate) fn range_spec(range: Range) -> RangeSpec {
    match range {
        Range::Int { first, last } => RangeSpec::FromTo(first, last),
        Range::Suffix { length } => RangeSpec::Suffix(length),
    }
}

/// `x-amz-copy-source-range`, which must name both ends (S3).
///
/// # Errors
/// `InvalidArgument` for any other form.
pub(crate) fn copy_range(text: &str) -> S3Result<RangeSpec> {
    match Range::parse(text) {
        Ok(Range::Int { first, last: Some(last) }) => Ok(RangeSpec::FromTo(first, Some(last))),
        _ => Err(invalid_argument("x-amz-copy-source-range", "must have the form bytes=first-last")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(header: &str) -> ETagCondition {
        ETagCondition::parse_http_header(header.as_bytes()).unwrap()
    }

    fn one_of(etags: &[&str]) -> EtagMatch {
        EtagMatch::OneOf(etags.iter().map(|etag| (*etag).to_owned()).collect())
    }

    #[test]
    fn etags_lose_their_quotes_and_lists_are_lists() {
        for (header, expected) in [
            ("*", EtagMatch::Any),
            ("\"abc\"", one_of(&["abc"])),
            ("abc-2", one_of(&["abc-2"])),
            ("\"a\", \"b\",W/\"c\"", one_of(&["a", "b", "c"])),
        ] {
            assert_eq!(etag_match(condition(header)), expected, "{header}");
        }
    }

    #[test]
    fn writes_take_one_condition() {
        let write = |if_match: Option<&str>, if_none_match: Option<&str>| {
            write_condition(if_match.map(condition), if_none_match.map(condition))
        };
        assert_eq!(write(None, None).unwrap(), Condition::None);
        assert_eq!(write(None, Some("*")).unwrap(), Condition::Absent);
        assert_eq!(write(Some("\"a\""), None).unwrap(), Condition::Etag("a".to_owned()));
        assert_eq!(write(Some("*"), None).unwrap(), Condition::Etag("*".to_owned()));
        assert_eq!(write(None, Some("\"a\"")).unwrap_err().code().as_str(), "NotImplemented");
        assert_eq!(write(Some("\"a\""), Some("*")).unwrap_err().code().as_str(), "InvalidArgument");
    }

    #[test]
    fn ranges_keep_their_form() {
        assert_eq!(range_spec(Range::parse("bytes=0-4").unwrap()), RangeSpec::FromTo(0, Some(4)));
        assert_eq!(range_spec(Range::parse("bytes=5-").unwrap()), RangeSpec::FromTo(5, None));
        assert_eq!(range_spec(Range::parse("bytes=-5").unwrap()), RangeSpec::Suffix(5));
        assert_eq!(copy_range("bytes=0-9").unwrap(), RangeSpec::FromTo(0, Some(9)));
        for bad in ["bytes=5-", "bytes=-5", "0-9", "bytes=9-0", ""] {
            assert!(copy_range(bad).is_err(), "{bad:?}");
        }
    }
}
