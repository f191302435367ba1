//! The operations that are offered, as s3s names them; each is a method of `Gateway` in the file of its group. What is
//! not listed here is s3s's own answer: 501 NotImplemented.
//!
//! Invariants: the guard has decided before any of them runs; every operation asks `auth::authorized_bucket` for its
//! buckets before it does anything with them.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Extensions, Uri};
use meridian_object::{ObjectError, Objects};
use meridian_types::BucketName;
use s3s::dto;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use crate::auth::{authorized_bucket, context_of};
use crate::context::RequestContext;
use crate::errors::{error, invalid_argument, not_implemented, object_error};
use crate::replication_status::DurableEverywhere;
use crate::sse::Sse;
use crate::wire_values::bucket_name;

/// Names of S3's sub-resources: in the query they change what a request means.
const SUBRESOURCES: [&str; 38] = [
    "accelerate",
    "acl",
    "analytics",
    "append",
    "attributes",
    "cors",
    "delete",
    "encryption",
    "intelligent-tiering",
    "inventory",
    "legal-hold",
    "lifecycle",
    "location",
    "logging",
    "metadataTable",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "partNumber",
    "policy",
    "policyStatus",
    "publicAccessBlock",
    "renameObject",
    "replication",
    "requestPayment",
    "restore",
    "retention",
    "select",
    "session",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "versionId",
    "versioning",
    "versions",
    "website",
];

/// A PUT with it is one of S3's operations, for directory buckets, which are not offered.
const NOT_OFFERED: &str = "renameObject";

/// S3 over `Objects`.
pub(crate) struct Gateway {
    pub objects: Objects,
    pub durable_everywhere: Option<DurableEverywhere>,
    pub sse: Sse,
}

impl Gateway {
    pub fn new(objects: Objects, durable_everywhere: Option<DurableEverywhere>, sse: Sse) -> Self {
        Self { objects, durable_everywhere, sse }
    }

    /// Parses a bucket's name and lets the request use it.
    pub async fn bucket(
        &self,
        extensions: &Extensions,
        name: &str,
        expected_owner: Option<&str>,
    ) -> S3Result<BucketName> {
        let bucket = bucket_name(name)?;
        authorized_bucket(&self.objects, extensions, &bucket, expected_owner).await.map(|row| row.name)
    }
}

/// Turns the failures of one request into S3's.
pub(crate) fn failed(extensions: &Extensions) -> impl Fn(ObjectError) -> S3Error + use<> {
    let context: Option<Arc<RequestContext>> = context_of(extensions).cloned();
    move |failure| object_error(failure, context.as_deref())
}

/// s3s takes a request with a sub-resource that it does not know for one without any: a DELETE of some part of a
/// bucket's configuration would delete the bucket.
///
/// # Errors
/// When the query names a sub-resource other than those in `allowed`: `NotImplemented` for what is not offered at all,
/// `InvalidArgument` for a parameter that this operation does not take, else `MethodNotAllowed`.
pub(crate) fn refuse_subresources(uri: &Uri, allowed: &[&str]) -> S3Result<()> {
    for pair in uri.query().unwrap_or_default().split('&') {
        let name = pair.split('=').next().unwrap_or_default();
        if !SUBRESOURCES.contains(&name) || allowed.contains(&name) {
            continue;
        }
        return Err(match name {
            "versionId" => invalid_argument(name, "This operation does not accept a version-id."),
            "partNumber" | "uploadId" => invalid_argument(name, "partNumber and uploadId go together."),
            NOT_OFFERED => not_implemented("RenameObject"),
            _ => error(S3ErrorCode::MethodNotAllowed, "The specified method is not allowed against this resource."),
        });
    }
    Ok(())
}

#[async_trait]
impl S3 for Gateway {
    async fn list_buckets(
        &self,
        request: S3Request<dto::ListBucketsInput>,
    ) -> S3Result<S3Response<dto::ListBucketsOutput>> {
        self.on_list_buckets(request).await
    }

    async fn create_bucket(
        &self,
        request: S3Request<dto::CreateBucketInput>,
    ) -> S3Result<S3Response<dto::CreateBucketOutput>> {
        self.on_create_bucket(request).await
    }

    async fn head_bucket(
        &self,
        request: S3Request<dto::HeadBucketInput>,
    ) -> S3Result<S3Response<dto::HeadBucketOutput>> {
        self.on_head_bucket(request).await
    }

    async fn delete_bucket(
        &self,
        request: S3Request<dto::DeleteBucketInput>,
    ) -> S3Result<S3Response<dto::DeleteBucketOutput>> {
        self.on_delete_bucket(request).await
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<dto::GetBucketLocationInput>,
    ) -> S3Result<S3Response<dto::GetBucketLocationOutput>> {
        self.on_get_bucket_location(request).await
    }

    async fn put_object(&self, request: S3Request<dto::PutObjectInput>) -> S3Result<S3Response<dto::PutObjectOutput>> {
        self.on_put_object(request).await
    }

    async fn get_object(&self, request: S3Request<dto::GetObjectInput>) -> S3Result<S3Response<dto::GetObjectOutput>> {
        self.on_get_object(request).await
    }

    async fn head_object(
        &self,
        request: S3Request<dto::HeadObjectInput>,
    ) -> S3Result<S3Response<dto::HeadObjectOutput>> {
        self.on_head_object(request).await
    }

    async fn delete_object(
        &self,
        request: S3Request<dto::DeleteObjectInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectOutput>> {
        self.on_delete_object(request).await
    }

    async fn delete_objects(
        &self,
        request: S3Request<dto::DeleteObjectsInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectsOutput>> {
        self.on_delete_objects(request).await
    }

    async fn copy_object(
        &self,
        request: S3Request<dto::CopyObjectInput>,
    ) -> S3Result<S3Response<dto::CopyObjectOutput>> {
        self.on_copy_object(request).await
    }

    async fn list_objects(
        &self,
        request: S3Request<dto::ListObjectsInput>,
    ) -> S3Result<S3Response<dto::ListObjectsOutput>> {
        self.on_list_objects(request).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<dto::ListObjectsV2Input>,
    ) -> S3Result<S3Response<dto::ListObjectsV2Output>> {
        self.on_list_objects_v2(request).await
    }

    async fn list_object_versions(
        &self,
        request: S3Request<dto::ListObjectVersionsInput>,
    ) -> S3Result<S3Response<dto::ListObjectVersionsOutput>> {
        self.on_list_object_versions(request).await
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<dto::CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<dto::CreateMultipartUploadOutput>> {
        self.on_create_multipart_upload(request).await
    }

    async fn upload_part(
        &self,
        request: S3Request<dto::UploadPartInput>,
    ) -> S3Result<S3Response<dto::UploadPartOutput>> {
        self.on_upload_part(request).await
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<dto::UploadPartCopyInput>,
    ) -> S3Result<S3Response<dto::UploadPartCopyOutput>> {
        self.on_upload_part_copy(request).await
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<dto::CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<dto::CompleteMultipartUploadOutput>> {
        self.on_complete_multipart_upload(request).await
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<dto::AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<dto::AbortMultipartUploadOutput>> {
        self.on_abort_multipart_upload(request).await
    }

    async fn list_parts(&self, request: S3Request<dto::ListPartsInput>) -> S3Result<S3Response<dto::ListPartsOutput>> {
        self.on_list_parts(request).await
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<dto::ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<dto::ListMultipartUploadsOutput>> {
        self.on_list_multipart_uploads(request).await
    }

    async fn get_bucket_versioning(
        &self,
        request: S3Request<dto::GetBucketVersioningInput>,
    ) -> S3Result<S3Response<dto::GetBucketVersioningOutput>> {
        self.on_get_bucket_versioning(request).await
    }

    async fn put_bucket_versioning(
        &self,
        request: S3Request<dto::PutBucketVersioningInput>,
    ) -> S3Result<S3Response<dto::PutBucketVersioningOutput>> {
        self.on_put_bucket_versioning(request).await
    }

    async fn put_object_tagging(
        &self,
        request: S3Request<dto::PutObjectTaggingInput>,
    ) -> S3Result<S3Response<dto::PutObjectTaggingOutput>> {
        self.on_put_object_tagging(request).await
    }

    async fn delete_object_tagging(
        &self,
        request: S3Request<dto::DeleteObjectTaggingInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectTaggingOutput>> {
        self.on_delete_object_tagging(request).await
    }

    async fn get_object_attributes(
        &self,
        request: S3Request<dto::GetObjectAttributesInput>,
    ) -> S3Result<S3Response<dto::GetObjectAttributesOutput>> {
        self.on_get_object_attributes(request).await
    }

    async fn put_object_lock_configuration(
        &self,
        request: S3Request<dto::PutObjectLockConfigurationInput>,
    ) -> S3Result<S3Response<dto::PutObjectLockConfigurationOutput>> {
        self.on_put_object_lock_configuration(request).await
    }

    async fn get_object_retention(
        &self,
        request: S3Request<dto::GetObjectRetentionInput>,
    ) -> S3Result<S3Response<dto::GetObjectRetentionOutput>> {
        self.on_get_object_retention(request).await
    }

    async fn put_object_retention(
        &self,
        request: S3Request<dto::PutObjectRetentionInput>,
    ) -> S3Result<S3Response<dto::PutObjectRetentionOutput>> {
        self.on_put_object_retention(request).await
    }

    async fn get_object_legal_hold(
        &self,
        request: S3Request<dto::GetObjectLegalHoldInput>,
    ) -> S3Result<S3Response<dto::GetObjectLegalHoldOutput>> {
        self.on_get_object_legal_hold(request).await
    }

    async fn put_object_legal_hold(
        &self,
        request: S3Request<dto::PutObjectLegalHoldInput>,
    ) -> S3Result<S3Response<dto::PutObjectLegalHoldOutput>> {
        self.on_put_object_legal_hold(request).await
    }

    async fn get_bucket_acl(
        &self,
        request: S3Request<dto::GetBucketAclInput>,
    ) -> S3Result<S3Response<dto::GetBucketAclOutput>> {
        self.on_get_bucket_acl(request).await
    }

    async fn put_bucket_acl(
        &self,
        request: S3Request<dto::PutBucketAclInput>,
    ) -> S3Result<S3Response<dto::PutBucketAclOutput>> {
        self.on_put_bucket_acl(request).await
    }

    async fn put_bucket_policy(
        &self,
        request: S3Request<dto::PutBucketPolicyInput>,
    ) -> S3Result<S3Response<dto::PutBucketPolicyOutput>> {
        self.on_put_bucket_policy(request).await
    }

    async fn delete_bucket_policy(
        &self,
        request: S3Request<dto::DeleteBucketPolicyInput>,
    ) -> S3Result<S3Response<dto::DeleteBucketPolicyOutput>> {
        self.on_delete_bucket_policy(request).await
    }

    async fn put_public_access_block(
        &self,
        request: S3Request<dto::PutPublicAccessBlockInput>,
    ) -> S3Result<S3Response<dto::PutPublicAccessBlockOutput>> {
        self.on_put_public_access_block(request).await
    }

    async fn delete_public_access_block(
        &self,
        request: S3Request<dto::DeletePublicAccessBlockInput>,
    ) -> S3Result<S3Response<dto::DeletePublicAccessBlockOutput>> {
        self.on_delete_public_access_block(request).await
    }

    async fn put_bucket_ownership_controls(
        &self,
        request: S3Request<dto::PutBucketOwnershipControlsInput>,
    ) -> S3Result<S3Response<dto::PutBucketOwnershipControlsOutput>> {
        self.on_put_bucket_ownership_controls(request).await
    }

    async fn delete_bucket_ownership_controls(
        &self,
        request: S3Request<dto::DeleteBucketOwnershipControlsInput>,
    ) -> S3Result<S3Response<dto::DeleteBucketOwnershipControlsOutput>> {
        self.on_delete_bucket_ownership_controls(request).await
    }

    async fn put_bucket_cors(
        &self,
        request: S3Request<dto::PutBucketCorsInput>,
    ) -> S3Result<S3Response<dto::PutBucketCorsOutput>> {
        self.on_put_bucket_cors(request).await
    }

    async fn delete_bucket_cors(
        &self,
        request: S3Request<dto::DeleteBucketCorsInput>,
    ) -> S3Result<S3Response<dto::DeleteBucketCorsOutput>> {
        self.on_delete_bucket_cors(request).await
    }

    async fn put_bucket_tagging(
        &self,
        request: S3Request<dto::PutBucketTaggingInput>,
    ) -> S3Result<S3Response<dto::PutBucketTaggingOutput>> {
        self.on_put_bucket_tagging(request).await
    }

    async fn delete_bucket_tagging(
        &self,
        request: S3Request<dto::DeleteBucketTaggingInput>,
    ) -> S3Result<S3Response<dto::DeleteBucketTaggingOutput>> {
        self.on_delete_bucket_tagging(request).await
    }

    async fn put_bucket_encryption(
        &self,
        request: S3Request<dto::PutBucketEncryptionInput>,
    ) -> S3Result<S3Response<dto::PutBucketEncryptionOutput>> {
        self.on_put_bucket_encryption(request).await
    }

    async fn delete_bucket_encryption(
        &self,
        request: S3Request<dto::DeleteBucketEncryptionInput>,
    ) -> S3Result<S3Response<dto::DeleteBucketEncryptionOutput>> {
        self.on_delete_bucket_encryption(request).await
    }

    async fn put_bucket_lifecycle_configuration(
        &self,
        request: S3Request<dto::PutBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<dto::PutBucketLifecycleConfigurationOutput>> {
        self.on_put_bucket_lifecycle_configuration(request).await
    }

    async fn delete_bucket_lifecycle(
        &self,
        request: S3Request<dto::DeleteBucketLifecycleInput>,
    ) -> S3Result<S3Response<dto::DeleteBucketLifecycleOutput>> {
        self.on_delete_bucket_lifecycle(request).await
    }

    async fn put_bucket_replication(
        &self,
        request: S3Request<dto::PutBucketReplicationInput>,
    ) -> S3Result<S3Response<dto::PutBucketReplicationOutput>> {
        self.on_put_bucket_replication(request).await
    }

    async fn delete_bucket_replication(
        &self,
        request: S3Request<dto::DeleteBucketReplicationInput>,
    ) -> S3Result<S3Response<dto::DeleteBucketReplicationOutput>> {
        self.on_delete_bucket_replication(request).await
    }

    async fn put_bucket_notification_configuration(
        &self,
        request: S3Request<dto::PutBucketNotificationConfigurationInput>,
    ) -> S3Result<S3Response<dto::PutBucketNotificationConfigurationOutput>> {
        self.on_put_bucket_notification_configuration(request).await
    }

    async fn put_bucket_logging(
        &self,
        request: S3Request<dto::PutBucketLoggingInput>,
    ) -> S3Result<S3Response<dto::PutBucketLoggingOutput>> {
        self.on_put_bucket_logging(request).await
    }

    async fn put_bucket_website(
        &self,
        request: S3Request<dto::PutBucketWebsiteInput>,
    ) -> S3Result<S3Response<dto::PutBucketWebsiteOutput>> {
        self.on_put_bucket_website(request).await
    }

    async fn delete_bucket_website(
        &self,
        request: S3Request<dto::DeleteBucketWebsiteInput>,
    ) -> S3Result<S3Response<dto::DeleteBucketWebsiteOutput>> {
        self.on_delete_bucket_website(request).await
    }

    async fn put_bucket_accelerate_configuration(
        &self,
        request: S3Request<dto::PutBucketAccelerateConfigurationInput>,
    ) -> S3Result<S3Response<dto::PutBucketAccelerateConfigurationOutput>> {
        self.on_put_bucket_accelerate_configuration(request).await
    }

    async fn put_bucket_request_payment(
        &self,
        request: S3Request<dto::PutBucketRequestPaymentInput>,
    ) -> S3Result<S3Response<dto::PutBucketRequestPaymentOutput>> {
        self.on_put_bucket_request_payment(request).await
    }

    async fn put_object_acl(
        &self,
        request: S3Request<dto::PutObjectAclInput>,
    ) -> S3Result<S3Response<dto::PutObjectAclOutput>> {
        self.on_put_object_acl(request).await
    }

    async fn get_object_acl(
        &self,
        request: S3Request<dto::GetObjectAclInput>,
    ) -> S3Result<S3Response<dto::GetObjectAclOutput>> {
        self.on_get_object_acl(request).await
    }

    async fn get_object_tagging(
        &self,
        request: S3Request<dto::GetObjectTaggingInput>,
    ) -> S3Result<S3Response<dto::GetObjectTaggingOutput>> {
        self.on_get_object_tagging(request).await
    }

    async fn get_bucket_policy(
        &self,
        request: S3Request<dto::GetBucketPolicyInput>,
    ) -> S3Result<S3Response<dto::GetBucketPolicyOutput>> {
        self.on_get_bucket_policy(request).await
    }

    async fn get_bucket_policy_status(
        &self,
        request: S3Request<dto::GetBucketPolicyStatusInput>,
    ) -> S3Result<S3Response<dto::GetBucketPolicyStatusOutput>> {
        self.on_get_bucket_policy_status(request).await
    }

    async fn get_bucket_lifecycle_configuration(
        &self,
        request: S3Request<dto::GetBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<dto::GetBucketLifecycleConfigurationOutput>> {
        self.on_get_bucket_lifecycle_configuration(request).await
    }

    async fn get_bucket_cors(
        &self,
        request: S3Request<dto::GetBucketCorsInput>,
    ) -> S3Result<S3Response<dto::GetBucketCorsOutput>> {
        self.on_get_bucket_cors(request).await
    }

    async fn get_bucket_tagging(
        &self,
        request: S3Request<dto::GetBucketTaggingInput>,
    ) -> S3Result<S3Response<dto::GetBucketTaggingOutput>> {
        self.on_get_bucket_tagging(request).await
    }

    async fn get_bucket_encryption(
        &self,
        request: S3Request<dto::GetBucketEncryptionInput>,
    ) -> S3Result<S3Response<dto::GetBucketEncryptionOutput>> {
        self.on_get_bucket_encryption(request).await
    }

    async fn get_bucket_website(
        &self,
        request: S3Request<dto::GetBucketWebsiteInput>,
    ) -> S3Result<S3Response<dto::GetBucketWebsiteOutput>> {
        self.on_get_bucket_website(request).await
    }

    async fn get_bucket_replication(
        &self,
        request: S3Request<dto::GetBucketReplicationInput>,
    ) -> S3Result<S3Response<dto::GetBucketReplicationOutput>> {
        self.on_get_bucket_replication(request).await
    }

    async fn get_bucket_logging(
        &self,
        request: S3Request<dto::GetBucketLoggingInput>,
    ) -> S3Result<S3Response<dto::GetBucketLoggingOutput>> {
        self.on_get_bucket_logging(request).await
    }

    async fn get_bucket_request_payment(
        &self,
        request: S3Request<dto::GetBucketRequestPaymentInput>,
    ) -> S3Result<S3Response<dto::GetBucketRequestPaymentOutput>> {
        self.on_get_bucket_request_payment(request).await
    }

    async fn get_bucket_accelerate_configuration(
        &self,
        request: S3Request<dto::GetBucketAccelerateConfigurationInput>,
    ) -> S3Result<S3Response<dto::GetBucketAccelerateConfigurationOutput>> {
        self.on_get_bucket_accelerate_configuration(request).await
    }

    async fn get_bucket_notification_configuration(
        &self,
        request: S3Request<dto::GetBucketNotificationConfigurationInput>,
    ) -> S3Result<S3Response<dto::GetBucketNotificationConfigurationOutput>> {
        self.on_get_bucket_notification_configuration(request).await
    }

    async fn get_bucket_ownership_controls(
        &self,
        request: S3Request<dto::GetBucketOwnershipControlsInput>,
    ) -> S3Result<S3Response<dto::GetBucketOwnershipControlsOutput>> {
        self.on_get_bucket_ownership_controls(request).await
    }

    async fn get_public_access_block(
        &self,
        request: S3Request<dto::GetPublicAccessBlockInput>,
    ) -> S3Result<S3Response<dto::GetPublicAccessBlockOutput>> {
        self.on_get_public_access_block(request).await
    }

    async fn get_object_lock_configuration(
        &self,
        request: S3Request<dto::GetObjectLockConfigurationInput>,
    ) -> S3Result<S3Response<dto::GetObjectLockConfigurationOutput>> {
        self.on_get_object_lock_configuration(request).await
    }

    async fn get_bucket_analytics_configuration(
        &self,
        request: S3Request<dto::GetBucketAnalyticsConfigurationInput>,
    ) -> S3Result<S3Response<dto::GetBucketAnalyticsConfigurationOutput>> {
        self.on_get_bucket_analytics_configuration(request).await
    }

    async fn get_bucket_intelligent_tiering_configuration(
        &self,
        request: S3Request<dto::GetBucketIntelligentTieringConfigurationInput>,
    ) -> S3Result<S3Response<dto::GetBucketIntelligentTieringConfigurationOutput>> {
        self.on_get_bucket_intelligent_tiering_configuration(request).await
    }

    async fn get_bucket_inventory_configuration(
        &self,
        request: S3Request<dto::GetBucketInventoryConfigurationInput>,
    ) -> S3Result<S3Response<dto::GetBucketInventoryConfigurationOutput>> {
        self.on_get_bucket_inventory_configuration(request).await
    }

    async fn get_bucket_metrics_configuration(
        &self,
        request: S3Request<dto::GetBucketMetricsConfigurationInput>,
    ) -> S3Result<S3Response<dto::GetBucketMetricsConfigurationOutput>> {
        self.on_get_bucket_metrics_configuration(request).await
    }

    async fn list_bucket_analytics_configurations(
        &self,
        request: S3Request<dto::ListBucketAnalyticsConfigurationsInput>,
    ) -> S3Result<S3Response<dto::ListBucketAnalyticsConfigurationsOutput>> {
        self.on_list_bucket_analytics_configurations(request).await
    }

    async fn list_bucket_intelligent_tiering_configurations(
        &self,
        request: S3Request<dto::ListBucketIntelligentTieringConfigurationsInput>,
    ) -> S3Result<S3Response<dto::ListBucketIntelligentTieringConfigurationsOutput>> {
        self.on_list_bucket_intelligent_tiering_configurations(request).await
    }

    async fn list_bucket_inventory_configurations(
        &self,
        request: S3Request<dto::ListBucketInventoryConfigurationsInput>,
    ) -> S3Result<S3Response<dto::ListBucketInventoryConfigurationsOutput>> {
        self.on_list_bucket_inventory_configurations(request).await
    }

    async fn list_bucket_metrics_configurations(
        &self,
        request: S3Request<dto::ListBucketMetricsConfigurationsInput>,
    ) -> S3Result<S3Response<dto::ListBucketMetricsConfigurationsOutput>> {
        self.on_list_bucket_metrics_configurations(request).await
    }

    async fn delete_bucket_analytics_configuration(
        &self,
        request: S3Request<dto::DeleteBucketAnalyticsConfigurationInput>,
    ) -> S3Result<S3Response<dto::DeleteBucketAnalyticsConfigurationOutput>> {
        self.on_delete_bucket_analytics_configuration(request).await
    }

    async fn delete_bucket_inventory_configuration(
        &self,
        request: S3Request<dto::DeleteBucketInventoryConfigurationInput>,
    ) -> S3Result<S3Response<dto::DeleteBucketInventoryConfigurationOutput>> {
        self.on_delete_bucket_inventory_configuration(request).await
    }

    async fn delete_bucket_metrics_configuration(
        &self,
        request: S3Request<dto::DeleteBucketMetricsConfigurationInput>,
    ) -> S3Result<S3Response<dto::DeleteBucketMetricsConfigurationOutput>> {
        self.on_delete_bucket_metrics_configuration(request).await
    }

    async fn delete_bucket_intelligent_tiering_configuration(
        &self,
        request: S3Request<dto::DeleteBucketIntelligentTieringConfigurationInput>,
    ) -> S3Result<S3Response<dto::DeleteBucketIntelligentTieringConfigurationOutput>> {
        self.on_delete_bucket_intelligent_tiering_configuration(request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_subresources_do_not_fall_through() {
        let refused =
            |uri: &'static str, allowed: &[&str]| refuse_subresources(&Uri::from_static(uri), allowed).is_err();
        assert!(refused("/b?replication", &[]) && refused("/b?x-id=a&versionId=5", &[]) && refused("/b?acl=", &[]));
        assert!(!refused("/b?x-id=DeleteBucket&X-Amz-Signature=1", &[]) && !refused("/b", &[]));
        assert!(!refused("/b/k?versionId=null", &["versionId"]));
    }
}
