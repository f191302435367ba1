//! Copies, moves and deletes of files and of whole directories.
//!
//! A directory is moved file by file: each is copied, then deleted as it was copied. Who looks meanwhile sees some here and some
//! there; after an error what was moved stays moved, and the same move may be repeated.
//!
//! Invariants: a file that was changed after it was copied is not deleted by the move; every page and every pool is bounded.

use axum::body::Body;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use futures::{StreamExt, TryStreamExt, stream};
use meridian_object::{
    Attributes, Condition, CopyRequest, CopySource, DELETES_IN_REQUEST_MAX, DeleteItem, Directive, ListRequest,
    ObjectError, Objects, Preconditions,
};
use meridian_types::{BucketName, ObjectKey};
use serde_json::json;

use super::answer::{invalid, refused};
use super::path::{Directory, FileName, FilePath};
use crate::blob::{argument, json_answer};

/// Files of a directory that are copied at a time.
const COPIES_IN_FLIGHT_MAX: usize = 8;

pub(super) async fn transfer(
    objects: &Objects,
    from: FilePath,
    to: FilePath,
    is_move: bool,
    uri: &Uri,
) -> Result<Response, ObjectError> {
    let count = match (from, to) {
        (FilePath::File(from), FilePath::File(to)) => {
            transfer_file(objects, &from, to, is_move).await?;
            1
        }
        (FilePath::File(from), FilePath::Directory(to)) => {
            let to = to.file(from.name()).map_err(|reason| invalid("path", reason))?;
            transfer_file(objects, &from, to, is_move).await?;
            1
        }
        (FilePath::Directory(from), FilePath::Directory(to)) => {
            transfer_directory(objects, &from, &to, is_move).await?
        }
        (FilePath::Directory(_), FilePath::File(_)) => {
            return Err(invalid("path", "a directory goes to a directory: end the path with a slash"));
        }
        (FilePath::Root, _) | (_, FilePath::Root) => return Err(invalid("path", "it names no bucket")),
    };
    Ok(json_answer(uri, StatusCode::CREATED, &json!({ "count": count })))
}

async fn transfer_file(objects: &Objects, from: &FileName, to: FileName, is_move: bool) -> Result<(), ObjectError> {
    let source = CopySource {
        bucket: from.bucket.clone(),
        key: from.key.clone(),
        version: None,
        preconditions: Preconditions::default(),
    };
    let request = CopyRequest {
        source,
        bucket: to.bucket,
        key: to.key,
        metadata: Directive::Copy,
        tags: Directive::Copy,
        attributes: Attributes::default(),
        condition: Condition::None,
        changes: false,
        digest: None,
    };
    let (_, copied) = objects.copy(request).await?;
    if !is_move {
        return Ok(());
    }
    let item = delete_item(from.key.clone(), Condition::Etag(copied.etag));
    match objects.delete(&from.bucket, item).await {
        Ok(_) | Err(ObjectError::NoSuchKey { .. }) => Ok(()),
        Err(ObjectError::PreconditionFailed(_)) => {
            Err(refused("Conflict", format!("{} was changed while it was moved: it is in both places", from.key)))
        }
        Err(error) => Err(error),
    }
}

async fn transfer_directory(
    objects: &Objects,
    from: &Directory,
    to: &Directory,
    is_move: bool,
) -> Result<usize, ObjectError> {
    if from.bucket == to.bucket && to.prefix.starts_with(&from.prefix) {
        return Err(invalid("path", "a directory can't go into itself"));
    }
    let (mut count, mut after) = (0, None);
    loop {
        let (keys, next) = page(objects, &from.bucket, &from.prefix, after).await?;
        if keys.is_empty() && count == 0 {
            let key = from.prefix.parse().map_err(|error| invalid("path", format!("{error}")))?;
            return Err(ObjectError::NoSuchKey { bucket: from.bucket.clone(), key });
        }
        count += keys.len();
        let transfers = keys.into_iter().map(|key| async move {
            let name = key.as_str()[from.prefix.len()..].to_owned();
            let source = FileName { bucket: from.bucket.clone(), key };
            // The directory's own object is that of the other one.
            let target = to.file(&name).map_err(|reason| invalid("path", reason))?;
            transfer_file(objects, &source, target, is_move).await
        });
        stream::iter(transfers).buffer_unordered(COPIES_IN_FLIGHT_MAX).try_collect::<Vec<()>>().await?;
        match next {
            Some(next) => after = Some(next),
            None => return Ok(count),
        }
    }
}

pub(super) async fn delete_file(objects: &Objects, file: FileName, uri: &Uri) -> Result<Response, ObjectError> {
    if is_recursive(uri) {
        delete_below(objects, &file.bucket, &format!("{}/", file.key)).await?;
    }
    objects.delete(&file.bucket, delete_item(file.key, Condition::None)).await?;
    Ok(no_content())
}

pub(super) async fn delete_directory(
    objects: &Objects,
    directory: &Directory,
    uri: &Uri,
) -> Result<Response, ObjectError> {
    if !is_recursive(uri) {
        let (keys, more) = page(objects, &directory.bucket, &directory.prefix, None).await?;
        if more.is_some() || keys.iter().any(|key| key.as_str() != directory.prefix) {
            return Err(refused("Conflict", "the directory is not empty: ?recursive=true deletes all that is in it"));
        }
    }
    delete_below(objects, &directory.bucket, &directory.prefix).await?;
    Ok(no_content())
}

/// Deletes what is there page by page; what comes while it runs may stay.
async fn delete_below(objects: &Objects, bucket: &BucketName, prefix: &str) -> Result<(), ObjectError> {
    let mut after = None;
    loop {
        let (keys, next) = page(objects, bucket, prefix, after).await?;
        let items = keys.into_iter().map(|key| delete_item(key, Condition::None)).collect();
        for outcome in objects.delete_many(bucket, items).await? {
            outcome?;
        }
        match next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

/// A page of the keys below a prefix, and where the next one begins.
async fn page(
    objects: &Objects,
    bucket: &BucketName,
    prefix: &str,
    after: Option<String>,
) -> Result<(Vec<ObjectKey>, Option<String>), ObjectError> {
    let (bucket, prefix) = (bucket.clone(), prefix.to_owned());
    let request = ListRequest { bucket, prefix, delimiter: None, after, limit: DELETES_IN_REQUEST_MAX };
    let page = objects.list(request).await?;
    Ok((page.entries.into_iter().map(|info| info.key).collect(), page.next))
}

fn delete_item(key: ObjectKey, condition: Condition) -> DeleteItem {
    DeleteItem { key, version: None, condition, bypass_governance: false }
}

fn is_recursive(uri: &Uri) -> bool {
    argument(uri, "recursive").is_some_and(|value| value == "true")
}

fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
