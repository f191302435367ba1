//! Requests about an upload of another datacenter are answered by that one (rule 22), as if the client had asked it.
//!
//! Nothing is decided here: the signature, the bucket and the upload are all looked at where the upload lives, by the same
//! gateway, which a request comes to through the `Door` and not through a port.
//!
//! Invariants: a request that came through the door is never sent on; what is not understood here stays here and gets its usual
//! answer.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::CONNECTION;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use meridian_edge::Peer;
use meridian_linger::Owed;
use meridian_object::RemoteError;
use meridian_types::{DatacenterId, UploadId};
use s3s::{Body, S3Result};

use crate::context::RequestContext;
use crate::errors::unavailable;
use crate::respond::Responder;

const UPLOAD_ID: &str = "uploadId";
/// What `Retry-After` says while the other datacenter can't be asked.
const RETRY_AFTER_S: u32 = 5;

/// Has requests answered by other datacenters.
#[async_trait]
pub trait Forward: Send + Sync + 'static {
    /// Whether it is another member.
    fn is_other_member(&self, datacenter: DatacenterId) -> bool;

    /// # Errors
    /// `RemoteError`; whether the request was done is not known.
    async fn forward(
        &self,
        to: DatacenterId,
        request: Request<Incoming>,
        client: Option<IpAddr>,
    ) -> Result<Response<Full<Bytes>>, RemoteError>;
}

/// Marks a request that another datacenter sent, and an answer that one gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forwarded;

/// Where requests of other datacenters' clients come in; opened by `serve`.
#[derive(Clone, Default)]
pub struct Door(Arc<OnceLock<Arc<Responder>>>);

impl Door {
    pub(crate) fn open(&self, responder: &Arc<Responder>) {
        let _ = self.0.set(Arc::clone(responder));
    }

    /// Answers a request of a client of another datacenter.
    pub async fn answer(&self, mut request: Request<Incoming>, client: Option<IpAddr>) -> Response<Full<Bytes>> {
        let Some(responder) = self.0.get() else { return failed("this node is starting") };
        request.extensions_mut().insert(Forwarded);
        // How the client came to the first datacenter is not told here: nothing is taken for secure that may not be.
        let client = client.map(|address| Peer { address: SocketAddr::new(address, 0), tls: None });
        let (head, body) = responder.respond(request, client, &Owed::default()).await.into_parts();
        match body.collect().await {
            Ok(body) => Response::from_parts(head, Full::new(body.to_bytes())),
            Err(error) => failed(&error.to_string()),
        }
    }
}

fn failed(reason: &str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::copy_from_slice(reason.as_bytes())));
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    answer
}

/// The other datacenter whose upload a request is about.
pub(crate) fn upload_elsewhere<B>(forward: &dyn Forward, request: &Request<B>) -> Option<DatacenterId> {
    if request.extensions().get::<Forwarded>().is_some() {
        return None;
    }
    let datacenter = upload_of(request.uri())?.datacenter();
    forward.is_other_member(datacenter).then_some(datacenter)
}

fn upload_of(uri: &Uri) -> Option<UploadId> {
    let mut pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == UPLOAD_ID)?.1.parse().ok()
}

/// Has a request answered elsewhere.
///
/// # Errors
/// `ServiceUnavailable`, naming the datacenter.
pub(crate) async fn forwarded(
    forward: &dyn Forward,
    to: DatacenterId,
    request: Request<Incoming>,
    context: &RequestContext,
) -> S3Result<Response<Body>> {
    context.set_operation("Forwarded");
    let answer = forward.forward(to, request, context.peer).await.map_err(|error| {
        let text = match error {
            RemoteError::Unreachable { datacenter, reason } => format!(
                "The upload lives in datacenter {datacenter}, which can't be asked ({reason}): come again, send its \
                 requests to that region, or begin a new upload here."
            ),
            RemoteError::NotFound { reason } => reason,
        };
        unavailable(text, RETRY_AFTER_S)
    })?;
    let (mut head, body) = answer.into_parts();
    // It says whether the body was read to its end there; this connection's end is decided by that here.
    if head.headers.remove(CONNECTION).is_none() {
        context.set_body_ended();
    }
    head.extensions.insert(Forwarded);
    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(Response::from_parts(head, Body::from(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Members;

    #[async_trait]
    impl Forward for Members {
        fn is_other_member(&self, datacenter: DatacenterId) -> bool {
            datacenter.get() == 2
        }

        async fn forward(
            &self,
            _: DatacenterId,
            _: Request<Incoming>,
            _: Option<IpAddr>,
        ) -> Result<Response<Full<Bytes>>, RemoteError> {
            Err(RemoteError::NotFound { reason: "nobody is asked here".to_owned() })
        }
    }

    #[test]
    fn only_an_upload_of_another_member_is_asked_for_elsewhere_and_only_once() {
        let upload = |id: u8| UploadId::new(DatacenterId::new(id).unwrap(), [7; 15]);
        let request = |query: String| Request::builder().uri(format!("/b/k?{query}")).body(()).unwrap();
        let elsewhere = |request: &Request<()>| upload_elsewhere(&Members, request).map(DatacenterId::get);
        let mut there = request(format!("partNumber=1&uploadId={}", upload(2)));
        assert_eq!(elsewhere(&there), Some(2));
        there.extensions_mut().insert(Forwarded);
        assert_eq!(elsewhere(&there), None);
        let here = [format!("uploadId={}", upload(1)), "uploadId=zz".into(), "uploadId".into(), "uploads".into()];
        assert!(here.into_iter().all(|query| elsewhere(&request(query)).is_none()));
        assert_eq!(elsewhere(&Request::builder().uri("/b/k").body(()).unwrap()), None);
    }
}
