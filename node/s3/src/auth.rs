//! Who a request is from, and what they may do. s3s verifies the signature; this module gives it the secret, then
//! decides: every request must be signed, and an account uses the buckets that it owns (an admin, every bucket).
//!
//! Invariants: anonymous requests are denied whatever they ask for, so that a denial tells nothing; a key that was
//! withdrawn between signature and decision is denied.

use std::sync::Arc;

use async_trait::async_trait;
use http::Extensions;
use meridian_object::{BucketRow, Objects};
use meridian_types::BucketName;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3ErrorCode, S3Result};

use crate::config::{CredentialsError, CredentialsProvider, Principal};
use crate::context::RequestContext;
use crate::errors::{SLOW_DOWN_S, access_denied, error, object_error, unavailable};

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

/// The decision before an operation's input is parsed.
pub(crate) struct Access(pub Arc<dyn CredentialsProvider>);

#[async_trait]
impl S3Access for Access {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let operation = cx.s3_op().name().to_owned();
        let context = cx.extensions_mut().get::<Arc<RequestContext>>().cloned();
        if let Some(context) = &context {
            context.set_operation(&operation);
        }
        let credentials = cx.credentials().ok_or_else(access_denied)?;
        let principal = self.0.principal(&credentials.access_key).await.map_err(users_unknown)?;
        let principal = Arc::new(principal.ok_or_else(access_denied)?);
        match context {
            Some(context) => context.set_principal(principal),
            None => return Err(access_denied()), // never: `respond` puts it there
        }
        Ok(())
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

/// Lets the principal of `extensions` use `bucket`, of which the client may expect a certain owner. Answers the
/// bucket's row where it had to be read.
///
/// # Errors
/// `NoSuchBucket`, `AccessDenied`.
pub(crate) async fn authorize(
    objects: &Objects,
    extensions: &Extensions,
    bucket: &BucketName,
    expected_owner: Option<&str>,
) -> S3Result<Option<BucketRow>> {
    let principal = principal_of(extensions)?;
    if principal.is_admin() && expected_owner.is_none() {
        return Ok(None); // the operation itself finds out whether the bucket exists
    }
    let context = context_of(extensions).map(Arc::as_ref);
    let row = objects.head_bucket(bucket).await.map_err(|failure| object_error(failure, context))?;
    if may_use(&principal, &row.owner, expected_owner) { Ok(Some(row)) } else { Err(access_denied()) }
}

fn may_use(principal: &Principal, owner: &str, expected_owner: Option<&str>) -> bool {
    (principal.is_admin() || principal.owner() == owner) && expected_owner.is_none_or(|expected| expected == owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(owner: &str, admin: bool) -> Principal {
        crate::testing::principal(owner, admin)
    }

    #[test]
    fn accounts_use_their_own_buckets_and_admins_all() {
        let (ann, admin) = (principal("ann", false), principal("root", true));
        assert!(may_use(&ann, "ann", None) && may_use(&ann, "ann", Some("ann")));
        assert!(!may_use(&ann, "bob", None) && !may_use(&ann, "bob", Some("ann")));
        assert!(!may_use(&ann, "ann", Some("bob")) && !may_use(&admin, "ann", Some("bob")));
        assert!(may_use(&admin, "bob", None));
    }

    #[test]
    fn nobody_is_denied() {
        assert_eq!(principal_of(&Extensions::new()).unwrap_err().code().as_str(), "AccessDenied");
    }
}
