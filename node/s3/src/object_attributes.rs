//! GetObjectAttributes: only what is asked for, parts in pages.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectAttributes.html>

use meridian_object::{Checksum, ObjectInfo};
use s3s::dto;
use s3s::{S3Request, S3Response, S3Result};

use crate::attributes::storage_class;
use crate::buckets::PAGE_MAX;
use crate::errors::invalid_argument;
use crate::gateway::{Gateway, failed};
use crate::get::plain_read;
use crate::put::{checksum_texts, checksum_type};
use crate::sse::told;
use crate::versioning::version_text;
use crate::wire_values::{page_size, timestamp};

const KNOWN: [&str; 5] = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"];

impl Gateway {
    pub(crate) async fn on_get_object_attributes(
        &self,
        request: S3Request<dto::GetObjectAttributesInput>,
    ) -> S3Result<S3Response<dto::GetObjectAttributesOutput>> {
        let S3Request { input, headers, extensions, .. } = request;
        let key = self.sse.of(&extensions).key_alone(&headers)?;
        let wanted = wanted(input.object_attributes.iter().map(|attribute| attribute.as_str()))?;
        let wants = |name: &str| wanted.iter().any(|wanted| wanted == name);
        let limit = page_size("max-parts", input.max_parts, PAGE_MAX)?;
        let marker = input.part_number_marker.unwrap_or_default();
        let bucket = self.bucket(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let read = plain_read(bucket, &input.key, input.version_id.as_deref())?;
        let info = self.objects.head_with_key(read, key.as_ref()).await.map_err(failed(&extensions))?.info;
        let answer = S3Response::new(dto::GetObjectAttributesOutput {
            e_tag: wants("ETag").then(|| dto::ETag::Strong(info.etag.clone())),
            checksum: checksum(&info).filter(|_| wants("Checksum")),
            object_parts: parts(&info, marker, limit).filter(|_| wants("ObjectParts")),
            storage_class: wants("StorageClass").then(|| storage_class(&info.attributes).to_owned().into()),
            object_size: wants("ObjectSize").then(|| i64::try_from(info.size).unwrap_or(i64::MAX)),
            last_modified: Some(timestamp(info.last_modified_unix_ms)),
            version_id: version_text(info.shown_version),
            ..Default::default()
        });
        Ok(told(answer, info.attributes.encryption.as_deref(), &headers))
    }
}

/// The names that `x-amz-object-attributes` holds, in one header or several.
fn wanted<'h>(given: impl Iterator<Item = &'h str>) -> S3Result<Vec<String>> {
    let names: Vec<String> = given.flat_map(|value| value.split(',')).map(|name| name.trim().to_owned()).collect();
    if names.is_empty() || names.iter().any(|name| !KNOWN.contains(&name.as_str())) {
        return Err(invalid_argument("x-amz-object-attributes", "Invalid attribute name specified."));
    }
    Ok(names)
}

fn checksum(info: &ObjectInfo) -> Option<dto::Checksum> {
    let checksum_type = Some(checksum_type(&info.checksums)?);
    let [checksum_crc32, checksum_crc32c, checksum_crc64nvme, checksum_sha1, checksum_sha256] =
        checksum_texts(&info.checksums, info.parts.len());
    Some(dto::Checksum {
        checksum_crc32,
        checksum_crc32c,
        checksum_crc64nvme,
        checksum_sha1,
        checksum_sha256,
        checksum_type,
    })
}

/// Of a multipart object: how many parts there are, and where these have checksums, a page of them.
fn parts(info: &ObjectInfo, marker: i32, limit: usize) -> Option<dto::GetObjectAttributesParts> {
    if info.parts.is_empty() {
        return None;
    }
    let total_parts_count = i32::try_from(info.parts.len()).ok();
    let Some(whole) = info.checksums.first() else {
        return Some(dto::GetObjectAttributesParts { total_parts_count, ..Default::default() });
    };
    let behind: Vec<_> = info.parts.iter().filter(|part| i32::from(part.number) > marker).collect();
    let page = &behind[..behind.len().min(limit)];
    let part = |part: &&meridian_object::PartSize| {
        let checksum =
            part.checksum.clone().map(|value| Checksum { algorithm: whole.algorithm, value, composite: false });
        let [checksum_crc32, checksum_crc32c, checksum_crc64nvme, checksum_sha1, checksum_sha256] =
            checksum_texts(checksum.as_slice(), 0);
        dto::ObjectPart {
            checksum_crc32,
            checksum_crc32c,
            checksum_crc64nvme,
            checksum_sha1,
            checksum_sha256,
            part_number: Some(i32::from(part.number)),
            size: i64::try_from(part.size).ok(),
        }
    };
    Some(dto::GetObjectAttributesParts {
        is_truncated: Some(behind.len() > page.len()),
        max_parts: i32::try_from(limit).ok(),
        next_part_number_marker: Some(page.last().map_or(0, |part| i32::from(part.number))),
        part_number_marker: Some(marker),
        parts: Some(page.iter().map(part).collect()),
        total_parts_count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_named_in_one_header_or_in_many() {
        assert_eq!(wanted(["ETag, Checksum", "ObjectSize"].into_iter()).unwrap(), ["ETag", "Checksum", "ObjectSize"]);
        for bad in [vec![], vec![""], vec!["ETag,Size"], vec!["etag"]] {
            assert_eq!(wanted(bad.into_iter()).unwrap_err().code().as_str(), "InvalidArgument");
        }
    }
}
