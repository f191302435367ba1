//! Tags of a file, as one JSON object of names and values.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri, header};
use axum::response::Response;
use http_body_util::{BodyExt, Limited};
use meridian_object::{Change, ChangeRequest, GetRequest, ObjectError, Objects, Preconditions};
use meridian_sigv4::PayloadHash;
use serde_json::{Map, Value};

use super::answer::{invalid, refused};
use super::path::FileName;
use crate::blob::{Authority, json_answer};

/// Longest body, in bytes.
const BODY_SIZE_MAX: usize = 64 << 10;
/// Most tags, and the longest name and value in characters (S3).
const TAGS_MAX: usize = 10;
const NAME_LENGTH_MAX: usize = 128;
const VALUE_LENGTH_MAX: usize = 256;

pub(super) async fn get(objects: &Objects, file: &FileName, uri: &Uri) -> Result<Response, ObjectError> {
    let request = GetRequest {
        bucket: file.bucket.clone(),
        key: file.key.clone(),
        version: None,
        range: None,
        part_number: None,
        preconditions: Preconditions::default(),
    };
    let tags = objects.head(request).await?.info.attributes.tags;
    let tags: Map<String, Value> = tags.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
    Ok(json_answer(uri, StatusCode::OK, &tags))
}

pub(super) async fn put(
    objects: &Objects,
    file: &FileName,
    parts: &Parts,
    body: Body,
    authority: Authority,
) -> Result<Response, ObjectError> {
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if content_type.is_none_or(|value| value.split(';').next() != Some("application/json")) {
        return Err(refused("UnsupportedMediaType", "tags come as application/json: {\"name\": \"value\"}"));
    }
    let Ok(body) = Limited::new(body, BODY_SIZE_MAX).collect().await else {
        return Err(refused("TooLarge", "tags have at most 64 KiB"));
    };
    let body = body.to_bytes();
    if authority
        .sha256
        .is_some_and(|signed| Some(PayloadHash::of(&body)) != PayloadHash::from_hex(&hex::encode(signed)))
    {
        return Err(invalid("x-amz-content-sha256", "the body has another hash"));
    }
    let tags: Map<String, Value> = serde_json::from_slice(&body)
        .map_err(|error| invalid("tagging", format!("a JSON object of names and values is expected: {error}")))?;
    set(objects, file, checked(tags)?).await
}

pub(super) async fn clear(objects: &Objects, file: &FileName) -> Result<Response, ObjectError> {
    set(objects, file, Vec::new()).await
}

fn checked(tags: Map<String, Value>) -> Result<Vec<(String, String)>, ObjectError> {
    if tags.len() > TAGS_MAX {
        return Err(invalid("tagging", format!("a file has at most {TAGS_MAX} tags")));
    }
    let tag = |(name, value): (String, Value)| match value {
        Value::String(value)
            if (1..=NAME_LENGTH_MAX).contains(&name.chars().count()) && value.chars().count() <= VALUE_LENGTH_MAX =>
        {
            Ok((name, value))
        }
        Value::String(_) => Err(invalid(
            "tagging",
            format!("a name has 1 to {NAME_LENGTH_MAX} characters, a value {VALUE_LENGTH_MAX} at most"),
        )),
        value => Err(invalid("tagging", format!("{value} is no text"))),
    };
    tags.into_iter().map(tag).collect()
}

async fn set(objects: &Objects, file: &FileName, tags: Vec<(String, String)>) -> Result<Response, ObjectError> {
    let change = ChangeRequest {
        bucket: file.bucket.clone(),
        key: file.key.clone(),
        version: None,
        change: Change::Tags(tags),
        bypass_governance: false,
    };
    objects.change(change).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(tags: Value) -> bool {
        let Value::Object(tags) = tags else { panic!("an object") };
        checked(tags).is_ok()
    }

    #[test]
    fn tags_are_few_short_and_texts() {
        assert!(check(json!({ "a": "b", "c": "" })));
        assert!(!check(json!({ "a": 1 })) && !check(json!({ "": "x" })));
        assert!(!check(json!({ "a": "v".repeat(257) })) && !check(json!({ "n".repeat(129): "v" })));
        let many: Map<String, Value> = (0..11).map(|n| (n.to_string(), json!("v"))).collect();
        assert!(!check(Value::Object(many)));
    }
}
