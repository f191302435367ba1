//! Reading a file.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use meridian_object::{GetRequest, ObjectError, ObjectInfo, Objects};

use super::path::FileName;
use crate::blob::{refuse, type_of};
use crate::conditions::{http_date, preconditions, range};

/// In front of the names of user metadata, as S3 has it.
const METADATA_PREFIX: &str = "x-amz-meta-";

pub(super) async fn read(objects: &Objects, file: FileName, parts: &Parts) -> Result<Response, ObjectError> {
    let asked = range(&parts.headers);
    let name = file.name().to_owned();
    let request = GetRequest {
        bucket: file.bucket,
        key: file.key,
        version: None,
        range: asked,
        part_number: None,
        preconditions: preconditions(&parts.headers),
    };
    let is_head = parts.method == Method::HEAD;
    let found = if is_head {
        objects.head(request).await.map(|head| (head.info, head.range, Body::empty()))
    } else {
        objects.get(request).await.map(|get| (get.info, get.range, Body::from_stream(get.body)))
    };
    let (info, range, body) = match found {
        Ok(found) => found,
        Err(ObjectError::InvalidRange { size }) => {
            let mut response =
                refuse(&parts.uri, StatusCode::RANGE_NOT_SATISFIABLE, "the range lies outside of the file");
            set(&mut response, header::CONTENT_RANGE, format!("bytes */{size}"));
            return Ok(response);
        }
        Err(ObjectError::NotModified { etag, last_modified_unix_ms }) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            set(&mut response, header::ETAG, format!("\"{etag}\""));
            set(&mut response, header::LAST_MODIFIED, http_date(last_modified_unix_ms));
            return Ok(response);
        }
        Err(error) => return Err(error),
    };
    let mut response = Response::new(body);
    describe(&mut response, &info, &name);
    set(&mut response, header::CONTENT_LENGTH, (range.end - range.start).to_string());
    if asked.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let text = format!("bytes {}-{}/{}", range.start, range.end - 1, info.size);
        set(&mut response, header::CONTENT_RANGE, text);
    }
    Ok(response)
}

fn describe(response: &mut Response, info: &ObjectInfo, name: &str) {
    let said = &info.attributes;
    let media_type = said.content_type.as_deref().unwrap_or_else(|| type_of(name));
    set(response, header::CONTENT_TYPE, media_type.to_owned());
    set(response, header::ETAG, format!("\"{}\"", info.etag));
    set(response, header::LAST_MODIFIED, http_date(info.last_modified_unix_ms));
    set(response, header::ACCEPT_RANGES, "bytes".to_owned());
    set(response, header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned());
    for (name, value) in [
        (header::CACHE_CONTROL, &said.cache_control),
        (header::CONTENT_DISPOSITION, &said.content_disposition),
        (header::CONTENT_ENCODING, &said.content_encoding),
        (header::CONTENT_LANGUAGE, &said.content_language),
        (header::EXPIRES, &said.expires),
    ] {
        if let Some(value) = value {
            set(response, name, value.clone());
        }
    }
    for (name, value) in &said.user_metadata {
        if let Ok(name) = HeaderName::try_from(format!("{METADATA_PREFIX}{name}")) {
            set(response, name, value.clone());
        }
    }
}

/// What is no header value is left out: it was stored through another gateway.
fn set(response: &mut Response, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        response.headers_mut().insert(name, value);
    }
}
