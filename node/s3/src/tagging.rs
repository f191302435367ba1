//! Tags of objects, of any version.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html>

use meridian_object::{Change, ChangeRequest};
use s3s::dto;
use s3s::{S3Request, S3Response, S3Result};

use crate::attributes::{check_tags, tag_set};
use crate::errors::malformed_xml;
use crate::gateway::{Gateway, failed};
use crate::get::plain_read;
use crate::versioning::{version_id, version_text};
use crate::wire_values::object_key;

impl Gateway {
    pub(crate) async fn on_get_object_tagging(
        &self,
        request: S3Request<dto::GetObjectTaggingInput>,
    ) -> S3Result<S3Response<dto::GetObjectTaggingOutput>> {
        let S3Request { input, extensions, .. } = request;
        let bucket = self.bucket(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let read = plain_read(bucket, &input.key, input.version_id.as_deref())?;
        let info = self.objects.head(read).await.map_err(failed(&extensions))?.info;
        let (tag_set, version_id) = (tag_set(&info.attributes), version_text(info.shown_version));
        Ok(S3Response::new(dto::GetObjectTaggingOutput { tag_set, version_id }))
    }

    pub(crate) async fn on_put_object_tagging(
        &self,
        request: S3Request<dto::PutObjectTaggingInput>,
    ) -> S3Result<S3Response<dto::PutObjectTaggingOutput>> {
        let S3Request { input, extensions, .. } = request;
        let bucket = self.bucket(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let tags = tags(input.tagging.tag_set)?;
        let change = ChangeRequest {
            bucket,
            key: object_key(&input.key)?,
            version: version_id(input.version_id.as_deref())?,
            change: Change::Tags(tags),
            bypass_governance: false,
        };
        let version = self.objects.change(change).await.map_err(failed(&extensions))?;
        Ok(S3Response::new(dto::PutObjectTaggingOutput { version_id: version_text(version) }))
    }

    pub(crate) async fn on_delete_object_tagging(
        &self,
        request: S3Request<dto::DeleteObjectTaggingInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectTaggingOutput>> {
        let S3Request { input, extensions, .. } = request;
        let bucket = self.bucket(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let change = ChangeRequest {
            bucket,
            key: object_key(&input.key)?,
            version: version_id(input.version_id.as_deref())?,
            change: Change::Tags(Vec::new()),
            bypass_governance: false,
        };
        let version = self.objects.change(change).await.map_err(failed(&extensions))?;
        Ok(S3Response::new(dto::DeleteObjectTaggingOutput { version_id: version_text(version) }))
    }
}

/// # Errors
/// `MalformedXML` for a tag without a name or value, `InvalidTag`.
fn tags(tag_set: Vec<dto::Tag>) -> S3Result<Vec<(String, String)>> {
    let pairs = tag_set.into_iter().map(|tag| tag.key.zip(tag.value).ok_or_else(malformed_xml));
    let tags = pairs.collect::<S3Result<Vec<_>>>()?;
    check_tags(&tags)?;
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: Option<&str>, value: Option<&str>) -> dto::Tag {
        dto::Tag { key: key.map(str::to_owned), value: value.map(str::to_owned) }
    }

    #[test]
    fn tags_have_a_name_and_a_value_and_each_name_once() {
        assert_eq!(tags(vec![tag(Some("a"), Some(""))]).unwrap(), [("a".to_owned(), String::new())]);
        assert!(tags(Vec::new()).unwrap().is_empty());
        let many = (0..11).map(|n| tag(Some(&n.to_string()), Some("v"))).collect();
        for (set, code) in [
            (vec![tag(Some("a"), None)], "MalformedXML"),
            (vec![tag(None, Some("a"))], "MalformedXML"),
            (vec![tag(Some("a"), Some("1")), tag(Some("a"), Some("2"))], "InvalidTag"),
            (vec![tag(Some(&"k".repeat(129)), Some("1"))], "InvalidTag"),
            (vec![tag(Some("k"), Some(&"v".repeat(257)))], "InvalidTag"),
            (many, "BadRequest"),
        ] {
            assert_eq!(tags(set).unwrap_err().code().as_str(), code);
        }
    }
}
