//! Connections: accept, limit, hand to hyper (HTTP/1.1, and HTTP/2 with prior knowledge), drain at shutdown.
//!
//! Invariants: at most `connections_max` connections; one connection's failure is its own; after the shutdown future
//! resolves no connection is accepted, and no task is left when `serve` returns.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use meridian_linger::{Linger, Owed};
use meridian_object::Objects;
use s3s::S3;
use s3s::config::StaticConfigProvider;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::admission::Admission;
use crate::auth::{Access, Secrets};
use crate::config::{GatewayLimits, S3Config};
use crate::context::RequestIds;
use crate::form::Forms;
use crate::gateway::Gateway;
use crate::guard::Guard;
use crate::head_guard::HeadGuard;
use crate::host::Domains;
use crate::iam::Iam;
use crate::respond::Responder;
use crate::sse::Sse;

/// How long to wait after a failed accept (out of descriptors), instead of spinning.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);
/// HTTP/2: flow-control windows that keep a long link busy, and pings that find dead peers.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// What a connection past the limit gets.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\nRetry-After: 1\r\n\
    Connection: close\r\nContent-Length: 101\r\n\r\n\
    <?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>SlowDown</Code><Message>Too busy</Message></Error>";

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("serve S3: the listener has no address")]
    Listener(#[source] io::Error),
}

/// Serves S3 on `listener` until `shutdown` resolves, then lets running requests end within the limit.
///
/// # Errors
/// When the listener is unusable; failures of connections are theirs alone.
pub async fn serve(
    config: S3Config,
    objects: Objects,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let guarded = Some(objects.clone());
    let sse = Sse { customer_keys_over_http: config.customer_keys_over_http };
    let gateway = Gateway::new(objects, config.durable_everywhere.clone(), sse);
    serve_with(config, gateway, guarded, listener, shutdown).await
}

/// `serve` for any implementation of the operations; without `objects` there is no guard.
pub(crate) async fn serve_with(
    config: S3Config,
    operations: impl S3,
    objects: Option<Objects>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let address = listener.local_addr().map_err(ServeError::Listener)?;
    tracing::info!(%address, "S3 is served");
    let limits = config.limits.clone();
    let connections = Arc::new(Semaphore::new(limits.connections_max));
    let responder = Arc::new(responder(&config, operations, objects));
    let (graceful, mut tasks) = (GracefulShutdown::new(), JoinSet::new());
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                connection_ended(ended);
                continue;
            }
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, peer)) => match Arc::clone(&connections).try_acquire_owned() {
                Ok(permit) => {
                    let (responder, limits) = (Arc::clone(&responder), limits.clone());
                    tasks.spawn(connection(stream, peer.ip(), responder, limits, graceful.watcher(), permit));
                }
                Err(_) => refuse(&stream),
            },
            Err(failure) => {
                tracing::warn!(%failure, "accept an S3 connection");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(limits.shutdown_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!(connections = tasks.len(), "S3 requests still ran at shutdown and were cut off");
    }
    tasks.shutdown().await;
    Ok(())
}

fn responder(config: &S3Config, operations: impl S3, objects: Option<Objects>) -> Responder {
    let domains = Domains::new(&config.domains);
    let mut builder = S3ServiceBuilder::new(operations);
    builder.set_auth(Secrets(Arc::clone(&config.credentials)));
    let guard = objects.clone().map(|objects| Arc::new(Guard::new(objects)));
    let iam = objects.clone().zip(guard.clone());
    let iam = iam.map(|(objects, guard)| Iam::new(objects, Arc::clone(&config.credentials), guard));
    builder.set_access(Access { credentials: Arc::clone(&config.credentials), guard: guard.clone() });
    builder.set_host(domains.clone());
    let mut s3s_config = s3s::config::S3Config::default();
    s3s_config.xml_max_body_size = config.limits.xml_body_size_max;
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(s3s_config))));
    let service: S3Service = builder.build();
    let sse = Sse { customer_keys_over_http: config.customer_keys_over_http };
    let forms = objects.clone().zip(guard).map(|(objects, guard)| Forms {
        gateway: Gateway::new(objects, config.durable_everywhere.clone(), sse),
        guard,
        credentials: Arc::clone(&config.credentials),
    });
    Responder {
        forms,
        service,
        admission: Admission::new(&config.limits, domains),
        ids: RequestIds::new(),
        requests: Semaphore::new(config.limits.requests_max),
        observer: config.observer.clone(),
        objects,
        iam,
    }
}

async fn connection(
    stream: TcpStream,
    peer: IpAddr,
    responder: Arc<Responder>,
    limits: GatewayLimits,
    watcher: Watcher,
    _permit: OwnedSemaphorePermit,
) {
    if let Err(failure) = stream.set_nodelay(true) {
        tracing::debug!(%failure, "set TCP_NODELAY");
    }
    let owed = Owed::default();
    let stream = Linger::new(stream, owed.clone());
    let stream = HeadGuard::new(stream, limits.header_timeout, limits.write_stall_timeout);
    let service = service_fn(move |request| {
        let (responder, owed) = (Arc::clone(&responder), owed.clone());
        async move { Ok::<_, Infallible>(responder.respond(request, Some(peer), &owed).await) }
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
        tracing::debug!(%failure, "an S3 connection ended"); // clients come and go: no news
    }
}

fn refuse(stream: &TcpStream) {
    tracing::warn!("an S3 connection past the limit was refused");
    let _ = stream.try_write(REFUSAL); // it fits an empty socket buffer; waiting for it would be a queue of its own
}

fn connection_ended(ended: Result<(), tokio::task::JoinError>) {
    if let Err(failure) = ended
        && failure.is_panic()
    {
        tracing::error!(%failure, "an S3 connection panicked");
    }
}

#[cfg(test)]
mod tests;
