//! Lifecycle documents as the rules that the store carries out, and what the owner of an object is told of them.
//!
//! Invariants: only rules that are enabled; a document that can't be read has none, and says so in the log.

use meridian_object::{
    BucketRow, DocumentKind, Expiry, LifecycleFilter, LifecycleRule, NoncurrentExpiry, ObjectInfo, expiry_of,
};
use s3s::dto;

use crate::document_xml::from_text;
use crate::wire_values::{http_date, unix_ms};

const DAY_MS: u64 = 24 * 3600 * 1000;

/// The enabled rules of a document.
pub fn lifecycle_rules(text: &str) -> Vec<LifecycleRule> {
    match from_text::<dto::BucketLifecycleConfiguration>(text) {
        Ok(document) => document.rules.iter().filter(|rule| rule.status.as_str() == "Enabled").map(rule_of).collect(),
        Err(failure) => {
            tracing::error!(%failure, "a lifecycle document at rest can't be read, and so does nothing");
            Vec::new()
        }
    }
}

fn rule_of(rule: &dto::LifecycleRule) -> LifecycleRule {
    let days = |days: Option<i32>| days.and_then(|days| u32::try_from(days).ok());
    let expiration = rule.expiration.as_ref();
    let by_days = expiration.and_then(|it| days(it.days)).map(Expiry::Days);
    let by_date = || expiration.and_then(|it| it.date.as_ref()).map(|date| Expiry::At(unix_ms(date)));
    let abort = rule.abort_incomplete_multipart_upload.as_ref();
    LifecycleRule {
        id: rule.id.clone().unwrap_or_default(),
        filter: filter_of(rule),
        expiration: by_days.or_else(by_date),
        lone_markers: expiration.is_some_and(|it| it.expired_object_delete_marker == Some(true)),
        noncurrent: rule.noncurrent_version_expiration.as_ref().map(|it| NoncurrentExpiry {
            days: days(it.noncurrent_days).unwrap_or(0),
            keep: days(it.newer_noncurrent_versions).unwrap_or(0),
        }),
        abort_days: abort.and_then(|it| days(it.days_after_initiation)),
    }
}

fn filter_of(rule: &dto::LifecycleRule) -> LifecycleFilter {
    let size = |size: Option<i64>| size.and_then(|size| u64::try_from(size).ok());
    let pair = |tag: &dto::Tag| (tag.key.clone().unwrap_or_default(), tag.value.clone().unwrap_or_default());
    let Some(filter) = &rule.filter else {
        return LifecycleFilter { prefix: rule.prefix.clone().unwrap_or_default(), ..LifecycleFilter::default() };
    };
    match &filter.and {
        Some(and) => LifecycleFilter {
            prefix: and.prefix.clone().unwrap_or_default(),
            tags: and.tags.iter().flatten().map(pair).collect(),
            size_above: size(and.object_size_greater_than),
            size_below: size(and.object_size_less_than),
        },
        None => LifecycleFilter {
            prefix: filter.prefix.clone().unwrap_or_default(),
            tags: filter.tag.iter().map(pair).collect(),
            size_above: size(filter.object_size_greater_than),
            size_below: size(filter.object_size_less_than),
        },
    }
}

/// `x-amz-expiration` of a current version: when it expires and by which rule. It counts real days.
pub(crate) fn expiration_header(bucket: Option<&BucketRow>, info: &ObjectInfo) -> Option<String> {
    let tags = &info.attributes.tags;
    expiration_of(bucket?, info.key.as_str(), info.size, tags, info.last_modified_unix_ms)
}

/// The same for a version that has just been written.
pub(crate) fn expiration_of(
    bucket: &BucketRow,
    key: &str,
    size: u64,
    tags: &[(String, String)],
    written_unix_ms: u64,
) -> Option<String> {
    let rules = lifecycle_rules(bucket.settings.document(DocumentKind::Lifecycle)?);
    let (at, id) = expiry_of(&rules, key, size, tags, written_unix_ms)?;
    Some(format!("expiry-date=\"{}\", rule-id=\"{id}\"", http_date(at)))
}

/// When an upload is given up if it is not complete by then, and by which rule: at the midnight that ends its last day.
pub(crate) fn abort_of(bucket: &BucketRow, key: &str, initiated_unix_ms: u64) -> Option<(u64, String)> {
    let rules = lifecycle_rules(bucket.settings.document(DocumentKind::Lifecycle)?);
    abort_by(&rules, key, initiated_unix_ms)
}

fn abort_by(rules: &[LifecycleRule], key: &str, initiated_unix_ms: u64) -> Option<(u64, String)> {
    let rules = rules.iter().filter(|rule| key.starts_with(&rule.filter.prefix));
    let (days, id) = rules.filter_map(|rule| Some((rule.abort_days?, rule.id.clone()))).min()?;
    let at = initiated_unix_ms.saturating_add(u64::from(days) * DAY_MS);
    Some((at.div_ceil(DAY_MS) * DAY_MS, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enabled_rules_are_read_whole() {
        let text = "<LifecycleConfiguration>\
            <Rule><ID>a</ID><Status>Enabled</Status><Filter><And><Prefix>p/</Prefix><Tag><Key>k</Key><Value>v</Value></Tag>\
            <ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></And></Filter><Expiration><Days>3</Days></Expiration>\
            <NoncurrentVersionExpiration><NoncurrentDays>2</NoncurrentDays>\
            <NewerNoncurrentVersions>4</NewerNoncurrentVersions></NoncurrentVersionExpiration></Rule>\
            <Rule><ID>b</ID><Status>Disabled</Status><Prefix/><Expiration><Days>1</Days></Expiration></Rule>\
            <Rule><ID>c</ID><Status>Enabled</Status><Prefix>q</Prefix>\
            <Expiration><Date>1970-01-03T00:00:00Z</Date></Expiration></Rule>\
            <Rule><ID>d</ID><Status>Enabled</Status><Filter/>\
            <Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>\
            <AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation>\
            </AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>";
        let rules = lifecycle_rules(text);
        assert_eq!(rules.iter().map(|rule| rule.id.as_str()).collect::<Vec<_>>(), ["a", "c", "d"]);
        assert_eq!(
            rules[0].filter,
            LifecycleFilter {
                prefix: "p/".to_owned(),
                tags: vec![("k".to_owned(), "v".to_owned())],
                size_above: Some(5),
                size_below: None,
            }
        );
        assert_eq!(rules[0].expiration, Some(Expiry::Days(3)));
        assert_eq!(rules[0].noncurrent, Some(NoncurrentExpiry { days: 2, keep: 4 }));
        assert_eq!((rules[1].filter.prefix.as_str(), rules[1].expiration), ("q", Some(Expiry::At(2 * 86_400_000))));
        assert!(rules[2].lone_markers && rules[2].expiration.is_none() && rules[2].abort_days == Some(7));
        assert!(lifecycle_rules("<a").is_empty());
        assert_eq!(abort_by(&rules, "k", 5), Some((8 * DAY_MS, "d".to_owned())), "the seventh day is over");
        assert_eq!(abort_by(&rules[..2], "k", 5), None);
    }
}
