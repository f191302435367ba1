//! Errors in the words of S3: every `ObjectError` and every fault of a body has its code, status and headers here.
//!
//! Invariants: texts tell the client what to do next and nothing of other people's buckets; 503 always says when to come
//! again; storage damage is told as `InternalError`, its details go to the log.

use http::header::{ALLOW, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use meridian_object::{ObjectError, StreamError, VersionId};
use meridian_types::NameError;
use s3s::{S3Error, S3ErrorCode};

use crate::context::{BodyFault, RequestContext};
use crate::wire_values::http_date;

/// What `Retry-After` says to those who are told to slow down.
pub(crate) const SLOW_DOWN_S: u32 = 1;

/// What it says to those whose write other datacenters have not acknowledged: it is no hurry to write again what stands.
const NOT_ACKNOWLEDGED_S: u32 = 5;

/// An S3 error with a message.
pub(crate) fn error(code: S3ErrorCode, message: impl Into<String>) -> S3Error {
    S3Error::with_message(code, message.into())
}

/// A code that s3s has no name or another status for.
pub(crate) fn error_with_status(code: &'static str, status: StatusCode, message: impl Into<String>) -> S3Error {
    let mut error = error(S3ErrorCode::Custom(code.into()), message);
    error.set_status_code(status);
    error
}

pub(crate) fn invalid_argument(name: &str, reason: &str) -> S3Error {
    error(S3ErrorCode::InvalidArgument, format!("{name}: {reason}"))
}

pub(crate) fn invalid_request(message: impl Into<String>) -> S3Error {
    error(S3ErrorCode::InvalidRequest, message)
}

pub(crate) fn malformed_xml() -> S3Error {
    let text = "The XML you provided was not well-formed or did not validate against our published schema";
    error(S3ErrorCode::MalformedXML, text)
}

/// What this gateway does not do (yet), by its S3 name.
pub(crate) fn not_implemented(what: &str) -> S3Error {
    error(S3ErrorCode::NotImplemented, format!("{what} is not implemented here"))
}

pub(crate) fn access_denied() -> S3Error {
    error(S3ErrorCode::AccessDenied, "Access Denied")
}

pub(crate) fn slow_down(message: impl Into<String>) -> S3Error {
    with_headers(error(S3ErrorCode::SlowDown, message), [(RETRY_AFTER, HeaderValue::from(SLOW_DOWN_S))])
}

pub(crate) fn unavailable(message: String, retry_after_s: u32) -> S3Error {
    with_headers(error(S3ErrorCode::ServiceUnavailable, message), [(RETRY_AFTER, HeaderValue::from(retry_after_s))])
}

/// s3s replaces its own headers by these, so that the content type has to be said again.
fn with_headers<const N: usize>(mut error: S3Error, headers: [(HeaderName, HeaderValue); N]) -> S3Error {
    let mut map = HeaderMap::with_capacity(N + 1);
    map.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    map.extend(headers);
    error.set_headers(map);
    error
}

/// A name that a client gave for a bucket or key.
pub(crate) fn name_error(name: &NameError) -> S3Error {
    match name {
        NameError::Bucket(_) => error(S3ErrorCode::InvalidBucketName, "The specified bucket is not valid."),
        NameError::KeyTooLong(_) => error(S3ErrorCode::KeyTooLongError, "Your key is too long: at most 1024 bytes."),
        NameError::KeyEmpty | NameError::KeyWithNul | NameError::Label { .. } => {
            error(S3ErrorCode::InvalidURI, name.to_string())
        }
    }
}

/// A failed operation. `context` knows why the request's body broke off, if it did.
pub(crate) fn object_error(failure: ObjectError, context: Option<&RequestContext>) -> S3Error {
    use S3ErrorCode as Code;
    match failure {
        ObjectError::NoSuchBucket(_) => error(Code::NoSuchBucket, "The specified bucket does not exist."),
        ObjectError::BucketBeingDeleted(_) => error(Code::OperationAborted, "The bucket is being deleted."),
        ObjectError::BucketAlreadyExists(_) => {
            error(Code::BucketAlreadyExists, "The requested bucket name is not available.")
        }
        ObjectError::BucketAlreadyOwnedByYou(_) => already_owned(),
        ObjectError::BucketNotEmpty(_) => error(Code::BucketNotEmpty, "The bucket you tried to delete is not empty."),
        ObjectError::NoSuchKey { .. } => error(Code::NoSuchKey, "The specified key does not exist."),
        ObjectError::NoSuchVersion { .. } => error(Code::NoSuchVersion, "The specified version does not exist."),
        ObjectError::DeleteMarker { version, named, last_modified_unix_ms, .. } => {
            delete_marker(version, named, last_modified_unix_ms)
        }
        ObjectError::Locked => error(Code::AccessDenied, "Access Denied because object protected by object lock."),
        ObjectError::NoObjectLock => invalid_request("Bucket is missing Object Lock Configuration"),
        ObjectError::NoSuchUpload { .. } => no_such_upload(),
        ObjectError::UploadElsewhere { datacenter, .. } => {
            let text = format!("The upload lives in datacenter {datacenter}: send its requests to that region.");
            error(Code::NotImplemented, text)
        }
        ObjectError::InvalidPart(number) => {
            error(Code::InvalidPart, format!("Part {number} was not found, or its ETag did not match."))
        }
        ObjectError::InvalidPartOrder => error(Code::InvalidPartOrder, "Parts must be listed in ascending order."),
        ObjectError::EntityTooSmall(number) => {
            error(Code::EntityTooSmall, format!("Part {number} is smaller than 5 MiB and not the last."))
        }
        ObjectError::EntityTooLarge { .. } => error(Code::EntityTooLarge, failure.to_string()),
        ObjectError::MetadataTooLarge => {
            error(Code::MetadataTooLarge, "Your metadata headers exceed the maximum allowed metadata size.")
        }
        ObjectError::InvalidArgument { argument, ref reason } => invalid_argument(argument, reason),
        ObjectError::CopySourceTooLarge { size_max, .. } => invalid_request(format!(
            "The specified copy source is larger than the maximum allowable size for a copy source: {size_max}"
        )),
        ObjectError::CopyOntoItself => invalid_request(
            "This copy request is illegal because it is trying to copy an object to itself without changing the \
             object's metadata, storage class, website redirect location or encryption attributes.",
        ),
        ObjectError::BadDigest => {
            error(Code::BadDigest, "The Content-MD5 you specified did not match what we received.")
        }
        ObjectError::ChecksumMismatch { ref algorithm } => {
            error(Code::BadDigest, format!("The {algorithm} you specified did not match the calculated checksum."))
        }
        ObjectError::Refused { code, message } => error(Code::Custom(code.into()), message).with_known_code(),
        ObjectError::IncompleteBody { .. } | ObjectError::BodyTooLong { .. } => {
            body_fault(context, BodyFault::Incomplete)
        }
        ObjectError::Body(StreamError::Client(reason)) => body_fault(context, BodyFault::Disconnected(reason)),
        ObjectError::Body(StreamError::Storage(reason)) => unavailable(reason, SLOW_DOWN_S),
        ObjectError::InvalidRange { size } => with_headers(
            error(Code::InvalidRange, "The requested range is not satisfiable."),
            [(CONTENT_RANGE, header_value(format!("bytes */{size}")))],
        ),
        ObjectError::InvalidPartNumber { .. } => {
            error_with_status("InvalidPartNumber", StatusCode::RANGE_NOT_SATISFIABLE, failure.to_string())
        }
        ObjectError::PreconditionFailed(condition) => {
            if let Some(context) = context.filter(|_| condition.starts_with("If-")) {
                context.set_condition(condition);
            }
            error(Code::PreconditionFailed, "At least one of the pre-conditions you specified did not hold.")
        }
        ObjectError::NotModified { etag, last_modified_unix_ms } => not_modified(&etag, last_modified_unix_ms),
        ObjectError::UserRefused { .. } => invalid_request(failure.to_string()),
        ObjectError::Busy(what) => slow_down(format!("Please reduce your request rate: {what}.")),
        ObjectError::Unavailable { reason, retry_after_s } => unavailable(reason, retry_after_s),
        ObjectError::NotAcknowledged { .. } => with_headers(
            error_with_status("RemoteAckTimeout", StatusCode::SERVICE_UNAVAILABLE, failure.to_string()),
            [(RETRY_AFTER, HeaderValue::from(NOT_ACKNOWLEDGED_S))],
        ),
        ObjectError::Storage(reason) => {
            tracing::error!(reason, "an object operation met damage");
            error(Code::InternalError, "We encountered an internal error. Please try again.")
        }
    }
}

/// 409, as S3 answers outside of its oldest region.
pub(crate) fn already_owned() -> S3Error {
    error(S3ErrorCode::BucketAlreadyOwnedByYou, "Your previous request to create the named bucket succeeded.")
}

pub(crate) fn no_such_upload() -> S3Error {
    error(
        S3ErrorCode::NoSuchUpload,
        "The specified multipart upload does not exist. It may have been aborted or completed.",
    )
}

/// What stands where an object was asked for: 404 for the current one, 405 for a version that was named (S3).
fn delete_marker(version: VersionId, named: bool, last_modified_unix_ms: u64) -> S3Error {
    let marker = (HeaderName::from_static("x-amz-delete-marker"), HeaderValue::from_static("true"));
    let version = (HeaderName::from_static("x-amz-version-id"), header_value(version.to_string()));
    if !named {
        return with_headers(error(S3ErrorCode::NoSuchKey, "The specified key does not exist."), [marker, version]);
    }
    let text = "The specified method is not allowed against this resource.";
    let allow = (ALLOW, HeaderValue::from_static("DELETE"));
    let time = (LAST_MODIFIED, header_value(http_date(last_modified_unix_ms)));
    with_headers(error(S3ErrorCode::MethodNotAllowed, text), [marker, version, allow, time])
}

/// 304: no body, but the headers that a cache refreshes itself by.
fn not_modified(etag: &str, last_modified_unix_ms: u64) -> S3Error {
    let mut headers = HeaderMap::new();
    headers.insert(ETAG, header_value(format!("\"{etag}\"")));
    headers.insert(LAST_MODIFIED, header_value(http_date(last_modified_unix_ms)));
    let mut error = S3Error::new(S3ErrorCode::NotModified);
    error.set_headers(headers);
    error
}

fn header_value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("")) // all of them are made of our own ASCII
}

/// Why the body of this request was not taken: what an inner layer saw, else `seen`.
fn body_fault(context: Option<&RequestContext>, seen: BodyFault) -> S3Error {
    let fault = context.and_then(RequestContext::body_fault).cloned().unwrap_or(seen);
    fault_error(&fault)
}

pub(crate) fn fault_error(fault: &BodyFault) -> S3Error {
    use S3ErrorCode as Code;
    match fault {
        BodyFault::Idle => error(
            Code::RequestTimeout,
            "Your socket connection to the server was not read from or written to within the timeout period.",
        ),
        BodyFault::Incomplete | BodyFault::TooLong | BodyFault::Disconnected(_) => error(
            Code::IncompleteBody,
            "You did not provide the number of bytes specified by the Content-Length HTTP header.",
        ),
        BodyFault::Framing => invalid_request("The aws-chunked body is malformed."),
        BodyFault::ChunkTooLarge => error_with_status(
            "InvalidChunkSizeError",
            StatusCode::BAD_REQUEST,
            "A signed chunk is larger than this server takes: send smaller chunks.",
        ),
        BodyFault::PayloadHash => error_with_status(
            "XAmzContentSHA256Mismatch",
            StatusCode::BAD_REQUEST,
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        ),
        BodyFault::ChunkSignature => {
            error(Code::SignatureDoesNotMatch, "The signature of a chunk does not match the signature you provided.")
        }
    }
}

trait KnownCode {
    /// A code given by name gets the status that S3 gives it, 400 if it is unknown.
    fn with_known_code(self) -> Self;
}

impl KnownCode for S3Error {
    fn with_known_code(mut self) -> Self {
        let known = S3ErrorCode::from_bytes(self.code().as_str().as_bytes());
        match known {
            Some(known) if known.status_code().is_some() => self.set_code(known),
            _ => self.set_status_code(StatusCode::BAD_REQUEST),
        }
        self
    }
}

#[cfg(test)]
mod tests;
