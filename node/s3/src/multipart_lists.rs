//! ListParts and ListMultipartUploads.

use meridian_object::{ListPartsRequest, ListUploadsRequest, PartInfo, UploadChecksum, UploadInfo};
use s3s::dto;
use s3s::{S3Request, S3Response, S3Result};

use crate::attributes::storage_class;
use crate::auth::requester;
use crate::buckets::PAGE_MAX;
use crate::checksums::name;
use crate::errors::invalid_argument;
use crate::gateway::{Gateway, failed};
use crate::listing::Encoding;
use crate::multipart::kind_of;
use crate::put::checksum_texts;
use crate::wire_values::{etag, object_key, page_size, timestamp, upload_id};

impl Gateway {
    pub(crate) async fn on_list_parts(
        &self,
        request: S3Request<dto::ListPartsInput>,
    ) -> S3Result<S3Response<dto::ListPartsOutput>> {
        let S3Request { input, extensions, .. } = request;
        let limit = page_size("max-parts", input.max_parts, PAGE_MAX)?;
        let marker = input.part_number_marker.unwrap_or_default();
        let after = part_marker(marker)?;
        let bucket = self.bucket(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let asks = requester(&extensions);
        let (key, upload) = (object_key(&input.key)?, upload_id(&input.upload_id)?);
        let list = ListPartsRequest { bucket, key, upload, after, limit };
        let page = self.objects.list_parts(list).await.map_err(failed(&extensions))?;
        let next = page.next.filter(|_| page.truncated);
        Ok(S3Response::new(dto::ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            part_number_marker: Some(marker),
            next_part_number_marker: next.map(i32::from),
            max_parts: Some(limit as i32),
            is_truncated: Some(page.truncated),
            parts: Some(page.parts.iter().map(part).collect()),
            initiator: Some(initiator(asks.clone())),
            owner: Some(asks.clone()),
            storage_class: Some(storage_class(&page.attributes).to_owned().into()),
            checksum_algorithm: page.checksum.map(algorithm_of),
            checksum_type: page.checksum.map(|checksum| kind_of(checksum.composite)),
            ..Default::default()
        }))
    }

    pub(crate) async fn on_list_multipart_uploads(
        &self,
        request: S3Request<dto::ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<dto::ListMultipartUploadsOutput>> {
        let S3Request { input, extensions, .. } = request;
        let encoding = Encoding::of(input.encoding_type.as_ref())?;
        let limit = page_size("max-uploads", input.max_uploads, PAGE_MAX)?;
        let bucket = self.bucket(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let asks = requester(&extensions);
        let prefix = input.prefix.unwrap_or_default();
        let delimiter = input.delimiter.filter(|delimiter| !delimiter.is_empty());
        let key_marker = input.key_marker.filter(|marker| !marker.is_empty());
        // S3 ignores an upload marker that comes without a key.
        let upload_marker = input.upload_id_marker.filter(|marker| !marker.is_empty() && key_marker.is_some());
        let after_upload = upload_marker.as_deref().map(|marker| {
            marker.parse().map_err(|_| invalid_argument("upload-id-marker", "is no upload of this store"))
        });
        let list = ListUploadsRequest {
            bucket,
            prefix: prefix.clone(),
            delimiter: delimiter.clone(),
            after_key: key_marker.clone(),
            after_upload: after_upload.transpose()?,
            limit,
        };
        let page = self.objects.list_uploads(list).await.map_err(failed(&extensions))?;
        let next_key = page.next_key.as_deref().filter(|_| page.truncated);
        let next_upload = page.next_upload.filter(|_| page.truncated);
        let upload = |info: &UploadInfo| dto::MultipartUpload {
            key: Some(encoding.text(info.key.as_str())),
            upload_id: Some(info.upload.to_string()),
            initiated: Some(timestamp(info.initiated.unix_ms())),
            initiator: Some(initiator(asks.clone())),
            owner: Some(asks.clone()),
            storage_class: Some(storage_class(&info.attributes).to_owned().into()),
            checksum_algorithm: info.checksum.map(algorithm_of),
            checksum_type: info.checksum.map(|checksum| kind_of(checksum.composite)),
        };
        Ok(S3Response::new(dto::ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: Some(encoding.text(&prefix)),
            delimiter: delimiter.map(|delimiter| encoding.text(&delimiter)),
            key_marker: Some(key_marker.map(|marker| encoding.text(&marker)).unwrap_or_default()),
            upload_id_marker: Some(upload_marker.unwrap_or_default()),
            next_key_marker: next_key.map(|next| encoding.text(next)),
            next_upload_id_marker: next_upload.map(|next| next.to_string()),
            max_uploads: Some(limit as i32),
            is_truncated: Some(page.truncated),
            uploads: Some(page.uploads.iter().map(upload).collect()),
            common_prefixes: Some(encoding.prefixes(&page.common_prefixes)),
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }
}

/// A marker past the last possible part is past all parts.
fn part_marker(marker: i32) -> S3Result<u16> {
    let negative = || invalid_argument("part-number-marker", "must not be negative");
    let marker = u32::try_from(marker).map_err(|_| negative())?;
    Ok(u16::try_from(marker).unwrap_or(u16::MAX))
}

fn part(info: &PartInfo) -> dto::Part {
    let [crc32, crc32c, crc64nvme, sha1, sha256] = checksum_texts(&info.checksums, 0);
    dto::Part {
        part_number: Some(i32::from(info.number)),
        size: i64::try_from(info.size).ok(),
        e_tag: Some(etag(&info.etag)),
        last_modified: Some(timestamp(info.stored.unix_ms())),
        checksum_crc32: crc32,
        checksum_crc32c: crc32c,
        checksum_crc64nvme: crc64nvme,
        checksum_sha1: sha1,
        checksum_sha256: sha256,
    }
}

fn algorithm_of(checksum: UploadChecksum) -> dto::ChecksumAlgorithm {
    dto::ChecksumAlgorithm::from_static(name(checksum.algorithm))
}

fn initiator(owner: dto::Owner) -> dto::Initiator {
    dto::Initiator { id: owner.id, display_name: owner.display_name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_markers_are_not_negative() {
        assert_eq!((part_marker(0).unwrap(), part_marker(7).unwrap()), (0, 7));
        assert_eq!(part_marker(i32::MAX).unwrap(), u16::MAX);
        assert!(part_marker(-1).is_err());
    }
}
