//! How connections to other nodes are made: over the machine's TCP, or over what a test over a simulated network has in
//! its place. Both lanes go through here, gRPC and bulk, so that the same faults meet both.
//!
//! It knows nothing of TLS, deadlines or retries: they are its callers', and the same over either network.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Channel;

use crate::channel::{ChannelError, LinkTimings, endpoint};
use crate::tls::Identity;

/// A connection's bytes.
pub trait Pipe: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Pipe for S {}

/// Either network's connection.
pub type BoxedPipe = Box<dyn Pipe>;

type Connecting = Pin<Box<dyn Future<Output = io::Result<BoxedPipe>> + Send>>;

/// Makes connections. The default is the machine's TCP with TCP_NODELAY.
#[derive(Clone, Default)]
pub struct Dialer(Option<Arc<dyn Fn(String) -> Connecting + Send + Sync>>);

impl Dialer {
    /// `connect` is given `HOST:PORT`.
    pub fn by<F>(connect: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<BoxedPipe>> + Send + 'static,
    {
        Self(Some(Arc::new(move |address| Box::pin(connect(address)))))
    }

    /// A connection to `address` (`HOST:PORT`).
    ///
    /// # Errors
    /// Whatever the network says.
    pub async fn connect(&self, address: &str) -> io::Result<BoxedPipe> {
        if let Some(connect) = &self.0 {
            return connect(address.to_owned()).await;
        }
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    /// `crate::channel` over this network.
    ///
    /// # Errors
    /// As `crate::channel`.
    pub fn channel(
        &self,
        address: &str,
        identity: &Identity,
        server_name: &str,
        timings: &LinkTimings,
    ) -> Result<Channel, ChannelError> {
        let endpoint = endpoint(address, identity, server_name, timings)?;
        let Some(connect) = self.0.clone() else { return Ok(endpoint.connect_lazy()) };
        let address = address.to_owned();
        Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
            let connecting = connect(address.clone());
            async move { connecting.await.map(hyper_util::rt::TokioIo::new) }
        })))
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Dialer(of a test)" } else { "Dialer" })
    }
}

/// A bound port of either network.
pub trait Listener: Send + 'static {
    type Stream: Pipe;

    /// The next connection.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = TcpListener::accept(self).await?;
        let _ = stream.set_nodelay(true); // slower, not wrong
        Ok(stream)
    }
}
