//! CopyObject, and the source that UploadPartCopy shares with it.

use http::Extensions;
use meridian_object::{CopyRequest, CopySource, Directive, ObjectError, VersionId};
use s3s::dto;
use s3s::{S3Error, S3Request, S3Response, S3Result};

use crate::attributes::AttributeHeaders;
use crate::checksums::{computed, named};
use crate::conditions::{ReadConditions, write_condition};
use crate::errors::{invalid_argument, invalid_request, not_implemented};
use crate::gateway::{Gateway, failed, refuse_subresources};
use crate::put::{checksum_texts, checksum_type};
use crate::sse::{is_asked_for, told};
use crate::versioning::{self, version_text};
use crate::wire_values::{etag, object_key, timestamp};

impl Gateway {
    pub(crate) async fn on_copy_object(
        &self,
        request: S3Request<dto::CopyObjectInput>,
    ) -> S3Result<S3Response<dto::CopyObjectOutput>> {
        refuse_subresources(&request.uri, &[])?;
        let S3Request { input, headers, extensions, .. } = request;
        let (wish, source_key) =
            (self.sse.of(&extensions).wish(&headers)?, self.sse.of(&extensions).source_key(&headers)?);
        let bucket = self.bucket(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let conditions = ReadConditions {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            if_modified_since: input.copy_source_if_modified_since,
            if_unmodified_since: input.copy_source_if_unmodified_since,
        };
        let expected_owner = input.expected_source_bucket_owner.as_deref();
        let source = self.copy_source(&extensions, &input.copy_source, conditions, expected_owner).await?;
        let changes =
            input.storage_class.is_some() || input.website_redirect_location.is_some() || is_asked_for(&headers);
        let attributes = AttributeHeaders {
            content_type: input.content_type,
            cache_control: input.cache_control,
            content_disposition: input.content_disposition,
            content_encoding: input.content_encoding,
            content_language: input.content_language,
            expires: input.expires,
            metadata: input.metadata,
            tagging: input.tagging,
            website_redirect: input.website_redirect_location,
            storage_class: input.storage_class.map(|class| class.as_str().to_owned()),
            lock_mode: input.object_lock_mode.map(|mode| mode.as_str().to_owned()),
            lock_until: input.object_lock_retain_until_date,
            legal_hold: input.object_lock_legal_hold_status.map(|status| status.as_str().to_owned()),
        };
        let condition =
            |name| headers.get(name).map(|value: &http::HeaderValue| destination_condition(value)).transpose();
        let copy = CopyRequest {
            source,
            bucket,
            key: object_key(&input.key)?,
            metadata: directive("x-amz-metadata-directive", input.metadata_directive.as_ref().map(|it| it.as_str()))?,
            tags: directive("x-amz-tagging-directive", input.tagging_directive.as_ref().map(|it| it.as_str()))?,
            attributes: self.with_access(&extensions, &headers, attributes.into_attributes()?).await?,
            changes,
            condition: write_condition(condition("if-match")?, condition("if-none-match")?)?,
            digest: input.checksum_algorithm.map(|name| named(name.as_str())).transpose()?.map(computed),
        };
        let copied = self.objects.copy_with_keys(copy, source_key, wish).await;
        let (outcome, source) = copied.map_err(source_failure(&extensions))?;
        let [crc32, crc32c, crc64nvme, sha1, sha256] = checksum_texts(&outcome.checksums, 0);
        let result = dto::CopyObjectResult {
            e_tag: Some(etag(&outcome.etag)),
            last_modified: Some(timestamp(outcome.stamp.timestamp.unix_ms())),
            checksum_type: checksum_type(&outcome.checksums),
            checksum_crc32: crc32,
            checksum_crc32c: crc32c,
            checksum_crc64nvme: crc64nvme,
            checksum_sha1: sha1,
            checksum_sha256: sha256,
        };
        let answer = S3Response::new(dto::CopyObjectOutput {
            copy_object_result: Some(result),
            version_id: version_text(outcome.version),
            copy_source_version_id: version_text(source.shown_version),
            ..Default::default()
        });
        Ok(told(answer, outcome.encryption.as_deref(), &headers))
    }

    /// Reads `x-amz-copy-source` and lets the request use its bucket.
    pub(crate) async fn copy_source(
        &self,
        extensions: &Extensions,
        source: &dto::CopySource,
        conditions: ReadConditions,
        expected_owner: Option<&str>,
    ) -> S3Result<CopySource> {
        let (bucket, key, version) = source_names(source)?;
        let bucket = self.bucket(extensions, bucket, expected_owner).await?;
        Ok(CopySource { bucket, key: object_key(key)?, version, preconditions: conditions.into() })
    }
}

/// A failed copy: S3 says of a source that is a delete marker, and was named by its version, what it says of nothing else.
pub(crate) fn source_failure(extensions: &Extensions) -> impl Fn(ObjectError) -> S3Error + use<> {
    let failed = failed(extensions);
    move |failure| match failure {
        ObjectError::DeleteMarker { named: true, .. } => {
            invalid_request("The source of a copy request may not specifically refer to a delete marker by version id.")
        }
        failure => failed(failure),
    }
}

fn source_names(source: &dto::CopySource) -> S3Result<(&str, &str, Option<VersionId>)> {
    match source {
        dto::CopySource::Bucket { bucket, key, version_id } => {
            Ok((bucket, key, versioning::version_id(version_id.as_deref())?))
        }
        dto::CopySource::AccessPoint { .. } | dto::CopySource::Outpost { .. } => {
            Err(not_implemented("A copy source that is an access point"))
        }
    }
}

fn directive(name: &'static str, value: Option<&str>) -> S3Result<Directive> {
    match value {
        None | Some("COPY") => Ok(Directive::Copy),
        Some("REPLACE") => Ok(Directive::Replace),
        Some(_) => Err(invalid_argument(name, "must be COPY or REPLACE")),
    }
}

/// s3s does not know conditions on a copy's destination.
fn destination_condition(value: &http::HeaderValue) -> S3Result<dto::ETagCondition> {
    dto::ETagCondition::parse_http_header(value.as_bytes())
        .map_err(|_| invalid_argument("If-Match", "must be an ETag or *"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_objects_of_buckets() {
        let parse = |header: &str| dto::CopySource::parse(header).unwrap();
        assert_eq!(source_names(&parse("/photos/a%20b/..")).unwrap(), ("photos", "a b/..", None));
        let (_, _, version) = source_names(&parse("photos/a?versionId=null")).unwrap();
        assert_eq!(version, Some(VersionId::Null));
        assert!(source_names(&parse("photos/a?versionId=7")).is_err());
        let access_point = "arn:aws:s3:us-east-1:123456789012:accesspoint/point/object/a";
        assert!(source_names(&parse(access_point)).is_err());
    }

    #[test]
    fn directives_are_copy_or_replace() {
        assert_eq!(directive("x", None).unwrap(), Directive::Copy);
        assert_eq!(directive("x", Some("REPLACE")).unwrap(), Directive::Replace);
        assert!(directive("x", Some("replace")).is_err());
    }
}
