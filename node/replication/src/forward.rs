//! S3 requests that another datacenter has to answer, over the bulk port's mutual TLS: uploads live where they began (rule 22).
//!
//! The request goes as it came, signature and `Host` included, to `/v1/s3/…`; who the client is stands in a header that only
//! this port believes. The datacenter that answers decides everything anew, and never sends it on.
//!
//! Invariants: at most `FORWARDS_MAX` at once; the next node is tried only while no byte of the request has been sent; an answer
//! has at most `ANSWER_SIZE_MAX` bytes, and its time is bounded.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body as _, Incoming};
use meridian_object::RemoteError;
use meridian_types::DatacenterId;
use tokio::sync::Semaphore;

use crate::driver::Replication;
use crate::sources::Link;

/// Requests that this node has under way elsewhere.
const FORWARDS_MAX: usize = 64;
/// Longest time of a request that carries or copies no bytes, and of one that does.
const EXCHANGE_MAX: Duration = Duration::from_secs(30);
const UPLOAD_MAX: Duration = Duration::from_secs(600);
/// Answers about uploads are short; a page of parts is the longest.
const ANSWER_SIZE_MAX: usize = 8 << 20;
/// What the paths of forwarded requests begin with.
pub const FORWARD_PREFIX: &str = "/v1/s3";
/// Whose request it is.
pub const CLIENT_HEADER: &str = "meridian-client";
/// They belong to one connection.
const HOP_HEADERS: [HeaderName; 4] = [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE];

/// Slots of the requests under way.
pub(crate) struct Forwards(Semaphore);

impl Default for Forwards {
    fn default() -> Self {
        Self(Semaphore::new(FORWARDS_MAX))
    }
}

impl Replication {
    /// Whether a datacenter is another member.
    pub fn is_other_member(&self, datacenter: DatacenterId) -> bool {
        self.inner.sources.contains_key(&datacenter)
    }

    /// Has a request answered by another datacenter.
    ///
    /// # Errors
    /// `Unreachable`: no node of it can be asked, or the exchange broke, and then nobody knows whether it was done.
    pub async fn forward(
        &self,
        to: DatacenterId,
        request: Request<Incoming>,
        client: Option<IpAddr>,
    ) -> Result<Response<Full<Bytes>>, RemoteError> {
        let Some(source) = self.inner.sources.get(&to) else {
            return Err(RemoteError::NotFound { reason: format!("datacenter {to} is no member of this cluster") });
        };
        let failed = |reason: String| RemoteError::Unreachable { datacenter: source.peer.name.to_string(), reason };
        let Ok(_slot) = self.inner.forwards.0.try_acquire() else {
            return Err(failed("too many requests to other datacenters are under way".to_owned()));
        };
        let is_short = request.body().is_end_stream() && request.method() != Method::PUT; // a PUT without a body is a copy
        let deadline = if is_short { EXCHANGE_MAX } else { UPLOAD_MAX };
        let request = prepared(request, client).map_err(|reason| failed(reason.to_owned()))?;
        let exchange = async {
            let mut sender = connect(source.links_in_turn()).await?;
            let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (mut head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_SIZE_MAX).collect().await.map_err(|error| error.to_string())?;
            HOP_HEADERS.iter().filter(|name| **name != CONNECTION).for_each(|name| drop(head.headers.remove(name)));
            Ok(Response::from_parts(head, Full::new(body.to_bytes())))
        };
        match tokio::time::timeout(deadline, exchange).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(failed(format!("no answer within {} s", deadline.as_secs()))),
        }
    }
}

async fn connect<'a>(
    links: impl Iterator<Item = &'a Link>,
) -> Result<hyper::client::conn::http1::SendRequest<Incoming>, String> {
    let mut reason = "it has no nodes".to_owned();
    for link in links {
        match link.bulk.dial().await {
            Ok(sender) => return Ok(sender),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(reason)
}

/// The request as it goes out.
fn prepared(request: Request<Incoming>, client: Option<IpAddr>) -> Result<Request<Incoming>, &'static str> {
    let (mut parts, body) = request.into_parts();
    if let (false, Some(authority)) = (parts.headers.contains_key(HOST), parts.uri.authority()) {
        // HTTP/2 has it in the URI, and it is signed.
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| "its host is no text")?;
        parts.headers.insert(HOST, host);
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = format!("{FORWARD_PREFIX}{path}").parse().map_err(|_| "its path is too long")?;
    parts.version = Version::HTTP_11;
    HOP_HEADERS.iter().for_each(|name| drop(parts.headers.remove(name)));
    parts.headers.remove(CLIENT_HEADER);
    if let Some(client) = client {
        let client = HeaderValue::from_str(&client.to_string()).expect("an address is ASCII");
        parts.headers.insert(CLIENT_HEADER, client);
    }
    Ok(Request::from_parts(parts, body))
}

/// What the datacenter that answers makes of a forwarded request's head: its own path, and who the client is.
///
/// # Errors
/// When it is not one.
pub fn unwrapped(uri: &Uri, headers: &mut HeaderMap) -> Result<(Uri, Option<IpAddr>), &'static str> {
    let path = uri.path_and_query().and_then(|path| path.as_str().strip_prefix(FORWARD_PREFIX));
    let uri = path.filter(|path| path.starts_with('/')).and_then(|path| path.parse().ok()).ok_or("no such path")?;
    let client = headers.remove(CLIENT_HEADER);
    Ok((uri, client.and_then(|client| client.to_str().ok()?.parse().ok())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarded_head_is_the_clients_again() {
        let mut headers = HeaderMap::new();
        headers.insert(CLIENT_HEADER, HeaderValue::from_static("10.0.0.7"));
        let uri: Uri = "/v1/s3/b/a%20b?uploadId=1&partNumber=2".parse().unwrap();
        let (uri, client) = unwrapped(&uri, &mut headers).unwrap();
        assert_eq!((uri.to_string().as_str(), client), ("/b/a%20b?uploadId=1&partNumber=2", "10.0.0.7".parse().ok()));
        assert!(headers.is_empty());
        for path in ["/v1/s3", "/v1/s3x/b", "/v1/needle/1"] {
            assert!(unwrapped(&path.parse().unwrap(), &mut headers).is_err(), "{path}");
        }
    }
}
