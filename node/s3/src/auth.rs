//! Who a request is from, and whether they may. s3s verifies the signature; this module gives it the secret, then lets
//! the guard decide, before an operation's input is parsed.
//!
//! Invariants: no operation runs that the guard has not let pass; a key that was withdrawn between signature and decision
//! is denied.

use std::sync::Arc;

use async_trait::async_trait;
use http::Extensions;
use meridian_object::{BucketRow, Objects};
use meridian_types::BucketName;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::path::S3Path;
use s3s::{S3ErrorCode, S3Result, dto};

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
        let principal = self.0.principal(access_key).await.map_err(users_unknown)?;
        let unknown = || error(S3ErrorCode::InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist.");
        Ok(SecretKey::from(principal.ok_or_else(unknown)?.secret_key.expose()))
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
            let principal = self.credentials.principal(&credentials.access_key).await.map_err(users_unknown)?;
            context.set_principal(Arc::new(principal.ok_or_else(access_denied)?));
        }
        let Some(guard) = &self.guard else {
            return context.principal().map(|_| ()).ok_or_else(access_denied);
        };
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
            now_unix_ms: guard.now_unix_ms(),
            body: context.xml().map(|body| &body[..]),
            principal: context.principal().map(Arc::as_ref),
        };
        guard.check(asked, path, &context).await
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
    fn nobody_is_no_principal() {
        assert_eq!(principal_of(&Extensions::new()).unwrap_err().code().as_str(), "AccessDenied");
    }
}
