//! What object operations answer, in the words and numbers of this API.

use axum::http::{StatusCode, Uri, header};
use axum::response::Response;
use meridian_object::ObjectError;

use crate::blob::refuse;

pub(super) fn refuse_object(uri: &Uri, error: &ObjectError) -> Response {
    let status = status_of(error);
    let mut response = refuse(uri, status, &error.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, 2.into());
    }
    response
}

fn status_of(error: &ObjectError) -> StatusCode {
    match error {
        ObjectError::NoSuchBucket(_)
        | ObjectError::NoSuchKey { .. }
        | ObjectError::NoSuchVersion { .. }
        | ObjectError::DeleteMarker { .. } => StatusCode::NOT_FOUND,
        ObjectError::PreconditionFailed(_) => StatusCode::PRECONDITION_FAILED,
        ObjectError::NotModified { .. } => StatusCode::NOT_MODIFIED,
        ObjectError::InvalidRange { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
        ObjectError::EntityTooLarge { .. } | ObjectError::CopySourceTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        ObjectError::Locked => StatusCode::FORBIDDEN,
        ObjectError::BucketBeingDeleted(_) => StatusCode::CONFLICT,
        ObjectError::Busy(_) | ObjectError::Unavailable { .. } | ObjectError::NotAcknowledged { .. } => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ObjectError::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
        ObjectError::Refused { code: "Conflict", .. } => StatusCode::CONFLICT,
        ObjectError::Refused { code: "UnsupportedMediaType", .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ObjectError::Refused { code: "TooLarge", .. } => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// A refusal of this gateway's own; `code` chooses its status.
pub(super) fn refused(code: &'static str, message: impl Into<String>) -> ObjectError {
    ObjectError::Refused { code, message: message.into() }
}

pub(super) fn invalid(argument: &'static str, reason: impl Into<String>) -> ObjectError {
    ObjectError::InvalidArgument { argument, reason: reason.into() }
}
