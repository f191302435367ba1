//! Server-side encryption, between the wire and the store: what requests say of it in headers, and what answers tell.
//!
//! A key that a client gives with its request (SSE-C) comes over TLS, or over plain HTTP where the configuration says that
//! the way here is safe.
//!
//! Invariants: a customer's key is in no error, log or answer; what is asked for is done or refused, never passed over.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/serv-side-encryption.html>

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode};
use md5::{Digest, Md5};
use meridian_object::{CustomerKey, DefaultEncryption, DefaultMethod, Encryption, EncryptionMethod, EncryptionWish};
use s3s::dto;
use s3s::{S3Error, S3ErrorCode, S3Response, S3Result};
use zeroize::Zeroizing;

use crate::auth::context_of;
use crate::errors::{error, error_with_status, invalid_request, not_implemented};

const PREFIX: &str = "x-amz-server-side-encryption";
const SSE: HeaderName = HeaderName::from_static("x-amz-server-side-encryption");
const KMS_KEY_ID: HeaderName = HeaderName::from_static("x-amz-server-side-encryption-aws-kms-key-id");
const KMS_CONTEXT: HeaderName = HeaderName::from_static("x-amz-server-side-encryption-context");
const BUCKET_KEY: HeaderName = HeaderName::from_static("x-amz-server-side-encryption-bucket-key-enabled");
const CUSTOMER_ALGORITHM: HeaderName = HeaderName::from_static("x-amz-server-side-encryption-customer-algorithm");
/// Also a name that policies must not see.
pub(crate) const CUSTOMER_KEY: HeaderName = HeaderName::from_static("x-amz-server-side-encryption-customer-key");
const CUSTOMER_MD5: HeaderName = HeaderName::from_static("x-amz-server-side-encryption-customer-key-md5");
/// The same three for the source of a copy.
const SOURCE_ALGORITHM: HeaderName =
    HeaderName::from_static("x-amz-copy-source-server-side-encryption-customer-algorithm");
pub(crate) const SOURCE_KEY: HeaderName =
    HeaderName::from_static("x-amz-copy-source-server-side-encryption-customer-key");
const SOURCE_MD5: HeaderName = HeaderName::from_static("x-amz-copy-source-server-side-encryption-customer-key-md5");

const AES256: &str = "AES256";
const KMS: &str = "aws:kms";
/// Longest id of a key, in bytes (KMS).
const KEY_ID_LENGTH_MAX: usize = 2048;
/// Longest encryption context, in bytes of base64.
const CONTEXT_LENGTH_MAX: usize = 4096;

/// Reads the encryption headers of requests to one gateway.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sse {
    /// Keys may come, also without TLS.
    pub takes_customer_keys: bool,
}

impl Sse {
    /// For one request: over TLS keys may always come.
    pub fn of(self, extensions: &Extensions) -> Self {
        self.over(context_of(extensions).is_some_and(|context| context.secure))
    }

    /// For a request that came over TLS, or did not.
    pub fn over(self, secure: bool) -> Self {
        Self { takes_customer_keys: self.takes_customer_keys || secure }
    }

    /// What a write asks for.
    ///
    /// # Errors
    /// `InvalidArgument`, `InvalidEncryptionAlgorithmError`, `InvalidRequest` over plain HTTP.
    pub fn wish(self, headers: &HeaderMap) -> S3Result<EncryptionWish> {
        let customer = self.customer_key(headers)?;
        let method = text(headers, &SSE)?;
        let (key_id, context) = (text(headers, &KMS_KEY_ID)?, text(headers, &KMS_CONTEXT)?);
        if let Some(key) = customer {
            return match method.or(key_id).or(context) {
                None => Ok(EncryptionWish::Customer(key)),
                Some(_) => Err(argument(
                    "Server Side Encryption with Customer provided key is incompatible with the encryption method \
                     specified",
                )),
            };
        }
        match method {
            Some(KMS) => Ok(EncryptionWish::Kms {
                key_id: key_id.map(checked_key_id).transpose()?,
                context: context.map(checked_context).transpose()?,
                bucket_key: text(headers, &BUCKET_KEY)?.map(flag).transpose()?,
            }),
            _ if key_id.is_some() || context.is_some() => Err(argument(
                "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : \
                 aws:kms",
            )),
            None => Ok(EncryptionWish::BucketDefault),
            Some(AES256) => Ok(EncryptionWish::Managed),
            Some("aws:kms:dsse") => Err(not_implemented("Dual-layer server-side encryption")),
            Some(_) => Err(unknown_algorithm("The encryption method specified is not supported")),
        }
    }

    /// The key that a client gives for the object of its request.
    ///
    /// # Errors
    /// Those of `wish`.
    pub fn customer_key(self, headers: &HeaderMap) -> S3Result<Option<CustomerKey>> {
        self.key(headers, [&CUSTOMER_ALGORITHM, &CUSTOMER_KEY, &CUSTOMER_MD5])
    }

    /// The key that a client gives for the source of a copy.
    ///
    /// # Errors
    /// Those of `wish`.
    pub fn source_key(self, headers: &HeaderMap) -> S3Result<Option<CustomerKey>> {
        self.key(headers, [&SOURCE_ALGORITHM, &SOURCE_KEY, &SOURCE_MD5])
    }

    /// The customer's key of a read, which says nothing else of encryption.
    ///
    /// # Errors
    /// Those of `wish`; `InvalidArgument` for headers that belong to a write.
    pub fn key_alone(self, headers: &HeaderMap) -> S3Result<Option<CustomerKey>> {
        for name in [SSE, KMS_KEY_ID, KMS_CONTEXT, BUCKET_KEY] {
            if headers.contains_key(&name) {
                return Err(argument(&format!("{name} header is not supported for this operation.")));
            }
        }
        self.customer_key(headers)
    }

    fn key(self, headers: &HeaderMap, names: [&HeaderName; 3]) -> S3Result<Option<CustomerKey>> {
        let [algorithm, key, md5] = names.map(|name| headers.get(name));
        if algorithm.is_none() && key.is_none() && md5.is_none() {
            return Ok(None);
        }
        if !self.takes_customer_keys {
            return Err(invalid_request(
                "Requests specifying Server Side Encryption with Customer provided keys must be made over a secure \
                 connection.",
            ));
        }
        let lacking = |what: &str| {
            argument(&format!(
                "Requests specifying Server Side Encryption with Customer provided keys must provide {what}."
            ))
        };
        let algorithm = algorithm.ok_or_else(|| lacking("a valid encryption algorithm"))?;
        if algorithm.as_bytes() != AES256.as_bytes() {
            return Err(unknown_algorithm(
                "The Encryption request you specified is not valid. Supported value: AES256.",
            ));
        }
        let key = key.ok_or_else(|| lacking("an appropriate secret key"))?;
        let md5 = md5.ok_or_else(|| lacking("the client calculated MD5 of the secret key"))?;
        let invalid = || argument("The secret key was invalid for the specified algorithm.");
        let bytes = Zeroizing::new(BASE64.decode(key.as_bytes()).map_err(|_| invalid())?);
        let key = CustomerKey::new(&bytes).ok_or_else(invalid)?;
        if BASE64.encode(Md5::digest(&bytes)).as_bytes() != md5.as_bytes() {
            return Err(argument("The calculated MD5 hash of the key did not match the hash that was provided."));
        }
        Ok(Some(key))
    }
}

/// Whether a request says anything of encryption, so that a copy of an object onto itself changes something.
pub(crate) fn is_asked_for(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with(PREFIX))
}

/// An answer that tells how its object is encrypted; `asked` are the headers of the request.
pub(crate) fn told<T>(mut answer: S3Response<T>, encryption: Option<&Encryption>, asked: &HeaderMap) -> S3Response<T> {
    let headers = &mut answer.headers;
    match encryption.map(|encryption| &encryption.method) {
        None => {}
        Some(EncryptionMethod::Managed { .. }) => {
            headers.insert(SSE, HeaderValue::from_static(AES256));
        }
        Some(EncryptionMethod::Kms { key_id, context, bucket_key, .. }) => {
            headers.insert(SSE, HeaderValue::from_static(KMS));
            insert(headers, KMS_KEY_ID, key_id);
            if asked.contains_key(KMS_CONTEXT) {
                insert(headers, KMS_CONTEXT, context.as_deref().unwrap_or_default());
            }
            if *bucket_key {
                headers.insert(BUCKET_KEY, HeaderValue::from_static("true"));
            }
        }
        Some(EncryptionMethod::Customer) => {
            headers.insert(CUSTOMER_ALGORITHM, HeaderValue::from_static(AES256));
            if let Some(md5) = asked.get(CUSTOMER_MD5) {
                headers.insert(CUSTOMER_MD5, md5.clone());
            }
        }
    }
    answer
}

fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> S3Result<Option<&'h str>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    value.to_str().map(Some).map_err(|_| argument(&format!("The header {name} is not valid text.")))
}

fn flag(text: &str) -> S3Result<bool> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(argument("x-amz-server-side-encryption-bucket-key-enabled must be true or false.")),
    }
}

fn checked_key_id(id: &str) -> S3Result<String> {
    let is_plain = |byte: u8| byte.is_ascii_graphic();
    if id.is_empty() || id.len() > KEY_ID_LENGTH_MAX || !id.bytes().all(is_plain) {
        return Err(kms_not_found(id));
    }
    Ok(id.to_owned())
}

fn kms_not_found(id: &str) -> S3Error {
    let id: String = id.chars().filter(|letter| !letter.is_control()).take(256).collect();
    error_with_status("KMS.NotFoundException", StatusCode::BAD_REQUEST, format!("Invalid keyId {id}"))
}

/// A context is bound to the object, and told back; its meaning is the client's.
fn checked_context(context: &str) -> S3Result<String> {
    let bytes = BASE64.decode(context).ok().filter(|_| context.len() <= CONTEXT_LENGTH_MAX);
    let is_object = bytes.is_some_and(|bytes| {
        let text = String::from_utf8(bytes).unwrap_or_default();
        let text = text.trim();
        text.starts_with('{') && text.ends_with('}')
    });
    if is_object {
        return Ok(context.to_owned());
    }
    Err(argument(
        "The header 'x-amz-server-side-encryption-context' shall be Base64-encoded UTF-8 string holding JSON which \
         represents a string-string map",
    ))
}

/// A default of a bucket, as its configuration says it.
///
/// # Errors
/// `MalformedXML`, `InvalidArgument` for a key without KMS, `NotImplemented` for two layers.
pub(crate) fn default_of(
    encryption: &dto::ServerSideEncryptionConfiguration,
    malformed: impl Fn() -> S3Error,
) -> S3Result<DefaultEncryption> {
    let [rule] = &encryption.rules[..] else { return Err(malformed()) };
    let Some(default) = &rule.apply_server_side_encryption_by_default else { return Err(malformed()) };
    let key_id = default.kms_master_key_id.as_deref().filter(|id| !id.is_empty());
    let method = match (default.sse_algorithm.as_str(), key_id) {
        (AES256, None) => DefaultMethod::Managed,
        (KMS, key_id) => DefaultMethod::Kms { key_id: key_id.map(checked_key_id).transpose()? },
        ("aws:kms:dsse", _) => return Err(not_implemented("Dual-layer server-side encryption")),
        (AES256, Some(_)) => {
            return Err(argument(
                "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse",
            ));
        }
        _ => return Err(malformed()),
    };
    Ok(DefaultEncryption { method, bucket_key: rule.bucket_key_enabled == Some(true) })
}

/// The configuration of a bucket with a default.
pub(crate) fn configuration_of(default: DefaultEncryption) -> dto::ServerSideEncryptionConfiguration {
    let (algorithm, kms_master_key_id) = match default.method {
        DefaultMethod::Managed => (AES256, None),
        DefaultMethod::Kms { key_id } => (KMS, key_id),
    };
    let by_default = dto::ServerSideEncryptionByDefault {
        kms_master_key_id,
        sse_algorithm: dto::ServerSideEncryption::from_static(algorithm),
    };
    let rule = dto::ServerSideEncryptionRule {
        apply_server_side_encryption_by_default: Some(by_default),
        bucket_key_enabled: Some(default.bucket_key),
    };
    dto::ServerSideEncryptionConfiguration { rules: vec![rule] }
}

fn argument(message: &str) -> S3Error {
    error(S3ErrorCode::InvalidArgument, message)
}

fn unknown_algorithm(message: &str) -> S3Error {
    error_with_status("InvalidEncryptionAlgorithmError", StatusCode::BAD_REQUEST, message)
}

#[cfg(test)]
mod tests;
