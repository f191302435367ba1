//! The accept loop of a port for clients: limits, the TLS handshake, hyper (HTTP/1.1, and HTTP/2 by ALPN or with prior
//! knowledge), and the end.
//!
//! Invariants: at most `connections_max` connections and `handshakes_max` handshakes at once; one connection's failure is its
//! own; after the shutdown future resolves no connection is accepted, and no task is left when `serve` returns.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use meridian_linger::{Linger, Owed};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::counts::{ListenerCounts, Open, add_one};
use crate::head_guard::HeadGuard;
use crate::peer::{Peer, TlsVersion};
use crate::tls::ClientTls;

/// How long to wait after a failed accept (out of descriptors), instead of spinning.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);
/// HTTP/2: flow-control windows that keep a long link busy, and pings that find dead peers.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Limits of one port. What is past them is refused or cut off.
#[derive(Debug, Clone)]
pub struct ListenerLimits {
    /// Connections open at once.
    pub connections_max: usize,
    /// TLS handshakes in progress at once: each costs a signature, and a connection that sends nothing would hold its place.
    pub handshakes_max: usize,
    /// From a connection's start to the end of its handshake.
    pub handshake_timeout: Duration,
    /// From the first wait for a request to the end of its headers; also how long an idle connection is kept.
    pub header_timeout: Duration,
    /// The longest time that a client may refuse to take any byte of an answer.
    pub write_stall_timeout: Duration,
    /// Streams of one HTTP/2 connection.
    pub streams_per_connection_max: u32,
    /// Names and values of one request's headers, in bytes.
    pub headers_size_max: usize,
    /// How long running requests may go on after a shutdown was asked for.
    pub shutdown_timeout: Duration,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            handshakes_max: 256,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(60),
            write_stall_timeout: Duration::from_secs(60),
            streams_per_connection_max: 128,
            headers_size_max: 8 << 10,
            shutdown_timeout: Duration::from_secs(20),
        }
    }
}

/// One port for clients.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its name in logs.
    pub name: &'static str,
    pub limits: ListenerLimits,
    /// None: plain HTTP.
    pub tls: Option<Arc<ClientTls>>,
    /// A whole answer for a connection past the limit, sent where there is no TLS.
    pub refusal: &'static [u8],
    pub counts: Arc<ListenerCounts>,
}

/// What every connection of a port shares.
struct Shared<H> {
    listener: Listener,
    handler: H,
    handshakes: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl Listener {
    /// Serves `socket` by `handler`, which finds its connection's `Owed` in a request's extensions, until `shutdown` resolves, then lets running requests end within the limit.
    pub async fn serve<H, F, B>(self, socket: TcpListener, handler: H, shutdown: impl Future<Output = ()>)
    where
        H: Fn(Request<Incoming>, Peer) -> F + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (name, shutdown_timeout, counts) = (self.name, self.limits.shutdown_timeout, Arc::clone(&self.counts));
        let connections = Arc::new(Semaphore::new(self.limits.connections_max));
        let handshakes = Arc::new(Semaphore::new(self.limits.handshakes_max));
        let (stop, stopping) = watch::channel(false);
        let (tls, refusal) = (self.tls.is_some(), self.refusal);
        let shared = Arc::new(Shared { listener: self, handler, handshakes, stopping });
        let (graceful, mut tasks) = (GracefulShutdown::new(), JoinSet::new());
        tokio::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    connection_ended(name, ended);
                    continue;
                }
                () = &mut shutdown => break,
            };
            match accepted {
                Ok((stream, address)) => match Arc::clone(&connections).try_acquire_owned() {
                    Ok(permit) => {
                        let (shared, watcher) = (Arc::clone(&shared), graceful.watcher());
                        let open = Open::new(Arc::clone(&counts));
                        tasks.spawn(async move {
                            shared.connection(stream, address, watcher).await;
                            drop((permit, open));
                        });
                    }
                    Err(_) => {
                        add_one(&counts.connections_refused);
                        tracing::warn!(port = name, "a connection past the limit was refused");
                        if !tls {
                            // It fits an empty socket buffer; waiting for it would be a queue of its own.
                            let _ = stream.try_write(refusal);
                        }
                    }
                },
                Err(failure) => {
                    tracing::warn!(port = name, %failure, "accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
        drop(socket);
        stop.send_replace(true); // handshakes end now; they hold a watcher each
        if tokio::time::timeout(shutdown_timeout, graceful.shutdown()).await.is_err() {
            tracing::warn!(port = name, connections = tasks.len(), "requests still ran at shutdown and were cut off");
        }
        tasks.shutdown().await;
    }
}

impl<H, F, B> Shared<H>
where
    H: Fn(Request<Incoming>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    async fn connection(self: Arc<Self>, stream: TcpStream, address: SocketAddr, watcher: Watcher) {
        if let Err(failure) = stream.set_nodelay(true) {
            tracing::debug!(%failure, "set TCP_NODELAY");
        }
        let Some(tls) = self.listener.tls.clone() else {
            return self.serve_http(stream, Peer { address, tls: None }, watcher).await;
        };
        if let Some((stream, version)) = self.handshake(stream, &tls).await {
            self.serve_http(stream, Peer { address, tls: Some(version) }, watcher).await;
        }
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        tls: &ClientTls,
    ) -> Option<(tokio_rustls::server::TlsStream<TcpStream>, TlsVersion)> {
        let (counts, name) = (&self.listener.counts, self.listener.name);
        let Ok(_in_progress) = self.handshakes.try_acquire() else {
            add_one(&counts.handshakes_refused);
            tracing::warn!(port = name, "a TLS handshake past the limit was refused");
            return None;
        };
        let mut stopping = self.stopping.clone();
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(self.listener.limits.handshake_timeout, tls.acceptor().accept(stream)) => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => return None,
        };
        match accepted {
            Ok(Ok(stream)) => {
                add_one(&counts.handshakes_ok);
                let version = TlsVersion::of(stream.get_ref().1.protocol_version());
                Some((stream, version))
            }
            Ok(Err(failure)) => {
                add_one(&counts.handshakes_failed);
                tracing::debug!(port = name, %failure, "a TLS handshake failed"); // scanners do it all day: no news
                None
            }
            Err(_) => {
                add_one(&counts.handshakes_late);
                tracing::debug!(port = name, "a TLS handshake took too long");
                None
            }
        }
    }

    async fn serve_http(
        self: &Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
        watcher: Watcher,
    ) {
        let limits = &self.listener.limits;
        let owed = Owed::default();
        let stream = Linger::new(stream, owed.clone());
        let stream = HeadGuard::new(stream, limits.header_timeout, limits.write_stall_timeout);
        let shared = Arc::clone(self);
        let service = service_fn(move |mut request| {
            name_host(&mut request);
            request.extensions_mut().insert(owed.clone());
            let answer = (shared.handler)(request, peer);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_per_connection_max)
            .max_header_list_size(u32::try_from(limits.headers_size_max).unwrap_or(u32::MAX).saturating_mul(2))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_INTERVAL);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        if let Err(failure) = watcher.watch(connection).await {
            tracing::debug!(port = self.listener.name, %failure, "a connection ended"); // clients come and go: no news
        }
    }
}

/// HTTP/2 names the host in the target of a request, which signatures call `host`.
fn name_host<B>(request: &mut Request<B>) {
    if request.version() != Version::HTTP_2 || request.headers().contains_key(header::HOST) {
        return;
    }
    let authority = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = authority {
        request.headers_mut().insert(header::HOST, host);
    }
}

fn connection_ended(name: &'static str, ended: Result<(), tokio::task::JoinError>) {
    if let Err(failure) = ended
        && failure.is_panic()
    {
        tracing::error!(port = name, %failure, "a connection panicked");
    }
}

#[cfg(test)]
mod tests;
