//! The cluster's key: what is sealed under it can be opened in every datacenter and nowhere else. Secret keys at rest and
//! session tokens are sealed with it.
//!
//! ```text
//! version u8 = 1 | nonce 12 | ciphertext | tag 16         AES-256-GCM
//! ```
//!
//! The key of a purpose is HMAC-SHA256(cluster key, "meridian seal 1 " + purpose); the additional data are the version and
//! the context, so that what was sealed for one thing opens for no other. It makes no nonces: the caller gives random ones.
//!
//! Invariants: nothing of a sealed text is returned unless all of it is genuine; keys are never shown by `Debug`.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

/// Length of the nonce that a caller gives, in bytes. It must be random.
pub const NONCE_LENGTH: usize = 12;
const VERSION: u8 = 1;
const KEY_LENGTH: usize = 32;
const TAG_LENGTH: usize = 16;

/// What a sealed text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A secret key in the catalog; its context is the access key.
    SecretKey,
    /// A session token; its context is the temporary access key.
    SessionToken,
    /// The secret key of a session; derived, never stored.
    SessionSecret,
    /// The cookie of a fid that was handed out; derived.
    BlobCookie,
    /// A token that lets its holder write certain fids for a while; derived.
    BlobToken,
    /// A key that objects are encrypted under; derived, never stored. Its context is `id/version`.
    ObjectKey,
    /// The data key of one object; its context says which, and how it is encrypted.
    DataKey,
}

impl Purpose {
    fn label(self) -> &'static str {
        match self {
            Purpose::SecretKey => "secret key",
            Purpose::SessionToken => "session token",
            Purpose::SessionSecret => "session secret",
            Purpose::BlobCookie => "blob cookie",
            Purpose::BlobToken => "blob token",
            Purpose::ObjectKey => "object key",
            Purpose::DataKey => "data key",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("a cluster key is 64 hex digits")]
    Key,
    #[error("a sealed text is too short")]
    Short,
    #[error("a sealed text has version {0}, newest known {VERSION}")]
    Version(u8),
    #[error("a sealed text was changed, or sealed for something else or by another cluster")]
    Forged,
}

/// The key of one cluster, the same in every datacenter.
#[derive(Clone)]
pub struct ClusterKey(Zeroizing<[u8; KEY_LENGTH]>);

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(..)")
    }
}

impl ClusterKey {
    pub fn new(key: [u8; KEY_LENGTH]) -> Self {
        Self(Zeroizing::new(key))
    }

    /// # Errors
    /// `Key` for anything but 64 hex digits.
    pub fn from_hex(text: &str) -> Result<Self, SealError> {
        let mut key = Zeroizing::new([0; KEY_LENGTH]);
        hex::decode_to_slice(text, &mut *key).map_err(|_| SealError::Key)?;
        Ok(Self(key))
    }

    /// A key that only this cluster can know, for one purpose and context.
    pub fn derive(&self, purpose: Purpose, context: &str) -> [u8; KEY_LENGTH] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*self.purpose_key(purpose));
        let tag = hmac::sign(&key, context.as_bytes());
        tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }

    /// Seals `plain`; `nonce` must be random.
    pub fn seal(&self, purpose: Purpose, context: &str, plain: &[u8], nonce: [u8; NONCE_LENGTH]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(1 + NONCE_LENGTH + plain.len() + TAG_LENGTH);
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let (key, additional) = (self.cipher(purpose), additional(context));
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(additional), &mut sealed[1 + NONCE_LENGTH..]);
        sealed.extend_from_slice(tag.expect("the text is far below the cipher's limit").as_ref());
        sealed
    }

    /// # Errors
    /// `Forged` unless it was sealed by this key for this purpose and context.
    pub fn open(&self, purpose: Purpose, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (version, rest) = sealed.split_first().ok_or(SealError::Short)?;
        if *version != VERSION {
            return Err(SealError::Version(*version));
        }
        let (nonce, text) = rest.split_first_chunk::<NONCE_LENGTH>().ok_or(SealError::Short)?;
        let mut plain = Zeroizing::new(text.to_vec());
        let key = self.cipher(purpose);
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key.open_in_place(nonce, Aad::from(additional(context)), &mut plain);
        let length = opened.map_err(|_| SealError::Forged)?.len();
        plain.truncate(length);
        Ok(plain)
    }

    fn purpose_key(&self, purpose: Purpose) -> Zeroizing<[u8; KEY_LENGTH]> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*self.0);
        let tag = hmac::sign(&key, format!("meridian seal 1 {}", purpose.label()).as_bytes());
        Zeroizing::new(tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes"))
    }

    fn cipher(&self, purpose: Purpose) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &*self.purpose_key(purpose)).expect("the key has the cipher's length");
        LessSafeKey::new(key)
    }
}

fn additional(context: &str) -> Vec<u8> {
    [&[VERSION], context.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> ClusterKey {
        ClusterKey::new([byte; KEY_LENGTH])
    }

    /// A format on disk: these bytes never change; a new form gets a new version.
    #[test]
    fn golden_bytes() {
        let sealed = key(7).seal(Purpose::SecretKey, "AK", b"hush", [9; NONCE_LENGTH]);
        assert_eq!(hex::encode(&sealed), GOLDEN);
        assert_eq!(&**key(7).open(Purpose::SecretKey, "AK", &sealed).unwrap(), b"hush");
    }

    const GOLDEN: &str = "010909090909090909090909093826ffb4ce8e72fc6defca9179bfb006c9c3c36d";

    #[test]
    fn what_was_flipped_cut_or_meant_for_something_else_stays_shut() {
        let sealed = key(1).seal(Purpose::SecretKey, "AK", b"a secret key", [3; NONCE_LENGTH]);
        let open = |sealed: &[u8]| key(1).open(Purpose::SecretKey, "AK", sealed);
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&flipped).is_err(), "bit {bit} flipped unseen");
        }
        for length in 0..sealed.len() {
            assert!(open(&sealed[..length]).is_err(), "cut at {length} unseen");
        }
        assert_eq!(key(2).open(Purpose::SecretKey, "AK", &sealed).unwrap_err(), SealError::Forged);
        assert_eq!(key(1).open(Purpose::SecretKey, "AL", &sealed).unwrap_err(), SealError::Forged);
        assert_eq!(key(1).open(Purpose::SessionToken, "AK", &sealed).unwrap_err(), SealError::Forged);
        assert_eq!(open(&[]).unwrap_err(), SealError::Short);
        assert_eq!(open(&[9]).unwrap_err(), SealError::Version(9));
    }

    #[test]
    fn derived_keys_differ_by_purpose_and_context() {
        let derive = |purpose, context| key(1).derive(purpose, context);
        assert_eq!(derive(Purpose::SessionSecret, "A"), derive(Purpose::SessionSecret, "A"));
        assert_ne!(derive(Purpose::SessionSecret, "A"), derive(Purpose::SessionSecret, "B"));
        assert_ne!(derive(Purpose::SessionSecret, "A"), derive(Purpose::SessionToken, "A"));
        assert_eq!(format!("{:?}", key(1)), "ClusterKey(..)");
        assert!(ClusterKey::from_hex("00").is_err() && ClusterKey::from_hex(&"0a".repeat(32)).is_ok());
    }
}
