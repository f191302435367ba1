//! GetObject and HeadObject: the same questions, with and without bytes.

use std::ops::Range;

use futures::TryStreamExt;
use http::Extensions;
use http::header::RANGE;
use http::{HeaderMap, HeaderValue, Uri};
use http_body::Frame;
use http_body_util::StreamBody;
use meridian_object::{ByteStream, Checksum, GetRequest, ObjectInfo};
use meridian_types::BucketName;
use s3s::dto;
use s3s::{Body, S3Request, S3Response, S3Result};

use crate::attributes::{CONTENT_TYPE_DEFAULT, expires, metadata, url_decode};
use crate::auth::context_of;
use crate::auth::principal_of;
use crate::conditions::{ReadConditions, range_spec};
use crate::errors::invalid_request;
use crate::gateway::{Gateway, failed, refuse_subresources};
use crate::lifecycle_rules::expiration_header;
use crate::locks::{legal_hold_status, mode_name};
use crate::put::{checksum_texts, checksum_type};
use crate::replication_status::replication_status;
use crate::sse;
use crate::versioning::{version_id, version_text};
use crate::wire_values::{etag, object_key, part_number, timestamp};

/// What S3 refuses of a read whatever the object is.
///
/// # Errors
/// `InvalidRequest` for a part and a range at once, and for headers of the answer that nobody in particular asks for.
fn check_read(uri: &Uri, headers: &HeaderMap, extensions: &Extensions) -> S3Result<()> {
    let pairs = uri.query().unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    if headers.contains_key(RANGE) && pairs.clone().any(|(name, _)| name == "partNumber") {
        return Err(invalid_request("Cannot specify both Range header and partNumber query parameter"));
    }
    for (name, value) in pairs.filter(|(name, _)| name.starts_with("response-")) {
        if principal_of(extensions).is_err() {
            return Err(invalid_request(
                "Request specific response headers cannot be used for anonymous GET requests.",
            ));
        }
        // s3s would answer 500 to what no header can hold.
        if url_decode(value).is_none_or(|value| HeaderValue::from_bytes(value.as_bytes()).is_err()) {
            return Err(invalid_request(format!("invalid overridden header: {name}")));
        }
    }
    Ok(())
}

impl Gateway {
    pub(crate) async fn on_get_object(
        &self,
        request: S3Request<dto::GetObjectInput>,
    ) -> S3Result<S3Response<dto::GetObjectOutput>> {
        refuse_subresources(&request.uri, &["partNumber", "versionId"])?;
        check_read(&request.uri, &request.headers, &request.extensions)?;
        let S3Request { input, headers, extensions, .. } = request;
        let key = self.sse.of(&extensions).key_alone(&headers)?;
        let bucket = self.bucket(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let version_named = input.version_id.is_some();
        let partial = input.range.is_some() || input.part_number.is_some();
        let get = GetRequest {
            bucket,
            key: object_key(&input.key)?,
            version: version_id(input.version_id.as_deref())?,
            range: input.range.map(range_spec),
            part_number: input.part_number.map(part_number).transpose()?,
            preconditions: ReadConditions {
                if_match: input.if_match,
                if_none_match: input.if_none_match,
                if_modified_since: input.if_modified_since,
                if_unmodified_since: input.if_unmodified_since,
            }
            .into(),
        };
        let outcome = self.objects.get_with_key(get, key.as_ref()).await.map_err(failed(&extensions))?;
        let (info, range) = (outcome.info, outcome.range);
        let expiration = expiration(&extensions, version_named, &info);
        let replication_status = self.replication_status(&extensions, &info);
        let told = told_checksums(&info, &range, input.part_number, input.checksum_mode.as_ref());
        let is_told = told.iter().any(Option::is_some);
        let [crc32, crc32c, crc64nvme, sha1, sha256] = told;
        let answer = S3Response::new(dto::GetObjectOutput {
            body: Some(outgoing(outcome.body)),
            expiration,
            replication_status,
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(length(&range)),
            content_range: content_range(partial, &range, info.size),
            content_type: Some(content_type(&info)),
            cache_control: info.attributes.cache_control.clone(),
            content_disposition: info.attributes.content_disposition.clone(),
            content_encoding: info.attributes.content_encoding.clone(),
            content_language: info.attributes.content_language.clone(),
            expires: expires(&info.attributes),
            metadata: metadata(&info.attributes),
            e_tag: Some(etag(&info.etag)),
            last_modified: Some(timestamp(info.last_modified_unix_ms)),
            parts_count: parts_count(&info, input.part_number),
            tag_count: tag_count(&info),
            version_id: version_text(info.shown_version),
            website_redirect_location: info.attributes.website_redirect.clone(),
            storage_class: info.attributes.storage_class.clone().map(dto::StorageClass::from),
            object_lock_mode: lock_mode(&info),
            object_lock_retain_until_date: info.attributes.retention.map(|it| timestamp(it.until_unix_ms)),
            object_lock_legal_hold_status: legal_hold_status(&info.attributes),
            checksum_type: checksum_type(&info.checksums).filter(|_| is_told),
            checksum_crc32: crc32,
            checksum_crc32c: crc32c,
            checksum_crc64nvme: crc64nvme,
            checksum_sha1: sha1,
            checksum_sha256: sha256,
            ..Default::default()
        });
        Ok(sse::told(answer, info.attributes.encryption.as_deref(), &headers))
    }

    pub(crate) async fn on_head_object(
        &self,
        request: S3Request<dto::HeadObjectInput>,
    ) -> S3Result<S3Response<dto::HeadObjectOutput>> {
        check_read(&request.uri, &request.headers, &request.extensions)?;
        let S3Request { input, headers, extensions, .. } = request;
        let key = self.sse.of(&extensions).key_alone(&headers)?;
        let bucket = self.bucket(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let version_named = input.version_id.is_some();
        let partial = input.range.is_some() || input.part_number.is_some();
        let head = GetRequest {
            bucket,
            key: object_key(&input.key)?,
            version: version_id(input.version_id.as_deref())?,
            range: input.range.map(range_spec),
            part_number: input.part_number.map(part_number).transpose()?,
            preconditions: ReadConditions {
                if_match: input.if_match,
                if_none_match: input.if_none_match,
                if_modified_since: input.if_modified_since,
                if_unmodified_since: input.if_unmodified_since,
            }
            .into(),
        };
        let outcome = self.objects.head_with_key(head, key.as_ref()).await.map_err(failed(&extensions))?;
        let (info, range) = (outcome.info, outcome.range);
        let expiration = expiration(&extensions, version_named, &info);
        let replication_status = self.replication_status(&extensions, &info);
        let told = told_checksums(&info, &range, input.part_number, input.checksum_mode.as_ref());
        let is_told = told.iter().any(Option::is_some);
        let [crc32, crc32c, crc64nvme, sha1, sha256] = told;
        let mut answer = S3Response::new(dto::HeadObjectOutput {
            expiration,
            replication_status,
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(length(&range)),
            content_range: content_range(partial, &range, info.size),
            content_type: input.response_content_type.or_else(|| Some(content_type(&info))),
            cache_control: input.response_cache_control.or_else(|| info.attributes.cache_control.clone()),
            content_disposition: input
                .response_content_disposition
                .or_else(|| info.attributes.content_disposition.clone()),
            content_encoding: input.response_content_encoding.or_else(|| info.attributes.content_encoding.clone()),
            content_language: input.response_content_language.or_else(|| info.attributes.content_language.clone()),
            expires: input.response_expires.or_else(|| expires(&info.attributes)),
            metadata: metadata(&info.attributes),
            e_tag: Some(etag(&info.etag)),
            last_modified: Some(timestamp(info.last_modified_unix_ms)),
            parts_count: parts_count(&info, input.part_number),
            version_id: version_text(info.shown_version),
            website_redirect_location: info.attributes.website_redirect.clone(),
            storage_class: info.attributes.storage_class.clone().map(dto::StorageClass::from),
            object_lock_mode: lock_mode(&info),
            object_lock_retain_until_date: info.attributes.retention.map(|it| timestamp(it.until_unix_ms)),
            object_lock_legal_hold_status: legal_hold_status(&info.attributes),
            checksum_type: checksum_type(&info.checksums).filter(|_| is_told),
            checksum_crc32: crc32,
            checksum_crc32c: crc32c,
            checksum_crc64nvme: crc64nvme,
            checksum_sha1: sha1,
            checksum_sha256: sha256,
            ..Default::default()
        });
        if let Some(count) = tag_count(&info) {
            answer.headers.insert("x-amz-tagging-count", HeaderValue::from(count)); // s3s does not know it of HEAD
        }
        Ok(sse::told(answer, info.attributes.encryption.as_deref(), &headers))
    }
}

/// A question for all that is known of an object.
pub(crate) fn plain_read(bucket: BucketName, key: &str, version: Option<&str>) -> S3Result<GetRequest> {
    let (key, version) = (object_key(key)?, version_id(version)?);
    Ok(GetRequest { bucket, key, version, range: None, part_number: None, preconditions: Default::default() })
}

impl Gateway {
    fn replication_status(&self, extensions: &Extensions, info: &ObjectInfo) -> Option<dto::ReplicationStatus> {
        let bucket = context_of(extensions).and_then(|context| context.bucket());
        replication_status(&self.objects, self.durable_everywhere.as_ref(), bucket, info)
    }
}

/// Of the current version only: whether another one is current is not known here.
fn expiration(extensions: &Extensions, version_named: bool, info: &ObjectInfo) -> Option<String> {
    let bucket = context_of(extensions).and_then(|context| context.bucket()).filter(|_| !version_named);
    expiration_header(bucket, info)
}

fn lock_mode(info: &ObjectInfo) -> Option<dto::ObjectLockMode> {
    info.attributes.retention.map(|retention| dto::ObjectLockMode::from_static(mode_name(retention.mode)))
}

/// A body for s3s, which wants it shareable: the mutex inside is never contended.
pub(crate) fn outgoing(body: ByteStream) -> dto::StreamingBlob {
    Body::http_body_unsync(StreamBody::new(body.map_ok(Frame::data))).into()
}

fn length(range: &Range<u64>) -> i64 {
    i64::try_from(range.end - range.start).unwrap_or(i64::MAX)
}

/// Of an answer to a question for a part; an empty one has no range to tell.
fn content_range(partial: bool, range: &Range<u64>, size: u64) -> Option<String> {
    (partial && range.start < range.end).then(|| format!("bytes {}-{}/{size}", range.start, range.end - 1))
}

fn content_type(info: &ObjectInfo) -> String {
    info.attributes.content_type.clone().unwrap_or_else(|| CONTENT_TYPE_DEFAULT.to_owned())
}

fn parts_count(info: &ObjectInfo, asked: Option<i32>) -> Option<i32> {
    let count = i32::try_from(info.parts.len()).unwrap_or(i32::MAX);
    (asked.is_some() && count > 0).then_some(count)
}

fn tag_count(info: &ObjectInfo) -> Option<i32> {
    i32::try_from(info.attributes.tags.len()).ok().filter(|count| *count > 0)
}

/// A checksum is told to those who ask: of a part with that part, of the whole object when all of it is sent.
fn told_checksums(
    info: &ObjectInfo,
    range: &Range<u64>,
    part_number: Option<i32>,
    mode: Option<&dto::ChecksumMode>,
) -> [Option<String>; 5] {
    let asked = mode.is_some_and(|mode| mode.as_str().eq_ignore_ascii_case(dto::ChecksumMode::ENABLED));
    if !asked {
        return Default::default();
    }
    let part = info.parts.iter().find(|part| part_number == Some(i32::from(part.number)));
    if let Some((part, whole)) = part.zip(info.checksums.first()) {
        let Some(value) = part.checksum.clone() else { return Default::default() };
        return checksum_texts(&[Checksum { algorithm: whole.algorithm, value, composite: false }], 0);
    }
    if *range != (0..info.size) {
        return Default::default();
    }
    checksum_texts(&info.checksums, info.parts.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_object::{Attributes, ChecksumAlgorithm, PartSize, VersionId};
    use meridian_types::{DatacenterId, Stamp, Timestamp};

    fn info(size: u64, parts: usize, composite: bool) -> ObjectInfo {
        ObjectInfo {
            key: "k".parse().unwrap(),
            size,
            etag: "e".to_owned(),
            attributes: Attributes::default(),
            stamp: Stamp::new(Timestamp::ZERO, DatacenterId::new(1).unwrap()),
            version: VersionId::Null,
            shown_version: None,
            last_modified_unix_ms: 0,
            parts: (0..parts)
                .map(|part| PartSize { number: part as u16 + 1, size: 1, checksum: Some(vec![1; 4]) })
                .collect(),
            checksums: vec![Checksum { algorithm: ChecksumAlgorithm::Crc32, value: vec![0; 4], composite }],
        }
    }

    #[test]
    fn ranges_are_told_only_where_they_were_asked_for() {
        assert_eq!(content_range(true, &(2..5), 10).as_deref(), Some("bytes 2-4/10"));
        assert_eq!(content_range(false, &(0..10), 10), None);
        assert_eq!(content_range(true, &(0..0), 0), None);
        assert_eq!(length(&(2..5)), 3);
    }

    #[test]
    fn checksums_are_told_of_whole_objects_to_those_who_ask() {
        let enabled = dto::ChecksumMode::from_static(dto::ChecksumMode::ENABLED);
        let told = |info: &ObjectInfo, range, mode| told_checksums(info, &range, None, mode)[0].clone();
        let of_part = |info: &ObjectInfo, part| told_checksums(info, &(0..1), Some(part), Some(&enabled))[0].clone();
        assert_eq!(of_part(&info(3, 3, true), 1).as_deref(), Some("AQEBAQ=="));
        assert_eq!(told(&info(3, 0, false), 0..3, Some(&enabled)).as_deref(), Some("AAAAAA=="));
        assert_eq!(told(&info(3, 3, true), 0..3, Some(&enabled)).as_deref(), Some("AAAAAA==-3"));
        assert_eq!(told(&info(3, 0, false), 0..2, Some(&enabled)), None);
        assert_eq!(told(&info(3, 0, false), 0..3, None), None);
    }

    #[test]
    fn parts_are_counted_when_a_part_is_asked_for() {
        assert_eq!(parts_count(&info(3, 3, true), Some(1)), Some(3));
        assert_eq!(parts_count(&info(3, 3, true), None), None);
        assert_eq!(parts_count(&info(3, 0, true), Some(1)), None);
    }
}
