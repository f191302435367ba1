//! Seals and opens the blocks of one chunk.
//!
//! The key is that of this chunk alone, so that the number of a block is a nonce that never comes twice. Which chunk of
//! which object it is, and how long, went into the key: nothing is left to say in additional data.
//!
//! Invariants: every byte that is returned was authenticated.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::framing::{BLOCK_SIZE, TAG_SIZE, Window, stored_length};

/// Stored bytes that were changed, or belong elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("encrypted bytes were changed, or stand in another object's place")]
pub struct Forged;

/// The cipher of one chunk.
pub struct ChunkCipher {
    key: LessSafeKey,
    plain_length: u32,
}

impl fmt::Debug for ChunkCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkCipher(..)")
    }
}

impl ChunkCipher {
    /// `key` has 32 bytes and is used for this chunk alone.
    pub(crate) fn new(key: &[u8], plain_length: u32) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("the key has the cipher's length");
        Self { key: LessSafeKey::new(key), plain_length }
    }

    /// The stored bytes of the whole chunk.
    ///
    /// # Panics
    /// Unless `plain` has the length that the cipher was made for.
    pub fn seal(&self, plain: &[u8]) -> Vec<u8> {
        assert_eq!(plain.len(), self.plain_length as usize, "a chunk's length went into its key");
        let stored = stored_length(self.plain_length).expect("a chunk is far below the limit");
        let mut sealed = Vec::with_capacity(stored as usize);
        for (number, block) in plain.chunks(BLOCK_SIZE as usize).enumerate() {
            let start = sealed.len();
            sealed.extend_from_slice(block);
            let tag = self.key.seal_in_place_separate_tag(nonce(number as u32), Aad::empty(), &mut sealed[start..]);
            sealed.extend_from_slice(tag.expect("a block is far below the cipher's limit").as_ref());
        }
        sealed
    }

    /// The plain bytes of a window, of which `stored` are the stored ones.
    ///
    /// # Errors
    /// `Forged` unless every byte is genuine and in its place.
    pub fn open(&self, window: &Window, stored: &[u8]) -> Result<Vec<u8>, Forged> {
        if stored.len() != window.stored.len() {
            return Err(Forged);
        }
        let frame = (BLOCK_SIZE + TAG_SIZE) as usize;
        let mut plain = vec![0; stored.len()];
        let mut length = 0;
        for (number, frame) in (window.first_block..).zip(stored.chunks(frame)) {
            let Some(size) = frame.len().checked_sub(TAG_SIZE as usize) else { return Err(Forged) };
            let (block, tag) = frame.split_at(size);
            let opened = &mut plain[length..length + size];
            self.key.open_separate_gather(nonce(number), Aad::empty(), block, tag, opened).map_err(|_| Forged)?;
            length += size;
        }
        let end = (window.skip + window.take) as usize;
        if end > length {
            return Err(Forged);
        }
        plain.truncate(end);
        plain.drain(..window.skip as usize);
        Ok(plain)
    }
}

/// Eight zero bytes and the number of the block.
fn nonce(block: u32) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 4..].copy_from_slice(&block.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use meridian_types::{Cookie, DatacenterId, Fid, NeedleKey, VolumeId};
    use proptest::prelude::{ProptestConfig, prop_assert_eq, proptest};

    use super::*;
    use crate::framing::window;
    use crate::{ChunkPlace, DataKey};

    fn place(needle: u64, part: u16, index: u32) -> ChunkPlace {
        let volume = VolumeId::new(1, DatacenterId::new(1).unwrap()).unwrap();
        ChunkPlace { fid: Fid { volume, key: NeedleKey(needle), cookie: Cookie(5) }, part, index }
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 31 + at / 256) as u8).collect()
    }

    fn open_all(cipher: &ChunkCipher, stored: &[u8], plain: u32) -> Result<Vec<u8>, Forged> {
        cipher.open(&window(0..plain, plain).unwrap(), stored)
    }

    /// A format on disk: these bytes never change; a new form gets a new version.
    #[test]
    fn golden_bytes() {
        let sealed = DataKey::new([7; 32]).chunk(place(9, 0, 0), 4).seal(b"hush");
        assert_eq!(hex::encode(sealed), "52a3c76015ae5781d68a80e357fe6583c942dc35");
    }

    #[test]
    fn what_was_flipped_or_cut_does_not_open() {
        let plain = pattern(40);
        let cipher = DataKey::new([1; 32]).chunk(place(1, 2, 3), 40);
        let stored = cipher.seal(&plain);
        assert_eq!(open_all(&cipher, &stored, 40).unwrap(), plain);
        for bit in 0..stored.len() * 8 {
            let mut flipped = stored.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open_all(&cipher, &flipped, 40), Err(Forged), "bit {bit} flipped unseen");
        }
        for length in 0..stored.len() {
            assert_eq!(open_all(&cipher, &stored[..length], 40), Err(Forged), "cut at {length} unseen");
        }
    }

    #[test]
    fn bytes_open_in_their_own_place_only() {
        let plain = pattern(100);
        let key = DataKey::new([1; 32]);
        let stored = key.chunk(place(1, 2, 3), 100).seal(&plain);
        let others = [place(2, 2, 3), place(1, 3, 3), place(1, 2, 4)];
        for cipher in others.map(|place| key.chunk(place, 100)) {
            assert_eq!(open_all(&cipher, &stored, 100), Err(Forged));
        }
        assert_eq!(open_all(&DataKey::new([2; 32]).chunk(place(1, 2, 3), 100), &stored, 100), Err(Forged));
        let shorter = key.chunk(place(1, 2, 3), 84);
        assert_eq!(open_all(&shorter, &stored[..100], 84), Err(Forged), "a chunk's length is part of its key");
    }

    #[test]
    fn blocks_do_not_change_places() {
        let plain = vec![3; 2 * BLOCK_SIZE as usize];
        let length = plain.len() as u32;
        let cipher = DataKey::new([1; 32]).chunk(place(1, 0, 0), length);
        let mut stored = cipher.seal(&plain);
        let frame = (BLOCK_SIZE + TAG_SIZE) as usize;
        let (first, second) = stored.split_at_mut(frame);
        assert_ne!(first, second, "equal blocks look different");
        first.swap_with_slice(second);
        assert_eq!(open_all(&cipher, &stored, length), Err(Forged));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_range_opens_to_its_bytes(length in 1usize..300_000, a: u32, b: u32) {
            let plain = pattern(length);
            let cipher = DataKey::new([4; 32]).chunk(place(1, 0, 0), length as u32);
            let stored = cipher.seal(&plain);
            let (a, b) = (a % (length as u32 + 1), b % (length as u32 + 1));
            let range = a.min(b)..a.max(b);
            if let Some(window) = window(range.clone(), length as u32) {
                let read = &stored[window.stored.start as usize..window.stored.end as usize];
                let opened = cipher.open(&window, read).unwrap();
                prop_assert_eq!(&opened[..], &plain[range.start as usize..range.end as usize]);
            }
        }
    }
}
