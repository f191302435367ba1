//! Lifecycle configurations: checked as S3 checks them, and given an id where a rule has none.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketLifecycleConfiguration.html>

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use s3s::dto;
use s3s::dto::TimestampFormat;
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::bucket_documents::{check_tag_texts, malformed};
use crate::document_xml::to_text;
use crate::errors::{error, invalid_request};
use crate::wire_values::format_timestamp;

/// Most rules of one configuration (S3).
const RULES_MAX: usize = 1000;
/// Longest id of a rule, in characters (S3).
const ID_LENGTH_MAX: usize = 255;
/// Most versions that a rule may keep beyond the current one (S3).
const NEWER_VERSIONS_MAX: i32 = 100;
/// Least age of an object that goes to a class of infrequent access, in days (S3).
const INFREQUENT_DAYS_MIN: i32 = 30;
/// Most tags of one filter.
const FILTER_TAGS_MAX: usize = 10;

/// # Errors
/// `MalformedXML`, `InvalidArgument`, `InvalidRequest`, as S3 answers.
pub(crate) fn checked_lifecycle(
    mut lifecycle: dto::BucketLifecycleConfiguration,
) -> S3Result<dto::BucketLifecycleConfiguration> {
    if lifecycle.rules.is_empty() || lifecycle.rules.len() > RULES_MAX {
        return Err(malformed());
    }
    let mut ids = HashSet::new();
    for rule in &mut lifecycle.rules {
        check_rule(rule)?;
        let id = match rule.id.take().filter(|id| !id.is_empty()) {
            Some(id) => id,
            None => made_id(rule)?,
        };
        if id.chars().count() > ID_LENGTH_MAX {
            return Err(invalid("ID length should not exceed allowed limit of 255"));
        }
        if !ids.insert(id.clone()) {
            return Err(invalid("Rule ID must be unique. Found same ID for more than one rule"));
        }
        rule.id = Some(id);
    }
    Ok(lifecycle)
}

fn check_rule(rule: &dto::LifecycleRule) -> S3Result<()> {
    if !matches!(rule.status.as_str(), "Enabled" | "Disabled") {
        return Err(malformed());
    }
    let (tagged, sized) = check_filter(rule)?;
    let acts = rule.expiration.is_some()
        || rule.noncurrent_version_expiration.is_some()
        || rule.abort_incomplete_multipart_upload.is_some()
        || rule.transitions.as_ref().is_some_and(|transitions| !transitions.is_empty())
        || rule.noncurrent_version_transitions.as_ref().is_some_and(|transitions| !transitions.is_empty());
    if !acts {
        return Err(invalid_request("At least one action needs to be specified in a rule"));
    }
    if let Some(expiration) = &rule.expiration {
        check_expiration(expiration)?;
        if expiration.expired_object_delete_marker.is_some() && tagged {
            return Err(invalid_request("ExpiredObjectDeleteMarker cannot be specified with Tags"));
        }
    }
    if let Some(noncurrent) = &rule.noncurrent_version_expiration {
        if noncurrent.noncurrent_days.is_none() && noncurrent.newer_noncurrent_versions.is_none() {
            return Err(malformed());
        }
        positive("NoncurrentDays for NoncurrentVersionExpiration", noncurrent.noncurrent_days)?;
        if noncurrent.newer_noncurrent_versions.is_some_and(|count| !(1..=NEWER_VERSIONS_MAX).contains(&count)) {
            return Err(invalid("NewerNoncurrentVersions must be between 1 and 100"));
        }
    }
    if let Some(abort) = &rule.abort_incomplete_multipart_upload {
        if tagged || sized {
            return Err(invalid_request("AbortIncompleteMultipartUpload cannot be specified with Tags or sizes"));
        }
        match abort.days_after_initiation {
            None => return Err(malformed()),
            days => positive("DaysAfterInitiation for AbortIncompleteMultipartUpload", days)?,
        }
    }
    check_transitions(rule)
}

/// Whether the filter names tags, and sizes.
fn check_filter(rule: &dto::LifecycleRule) -> S3Result<(bool, bool)> {
    let Some(filter) = &rule.filter else {
        return if rule.prefix.is_some() { Ok((false, false)) } else { Err(malformed()) };
    };
    if rule.prefix.is_some() {
        return Err(malformed());
    }
    let given = [
        filter.prefix.is_some(),
        filter.tag.is_some(),
        filter.and.is_some(),
        filter.object_size_greater_than.is_some(),
        filter.object_size_less_than.is_some(),
    ];
    if given.iter().filter(|given| **given).count() > 1 {
        return Err(malformed());
    }
    let mut tags: Vec<&dto::Tag> = filter.tag.iter().collect();
    let (mut above, mut below) = (filter.object_size_greater_than, filter.object_size_less_than);
    if let Some(and) = &filter.and {
        tags.extend(and.tags.iter().flatten());
        (above, below) = (and.object_size_greater_than, and.object_size_less_than);
    }
    let pair = |tag: &&dto::Tag| Some((tag.key.clone()?, tag.value.clone()?));
    let pairs: Option<Vec<(String, String)>> = tags.iter().map(pair).collect();
    check_tag_texts(&pairs.ok_or_else(malformed)?, FILTER_TAGS_MAX)?;
    if above.is_some_and(|size| size < 0) || below.is_some_and(|size| size < 1) {
        return Err(invalid("ObjectSize must be positive"));
    }
    if let (Some(above), Some(below)) = (above, below)
        && above >= below
    {
        return Err(invalid("ObjectSizeLessThan has to be a value greater than ObjectSizeGreaterThan"));
    }
    Ok((!tags.is_empty(), above.is_some() || below.is_some()))
}

fn check_expiration(expiration: &dto::LifecycleExpiration) -> S3Result<()> {
    let given =
        [expiration.days.is_some(), expiration.date.is_some(), expiration.expired_object_delete_marker.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        return Err(malformed());
    }
    positive("Days for Expiration action", expiration.days)?;
    expiration.date.as_ref().map_or(Ok(()), |date| check_midnight("Date", date))
}

fn check_transitions(rule: &dto::LifecycleRule) -> S3Result<()> {
    let mut classes = HashSet::new();
    for transition in rule.transitions.iter().flatten() {
        let class = transition.storage_class.as_ref().ok_or_else(malformed)?;
        check_class(class.as_str())?;
        if !classes.insert(class.as_str()) {
            let text =
                format!("'StorageClass' must be different for 'Transition' actions in same 'Rule': {}", class.as_str());
            return Err(invalid_request(text));
        }
        match (transition.days, &transition.date) {
            (Some(days), None) if days < 0 => return Err(invalid("'Days' for Transition action must be nonnegative")),
            (Some(days), None) if days < INFREQUENT_DAYS_MIN && is_infrequent(class.as_str()) => {
                return Err(invalid(&format!(
                    "'Days' in Transition action must be greater than or equal to {INFREQUENT_DAYS_MIN} for storageClass '{}'",
                    class.as_str()
                )));
            }
            (Some(_), None) => {}
            (None, Some(date)) => check_midnight("Date", date)?,
            _ => return Err(malformed()),
        }
        if let (Some(days), Some(expires)) = (transition.days, rule.expiration.as_ref().and_then(|one| one.days))
            && days >= expires
        {
            let text = "'Days' in the Expiration action must be greater than 'Days' in the Transition action";
            return Err(invalid(text));
        }
    }
    for transition in rule.noncurrent_version_transitions.iter().flatten() {
        check_class(transition.storage_class.as_ref().ok_or_else(malformed)?.as_str())?;
        if transition.noncurrent_days.is_none_or(|days| days < 0) {
            return Err(invalid("'NoncurrentDays' for NoncurrentVersionTransition action must be nonnegative"));
        }
    }
    Ok(())
}

fn is_infrequent(class: &str) -> bool {
    matches!(class, "STANDARD_IA" | "ONEZONE_IA")
}

fn check_class(class: &str) -> S3Result<()> {
    match class {
        "GLACIER" | "STANDARD_IA" | "ONEZONE_IA" | "INTELLIGENT_TIERING" | "DEEP_ARCHIVE" | "GLACIER_IR" => Ok(()),
        _ => Err(malformed()),
    }
}

fn check_midnight(what: &str, date: &dto::Timestamp) -> S3Result<()> {
    let text = format_timestamp(date, TimestampFormat::DateTime).unwrap_or_default();
    if text.contains("T00:00:00") { Ok(()) } else { Err(invalid(&format!("'{what}' must be at midnight GMT"))) }
}

fn positive(what: &str, days: Option<i32>) -> S3Result<()> {
    match days {
        Some(days) if days <= 0 => Err(invalid(&format!("'{what}' must be a positive integer"))),
        _ => Ok(()),
    }
}

/// An id that a rule without one keeps as long as it says the same.
fn made_id(rule: &dto::LifecycleRule) -> S3Result<String> {
    let lifecycle = dto::BucketLifecycleConfiguration { rules: vec![rule.clone()] };
    let mut hasher = DefaultHasher::new();
    to_text(&lifecycle)?.hash(&mut hasher);
    Ok(format!("rule-{:016x}", hasher.finish()))
}

fn invalid(text: &str) -> S3Error {
    error(S3ErrorCode::InvalidArgument, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document_xml::from_text;

    fn check(rules: &[&str]) -> Result<Vec<String>, String> {
        let rules: String = rules.iter().map(|rule| format!("<Rule>{rule}</Rule>")).collect();
        let text = format!("<LifecycleConfiguration>{rules}</LifecycleConfiguration>");
        let code = |failure: S3Error| failure.code().as_str().to_owned();
        let lifecycle = checked_lifecycle(from_text(&text).map_err(code)?).map_err(code)?;
        Ok(lifecycle.rules.into_iter().filter_map(|rule| rule.id).collect())
    }

    const DAYS: &str = "<Expiration><Days>1</Days></Expiration>";
    const ON: &str = "<Status>Enabled</Status>";

    #[test]
    fn rules_are_refused_as_s3_refuses_them() {
        for (rule, expected) in [
            (format!("<ID>{}</ID><Prefix>a/</Prefix>{ON}{DAYS}", "x".repeat(256)), "InvalidArgument"),
            (format!("<Prefix>a/</Prefix><Status>enabled</Status>{DAYS}"), "MalformedXML"),
            (format!("<Prefix>a/</Prefix>{ON}"), "InvalidRequest"),
            (format!("{ON}{DAYS}"), "MalformedXML"),
            (format!("<Prefix/>{ON}<Expiration><Days>0</Days></Expiration>"), "InvalidArgument"),
            (format!("<Prefix/>{ON}<Expiration><Days>-1</Days></Expiration>"), "InvalidArgument"),
            (format!("<Prefix/>{ON}<Expiration><Date>20200101</Date></Expiration>"), "MalformedXML"),
            (format!("<Prefix/>{ON}<Expiration><Date>2030-01-01T01:00:00Z</Date></Expiration>"), "InvalidArgument"),
            (format!("<Prefix/>{ON}<Expiration/>"), "MalformedXML"),
            (format!("<Prefix/><Filter/>{ON}{DAYS}"), "MalformedXML"),
            (
                format!("<Prefix/>{ON}<Transition><Days>1</Days><StorageClass>COLD</StorageClass></Transition>"),
                "MalformedXML",
            ),
            (format!("<Prefix/>{ON}<AbortIncompleteMultipartUpload/>"), "MalformedXML"),
            (
                format!(
                    "<Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>{ON}\
                     <Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"
                ),
                "InvalidRequest",
            ),
        ] {
            assert_eq!(check(&[&rule]), Err(expected.to_owned()), "{rule}");
        }
    }

    #[test]
    fn good_rules_are_taken_and_get_an_id() {
        for rule in [
            format!("<Prefix>a/</Prefix>{ON}{DAYS}"),
            format!("<Filter/>{ON}{DAYS}"),
            format!(
                "<Filter><Prefix>a</Prefix></Filter>{ON}<Expiration><Date>2030-01-01T00:00:00.000Z</Date></Expiration>"
            ),
            format!(
                "<Filter/>{ON}<NoncurrentVersionExpiration><NoncurrentDays>2</NoncurrentDays></NoncurrentVersionExpiration>"
            ),
            format!(
                "<Filter><And><Prefix>a</Prefix><Tag><Key>k</Key><Value>v</Value></Tag>\
                 <ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></And></Filter>{ON}{DAYS}"
            ),
            format!(
                "<Prefix/>{ON}<AbortIncompleteMultipartUpload><DaysAfterInitiation>2</DaysAfterInitiation>\
                 </AbortIncompleteMultipartUpload>"
            ),
        ] {
            let ids = check(&[&rule]).unwrap();
            assert!(ids[0].starts_with("rule-"), "{rule}");
            assert_eq!(check(&[&rule]).unwrap(), ids, "the same rule keeps its id");
        }
        let named = |id: &str| format!("<ID>{id}</ID><Prefix>a/</Prefix>{ON}{DAYS}");
        assert_eq!(check(&[&named("x"), &named("y")]).unwrap(), ["x", "y"]);
        assert_eq!(check(&[&named("x"), &named("x")]), Err("InvalidArgument".to_owned()));
        assert_eq!(check(&[]), Err("MalformedXML".to_owned()));
    }
}
