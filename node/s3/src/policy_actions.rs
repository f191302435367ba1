//! The actions that a bucket's policy may name: those of S3, each with a resource of its kind in its statement.
//!
//! It is asked when a policy is put, and not of policies at rest: what was once taken stays in force.
//!
//! Source: <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html>

use s3s::{S3Error, S3ErrorCode, S3Result};
use serde_json::Value;

use crate::errors::error;

/// Actions whose resource is an object.
const OF_OBJECTS: [&str; 34] = [
    "AbortMultipartUpload",
    "BypassGovernanceRetention",
    "DeleteObject",
    "DeleteObjectTagging",
    "DeleteObjectVersion",
    "DeleteObjectVersionTagging",
    "GetObject",
    "GetObjectAcl",
    "GetObjectAttributes",
    "GetObjectLegalHold",
    "GetObjectRetention",
    "GetObjectTagging",
    "GetObjectTorrent",
    "GetObjectVersion",
    "GetObjectVersionAcl",
    "GetObjectVersionAttributes",
    "GetObjectVersionForReplication",
    "GetObjectVersionTagging",
    "GetObjectVersionTorrent",
    "InitiateReplication",
    "ListMultipartUploadParts",
    "ObjectOwnerOverrideToBucketOwner",
    "PutObject",
    "PutObjectAcl",
    "PutObjectLegalHold",
    "PutObjectRetention",
    "PutObjectTagging",
    "PutObjectVersionAcl",
    "PutObjectVersionTagging",
    "ReplicateDelete",
    "ReplicateObject",
    "ReplicateTags",
    "RestoreObject",
    "UpdateObjectEncryption",
];
/// Actions whose resource is the bucket.
const OF_BUCKETS: [&str; 59] = [
    "CreateBucket",
    "CreateBucketMetadataTableConfiguration",
    "DeleteBucket",
    "DeleteBucketMetadataTableConfiguration",
    "DeleteBucketPolicy",
    "DeleteBucketWebsite",
    "GetAccelerateConfiguration",
    "GetAnalyticsConfiguration",
    "GetBucketAbac",
    "GetBucketAcl",
    "GetBucketCORS",
    "GetBucketLocation",
    "GetBucketLogging",
    "GetBucketMetadataTableConfiguration",
    "GetBucketNotification",
    "GetBucketObjectLockConfiguration",
    "GetBucketOwnershipControls",
    "GetBucketPolicy",
    "GetBucketPolicyStatus",
    "GetBucketPublicAccessBlock",
    "GetBucketRequestPayment",
    "GetBucketTagging",
    "GetBucketVersioning",
    "GetBucketWebsite",
    "GetEncryptionConfiguration",
    "GetIntelligentTieringConfiguration",
    "GetInventoryConfiguration",
    "GetLifecycleConfiguration",
    "GetMetricsConfiguration",
    "GetReplicationConfiguration",
    "ListAllMyBuckets",
    "ListBucket",
    "ListBucketMultipartUploads",
    "ListBucketVersions",
    "ListTagsForResource",
    "PutAccelerateConfiguration",
    "PutAnalyticsConfiguration",
    "PutBucketAbac",
    "PutBucketAcl",
    "PutBucketCORS",
    "PutBucketLogging",
    "PutBucketNotification",
    "PutBucketObjectLockConfiguration",
    "PutBucketOwnershipControls",
    "PutBucketPolicy",
    "PutBucketPublicAccessBlock",
    "PutBucketRequestPayment",
    "PutBucketTagging",
    "PutBucketVersioning",
    "PutBucketWebsite",
    "PutEncryptionConfiguration",
    "PutIntelligentTieringConfiguration",
    "PutInventoryConfiguration",
    "PutLifecycleConfiguration",
    "PutMetricsConfiguration",
    "PutReplicationConfiguration",
    "TagResource",
    "UntagResource",
    "UpdateBucketMetadataInventoryTableConfiguration",
];

/// Checks the statements of a policy that is well-formed.
///
/// # Errors
/// `MalformedPolicy`.
pub(crate) fn check_actions(policy: &str) -> S3Result<()> {
    let document: Value = serde_json::from_str(policy).unwrap_or_default();
    listed(&document["Statement"]).into_iter().try_for_each(check_statement)
}

fn check_statement(statement: &Value) -> S3Result<()> {
    let (bucket, object) = match statement.get("Resource") {
        None => (true, true), // `NotResource` leaves something of either kind
        Some(resources) => {
            let paths: Vec<&str> = listed(resources).into_iter().filter_map(Value::as_str).map(path).collect();
            let is_of_object = |path: &&str| path.contains(['/', '*', '?', '$']);
            (paths.iter().any(|path| !path.contains('/')), paths.iter().any(is_of_object))
        }
    };
    for action in listed(&statement["Action"]).into_iter().filter_map(Value::as_str) {
        let pattern = action.split_once(':').map_or(action, |(_, name)| name).to_ascii_lowercase();
        let names = |known: &[&str]| known.iter().any(|name| is_match(&pattern, &name.to_ascii_lowercase()));
        let (of_objects, of_buckets) = (names(&OF_OBJECTS), names(&OF_BUCKETS));
        if !of_objects && !of_buckets {
            return Err(malformed("Policy has invalid action"));
        }
        let applies = (of_objects && object) || (of_buckets && bucket);
        if !applies {
            return Err(malformed("Action does not apply to any resource(s) in statement"));
        }
    }
    Ok(())
}

/// One value may stand without its list.
fn listed(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(values) => values.iter().collect(),
        Value::Null => Vec::new(),
        value => vec![value],
    }
}

/// What of an ARN names the bucket and its keys.
fn path(resource: &str) -> &str {
    resource.strip_prefix("arn:aws:s3:").and_then(|rest| rest.splitn(3, ':').nth(2)).unwrap_or(resource)
}

/// `*` stands for any letters, `?` for one.
fn is_match(pattern: &str, text: &str) -> bool {
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for token in pattern.bytes() {
        let mut next = vec![false; text.len() + 1];
        for (at, _) in reached.iter().enumerate().filter(|(_, reached)| **reached) {
            match token {
                b'*' => next[at..].fill(true),
                b'?' if at < text.len() => next[at + 1] = true,
                token if text.as_bytes().get(at) == Some(&token) => next[at + 1] = true,
                _ => {}
            }
        }
        reached = next;
    }
    reached[text.len()]
}

fn malformed(text: &str) -> S3Error {
    error(S3ErrorCode::MalformedPolicy, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(action: &str, resource: &str) -> Result<(), String> {
        let text = format!(r#"{{"Statement":{{"Action":{action},"Resource":{resource}}}}}"#);
        check_actions(&text).map_err(|refused| refused.message().unwrap_or_default().to_owned())
    }

    const BUCKET: &str = r#""arn:aws:s3:::b""#;
    const KEYS: &str = r#""arn:aws:s3:::b/*""#;
    const BOTH: &str = r#"["arn:aws:s3:::b","arn:aws:s3:::b/*"]"#;

    #[test]
    fn actions_of_s3_with_a_resource_of_theirs_pass() {
        for (action, resource) in [
            (r#""s3:GetObject""#, KEYS),
            (r#""s3:getobject""#, KEYS),
            (r#""s3:ListBucket""#, BUCKET),
            (r#"["s3:ListBucket","s3:GetObject"]"#, BOTH),
            (r#""s3:*""#, KEYS),
            (r#""s3:*""#, BUCKET),
            (r#""*""#, BUCKET),
            (r#""s3:Put*""#, KEYS),
            (r#""s3:Get?bject""#, KEYS),
            (r#""s3:ListBucket""#, r#""*""#),
            (r#""s3:GetObject""#, r#""arn:aws:s3:::b*""#),
            (r#""s3:GetObject""#, r#""arn:aws:s3:::${aws:username}""#),
        ] {
            assert_eq!(check(action, resource), Ok(()), "{action} of {resource}");
        }
        assert!(check_actions(r#"{"Statement":[{"NotAction":"s3:Fly","NotResource":"arn:aws:s3:::b/x"}]}"#).is_ok());
    }

    #[test]
    fn others_are_refused_in_the_words_of_s3() {
        for (action, resource, text) in [
            (r#""s3:Fly""#, KEYS, "Policy has invalid action"),
            (r#"["s3:GetObject","s3:Getobjects"]"#, KEYS, "Policy has invalid action"),
            (r#""s3:Fly*""#, BOTH, "Policy has invalid action"),
            (r#""s3:ListBucket""#, KEYS, "Action does not apply to any resource(s) in statement"),
            (r#""s3:GetObject""#, BUCKET, "Action does not apply to any resource(s) in statement"),
            (r#""s3:PutBucket*""#, KEYS, "Action does not apply to any resource(s) in statement"),
        ] {
            assert_eq!(check(action, resource), Err(text.to_owned()), "{action} of {resource}");
        }
    }
}
