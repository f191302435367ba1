//! DeleteObject and DeleteObjects.

use http::HeaderMap;
use meridian_object::{Condition, DELETES_IN_REQUEST_MAX, DeleteItem, DeleteOutcome, ObjectError, Wanted};
use s3s::dto;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use crate::auth::context_of;
use crate::checksums::{ALGORITHMS, header};
use crate::errors::{access_denied, error, invalid_request, object_error};
use crate::gateway::{Gateway, failed, refuse_subresources};
use crate::versioning::{version_id, version_text};
use crate::wire_values::{object_key, unix_ms};

impl Gateway {
    pub(crate) async fn on_delete_object(
        &self,
        request: S3Request<dto::DeleteObjectInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectOutput>> {
        refuse_subresources(&request.uri, &["versionId"])?;
        let S3Request { input, extensions, .. } = request;
        let bucket = self.bucket(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let etag = input.if_match.map(|condition| match condition {
            dto::ETagCondition::Any => "*".to_owned(),
            dto::ETagCondition::ETag(etag) => etag.into_value(),
        });
        let item = DeleteItem {
            key: object_key(&input.key)?,
            version: version_id(input.version_id.as_deref())?,
            condition: delete_condition(etag, input.if_match_size, input.if_match_last_modified_time.as_ref()),
            bypass_governance: input.bypass_governance_retention == Some(true),
        };
        let wants_any = wants_any(&item);
        let outcome = self.objects.delete(&bucket, item).await.map_err(failed(&extensions))?;
        found_if_wanted(wants_any, &outcome)?;
        Ok(S3Response::new(dto::DeleteObjectOutput {
            delete_marker: outcome.marker.then_some(true),
            version_id: version_text(outcome.version),
            ..Default::default()
        }))
    }

    /// Answers per key; quiet requests hear of failures only.
    pub(crate) async fn on_delete_objects(
        &self,
        request: S3Request<dto::DeleteObjectsInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectsOutput>> {
        let S3Request { input, headers, extensions, .. } = request;
        check_digest_given(&headers)?;
        let count = input.delete.objects.len();
        if count == 0 || count > DELETES_IN_REQUEST_MAX {
            let text = "A delete must name between 1 and 1000 keys.";
            return Err(error(S3ErrorCode::MalformedXML, text));
        }
        let bucket = self.bucket(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let quiet = input.delete.quiet == Some(true);
        let bypass_governance = input.bypass_governance_retention == Some(true);
        let context = context_of(&extensions).map(AsRef::as_ref);
        let allowed = |(place, object)| {
            let (named, item) = parse(object, bypass_governance);
            let denied = context.is_some_and(|context| context.is_denied(place));
            (named, if denied { Err(access_denied()) } else { item })
        };
        let parsed: Vec<(Named, S3Result<DeleteItem>)> =
            input.delete.objects.into_iter().enumerate().map(allowed).collect();
        let items = parsed.iter().filter_map(|(_, item)| item.as_ref().ok().cloned()).collect();
        let outcomes = self.objects.delete_many(&bucket, items).await.map_err(failed(&extensions))?;
        let mut outcomes = outcomes.into_iter();
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for (named, item) in parsed {
            let outcome = match item {
                Err(refused) => Err(refused),
                Ok(item) => {
                    let outcome = outcomes.next().expect("one answer per item");
                    let outcome = outcome.map_err(|failure| object_error(failure, context));
                    outcome.and_then(|outcome| found_if_wanted(wants_any(&item), &outcome).map(|()| outcome))
                }
            };
            match outcome {
                Ok(_) if quiet => {}
                Ok(outcome) => deleted.push(named.deleted(&outcome)),
                Err(refused) => errors.push(named.failed(&refused)),
            }
        }
        Ok(S3Response::new(dto::DeleteObjectsOutput {
            deleted: Some(deleted),
            errors: Some(errors),
            ..Default::default()
        }))
    }
}

/// A key as the client wrote it.
struct Named {
    key: String,
    version: Option<String>,
}

impl Named {
    fn deleted(self, outcome: &DeleteOutcome) -> dto::DeletedObject {
        let marker = outcome.version.filter(|_| outcome.marker);
        dto::DeletedObject {
            key: Some(self.key),
            version_id: self.version,
            delete_marker: marker.map(|_| true),
            delete_marker_version_id: version_text(marker),
        }
    }

    fn failed(self, refused: &S3Error) -> dto::Error {
        dto::Error {
            code: Some(refused.code().as_str().to_owned()),
            key: Some(self.key),
            message: refused.message().map(str::to_owned),
            version_id: self.version,
        }
    }
}

fn parse(object: dto::ObjectIdentifier, bypass_governance: bool) -> (Named, S3Result<DeleteItem>) {
    let etag = object.e_tag.map(dto::ETag::into_value);
    let condition = delete_condition(etag, object.size, object.last_modified_time.as_ref());
    let item = object_key(&object.key).and_then(|key| {
        let version = version_id(object.version_id.as_deref().filter(|version| !version.is_empty()))?;
        Ok(DeleteItem { key, version, condition, bypass_governance })
    });
    (Named { key: object.key, version: object.version_id }, item)
}

/// A list of keys that arrives changed would delete others.
///
/// # Errors
/// `InvalidRequest` without a digest of the body.
fn check_digest_given(headers: &HeaderMap) -> S3Result<()> {
    let is_given = headers.contains_key("content-md5")
        || ALGORITHMS.into_iter().any(|algorithm| headers.contains_key(header(algorithm)));
    let text = "Missing required header for this request: Content-MD5 OR x-amz-checksum-*";
    if is_given { Ok(()) } else { Err(invalid_request(text)) }
}

/// Whether a delete demands an object, whichever it is.
fn wants_any(item: &DeleteItem) -> bool {
    matches!(&item.condition, Condition::Matches(wanted) if wanted.etag.as_deref() == Some("*"))
}

/// A conditional delete of nothing changes nothing, so that it can still be told that this is not what was wanted.
///
/// # Errors
/// `PreconditionFailed`.
fn found_if_wanted(wants_any: bool, outcome: &DeleteOutcome) -> S3Result<()> {
    if wants_any && !outcome.existed {
        Err(object_error(ObjectError::PreconditionFailed("If-Match"), None))
    } else {
        Ok(())
    }
}

/// What a delete demands of the object.
fn delete_condition(etag: Option<String>, size: Option<i64>, last_modified: Option<&dto::Timestamp>) -> Condition {
    if etag.is_none() && size.is_none() && last_modified.is_none() {
        return Condition::None;
    }
    Condition::Matches(Wanted {
        etag,
        size: size.map(|size| u64::try_from(size).unwrap_or(u64::MAX)), // no object has a negative size
        last_modified_unix_s: last_modified.map(|time| unix_ms(time) / 1000),
        stamp: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_object::VersionId;

    fn identifier(key: &str) -> dto::ObjectIdentifier {
        dto::ObjectIdentifier {
            e_tag: None,
            key: key.to_owned(),
            last_modified_time: None,
            size: None,
            version_id: None,
        }
    }

    #[test]
    fn one_bad_key_is_its_own_failure() {
        let parse = |object| parse(object, false);
        assert_eq!(parse(identifier("../a//b")).1.unwrap().key.as_str(), "../a//b");
        let (named, refused) = parse(identifier(&"k".repeat(1025)));
        let failure = named.failed(&refused.unwrap_err());
        assert_eq!((failure.code.as_deref(), failure.key.unwrap().len()), (Some("KeyTooLongError"), 1025));
        assert!(parse(identifier("")).1.is_err());
    }

    #[test]
    fn versions_and_conditions_are_read() {
        let parse = |object| parse(object, true);
        let version =
            |version: &str| parse(dto::ObjectIdentifier { version_id: Some(version.to_owned()), ..identifier("k") }).1;
        assert_eq!(version("null").unwrap().version, Some(VersionId::Null));
        assert!(version("").unwrap().version.is_none() && version("3").is_err());
        let etag = Some(dto::ETag::Strong("abc".to_owned()));
        let (_, item) = parse(dto::ObjectIdentifier { e_tag: etag, size: Some(5), ..identifier("k") });
        let wanted = Wanted { etag: Some("abc".to_owned()), size: Some(5), ..Wanted::default() };
        assert_eq!(item.unwrap().condition, Condition::Matches(wanted));
        assert_eq!(parse(identifier("k")).1.unwrap().condition, Condition::None);
    }
}
