//! How an object's bytes are encrypted: cut into blocks, each sealed by itself, so that a range is opened without the
//! rest of its chunk. An object has one random data key; each of its chunks has a key of its own, derived from the data
//! key and the chunk's place.
//!
//! ```text
//! data key ── HMAC-SHA256(place of the chunk, its length) ── key of the chunk ── AES-256-GCM(nonce = block number)
//! ```
//!
//! It makes no randomness, keeps nothing and knows no master key: who seals data keys is `meridian-object`. The layout is
//! drawn in docs/formats/encrypted-chunks.md.
//!
//! Invariants: a nonce is used once under one key, because a needle's name is issued once and a chunk's key depends on
//! it; bytes of another object, chunk, block or length never open; nothing is returned unless all of it is genuine; keys
//! are wiped when they are dropped and never shown by `Debug`.

mod chunk;
mod data_key;
mod framing;

pub use chunk::{ChunkCipher, Forged};
pub use data_key::{ChunkPlace, DATA_KEY_LENGTH, DataKey};
pub use framing::{BLOCK_SIZE, TAG_SIZE, Window, plain_length, stored_length, window};
