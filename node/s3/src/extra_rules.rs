//! What a request needs beside its own action: setting tags, lists or locks while it writes.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html>

use http::HeaderMap;
use meridian_policy::{Need, Permission};

use crate::actions::Rule;

/// Actions that a write needs for what its headers set; asked of the users of an account, whose policies name actions one
/// by one. Accounts and those whom a bucket's policy or list lets write are not asked.
pub(crate) fn rules_of_headers(operation: &str, headers: &HeaderMap) -> Vec<Rule> {
    if !matches!(operation, "PutObject" | "CopyObject" | "CreateMultipartUpload" | "PostObject") {
        return Vec::new();
    }
    let has = |prefix: &str| headers.keys().any(|name| name.as_str().starts_with(prefix));
    [
        ("x-amz-tagging", "s3:PutObjectTagging"),
        ("x-amz-acl", "s3:PutObjectAcl"),
        ("x-amz-grant-", "s3:PutObjectAcl"),
        ("x-amz-object-lock-mode", "s3:PutObjectRetention"),
        ("x-amz-object-lock-legal-hold", "s3:PutObjectLegalHold"),
    ]
    .into_iter()
    .filter(|(header, _)| match *header {
        // Says where the tags come from, and sets none.
        "x-amz-tagging" => headers.contains_key("x-amz-tagging"),
        header => has(header),
    })
    .map(|(_, action)| Rule { action, need: Need::Bucket(Permission::Write) })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn headers_that_set_something_need_its_action() {
        let actions = |operation, pairs: &[(&'static str, &'static str)]| {
            rules_of_headers(operation, &headers(pairs)).iter().map(|rule| rule.action).collect::<Vec<_>>()
        };
        assert_eq!(
            actions("PutObject", &[("x-amz-tagging", "a=b"), ("x-amz-acl", "private")]),
            ["s3:PutObjectTagging", "s3:PutObjectAcl"]
        );
        assert_eq!(actions("CopyObject", &[("x-amz-grant-read", "id=1")]), ["s3:PutObjectAcl"]);
        assert_eq!(actions("PutObject", &[("x-amz-object-lock-mode", "GOVERNANCE")]), ["s3:PutObjectRetention"]);
        assert!(actions("CopyObject", &[("x-amz-tagging-directive", "COPY")]).is_empty());
        assert!(actions("PutBucketAcl", &[("x-amz-acl", "private")]).is_empty());
    }
}
