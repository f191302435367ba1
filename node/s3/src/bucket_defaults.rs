//! Answers to questions for configuration that no bucket has yet: what S3 says of a bucket or object on which it was
//! never set. Clients and infrastructure tools ask these at once and take a 501 for a failure.
//!
//! Invariants: every question is answered only for a bucket that exists and that the request may use.

use http::{Extensions, StatusCode};
use meridian_policy::Acl;
use meridian_types::BucketName;
use s3s::dto;
use s3s::{S3Error, S3Request, S3Response, S3Result};

use crate::acl_wire::{grants, object_acl, owner_of};
use crate::errors::error_with_status;
use crate::gateway::{Gateway, failed};
use crate::get::plain_read;
use crate::guard::ownership;

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
    on_get_bucket_analytics_configuration, GetBucketAnalyticsConfigurationInput,
        GetBucketAnalyticsConfigurationOutput
        => Err(no_such_configuration());
    on_get_bucket_inventory_configuration, GetBucketInventoryConfigurationInput,
        GetBucketInventoryConfigurationOutput
        => Err(no_such_configuration());
    on_get_bucket_metrics_configuration, GetBucketMetricsConfigurationInput, GetBucketMetricsConfigurationOutput
        => Err(no_such_configuration());
    on_list_bucket_analytics_configurations, ListBucketAnalyticsConfigurationsInput,
        ListBucketAnalyticsConfigurationsOutput
        => Ok(dto::ListBucketAnalyticsConfigurationsOutput { is_truncated: Some(false), ..Default::default() });
    on_list_bucket_inventory_configurations, ListBucketInventoryConfigurationsInput,
        ListBucketInventoryConfigurationsOutput
        => Ok(dto::ListBucketInventoryConfigurationsOutput { is_truncated: Some(false), ..Default::default() });
    on_list_bucket_metrics_configurations, ListBucketMetricsConfigurationsInput, ListBucketMetricsConfigurationsOutput
        => Ok(dto::ListBucketMetricsConfigurationsOutput { is_truncated: Some(false), ..Default::default() });
}

macro_rules! absent_deletes {
    ($($method:ident, $input:ident, $output:ident;)*) => {
        impl Gateway {
            $(
                /// Nothing of this kind is ever there.
                pub(crate) async fn $method(
                    &self,
                    request: S3Request<dto::$input>,
                ) -> S3Result<S3Response<dto::$output>> {
                    self.existing(&request.extensions, &request.input.bucket, None).await?;
                    Err(no_such_configuration())
                }
            )*
        }
    };
}

absent_deletes! {
    on_delete_bucket_analytics_configuration, DeleteBucketAnalyticsConfigurationInput,
        DeleteBucketAnalyticsConfigurationOutput;
    on_delete_bucket_inventory_configuration, DeleteBucketInventoryConfigurationInput,
        DeleteBucketInventoryConfigurationOutput;
    on_delete_bucket_metrics_configuration, DeleteBucketMetricsConfigurationInput,
        DeleteBucketMetricsConfigurationOutput;
    on_delete_bucket_intelligent_tiering_configuration, DeleteBucketIntelligentTieringConfigurationInput,
        DeleteBucketIntelligentTieringConfigurationOutput;
}

fn no_such_configuration() -> S3Error {
    error_with_status("NoSuchConfiguration", StatusCode::NOT_FOUND, "The specified configuration does not exist.")
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

    pub(crate) async fn on_get_bucket_intelligent_tiering_configuration(
        &self,
        request: S3Request<dto::GetBucketIntelligentTieringConfigurationInput>,
    ) -> S3Result<S3Response<dto::GetBucketIntelligentTieringConfigurationOutput>> {
        self.existing(&request.extensions, &request.input.bucket, None).await?;
        Err(no_such_configuration())
    }

    /// Like the one before, a question that carries no expected owner.
    pub(crate) async fn on_list_bucket_intelligent_tiering_configurations(
        &self,
        request: S3Request<dto::ListBucketIntelligentTieringConfigurationsInput>,
    ) -> S3Result<S3Response<dto::ListBucketIntelligentTieringConfigurationsOutput>> {
        self.existing(&request.extensions, &request.input.bucket, None).await?;
        let none = dto::ListBucketIntelligentTieringConfigurationsOutput::default();
        Ok(S3Response::new(dto::ListBucketIntelligentTieringConfigurationsOutput { is_truncated: Some(false), ..none }))
    }

    pub(crate) async fn on_get_object_acl(
        &self,
        request: S3Request<dto::GetObjectAclInput>,
    ) -> S3Result<S3Response<dto::GetObjectAclOutput>> {
        let S3Request { input, extensions, .. } = request;
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let outcome = self
            .objects
            .head(plain_read(row.name.clone(), &input.key, input.version_id.as_deref())?)
            .await
            .map_err(failed(&extensions))?;
        let (owner, acl) = object_acl(&row, &outcome.info.attributes)?;
        let acl = if ownership(&row)?.is_enforced() { Acl::private(&owner) } else { acl };
        let (grants, owner) = (Some(grants(&self.objects, &acl)), Some(owner_of(&self.objects, &owner)));
        Ok(S3Response::new(dto::GetObjectAclOutput { grants, owner, request_charged: None }))
    }
}
