//! Sessions and remote acknowledgement around the file API, as at the S3 gateway (rules 21, 25): `x-meridian-after`,
//! `x-meridian-token`, `x-meridian-ack`.
//!
//! Invariants: a session is waited for only once the signature holds; only a success waits for other datacenters.

use std::future::Future;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::Response;
use meridian_object::{ACK_HEADER, AFTER_HEADER, Ack, ObjectError, Objects, recording};

use super::answer::refuse_object;

const TOKEN_HEADER: &str = "x-meridian-token";

/// Runs a request that was let in.
pub(super) async fn in_session(
    objects: &Objects,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    request: impl Future<Output = Result<Response, ObjectError>>,
) -> Response {
    let ack = match wished(objects, method, headers) {
        Ok(ack) => ack,
        Err(error) => return refuse_object(uri, &error),
    };
    let running = async {
        if let Some(token) = headers.get(AFTER_HEADER) {
            objects.await_seen(token.to_str().unwrap_or_default()).await?;
        }
        request.await
    };
    let (answered, shown) = recording(ack, running).await;
    let answered = match answered {
        Ok(answer) if ack == Ack::Remote && answer.status().is_success() => {
            objects.await_ack(&shown).await.map(|()| answer)
        }
        answered => answered,
    };
    let mut answer = answered.unwrap_or_else(|error| refuse_object(uri, &error));
    // What was looked at to refuse somebody is none of his business.
    if !shown.seen.is_empty() && answer.status() != StatusCode::FORBIDDEN {
        let token = HeaderValue::from_str(&shown.seen.to_text()).expect("a token is hex digits");
        answer.headers_mut().insert(TOKEN_HEADER, token);
    }
    answer
}

fn wished(objects: &Objects, method: &Method, headers: &HeaderMap) -> Result<Ack, ObjectError> {
    match *method {
        Method::GET | Method::HEAD => Ok(Ack::Local),
        _ => objects.ack(headers.get(ACK_HEADER).map(HeaderValue::as_bytes)),
    }
}
