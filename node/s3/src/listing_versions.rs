//! ListObjectVersions of a bucket without versioning: every object is its own null version and the latest.

use meridian_object::{ListRequest, ObjectInfo};
use s3s::dto;
use s3s::{S3Request, S3Response, S3Result};

use crate::auth::principal_of;
use crate::buckets::{PAGE_MAX, row_owner};
use crate::errors::invalid_argument;
use crate::gateway::Gateway;
use crate::listing::Encoding;
use crate::wire_values::{etag, page_size, timestamp};

/// The id of the only version.
const NULL_VERSION: &str = "null";

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
            return Err(invalid_argument("version-id-marker", "needs a key-marker"));
        }
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let owner = row_owner(&row, &*principal_of(&extensions)?);
        let prefix = input.prefix.unwrap_or_default();
        let delimiter = input.delimiter.filter(|delimiter| !delimiter.is_empty());
        let list = ListRequest {
            bucket: row.name,
            prefix: prefix.clone(),
            delimiter: delimiter.clone(),
            after: Some(key_marker.clone()).filter(|marker| !marker.is_empty()),
            limit,
        };
        let page = self.page(&extensions, list).await?;
        let last_is_key =
            page.next.is_some() && page.next.as_deref() == page.entries.last().map(|info| info.key.as_str());
        Ok(S3Response::new(dto::ListObjectVersionsOutput {
            name: Some(input.bucket),
            prefix: Some(encoding.text(&prefix)),
            key_marker: Some(encoding.text(&key_marker)),
            version_id_marker: Some(version_marker.unwrap_or_default()),
            max_keys: Some(limit as i32),
            is_truncated: Some(page.truncated),
            versions: Some(page.entries.iter().map(|info| version(encoding, info, &owner)).collect()),
            common_prefixes: Some(encoding.prefixes(&page.common_prefixes)),
            delimiter: delimiter.map(|delimiter| encoding.text(&delimiter)),
            next_key_marker: page.next.as_deref().map(|next| encoding.text(next)),
            next_version_id_marker: last_is_key.then(|| NULL_VERSION.to_owned()),
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }
}

fn version(encoding: Encoding, info: &ObjectInfo, owner: &dto::Owner) -> dto::ObjectVersion {
    dto::ObjectVersion {
        key: Some(encoding.text(info.key.as_str())),
        version_id: Some(NULL_VERSION.to_owned()),
        is_latest: Some(true),
        last_modified: Some(timestamp(info.last_modified_unix_ms)),
        e_tag: Some(etag(&info.etag)),
        size: i64::try_from(info.size).ok(),
        storage_class: Some(dto::ObjectVersionStorageClass::from_static(dto::ObjectVersionStorageClass::STANDARD)),
        owner: Some(owner.clone()),
        ..Default::default()
    }
}
