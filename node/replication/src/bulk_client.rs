//! Bulk bytes from one peer node: HTTP/1.1 bodies with Content-Length over the mutual TLS of the cluster, because
//! they cost a quarter of what gRPC streams do.
//!
//! Invariants: at most `BULK_CONNECTIONS_MAX` connections a node; every request has a deadline; a body longer than
//! the caller asked for is refused, never buffered.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use meridian_wire::Dialer;
use meridian_wire::tls::Identity;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use crate::bulk_server::COMMITTED_HEADER;

/// Connections to one peer node at once.
pub const BULK_CONNECTIONS_MAX: usize = 8;

/// Why bytes did not come.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    #[error("connect to {address}: {source}")]
    Connect { address: String, source: std::io::Error },
    #[error("no answer from {address} within {} ms", .after.as_millis())]
    Deadline { address: String, after: Duration },
    #[error("{address} broke the exchange: {source}")]
    Exchange { address: String, source: hyper::Error },
    #[error("{address} answered {status}: {reason}")]
    Status { address: String, status: StatusCode, reason: String },
    #[error("{address} sent {got} bytes, at most {limit} were asked for")]
    TooLong { address: String, got: u64, limit: usize },
    #[error("{name:?} is no server name")]
    Name { name: String },
}

/// A pool of connections to one peer node.
pub struct BulkClient {
    address: String,
    server_name: ServerName<'static>,
    dialer: Dialer,
    connector: TlsConnector,
    connect_timeout: Duration,
    idle: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
    permits: Semaphore,
}

/// Bytes of a volume's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub bytes: Bytes,
    /// How far the volume was committed when they were read, if the node said so.
    pub committed: Option<u64>,
}

/// One request.
struct Wanted<'a> {
    method: Method,
    path: &'a str,
    limit: usize,
    /// How long the answer may take to begin.
    head_max: Duration,
    /// A body that stalls is worth what has come of it.
    partial_is_useful: bool,
}

/// How long a node may take to begin its answer: it only reads its disk. A link that is cut is noticed by this.
const HEAD_MAX: Duration = Duration::from_secs(3);
/// How long a body may bring nothing.
const STALL_MAX: Duration = Duration::from_secs(10);
/// Text of an error answer that is worth keeping.
const REASON_LENGTH_MAX: usize = 300;

impl BulkClient {
    /// # Errors
    /// `Name` when the server name is not one.
    pub fn new(
        address: String,
        server_name: String,
        (dialer, identity): (&Dialer, &Identity),
        connect_timeout: Duration,
    ) -> Result<Self, BulkError> {
        let name = ServerName::try_from(server_name.clone()).map_err(|_| BulkError::Name { name: server_name })?;
        Ok(Self {
            address,
            server_name: name,
            dialer: dialer.clone(),
            connector: TlsConnector::from(Arc::clone(&identity.rustls_client())),
            connect_timeout,
            idle: Mutex::new(Vec::new()),
            permits: Semaphore::new(BULK_CONNECTIONS_MAX),
        })
    }

    /// GETs `path` and returns the whole body, which must not be longer than `limit` bytes.
    pub async fn get(&self, path: &str, limit: usize, deadline: Duration) -> Result<Bytes, BulkError> {
        let wanted = Wanted { method: Method::GET, path, limit, head_max: HEAD_MAX, partial_is_useful: false };
        Ok(self.fetch(wanted, deadline).await?.bytes)
    }

    /// DELETEs `path`.
    pub async fn delete(&self, path: &str, deadline: Duration) -> Result<(), BulkError> {
        let wanted = Wanted { method: Method::DELETE, path, limit: 0, head_max: HEAD_MAX, partial_is_useful: false };
        self.fetch(wanted, deadline).await.map(drop)
    }

    /// GETs a range of a volume, for which the node may wait as long as `path` asks it to. A body that stalls after some
    /// bytes is returned as far as it came.
    pub async fn get_range(
        &self,
        path: &str,
        limit: usize,
        wait: Duration,
        deadline: Duration,
    ) -> Result<Range, BulkError> {
        let head_max = wait + HEAD_MAX;
        let wanted = Wanted { method: Method::GET, path, limit, head_max, partial_is_useful: true };
        self.fetch(wanted, deadline).await
    }

    async fn fetch(&self, wanted: Wanted<'_>, deadline: Duration) -> Result<Range, BulkError> {
        let exchange = async {
            let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
            let mut connection = self.connection().await?;
            let (range, whole) = self.exchange(&mut connection, wanted).await?;
            if whole && !connection.is_closed() {
                self.idle.lock().push(connection); // bounded by the permits
            }
            Ok(range)
        };
        let result = tokio::time::timeout(deadline, exchange).await.unwrap_or_else(|_| Err(self.late(deadline)));
        if matches!(result, Err(BulkError::Deadline { .. })) {
            self.idle.lock().clear(); // the others went the same way in silence
        }
        result
    }

    fn late(&self, after: Duration) -> BulkError {
        BulkError::Deadline { address: self.address.clone(), after }
    }

    async fn connection(&self) -> Result<SendRequest<Empty<Bytes>>, BulkError> {
        while let Some(mut connection) = { self.idle.lock().pop() } {
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        self.dial().await
    }

    /// A new connection, for requests with bodies of this kind.
    pub(crate) async fn dial<B>(&self) -> Result<SendRequest<B>, BulkError>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let failed = |source| BulkError::Connect { address: self.address.clone(), source };
        let connect = async {
            let pipe = self.dialer.connect(&self.address).await?;
            self.connector.connect(self.server_name.clone(), pipe).await
        };
        let stream = tokio::time::timeout(self.connect_timeout, connect)
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(failed)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| BulkError::Exchange { address: self.address.clone(), source })?;
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "a bulk connection ended");
            }
        });
        Ok(sender)
    }

    async fn exchange(
        &self,
        connection: &mut SendRequest<Empty<Bytes>>,
        wanted: Wanted<'_>,
    ) -> Result<(Range, bool), BulkError> {
        let Wanted { method, path, limit, head_max, partial_is_useful } = wanted;
        let broke = |source| BulkError::Exchange { address: self.address.clone(), source };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.as_str())
            .body(Empty::new())
            .expect("paths are made of digits and hex");
        let answer = tokio::time::timeout(head_max, connection.send_request(request))
            .await
            .map_err(|_| self.late(head_max))?
            .map_err(broke)?;
        let status = answer.status();
        let committed = answer.headers().get(COMMITTED_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut body = answer.into_body();
        let limit_here = if status.is_success() { limit } else { 64 << 10 };
        let announced = http_body::Body::size_hint(&body).exact().unwrap_or(0);
        let too_long = |got: u64| BulkError::TooLong { address: self.address.clone(), got, limit: limit_here };
        if announced > limit_here as u64 {
            return Err(too_long(announced));
        }
        let mut bytes = BytesMut::with_capacity(announced as usize);
        loop {
            let frame = match tokio::time::timeout(STALL_MAX, body.frame()).await {
                Ok(Some(frame)) => frame.map_err(broke)?,
                Ok(None) => break,
                Err(_) if status.is_success() && partial_is_useful && !bytes.is_empty() => {
                    return Ok((Range { bytes: bytes.freeze(), committed }, false));
                }
                Err(_) => return Err(self.late(STALL_MAX)),
            };
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > limit_here {
                    return Err(too_long((bytes.len() + data.len()) as u64));
                }
                bytes.extend_from_slice(&data);
            }
        }
        if status.is_success() {
            return Ok((Range { bytes: bytes.freeze(), committed }, true));
        }
        let reason = String::from_utf8_lossy(&bytes[..bytes.len().min(REASON_LENGTH_MAX)]).into_owned();
        Err(BulkError::Status { address: self.address.clone(), status, reason })
    }
}
