//! ListParts and ListMultipartUploads. Uploads of this datacenter only (rule 22).
//!
//! Invariants: uploads come by key and then by upload id; each page is read at an index taken after the request
//! arrived, in every partition (rule 23).

use meridian_index::{Attributes, Checksum, Part, UploadChecksum, UploadRow, queries};
use meridian_types::limits::LIST_PAGE_MAX;
use meridian_types::{BucketId, BucketName, NameError, ObjectKey, Timestamp, UploadId};

use crate::list::on_blocking_thread;
use crate::merge::{Fetched, Item, Lane, merge, share_of};
use crate::read_row::index_error;
use crate::{ObjectError, Objects};
use meridian_meta::ReadView;

#[derive(Debug, Clone)]
pub struct ListPartsRequest {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub upload: UploadId,
    /// Exclusive part-number marker; 0 from the start.
    pub after: u16,
    pub limit: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartInfo {
    pub number: u16,
    /// Bytes.
    pub size: u64,
    pub etag: String,
    pub stored: Timestamp,
    pub checksums: Vec<Checksum>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartsPage {
    pub attributes: Attributes,
    pub initiated: Timestamp,
    pub checksum: Option<UploadChecksum>,
    pub parts: Vec<PartInfo>,
    pub truncated: bool,
    /// The last number of a truncated page.
    pub next: Option<u16>,
}

#[derive(Debug, Clone)]
pub struct ListUploadsRequest {
    pub bucket: BucketName,
    pub prefix: String,
    pub delimiter: Option<String>,
    /// Exclusive, unless `after_upload` is given: then uploads of this key above it come too. Also a common prefix.
    pub after_key: Option<String>,
    pub after_upload: Option<UploadId>,
    pub limit: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadInfo {
    pub key: ObjectKey,
    pub upload: UploadId,
    pub attributes: Attributes,
    pub initiated: Timestamp,
    pub checksum: Option<UploadChecksum>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadsPage {
    /// By key, then by upload id.
    pub uploads: Vec<UploadInfo>,
    pub common_prefixes: Vec<String>,
    pub truncated: bool,
    /// Of a truncated page: the last key or common prefix.
    pub next_key: Option<String>,
    /// Of a truncated page that ended with an upload.
    pub next_upload: Option<UploadId>,
}

impl Objects {
    /// # Errors
    /// `NoSuchUpload`, `UploadElsewhere`, `Unavailable`.
    pub async fn list_parts(&self, request: ListPartsRequest) -> Result<PartsPage, ObjectError> {
        let ListPartsRequest { bucket, key, upload, after, limit } = request;
        let bucket = self.inner.bucket_row(&bucket).await?.id;
        let limit = limit.min(LIST_PAGE_MAX);
        let (row, view) = self.inner.upload_row(bucket, &key, upload).await?;
        let found = queries::parts(&view, bucket, &key, upload, after, limit + 1).map_err(index_error)?;
        let truncated = limit > 0 && found.len() > limit;
        let parts: Vec<_> = found
            .into_iter()
            .take(limit)
            .map(|(number, part)| {
                let Part { size, etag, stored, checksums, .. } = part;
                PartInfo { number, size, etag, stored, checksums }
            })
            .collect();
        let next = if truncated { parts.last().map(|part| part.number) } else { None };
        let UploadRow { attributes, initiated, checksum, .. } = row;
        Ok(PartsPage { attributes, initiated, checksum, parts, truncated, next })
    }

    /// Uploads under way in this datacenter.
    ///
    /// # Errors
    /// `NoSuchBucket`, `Unavailable`; `InvalidArgument` for a marker that is no key.
    pub async fn list_uploads(&self, request: ListUploadsRequest) -> Result<UploadsPage, ObjectError> {
        let bucket = self.inner.bucket_row(&request.bucket).await?.id;
        let after = match request.after_key.as_deref().filter(|key| !key.is_empty()) {
            None => None,
            Some(key) => {
                let bad = |error: NameError| ObjectError::InvalidArgument {
                    argument: "key-marker",
                    reason: error.to_string(),
                };
                Some((key.parse::<ObjectKey>().map_err(bad)?, request.after_upload))
            }
        };
        let limit = request.limit.min(LIST_PAGE_MAX);
        let views = self.inner.read_all().await?;
        let delimiter = request.delimiter.filter(|delimiter| !delimiter.is_empty());
        let scan = UploadScan { bucket, prefix: request.prefix, delimiter, after, share: share_of(limit, views.len()) };
        on_blocking_thread(move || scan.page(views, limit)).await
    }
}

/// What every partition is asked.
struct UploadScan {
    bucket: BucketId,
    prefix: String,
    delimiter: Option<String>,
    after: Option<(ObjectKey, Option<UploadId>)>,
    share: usize,
}

impl UploadScan {
    fn page(&self, views: Vec<ReadView>, limit: usize) -> Result<UploadsPage, ObjectError> {
        let mut lanes: Vec<_> = views
            .into_iter()
            .map(|view| {
                let mut after = self.after.clone();
                Lane::new(move || self.fetch(&view, &mut after))
            })
            .collect();
        let (items, truncated) = merge(&mut lanes, limit)?;
        let (next_key, next_upload) = match items.last() {
            Some(last) if truncated => (Some(last.at.0.clone()), last.at.1),
            _ => (None, None),
        };
        let mut page =
            UploadsPage { uploads: Vec::new(), common_prefixes: Vec::new(), truncated, next_key, next_upload };
        for item in items {
            match item.value {
                Some(info) => page.uploads.push(info),
                None => page.common_prefixes.push(item.at.0),
            }
        }
        Ok(page)
    }

    fn fetch(
        &self,
        view: &ReadView,
        after: &mut Option<(ObjectKey, Option<UploadId>)>,
    ) -> Result<Fetched<(String, Option<UploadId>), UploadInfo>, ObjectError> {
        let marker = after.as_ref().map(|(key, upload)| (key, *upload));
        let rows = queries::uploads(view, self.bucket, &self.prefix, marker, self.share).map_err(index_error)?;
        let more = rows.len() == self.share;
        if let Some(last) = rows.last() {
            *after = Some((last.key.clone(), Some(last.upload)));
        }
        let listed_before = self.after.as_ref().map_or("", |(key, _)| key.as_str());
        let mut items: Vec<Item<(String, Option<UploadId>), UploadInfo>> = Vec::with_capacity(rows.len());
        for row in rows {
            match self.common_prefix(row.key.as_str()) {
                Some(prefix) if prefix <= listed_before => {}
                Some(prefix) => {
                    if items.last().is_none_or(|last| last.at.0 != prefix) {
                        items.push(Item { at: (prefix.to_owned(), None), value: None });
                    }
                }
                None => {
                    let at = (row.key.as_str().to_owned(), Some(row.upload));
                    let UploadRow { key, upload, attributes, initiated, checksum } = row;
                    let info = UploadInfo { key, upload, attributes, initiated, checksum };
                    items.push(Item { at, value: Some(info) });
                }
            }
        }
        Ok((items, more))
    }

    /// The key up to and with the first delimiter behind the prefix.
    fn common_prefix<'k>(&self, key: &'k str) -> Option<&'k str> {
        let delimiter = self.delimiter.as_deref()?;
        let rest = key.strip_prefix(self.prefix.as_str())?;
        let found = rest.find(delimiter)?;
        Some(&key[..self.prefix.len() + found + delimiter.len()])
    }
}
