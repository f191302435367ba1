//! Versioning of a bucket, and version ids on the wire.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketVersioning.html>

use meridian_object::{VersionId, Versioning};
use s3s::dto;
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};

use crate::errors::{access_denied, error, invalid_argument};
use crate::gateway::{Gateway, failed};

impl Gateway {
    pub(crate) async fn on_get_bucket_versioning(
        &self,
        request: S3Request<dto::GetBucketVersioningInput>,
    ) -> S3Result<S3Response<dto::GetBucketVersioningOutput>> {
        let expected = request.input.expected_bucket_owner.as_deref();
        let row = self.bucket_row(&request.extensions, &request.input.bucket, expected).await?;
        let status = match row.settings.versioning {
            Versioning::Off => None,
            Versioning::Enabled => Some(dto::BucketVersioningStatus::ENABLED),
            Versioning::Suspended => Some(dto::BucketVersioningStatus::SUSPENDED),
        };
        let status = status.map(dto::BucketVersioningStatus::from_static);
        Ok(S3Response::new(dto::GetBucketVersioningOutput { status, mfa_delete: None }))
    }

    pub(crate) async fn on_put_bucket_versioning(
        &self,
        request: S3Request<dto::PutBucketVersioningInput>,
    ) -> S3Result<S3Response<dto::PutBucketVersioningOutput>> {
        let S3Request { input, extensions, .. } = request;
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let configuration = input.versioning_configuration;
        if configuration.mfa_delete.as_ref().is_some_and(|mfa| mfa.as_str() == dto::MFADelete::ENABLED) {
            return Err(access_denied()); // nobody here has a device to show
        }
        let status = configuration.status.as_ref().map(|status| status.as_str());
        let versioning = versioning(status, row.settings.object_lock.is_some())?;
        let mut settings = row.settings;
        settings.versioning = versioning;
        self.objects.update_bucket(&row.name, settings).await.map_err(failed(&extensions))?;
        Ok(S3Response::new(dto::PutBucketVersioningOutput {}))
    }
}

fn versioning(status: Option<&str>, has_lock: bool) -> S3Result<Versioning> {
    match status {
        Some(dto::BucketVersioningStatus::ENABLED) => Ok(Versioning::Enabled),
        Some(dto::BucketVersioningStatus::SUSPENDED) if has_lock => Err(error(
            S3ErrorCode::InvalidBucketState,
            "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed.",
        )),
        Some(dto::BucketVersioningStatus::SUSPENDED) => Ok(Versioning::Suspended),
        Some(_) => Err(error(
            S3ErrorCode::MalformedXML,
            "The XML you provided was not well-formed or did not validate against our published schema",
        )),
        None => {
            Err(error(S3ErrorCode::IllegalVersioningConfigurationException, "The Versioning element must be specified"))
        }
    }
}

/// The version that a request names.
///
/// # Errors
/// `InvalidArgument` for what is no version id.
pub(crate) fn version_id(text: Option<&str>) -> S3Result<Option<VersionId>> {
    let Some(text) = text else { return Ok(None) };
    if text.is_empty() {
        return Err(invalid_argument("versionId", "Version id cannot be the empty string"));
    }
    text.parse().map(Some).map_err(|_| invalid_argument("versionId", "Invalid version id specified"))
}

/// A version as answers tell it.
pub(crate) fn version_text(version: Option<VersionId>) -> Option<String> {
    version.map(|version| version.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versioning_is_enabled_or_suspended() {
        assert_eq!(versioning(Some("Enabled"), true).unwrap(), Versioning::Enabled);
        assert_eq!(versioning(Some("Suspended"), false).unwrap(), Versioning::Suspended);
        for (status, has_lock, code) in [
            (Some("Suspended"), true, "InvalidBucketState"),
            (Some("enabled"), false, "MalformedXML"),
            (None, false, "IllegalVersioningConfigurationException"),
        ] {
            assert_eq!(versioning(status, has_lock).unwrap_err().code().as_str(), code);
        }
    }

    #[test]
    fn version_ids_are_ours_or_null() {
        assert_eq!(version_id(None).unwrap(), None);
        assert_eq!(version_id(Some("null")).unwrap(), Some(VersionId::Null));
        for text in ["", "x", "Null"] {
            assert_eq!(version_id(Some(text)).unwrap_err().code().as_str(), "InvalidArgument", "{text:?}");
        }
    }
}
