//! DeleteObject and DeleteObjects.

use meridian_object::{Condition, DELETES_IN_REQUEST_MAX, DeleteItem, ObjectError};
use s3s::dto;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use crate::auth::context_of;
use crate::conditions::write_condition;
use crate::errors::{error, not_implemented, object_error};
use crate::gateway::{Gateway, failed, refuse_subresources};
use crate::get::check_version;
use crate::wire_values::object_key;

impl Gateway {
    pub(crate) async fn on_delete_object(
        &self,
        request: S3Request<dto::DeleteObjectInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectOutput>> {
        refuse_subresources(&request.uri, &["versionId"])?;
        let S3Request { input, extensions, .. } = request;
        check_version(input.version_id.as_deref())?;
        if input.if_match_last_modified_time.is_some() || input.if_match_size.is_some() {
            return Err(not_implemented("A delete that depends on size or time"));
        }
        let bucket = self.bucket(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let key = object_key(&input.key)?;
        let condition = write_condition(input.if_match, None)?;
        self.objects.delete(&bucket, &key, condition).await.map_err(failed(&extensions))?;
        Ok(S3Response::new(dto::DeleteObjectOutput::default()))
    }

    /// Answers per key; quiet requests hear of failures only.
    pub(crate) async fn on_delete_objects(
        &self,
        request: S3Request<dto::DeleteObjectsInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectsOutput>> {
        let S3Request { input, extensions, .. } = request;
        let count = input.delete.objects.len();
        if count == 0 || count > DELETES_IN_REQUEST_MAX {
            let text = "A delete must name between 1 and 1000 keys.";
            return Err(error(S3ErrorCode::MalformedXML, text));
        }
        let bucket = self.bucket(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let quiet = input.delete.quiet == Some(true);
        let parsed: Vec<(Named, S3Result<DeleteItem>)> = input.delete.objects.into_iter().map(parse).collect();
        let items = parsed.iter().filter_map(|(_, item)| item.as_ref().ok().cloned()).collect();
        let outcomes = self.objects.delete_many(&bucket, items).await.map_err(failed(&extensions))?;
        let mut outcomes = outcomes.into_iter();
        let context = context_of(&extensions).map(AsRef::as_ref);
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for (named, item) in parsed {
            let outcome = match item {
                Err(refused) => Err(refused),
                Ok(_) => match outcomes.next().expect("one answer per item") {
                    // With a condition S3 tells a missing key; without, deleting nothing is a success.
                    Ok(_) => Ok(()),
                    Err(ObjectError::NoSuchKey { .. }) if !named.conditional => Ok(()),
                    Err(failure) => Err(object_error(failure, context)),
                },
            };
            match outcome {
                Ok(()) if quiet => {}
                Ok(()) => deleted.push(named.deleted()),
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
    conditional: bool,
}

impl Named {
    fn deleted(self) -> dto::DeletedObject {
        dto::DeletedObject { key: Some(self.key), version_id: self.version, ..Default::default() }
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

fn parse(object: dto::ObjectIdentifier) -> (Named, S3Result<DeleteItem>) {
    let condition = match object.e_tag {
        Some(etag) => Condition::Etag(etag.into_value()),
        None => Condition::None,
    };
    let item = if object.last_modified_time.is_some() || object.size.is_some() {
        Err(not_implemented("A delete that depends on size or time"))
    } else {
        check_version(object.version_id.as_deref())
            .and_then(|()| object_key(&object.key))
            .map(|key| DeleteItem { key, condition: condition.clone() })
    };
    let conditional = condition != Condition::None;
    (Named { key: object.key, version: object.version_id, conditional }, item)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(parse(identifier("../a//b")).1.unwrap().key.as_str(), "../a//b");
        let (named, refused) = parse(identifier(&"k".repeat(1025)));
        let failure = named.failed(&refused.unwrap_err());
        assert_eq!((failure.code.as_deref(), failure.key.unwrap().len()), (Some("KeyTooLongError"), 1025));
        assert!(parse(identifier("")).1.is_err());
    }

    #[test]
    fn versions_and_conditions_are_read() {
        let version =
            |version: &str| parse(dto::ObjectIdentifier { version_id: Some(version.to_owned()), ..identifier("k") }).1;
        assert!(version("null").is_ok() && version("3").is_err());
        let etag = Some(dto::ETag::Strong("abc".to_owned()));
        let (named, item) = parse(dto::ObjectIdentifier { e_tag: etag, ..identifier("k") });
        assert!(named.conditional);
        assert_eq!(item.unwrap().condition, Condition::Etag("abc".to_owned()));
        assert!(parse(dto::ObjectIdentifier { size: Some(5), ..identifier("k") }).1.is_err());
    }
}
