//! Secrets, scopes and signing keys, and a bounded cache of signing keys.
//!
//! A signing key is four HMACs deep in (secret, day, region, service), so it is kept for the day. The cache is
//! keyed by a digest of all four, the secret included: a rotated secret can't meet an old key.
//!
//! Invariants: at most `KEYS_CACHED_MAX` keys; only a verified request puts one in, so that strangers can't
//! fill it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;

use aws_lc_rs::{digest, hmac};
use zeroize::Zeroizing;

/// Most signing keys kept; a day, a region and a service make one per user.
const KEYS_CACHED_MAX: usize = 1024;
const TERMINATOR: &str = "aws4_request";

/// A secret access key; wiped when dropped, never shown.
#[derive(Clone)]
pub struct SecretKey(Zeroizing<String>);

impl SecretKey {
    pub fn new(secret: impl Into<String>) -> Self {
        Self(Zeroizing::new(secret.into()))
    }

    /// The secret's text, for the one who hands it to another signer.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// The region and service that a signature is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub region: String,
    pub service: String,
}

impl Scope {
    pub fn new(region: impl Into<String>, service: impl Into<String>) -> Self {
        Self { region: region.into(), service: service.into() }
    }

    /// `20150830/us-east-1/iam/aws4_request`
    pub(crate) fn text(&self, day: &str) -> String {
        format!("{day}/{}/{}/{TERMINATOR}", self.region, self.service)
    }
}

/// The key that signs one day's requests of one user to one service in one region.
#[derive(Clone)]
pub(crate) struct SigningKey(hmac::Key);

impl SigningKey {
    pub fn derive(secret: &SecretKey, day: &str, scope: &Scope) -> Self {
        let prefixed = Zeroizing::new(format!("AWS4{}", secret.expose()));
        let mut key = chain(prefixed.as_bytes(), day);
        for part in [scope.region.as_str(), scope.service.as_str(), TERMINATOR] {
            key = chain(key.as_ref(), part);
        }
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()))
    }

    /// The signature of a string to sign, raw.
    pub fn sign(&self, string_to_sign: &str) -> hmac::Tag {
        hmac::sign(&self.0, string_to_sign.as_bytes())
    }
}

fn chain(key: &[u8], data: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data.as_bytes())
}

type KeyId = [u8; 32];

/// Signing keys of verified requests.
pub(crate) struct KeyCache(Mutex<HashMap<KeyId, SigningKey>>);

impl KeyCache {
    pub fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    pub fn id(secret: &SecretKey, day: &str, scope: &Scope) -> KeyId {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [secret.expose(), day, &scope.region, &scope.service] {
            context.update(&(part.len() as u64).to_le_bytes()); // so that ("ab", "c") and ("a", "bc") differ
            context.update(part.as_bytes());
        }
        context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    pub fn get(&self, id: &KeyId) -> Option<SigningKey> {
        self.lock().get(id).cloned()
    }

    pub fn insert(&self, id: KeyId, key: SigningKey) {
        let mut keys = self.lock();
        if keys.len() >= KEYS_CACHED_MAX {
            keys.clear(); // a day's change leaves nothing but stale keys behind: starting anew beats ageing
        }
        keys.insert(id, key);
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<KeyId, SigningKey>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) // a map of plain values can't be half changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_not_shown() {
        assert_eq!(format!("{:?}", SecretKey::new("hunter2")), "SecretKey(..)");
    }

    #[test]
    fn cache_is_bounded_and_tells_secrets_apart() {
        let (cache, scope) = (KeyCache::new(), Scope::new("dc-a", "meridian"));
        for n in 0..KEYS_CACHED_MAX * 2 {
            let secret = SecretKey::new(format!("secret-{n}"));
            let id = KeyCache::id(&secret, "20150830", &scope);
            assert!(cache.get(&id).is_none());
            cache.insert(id, SigningKey::derive(&secret, "20150830", &scope));
            assert!(cache.get(&id).is_some());
        }
        assert!(cache.len() <= KEYS_CACHED_MAX);
        let secret = SecretKey::new("s");
        assert_ne!(
            KeyCache::id(&secret, "20150830", &Scope::new("ab", "c")),
            KeyCache::id(&secret, "20150830", &Scope::new("a", "bc"))
        );
    }
}
