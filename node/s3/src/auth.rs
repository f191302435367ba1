//! Who a request is from, and whether they may. s3s verifies the signature; this module gives it the secret, then lets
//! the guard decide, before an operation's input is parsed.
//!
//! Invariants: no operation runs that the guard has not let pass; a key that was withdrawn between signature and decision
//! is denied.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Extensions, HeaderMap, Uri};
use meridian_object::{BucketRow, Objects, SessionError};
use meridian_types::BucketName;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::path::S3Path;
use s3s::{S3ErrorCode, S3Result, dto};

use crate::attributes::url_decode;
use crate::buckets::owner;
use crate::config::{CredentialsError, CredentialsProvider, Principal};
use crate::context::RequestContext;
use crate::errors::{SLOW_DOWN_S, access_denied, error, object_error, unavailable};
use crate::guard::Guard;
use crate::question::Asked;

/// The canonical id of nobody (S3).
const ANONYMOUS_ID: &str = "65a011a29cdf8ec533ec3d1ccaae921c";

/// Secrets for s3s.
pub(crate) struct Secrets(pub Arc<dyn CredentialsProvider>);

#[async_trait]
impl S3Auth for Secrets {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        Ok(SecretKey::from(secret_of(&*self.0, access_key).await?.expose()))
    }
}

/// The secret of a key, for its signature alone: `principal_of_key` says who it is.
///
/// # Errors
/// `InvalidAccessKeyId`.
pub(crate) async fn secret_of(
    credentials: &dyn CredentialsProvider,
    access_key: &str,
) -> S3Result<meridian_sigv4::SecretKey> {
    if let Some(secret_key) = credentials.session_secret(access_key) {
        return Ok(secret_key);
    }
    let principal = credentials.principal(access_key).await.map_err(users_unknown)?;
    principal.map(|principal| principal.secret_key).ok_or_else(unknown_key)
}

/// Who a key is, with the token of its session if it is one's.
///
/// # Errors
/// `InvalidAccessKeyId`, `InvalidToken`, `ExpiredToken`, `AccessDenied`.
pub(crate) async fn principal_of_key(
    credentials: &dyn CredentialsProvider,
    access_key: &str,
    token: Option<&str>,
) -> S3Result<Principal> {
    let is_session = credentials.session_secret(access_key).is_some();
    match (is_session, token) {
        (false, None) => {
            let principal = credentials.principal(access_key).await.map_err(users_unknown)?;
            principal.ok_or_else(access_denied)
        }
        (true, Some(token)) => credentials.session(access_key, token).await.map_err(token_refused),
        (true, None) => Err(unknown_key()),
        (false, Some(_)) => Err(token_refused(SessionError::Invalid)),
    }
}

/// The decision before an operation's input is parsed. Without a guard every signed request passes.
pub(crate) struct Access {
    pub credentials: Arc<dyn CredentialsProvider>,
    pub guard: Option<Arc<Guard>>,
}

#[async_trait]
impl S3Access for Access {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let operation = cx.s3_op().name().to_owned();
        let context = cx.extensions_mut().get::<Arc<RequestContext>>().cloned();
        let context = context.ok_or_else(access_denied)?; // never: `respond` puts it there
        context.set_operation(&operation);
        if let Some(credentials) = cx.credentials() {
            let access_key = credentials.access_key.clone();
            let token = session_token(cx.headers(), cx.uri());
            context.set_principal(Arc::new(principal_of_key(&*self.credentials, &access_key, token.as_deref()).await?));
        }
        let Some(guard) = &self.guard else {
            return context.principal().map(|_| ()).ok_or_else(access_denied);
        };
        guard.await_session(cx.headers(), &context).await?;
        let path = match cx.s3_path() {
            S3Path::Root => None,
            S3Path::Bucket { bucket } => Some((&**bucket, None)),
            S3Path::Object { bucket, key } => Some((&**bucket, Some(&**key))),
        };
        let asked = Asked {
            operation: &operation,
            uri: cx.uri(),
            headers: cx.headers(),
            peer: context.peer,
            secure: context.secure,
            now_unix_ms: guard.now_unix_ms(),
            body: context.xml().map(|body| &body[..]),
            principal: context.principal().map(Arc::as_ref),
        };
        guard.check(asked, path, &context).await
    }
}

/// Carries the token of a session, in a header or in the query of a presigned URL.
pub(crate) const TOKEN_HEADER: &str = "x-amz-security-token";

/// The token that a request carries; an empty one is none.
pub(crate) fn session_token(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let header = headers.get(TOKEN_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let from_query = || {
        let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(name, _)| name.eq_ignore_ascii_case(TOKEN_HEADER)).map(|(_, value)| value);
        values.next().and_then(url_decode)
    };
    header.or_else(from_query).filter(|token| !token.is_empty())
}

fn unknown_key() -> s3s::S3Error {
    error(S3ErrorCode::InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records.")
}

fn token_refused(failure: SessionError) -> s3s::S3Error {
    match failure {
        SessionError::Invalid => {
            error(S3ErrorCode::InvalidToken, "The provided token is malformed or otherwise invalid.")
        }
        SessionError::Expired => error(S3ErrorCode::ExpiredToken, "The provided token has expired."),
        SessionError::Gone => unknown_key(),
        SessionError::Unknown(failure) => object_error(failure, None),
    }
}

fn users_unknown(failure: CredentialsError) -> s3s::S3Error {
    tracing::warn!(%failure, "the users can't be asked");
    unavailable("The users can't be asked now. Please try again.".to_owned(), SLOW_DOWN_S)
}

/// The context that `respond` gave the request.
pub(crate) fn context_of(extensions: &Extensions) -> Option<&Arc<RequestContext>> {
    extensions.get::<Arc<RequestContext>>()
}

/// Who the request is from.
///
/// # Errors
/// `AccessDenied` for nobody.
pub(crate) fn principal_of(extensions: &Extensions) -> S3Result<Arc<Principal>> {
    context_of(extensions).and_then(|context| context.principal()).cloned().ok_or_else(access_denied)
}

/// S3's form of who asks.
pub(crate) fn requester(extensions: &Extensions) -> dto::Owner {
    match principal_of(extensions) {
        Ok(principal) => owner(&principal),
        Err(_) => dto::Owner { id: Some(ANONYMOUS_ID.to_owned()), display_name: None },
    }
}

/// The row of a bucket that the guard has let the request use, of which the client may expect a certain owner.
///
/// # Errors
/// `NoSuchBucket`, `AccessDenied` for another owner than the expected one.
pub(crate) async fn authorized_bucket(
    objects: &Objects,
    extensions: &Extensions,
    bucket: &BucketName,
    expected_owner: Option<&str>,
) -> S3Result<BucketRow> {
    let context = context_of(extensions).map(Arc::as_ref);
    let known = context.and_then(RequestContext::bucket).filter(|row| row.name == *bucket);
    let row = match known {
        Some(row) => row.clone(),
        None => objects.head_bucket(bucket).await.map_err(|failure| object_error(failure, context))?,
    };
    if expected_owner.is_some_and(|expected| expected != row.owner) {
        return Err(access_denied());
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_in_headers_and_queries() {
        let token = |header: Option<&'static str>, uri: &'static str| {
            let headers = header.map(|value| (http::HeaderName::from_static(TOKEN_HEADER), value.parse().unwrap()));
            session_token(&headers.into_iter().collect(), &Uri::from_static(uri))
        };
        assert_eq!(token(Some("a+/="), "/b"), Some("a+/=".to_owned()));
        assert_eq!(token(None, "/b?X-Amz-Security-Token=a%2B%2F%3D&x=1"), Some("a+/=".to_owned()));
        assert_eq!((token(None, "/b?x=1"), token(Some(""), "/b")), (None, None));
    }

    #[test]
    fn nobody_is_no_principal() {
        assert_eq!(principal_of(&Extensions::new()).unwrap_err().code().as_str(), "AccessDenied");
    }
}
