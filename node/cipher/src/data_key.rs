//! The data key of one object, and what is derived from it.
//!
//! Invariants: two chunks have different keys unless their object, needle, place and length are all the same; the bytes
//! are wiped on drop.

use std::fmt;

use aws_lc_rs::hmac;
use meridian_types::Fid;
use zeroize::Zeroizing;

use crate::chunk::ChunkCipher;

/// Length of a data key, in bytes.
pub const DATA_KEY_LENGTH: usize = 32;
const ETAG_LENGTH: usize = 16;
/// What is derived says for what, so that no two purposes share a key.
const CHUNK_LABEL: &[u8] = b"meridian chunk 1";
const ETAG_LABEL: &[u8] = b"meridian etag 1";

/// Where a chunk stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkPlace {
    /// The needle that holds it; its name is issued once.
    pub fid: Fid,
    /// The number of its part; 0 in an object that was put whole.
    pub part: u16,
    /// Its number in the part, from 0.
    pub index: u32,
}

/// Encrypts one object. Made of 32 random bytes that nothing else uses.
#[derive(Clone)]
pub struct DataKey(Zeroizing<[u8; DATA_KEY_LENGTH]>);

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}

impl DataKey {
    pub fn new(key: [u8; DATA_KEY_LENGTH]) -> Self {
        Self(Zeroizing::new(key))
    }

    /// The bytes, to be sealed.
    pub fn expose(&self) -> &[u8; DATA_KEY_LENGTH] {
        &self.0
    }

    /// The cipher of one chunk with `plain_length` plain bytes.
    pub fn chunk(&self, place: ChunkPlace, plain_length: u32) -> ChunkCipher {
        let mut context = hmac::Context::with_key(&self.mac());
        context.update(CHUNK_LABEL);
        context.update(&place.fid.volume.get().to_be_bytes());
        context.update(&place.fid.key.0.to_be_bytes());
        context.update(&place.fid.cookie.0.to_be_bytes());
        context.update(&place.part.to_be_bytes());
        context.update(&place.index.to_be_bytes());
        context.update(&plain_length.to_be_bytes());
        ChunkCipher::new(context.sign().as_ref(), plain_length)
    }

    /// What stands for the MD5 of the plain bytes in an ETag that shall tell nothing of them.
    pub fn etag(&self, md5: [u8; ETAG_LENGTH]) -> [u8; ETAG_LENGTH] {
        let mut context = hmac::Context::with_key(&self.mac());
        context.update(ETAG_LABEL);
        context.update(&md5);
        let tag = context.sign();
        tag.as_ref()[..ETAG_LENGTH].try_into().expect("HMAC-SHA256 has 32 bytes")
    }

    fn mac(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_tell_nothing_and_differ_by_key_and_bytes() {
        let (one, two) = (DataKey::new([1; 32]), DataKey::new([2; 32]));
        assert_eq!(one.etag([5; 16]), one.etag([5; 16]));
        assert_ne!(one.etag([5; 16]), one.etag([6; 16]));
        assert_ne!(one.etag([5; 16]), two.etag([5; 16]));
        assert_eq!(format!("{one:?}"), "DataKey(..)");
        assert_eq!(hex::encode(one.etag([5; 16])), GOLDEN_ETAG);
    }

    const GOLDEN_ETAG: &str = "2b43f41dd7bd4b54b6d8c9bedd8b6528";
}
