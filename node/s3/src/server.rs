//! The S3 port: its listener, and what the answers of all connections share.
//!
//! Invariants: those of the listener (`meridian-edge`): bounded connections, and no task left when `serve` returns.

use std::future::Future;
use std::io;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use meridian_edge::{Listener, ListenerLimits};
use meridian_linger::Owed;
use meridian_object::Objects;
use s3s::S3;
use s3s::config::StaticConfigProvider;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::admission::Admission;
use crate::auth::{Access, Secrets};
use crate::config::S3Config;
use crate::context::RequestIds;
use crate::form::Forms;
use crate::gateway::Gateway;
use crate::guard::Guard;
use crate::host::Domains;
use crate::iam::Iam;
use crate::respond::Responder;
use crate::sse::Sse;

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
    let sse = Sse { takes_customer_keys: config.customer_keys_over_http };
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
    tracing::info!(%address, tls = config.tls.is_some(), "S3 is served");
    let port = Listener {
        name: "S3",
        limits: listener_limits(&config),
        tls: config.tls.clone(),
        refusal: REFUSAL,
        counts: Arc::clone(&config.counts),
    };
    let responder = Arc::new(responder(&config, operations, objects));
    config.door.open(&responder);
    let answer = move |request: Request<Incoming>, peer| {
        let responder = Arc::clone(&responder);
        async move {
            let owed = request.extensions().get::<Owed>().cloned().unwrap_or_default();
            responder.respond(request, Some(peer), &owed).await
        }
    };
    port.serve(listener, answer, shutdown).await;
    Ok(())
}

fn listener_limits(config: &S3Config) -> ListenerLimits {
    let limits = &config.limits;
    ListenerLimits {
        connections_max: limits.connections_max,
        handshakes_max: limits.handshakes_max,
        handshake_timeout: limits.handshake_timeout,
        header_timeout: limits.header_timeout,
        write_stall_timeout: limits.write_stall_timeout,
        streams_per_connection_max: limits.streams_per_connection_max,
        headers_size_max: limits.headers_size_max,
        shutdown_timeout: limits.shutdown_timeout,
    }
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
    let sse = Sse { takes_customer_keys: config.customer_keys_over_http };
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
        forward: config.forward.clone(),
    }
}

#[cfg(test)]
mod tests;
