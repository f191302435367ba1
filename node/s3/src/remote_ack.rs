//! `x-meridian-ack: remote` at this gateway: the answer to a write waits for other datacenters (rule 25).
//!
//! Invariants: only a success waits; what is answered past the bound is an error that names the write which stands, by
//! its ETag and its version.

use http::header::ETAG;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode};
use meridian_object::{ACK_HEADER, Ack, Objects, Shown};
use s3s::{Body, S3Result};

use crate::context::RequestContext;
use crate::errors::object_error;

/// What stays of the answer that was not given.
const KEPT_HEADERS: [HeaderName; 2] = [ETAG, HeaderName::from_static("x-amz-version-id")];

/// What a request asks for; of reads nothing is asked.
///
/// # Errors
/// `InvalidArgument`.
pub(crate) fn wished(objects: Option<&Objects>, method: &Method, headers: &HeaderMap) -> S3Result<Ack> {
    match objects {
        Some(objects) if ![Method::GET, Method::HEAD, Method::OPTIONS].contains(method) => {
            let value = headers.get(ACK_HEADER).map(|value| value.as_bytes());
            objects.ack(value).map_err(|failure| object_error(failure, None))
        }
        _ => Ok(Ack::Local),
    }
}

/// The answer, once others have what was written, or why they have not.
///
/// # Errors
/// `RemoteAckTimeout` (503).
pub(crate) async fn acknowledged(
    objects: &Objects,
    shown: &Shown,
    answer: Response<Body>,
    context: &RequestContext,
) -> S3Result<Response<Body>> {
    // A form that was taken may be answered by a redirect.
    if !answer.status().is_success() && answer.status() != StatusCode::SEE_OTHER {
        return Ok(answer);
    }
    objects.await_ack(shown).await.map_err(|failure| {
        let mut failure = object_error(failure, Some(context));
        let mut headers = failure.headers().cloned().unwrap_or_default();
        for name in KEPT_HEADERS {
            if let Some(value) = answer.headers().get(&name) {
                headers.insert(name, value.clone());
            }
        }
        failure.set_headers(headers);
        failure
    })?;
    Ok(answer)
}
