//! The hash of a request's payload, and what a request claims about it.

use std::fmt;

use aws_lc_rs::digest;
use subtle::ConstantTimeEq;

const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const HASH_LENGTH: usize = 32;

/// SHA-256 of a payload.
#[derive(Clone, Copy)]
pub struct PayloadHash([u8; HASH_LENGTH]);

impl PayloadHash {
    pub fn of(payload: &[u8]) -> Self {
        let mut hasher = PayloadHasher::new();
        hasher.update(payload);
        hasher.finish()
    }

    /// From 64 lower-case hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        let mut hash = [0; HASH_LENGTH];
        hex::decode_to_slice(text, &mut hash).ok()?;
        Some(Self(hash))
    }
}

impl PartialEq for PayloadHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for PayloadHash {}

impl fmt::Display for PayloadHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PayloadHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PayloadHash({self})")
    }
}

/// Hashes a payload that arrives in pieces.
pub struct PayloadHasher(digest::Context);

impl PayloadHasher {
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    pub fn finish(self) -> PayloadHash {
        let digest = self.0.finish();
        PayloadHash(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl Default for PayloadHasher {
    fn default() -> Self {
        Self::new()
    }
}

/// What `x-amz-content-sha256` says. The caller checks the body against it before it acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadClaim {
    /// The signature covers this hash; the body must have it.
    Hash(PayloadHash),
    /// The signature does not cover the body.
    Unsigned,
    /// The header is absent: the signature covers the hash of the body itself, as clients of services other than
    /// S3 do it, so that the body must be read before the signature can be checked.
    Body,
}

impl PayloadClaim {
    /// `None` for a value that is neither a hash nor `UNSIGNED-PAYLOAD` (chunked forms belong to S3).
    pub(crate) fn parse(header: Option<&str>) -> Option<Self> {
        match header {
            None => Some(Self::Body),
            Some(UNSIGNED) => Some(Self::Unsigned),
            Some(text) => PayloadHash::from_hex(text).map(Self::Hash),
        }
    }

    /// The text that the canonical request carries; `None` while the body has not been hashed.
    pub(crate) fn canonical_text(&self, body: Option<&PayloadHash>) -> Option<String> {
        match self {
            Self::Hash(hash) => Some(hash.to_string()),
            Self::Unsigned => Some(UNSIGNED.to_owned()),
            Self::Body => body.map(PayloadHash::to_string),
        }
    }

    /// Whether a body of this hash is the one that was signed.
    pub fn accepts(&self, body: &PayloadHash) -> bool {
        match self {
            Self::Hash(hash) => hash == body,
            Self::Unsigned | Self::Body => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn hash_of_nothing_is_the_published_one() {
        assert_eq!(PayloadHash::of(b"").to_string(), EMPTY);
        let mut hasher = PayloadHasher::default();
        hasher.update(b"Welcome to ");
        hasher.update(b"Amazon S3.");
        assert_eq!(hasher.finish(), PayloadHash::of(b"Welcome to Amazon S3."));
    }

    #[test]
    fn claims_parse_and_accept_only_their_body() {
        let claim = PayloadClaim::parse(Some(EMPTY)).unwrap();
        assert!(claim.accepts(&PayloadHash::of(b"")) && !claim.accepts(&PayloadHash::of(b"x")));
        assert_eq!(PayloadClaim::parse(Some("UNSIGNED-PAYLOAD")), Some(PayloadClaim::Unsigned));
        assert_eq!(PayloadClaim::parse(None), Some(PayloadClaim::Body));
        for text in ["", "unsigned-payload", &EMPTY[1..], &EMPTY.to_uppercase(), "STREAMING-UNSIGNED-PAYLOAD-TRAILER"] {
            assert_eq!(PayloadClaim::parse(Some(text)), None, "{text:?} parsed");
        }
    }
}
