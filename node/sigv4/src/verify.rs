//! Verifying: `Claim::parse` says who a request claims to be, the caller looks up that user's secret, and
//! `Verifier::verify` says whether the claim holds.
//!
//! Invariants: the skew is checked against the caller's time before any signature is computed; `host` and all
//! `x-amz-*` headers are covered by the signature; the comparison takes constant time.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use subtle::ConstantTimeEq;

use crate::canonical::{canonical_request, string_to_sign};
use crate::date::AmzDate;
use crate::key::{KeyCache, Scope, SecretKey, SigningKey};
use crate::payload::{PayloadClaim, PayloadHash};

/// A signature's time may differ from ours by 15 minutes (S3).
pub const SKEW_MS_MAX: u64 = 15 * 60 * 1000;
const SIGNATURE_LENGTH: usize = 32;
/// Most headers that one signature names.
const SIGNED_HEADERS_MAX: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error("the request carries no Authorization header")]
    Missing,
    #[error("the Authorization header must be AWS4-HMAC-SHA256 with Credential, SignedHeaders and Signature")]
    Malformed,
    #[error(
        "the x-amz-date header must be there once, in the form 20150830T123600Z, on the day of the credential's scope"
    )]
    Date,
    #[error("the request's time differs from this server's by {skew_ms} ms, more than 15 minutes")]
    Skewed { skew_ms: u64 },
    #[error("the credential's scope must name the service {expected:?}")]
    Service { expected: String },
    #[error("the header {0:?} must be signed")]
    Unsigned(String),
    #[error("the x-amz-content-sha256 header must be the hex SHA-256 of the body")]
    Payload,
    #[error("the signature does not match")]
    Mismatch,
}

/// Who a request claims to be: parsed, not yet believed.
#[derive(Clone)]
pub struct Claim {
    access_key: String,
    scope: Scope,
    date: AmzDate,
    signed: Vec<String>,
    signature: [u8; SIGNATURE_LENGTH],
    payload: PayloadClaim,
}

impl Claim {
    /// # Errors
    /// Says which part is missing or malformed. Any region is taken: a valid scope of one region is served by all.
    pub fn parse(parts: &Parts) -> Result<Self, VerifyError> {
        let authorization = single(&parts.headers, AUTHORIZATION.as_str(), VerifyError::Malformed)?;
        let authorization = authorization.ok_or(VerifyError::Missing)?;
        let fields = authorization.strip_prefix(crate::ALGORITHM).ok_or(VerifyError::Malformed)?;
        let (mut credential, mut signed, mut signature) = (None, None, None);
        for field in fields.split(',') {
            let (name, value) = field.trim().split_once('=').ok_or(VerifyError::Malformed)?;
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed,
                "Signature" => &mut signature,
                _ => return Err(VerifyError::Malformed),
            };
            if slot.replace(value).is_some() {
                return Err(VerifyError::Malformed);
            }
        }
        let (Some(credential), Some(signed), Some(signature_hex)) = (credential, signed, signature) else {
            return Err(VerifyError::Malformed);
        };
        let (access_key, day, scope) = parse_credential(credential).ok_or(VerifyError::Malformed)?;
        let mut signature = [0; SIGNATURE_LENGTH];
        hex::decode_to_slice(signature_hex, &mut signature).map_err(|_| VerifyError::Malformed)?;

        let date = single(&parts.headers, crate::DATE_HEADER, VerifyError::Date)?.ok_or(VerifyError::Date)?;
        let date = AmzDate::parse(date).map_err(|_| VerifyError::Date)?;
        if date.day() != day {
            return Err(VerifyError::Date);
        }
        let payload = single(&parts.headers, crate::PAYLOAD_HEADER, VerifyError::Payload)?;
        let payload = PayloadClaim::parse(payload).ok_or(VerifyError::Payload)?;
        let signed = parse_signed(signed).ok_or(VerifyError::Malformed)?;
        Ok(Self { access_key, scope, date, signed, signature, payload })
    }

    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What the body must be. With `PayloadClaim::Body` the body must be read and hashed before `verify`.
    pub fn payload(&self) -> &PayloadClaim {
        &self.payload
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &str, error: VerifyError) -> Result<Option<&'a str>, VerifyError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(error);
    }
    value.to_str().map(Some).map_err(|_| error)
}

fn parse_credential(text: &str) -> Option<(String, &str, Scope)> {
    // From the right: an access key may hold a slash, the four fields of the scope may not.
    let mut fields = text.rsplitn(5, '/');
    let (terminator, service, region) = (fields.next()?, fields.next()?, fields.next()?);
    let (day, access_key) = (fields.next()?, fields.next()?);
    let valid = terminator == "aws4_request" && !service.is_empty() && !access_key.is_empty();
    valid.then(|| (access_key.to_owned(), day, Scope::new(region, service)))
}

fn parse_signed(text: &str) -> Option<Vec<String>> {
    let names: Vec<String> = text.split(';').map(str::to_owned).collect();
    let rising = names.windows(2).all(|pair| pair[0] < pair[1]);
    let lower = names.iter().all(|name| !name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase()));
    (rising && lower && names.len() <= SIGNED_HEADERS_MAX).then_some(names)
}

/// Verifies claims to one service, keeping the day's signing keys.
pub struct Verifier {
    service: String,
    unsigned_payload: bool,
    keys: KeyCache,
}

impl Verifier {
    /// `service` is the one that scopes must name.
    pub fn new(service: impl Into<String>) -> Self {
        Self { service: service.into(), unsigned_payload: false, keys: KeyCache::new() }
    }

    /// Accepts `UNSIGNED-PAYLOAD` too; only for bodies whose integrity something else guards.
    pub fn allow_unsigned_payload(mut self) -> Self {
        self.unsigned_payload = true;
        self
    }

    /// Checks `claim`, parsed from these `parts`, at our time `now_unix_ms`. `body` is the hash of the body when it is
    /// already known; it is needed for `PayloadClaim::Body` and compared for `PayloadClaim::Hash`.
    ///
    /// # Errors
    /// `Mismatch` for a wrong secret as for any change of the request after it was signed.
    pub fn verify(
        &self,
        parts: &Parts,
        claim: &Claim,
        secret: &SecretKey,
        body: Option<&PayloadHash>,
        now_unix_ms: u64,
    ) -> Result<(), VerifyError> {
        if claim.scope.service != self.service {
            return Err(VerifyError::Service { expected: self.service.clone() });
        }
        let skew_ms = claim.date.distance_ms(now_unix_ms);
        if skew_ms > SKEW_MS_MAX {
            return Err(VerifyError::Skewed { skew_ms });
        }
        if let Some(name) = must_be_signed(parts).find(|name| !claim.signed.iter().any(|signed| signed == name)) {
            return Err(VerifyError::Unsigned(name.to_owned()));
        }
        if claim.payload == PayloadClaim::Unsigned && !self.unsigned_payload {
            return Err(VerifyError::Payload);
        }
        let payload = claim.payload.canonical_text(body).ok_or(VerifyError::Payload)?;
        let canonical =
            canonical_request(&parts.method, &parts.uri, &parts.headers, &claim.signed, &claim.scope, &payload)
                .ok_or(VerifyError::Mismatch)?;

        let id = KeyCache::id(secret, claim.date.day(), &claim.scope);
        let cached = self.keys.get(&id);
        let fresh = cached.is_none();
        let key = cached.unwrap_or_else(|| SigningKey::derive(secret, claim.date.day(), &claim.scope));
        let expected = key.sign(&string_to_sign(&canonical, &claim.date, &claim.scope));
        if !bool::from(expected.as_ref().ct_eq(&claim.signature)) {
            return Err(VerifyError::Mismatch);
        }
        if fresh {
            self.keys.insert(id, key);
        }
        match body {
            Some(hash) if !claim.payload.accepts(hash) => Err(VerifyError::Payload),
            _ => Ok(()),
        }
    }
}

fn must_be_signed(parts: &Parts) -> impl Iterator<Item = &str> {
    let amz = parts.headers.keys().map(|name| name.as_str()).filter(|name| name.starts_with("x-amz-"));
    std::iter::once("host").chain(amz)
}

#[cfg(test)]
mod tests;
