//! Multipart uploads: create, parts, copied parts, complete, abort.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html>

use http::header::HOST;
use http::{HeaderMap, Uri};
use meridian_object::{ChosenPart, CompleteRequest, CopyPartRequest, CreateUploadRequest, ObjectError, PutPartRequest};
use meridian_types::limits::PART_NUMBER_MAX;
use s3s::dto;
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};

use crate::attributes::AttributeHeaders;
use crate::auth::context_of;
use crate::checksums::{is_composite, of_whole_object, promised, upload_checksum, verified};
use crate::conditions::{ReadConditions, copy_range, write_condition};
use crate::copy::source_failure;
use crate::errors::{error, invalid_argument, not_implemented};
use crate::gateway::{Gateway, failed};
use crate::lifecycle_rules::abort_of;
use crate::put::{body_length, checksum_texts, checksum_type};
use crate::sse::told;
use crate::versioning::version_text;
use crate::wire_values::{etag, object_key, part_number, timestamp, upload_id, url_encode};
use crate::xml_body::content_md5;

impl Gateway {
    pub(crate) async fn on_create_multipart_upload(
        &self,
        request: S3Request<dto::CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<dto::CreateMultipartUploadOutput>> {
        let S3Request { input, headers, extensions, .. } = request;
        let wish = self.sse.of(&extensions).wish(&headers)?;
        let algorithm = input.checksum_algorithm.as_ref().map(|algorithm| algorithm.as_str());
        let checksum = upload_checksum(algorithm, input.checksum_type.as_ref().map(|kind| kind.as_str()))?;
        let bucket = self.bucket(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
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
        let key = object_key(&input.key)?;
        let create = CreateUploadRequest {
            bucket,
            key,
            attributes: self.with_access(&extensions, &headers, attributes.into_attributes()?).await?,
            checksum,
        };
        let outcome = self.objects.create_upload_with_key(create, wish).await.map_err(failed(&extensions))?;
        let row = context_of(&extensions).and_then(|context| context.bucket());
        let abort = row.and_then(|row| abort_of(row, &input.key, outcome.initiated.unix_ms()));
        let answer = S3Response::new(dto::CreateMultipartUploadOutput {
            abort_date: abort.as_ref().map(|(at, _)| timestamp(*at)),
            abort_rule_id: abort.map(|(_, id)| id),
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(outcome.upload.to_string()),
            checksum_algorithm: input.checksum_algorithm,
            checksum_type: checksum.map(|checksum| kind_of(checksum.composite)),
            ..Default::default()
        });
        Ok(told(answer, outcome.encryption.as_deref(), &headers))
    }

    pub(crate) async fn on_upload_part(
        &self,
        request: S3Request<dto::UploadPartInput>,
    ) -> S3Result<S3Response<dto::UploadPartOutput>> {
        let S3Request { input, headers, extensions, trailing_headers, .. } = request;
        let customer = self.sse.of(&extensions).customer_key(&headers)?; // all else was said at Create
        let bucket = self.bucket(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let body = verified(input.body, promised(&headers)?, trailing_headers, context_of(&extensions).cloned());
        let put = PutPartRequest {
            bucket,
            key: object_key(&input.key)?,
            number: part_number(input.part_number)?,
            upload: upload_id(&input.upload_id)?,
            body: body.stream,
            length: Some(body_length(input.content_length, &headers)?),
            content_md5: input.content_md5.as_deref().map(content_md5).transpose()?,
            finish: body.finish,
        };
        let outcome = self.objects.put_part_with_key(put, customer.as_ref()).await.map_err(failed(&extensions))?;
        let [crc32, crc32c, crc64nvme, sha1, sha256] = checksum_texts(&outcome.checksums, 0);
        let answer = S3Response::new(dto::UploadPartOutput {
            e_tag: Some(etag(&outcome.etag)),
            checksum_crc32: crc32,
            checksum_crc32c: crc32c,
            checksum_crc64nvme: crc64nvme,
            checksum_sha1: sha1,
            checksum_sha256: sha256,
            ..Default::default()
        });
        Ok(told(answer, outcome.encryption.as_deref(), &headers))
    }

    pub(crate) async fn on_upload_part_copy(
        &self,
        request: S3Request<dto::UploadPartCopyInput>,
    ) -> S3Result<S3Response<dto::UploadPartCopyOutput>> {
        let S3Request { input, headers, extensions, .. } = request;
        let (source_key, customer) =
            (self.sse.of(&extensions).source_key(&headers)?, self.sse.of(&extensions).customer_key(&headers)?);
        let bucket = self.bucket(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let conditions = ReadConditions {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            if_modified_since: input.copy_source_if_modified_since,
            if_unmodified_since: input.copy_source_if_unmodified_since,
        };
        let expected_owner = input.expected_source_bucket_owner.as_deref();
        let copy = CopyPartRequest {
            source: self.copy_source(&extensions, &input.copy_source, conditions, expected_owner).await?,
            range: input.copy_source_range.as_deref().map(copy_range).transpose()?,
            bucket,
            key: object_key(&input.key)?,
            number: part_number(input.part_number)?,
            upload: upload_id(&input.upload_id)?,
        };
        let copied = self.objects.copy_part_with_keys(copy, source_key.as_ref(), customer.as_ref()).await;
        let (outcome, source) = copied.map_err(|failure| match failure {
            ObjectError::InvalidRange { size } => {
                let text = format!("Range specified is not valid for source object of size: {size}");
                invalid_argument("x-amz-copy-source-range", &text)
            }
            failure => source_failure(&extensions)(failure),
        })?;
        let [crc32, crc32c, crc64nvme, sha1, sha256] = checksum_texts(&outcome.checksums, 0);
        let result = dto::CopyPartResult {
            e_tag: Some(etag(&outcome.etag)),
            last_modified: Some(timestamp(outcome.stored.unix_ms())),
            checksum_crc32: crc32,
            checksum_crc32c: crc32c,
            checksum_crc64nvme: crc64nvme,
            checksum_sha1: sha1,
            checksum_sha256: sha256,
        };
        let answer = S3Response::new(dto::UploadPartCopyOutput {
            copy_part_result: Some(result),
            copy_source_version_id: version_text(source.shown_version),
            ..Default::default()
        });
        Ok(told(answer, outcome.encryption.as_deref(), &headers))
    }

    pub(crate) async fn on_complete_multipart_upload(
        &self,
        request: S3Request<dto::CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<dto::CompleteMultipartUploadOutput>> {
        let S3Request { input, headers, extensions, uri, .. } = request;
        let bucket = self.bucket(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let parts = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let complete = CompleteRequest {
            bucket,
            key: object_key(&input.key)?,
            upload: upload_id(&input.upload_id)?,
            parts: choices(parts)?,
            condition: write_condition(input.if_match, input.if_none_match)?,
            checksums: of_whole_object([
                input.checksum_crc32.as_deref(),
                input.checksum_crc32c.as_deref(),
                input.checksum_crc64nvme.as_deref(),
                input.checksum_sha1.as_deref(),
                input.checksum_sha256.as_deref(),
            ])?,
            composite: input.checksum_type.as_ref().map(|kind| is_composite(kind.as_str())).transpose()?,
            size: input.mpu_object_size.and_then(|size| u64::try_from(size).ok()),
        };
        let count = complete.parts.len();
        let outcome = self.objects.complete_upload(complete).await.map_err(failed(&extensions))?;
        let [crc32, crc32c, crc64nvme, sha1, sha256] = checksum_texts(&outcome.checksums, count);
        let answer = S3Response::new(dto::CompleteMultipartUploadOutput {
            location: Some(location(&headers, &uri, &input.bucket, &input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(etag(&outcome.etag)),
            version_id: version_text(outcome.version),
            checksum_type: checksum_type(&outcome.checksums),
            checksum_crc32: crc32,
            checksum_crc32c: crc32c,
            checksum_crc64nvme: crc64nvme,
            checksum_sha1: sha1,
            checksum_sha256: sha256,
            ..Default::default()
        });
        Ok(told(answer, outcome.encryption.as_deref(), &headers))
    }

    pub(crate) async fn on_abort_multipart_upload(
        &self,
        request: S3Request<dto::AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<dto::AbortMultipartUploadOutput>> {
        let S3Request { input, extensions, .. } = request;
        if input.if_match_initiated_time.is_some() {
            return Err(not_implemented("An abort that depends on time"));
        }
        let bucket = self.bucket(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let (key, upload) = (object_key(&input.key)?, upload_id(&input.upload_id)?);
        self.objects.abort_upload(&bucket, &key, upload).await.map_err(failed(&extensions))?;
        Ok(S3Response::new(dto::AbortMultipartUploadOutput::default()))
    }
}

/// The parts that make the object, as the client lists them.
///
/// # Errors
/// `MalformedXML` for none or too many, `InvalidPart` for one without number or ETag.
fn choices(parts: Vec<dto::CompletedPart>) -> S3Result<Vec<ChosenPart>> {
    if parts.is_empty() || parts.len() > usize::from(PART_NUMBER_MAX) {
        let text = "You must specify between 1 and 10000 parts.";
        return Err(error(S3ErrorCode::MalformedXML, text));
    }
    let mut choices = Vec::with_capacity(parts.len());
    for part in parts {
        let invalid = || error(S3ErrorCode::InvalidPart, "A part needs its number and its ETag.");
        let number = part_number(part.part_number.ok_or_else(invalid)?)?;
        let given = of_whole_object([
            part.checksum_crc32.as_deref(),
            part.checksum_crc32c.as_deref(),
            part.checksum_crc64nvme.as_deref(),
            part.checksum_sha1.as_deref(),
            part.checksum_sha256.as_deref(),
        ])?;
        let checksum = given.into_iter().next();
        choices.push(ChosenPart { number, etag: part.e_tag.ok_or_else(invalid)?.into_value(), checksum });
    }
    Ok(choices)
}

pub(crate) fn kind_of(composite: bool) -> dto::ChecksumType {
    let name = if composite { dto::ChecksumType::COMPOSITE } else { dto::ChecksumType::FULL_OBJECT };
    dto::ChecksumType::from_static(name)
}

/// The object's URL, as the client could write it.
pub(crate) fn location(headers: &HeaderMap, uri: &Uri, bucket: &str, key: &str) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.authority().map(|authority| authority.as_str())).unwrap_or_default();
    let in_host = host.strip_prefix(bucket).is_some_and(|rest| rest.starts_with('.'));
    let bucket = if in_host { String::new() } else { format!("{bucket}/") };
    format!("http://{host}/{bucket}{}", url_encode(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: Option<i32>, tag: Option<&str>) -> dto::CompletedPart {
        let e_tag = tag.map(|tag| dto::ETag::Strong(tag.to_owned()));
        dto::CompletedPart { part_number: number, e_tag, ..Default::default() }
    }

    #[test]
    fn parts_need_number_and_etag() {
        let good = choices(vec![part(Some(1), Some("a")), part(Some(10_000), Some("b"))]).unwrap();
        assert_eq!(good[1], ChosenPart { number: 10_000, etag: "b".to_owned(), checksum: None });
        for (parts, code) in [
            (vec![], "MalformedXML"),
            (vec![part(Some(1), Some("a")); 10_001], "MalformedXML"),
            (vec![part(None, Some("a"))], "InvalidPart"),
            (vec![part(Some(1), None)], "InvalidPart"),
            (vec![part(Some(0), Some("a"))], "InvalidArgument"),
        ] {
            assert_eq!(choices(parts).unwrap_err().code().as_str(), code);
        }
    }

    #[test]
    fn a_location_is_a_url() {
        let headers: HeaderMap = [(HOST, "localhost:9000".parse().unwrap())].into_iter().collect();
        assert_eq!(location(&headers, &Uri::from_static("/b/k"), "b", "a b/é"), "http://localhost:9000/b/a%20b/%C3%A9");
    }
}
