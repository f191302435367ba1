//! Answers of the blob API: JSON, indented where the request asks for it, and errors with their status.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use meridian_object::BlobError;
use serde::Serialize;
use serde_json::json;

/// Seconds after which a request that was refused for now may come again.
const RETRY_AFTER_S: u16 = 2;

/// A value of the query; its last one when there are several.
pub(crate) fn argument(uri: &Uri, name: &str) -> Option<String> {
    let pairs = form_urlencoded::parse(uri.query()?.as_bytes());
    pairs.filter(|(found, _)| found == name).last().map(|(_, value)| value.into_owned())
}

pub(crate) fn json_answer(uri: &Uri, status: StatusCode, value: &impl Serialize) -> Response {
    let pretty = argument(uri, "pretty").is_some_and(|value| value == "y");
    let encoded = if pretty { serde_json::to_vec_pretty(value) } else { serde_json::to_vec(value) };
    let mut response = match encoded {
        Ok(bytes) => Response::new(Body::from(bytes)),
        Err(error) => {
            tracing::error!(%error, "an answer can't be encoded");
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return response;
        }
    };
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(crate) fn refuse(uri: &Uri, status: StatusCode, message: &str) -> Response {
    json_answer(uri, status, &json!({ "error": message }))
}

pub(super) fn refuse_blob(uri: &Uri, error: &BlobError) -> Response {
    let status = match error {
        BlobError::NotFound | BlobError::NotAssigned => StatusCode::NOT_FOUND,
        BlobError::OtherDatacenter { .. } | BlobError::Exists => StatusCode::CONFLICT,
        BlobError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        BlobError::Incomplete { .. }
        | BlobError::Body(_)
        | BlobError::BadDigest
        | BlobError::InvalidArgument { .. } => StatusCode::BAD_REQUEST,
        BlobError::Impossible(_) => StatusCode::NOT_ACCEPTABLE,
        BlobError::Busy(_) | BlobError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = refuse(uri, status, &error.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_S.into());
    }
    response
}
