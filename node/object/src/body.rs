//! Bodies as streams, in both directions, and the hook that runs between the end of a body and its commit.
//!
//! Invariants: a stream ends with `None` only when all bytes were delivered; anything else ends with an error.

use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use meridian_index::Checksum;

use crate::ObjectError;

/// Pieces of a body, of any size, in order.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, StreamError>> + Send>>;

/// Called once after the last byte of a body was taken and before its metadata is proposed: hands over the checksums
/// that the gateway verified on its way (trailers are known only then). An error commits nothing.
pub type BodyFinish = Box<dyn FnOnce() -> Result<Vec<Checksum>, ObjectError> + Send>;

/// Why a stream broke off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The sender of an upload: disconnected, sent a bad frame, was too slow.
    #[error("the client's body broke off: {0}")]
    Client(String),
    /// This side: bytes could not be read, or failed their checksum.
    #[error("the stored bytes can't be delivered: {0}")]
    Storage(String),
}
