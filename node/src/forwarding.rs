//! Between the S3 gateway and the links to other datacenters: requests that go there, and those that come from there.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use meridian_object::RemoteError;
use meridian_replication::{ForwardHandler, Replication};
use meridian_s3::{Door, Forward};
use meridian_types::DatacenterId;

/// The other datacenters, as the gateway asks them.
pub(crate) struct Elsewhere(pub(crate) Replication);

#[async_trait]
impl Forward for Elsewhere {
    fn is_other_member(&self, datacenter: DatacenterId) -> bool {
        self.0.is_other_member(datacenter)
    }

    async fn forward(
        &self,
        to: DatacenterId,
        request: Request<Incoming>,
        client: Option<IpAddr>,
    ) -> Result<Response<Full<Bytes>>, RemoteError> {
        self.0.forward(to, request, client).await
    }
}

/// What the bulk port does with requests of other datacenters' clients.
pub(crate) fn through(door: Door) -> ForwardHandler {
    Arc::new(move |request, client| {
        let door = door.clone();
        Box::pin(async move { door.answer(request, client).await })
    })
}
