//! Calls to one peer node: HTTP/1.1 bodies with Content-Length over the mutual TLS of the cluster. Pieces of a body are
//! handed to the socket as they are, never joined.
//!
//! Invariants: at most `CONNECTIONS_MAX` connections; every call has a deadline; an answer longer than its limit is refused.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use meridian_wire::tls::Identity;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use crate::error::{PeerError, Refusal};

/// Connections to one node at once, of each lane.
const CONNECTIONS_MAX: usize = 8;
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest refusal.
const REFUSAL_SIZE_MAX: usize = 16 << 10;

/// A body of several pieces whose length is known.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pieces: VecDeque<Bytes>,
    left: u64,
}

impl Pieces {
    pub(crate) fn new(pieces: &[Bytes]) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { pieces: pieces.iter().cloned().collect(), left }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.pop_front();
        self.left -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A pool of connections to one peer node.
pub(crate) struct PeerClient {
    address: String,
    server_name: ServerName<'static>,
    connector: TlsConnector,
    idle: Mutex<Vec<SendRequest<Pieces>>>,
    permits: Semaphore,
}

impl PeerClient {
    /// # Errors
    /// `Name` when the server name is not one.
    pub(crate) fn new(address: String, server_name: String, identity: &Identity) -> Result<Self, PeerError> {
        let name = ServerName::try_from(server_name.clone()).map_err(|_| PeerError::Name { name: server_name })?;
        Ok(Self {
            address,
            server_name: name,
            connector: TlsConnector::from(identity.rustls_client()),
            idle: Mutex::new(Vec::new()),
            permits: Semaphore::new(CONNECTIONS_MAX),
        })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// POSTs and returns the whole answer, of at most `size_max` bytes.
    ///
    /// # Errors
    /// `Refused` is the peer's word; after any other it is not known whether the call was done.
    pub(crate) async fn call(
        &self,
        path: &str,
        body: Pieces,
        size_max: usize,
        deadline: Duration,
    ) -> Result<Bytes, PeerError> {
        let exchange = async {
            let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
            let mut connection = self.connection().await?;
            let answer = self.exchange(&mut connection, path, body, size_max).await?;
            if !connection.is_closed() {
                self.idle.lock().push(connection); // bounded by the permits
            }
            answer.map_err(|refusal| PeerError::Refused { address: self.address.clone(), refusal })
        };
        let late = || PeerError::Deadline { address: self.address.clone(), after_ms: deadline.as_millis() };
        let result = tokio::time::timeout(deadline, exchange).await.unwrap_or_else(|_| Err(late()));
        if matches!(result, Err(PeerError::Deadline { .. })) {
            self.idle.lock().clear(); // the others went the same way in silence
        }
        result
    }

    async fn connection(&self) -> Result<SendRequest<Pieces>, PeerError> {
        while let Some(mut connection) = { self.idle.lock().pop() } {
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        let connect = async {
            let tcp = TcpStream::connect(&self.address).await?;
            tcp.set_nodelay(true)?;
            self.connector.connect(self.server_name.clone(), tcp).await
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(|source| PeerError::Connect { address: self.address.clone(), source })?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broke(error))?;
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "a connection between replicas ended");
            }
        });
        Ok(sender)
    }

    async fn exchange(
        &self,
        connection: &mut SendRequest<Pieces>,
        path: &str,
        body: Pieces,
        size_max: usize,
    ) -> Result<Result<Bytes, Refusal>, PeerError> {
        let request = Request::post(path)
            .header(header::HOST, self.address.as_str())
            .body(body)
            .expect("paths are made of words and numbers");
        let answer = connection.send_request(request).await.map_err(|error| self.broke(error))?;
        let status = answer.status();
        let size_max = if status.is_success() { size_max } else { REFUSAL_SIZE_MAX };
        let mut body = answer.into_body();
        let announced = body.size_hint().exact().unwrap_or(0);
        let mut bytes = BytesMut::with_capacity(announced.min(size_max as u64) as usize);
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(|error| self.broke(error))?.into_data() {
                if bytes.len() + data.len() > size_max {
                    return Err(self.senseless(format!("more than {size_max} bytes")));
                }
                bytes.extend_from_slice(&data);
            }
        }
        if status.is_success() {
            return Ok(Ok(bytes.freeze()));
        }
        if status == StatusCode::CONFLICT
            && let Ok(refusal) = serde_json::from_slice(&bytes)
        {
            return Ok(Err(refusal));
        }
        Err(self.senseless(format!("status {status}")))
    }

    fn broke(&self, source: hyper::Error) -> PeerError {
        PeerError::Exchange { address: self.address.clone(), source }
    }

    pub(crate) fn senseless(&self, reason: String) -> PeerError {
        PeerError::Answer { address: self.address.clone(), reason }
    }
}

/// Shared by all callers of one node.
pub(crate) type SharedClient = Arc<PeerClient>;
