//! What each operation is called in policies, and which grant of an access control list stands for it.
//!
//! Source: <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html>

use meridian_policy::{Need, Permission};

/// How an operation is decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Such as `s3:GetObject`.
    pub action: &'static str,
    pub need: Need,
}

/// The rule of an operation by its S3 name; `versioned`: the request names a version. `None` for one that is unknown,
/// and for those without a bucket.
pub(crate) fn rule_of(operation: &str, versioned: bool) -> Option<Rule> {
    let read = Need::Bucket(Permission::Read);
    let write = Need::Bucket(Permission::Write);
    let (owner, object_owner) = (Need::Owner, Need::ObjectOwner);
    let of = |plain: &'static str, of_version: &'static str| if versioned { of_version } else { plain };
    let (action, need) = match operation {
        "HeadBucket" | "ListObjects" | "ListObjectsV2" => ("s3:ListBucket", read),
        "ListObjectVersions" => ("s3:ListBucketVersions", read),
        "ListMultipartUploads" => ("s3:ListBucketMultipartUploads", read),
        "PutObject"
        | "PostObject"
        | "CopyObject"
        | "CreateMultipartUpload"
        | "UploadPart"
        | "UploadPartCopy"
        | "CompleteMultipartUpload" => ("s3:PutObject", write),
        "AbortMultipartUpload" => ("s3:AbortMultipartUpload", write),
        "ListParts" => ("s3:ListMultipartUploadParts", write),
        "DeleteObject" | "DeleteObjects" => (of("s3:DeleteObject", "s3:DeleteObjectVersion"), write),
        "GetObject" | "HeadObject" | "GetObjectAttributes" => {
            (of("s3:GetObject", "s3:GetObjectVersion"), Need::Object(Permission::Read))
        }
        "GetObjectAcl" => (of("s3:GetObjectAcl", "s3:GetObjectVersionAcl"), Need::Object(Permission::ReadAcp)),
        "PutObjectAcl" => (of("s3:PutObjectAcl", "s3:PutObjectVersionAcl"), Need::Object(Permission::WriteAcp)),
        "GetObjectTagging" => (of("s3:GetObjectTagging", "s3:GetObjectVersionTagging"), object_owner),
        "PutObjectTagging" => (of("s3:PutObjectTagging", "s3:PutObjectVersionTagging"), object_owner),
        "DeleteObjectTagging" => (of("s3:DeleteObjectTagging", "s3:DeleteObjectVersionTagging"), object_owner),
        "GetObjectRetention" => ("s3:GetObjectRetention", object_owner),
        "PutObjectRetention" => ("s3:PutObjectRetention", object_owner),
        "GetObjectLegalHold" => ("s3:GetObjectLegalHold", object_owner),
        "PutObjectLegalHold" => ("s3:PutObjectLegalHold", object_owner),
        "GetObjectTorrent" => ("s3:GetObjectTorrent", Need::Object(Permission::Read)),
        "SelectObjectContent" => ("s3:GetObject", Need::Object(Permission::Read)),
        "RestoreObject" => ("s3:RestoreObject", object_owner),
        "GetBucketAcl" => ("s3:GetBucketAcl", Need::Bucket(Permission::ReadAcp)),
        "PutBucketAcl" => ("s3:PutBucketAcl", Need::Bucket(Permission::WriteAcp)),
        "DeleteBucket" => ("s3:DeleteBucket", owner),
        "GetBucketLocation" => ("s3:GetBucketLocation", owner),
        "GetBucketVersioning" => ("s3:GetBucketVersioning", owner),
        "PutBucketVersioning" => ("s3:PutBucketVersioning", owner),
        "GetBucketPolicy" => ("s3:GetBucketPolicy", owner),
        "PutBucketPolicy" => ("s3:PutBucketPolicy", owner),
        "DeleteBucketPolicy" => ("s3:DeleteBucketPolicy", owner),
        "GetBucketPolicyStatus" => ("s3:GetBucketPolicyStatus", owner),
        "GetBucketCors" => ("s3:GetBucketCORS", owner),
        "PutBucketCors" | "DeleteBucketCors" => ("s3:PutBucketCORS", owner),
        "GetBucketTagging" => ("s3:GetBucketTagging", owner),
        "PutBucketTagging" | "DeleteBucketTagging" => ("s3:PutBucketTagging", owner),
        "GetBucketLifecycleConfiguration" => ("s3:GetLifecycleConfiguration", owner),
        "PutBucketLifecycleConfiguration" | "DeleteBucketLifecycle" => ("s3:PutLifecycleConfiguration", owner),
        "GetBucketEncryption" => ("s3:GetEncryptionConfiguration", owner),
        "PutBucketEncryption" | "DeleteBucketEncryption" => ("s3:PutEncryptionConfiguration", owner),
        "GetBucketOwnershipControls" => ("s3:GetBucketOwnershipControls", owner),
        "PutBucketOwnershipControls" | "DeleteBucketOwnershipControls" => ("s3:PutBucketOwnershipControls", owner),
        "GetPublicAccessBlock" => ("s3:GetBucketPublicAccessBlock", owner),
        "PutPublicAccessBlock" | "DeletePublicAccessBlock" => ("s3:PutBucketPublicAccessBlock", owner),
        "GetObjectLockConfiguration" => ("s3:GetBucketObjectLockConfiguration", owner),
        "PutObjectLockConfiguration" => ("s3:PutBucketObjectLockConfiguration", owner),
        "GetBucketNotificationConfiguration" => ("s3:GetBucketNotification", owner),
        "PutBucketNotificationConfiguration" => ("s3:PutBucketNotification", owner),
        "GetBucketLogging" => ("s3:GetBucketLogging", owner),
        "PutBucketLogging" => ("s3:PutBucketLogging", owner),
        "GetBucketWebsite" => ("s3:GetBucketWebsite", owner),
        "PutBucketWebsite" => ("s3:PutBucketWebsite", owner),
        "DeleteBucketWebsite" => ("s3:DeleteBucketWebsite", owner),
        "GetBucketAccelerateConfiguration" => ("s3:GetAccelerateConfiguration", owner),
        "PutBucketAccelerateConfiguration" => ("s3:PutAccelerateConfiguration", owner),
        "GetBucketRequestPayment" => ("s3:GetBucketRequestPayment", owner),
        "PutBucketRequestPayment" => ("s3:PutBucketRequestPayment", owner),
        "GetBucketReplication" => ("s3:GetReplicationConfiguration", owner),
        "PutBucketReplication" | "DeleteBucketReplication" => ("s3:PutReplicationConfiguration", owner),
        "DeleteBucketAnalyticsConfiguration" => ("s3:PutAnalyticsConfiguration", owner),
        "DeleteBucketInventoryConfiguration" => ("s3:PutInventoryConfiguration", owner),
        "DeleteBucketMetricsConfiguration" => ("s3:PutMetricsConfiguration", owner),
        "DeleteBucketIntelligentTieringConfiguration" => ("s3:PutIntelligentTieringConfiguration", owner),
        "GetBucketAnalyticsConfiguration" | "ListBucketAnalyticsConfigurations" => {
            ("s3:GetAnalyticsConfiguration", owner)
        }
        "GetBucketInventoryConfiguration" | "ListBucketInventoryConfigurations" => {
            ("s3:GetInventoryConfiguration", owner)
        }
        "GetBucketMetricsConfiguration" | "ListBucketMetricsConfigurations" => ("s3:GetMetricsConfiguration", owner),
        "GetBucketIntelligentTieringConfiguration" | "ListBucketIntelligentTieringConfigurations" => {
            ("s3:GetIntelligentTieringConfiguration", owner)
        }
        _ => return None,
    };
    Some(Rule { action, need })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_their_names_in_policies() {
        let action = |operation, versioned| rule_of(operation, versioned).map(|rule| rule.action);
        assert_eq!(action("HeadObject", false), Some("s3:GetObject"));
        assert_eq!(action("HeadObject", true), Some("s3:GetObjectVersion"));
        assert_eq!(action("UploadPart", false), Some("s3:PutObject"));
        assert_eq!(action("PutBucketCors", false), Some("s3:PutBucketCORS"));
        assert_eq!((action("ListBuckets", false), action("Fly", false)), (None, None));
    }
}
