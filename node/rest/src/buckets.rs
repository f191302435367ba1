//! Buckets for administration: what `meridian bucket` calls.
//!
//! ```text
//! GET POST  /admin/v1/buckets            list; create {"name", "owner", "replication"}
//! PUT       /admin/v1/buckets/{bucket}   {"replication": "110"} or null for the cluster's default
//! ```

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, put};
use meridian_object::{ADMINISTRATOR, BucketRow, BucketSettings, ObjectError, Objects, SettingChange};
use meridian_types::{BucketName, ReplicaCode};
use serde::{Deserialize, Serialize};

use crate::admin::{AdminState, refuse};
use crate::users::{answer, parse};

/// A bucket; field names are an interface.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BucketInfo {
    pub name: String,
    pub id: String,
    /// The canonical id of the account that owns it.
    pub owner: String,
    pub created_unix_ms: u64,
    pub versioning: String,
    /// Its own replica code; `None`: the cluster's default.
    pub replication: Option<String>,
    /// The configurations that it has, such as `policy`.
    pub configurations: Vec<String>,
}

/// What to make a bucket from.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BucketRequest {
    pub name: String,
    /// The name of a user; the administrator without it.
    pub owner: Option<String>,
    pub replication: Option<String>,
}

/// What to change of a bucket.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketChangeRequest {
    pub replication: Option<String>,
}

pub(crate) fn routes() -> Router<AdminState> {
    Router::new()
        .route("/admin/v1/buckets", get(list_buckets).post(create_bucket))
        .route("/admin/v1/buckets/{bucket}", put(change_bucket))
}

async fn list_buckets(State(state): State<AdminState>) -> Response {
    let buckets = state.objects.list_buckets().await;
    answer(buckets.map(|rows| rows.into_iter().map(BucketInfo::from).collect::<Vec<_>>()))
}

async fn create_bucket(State(state): State<AdminState>, body: Bytes) -> Response {
    let request: BucketRequest = match parse(&body) {
        Ok(request) => request,
        Err(refusal) => return *refusal,
    };
    let Ok(name) = request.name.parse::<BucketName>() else {
        return refuse(StatusCode::BAD_REQUEST, &format!("{:?} is not a bucket name", request.name));
    };
    answer(created_bucket(&state.objects, name, request).await)
}

async fn created_bucket(
    objects: &Objects,
    name: BucketName,
    request: BucketRequest,
) -> Result<BucketInfo, ObjectError> {
    let code = checked_code(objects, request.replication.as_deref())?;
    let owner = match request.owner.as_deref() {
        None | Some(ADMINISTRATOR) => ADMINISTRATOR.to_owned(),
        Some(user) => objects.existing_user(user).await?.account().to_owned(),
    };
    let settings = BucketSettings { code, ..BucketSettings::default() };
    let outcome = objects.create_bucket(&name, settings, &owner).await?;
    if outcome.existed {
        return Err(ObjectError::BucketAlreadyOwnedByYou(name));
    }
    Ok(BucketInfo::from(outcome.bucket))
}

async fn change_bucket(State(state): State<AdminState>, Path(bucket): Path<String>, body: Bytes) -> Response {
    let request: BucketChangeRequest = match parse(&body) {
        Ok(request) => request,
        Err(refusal) => return *refusal,
    };
    let Ok(name) = bucket.parse::<BucketName>() else {
        return refuse(StatusCode::NOT_FOUND, &format!("there is no bucket {bucket:?}"));
    };
    answer(changed_bucket(&state.objects, &name, request).await)
}

async fn changed_bucket(
    objects: &Objects,
    name: &BucketName,
    request: BucketChangeRequest,
) -> Result<BucketInfo, ObjectError> {
    let code = checked_code(objects, request.replication.as_deref())?;
    objects.change_bucket(name, SettingChange::Code(code)).await?;
    objects.head_bucket(name).await.map(BucketInfo::from)
}

fn checked_code(objects: &Objects, text: Option<&str>) -> Result<Option<ReplicaCode>, ObjectError> {
    let Some(text) = text else { return Ok(None) };
    let code: ReplicaCode = text
        .parse()
        .map_err(|error| ObjectError::InvalidArgument { argument: "replication", reason: format!("{error}") })?;
    objects.check_code(code)?; // rule 24
    Ok(Some(code))
}

impl From<BucketRow> for BucketInfo {
    fn from(row: BucketRow) -> Self {
        BucketInfo {
            name: row.name.to_string(),
            id: row.id.to_string(),
            owner: row.owner,
            created_unix_ms: row.created.timestamp.unix_ms(),
            versioning: format!("{:?}", row.settings.versioning).to_lowercase(),
            replication: row.settings.code.map(|code| code.to_string()),
            configurations: row
                .settings
                .documents
                .keys()
                .map(|kind| meridian_object::SettingName::Document(*kind).to_string())
                .collect(),
        }
    }
}
