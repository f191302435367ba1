//! Preconditions of reads and the ranges they ask for (RFC 9110 §13.2.2 and §14; S3 GetObject).
//!
//! Invariants: If-Match takes precedence over If-Unmodified-Since, If-None-Match over If-Modified-Since; times compare
//! to the second, as HTTP dates do.

use std::ops::Range;

use crate::ObjectError;

/// The value of an If-Match or If-None-Match header; ETags without quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EtagMatch {
    /// `*`
    Any,
    OneOf(Vec<String>),
}

/// Conditions on the object that is read; times in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preconditions {
    pub if_match: Option<EtagMatch>,
    pub if_none_match: Option<EtagMatch>,
    pub if_modified_since_unix_ms: Option<u64>,
    pub if_unmodified_since_unix_ms: Option<u64>,
}

/// A single byte range, as a Range header gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeSpec {
    /// First byte and, inclusive, last byte: `bytes=5-9`, `bytes=5-`.
    FromTo(u64, Option<u64>),
    /// The last so many bytes: `bytes=-5`.
    Suffix(u64),
}

impl EtagMatch {
    fn matches(&self, etag: &str) -> bool {
        match self {
            EtagMatch::Any => true,
            EtagMatch::OneOf(etags) => etags.iter().any(|candidate| candidate == etag),
        }
    }
}

impl Preconditions {
    /// Judges something that a gateway made of an object, under a tag of its own.
    ///
    /// # Errors
    /// `PreconditionFailed` (412) or `NotModified` (304).
    pub fn judge(&self, etag: &str, last_modified_unix_ms: u64) -> Result<(), ObjectError> {
        self.check(etag, last_modified_unix_ms)
    }

    /// Judges an object that exists.
    ///
    /// # Errors
    /// `PreconditionFailed` (412) or `NotModified` (304).
    pub(crate) fn check(&self, etag: &str, last_modified_unix_ms: u64) -> Result<(), ObjectError> {
        let modified_after = |unix_ms: u64| last_modified_unix_ms / 1000 > unix_ms / 1000;
        match (&self.if_match, self.if_unmodified_since_unix_ms) {
            (Some(wanted), _) if !wanted.matches(etag) => return Err(ObjectError::PreconditionFailed("If-Match")),
            (None, Some(since)) if modified_after(since) => {
                return Err(ObjectError::PreconditionFailed("If-Unmodified-Since"));
            }
            _ => {}
        }
        let not_modified = match (&self.if_none_match, self.if_modified_since_unix_ms) {
            (Some(known), _) => known.matches(etag),
            (None, Some(since)) => !modified_after(since),
            (None, None) => false,
        };
        if not_modified {
            return Err(ObjectError::NotModified { etag: etag.to_owned(), last_modified_unix_ms });
        }
        Ok(())
    }

    /// The same for the source of a copy, where a 304 would make no sense (S3 CopyObject).
    pub(crate) fn check_source(&self, etag: &str, last_modified_unix_ms: u64) -> Result<(), ObjectError> {
        self.check(etag, last_modified_unix_ms).map_err(|error| match error {
            ObjectError::NotModified { .. } => ObjectError::PreconditionFailed("the copy source is not modified"),
            error => error,
        })
    }
}

impl RangeSpec {
    /// The bytes that it means of an object of `size` bytes; an end past the object is cut back.
    ///
    /// # Errors
    /// `InvalidRange` when no byte of the object lies in it.
    pub(crate) fn resolve(self, size: u64) -> Result<Range<u64>, ObjectError> {
        let range = match self {
            RangeSpec::FromTo(first, None) => first..size,
            RangeSpec::FromTo(first, Some(last)) => first..last.saturating_add(1).min(size),
            RangeSpec::Suffix(length) => size.saturating_sub(length)..size,
        };
        if range.is_empty() { Err(ObjectError::InvalidRange { size }) } else { Ok(range) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 1_700_000_000_000;

    fn etags(etags: &[&str]) -> Option<EtagMatch> {
        Some(EtagMatch::OneOf(etags.iter().map(|etag| (*etag).to_owned()).collect()))
    }

    fn answer(preconditions: &Preconditions) -> u16 {
        match preconditions.check("a", T + 500) {
            Ok(()) => 200,
            Err(ObjectError::NotModified { .. }) => 304,
            Err(ObjectError::PreconditionFailed(_)) => 412,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn if_match_takes_precedence_over_if_unmodified_since() {
        let old = Some(T - 10_000);
        let unmodified = Preconditions { if_unmodified_since_unix_ms: old, ..Default::default() };
        assert_eq!(answer(&unmodified), 412);
        assert_eq!(answer(&Preconditions { if_match: etags(&["a"]), ..unmodified.clone() }), 200);
        assert_eq!(answer(&Preconditions { if_match: Some(EtagMatch::Any), ..unmodified.clone() }), 200);
        assert_eq!(answer(&Preconditions { if_match: etags(&["b"]), ..Default::default() }), 412);
    }

    #[test]
    fn if_none_match_takes_precedence_over_if_modified_since() {
        let modified = Preconditions { if_modified_since_unix_ms: Some(T), ..Default::default() };
        assert_eq!(answer(&modified), 304);
        assert_eq!(answer(&Preconditions { if_none_match: etags(&["b"]), ..modified.clone() }), 200);
        assert_eq!(answer(&Preconditions { if_none_match: etags(&["b", "a"]), ..Default::default() }), 304);
        let changed = Preconditions { if_modified_since_unix_ms: Some(T - 10_000), ..Default::default() };
        assert_eq!(answer(&changed), 200);
        assert_eq!(answer(&Preconditions { if_none_match: etags(&["a"]), ..changed }), 304);
    }

    #[test]
    fn a_failed_if_match_comes_before_not_modified() {
        let both = Preconditions { if_match: etags(&["b"]), if_none_match: etags(&["a"]), ..Default::default() };
        assert_eq!(answer(&both), 412);
    }

    #[test]
    fn times_compare_to_the_second() {
        assert_eq!(answer(&Preconditions { if_unmodified_since_unix_ms: Some(T), ..Default::default() }), 200);
        assert_eq!(answer(&Preconditions { if_modified_since_unix_ms: Some(T), ..Default::default() }), 304);
    }

    #[test]
    fn a_copy_source_never_answers_not_modified() {
        let same = Preconditions { if_none_match: etags(&["a"]), ..Default::default() };
        assert!(matches!(same.check_source("a", T), Err(ObjectError::PreconditionFailed(_))));
    }

    #[test]
    fn ranges_are_cut_to_the_object() {
        let resolve = |spec: RangeSpec, size| spec.resolve(size).ok();
        assert_eq!(resolve(RangeSpec::FromTo(0, Some(0)), 10), Some(0..1));
        assert_eq!(resolve(RangeSpec::FromTo(5, None), 10), Some(5..10));
        assert_eq!(resolve(RangeSpec::FromTo(5, Some(u64::MAX)), 10), Some(5..10));
        assert_eq!(resolve(RangeSpec::Suffix(3), 10), Some(7..10));
        assert_eq!(resolve(RangeSpec::Suffix(30), 10), Some(0..10));
        for (spec, size) in [
            (RangeSpec::FromTo(10, None), 10),
            (RangeSpec::FromTo(11, Some(12)), 10),
            (RangeSpec::FromTo(5, Some(4)), 10),
            (RangeSpec::Suffix(0), 10),
            (RangeSpec::FromTo(0, None), 0),
            (RangeSpec::Suffix(5), 0),
        ] {
            assert!(matches!(spec.resolve(size), Err(ObjectError::InvalidRange { .. })), "{spec:?}");
        }
    }
}
