//! ListObjects and ListObjectsV2: the same pages in two forms.
//!
//! Invariants: a page holds at most 1000 keys and prefixes together; V2's tokens are opaque; what is asked for is told
//! back as S3 does (an empty prefix too), encoded where the client asked for that.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>

use http::Extensions;
use meridian_object::{ChecksumAlgorithm, ListPage, ListRequest, ListedObject, ObjectInfo};
use s3s::dto;
use s3s::{S3Request, S3Response, S3Result};

use crate::acl_wire::owner_of;
use crate::attributes::STANDARD;
use crate::buckets::PAGE_MAX;
use crate::errors::invalid_argument;
use crate::gateway::{Gateway, failed};
use crate::wire_values::{etag, open_token, page_size, timestamp, token, url_encode};

impl Gateway {
    /// S3's form of an object's owner.
    pub(crate) fn object_owner(&self, bucket_owner: &str, info: &ObjectInfo) -> dto::Owner {
        owner_of(&self.objects, info.attributes.owner.as_deref().unwrap_or(bucket_owner))
    }

    /// The entries of a page; those of the bucket's owner, which most are, have him looked up once.
    fn contents(&self, encoding: Encoding, page: &ListPage, bucket_owner: Option<&str>) -> Vec<dto::Object> {
        let usual = bucket_owner.map(|owner| owner_of(&self.objects, owner));
        let owner = |object: &ListedObject| match &object.owner {
            Some(other) if usual.is_some() => Some(owner_of(&self.objects, other)),
            _ => usual.clone(),
        };
        page.entries.iter().map(|object| encoding.object(object, owner(object))).collect()
    }

    pub(crate) async fn on_list_objects(
        &self,
        request: S3Request<dto::ListObjectsInput>,
    ) -> S3Result<S3Response<dto::ListObjectsOutput>> {
        let S3Request { input, extensions, .. } = request;
        let encoding = Encoding::of(input.encoding_type.as_ref())?;
        let limit = page_size("max-keys", input.max_keys, PAGE_MAX)?;
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let owner = row.owner.clone();
        let prefix = input.prefix.unwrap_or_default();
        let marker = input.marker.unwrap_or_default();
        let delimiter = input.delimiter.filter(|delimiter| !delimiter.is_empty());
        let after = Some(marker.clone()).filter(|marker| !marker.is_empty());
        let list = ListRequest { bucket: row.name, prefix: prefix.clone(), delimiter: delimiter.clone(), after, limit };
        let page = self.page(&extensions, list).await?;
        // Without a delimiter the last key is the next marker, and S3 leaves it to the client to see that.
        let next_marker = page.next.as_deref().filter(|_| delimiter.is_some()).map(|next| encoding.text(next));
        Ok(S3Response::new(dto::ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(encoding.text(&prefix)),
            marker: Some(encoding.text(&marker)),
            max_keys: Some(limit as i32),
            is_truncated: Some(page.truncated),
            contents: Some(self.contents(encoding, &page, Some(&owner))),
            common_prefixes: Some(encoding.prefixes(&page.common_prefixes)),
            delimiter: delimiter.map(|delimiter| encoding.text(&delimiter)),
            next_marker,
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }

    pub(crate) async fn on_list_objects_v2(
        &self,
        request: S3Request<dto::ListObjectsV2Input>,
    ) -> S3Result<S3Response<dto::ListObjectsV2Output>> {
        let S3Request { input, extensions, .. } = request;
        let encoding = Encoding::of(input.encoding_type.as_ref())?;
        let limit = page_size("max-keys", input.max_keys, PAGE_MAX)?;
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let owner = row.owner.clone();
        let prefix = input.prefix.unwrap_or_default();
        let delimiter = input.delimiter.filter(|delimiter| !delimiter.is_empty());
        let after = start_of_page(input.continuation_token.as_deref(), input.start_after.as_deref())?;
        let list = ListRequest { bucket: row.name, prefix: prefix.clone(), delimiter: delimiter.clone(), after, limit };
        let page = self.page(&extensions, list).await?;
        let told = (input.fetch_owner == Some(true)).then_some(owner.as_str());
        Ok(S3Response::new(dto::ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(encoding.text(&prefix)),
            max_keys: Some(limit as i32),
            key_count: Some((page.entries.len() + page.common_prefixes.len()) as i32),
            continuation_token: input.continuation_token,
            is_truncated: Some(page.truncated),
            next_continuation_token: page.next.as_deref().map(token),
            contents: Some(self.contents(encoding, &page, told)),
            common_prefixes: Some(encoding.prefixes(&page.common_prefixes)),
            delimiter: delimiter.map(|delimiter| encoding.text(&delimiter)),
            encoding_type: input.encoding_type,
            start_after: input.start_after.map(|start| encoding.text(&start)),
            ..Default::default()
        }))
    }

    /// One page; a page that is not truncated has no next start.
    pub(crate) async fn page(&self, extensions: &Extensions, list: ListRequest) -> S3Result<ListPage> {
        let mut page = self.objects.list(list).await.map_err(failed(extensions))?;
        if !page.truncated {
            page.next = None;
        }
        Ok(page)
    }
}

/// A token goes before `start-after`; an empty one is the first page.
fn start_of_page(token: Option<&str>, start_after: Option<&str>) -> S3Result<Option<String>> {
    match token {
        Some(token) if !token.is_empty() => open_token(token).map(Some),
        _ => Ok(start_after.filter(|start| !start.is_empty()).map(str::to_owned)),
    }
}

/// How keys are written into a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Plain,
    Url,
}

impl Encoding {
    /// # Errors
    /// `InvalidArgument` for any type but `url`.
    pub fn of(asked: Option<&dto::EncodingType>) -> S3Result<Self> {
        match asked.map(|encoding| encoding.as_str()) {
            None => Ok(Self::Plain),
            Some(dto::EncodingType::URL) => Ok(Self::Url),
            Some(_) => Err(invalid_argument("encoding-type", "must be url")),
        }
    }

    pub fn text(self, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Url => url_encode(text).replace("%20", "+"), // as forms do (S3)
        }
    }

    pub fn prefixes(self, prefixes: &[String]) -> Vec<dto::CommonPrefix> {
        prefixes.iter().map(|prefix| dto::CommonPrefix { prefix: Some(self.text(prefix)) }).collect()
    }

    fn object(self, object: &ListedObject, owner: Option<dto::Owner>) -> dto::Object {
        let storage_class = match &object.storage_class {
            Some(class) => class.clone().into(),
            None => dto::ObjectStorageClass::from_static(STANDARD),
        };
        dto::Object {
            key: Some(self.text(object.key.as_str())),
            last_modified: Some(timestamp(object.stamp.timestamp.unix_ms())),
            e_tag: Some(etag(&object.etag)),
            size: i64::try_from(object.size).ok(),
            storage_class: Some(storage_class),
            owner,
            checksum_algorithm: algorithms(object.checksums.iter().map(|checksum| checksum.algorithm)),
            checksum_type: object.checksums.first().map(|first| crate::put::type_of(first.composite)),
            restore_status: None,
        }
    }
}

/// The algorithms of an object's checksums, as listings tell them.
pub(crate) fn checksum_algorithms(info: &ObjectInfo) -> Option<Vec<dto::ChecksumAlgorithm>> {
    algorithms(info.checksums.iter().map(|checksum| checksum.algorithm))
}

fn algorithms(of: impl Iterator<Item = ChecksumAlgorithm>) -> Option<Vec<dto::ChecksumAlgorithm>> {
    let name = |algorithm| dto::ChecksumAlgorithm::from_static(crate::checksums::name(algorithm));
    let algorithms: Vec<_> = of.map(name).collect();
    (!algorithms.is_empty()).then_some(algorithms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_before_start_after() {
        let start = |token: Option<&str>, after: Option<&str>| start_of_page(token, after).unwrap();
        assert_eq!(start(None, None), None);
        assert_eq!(start(None, Some("")), None);
        assert_eq!(start(Some(""), Some("a")).as_deref(), Some("a"));
        assert_eq!(start(Some(&token("k/é")), Some("a")).as_deref(), Some("k/é"));
        assert!(start_of_page(Some("k"), None).is_err());
    }

    #[test]
    fn only_url_is_an_encoding() {
        let of = |text: &'static str| Encoding::of(Some(&dto::EncodingType::from_static(text)));
        assert_eq!(Encoding::of(None).unwrap(), Encoding::Plain);
        assert_eq!(of("url").unwrap(), Encoding::Url);
        assert!(of("base64").is_err() && of("").is_err());
        assert_eq!(Encoding::Url.prefixes(&["a b/".to_owned()])[0].prefix.as_deref(), Some("a+b/"));
        assert_eq!(Encoding::Plain.text("a b"), "a b");
    }
}
