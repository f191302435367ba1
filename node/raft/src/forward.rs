//! Requests that one node hands to the leader of a group: the codec of their bodies, and who answers them there.
//!
//! What a request means is its owner's business: a proposal must be stamped where the group is led, so this crate can't
//! propose it in the owner's place.

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::network::{decode_body, encode_body};

/// Answers the requests of other nodes for one group of this node.
#[async_trait]
pub trait ForwardHandler: Send + Sync + 'static {
    /// The answer carries refusals in the owner's own words.
    ///
    /// # Errors
    /// A body that does not decode, in words.
    async fn answer(&self, body: Bytes) -> Result<Bytes, String>;
}

/// A body with its version in front.
pub fn encode_forwarded<T: Serialize>(message: &T) -> Bytes {
    encode_body(message)
}

/// # Errors
/// What is wrong with the bytes, in words.
pub fn decode_forwarded<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    decode_body(body).map_err(|error| error.to_string())
}
