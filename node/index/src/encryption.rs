//! What a row says of an object's encryption: how it is done, and the object's data key, sealed.
//!
//! Nothing here can be read without a master key, and none is here. Who seals and opens is `meridian-object`.
//!
//! Invariants: written with the version and never changed; what a customer gave leaves no trace but the sealed key.

use serde::{Deserialize, Serialize};

/// How one version's bytes are encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    pub method: EncryptionMethod,
    /// The data key, sealed for this bucket, key and method (docs/formats/sealed.md).
    pub sealed_key: Vec<u8>,
}

/// Under what the data key is sealed. Discriminants are on disk: never reuse one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EncryptionMethod {
    /// SSE-S3: a version of the store's own key.
    Managed { version: u32 },
    /// SSE-KMS: a version of a named key.
    Kms {
        /// As the client gave it.
        key_id: String,
        version: u32,
        /// The client's context, base64 of JSON.
        context: Option<String>,
        /// Told back; data keys are made without asking anybody either way.
        bucket_key: bool,
    },
    /// SSE-C: the key that the client gives with each request.
    Customer,
}
