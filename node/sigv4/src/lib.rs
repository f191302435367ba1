//! AWS Signature Version 4 in the `Authorization` header, for any region and service: the CLI signs with it and
//! the admin REST gateway verifies with it. The S3 gateway does not use it (s3s has S3's own forms).
//!
//! Beside it stands the cluster's key, under which secrets are kept and session tokens are made.
//!
//! It does not read a clock, look up secrets, hash bodies on its own or know presigned URLs: the caller passes the
//! time, the secret and the payload's hash.
//!
//! Invariants: secrets and signatures are compared in constant time and never shown by `Debug`; a request is
//! accepted only if its `host` and every `x-amz-*` header were signed; the skew limit is checked before the
//! signature, and no error tells more than S3 itself tells.
//!
//! Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

mod canonical;
mod date;
mod form;
mod key;
mod payload;
mod seal;
mod sign;
mod verify;

pub use date::{AmzDate, DateError};
pub use form::{sign_policy, verify_policy};
pub use key::{Scope, SecretKey};
pub use payload::{PayloadClaim, PayloadHash, PayloadHasher};
pub use seal::{ClusterKey, NONCE_LENGTH, Purpose, SealError};
pub use sign::{Credentials, SignError, sign};
pub use verify::{Claim, SKEW_MS_MAX, Verifier, VerifyError};

/// The one algorithm that is offered.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The header that carries the time of signing.
pub const DATE_HEADER: &str = "x-amz-date";
/// The header that carries the payload's hash.
pub const PAYLOAD_HEADER: &str = "x-amz-content-sha256";
