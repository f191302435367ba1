//! What is checked of a request before s3s sees it: limits on headers, the forms of signature that are offered, that
//! everything which can change a request's meaning is signed, and how its body is to be read.
//!
//! s3s verifies the signature itself; it accepts SigV2, other algorithm names, unsigned `x-amz-*` headers and presigned
//! URLs of any life, which are refused here.
//!
//! Invariants: nothing here tells whether a bucket, key or access key exists.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, DATE, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use meridian_sigv4::{ALGORITHM, AmzDate, DATE_HEADER, PAYLOAD_HEADER};
use s3s::stream::DynByteStream;
use s3s::{Body, S3Error, S3ErrorCode, S3Result};

use crate::attributes::url_decode;
use crate::body_in::InboundBody;
use crate::checksums::{ALGORITHMS, SDK_ALGORITHM, header};
use crate::chunked::{ChunkFrames, ChunkSigning};
use crate::config::GatewayLimits;
use crate::context::RequestContext;
use crate::errors::{access_denied, error, error_with_status, invalid_argument, invalid_request};
use crate::host::Domains;
use crate::lenient::date_of;
use crate::methods::{Resource, check_method};
use crate::xml_body::{XmlBudget, XmlPermit, check_digests, check_payload_hash};

/// The longest life of a presigned URL: seven days (S3).
const PRESIGNED_EXPIRY_S_MAX: u64 = 7 * 24 * 3600;
const QUERY_ERROR: &str = "AuthorizationQueryParametersError";
const CREDENTIAL_FORM: &str =
    "The Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".";
/// Parts of an object that PUT with an XML body sets; every other PUT of a key is an upload.
const XML_SUBRESOURCES: [&str; 6] = ["acl", "attributes", "legal-hold", "retention", "tagging", "torrent"];

/// The checks of one gateway.
pub(crate) struct Admission {
    limits: GatewayLimits,
    domains: Domains,
    xml: XmlBudget,
}

/// How a request's body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyKind {
    /// Left alone.
    Ignored,
    Xml,
    Upload(Option<ChunkSigning>),
}

impl Admission {
    pub fn new(limits: &GatewayLimits, domains: Domains) -> Self {
        let xml = XmlBudget::new(limits.xml_bodies_size_max, limits.xml_body_size_max);
        Self { limits: limits.clone(), domains, xml }
    }

    /// Checks a request's head and makes the body that s3s gets. The permit is held until the answer is ready.
    ///
    /// # Errors
    /// The answer to give instead.
    pub async fn admit(
        &self,
        parts: &Parts,
        body: Incoming,
        context: &Arc<RequestContext>,
    ) -> S3Result<(Body, Option<XmlPermit>)> {
        self.check_head(parts)?;
        check_method(&parts.method, self.resource_of(parts), query_names(parts))?;
        if self.body_kind(parts) == BodyKind::Xml && is_chunked(parts) {
            let text = "must be UNSIGNED-PAYLOAD or a valid sha256 value: only uploads come in signed chunks";
            return Err(invalid_argument(PAYLOAD_HEADER, text));
        }
        if body.is_end_stream() {
            self.check_absent_body(parts)?;
            return Ok((Body::empty(), None));
        }
        let idle_max = self.limits.body_idle_timeout;
        match self.body_kind(parts) {
            BodyKind::Ignored => Ok((Body::empty(), None)),
            BodyKind::Upload(signing) => {
                let frames = signing.map(ChunkFrames::new);
                let stream: DynByteStream = Box::pin(InboundBody::new(body, idle_max, frames, Arc::clone(context)));
                Ok((Body::from(stream), None))
            }
            BodyKind::Xml => {
                let stream = InboundBody::new(body, idle_max, None, Arc::clone(context));
                let headers = body_headers(parts);
                let (bytes, permit) = self.xml.read(announced_length(parts)?, &headers, stream).await?;
                context.set_xml(bytes.clone());
                Ok((Body::from(bytes), Some(permit)))
            }
        }
    }

    /// Reads the body of a form that is posted to `/` (IAM, STS), within the budget of XML bodies.
    ///
    /// # Errors
    /// The answer to give instead.
    pub async fn form(
        &self,
        parts: &Parts,
        body: Incoming,
        context: &Arc<RequestContext>,
    ) -> S3Result<(Bytes, XmlPermit)> {
        self.check_head(parts)?;
        let stream = InboundBody::new(body, self.limits.body_idle_timeout, None, Arc::clone(context));
        self.xml.read(announced_length(parts)?, &parts.headers, stream).await
    }

    fn check_head(&self, parts: &Parts) -> S3Result<()> {
        self.check_size_and_path(parts)?;
        check_signature_form(parts)?;
        check_digest(&parts.headers)
    }

    fn check_size_and_path(&self, parts: &Parts) -> S3Result<()> {
        let size: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if size > self.limits.headers_size_max {
            let text = "Your request header section exceeds the maximum allowed size.";
            return Err(error(S3ErrorCode::RequestHeaderSectionTooLarge, text));
        }
        if !is_percent_encoded(parts.uri.path()) {
            return Err(error(S3ErrorCode::InvalidURI, "Couldn't parse the specified URI."));
        }
        Ok(())
    }

    /// Checks the head of a browser's form and makes the body that is read.
    ///
    /// # Errors
    /// The answer to give instead.
    pub fn admit_form<B>(&self, parts: &Parts, body: B, context: &Arc<RequestContext>) -> S3Result<InboundBody<B>> {
        self.check_size_and_path(parts)?;
        if self.names_a_key(parts) {
            check_method(&parts.method, Resource::Object, query_names(parts))?;
        }
        Ok(InboundBody::new(body, self.limits.body_idle_timeout, None, Arc::clone(context)))
    }

    /// A body that does not come has digests too; s3s would answer 500 to a hash that is not that of nothing.
    fn check_absent_body(&self, parts: &Parts) -> S3Result<()> {
        match self.body_kind(parts) {
            BodyKind::Ignored => Ok(()),
            BodyKind::Xml => check_digests(&body_headers(parts), b""),
            BodyKind::Upload(_) => check_payload_hash(&parts.headers, b""),
        }
    }

    fn body_kind(&self, parts: &Parts) -> BodyKind {
        let chunked = match parts.headers.get(PAYLOAD_HEADER).map(|value| value.as_bytes()) {
            Some(b"STREAMING-UNSIGNED-PAYLOAD-TRAILER") => Some(ChunkSigning::Unsigned),
            Some(value) if value.starts_with(b"STREAMING-") => Some(ChunkSigning::Signed),
            _ => None,
        };
        match parts.method {
            Method::PUT
                if self.names_a_key(parts) && !query_names(parts).any(|name| XML_SUBRESOURCES.contains(&name)) =>
            {
                BodyKind::Upload(chunked)
            }
            Method::PUT | Method::POST => BodyKind::Xml,
            _ => BodyKind::Ignored,
        }
    }

    /// The bucket that a request names, by host or path.
    pub fn bucket_of<B>(&self, request: &Request<B>) -> Option<String> {
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| request.uri().authority().map(|authority| authority.as_str())).unwrap_or_default();
        if let Some(bucket) = self.domains.bucket(host) {
            return Some(bucket.to_ascii_lowercase());
        }
        let bucket = request.uri().path().strip_prefix('/')?.split('/').next()?;
        (!bucket.is_empty()).then(|| bucket.to_owned())
    }

    fn names_a_key(&self, parts: &Parts) -> bool {
        self.resource_of(parts) == Resource::Object
    }

    fn resource_of(&self, parts: &Parts) -> Resource {
        let path = parts.uri.path().strip_prefix('/').unwrap_or_default();
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| parts.uri.authority().map(|authority| authority.as_str())).unwrap_or_default();
        let key = match self.domains.bucket(host) {
            Some(_) => path,
            None if path.is_empty() => return Resource::Service,
            None => path.split_once('/').map_or("", |(_, key)| key),
        };
        if key.is_empty() { Resource::Bucket } else { Resource::Object }
    }
}

/// s3s would take a document apart into chunks and answer 500 to what is none.
fn is_chunked(parts: &Parts) -> bool {
    parts.headers.get(PAYLOAD_HEADER).is_some_and(|value| value.as_bytes().starts_with(b"STREAMING-"))
}

/// Every percent sign begins an encoded byte; s3s would take any other for itself.
fn is_percent_encoded(path: &str) -> bool {
    let is_hex =
        |digits: Option<&str>| digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    path.match_indices('%').all(|(at, _)| is_hex(path.get(at + 1..at + 3)))
}

/// # Errors
/// `MissingContentLength` (411): an XML body's room is taken before it is read.
fn announced_length(parts: &Parts) -> S3Result<u64> {
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    match length {
        Some(length) if !parts.headers.contains_key(TRANSFER_ENCODING) => Ok(length),
        _ => {
            let text = "You must provide the Content-Length HTTP header.";
            Err(error(S3ErrorCode::MissingContentLength, text))
        }
    }
}

/// The headers that speak of the body: a Complete's checksums are those of the object that it makes.
fn body_headers(parts: &Parts) -> HeaderMap {
    let mut headers = parts.headers.clone();
    if parts.method == Method::POST && query_names(parts).any(|name| name == "uploadId") {
        for algorithm in ALGORITHMS {
            headers.remove(header(algorithm));
        }
        headers.remove(SDK_ALGORITHM);
    }
    headers
}

fn query_pairs(parts: &Parts) -> impl Iterator<Item = (&str, &str)> {
    let pairs = parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn query_names(parts: &Parts) -> impl Iterator<Item = &str> {
    query_pairs(parts).map(|(name, _)| name)
}

fn check_signature_form(parts: &Parts) -> S3Result<()> {
    let authorization = parts.headers.get(AUTHORIZATION);
    let presigned = query_names(parts).any(|name| name == "X-Amz-Signature");
    if query_names(parts).any(|name| name == "Signature" || name == "AWSAccessKeyId") {
        return Err(mechanism_not_offered());
    }
    match authorization {
        Some(_) if presigned => Err(invalid_argument("Authorization", "only one auth mechanism is allowed")),
        Some(value) if value.is_empty() => Err(access_denied()),
        Some(value) => {
            let text = value.to_str().map_err(|_| access_denied())?;
            let fields = text.strip_prefix(ALGORITHM).filter(|fields| fields.starts_with([' ', '\t']));
            let fields = fields.ok_or_else(mechanism_not_offered)?;
            let signed = fields.split(',').find_map(|field| field.trim().strip_prefix("SignedHeaders="));
            let malformed = || error(S3ErrorCode::AuthorizationHeaderMalformed, "SignedHeaders is missing.");
            let signed = signed.ok_or_else(malformed)?;
            let credential = fields.split(',').find_map(|field| field.trim().strip_prefix("Credential="));
            if credential.is_some_and(|credential| !is_credential(credential)) {
                return Err(error(S3ErrorCode::AuthorizationHeaderMalformed, CREDENTIAL_FORM));
            }
            check_date(&parts.headers, signed)?;
            check_signed(parts, signed, &[])
        }
        None if presigned => {
            let value = |wanted: &str| query_pairs(parts).find(|(name, _)| *name == wanted).map(|(_, value)| value);
            let decoded = |wanted: &str| value(wanted).and_then(url_decode);
            if value("X-Amz-Credential").is_some() && !decoded("X-Amz-Credential").is_some_and(|it| is_credential(&it))
            {
                return Err(query_error(CREDENTIAL_FORM));
            }
            if value("X-Amz-Date").is_some() && decoded("X-Amz-Date").is_none_or(|it| AmzDate::parse(&it).is_err()) {
                return Err(query_error("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\""));
            }
            if let Some(expires_s) = value("X-Amz-Expires") {
                check_expiry(expires_s.parse().unwrap_or(0))?;
            }
            let signed = value("X-Amz-SignedHeaders").unwrap_or_default();
            let signed = signed.replace("%3B", ";").replace("%3b", ";");
            // A presigned URL does not know its body: the header may come with the request.
            check_signed(parts, &signed, &[PAYLOAD_HEADER])
        }
        None => Ok(()), // anonymous: `guard` decides
    }
}

/// s3s panics over a day that is none.
fn is_credential(text: &str) -> bool {
    let fields: Vec<&str> = text.split('/').collect();
    fields.len() == 5 && fields[1].len() == 8 && fields[1].bytes().all(|byte| byte.is_ascii_digit())
}

fn query_error(text: &str) -> S3Error {
    error_with_status(QUERY_ERROR, StatusCode::BAD_REQUEST, text)
}

fn check_expiry(expires_s: u64) -> S3Result<()> {
    if (1..=PRESIGNED_EXPIRY_S_MAX).contains(&expires_s) {
        return Ok(());
    }
    let text = "X-Amz-Expires must be between 1 and 604800 seconds.";
    Err(error_with_status(QUERY_ERROR, StatusCode::FORBIDDEN, text))
}

/// # Errors
/// `AccessDenied` without the moment of the signature, as S3 says it.
fn check_date(headers: &HeaderMap, signed: &str) -> S3Result<()> {
    let is_dated = match headers.get(DATE_HEADER) {
        Some(date) => date.to_str().is_ok_and(|text| AmzDate::parse(text).is_ok()),
        None => {
            let is_signed = signed.split(';').any(|name| name.eq_ignore_ascii_case("date"));
            is_signed && headers.get(DATE).and_then(date_of).is_some()
        }
    };
    if is_dated {
        return Ok(());
    }
    Err(error(S3ErrorCode::AccessDenied, "AWS authentication requires a valid Date or x-amz-date header"))
}

/// An empty digest is one that is wrong, and not none, which s3s takes it for.
fn check_digest(headers: &HeaderMap) -> S3Result<()> {
    let is_unreadable = |value: &HeaderValue| value.is_empty() || value.to_str().is_err();
    if headers.get("content-md5").is_some_and(is_unreadable) {
        return Err(error(S3ErrorCode::InvalidDigest, "The Content-MD5 you specified was invalid."));
    }
    Ok(())
}

fn mechanism_not_offered() -> S3Error {
    invalid_request("The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.")
}

/// `host` and every `x-amz-*` header change what a request means, so all of them must be signed.
fn check_signed(parts: &Parts, signed: &str, exempt: &[&str]) -> S3Result<()> {
    let is_signed = |name: &str| signed.split(';').any(|candidate| candidate.eq_ignore_ascii_case(name));
    let amz = parts.headers.keys().map(|name| name.as_str()).filter(|name| name.starts_with("x-amz-"));
    let unsigned = std::iter::once("host").chain(amz).find(|name| !is_signed(name) && !exempt.contains(name));
    match unsigned {
        None => Ok(()),
        Some(name) => {
            let mut denied = access_denied();
            denied.set_message(format!("There were headers present in the request which were not signed: {name}"));
            Err(denied)
        }
    }
}

#[cfg(test)]
mod tests;
