//! Signing: puts the date, the payload's hash and the `Authorization` header into a request.

use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, USER_AGENT};
use http::request::Parts;
use http::{HeaderName, HeaderValue};

use crate::canonical::{canonical_request, string_to_sign};
use crate::date::{AmzDate, DateError};
use crate::key::{Scope, SecretKey, SigningKey};
use crate::payload::PayloadHash;

/// Headers that proxies and HTTP libraries change on the way.
const NEVER_SIGNED: [HeaderName; 6] =
    [AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, USER_AGENT];

#[derive(Debug, Clone)]
pub struct Credentials {
    pub access_key: String,
    pub secret_key: SecretKey,
}

#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("sign a request: its URI has no host and it has no host header")]
    NoHost,
    #[error("sign a request: its path, query or headers are not text that can be signed")]
    NotText,
    #[error("sign a request: {0}")]
    Date(#[from] DateError),
}

/// Signs `parts` in place, over every header that is there but hop-by-hop ones. `unix_ms` is the time of signing.
///
/// # Errors
/// `NoHost` and `NotText` name what can't be signed; `parts` then carries no `Authorization`.
pub fn sign(
    parts: &mut Parts,
    payload: &PayloadHash,
    credentials: &Credentials,
    scope: &Scope,
    unix_ms: u64,
) -> Result<(), SignError> {
    let date = AmzDate::from_unix_ms(unix_ms)?;
    if !parts.headers.contains_key(HOST) {
        let authority = parts.uri.authority().ok_or(SignError::NoHost)?;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| SignError::NotText)?;
        parts.headers.insert(HOST, host);
    }
    let text = |value: &str| HeaderValue::from_str(value).map_err(|_| SignError::NotText);
    parts.headers.insert(crate::DATE_HEADER, text(date.as_str())?);
    parts.headers.insert(crate::PAYLOAD_HEADER, text(&payload.to_string())?);
    parts.headers.remove(AUTHORIZATION);

    let mut signed: Vec<String> =
        parts.headers.keys().filter(|name| !NEVER_SIGNED.contains(name)).map(|name| name.as_str().to_owned()).collect();
    signed.sort();
    let canonical = canonical_request(&parts.method, &parts.uri, &parts.headers, &signed, scope, &payload.to_string())
        .ok_or(SignError::NotText)?;
    let key = SigningKey::derive(&credentials.secret_key, date.day(), scope);
    let signature = key.sign(&string_to_sign(&canonical, &date, scope));
    let authorization = format!(
        "{} Credential={}/{}, SignedHeaders={}, Signature={}",
        crate::ALGORITHM,
        credentials.access_key,
        scope.text(date.day()),
        signed.join(";"),
        hex::encode(signature),
    );
    let mut authorization = text(&authorization)?;
    authorization.set_sensitive(true); // keeps it out of HPACK tables and `Debug`
    parts.headers.insert(AUTHORIZATION, authorization);
    Ok(())
}
