//! What an operation on blobs can answer besides success.

use meridian_control::ControlError;
use meridian_types::DatacenterId;

use crate::{ObjectError, StreamError};

#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Never written, deleted, expired, or another cookie: nobody is told which.
    #[error("there is no such blob")]
    NotFound,
    /// The fid was never handed out by this cluster, or not with so many.
    #[error("this fid was not handed out: ask /dir/assign for one")]
    NotAssigned,
    #[error("volume {volume} belongs to datacenter {datacenter}: write there, or ask /dir/assign here for another fid")]
    OtherDatacenter { volume: u32, datacenter: DatacenterId },
    #[error("the fid names other bytes already; ask /dir/assign for another one")]
    Exists,
    #[error("a blob has at most {size_max} bytes; store larger ones as files or by S3")]
    TooLarge { size_max: usize },
    #[error("the body has {received} bytes of {expected}")]
    Incomplete { expected: u64, received: u64 },
    #[error("the body broke off")]
    Body(#[source] StreamError),
    #[error("Content-MD5 does not match the body")]
    BadDigest,
    #[error("{argument}: {reason}")]
    InvalidArgument { argument: &'static str, reason: String },
    /// The code can't be met by the machines that there are; says what is missing (rule 24).
    #[error("{0}")]
    Impossible(String),
    /// Over a limit of this node: slow down and come again (503).
    #[error("over a limit: {0}")]
    Busy(&'static str),
    /// Can't be answered now (503); a write may have happened or not, and may be repeated.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

impl From<ObjectError> for BlobError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Busy(what) => Self::Busy(what),
            ObjectError::Unavailable { reason, .. } => Self::Unavailable(reason),
            ObjectError::InvalidArgument { reason, .. } => Self::Impossible(reason),
            error => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<ControlError> for BlobError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Placement(error) => Self::Impossible(error.to_string()),
            error => {
                tracing::error!(%error, "no volume for a blob");
                Self::Unavailable("no volume takes bytes now".to_owned())
            }
        }
    }
}
