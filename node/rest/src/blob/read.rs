//! Reading one blob, or a part of it.
//!
//! Invariants: a HEAD answers what a GET would, but for the bytes; stored media types are never second-guessed by browsers.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use meridian_object::{BlobBody, BlobError, BlobInfo, ObjectError, OpenBlob};

use super::BlobState;
use super::address::NamedBlob;
use super::answer::{argument, refuse, refuse_blob};
use super::media::type_of;
use super::picture::{PictureError, Wanted};
use super::write::no_such_path;
use crate::conditions::{http_date, preconditions, range};

pub(crate) async fn read(State(state): State<BlobState>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let uri = &parts.uri;
    let Some(blob) = NamedBlob::parse(uri.path()) else { return no_such_path(uri) };
    let opened = match state.objects.open_blob(blob.address).await {
        Ok(opened) => opened,
        Err(error) => return refuse_blob(uri, &error),
    };
    match Wanted::of(uri) {
        Ok(None) => answer(opened, &blob, (&parts.method, uri, &parts.headers)).await,
        Ok(Some(wanted)) => match scaled(&state, opened, &blob, wanted, (&parts.method, uri, &parts.headers)).await {
            Ok(response) => response,
            Err(ScaleError::Blob(error)) => refuse_blob(uri, &error),
            Err(ScaleError::Picture(error)) => refuse(uri, status_of(&error), &error.to_string()),
        },
        Err(error) => refuse(uri, status_of(&error), &error.to_string()),
    }
}

#[derive(Debug, thiserror::Error)]
enum ScaleError {
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Picture(#[from] PictureError),
}

fn status_of(error: &PictureError) -> StatusCode {
    match error {
        PictureError::Argument(_) => StatusCode::BAD_REQUEST,
        PictureError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        PictureError::Unreadable(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        PictureError::Busy => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// A picture in another size. It has no ranges, and an entity tag of its own.
async fn scaled(
    state: &BlobState,
    opened: OpenBlob,
    blob: &NamedBlob,
    wanted: Wanted,
    (method, uri, headers): (&Method, &Uri, &HeaderMap),
) -> Result<Response, ScaleError> {
    let mut info = opened.info.clone();
    info.etag.push_str(&wanted.suffix());
    match preconditions(headers).judge(&info.etag, info.modified_unix_ms) {
        Ok(()) => {}
        Err(ObjectError::NotModified { .. }) => return Ok(described(StatusCode::NOT_MODIFIED, &info, blob, uri)),
        Err(error) => return Ok(refuse(uri, StatusCode::PRECONDITION_FAILED, &error.to_string())),
    }
    let (bytes, media_type) = state.pictures.scale(wanted, whole(opened)).await?;
    let mut response = described(StatusCode::OK, &info, blob, uri);
    let headers = response.headers_mut();
    headers.remove(header::ACCEPT_RANGES);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CONTENT_LENGTH, bytes.len().into());
    if method != Method::HEAD {
        *response.body_mut() = Body::from(bytes);
    }
    Ok(response)
}

/// All bytes of a blob, which is at most `BLOB_SIZE_MAX`.
async fn whole(opened: OpenBlob) -> Result<Bytes, ScaleError> {
    let size = opened.info.size;
    match opened.body(0..size).await? {
        BlobBody::Whole(bytes) => Ok(bytes),
        BlobBody::Stream(mut stream) => {
            let mut whole = BytesMut::with_capacity(size as usize);
            while let Some(piece) = stream.next().await {
                whole.extend_from_slice(&piece.map_err(|error| BlobError::Unavailable(error.to_string()))?);
            }
            Ok(whole.freeze())
        }
    }
}

async fn answer(opened: OpenBlob, blob: &NamedBlob, (method, uri, headers): (&Method, &Uri, &HeaderMap)) -> Response {
    let info = opened.info.clone();
    let current = |value: &HeaderValue| value.as_bytes() == format!("\"{}\"", info.etag).as_bytes();
    let asked = range(headers).filter(|_| headers.get(header::IF_RANGE).is_none_or(current));
    let range = match opened.requested(&preconditions(headers), asked) {
        Ok(range) => range,
        Err(ObjectError::NotModified { .. }) => return described(StatusCode::NOT_MODIFIED, &info, blob, uri),
        Err(ObjectError::InvalidRange { size }) => {
            let mut response = refuse(uri, StatusCode::RANGE_NOT_SATISFIABLE, "the range lies outside of the blob");
            let text = format!("bytes */{size}");
            response.headers_mut().insert(header::CONTENT_RANGE, HeaderValue::try_from(text).expect("it is ASCII"));
            return response;
        }
        Err(error) => return refuse(uri, StatusCode::PRECONDITION_FAILED, &error.to_string()),
    };
    let status = if asked.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut response = described(status, &info, blob, uri);
    let length = range.end - range.start;
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    if asked.is_some() {
        let text = format!("bytes {}-{}/{}", range.start, range.end - 1, info.size);
        response.headers_mut().insert(header::CONTENT_RANGE, HeaderValue::try_from(text).expect("it is ASCII"));
    }
    if method == Method::HEAD {
        return response;
    }
    match opened.body(range).await {
        Ok(BlobBody::Whole(bytes)) => *response.body_mut() = Body::from(bytes),
        Ok(BlobBody::Stream(stream)) => *response.body_mut() = Body::from_stream(stream),
        Err(error) => return refuse_blob(uri, &error),
    }
    response
}

/// What is said of a blob with or without its bytes.
fn described(status: StatusCode, info: &BlobInfo, blob: &NamedBlob, uri: &Uri) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let mut set = |name, text: String| {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    };
    set(header::ETAG, format!("\"{}\"", info.etag));
    set(header::LAST_MODIFIED, http_date(info.modified_unix_ms));
    let name = if info.name.is_empty() { blob.name.as_deref().unwrap_or_default() } else { info.name.as_str() };
    let media_type = if info.content_type.is_empty() { type_of(name) } else { info.content_type.as_str() };
    set(header::CONTENT_TYPE, media_type.to_owned());
    if !info.name.is_empty() {
        let download = argument(uri, "dl").is_some_and(|value| value == "true");
        set(header::CONTENT_DISPOSITION, disposition(if download { "attachment" } else { "inline" }, &info.name));
    }
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// RFC 6266: a quoted name, and in its extended form where it is not ASCII.
fn disposition(kind: &str, name: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '_' };
    let quoted: String = name.chars().map(plain).collect::<String>().replace('\\', "\\\\").replace('"', "\\\"");
    if name.is_ascii() {
        return format!("{kind}; filename=\"{quoted}\"");
    }
    let encoded: String = name
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    format!("{kind}; filename=\"{quoted}\"; filename*=UTF-8''{encoded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_never_break_out() {
        assert_eq!(disposition("inline", "a b.png"), "inline; filename=\"a b.png\"");
        assert_eq!(disposition("inline", "a\"\r\nx"), "inline; filename=\"a\\\"__x\"");
        assert_eq!(disposition("attachment", "é"), "attachment; filename=\"_\"; filename*=UTF-8''%C3%A9");
    }
}
