//! The body of a write: raw, or the first file of a multipart form.
//!
//! Invariants: a form is read as a stream, never whole; one that is cut off is an error of the body.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, TryStreamExt};
use meridian_object::{ByteStream, StreamError};

/// What a form may have around its file.
const FORM_OVERHEAD_MAX: u64 = 64 << 10;
/// Media types that clients send when they know of none.
const NO_TYPES: [&str; 2] = ["application/octet-stream", "application/x-www-form-urlencoded"];

pub(crate) struct Upload {
    pub(crate) name: String,
    pub(crate) content_type: String,
    pub(crate) body: ByteStream,
    pub(crate) length: Option<u64>,
    pub(crate) size_hint: Option<u64>,
    pub(crate) content_md5: Option<[u8; 16]>,
    /// It came in a form: what was signed is the form, and not the file.
    pub(crate) is_form: bool,
}

/// Why a body is not taken, with its status.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{1}")]
pub(crate) struct Refused(pub(crate) StatusCode, pub(crate) String);

fn refused(status: StatusCode, reason: impl Into<String>) -> Refused {
    Refused(status, reason.into())
}

impl Upload {
    /// `url_name` is the name that the URL gives; `size_max` is in bytes.
    pub(crate) async fn take(
        parts: &Parts,
        body: Body,
        url_name: Option<&str>,
        size_max: u64,
    ) -> Result<Self, Refused> {
        let headers = &parts.headers;
        let length = length(headers)?;
        let content_md5 = content_md5(headers)?;
        let content_type = text(headers, header::CONTENT_TYPE)?.unwrap_or_default();
        let stream = body.into_data_stream().map_err(|error| StreamError::Client(error.to_string()));
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence == "multipart/form-data" {
            if length.is_some_and(|length| length > size_max + FORM_OVERHEAD_MAX) {
                return Err(too_large(size_max));
            }
            let boundary = multer::parse_boundary(content_type)
                .map_err(|error| refused(StatusCode::BAD_REQUEST, format!("the form has no boundary: {error}")))?;
            return Self::of_form(multer::Multipart::new(stream, boundary), url_name, length, content_md5).await;
        }
        if essence.starts_with("multipart/") {
            let reason = format!("{essence} is not taken: send multipart/form-data, or the bytes themselves");
            return Err(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason));
        }
        if length.is_some_and(|length| length > size_max) {
            return Err(too_large(size_max));
        }
        Ok(Self {
            name: url_name.unwrap_or_default().to_owned(),
            content_type: known_type(content_type),
            body: stream.boxed(),
            length,
            size_hint: None,
            content_md5,
            is_form: false,
        })
    }

    async fn of_form(
        mut form: multer::Multipart<'static>,
        url_name: Option<&str>,
        length: Option<u64>,
        content_md5: Option<[u8; 16]>,
    ) -> Result<Self, Refused> {
        let broken =
            |error: multer::Error| refused(StatusCode::BAD_REQUEST, format!("the form can't be read: {error}"));
        let field = loop {
            let Some(field) = form.next_field().await.map_err(broken)? else {
                return Err(refused(StatusCode::BAD_REQUEST, "the form has no file"));
            };
            if field.file_name().is_some() {
                break field;
            }
        };
        let name = field.file_name().filter(|name| !name.is_empty()).or(url_name).unwrap_or_default().to_owned();
        let content_type = known_type(field.content_type().map_or("", |media_type| media_type.as_ref()));
        // A file that ends without the form's boundary is an error of its stream.
        let body = field.map_err(|error| StreamError::Client(error.to_string()));
        Ok(Self { name, content_type, body: body.boxed(), length: None, size_hint: length, content_md5, is_form: true })
    }
}

fn too_large(size_max: u64) -> Refused {
    let reason = format!("a body here has at most {size_max} bytes; larger ones are parts of an S3 upload");
    refused(StatusCode::PAYLOAD_TOO_LARGE, reason)
}

fn known_type(content_type: &str) -> String {
    if NO_TYPES.contains(&content_type) { String::new() } else { content_type.to_owned() }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Result<Option<&str>, Refused> {
    let value = headers.get(&name).map(|value| value.to_str()).transpose();
    value.map_err(|_| refused(StatusCode::BAD_REQUEST, format!("the header {name} is no text")))
}

fn length(headers: &HeaderMap) -> Result<Option<u64>, Refused> {
    let length = text(headers, header::CONTENT_LENGTH)?.map(str::parse).transpose();
    length.map_err(|_| refused(StatusCode::BAD_REQUEST, "Content-Length is no number"))
}

fn content_md5(headers: &HeaderMap) -> Result<Option<[u8; 16]>, Refused> {
    let Some(value) = headers.get("content-md5") else { return Ok(None) };
    let digest = STANDARD.decode(value.as_bytes()).ok().and_then(|digest| digest.try_into().ok());
    let reason = "Content-MD5 is 16 bytes in base64";
    digest.map(Some).ok_or_else(|| refused(StatusCode::BAD_REQUEST, reason))
}
