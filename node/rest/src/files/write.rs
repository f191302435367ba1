//! Writing a file: whole, behind what is there, or from another one.
//!
//! Invariants: a write is one version of one object, atomic as with S3; what is appended to changes between read and write or
//! not at all.

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use futures::{StreamExt, TryStreamExt};
use meridian_object::{
    Attributes, BodyFinish, ByteStream, Condition, GetRequest, ObjectError, Objects, Preconditions, PutRequest,
};
use meridian_sigv4::{PayloadHash, PayloadHasher};
use meridian_types::limits::PART_SIZE_MAX;
use parking_lot::Mutex;
use serde_json::json;

use super::answer::{invalid, refused};
use super::moving;
use super::path::{Directory, FileName, FilePath};
use crate::blob::{Authority, Upload, UploadRefused, argument, json_answer};
use crate::conditions::preconditions;

const METADATA_PREFIX: &str = "x-amz-meta-";

pub(super) async fn write(
    objects: &Objects,
    path: FilePath,
    parts: &Parts,
    body: Body,
    authority: Authority,
) -> Result<Response, ObjectError> {
    for (name, is_move) in [("mv.from", true), ("cp.from", false)] {
        if let Some(from) = argument(&parts.uri, name) {
            let from = FilePath::of_text(&from).map_err(|reason| invalid(name, reason))?;
            return moving::transfer(objects, from, path, is_move, &parts.uri).await;
        }
    }
    let url_name = match &path {
        FilePath::File(file) => Some(file.name().to_owned()),
        _ => None,
    };
    let upload = Upload::take(parts, body, url_name.as_deref(), PART_SIZE_MAX).await;
    let upload = upload.map_err(|UploadRefused(status, reason)| match status {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => refused("UnsupportedMediaType", reason),
        StatusCode::PAYLOAD_TOO_LARGE => refused("TooLarge", reason),
        _ => invalid("body", reason),
    })?;
    if upload.is_form && authority.sha256.is_some() {
        return Err(invalid(
            "x-amz-content-sha256",
            "a form is sent as UNSIGNED-PAYLOAD: it is not kept as it was signed",
        ));
    }
    let file = match path {
        FilePath::File(file) => file,
        FilePath::Directory(directory) if upload.is_form => {
            directory.file(&upload.name).map_err(|reason| invalid("file name", reason))?
        }
        FilePath::Directory(directory) => return make_directory(objects, directory, upload, parts).await,
        FilePath::Root => return Err(invalid("path", "it names no bucket")),
    };
    let name = file.name().to_owned();
    let (body, finish) = checked_body(upload.body, authority);
    let put = PutRequest {
        bucket: file.bucket.clone(),
        key: file.key.clone(),
        attributes: attributes(&parts.headers, &upload.content_type),
        body,
        length: upload.length,
        content_md5: upload.content_md5,
        condition: condition(&parts.headers)?,
        finish,
    };
    let put = match argument(&parts.uri, "op").as_deref() {
        None => put,
        Some("append") => appended(objects, file, put, preconditions(&parts.headers)).await?,
        Some(other) => return Err(invalid("op", format!("{other:?} is none: append"))),
    };
    let is_append = argument(&parts.uri, "op").is_some();
    let stored = objects.put(put).await.map_err(|error| match error {
        ObjectError::PreconditionFailed(_) if is_append => {
            refused("Conflict", "the file was changed meanwhile: append again")
        }
        error => error,
    })?;
    let answer = json!({ "name": name, "size": stored.size, "eTag": stored.etag });
    Ok(json_answer(&parts.uri, StatusCode::CREATED, &answer))
}

/// An empty object of the directory's own key: so it is there before anything is in it.
async fn make_directory(
    objects: &Objects,
    directory: Directory,
    upload: Upload,
    parts: &Parts,
) -> Result<Response, ObjectError> {
    let key =
        directory.prefix.parse().map_err(|_| invalid("path", "buckets are made by `meridian bucket create` or S3"))?;
    let put = PutRequest {
        bucket: directory.bucket.clone(),
        key,
        attributes: Attributes::default(),
        body: upload.body,
        length: Some(0), // a body that has bytes is refused
        content_md5: None,
        condition: Condition::None,
        finish: None,
    };
    objects.put(put).await.map_err(|error| match error {
        ObjectError::BodyTooLong { .. } => invalid("path", "a directory has no bytes: name a file, or send a form"),
        error => error,
    })?;
    Ok(json_answer(&parts.uri, StatusCode::CREATED, &json!({ "name": directory.path(), "size": 0 })))
}

/// The file as it is with the new bytes behind it: as a new version, for a chunk belongs to one version (rule 14).
async fn appended(
    objects: &Objects,
    file: FileName,
    put: PutRequest,
    preconditions: Preconditions,
) -> Result<PutRequest, ObjectError> {
    if put.content_md5.is_some() {
        return Err(invalid("Content-MD5", "it is of a whole file: it can't be checked when bytes are appended"));
    }
    let request = GetRequest {
        bucket: file.bucket,
        key: file.key,
        version: None,
        range: None,
        part_number: None,
        preconditions: Preconditions { if_none_match: None, if_modified_since_unix_ms: None, ..preconditions },
    };
    let current = match objects.get(request).await {
        Ok(current) => current,
        Err(ObjectError::NoSuchKey { .. } | ObjectError::DeleteMarker { .. }) if put.condition == Condition::None => {
            return Ok(PutRequest { condition: Condition::Absent, ..put });
        }
        Err(error) => return Err(error),
    };
    let length = put.length.map(|length| current.info.size + length);
    Ok(PutRequest {
        attributes: current.info.attributes,
        body: current.body.chain(put.body).boxed(),
        length,
        condition: Condition::Etag(current.info.etag),
        ..put
    })
}

/// The body, and what is checked of it at its end.
fn checked_body(body: ByteStream, authority: Authority) -> (ByteStream, Option<BodyFinish>) {
    let Some(signed) = authority.sha256 else { return (body, None) };
    let hasher = Arc::new(Mutex::new(Some(PayloadHasher::new())));
    let following = Arc::clone(&hasher);
    let body = body.inspect_ok(move |piece| {
        if let Some(hasher) = following.lock().as_mut() {
            hasher.update(piece);
        }
    });
    let finish: BodyFinish = Box::new(move || {
        let computed = hasher.lock().take().map(PayloadHasher::finish);
        let agrees = computed.is_some() && computed == PayloadHash::from_hex(&hex::encode(signed));
        if agrees { Ok(Vec::new()) } else { Err(invalid("x-amz-content-sha256", "the body has another hash")) }
    });
    (body.boxed(), Some(finish))
}

fn condition(headers: &HeaderMap) -> Result<Condition, ObjectError> {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    match (value(header::IF_MATCH), value(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Condition::None),
        (Some(etag), None) => Ok(Condition::Etag(etag.trim_matches('"').to_owned())),
        (None, Some("*")) => Ok(Condition::Absent),
        (None, Some(_)) => Err(invalid("If-None-Match", "a write takes only *")),
        (Some(_), Some(_)) => Err(invalid("If-Match", "it excludes If-None-Match")),
    }
}

fn attributes(headers: &HeaderMap, content_type: &str) -> Attributes {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let metadata = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix(METADATA_PREFIX)?;
        Some((name.to_owned(), value.to_str().ok()?.to_owned()))
    });
    Attributes {
        content_type: Some(content_type.to_owned()).filter(|content_type| !content_type.is_empty()),
        cache_control: text(header::CACHE_CONTROL),
        content_disposition: text(header::CONTENT_DISPOSITION),
        content_encoding: text(header::CONTENT_ENCODING),
        content_language: text(header::CONTENT_LANGUAGE),
        expires: text(header::EXPIRES),
        user_metadata: metadata.collect(),
        ..Attributes::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_held_to_the_hash_that_was_signed() {
        let hash = |text: &[u8]| {
            let mut bytes = [0; 32];
            hex::decode_to_slice(PayloadHash::of(text).to_string(), &mut bytes).unwrap();
            Authority { sha256: Some(bytes) }
        };
        for (signed, agrees) in [(&b"one two"[..], true), (b"one", false)] {
            let pieces = ["one ", "two"].map(|piece| Ok(bytes::Bytes::from(piece)));
            let (body, finish) = checked_body(futures::stream::iter(pieces).boxed(), hash(signed));
            assert_eq!(body.count().await, 2);
            assert_eq!(finish.unwrap()().is_ok(), agrees);
        }
    }

    #[test]
    fn conditions_of_writes_are_the_ones_that_can_be_kept() {
        let of = |pairs: &[(&'static str, &str)]| {
            let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            condition(&HeaderMap::from_iter(headers))
        };
        assert_eq!(of(&[]).unwrap(), Condition::None);
        assert_eq!(of(&[("if-match", "\"a\"")]).unwrap(), Condition::Etag("a".into()));
        assert_eq!(of(&[("if-none-match", "*")]).unwrap(), Condition::Absent);
        assert!(of(&[("if-none-match", "\"a\"")]).is_err());
        assert!(of(&[("if-match", "\"a\""), ("if-none-match", "*")]).is_err());
    }
}
