//! Users and groups for administration: what `meridian user` and `meridian group` call.
//!
//! ```text
//! GET POST          /admin/v1/users                          list; create, which tells the secret key once
//! GET DELETE        /admin/v1/users/{user}
//! GET POST          /admin/v1/users/{user}/keys
//! PUT DELETE        /admin/v1/users/{user}/keys/{key}        {"active": false} puts it out of use
//! PUT DELETE        /admin/v1/users/{user}/policies/{policy} {"document": "..."}
//! PUT DELETE        /admin/v1/users/{user}/groups/{group}
//! GET POST          /admin/v1/groups
//! DELETE            /admin/v1/groups/{group}
//! PUT DELETE        /admin/v1/groups/{group}/policies/{policy}
//! ```
//!
//! Invariants: a secret key stands in the answer to its creation and in no other.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, put};
use axum::{Json, Router};
use meridian_object::{
    GroupChange, GroupRow, NewKey, NewUser, ObjectError, PlainKey, UserChange, UserRefusal, UserRow, present,
};
use meridian_policy::{DocumentKind, Policy};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::admin::{AdminState, refuse};

/// A user; field names are an interface.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserInfo {
    pub name: String,
    pub id: String,
    pub display_name: String,
    pub email: Option<String>,
    pub tenant: Option<String>,
    pub account: Option<String>,
    pub admin: bool,
    pub created_unix_ms: u64,
    pub access_keys: Vec<KeyInfo>,
    pub policies: BTreeMap<String, String>,
    pub groups: Vec<String>,
}

/// An access key without its secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyInfo {
    pub access_key: String,
    pub active: bool,
    pub created_unix_ms: u64,
}

/// A group; field names are an interface.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GroupInfo {
    pub name: String,
    pub policies: BTreeMap<String, String>,
}

/// A user or key that was made: the only answer that holds a secret key.
#[derive(Serialize, Deserialize)]
pub struct Created {
    #[serde(flatten)]
    pub user: Option<UserInfo>,
    pub access_key: String,
    pub secret_key: String,
}

/// What to make a user from.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserRequest {
    pub name: String,
    pub id: Option<String>,
    pub display_name: Option<String>,
    pub email: Option<String>,
    pub tenant: Option<String>,
    pub account: Option<String>,
    pub admin: bool,
    pub access_key: Option<String>,
    pub secret_key: Option<String>,
}

/// What to make a key from; both or neither.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyRequest {
    pub access_key: Option<String>,
    pub secret_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActiveRequest {
    active: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyRequest {
    document: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupRequest {
    name: String,
}

pub(crate) fn routes() -> Router<AdminState> {
    Router::new()
        .route("/admin/v1/users", get(list_users).post(create_user))
        .route("/admin/v1/users/{user}", get(show_user).delete(delete_user))
        .route("/admin/v1/users/{user}/keys", get(list_keys).post(create_key))
        .route("/admin/v1/users/{user}/keys/{key}", put(set_key).delete(delete_key))
        .route("/admin/v1/users/{user}/policies/{policy}", put(put_policy).delete(delete_policy))
        .route("/admin/v1/users/{user}/groups/{group}", put(join_group).delete(leave_group))
        .route("/admin/v1/groups", get(list_groups).post(create_group))
        .route("/admin/v1/groups/{group}", delete(delete_group))
        .route("/admin/v1/groups/{group}/policies/{policy}", put(put_group_policy).delete(delete_group_policy))
}

async fn list_users(State(state): State<AdminState>) -> Response {
    let users = state.objects.list_users().await;
    answer(users.map(|users| users.into_iter().map(UserInfo::from).collect::<Vec<_>>()))
}

async fn create_user(State(state): State<AdminState>, body: Bytes) -> Response {
    let request: UserRequest = match parse(&body) {
        Ok(request) => request,
        Err(refusal) => return *refusal,
    };
    let key = match new_key(request.access_key, request.secret_key) {
        Ok(key) => key,
        Err(refusal) => return *refusal,
    };
    let new = NewUser {
        name: request.name,
        id: request.id,
        display_name: request.display_name,
        email: request.email,
        tenant: request.tenant,
        account: request.account,
        admin: request.admin,
        key,
    };
    answer(state.objects.create_user(new).await.map(|(user, key)| created(Some(user), key)))
}

async fn show_user(State(state): State<AdminState>, Path(user): Path<String>) -> Response {
    answer(state.objects.existing_user(&user).await.map(UserInfo::from))
}

async fn delete_user(State(state): State<AdminState>, Path(user): Path<String>) -> Response {
    change(&state, &user, UserChange::Delete).await
}

async fn list_keys(State(state): State<AdminState>, Path(user): Path<String>) -> Response {
    answer(state.objects.existing_user(&user).await.map(|user| UserInfo::from(user).access_keys))
}

async fn create_key(State(state): State<AdminState>, Path(user): Path<String>, body: Bytes) -> Response {
    let request: KeyRequest = match parse(&body) {
        Ok(request) => request,
        Err(refusal) => return *refusal,
    };
    let key = match new_key(request.access_key, request.secret_key) {
        Ok(key) => key,
        Err(refusal) => return *refusal,
    };
    answer(state.objects.create_access_key(&user, key).await.map(|key| created(None, Some(key))))
}

async fn set_key(
    State(state): State<AdminState>,
    Path((user, access_key)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    match parse::<ActiveRequest>(&body) {
        Ok(ActiveRequest { active }) => {
            change(&state, &user, UserChange::SetAccessKeyActive { access_key, active }).await
        }
        Err(refusal) => *refusal,
    }
}

async fn delete_key(State(state): State<AdminState>, Path((user, access_key)): Path<(String, String)>) -> Response {
    change(&state, &user, UserChange::DeleteAccessKey { access_key }).await
}

async fn put_policy(
    State(state): State<AdminState>,
    Path((user, name)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    match policy_document(&body) {
        Ok(document) => change(&state, &user, UserChange::Policy { name, document: Some(document) }).await,
        Err(refusal) => *refusal,
    }
}

async fn delete_policy(State(state): State<AdminState>, Path((user, name)): Path<(String, String)>) -> Response {
    change(&state, &user, UserChange::Policy { name, document: None }).await
}

async fn join_group(State(state): State<AdminState>, Path((user, name)): Path<(String, String)>) -> Response {
    change(&state, &user, UserChange::Group { name, member: true }).await
}

async fn leave_group(State(state): State<AdminState>, Path((user, name)): Path<(String, String)>) -> Response {
    change(&state, &user, UserChange::Group { name, member: false }).await
}

async fn list_groups(State(state): State<AdminState>) -> Response {
    let groups = state.objects.list_groups().await;
    answer(groups.map(|groups| groups.into_iter().map(GroupInfo::from).collect::<Vec<_>>()))
}

async fn create_group(State(state): State<AdminState>, body: Bytes) -> Response {
    match parse::<GroupRequest>(&body) {
        Ok(GroupRequest { name }) => change_group(&state, &name, GroupChange::Create).await,
        Err(refusal) => *refusal,
    }
}

async fn delete_group(State(state): State<AdminState>, Path(group): Path<String>) -> Response {
    change_group(&state, &group, GroupChange::Delete).await
}

async fn put_group_policy(
    State(state): State<AdminState>,
    Path((group, name)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    match policy_document(&body) {
        Ok(document) => change_group(&state, &group, GroupChange::Policy { name, document: Some(document) }).await,
        Err(refusal) => *refusal,
    }
}

async fn delete_group_policy(State(state): State<AdminState>, Path((group, name)): Path<(String, String)>) -> Response {
    change_group(&state, &group, GroupChange::Policy { name, document: None }).await
}

async fn change(state: &AdminState, user: &str, change: UserChange) -> Response {
    answer(state.objects.change_user(user, change).await.map(|()| serde_json::json!({})))
}

async fn change_group(state: &AdminState, group: &str, change: GroupChange) -> Response {
    answer(state.objects.change_group(group, change).await.map(|()| serde_json::json!({})))
}

impl From<UserRow> for UserInfo {
    fn from(user: UserRow) -> Self {
        let key = |(access_key, key): (&str, &meridian_object::AccessKey)| KeyInfo {
            access_key: access_key.to_owned(),
            active: key.active,
            created_unix_ms: key.created_unix_ms,
        };
        UserInfo {
            access_keys: present(&user.access_keys).map(key).collect(),
            policies: present(&user.policies).map(|(name, text)| (name.to_owned(), text.clone())).collect(),
            groups: present(&user.groups).map(|(name, ())| name.to_owned()).collect(),
            name: user.name,
            id: user.profile.id,
            display_name: user.profile.display_name,
            email: user.profile.email,
            tenant: user.profile.tenant,
            account: user.profile.account,
            admin: user.profile.admin,
            created_unix_ms: user.profile.created_unix_ms,
        }
    }
}

impl From<GroupRow> for GroupInfo {
    fn from(group: GroupRow) -> Self {
        let policies = present(&group.policies).map(|(name, text)| (name.to_owned(), text.clone())).collect();
        GroupInfo { name: group.name, policies }
    }
}

fn created(user: Option<UserRow>, key: Option<PlainKey>) -> Created {
    let (access_key, secret_key) = key.map_or_else(Default::default, |key| (key.access_key, key.secret_key));
    Created { user: user.map(UserInfo::from), access_key, secret_key }
}

fn new_key(access_key: Option<String>, secret_key: Option<String>) -> Result<NewKey, Box<Response>> {
    match (access_key, secret_key) {
        (None, None) => Ok(NewKey::Generated),
        (Some(access_key), Some(secret_key)) => Ok(NewKey::Given(PlainKey { access_key, secret_key })),
        _ => {
            let text = "give an access key and its secret key, or neither";
            Err(Box::new(refuse(StatusCode::BAD_REQUEST, text)))
        }
    }
}

/// The policy of a request, refused here if it would allow nothing later because nobody understands it.
fn policy_document(body: &Bytes) -> Result<String, Box<Response>> {
    let PolicyRequest { document } = parse(body)?;
    match Policy::parse(&document, DocumentKind::Identity) {
        Ok(_) => Ok(document),
        Err(failure) => Err(Box::new(refuse(StatusCode::BAD_REQUEST, &format!("the policy is malformed: {failure}")))),
    }
}

pub(crate) fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Box<Response>> {
    serde_json::from_slice(body)
        .map_err(|error| Box::new(refuse(StatusCode::BAD_REQUEST, &format!("the request is not valid: {error}"))))
}

pub(crate) fn answer<T: Serialize>(outcome: Result<T, ObjectError>) -> Response {
    match outcome {
        Ok(value) => Json(value).into_response(),
        Err(error) => refuse(status_of(&error), &error.to_string()),
    }
}

fn status_of(error: &ObjectError) -> StatusCode {
    match error {
        ObjectError::UserRefused { refusal, .. } => match refusal {
            UserRefusal::NotFound
            | UserRefusal::NoSuchAccessKey
            | UserRefusal::NoSuchPolicy
            | UserRefusal::NoSuchGroup => StatusCode::NOT_FOUND,
            UserRefusal::Exists
            | UserRefusal::AccessKeyTaken
            | UserRefusal::IdTaken
            | UserRefusal::EmailTaken
            | UserRefusal::TooMany => StatusCode::CONFLICT,
            UserRefusal::Malformed => StatusCode::BAD_REQUEST,
        },
        ObjectError::NoSuchBucket(_) => StatusCode::NOT_FOUND,
        ObjectError::BucketAlreadyExists(_) | ObjectError::BucketAlreadyOwnedByYou(_) => StatusCode::CONFLICT,
        ObjectError::InvalidArgument { .. } => StatusCode::BAD_REQUEST,
        ObjectError::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_given_whole_or_not_at_all() {
        assert!(matches!(new_key(None, None), Ok(NewKey::Generated)));
        assert!(matches!(new_key(Some("a".into()), Some("s".into())), Ok(NewKey::Given(_))));
        assert_eq!(new_key(Some("a".into()), None).err().unwrap().status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert!(parse::<UserRequest>(&Bytes::from_static(b"{\"name\":\"a\",\"secret\":\"x\"}")).is_err());
        assert_eq!(parse::<UserRequest>(&Bytes::from_static(b"{\"name\":\"a\"}")).ok().unwrap().name, "a");
    }

    #[test]
    fn malformed_policies_are_refused() {
        let put =
            |document: &str| policy_document(&Bytes::from(serde_json::json!({ "document": document }).to_string()));
        let good = r#"{"Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}"#;
        assert_eq!(put(good).ok().as_deref(), Some(good));
        for bad in ["", "{}", r#"{"Statement":{"Effect":"Allow","Action":"s3:*"}}"#] {
            assert_eq!(put(bad).err().unwrap().status(), StatusCode::BAD_REQUEST, "{bad}");
        }
    }

    #[test]
    fn refusals_have_their_status() {
        let status = |refusal| status_of(&ObjectError::UserRefused { name: "a".into(), refusal }).as_u16();
        assert_eq!((status(UserRefusal::NotFound), status(UserRefusal::Exists)), (404, 409));
    }
}
