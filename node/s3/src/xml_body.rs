//! The small bodies: XML documents of DeleteObjects, CompleteMultipartUpload and the bucket settings. They are read
//! whole before s3s sees them, within one budget for all, because s3s would read them without a time limit, take a
//! DTD in silence and answer 500 to a wrong hash.
//!
//! Invariants: all bytes held at once stay within the budget; a body is handed on only if every digest that the
//! request gives of it is right.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http::HeaderMap;
use md5::{Digest, Md5};
use meridian_object::Hasher;
use meridian_sigv4::{PAYLOAD_HEADER, PayloadHash};
use s3s::{S3ErrorCode, S3Result, StdError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::body_in::BrokenBody;
use crate::checksums::promised;
use crate::context::BodyFault;
use crate::errors::{error, fault_error, invalid_request, slow_down};

/// The budget is counted in these.
const BUDGET_UNIT_BYTES: usize = 1024;
/// How long a request waits for its turn before it is told to slow down.
const BUDGET_WAIT: Duration = Duration::from_secs(5);

/// Room for XML bodies, shared by all requests of a gateway.
#[derive(Clone)]
pub(crate) struct XmlBudget {
    units: Arc<Semaphore>,
    body_size_max: usize,
}

/// Room taken by one body; held while its request runs.
pub(crate) struct XmlPermit(#[allow(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl XmlBudget {
    pub fn new(bodies_size_max: usize, body_size_max: usize) -> Self {
        let units = bodies_size_max.max(body_size_max).div_ceil(BUDGET_UNIT_BYTES);
        Self { units: Arc::new(Semaphore::new(units)), body_size_max }
    }

    /// Reads a body of `length` announced bytes.
    ///
    /// # Errors
    /// `MaxMessageLengthExceeded`, `SlowDown`, `IncompleteBody`, `RequestTimeout`, and those of `check_digests`.
    pub async fn read<S>(&self, length: u64, headers: &HeaderMap, mut body: S) -> S3Result<(Bytes, XmlPermit)>
    where
        S: Stream<Item = Result<Bytes, StdError>> + Unpin,
    {
        let length = usize::try_from(length).ok().filter(|length| *length <= self.body_size_max);
        let length = length.ok_or_else(|| error(S3ErrorCode::MaxMessageLengthExceeded, "Your request was too big."))?;
        let units = u32::try_from(length.div_ceil(BUDGET_UNIT_BYTES)).expect("a body's limit is far below 4 TiB");
        let permit = match tokio::time::timeout(BUDGET_WAIT, Arc::clone(&self.units).acquire_many_owned(units)).await {
            Ok(permit) => XmlPermit(permit.expect("the budget is never closed")),
            Err(_) => return Err(slow_down("Please reduce your request rate: the memory for XML is in use.")),
        };
        let mut bytes = BytesMut::with_capacity(length);
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|failure| match failure.downcast_ref::<BrokenBody>() {
                Some(broken) => fault_error(&broken.0),
                None => fault_error(&BodyFault::Incomplete),
            })?;
            if bytes.len() + piece.len() > length {
                return Err(fault_error(&BodyFault::TooLong));
            }
            bytes.extend_from_slice(&piece);
        }
        if bytes.len() < length {
            return Err(fault_error(&BodyFault::Incomplete));
        }
        let bytes = bytes.freeze();
        check_digests(headers, &bytes)?;
        Ok((bytes, permit))
    }
}

/// # Errors
/// `XAmzContentSHA256Mismatch`.
pub(crate) fn check_payload_hash(headers: &HeaderMap, bytes: &[u8]) -> S3Result<()> {
    let claimed = headers.get(PAYLOAD_HEADER).and_then(|value| PayloadHash::from_hex(value.to_str().ok()?));
    match claimed.is_some_and(|claimed| claimed != PayloadHash::of(bytes)) {
        true => Err(fault_error(&BodyFault::PayloadHash)),
        false => Ok(()),
    }
}

/// # Errors
/// `XAmzContentSHA256Mismatch`, `BadDigest`, `InvalidDigest`, `MalformedXML`.
pub(crate) fn check_digests(headers: &HeaderMap, bytes: &[u8]) -> S3Result<()> {
    check_payload_hash(headers, bytes)?;
    if let Some(value) = headers.get("content-md5") {
        let text = value.to_str().unwrap_or_default();
        if content_md5(text)? != <[u8; 16]>::from(Md5::digest(bytes)) {
            return Err(error(S3ErrorCode::BadDigest, "The Content-MD5 you specified did not match what we received."));
        }
    }
    if let Some(promised) = promised(headers)? {
        let expected = promised.value.ok_or_else(|| invalid_request("A trailer is for uploads."))?;
        let mut hasher = Hasher::new(promised.algorithm);
        hasher.update(bytes);
        if hasher.finish() != expected {
            let text = "The checksum you specified did not match the calculated checksum.";
            return Err(error(S3ErrorCode::BadDigest, text));
        }
    }
    if has_declaration(bytes) {
        let text = "The XML you provided must not hold a document type, an entity or a CDATA section.";
        return Err(error(S3ErrorCode::MalformedXML, text));
    }
    Ok(())
}

/// `Content-MD5`: base64 of 16 bytes.
///
/// # Errors
/// `InvalidDigest` for anything else.
pub(crate) fn content_md5(text: &str) -> S3Result<[u8; 16]> {
    let value = BASE64.decode(text).ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    value.ok_or_else(|| error(S3ErrorCode::InvalidDigest, "The Content-MD5 you specified was invalid."))
}

/// Whether a `<!` stands there that opens no comment: s3s would pass over what it holds, key names included.
fn has_declaration(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"<!") {
        rest = &rest[at + 2..];
        if !rest.starts_with(b"--") {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
        let value = |text: &String| HeaderValue::from_str(text).unwrap();
        pairs.iter().map(|(name, text)| (http::HeaderName::from_static(name), value(text))).collect()
    }

    fn code(result: S3Result<()>) -> String {
        result.err().map_or("ok".to_owned(), |error| error.code().as_str().to_owned())
    }

    #[test]
    fn digests_of_a_document_are_checked() {
        let body = b"<Delete/>";
        let md5 = |bytes: &[u8]| BASE64.encode(Md5::digest(bytes));
        let crc = |bytes: &[u8]| {
            let mut hasher = Hasher::new(meridian_object::ChecksumAlgorithm::Crc32);
            hasher.update(bytes);
            BASE64.encode(hasher.finish())
        };
        for (pairs, expected) in [
            (vec![], "ok"),
            (vec![(PAYLOAD_HEADER, PayloadHash::of(body).to_string()), ("content-md5", md5(body))], "ok"),
            (vec![(PAYLOAD_HEADER, "UNSIGNED-PAYLOAD".to_owned()), ("x-amz-checksum-crc32", crc(body))], "ok"),
            (vec![(PAYLOAD_HEADER, PayloadHash::of(b"x").to_string())], "XAmzContentSHA256Mismatch"),
            (vec![("content-md5", md5(b"x"))], "BadDigest"),
            (vec![("content-md5", "x".to_owned())], "InvalidDigest"),
            (vec![("x-amz-checksum-crc32", crc(b"x"))], "BadDigest"),
            (vec![("x-amz-trailer", "x-amz-checksum-crc32".to_owned())], "InvalidRequest"),
        ] {
            assert_eq!(code(check_digests(&headers(&pairs), body)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn declarations_are_malformed_and_comments_are_not() {
        for (xml, expected) in [
            ("<Delete><!-- a --><Object/></Delete>", "ok"),
            ("<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>", "MalformedXML"),
            ("<a><![CDATA[key]]></a>", "MalformedXML"),
            ("<!-- --><!entity>", "MalformedXML"),
            ("<!", "MalformedXML"),
        ] {
            assert_eq!(code(check_digests(&HeaderMap::new(), xml.as_bytes())), expected, "{xml}");
        }
    }

    fn pieces(pieces: &'static [&'static [u8]]) -> impl Stream<Item = Result<Bytes, StdError>> + Unpin {
        futures::stream::iter(pieces.iter().map(|piece| Ok(Bytes::from_static(piece))))
    }

    #[tokio::test]
    async fn lengths_are_kept() {
        let budget = XmlBudget::new(10_000, 1000);
        let read = async |length, body| budget.read(length, &HeaderMap::new(), pieces(body)).await;
        assert_eq!(read(4, &[b"<a", b"/>"]).await.unwrap().0, "<a/>");
        let failed = async |length, body| read(length, body).await.err().unwrap().code().as_str().to_owned();
        assert_eq!(failed(5, &[b"<a/>"]).await, "IncompleteBody");
        assert_eq!(failed(3, &[b"<a/>"]).await, "IncompleteBody");
        assert_eq!(failed(1001, &[b""]).await, "MaxMessageLengthExceeded");
        assert_eq!(failed(u64::MAX, &[b""]).await, "MaxMessageLengthExceeded");
    }

    #[tokio::test(start_paused = true)]
    async fn past_the_budget_clients_are_told_to_slow_down() {
        let budget = XmlBudget::new(1024, 1024);
        let (_, held) = budget.read(4, &HeaderMap::new(), pieces(&[b"<a/>"])).await.unwrap();
        let refused = budget.read(4, &HeaderMap::new(), pieces(&[b"<a/>"])).await.err().unwrap();
        assert_eq!(refused.code().as_str(), "SlowDown");
        drop(held);
        assert!(budget.read(4, &HeaderMap::new(), pieces(&[b"<a/>"])).await.is_ok());
    }
}
