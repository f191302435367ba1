//! Bucket policies, their status, public access blocks and ownership controls.

use http::StatusCode;
use meridian_object::DocumentKind as Setting;
use meridian_policy::{Acl, DocumentKind, Ownership, Policy};
use s3s::dto;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use crate::document_xml::{from_text, to_text};
use crate::errors::{access_denied, error, error_with_status};
use crate::gateway::Gateway;
use crate::guard::{access_block, bucket_acl, ownership};
use crate::policy_actions::check_actions;

impl Gateway {
    pub(crate) async fn on_get_bucket_policy(
        &self,
        request: S3Request<dto::GetBucketPolicyInput>,
    ) -> S3Result<S3Response<dto::GetBucketPolicyOutput>> {
        let expected = request.input.expected_bucket_owner.as_deref();
        let row = self.bucket_row(&request.extensions, &request.input.bucket, expected).await?;
        let absent = || error(S3ErrorCode::NoSuchBucketPolicy, "The bucket policy does not exist");
        let policy = row.settings.document(Setting::Policy).ok_or_else(absent)?.to_owned();
        Ok(S3Response::new(dto::GetBucketPolicyOutput { policy: Some(policy) }))
    }

    pub(crate) async fn on_put_bucket_policy(
        &self,
        request: S3Request<dto::PutBucketPolicyInput>,
    ) -> S3Result<S3Response<dto::PutBucketPolicyOutput>> {
        let S3Request { input, extensions, .. } = request;
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let policy = Policy::parse(&input.policy, DocumentKind::Bucket(row.name.as_str()))
            .map_err(|failure| error(S3ErrorCode::MalformedPolicy, failure.to_string()))?;
        check_actions(&input.policy)?;
        if access_block(&row)?.block_public_policy && policy.is_public() {
            return Err(access_denied());
        }
        self.set_document(&extensions, &row.name, Setting::Policy, Some(input.policy)).await?;
        Ok(S3Response::new(dto::PutBucketPolicyOutput::default()))
    }

    pub(crate) async fn on_delete_bucket_policy(
        &self,
        request: S3Request<dto::DeleteBucketPolicyInput>,
    ) -> S3Result<S3Response<dto::DeleteBucketPolicyOutput>> {
        let S3Request { input, extensions, .. } = request;
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        self.set_document(&extensions, &row.name, Setting::Policy, None).await?;
        Ok(S3Response::new(dto::DeleteBucketPolicyOutput::default()))
    }

    /// Public by its policy or by its list, unless a block takes that away.
    pub(crate) async fn on_get_bucket_policy_status(
        &self,
        request: S3Request<dto::GetBucketPolicyStatusInput>,
    ) -> S3Result<S3Response<dto::GetBucketPolicyStatusOutput>> {
        let expected = request.input.expected_bucket_owner.as_deref();
        let row = self.bucket_row(&request.extensions, &request.input.bucket, expected).await?;
        let block = access_block(&row)?;
        let policy = row.settings.document(Setting::Policy);
        let policy = policy.and_then(|text| Policy::parse(text, DocumentKind::Bucket(row.name.as_str())).ok());
        let by_policy = !block.restrict_public_buckets && policy.is_some_and(|policy| policy.is_public());
        let lists_count = !block.ignore_public_acls && !ownership(&row)?.is_enforced();
        let is_public = Some(by_policy || (lists_count && bucket_acl(&row)?.is_public()));
        let policy_status = Some(dto::PolicyStatus { is_public });
        Ok(S3Response::new(dto::GetBucketPolicyStatusOutput { policy_status }))
    }

    pub(crate) async fn on_get_public_access_block(
        &self,
        request: S3Request<dto::GetPublicAccessBlockInput>,
    ) -> S3Result<S3Response<dto::GetPublicAccessBlockOutput>> {
        let expected = request.input.expected_bucket_owner.as_deref();
        let row = self.bucket_row(&request.extensions, &request.input.bucket, expected).await?;
        let Some(text) = row.settings.document(Setting::PublicAccessBlock) else {
            return Err(error_with_status(
                "NoSuchPublicAccessBlockConfiguration",
                StatusCode::NOT_FOUND,
                "The public access block configuration was not found",
            ));
        };
        let public_access_block_configuration = Some(from_text(text)?);
        Ok(S3Response::new(dto::GetPublicAccessBlockOutput { public_access_block_configuration }))
    }

    pub(crate) async fn on_put_public_access_block(
        &self,
        request: S3Request<dto::PutPublicAccessBlockInput>,
    ) -> S3Result<S3Response<dto::PutPublicAccessBlockOutput>> {
        let S3Request { input, extensions, .. } = request;
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let asked = input.public_access_block_configuration;
        let set = |switch: Option<bool>| Some(switch == Some(true)); // what is not said is off, and told so
        let block = dto::PublicAccessBlockConfiguration {
            block_public_acls: set(asked.block_public_acls),
            block_public_policy: set(asked.block_public_policy),
            ignore_public_acls: set(asked.ignore_public_acls),
            restrict_public_buckets: set(asked.restrict_public_buckets),
        };
        self.set_document(&extensions, &row.name, Setting::PublicAccessBlock, Some(to_text(&block)?)).await?;
        Ok(S3Response::new(dto::PutPublicAccessBlockOutput::default()))
    }

    pub(crate) async fn on_delete_public_access_block(
        &self,
        request: S3Request<dto::DeletePublicAccessBlockInput>,
    ) -> S3Result<S3Response<dto::DeletePublicAccessBlockOutput>> {
        let S3Request { input, extensions, .. } = request;
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        self.set_document(&extensions, &row.name, Setting::PublicAccessBlock, None).await?;
        Ok(S3Response::new(dto::DeletePublicAccessBlockOutput::default()))
    }

    pub(crate) async fn on_get_bucket_ownership_controls(
        &self,
        request: S3Request<dto::GetBucketOwnershipControlsInput>,
    ) -> S3Result<S3Response<dto::GetBucketOwnershipControlsOutput>> {
        let expected = request.input.expected_bucket_owner.as_deref();
        let row = self.bucket_row(&request.extensions, &request.input.bucket, expected).await?;
        let Some(name) = row.settings.document(Setting::OwnershipControls) else {
            return Err(error_with_status(
                "OwnershipControlsNotFoundError",
                StatusCode::NOT_FOUND,
                "The bucket ownership controls were not found",
            ));
        };
        let rule = dto::OwnershipControlsRule { object_ownership: name.to_owned().into() };
        let ownership_controls = Some(dto::OwnershipControls { rules: vec![rule] });
        Ok(S3Response::new(dto::GetBucketOwnershipControlsOutput { ownership_controls }))
    }

    pub(crate) async fn on_put_bucket_ownership_controls(
        &self,
        request: S3Request<dto::PutBucketOwnershipControlsInput>,
    ) -> S3Result<S3Response<dto::PutBucketOwnershipControlsOutput>> {
        let S3Request { input, extensions, .. } = request;
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let malformed = || {
            let text = "The XML you provided was not well-formed or did not validate against our published schema";
            error(S3ErrorCode::MalformedXML, text)
        };
        let [rule] = &input.ownership_controls.rules[..] else { return Err(malformed()) };
        let ownership = Ownership::from_name(rule.object_ownership.as_str()).ok_or_else(malformed)?;
        if ownership.is_enforced() && bucket_acl(&row)? != Acl::private(&row.owner) {
            return Err(acl_with_ownership());
        }
        let text = Some(ownership.name().to_owned());
        self.set_document(&extensions, &row.name, Setting::OwnershipControls, text).await?;
        Ok(S3Response::new(dto::PutBucketOwnershipControlsOutput::default()))
    }

    pub(crate) async fn on_delete_bucket_ownership_controls(
        &self,
        request: S3Request<dto::DeleteBucketOwnershipControlsInput>,
    ) -> S3Result<S3Response<dto::DeleteBucketOwnershipControlsOutput>> {
        let S3Request { input, extensions, .. } = request;
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        self.set_document(&extensions, &row.name, Setting::OwnershipControls, None).await?;
        Ok(S3Response::new(dto::DeleteBucketOwnershipControlsOutput::default()))
    }
}

pub(crate) fn acl_with_ownership() -> S3Error {
    error_with_status(
        "InvalidBucketAclWithObjectOwnership",
        StatusCode::BAD_REQUEST,
        "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting",
    )
}
