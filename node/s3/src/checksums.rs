//! The checksums that clients give with bodies (headers or trailers): verified while the bytes go by, and given back.
//!
//! s3s parses them and computes none. Values on the wire are base64; a composite one ends in `-N`, N the parts.
//!
//! Invariants: a promised trailer that does not come is an error, not an omission; nothing is committed before the
//! comparison (`BodyFinish`).
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::StreamExt;
use http::{HeaderMap, HeaderValue};
use meridian_object::{
    BodyFinish, ByteStream, Checksum, ChecksumAlgorithm, CopyDigest, Hasher, ObjectError, StreamError, UploadChecksum,
    computed_checksum,
};
use parking_lot::Mutex;
use s3s::dto::StreamingBlob;
use s3s::{S3Result, StdError, TrailingHeaders};

use crate::body_in::BrokenBody;
use crate::context::{BodyFault, RequestContext};
use crate::errors::invalid_request;

/// All of them, with S3's names.
pub(crate) const ALGORITHMS: [ChecksumAlgorithm; 5] = [
    ChecksumAlgorithm::Crc32,
    ChecksumAlgorithm::Crc32c,
    ChecksumAlgorithm::Crc64Nvme,
    ChecksumAlgorithm::Sha1,
    ChecksumAlgorithm::Sha256,
];

/// Of what comes without one (S3).
const ALGORITHM_DEFAULT: ChecksumAlgorithm = ChecksumAlgorithm::Crc64Nvme;
/// Says which checksum the client's library has made.
pub(crate) const SDK_ALGORITHM: &str = "x-amz-sdk-checksum-algorithm";

/// S3's name of an algorithm, `CRC32`.
pub(crate) fn name(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "CRC32",
        ChecksumAlgorithm::Crc32c => "CRC32C",
        ChecksumAlgorithm::Crc64Nvme => "CRC64NVME",
        ChecksumAlgorithm::Sha1 => "SHA1",
        ChecksumAlgorithm::Sha256 => "SHA256",
    }
}

/// The algorithm that a client asks for.
///
/// # Errors
/// `InvalidRequest` for one that S3 does not know.
pub(crate) fn named(text: &str) -> S3Result<ChecksumAlgorithm> {
    let found = ALGORITHMS.into_iter().find(|algorithm| name(*algorithm) == text);
    let valid = "Checksum algorithm provided is unsupported. Please try again with any of the valid types: \
                 [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]";
    found.ok_or_else(|| invalid_request(valid))
}

/// What CreateMultipartUpload asks for: an algorithm, and whether its checksums are of the whole object or of its parts.
///
/// # Errors
/// `InvalidRequest` for a kind without its algorithm, or one that the algorithm does not have (S3).
pub(crate) fn upload_checksum(algorithm: Option<&str>, kind: Option<&str>) -> S3Result<Option<UploadChecksum>> {
    let algorithm = algorithm.map(named).transpose()?;
    let Some(algorithm) = algorithm else {
        let text = "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.";
        return if kind.is_some() { Err(invalid_request(text)) } else { Ok(None) };
    };
    let composite = match kind {
        None => algorithm != ChecksumAlgorithm::Crc64Nvme,
        Some(kind) => is_composite(kind)?,
    };
    let offered = match composite {
        true => algorithm != ChecksumAlgorithm::Crc64Nvme,
        false => !matches!(algorithm, ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256),
    };
    if offered {
        return Ok(Some(UploadChecksum { algorithm, composite }));
    }
    let (kind, name) = (kind.unwrap_or_default(), name(algorithm));
    Err(invalid_request(format!("The {kind} checksum type cannot be used with the {name} checksum algorithm.")))
}

/// # Errors
/// `InvalidRequest` for a kind that S3 does not know.
pub(crate) fn is_composite(kind: &str) -> S3Result<bool> {
    match kind {
        "COMPOSITE" => Ok(true),
        "FULL_OBJECT" => Ok(false),
        _ => Err(invalid_request("Value for x-amz-checksum-type header is invalid.")),
    }
}

/// The header or trailer that carries it.
pub(crate) fn header(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "x-amz-checksum-crc32",
        ChecksumAlgorithm::Crc32c => "x-amz-checksum-crc32c",
        ChecksumAlgorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
        ChecksumAlgorithm::Sha1 => "x-amz-checksum-sha1",
        ChecksumAlgorithm::Sha256 => "x-amz-checksum-sha256",
    }
}

fn length(algorithm: ChecksumAlgorithm) -> usize {
    match algorithm {
        ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c => 4,
        ChecksumAlgorithm::Crc64Nvme => 8,
        ChecksumAlgorithm::Sha1 => 20,
        ChecksumAlgorithm::Sha256 => 32,
    }
}

/// A checksum as text; a composite one names the count of its `parts`.
pub(crate) fn text(checksum: &Checksum, parts: usize) -> String {
    let value = BASE64.encode(&checksum.value);
    if checksum.composite { format!("{value}-{parts}") } else { value }
}

fn decode(algorithm: ChecksumAlgorithm, text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok().filter(|value| value.len() == length(algorithm))
}

fn bad_value(algorithm: ChecksumAlgorithm) -> String {
    format!("Value for {} header is invalid.", header(algorithm))
}

/// The checksums of a whole multipart object, as CompleteMultipartUpload's headers give them.
///
/// # Errors
/// `InvalidRequest` for one that is no value of its algorithm.
pub(crate) fn of_whole_object(given: [Option<&str>; 5]) -> S3Result<Vec<Checksum>> {
    let mut checksums = Vec::new();
    for (algorithm, text) in ALGORITHMS.into_iter().zip(given) {
        let Some(text) = text else { continue };
        let (value, composite) = match text.rsplit_once('-') {
            Some((value, parts)) if parts.parse::<u16>().is_ok() => (value, true),
            _ => (text, false),
        };
        let value = decode(algorithm, value).ok_or_else(|| invalid_request(bad_value(algorithm)))?;
        checksums.push(Checksum { algorithm, value, composite });
    }
    Ok(checksums)
}

/// What a request says of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Promised {
    pub algorithm: ChecksumAlgorithm,
    /// `None`: its value comes in a trailer.
    pub value: Option<Vec<u8>>,
}

/// Reads the checksum that a request carries or announces.
///
/// # Errors
/// `InvalidRequest` for more than one, for bad values and for trailers that are no checksum.
pub(crate) fn promised(headers: &HeaderMap) -> S3Result<Option<Promised>> {
    let mut found = Vec::new();
    for algorithm in ALGORITHMS {
        let Some(value) = headers.get(header(algorithm)) else { continue };
        let value = value.to_str().ok().and_then(|text| decode(algorithm, text));
        let value = value.ok_or_else(|| invalid_request(bad_value(algorithm)))?;
        found.push(Promised { algorithm, value: Some(value) });
    }
    for names in headers.get_all("x-amz-trailer") {
        for trailer in names.to_str().unwrap_or("?").split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let algorithm = ALGORITHMS.into_iter().find(|algorithm| trailer.eq_ignore_ascii_case(header(*algorithm)));
            let unknown = || invalid_request("The value specified in the x-amz-trailer header is not supported.");
            found.push(Promised { algorithm: algorithm.ok_or_else(unknown)?, value: None });
        }
    }
    if found.len() > 1 {
        let text = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.";
        return Err(invalid_request(text));
    }
    let found = found.pop();
    if let Some(said) = headers.get(SDK_ALGORITHM) {
        check_sdk_algorithm(said, found.as_ref())?;
    }
    Ok(found)
}

/// # Errors
/// `InvalidRequest` when there is no such checksum, or another one.
fn check_sdk_algorithm(said: &HeaderValue, found: Option<&Promised>) -> S3Result<()> {
    let said = said.to_str().unwrap_or_default();
    let known = ALGORITHMS.into_iter().find(|algorithm| name(*algorithm).eq_ignore_ascii_case(said));
    let invalid = || invalid_request(format!("Value for {SDK_ALGORITHM} header is invalid."));
    let known = known.ok_or_else(invalid)?;
    match found {
        None => Err(invalid_request(format!(
            "{SDK_ALGORITHM} specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found."
        ))),
        Some(found) if found.algorithm != known => Err(invalid()),
        Some(_) => Ok(()),
    }
}

/// A body whose checksum is computed as it is read, and the comparison that ends it.
pub(crate) struct VerifiedBody {
    pub stream: ByteStream,
    pub finish: Option<BodyFinish>,
}

/// Wraps the body of an upload. `trailers` are s3s's, filled at the end of the body.
pub(crate) fn verified(
    body: Option<StreamingBlob>,
    promised: Option<Promised>,
    trailers: Option<TrailingHeaders>,
    context: Option<Arc<RequestContext>>,
) -> VerifiedBody {
    let Some(body) = body else {
        let finish = promised.map(|promised| {
            let computed = Hasher::new(promised.algorithm).finish();
            finish_with(promised, trailers, move || computed)
        });
        return VerifiedBody { stream: Box::pin(futures::stream::empty()), finish };
    };
    let Some(promised) = promised else {
        let stream = body.map(move |piece| piece.map_err(|error| broken(&error, context.as_deref())));
        return VerifiedBody { stream: Box::pin(stream), finish: None };
    };
    let hasher = Arc::new(Mutex::new(Some(Hasher::new(promised.algorithm))));
    let feeding = Arc::clone(&hasher);
    let stream = body.map(move |piece| {
        let bytes = piece.map_err(|error| broken(&error, context.as_deref()))?;
        if let Some(hasher) = feeding.lock().as_mut() {
            hasher.update(&bytes);
        }
        Ok(bytes)
    });
    let computed = move || hasher.lock().take().map(Hasher::finish).unwrap_or_default();
    VerifiedBody { stream: Box::pin(stream), finish: Some(finish_with(promised, trailers, computed)) }
}

/// Gives a body that nothing is promised of the checksum that S3 gives such an object.
pub(crate) fn with_default(body: VerifiedBody) -> VerifiedBody {
    if body.finish.is_some() {
        return body;
    }
    let (stream, finish) = computed_checksum(ALGORITHM_DEFAULT, body.stream);
    VerifiedBody { stream, finish: Some(finish) }
}

/// Computes a checksum of bytes that go by: nothing is promised of them, so nothing is compared.
pub(crate) fn computed(algorithm: ChecksumAlgorithm) -> CopyDigest {
    Box::new(move |body| computed_checksum(algorithm, body))
}

fn finish_with(
    promised: Promised,
    trailers: Option<TrailingHeaders>,
    computed: impl FnOnce() -> Vec<u8> + Send + 'static,
) -> BodyFinish {
    Box::new(move || {
        let algorithm = promised.algorithm;
        let expected = match promised.value {
            Some(value) => value,
            None => {
                let text = trailers.and_then(|trailers| {
                    trailers
                        .read(|map| map.get(header(algorithm)).and_then(|value| value.to_str().ok().map(str::to_owned)))
                });
                let refused = |message: String| ObjectError::Refused { code: "InvalidRequest", message };
                let missing = || refused(format!("The trailer {} is missing.", header(algorithm)));
                let text = text.flatten().ok_or_else(missing)?;
                decode(algorithm, &text).ok_or_else(|| refused(bad_value(algorithm)))?
            }
        };
        let value = computed();
        if value != expected {
            return Err(ObjectError::ChecksumMismatch { algorithm: name(algorithm).to_owned() });
        }
        Ok(vec![Checksum { algorithm, value, composite: false }])
    })
}

/// Records why a body broke off. s3s's own errors are private types: their texts are all there is.
fn broken(error: &StdError, context: Option<&RequestContext>) -> StreamError {
    let text = error.to_string();
    let fault = error.downcast_ref::<BrokenBody>().map(|broken| broken.0.clone()).unwrap_or_else(|| fault_of(&text));
    if let Some(context) = context {
        context.set_body_fault(fault);
    }
    StreamError::Client(text)
}

fn fault_of(text: &str) -> BodyFault {
    match text.rsplit(": ").next().unwrap_or_default() {
        "Sha256Mismatch" => BodyFault::PayloadHash,
        "SignatureMismatch" => BodyFault::ChunkSignature,
        "Incomplete" => BodyFault::Incomplete,
        "LengthMismatch" => BodyFault::TooLong,
        _ if text.starts_with("AwsChunkedStreamError") => BodyFault::Framing,
        _ => BodyFault::Disconnected(text.to_owned()),
    }
}

#[cfg(test)]
mod tests;
