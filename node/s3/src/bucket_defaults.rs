//! Answers to questions for configuration that no bucket has yet: what S3 says of a bucket or object on which it was
//! never set. Clients and infrastructure tools ask these at once and take a 501 for a failure.
//!
//! Invariants: every question is answered only for a bucket that exists and that the request may use.

use http::{Extensions, StatusCode};
use meridian_types::BucketName;
use s3s::dto;
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};

use crate::auth::principal_of;
use crate::buckets::row_owner;
use crate::errors::{error, error_with_status};
use crate::gateway::{Gateway, failed};
use crate::get::plain_read;

macro_rules! answers {
    ($($method:ident, $input:ident, $output:ident => $answer:expr;)*) => {
        impl Gateway {
            $(
                pub(crate) async fn $method(
                    &self,
                    request: S3Request<dto::$input>,
                ) -> S3Result<S3Response<dto::$output>> {
                    let expected = request.input.expected_bucket_owner.as_deref();
                    self.existing(&request.extensions, &request.input.bucket, expected).await?;
                    let answer: S3Result<dto::$output> = $answer;
                    answer.map(S3Response::new)
                }
            )*
        }
    };
}

answers! {
    on_get_bucket_logging, GetBucketLoggingInput, GetBucketLoggingOutput => Ok(Default::default());
    on_get_bucket_accelerate_configuration, GetBucketAccelerateConfigurationInput,
        GetBucketAccelerateConfigurationOutput
        => Ok(Default::default());
    on_get_bucket_notification_configuration, GetBucketNotificationConfigurationInput,
        GetBucketNotificationConfigurationOutput
        => Ok(Default::default());
    on_get_bucket_request_payment, GetBucketRequestPaymentInput, GetBucketRequestPaymentOutput
        => Ok(dto::GetBucketRequestPaymentOutput { payer: Some(dto::Payer::from_static(dto::Payer::BUCKET_OWNER)) });
    on_list_bucket_analytics_configurations, ListBucketAnalyticsConfigurationsInput,
        ListBucketAnalyticsConfigurationsOutput
        => Ok(dto::ListBucketAnalyticsConfigurationsOutput { is_truncated: Some(false), ..Default::default() });
    on_list_bucket_inventory_configurations, ListBucketInventoryConfigurationsInput,
        ListBucketInventoryConfigurationsOutput
        => Ok(dto::ListBucketInventoryConfigurationsOutput { is_truncated: Some(false), ..Default::default() });
    on_list_bucket_metrics_configurations, ListBucketMetricsConfigurationsInput, ListBucketMetricsConfigurationsOutput
        => Ok(dto::ListBucketMetricsConfigurationsOutput { is_truncated: Some(false), ..Default::default() });
    on_get_bucket_policy, GetBucketPolicyInput, GetBucketPolicyOutput
        => Err(error(S3ErrorCode::NoSuchBucketPolicy, "The bucket policy does not exist"));
    on_get_bucket_policy_status, GetBucketPolicyStatusInput, GetBucketPolicyStatusOutput
        => Err(error(S3ErrorCode::NoSuchBucketPolicy, "The bucket policy does not exist"));
    on_get_bucket_lifecycle_configuration, GetBucketLifecycleConfigurationInput, GetBucketLifecycleConfigurationOutput
        => Err(error(S3ErrorCode::NoSuchLifecycleConfiguration, "The lifecycle configuration does not exist"));
    on_get_bucket_cors, GetBucketCorsInput, GetBucketCorsOutput
        => Err(error(S3ErrorCode::NoSuchCORSConfiguration, "The CORS configuration does not exist"));
    on_get_bucket_tagging, GetBucketTaggingInput, GetBucketTaggingOutput
        => Err(error(S3ErrorCode::NoSuchTagSet, "The TagSet does not exist"));
    on_get_bucket_website, GetBucketWebsiteInput, GetBucketWebsiteOutput
        => Err(error(
            S3ErrorCode::NoSuchWebsiteConfiguration,
            "The specified bucket does not have a website configuration",
        ));
    on_get_bucket_encryption, GetBucketEncryptionInput, GetBucketEncryptionOutput
        => Err(absent(
            "ServerSideEncryptionConfigurationNotFoundError",
            "The server side encryption configuration was not found",
        ));
    on_get_bucket_replication, GetBucketReplicationInput, GetBucketReplicationOutput
        => Err(absent("ReplicationConfigurationNotFoundError", "The replication configuration was not found"));
    on_get_bucket_ownership_controls, GetBucketOwnershipControlsInput, GetBucketOwnershipControlsOutput
        => Err(absent("OwnershipControlsNotFoundError", "The bucket ownership controls were not found"));
    on_get_public_access_block, GetPublicAccessBlockInput, GetPublicAccessBlockOutput
        => Err(absent("NoSuchPublicAccessBlockConfiguration", "The public access block configuration was not found"));
}

/// 404s that s3s has under another status or not at all.
fn absent(code: &'static str, message: &'static str) -> s3s::S3Error {
    error_with_status(code, StatusCode::NOT_FOUND, message)
}

impl Gateway {
    /// The bucket's name, once it exists and the request may use it.
    async fn existing(
        &self,
        extensions: &Extensions,
        name: &str,
        expected_owner: Option<&str>,
    ) -> S3Result<BucketName> {
        self.bucket_row(extensions, name, expected_owner).await.map(|row| row.name)
    }

    /// The one question that carries no expected owner.
    pub(crate) async fn on_list_bucket_intelligent_tiering_configurations(
        &self,
        request: S3Request<dto::ListBucketIntelligentTieringConfigurationsInput>,
    ) -> S3Result<S3Response<dto::ListBucketIntelligentTieringConfigurationsOutput>> {
        self.existing(&request.extensions, &request.input.bucket, None).await?;
        let none = dto::ListBucketIntelligentTieringConfigurationsOutput::default();
        Ok(S3Response::new(dto::ListBucketIntelligentTieringConfigurationsOutput { is_truncated: Some(false), ..none }))
    }

    /// The owner has full control, and nobody else has any.
    pub(crate) async fn on_get_bucket_acl(
        &self,
        request: S3Request<dto::GetBucketAclInput>,
    ) -> S3Result<S3Response<dto::GetBucketAclOutput>> {
        let expected = request.input.expected_bucket_owner.as_deref();
        let row = self.bucket_row(&request.extensions, &request.input.bucket, expected).await?;
        let owner = row_owner(&row, &*principal_of(&request.extensions)?);
        Ok(S3Response::new(dto::GetBucketAclOutput { grants: Some(full_control(&owner)), owner: Some(owner) }))
    }

    pub(crate) async fn on_get_object_acl(
        &self,
        request: S3Request<dto::GetObjectAclInput>,
    ) -> S3Result<S3Response<dto::GetObjectAclOutput>> {
        let S3Request { input, extensions, .. } = request;
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let owner = row_owner(&row, &*principal_of(&extensions)?);
        self.objects
            .head(plain_read(row.name, &input.key, input.version_id.as_deref())?)
            .await
            .map_err(failed(&extensions))?;
        let grants = Some(full_control(&owner));
        Ok(S3Response::new(dto::GetObjectAclOutput { grants, owner: Some(owner), request_charged: None }))
    }
}

fn full_control(owner: &dto::Owner) -> Vec<dto::Grant> {
    let grantee = dto::Grantee {
        display_name: owner.display_name.clone(),
        id: owner.id.clone(),
        type_: dto::Type::from_static(dto::Type::CANONICAL_USER),
        email_address: None,
        uri: None,
    };
    let permission = dto::Permission::from_static(dto::Permission::FULL_CONTROL);
    vec![dto::Grant { grantee: Some(grantee), permission: Some(permission) }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_configurations_are_404() {
        let failure = absent("ServerSideEncryptionConfigurationNotFoundError", "none");
        assert_eq!(failure.status_code(), Some(StatusCode::NOT_FOUND));
        assert_eq!(failure.code().as_str(), "ServerSideEncryptionConfigurationNotFoundError");
    }

    #[test]
    fn the_owner_alone_has_full_control() {
        let owner = dto::Owner { id: Some("ann".to_owned()), display_name: Some("Ann".to_owned()) };
        let grants = full_control(&owner);
        let grantee = grants[0].grantee.as_ref().unwrap();
        assert_eq!((grants.len(), grantee.id.as_deref(), grantee.type_.as_str()), (1, Some("ann"), "CanonicalUser"));
    }
}
