//! The admin interface: who may ask, and the answers as JSON.
//!
//! Invariants: every admin call carries a SigV4 signature (service `meridian`) of a key that the node gave the admin
//! policy; a refusal says neither which keys exist nor what was wrong beyond the kind.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use meridian_object::Objects;
use meridian_replication::{
    CONFLICTS_PAGE_MAX, ConflictQuery, Replication, ReplicationError, RetryRequest, WaitRequest,
};
use meridian_sigv4::{Claim, PayloadHash, SecretKey, Verifier, VerifyError};
use meridian_types::{BucketName, ObjectKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Longest admin request body, in bytes.
const BODY_SIZE_MAX: usize = 64 << 10;
/// The service name in the scope of a signature.
pub const SIGV4_SERVICE: &str = "meridian";

/// The access keys with the admin policy.
#[async_trait]
pub trait AdminKeys: Send + Sync + 'static {
    /// The secret of an access key that may administrate.
    async fn secret_of(&self, access_key: &str) -> Option<SecretKey>;
}

/// Whether a node serves, and if not, what it lacks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Readiness {
    pub ready: bool,
    pub missing: Vec<String>,
}

/// What the binary tells of its node.
#[async_trait]
pub trait NodeView: Send + Sync + 'static {
    fn readiness(&self) -> Readiness;
    /// The node's wall clock, in milliseconds since the Unix epoch.
    fn now_unix_ms(&self) -> u64;
    /// The answer of `/admin/v1/status`.
    async fn status(&self) -> Value;
    /// Brings gauges up to date before they are rendered.
    fn refresh_metrics(&self);
}

#[derive(Clone)]
pub(crate) struct AdminState {
    pub view: Arc<dyn NodeView>,
    pub replication: Replication,
    pub objects: Objects,
    pub keys: Arc<dyn AdminKeys>,
    pub verifier: Arc<Verifier>,
}

pub(crate) async fn status(State(state): State<AdminState>) -> Json<Value> {
    Json(state.view.status().await)
}

pub(crate) async fn replication_status(State(state): State<AdminState>) -> Response {
    Json(state.replication.status().await).into_response()
}

pub(crate) async fn replication_wait(State(state): State<AdminState>, body: Bytes) -> Response {
    let request: WaitRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &format!("the wait request is not valid: {error}")),
    };
    match state.replication.wait(&request).await {
        Ok(report) => Json(report).into_response(),
        Err(error) => refuse_replication(&error),
    }
}

/// `?bucket=B&since_ms=T&after=TOKEN&limit=N`, each of them optional.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConflictsQuery {
    bucket: Option<String>,
    since_ms: Option<u64>,
    after: Option<String>,
    limit: Option<usize>,
}

pub(crate) async fn nodes(State(state): State<AdminState>) -> Response {
    Json(state.replication.nodes()).into_response()
}

/// Which node takes no further volumes, or takes them again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// Its name or its number.
    pub node: String,
    pub draining: bool,
}

pub(crate) async fn drain(State(state): State<AdminState>, body: Bytes) -> Response {
    let request: DrainRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    match state.replication.drain(&request.node, request.draining).await {
        Ok(node) => Json(node).into_response(),
        Err(error @ ReplicationError::NoSuchNode { .. }) => refuse(StatusCode::NOT_FOUND, &error.to_string()),
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

pub(crate) async fn volumes(State(state): State<AdminState>) -> Response {
    Json(state.replication.volumes().await).into_response()
}

pub(crate) async fn conflicts(State(state): State<AdminState>, Query(query): Query<ConflictsQuery>) -> Response {
    let bucket = match query.bucket.map(|name| name.parse::<BucketName>()).transpose() {
        Ok(bucket) => bucket,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let (since_ms, after) = (query.since_ms, query.after);
    let asked = ConflictQuery { bucket, since_ms, after, limit: query.limit.unwrap_or(CONFLICTS_PAGE_MAX) };
    match state.replication.conflicts(&asked).await {
        Ok(page) => Json(page).into_response(),
        Err(error) => refuse_replication(&error),
    }
}

pub(crate) async fn parked(State(state): State<AdminState>) -> Response {
    Json(state.replication.parked()).into_response()
}

pub(crate) async fn retry_parked(State(state): State<AdminState>, body: Bytes) -> Response {
    let request: RetryRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &format!("the retry request is not valid: {error}")),
    };
    match state.replication.retry_parked(&request) {
        Ok(retried) => Json(retried).into_response(),
        Err(error) => refuse_replication(&error),
    }
}

fn refuse_replication(error: &ReplicationError) -> Response {
    let status = match error {
        ReplicationError::NoSuchDatacenter { .. }
        | ReplicationError::BadUntil { .. }
        | ReplicationError::BadToken { .. } => StatusCode::BAD_REQUEST,
        ReplicationError::NoSuchBucket { .. } => StatusCode::NOT_FOUND,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    refuse(status, &error.to_string())
}

/// `?bucket=B&key=K`.
#[derive(Deserialize)]
pub(crate) struct ExplainQuery {
    bucket: String,
    key: String,
}

pub(crate) async fn explain(State(state): State<AdminState>, Query(query): Query<ExplainQuery>) -> Response {
    let names = query.bucket.parse::<BucketName>().and_then(|bucket| Ok((bucket, query.key.parse::<ObjectKey>()?)));
    let (bucket, key) = match names {
        Ok(names) => names,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    match state.replication.explain(&bucket, &key).await {
        Ok(explanation) => Json(explanation).into_response(),
        Err(error) => refuse_replication(&error),
    }
}

/// Checks the signature over the whole request, body included, before a handler sees it.
pub(crate) async fn authenticate(State(state): State<AdminState>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, BODY_SIZE_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return refuse(StatusCode::PAYLOAD_TOO_LARGE, "an admin request has at most 64 KiB"),
    };
    match verified(&state, &parts, &body).await {
        Ok(()) => next.run(Request::from_parts(parts, body.into())).await,
        Err(error) => {
            tracing::info!(%error, path = parts.uri.path(), "an admin call is refused");
            refuse(
                StatusCode::FORBIDDEN,
                "sign the request with SigV4 (service `meridian`) by a key with the admin policy, within 15 minutes",
            )
        }
    }
}

async fn verified(state: &AdminState, parts: &Parts, body: &Bytes) -> Result<(), VerifyError> {
    let claim = Claim::parse(parts)?;
    let secret = state.keys.secret_of(claim.access_key()).await.ok_or(VerifyError::Mismatch)?;
    state.verifier.verify(parts, &claim, &secret, Some(&PayloadHash::of(body)), state.view.now_unix_ms())
}

pub(crate) fn refuse(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}
