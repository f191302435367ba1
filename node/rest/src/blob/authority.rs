//! Who may hand out, write and delete blobs.
//!
//! ```text
//! rest.blob_auth = "token"   /dir/assign, /vol/grow: SigV4 (service `meridian`) of a key with the admin policy
//!                            writes and deletes: such a signature, or the token of the assignment, as
//!                            `Authorization: Bearer TOKEN` or ?jwt=TOKEN
//! rest.blob_auth = "open"    everybody who reaches the port; a fid must have been handed out all the same
//! ```
//!
//! Invariants: a refusal does not say whether the blob exists; a signature that names a body's hash is kept to it.

use axum::http::header;
use axum::http::request::Parts;
use meridian_object::BlobAddress;
use meridian_sigv4::{Claim, PayloadClaim, PayloadHash, VerifyError};

use super::BlobState;
use super::answer::argument;

/// `rest.blob_auth` of `node.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobAuth {
    Token,
    Open,
}

/// What a request that may write must keep to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Authority {
    /// SHA-256 that its body must have.
    pub(crate) sha256: Option<[u8; 32]>,
}

/// The request carries neither a valid token nor a valid signature.
#[derive(Debug, thiserror::Error)]
#[error(
    "send the token of /dir/assign as `Authorization: Bearer TOKEN`, or sign the request with SigV4 (service `meridian`) by a \
     key with the admin policy"
)]
pub(crate) struct NotAllowed;

impl BlobState {
    /// Whether a request may write or delete this blob.
    pub(super) async fn may_write(&self, parts: &Parts, address: BlobAddress) -> Result<Authority, NotAllowed> {
        if self.auth == BlobAuth::Open {
            return Ok(Authority::default());
        }
        if let Some(token) = token(parts) {
            let valid = self.objects.is_blob_token(address, &token);
            return if valid { Ok(Authority::default()) } else { Err(NotAllowed) };
        }
        self.signed(parts).await
    }

    /// Whether a request may hand out fids.
    pub(super) async fn may_assign(&self, parts: &Parts) -> Result<(), NotAllowed> {
        match self.auth {
            BlobAuth::Open => Ok(()),
            BlobAuth::Token => self.signed(parts).await.map(drop),
        }
    }

    /// Whether a request is signed by a key with the admin policy.
    pub(crate) async fn signed(&self, parts: &Parts) -> Result<Authority, NotAllowed> {
        self.verified(parts).await.map_err(|error| {
            tracing::info!(%error, path = parts.uri.path(), "a call of the blob API is refused");
            NotAllowed
        })
    }

    async fn verified(&self, parts: &Parts) -> Result<Authority, VerifyError> {
        let claim = Claim::parse(parts)?;
        let secret = self.keys.secret_of(claim.access_key()).await.ok_or(VerifyError::Mismatch)?;
        // Without the header the signature covers the body's own hash; only a request without a body may leave it out.
        let nothing = PayloadHash::of(b"");
        let (body, sha256) = match claim.payload() {
            PayloadClaim::Body => (Some(&nothing), Some(nothing)),
            PayloadClaim::Hash(hash) => (None, Some(*hash)),
            PayloadClaim::Unsigned => (None, None),
        };
        self.verifier.verify(parts, &claim, &secret, body, self.objects.now_unix_ms())?;
        let sha256 = sha256.and_then(|hash| {
            let mut bytes = [0; 32];
            hex::decode_to_slice(hash.to_string(), &mut bytes).ok().map(|()| bytes)
        });
        Ok(Authority { sha256 })
    }
}

fn token(parts: &Parts) -> Option<String> {
    let value = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    value.and_then(bearer).or_else(|| argument(&parts.uri, "jwt"))
}

fn bearer(value: &str) -> Option<String> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str, authorization: Option<&str>) -> Parts {
        let mut request = axum::http::Request::builder().uri(uri);
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn tokens_come_by_header_or_query() {
        assert_eq!(token(&parts("/3,01637037d6", Some("BEARER 1.a.b"))).as_deref(), Some("1.a.b"));
        assert_eq!(token(&parts("/3,01637037d6?jwt=1.a.b", None)).as_deref(), Some("1.a.b"));
        assert_eq!(token(&parts("/3,01637037d6", Some("AWS4-HMAC-SHA256 Credential=x"))), None);
        assert_eq!(token(&parts("/3,01637037d6", None)), None);
    }
}
