//! Blobs: bytes that clients name by fid and by nothing else, one needle each. No row of the object index knows them.
//!
//! What it is for: handing out fids, and storing, reading and deleting what they name, wherever in the cluster it lies.
//! What it does not do: parse URLs or forms (`node/rest`), overwrite (a fid names one content for ever).
//!
//! Invariants:
//! - A blob is acknowledged when its needle is durable on every copy that the code demands in this datacenter.
//! - A fid that this cluster did not hand out is never written: its cookie is a MAC (`capability`), so that a made-up key can't
//!   take the place of an object's chunk.
//! - Only needles that carry a blob's head are read or deleted here: a chunk of an object is none (docs/formats/blob.md).

mod capability;
mod delete;
mod envelope;
mod error;
mod open;
mod places;
mod put;

pub(crate) use delete::TELLING_MAX;

pub use capability::{BlobAddress, BlobGrant, COUNT_MAX, TOKEN_LIFETIME_MS};
pub use error::BlobError;
pub use open::{BlobBody, BlobInfo, OpenBlob};
pub use places::{BlobNode, VolumePlaces};
pub use put::{BLOB_SIZE_MAX, BlobOutcome, PutBlob};

/// Longest name and media type of a blob, in bytes.
pub const BLOB_WORD_LENGTH_MAX: usize = 255;
