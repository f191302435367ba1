//! ListObjectVersions: versions and delete markers of a bucket, by key and the newest first.
//!
//! Invariants: clients read versions and markers from one list in the order of the page, so both keep that order.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html>

use meridian_object::{ListVersionsRequest, ObjectInfo, VersionInfo};
use s3s::dto;
use s3s::{S3Request, S3Response, S3Result};

use crate::acl_wire::owner_of;
use crate::attributes::storage_class;
use crate::buckets::PAGE_MAX;
use crate::errors::invalid_argument;
use crate::gateway::{Gateway, failed};
use crate::listing::{Encoding, checksum_algorithms};
use crate::put::checksum_type;
use crate::versioning::{version_id, version_text};
use crate::wire_values::{etag, page_size, timestamp};

impl Gateway {
    pub(crate) async fn on_list_object_versions(
        &self,
        request: S3Request<dto::ListObjectVersionsInput>,
    ) -> S3Result<S3Response<dto::ListObjectVersionsOutput>> {
        let S3Request { input, extensions, .. } = request;
        let encoding = Encoding::of(input.encoding_type.as_ref())?;
        let limit = page_size("max-keys", input.max_keys, PAGE_MAX)?;
        let key_marker = input.key_marker.unwrap_or_default();
        let version_marker = input.version_id_marker.filter(|marker| !marker.is_empty());
        if version_marker.is_some() && key_marker.is_empty() {
            let text = "A version-id marker cannot be specified without a key marker.";
            return Err(invalid_argument("version-id-marker", text));
        }
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let owner = row.owner.clone();
        let marker_owner = owner_of(&self.objects, &owner);
        let prefix = input.prefix.unwrap_or_default();
        let delimiter = input.delimiter.filter(|delimiter| !delimiter.is_empty());
        let list = ListVersionsRequest {
            bucket: row.name,
            prefix: prefix.clone(),
            delimiter: delimiter.clone(),
            after_key: Some(key_marker.clone()),
            after_version: version_id(version_marker.as_deref())?,
            limit,
        };
        let page = self.objects.list_versions(list).await.map_err(failed(&extensions))?;
        let (mut versions, mut delete_markers) = (Vec::new(), Vec::new());
        for info in &page.versions {
            match &info.object {
                Some(object) => versions.push(version(encoding, info, object, self.object_owner(&owner, object))),
                None => delete_markers.push(delete_marker(encoding, info, &marker_owner)),
            }
        }
        Ok(S3Response::new(dto::ListObjectVersionsOutput {
            name: Some(input.bucket),
            prefix: Some(encoding.text(&prefix)),
            key_marker: Some(encoding.text(&key_marker)),
            version_id_marker: Some(version_marker.unwrap_or_default()),
            max_keys: Some(limit as i32),
            is_truncated: Some(page.truncated),
            versions: Some(versions),
            delete_markers: Some(delete_markers),
            common_prefixes: Some(encoding.prefixes(&page.common_prefixes)),
            delimiter: delimiter.map(|delimiter| encoding.text(&delimiter)),
            next_key_marker: page.next_key.as_deref().map(|next| encoding.text(next)),
            next_version_id_marker: version_text(page.next_version),
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }
}

fn version(encoding: Encoding, info: &VersionInfo, object: &ObjectInfo, owner: dto::Owner) -> dto::ObjectVersion {
    dto::ObjectVersion {
        key: Some(encoding.text(info.key.as_str())),
        version_id: Some(info.version.to_string()),
        is_latest: Some(info.is_latest),
        last_modified: Some(timestamp(info.last_modified_unix_ms)),
        e_tag: Some(etag(&object.etag)),
        size: i64::try_from(object.size).ok(),
        storage_class: Some(storage_class(&object.attributes).to_owned().into()),
        owner: Some(owner),
        checksum_algorithm: checksum_algorithms(object),
        checksum_type: checksum_type(&object.checksums),
        restore_status: None,
    }
}

fn delete_marker(encoding: Encoding, info: &VersionInfo, owner: &dto::Owner) -> dto::DeleteMarkerEntry {
    dto::DeleteMarkerEntry {
        key: Some(encoding.text(info.key.as_str())),
        version_id: Some(info.version.to_string()),
        is_latest: Some(info.is_latest),
        last_modified: Some(timestamp(info.last_modified_unix_ms)),
        owner: Some(owner.clone()),
    }
}
