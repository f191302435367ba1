//! PutObject.

use http::HeaderMap;
use meridian_object::PutRequest;
use s3s::dto;
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};

use crate::attributes::AttributeHeaders;
use crate::auth::context_of;
use crate::checksums::{ALGORITHMS, promised, text, verified, with_default};
use crate::conditions::write_condition;
use crate::errors::{error, invalid_argument, not_implemented};
use crate::gateway::{Gateway, failed, refuse_subresources};
use crate::lifecycle_rules::expiration_of;
use crate::sse::told;
use crate::versioning::version_text;
use crate::wire_values::{etag, object_key};
use crate::xml_body::content_md5;

impl Gateway {
    pub(crate) async fn on_put_object(
        &self,
        request: S3Request<dto::PutObjectInput>,
    ) -> S3Result<S3Response<dto::PutObjectOutput>> {
        refuse_subresources(&request.uri, &[])?;
        let S3Request { input, headers, extensions, trailing_headers, .. } = request;
        let wish = self.sse.of(&extensions).wish(&headers)?;
        if input.write_offset_bytes.is_some() {
            return Err(not_implemented("An append"));
        }
        let bucket = self.bucket(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let key = object_key(&input.key)?;
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
        let body = verified(input.body, promised(&headers)?, trailing_headers, context_of(&extensions).cloned());
        let body = with_default(body);
        let put = PutRequest {
            bucket,
            key,
            attributes: self.with_access(&extensions, &headers, attributes.into_attributes()?).await?,
            body: body.stream,
            length: Some(body_length(input.content_length, &headers)?),
            content_md5: input.content_md5.as_deref().map(content_md5).transpose()?,
            condition: write_condition(input.if_match, input.if_none_match)?,
            finish: body.finish,
        };
        let (key, tags) = (put.key.clone(), put.attributes.tags.clone());
        let outcome = self.objects.put_with_key(put, wish).await.map_err(failed(&extensions))?;
        let expiration = context_of(&extensions)
            .and_then(|context| context.bucket())
            .and_then(|row| expiration_of(row, key.as_str(), outcome.size, &tags, outcome.stamp.timestamp.unix_ms()));
        let [crc32, crc32c, crc64nvme, sha1, sha256] = checksum_texts(&outcome.checksums, 0);
        let answer = S3Response::new(dto::PutObjectOutput {
            expiration,
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
}

/// The bytes that an upload announces: without frames, where it is `aws-chunked`. HTTP's own chunks do not say it, and S3
/// takes none.
///
/// # Errors
/// `MissingContentLength` (411).
pub(crate) fn body_length(content_length: Option<i64>, headers: &HeaderMap) -> S3Result<u64> {
    let decoded = headers.get("x-amz-decoded-content-length");
    if let Some(decoded) = decoded {
        let length = decoded.to_str().ok().and_then(|text| text.parse().ok());
        return length.ok_or_else(|| invalid_argument("x-amz-decoded-content-length", "must be a number of bytes"));
    }
    match content_length {
        Some(length) => u64::try_from(length).map_err(|_| invalid_argument("Content-Length", "must not be negative")),
        None => Err(error(S3ErrorCode::MissingContentLength, "You must provide the Content-Length HTTP header.")),
    }
}

/// The values for s3s's five fields, in the order of `ALGORITHMS`; `parts` counts those of a multipart object.
pub(crate) fn checksum_texts(checksums: &[meridian_object::Checksum], parts: usize) -> [Option<String>; 5] {
    ALGORITHMS.map(|algorithm| {
        checksums.iter().find(|checksum| checksum.algorithm == algorithm).map(|checksum| text(checksum, parts))
    })
}

pub(crate) fn checksum_type(checksums: &[meridian_object::Checksum]) -> Option<dto::ChecksumType> {
    checksums.first().map(|first| type_of(first.composite))
}

/// Whether a checksum is one of the parts' checksums.
pub(crate) fn type_of(composite: bool) -> dto::ChecksumType {
    let name = if composite { dto::ChecksumType::COMPOSITE } else { dto::ChecksumType::FULL_OBJECT };
    dto::ChecksumType::from_static(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use meridian_object::{Checksum, ChecksumAlgorithm};

    #[test]
    fn the_length_is_that_of_the_decoded_body() {
        let mut headers = HeaderMap::new();
        assert_eq!(body_length(Some(5), &headers).unwrap(), 5);
        assert_eq!(body_length(None, &headers).unwrap_err().status_code().unwrap().as_u16(), 411);
        assert!(body_length(Some(-1), &headers).is_err());
        headers.insert("x-amz-decoded-content-length", HeaderValue::from_static("7"));
        assert_eq!(body_length(None, &headers).unwrap(), 7);
        headers.insert("x-amz-decoded-content-length", HeaderValue::from_static("-7"));
        assert!(body_length(Some(5), &headers).is_err());
    }

    #[test]
    fn checksums_go_to_their_fields() {
        let checksum = Checksum { algorithm: ChecksumAlgorithm::Crc64Nvme, value: vec![0; 8], composite: false };
        assert_eq!(
            checksum_texts(std::slice::from_ref(&checksum), 0),
            [None, None, Some("AAAAAAAAAAA=".to_owned()), None, None]
        );
        assert_eq!(checksum_type(std::slice::from_ref(&checksum)).unwrap().as_str(), "FULL_OBJECT");
        let composite = Checksum { composite: true, ..checksum };
        assert_eq!(checksum_type(&[composite]).unwrap().as_str(), "COMPOSITE");
        assert_eq!(checksum_type(&[]), None);
    }
}
