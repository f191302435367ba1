//! Writing and deleting one blob.

use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::Response;
use meridian_object::{ACK_HEADER, BLOB_SIZE_MAX, PutBlob};
use serde_json::json;

use super::BlobState;
use super::address::NamedBlob;
use super::answer::{argument, json_answer, refuse, refuse_blob};
use super::upload::{Refused, Upload};

pub(crate) async fn write(State(state): State<BlobState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let uri = &parts.uri;
    let Some(blob) = NamedBlob::parse(uri.path()) else { return no_such_path(uri) };
    let authority = match state.may_write(&parts, blob.address).await {
        Ok(authority) => authority,
        Err(error) => return refuse(uri, StatusCode::FORBIDDEN, &error.to_string()),
    };
    if parts.headers.get(ACK_HEADER).is_some_and(|value| value != "local") {
        let reason = "a blob is acknowledged by its own datacenter alone: store an object to wait for others";
        return refuse(uri, StatusCode::BAD_REQUEST, reason);
    }
    let (modified_unix_ms, lives_ms) = match (modified(uri), lives(uri)) {
        (Ok(modified), Ok(lives)) => (modified, lives),
        (Err(reason), _) | (_, Err(reason)) => return refuse(uri, StatusCode::BAD_REQUEST, &reason),
    };
    let encoding = parts.headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding.as_bytes() != b"identity") {
        let reason = "an encoded body is not taken: send the bytes as they shall be read";
        return refuse(uri, StatusCode::UNSUPPORTED_MEDIA_TYPE, reason);
    }
    let upload = match Upload::take(&parts, body, blob.file_name(), BLOB_SIZE_MAX as u64).await {
        Ok(upload) => upload,
        Err(Refused(status, reason)) => return refuse(uri, status, &reason),
    };
    let Upload { name, content_type, body, length, size_hint, content_md5, is_form } = upload;
    if is_form && authority.sha256.is_some() {
        let reason = "a form is sent as UNSIGNED-PAYLOAD, or with a token: it is not kept as it was signed";
        return refuse(uri, StatusCode::BAD_REQUEST, reason);
    }
    let put = PutBlob {
        address: blob.address,
        name: name.clone(),
        content_type,
        modified_unix_ms,
        lives_ms,
        body,
        length,
        size_hint,
        content_md5,
        sha256: authority.sha256,
    };
    match state.objects.put_blob(put).await {
        Ok(stored) => {
            let answer = json!({ "name": name, "size": stored.size, "eTag": stored.etag });
            json_answer(uri, StatusCode::CREATED, &answer)
        }
        Err(error) => refuse_blob(uri, &error),
    }
}

pub(crate) async fn delete(State(state): State<BlobState>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let uri = &parts.uri;
    let Some(blob) = NamedBlob::parse(uri.path()) else { return no_such_path(uri) };
    if let Err(error) = state.may_write(&parts, blob.address).await {
        return refuse(uri, StatusCode::FORBIDDEN, &error.to_string());
    }
    match state.objects.delete_blob(blob.address).await {
        Ok(size) => json_answer(uri, StatusCode::ACCEPTED, &json!({ "size": size })),
        Err(error) => refuse_blob(uri, &error),
    }
}

pub(super) fn no_such_path(uri: &Uri) -> Response {
    refuse(uri, StatusCode::NOT_FOUND, "there is no such path")
}

/// `ts`: seconds since the Unix epoch.
fn modified(uri: &Uri) -> Result<Option<u64>, String> {
    let Some(text) = argument(uri, "ts") else { return Ok(None) };
    let seconds = text.parse::<u64>().ok().and_then(|seconds| seconds.checked_mul(1000));
    seconds.map(Some).ok_or_else(|| "ts is a time in seconds since the Unix epoch".to_owned())
}

fn lives(uri: &Uri) -> Result<Option<u64>, String> {
    argument(uri, "ttl").filter(|text| !text.is_empty()).map(|text| ttl_ms(&text)).transpose()
}

/// How long a `ttl` is: a number and `m`, `h`, `d`, `w`, `M` or `y`; minutes without a letter.
pub(super) fn ttl_ms(text: &str) -> Result<u64, String> {
    const MINUTE_MS: u64 = 60_000;
    const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
    let refused = || format!("{text:?} is no ttl: write a number and m, h, d, w, M or y, such as 3d");
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let unit_ms = match &text[digits.len()..] {
        "" | "m" => MINUTE_MS,
        "h" => 60 * MINUTE_MS,
        "d" => DAY_MS,
        "w" => 7 * DAY_MS,
        "M" => 30 * DAY_MS,
        "y" => 365 * DAY_MS,
        _ => return Err(refused()),
    };
    let number = digits.parse::<u64>().map_err(|_| refused())?;
    if number == 0 { Err(refused()) } else { number.checked_mul(unit_ms).ok_or_else(refused) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_have_units() {
        assert_eq!((ttl_ms("3m"), ttl_ms("3"), ttl_ms("2h")), (Ok(180_000), Ok(180_000), Ok(7_200_000)));
        assert_eq!((ttl_ms("1w"), ttl_ms("1M")), (Ok(7 * 86_400_000), Ok(30 * 86_400_000)));
        for text in ["", "m", "0d", "-1d", "3x", "3dd", "99999999999999999y", "3 d", "é"] {
            assert!(ttl_ms(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn ts_is_in_seconds() {
        let modified = |query: &str| modified(&format!("/3,01637037d6?{query}").parse().unwrap());
        assert_eq!((modified("ts=5"), modified("x=1")), (Ok(Some(5000)), Ok(None)));
        assert!(modified("ts=x").is_err() && modified("ts=18446744073709551615").is_err());
    }
}
