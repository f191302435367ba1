//! The server of the REST port: routes, limits, and its end.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::body::Incoming;
use meridian_edge::{ClientTls, Listener, ListenerCounts, ListenerLimits, Peer};
use meridian_object::Objects;
use meridian_replication::Replication;
use meridian_sigv4::Verifier;
use tokio::net::TcpListener;
use tower::ServiceExt;

use crate::admin::{self, AdminKeys, AdminState, NodeView};
use crate::blob::{self, BlobAuth, BlobState};
use crate::buckets;
use crate::files;
use crate::metrics::{NodeMetrics, RequestKind};
use crate::openapi;
use crate::unread::end_with_unread_body;
use crate::users;

/// How long a connection may take to send a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests in flight may go on at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// What a connection past the limit gets.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n\
    Connection: close\r\nContent-Length: 50\r\n\r\n\
    {\"error\":\"too many connections; slow down, retry\"}";

/// Paths of the blob API that tell of nodes and volumes, or make these ready.
const BLOB_STATUS_PATHS: [&str; 6] =
    ["/dir/status", "/vol/status", "/vol/grow", "/vol/vacuum", "/col/delete", "/cluster/status"];

/// What the REST gateway stands on.
pub struct RestConfig {
    pub view: Arc<dyn NodeView>,
    pub replication: Replication,
    pub objects: Objects,
    pub keys: Arc<dyn AdminKeys>,
    pub metrics: Arc<NodeMetrics>,
    pub connections_max: usize,
    /// TLS handshakes in progress at once.
    pub handshakes_max: usize,
    /// What clients see of this server; without it plain HTTP is spoken.
    pub tls: Option<Arc<ClientTls>>,
    pub counts: Arc<ListenerCounts>,
    pub blob_auth: BlobAuth,
}

#[derive(Clone)]
struct OpenState {
    view: Arc<dyn NodeView>,
    metrics: Arc<NodeMetrics>,
}

/// Serves until `shutdown`, then lets requests in flight end within a bound.
pub async fn serve(config: RestConfig, listener: TcpListener, shutdown: impl Future<Output = ()>) {
    let limits = ListenerLimits {
        connections_max: config.connections_max,
        handshakes_max: config.handshakes_max,
        header_timeout: HEADER_TIMEOUT,
        shutdown_timeout: SHUTDOWN_GRACE,
        ..ListenerLimits::default()
    };
    let counts = Arc::clone(&config.counts);
    let port = Listener { name: "REST", limits, tls: config.tls.clone(), refusal: REFUSAL, counts };
    let router = router(&config);
    let answer = move |request: axum::http::Request<Incoming>, _: Peer| {
        let router = router.clone();
        async move {
            let Ok(answer) = router.oneshot(request.map(Body::new)).await;
            answer
        }
    };
    port.serve(listener, answer, shutdown).await;
}

fn router(config: &RestConfig) -> Router {
    let open = OpenState { view: Arc::clone(&config.view), metrics: Arc::clone(&config.metrics) };
    let admin_state = AdminState {
        view: Arc::clone(&config.view),
        replication: config.replication.clone(),
        objects: config.objects.clone(),
        keys: Arc::clone(&config.keys),
        verifier: Arc::new(Verifier::new(admin::SIGV4_SERVICE)),
    };
    let admin = Router::new()
        .route("/admin/v1/status", get(admin::status))
        .route("/admin/v1/nodes", get(admin::nodes))
        .route("/admin/v1/nodes/drain", post(admin::drain))
        .route("/admin/v1/volumes", get(admin::volumes))
        .route("/admin/v1/replication/status", get(admin::replication_status))
        .route("/admin/v1/replication/wait", post(admin::replication_wait))
        .route("/admin/v1/replication/conflicts", get(admin::conflicts))
        .route("/admin/v1/replication/parked", get(admin::parked))
        .route("/admin/v1/replication/parked/retry", post(admin::retry_parked))
        .route("/admin/v1/replication/explain", get(admin::explain))
        .merge(users::routes())
        .merge(buckets::routes())
        .layer(from_fn_with_state(admin_state.clone(), admin::authenticate))
        .with_state(admin_state);
    let blobs =
        BlobState::new(config.objects.clone(), Arc::clone(&config.keys), config.blob_auth, config.tls.is_some());
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi::serve))
        .with_state(open)
        .merge(admin)
        .merge(blob::routes(blobs.clone()))
        .merge(files::routes(blobs))
        .fallback(|| async { admin::refuse(StatusCode::NOT_FOUND, "there is no such path") })
        .method_not_allowed_fallback(|| async {
            admin::refuse(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method")
        })
        .layer(from_fn(end_with_unread_body))
        .layer(from_fn_with_state(Arc::clone(&config.metrics), count))
}

async fn ready(State(state): State<OpenState>) -> Response {
    let readiness = state.view.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn metrics(State(state): State<OpenState>) -> Response {
    state.view.refresh_metrics();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.render()).into_response()
}

async fn count(State(metrics): State<Arc<NodeMetrics>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let method = request.method().clone();
    let response = next.run(request).await;
    let operation = match path.as_deref() {
        Some("/healthz") => "healthz",
        Some("/readyz") => "readyz",
        Some("/metrics") => "metrics",
        Some("/admin/v1/status") => "status",
        Some("/admin/v1/nodes") => "nodes",
        Some("/admin/v1/nodes/drain") => "node-drain",
        Some("/admin/v1/volumes") => "volumes",
        Some("/admin/v1/replication/status") => "replication-status",
        Some("/admin/v1/replication/wait") => "replication-wait",
        Some("/admin/v1/replication/conflicts") => "replication-conflicts",
        Some("/admin/v1/replication/parked") => "replication-parked",
        Some("/admin/v1/replication/parked/retry") => "replication-retry",
        Some("/admin/v1/replication/explain") => "replication-explain",
        Some(path) if path.starts_with("/admin/v1/users") => "users",
        Some(path) if path.starts_with("/admin/v1/groups") => "groups",
        Some(path) if path.starts_with("/admin/v1/buckets") => "buckets",
        Some("/dir/assign") => "blob-assign",
        Some("/dir/lookup") => "blob-lookup",
        Some(path) if BLOB_STATUS_PATHS.contains(&path) => "blob-status",
        Some(path) if path.starts_with("/buckets") => "files",
        Some(path) if path.starts_with("/{") => match method {
            Method::GET | Method::HEAD => "blob-read",
            Method::DELETE => "blob-delete",
            _ => "blob-write",
        },
        _ => "other",
    };
    metrics.request(RequestKind::Rest, operation, response.status().as_u16(), started.elapsed());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_announces_its_length() {
        let text = std::str::from_utf8(REFUSAL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}
