//! Which key an object is encrypted with: what a request wishes, what its bucket says, and the sealing of data keys.
//!
//! ```text
//! SSE-S3, SSE-KMS   cluster key ── id, version ── key of that version ── seals ── the object's data key
//! SSE-C                                           the customer's key  ── seals ── the object's data key
//! ```
//!
//! How bytes are encrypted under a data key is `meridian-cipher`'s. No key but the cluster's is stored anywhere: those of a
//! key id are derived from it, so that every datacenter reads what another one wrote (docs/adr/0060).
//!
//! Invariants: a data key is sealed for its bucket, key and method, and opens for nothing else; a customer's key is
//! neither kept nor logged; a client hears of a wrong key no more than that it is denied.

use std::fmt;
use std::sync::Arc;

use meridian_cipher::{DATA_KEY_LENGTH, DataKey};
use meridian_env::entropy;
use meridian_index::{Attributes, BucketRow, Encryption, EncryptionMethod};
use meridian_sigv4::{ClusterKey, NONCE_LENGTH, Purpose};
use meridian_types::{BucketId, ObjectKey};
use zeroize::{Zeroize, Zeroizing};

use crate::default_encryption::{DefaultEncryption, DefaultMethod};
use crate::objects::Inner;
use crate::{KmsRefusal, ObjectError};

/// The key under which SSE-S3 seals, and SSE-KMS where no other is named.
pub const MANAGED_KEY_ID: &str = "aws/s3";
const CUSTOMER_KEY_LENGTH: usize = 32;

/// What a write asks for.
#[derive(Debug, Clone, Default)]
pub enum EncryptionWish {
    /// What the bucket says.
    #[default]
    BucketDefault,
    /// SSE-S3.
    Managed,
    Kms {
        /// None for the store's own key.
        key_id: Option<String>,
        /// Base64 of JSON.
        context: Option<String>,
        /// None for what the bucket says.
        bucket_key: Option<bool>,
    },
    Customer(CustomerKey),
}

/// A key that a client gave with its request (SSE-C).
#[derive(Clone)]
pub struct CustomerKey(Zeroizing<[u8; CUSTOMER_KEY_LENGTH]>);

impl fmt::Debug for CustomerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CustomerKey(..)")
    }
}

impl CustomerKey {
    /// `None` unless it has 256 bits.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0; CUSTOMER_KEY_LENGTH]);
        if bytes.len() != CUSTOMER_KEY_LENGTH {
            return None;
        }
        key.copy_from_slice(bytes);
        Some(Self(key))
    }
}

/// What new bytes are encrypted with.
#[derive(Debug, Clone)]
pub(crate) struct NewEncryption {
    pub(crate) encryption: Box<Encryption>,
    pub(crate) key: Arc<DataKey>,
}

impl NewEncryption {
    /// The ETag of plain bytes with this MD5. Only SSE-S3 shows the MD5, as S3 does.
    pub(crate) fn etag(this: Option<&Self>, md5: [u8; 16]) -> String {
        match this {
            Some(new) if !matches!(new.encryption.method, EncryptionMethod::Managed { .. }) => {
                hex::encode(new.key.etag(md5))
            }
            _ => hex::encode(md5),
        }
    }
}

impl Inner {
    /// Makes the data key of a new object, or of an upload.
    ///
    /// # Errors
    /// `Refused` for a key that is not there or disabled, `Storage` for a bucket whose default can't be read.
    pub(crate) fn new_encryption(
        &self,
        bucket: &BucketRow,
        key: &ObjectKey,
        wish: &EncryptionWish,
    ) -> Result<Option<NewEncryption>, ObjectError> {
        let default = DefaultEncryption::of(bucket)?;
        let Some((method, sealer)) = self.chosen_method(default, wish)? else { return Ok(None) };
        let mut random = [0; DATA_KEY_LENGTH];
        entropy::fill(&mut random);
        let data_key = DataKey::new(random);
        random.zeroize();
        let mut nonce = [0; NONCE_LENGTH];
        entropy::fill(&mut nonce);
        let context = sealing_context(bucket.id, key, &method);
        let sealed_key = sealer.seal(Purpose::DataKey, &context, data_key.expose(), nonce);
        let encryption = Box::new(Encryption { method, sealed_key });
        Ok(Some(NewEncryption { encryption, key: Arc::new(data_key) }))
    }

    fn chosen_method(
        &self,
        default: Option<DefaultEncryption>,
        wish: &EncryptionWish,
    ) -> Result<Option<(EncryptionMethod, ClusterKey)>, ObjectError> {
        let default_bucket_key = default.as_ref().is_some_and(|default| default.bucket_key);
        let (key_id, context, bucket_key) = match (wish, default.map(|default| default.method)) {
            (EncryptionWish::Customer(key), _) => {
                return Ok(Some((EncryptionMethod::Customer, ClusterKey::new(*key.0))));
            }
            (EncryptionWish::BucketDefault, None) => return Ok(None),
            (EncryptionWish::Managed, _) | (EncryptionWish::BucketDefault, Some(DefaultMethod::Managed)) => {
                let version = self.config.kms.version_to_seal(MANAGED_KEY_ID).map_err(refused)?;
                let sealer = self.key_version(MANAGED_KEY_ID, version);
                return Ok(Some((EncryptionMethod::Managed { version }, sealer)));
            }
            (EncryptionWish::Kms { key_id, context, bucket_key }, _) => {
                (key_id.clone(), context.clone(), bucket_key.unwrap_or(default_bucket_key))
            }
            (EncryptionWish::BucketDefault, Some(DefaultMethod::Kms { key_id })) => (key_id, None, default_bucket_key),
        };
        let key_id = key_id.unwrap_or_else(|| MANAGED_KEY_ID.to_owned());
        let version = self.config.kms.version_to_seal(key_name(&key_id)).map_err(refused)?;
        let sealer = self.key_version(key_name(&key_id), version);
        Ok(Some((EncryptionMethod::Kms { key_id, version, context, bucket_key }, sealer)))
    }

    /// The data key of stored bytes; none of plain ones.
    ///
    /// # Errors
    /// `Refused`: a customer's key that is missing, wrong or not asked for; a disabled key.
    pub(crate) fn data_key(
        &self,
        bucket: BucketId,
        key: &ObjectKey,
        attributes: &Attributes,
        customer: Option<&CustomerKey>,
    ) -> Result<Option<Arc<DataKey>>, ObjectError> {
        let Some(encryption) = attributes.encryption.as_deref() else {
            return match customer {
                None => Ok(None),
                Some(_) => Err(invalid_request("The encryption parameters are not applicable to this object.")),
            };
        };
        let sealer = match (&encryption.method, customer) {
            (EncryptionMethod::Customer, Some(customer)) => ClusterKey::new(*customer.0),
            (EncryptionMethod::Customer, None) => {
                return Err(invalid_request(
                    "The object was stored using a form of Server Side Encryption. The correct parameters must be \
                     provided to retrieve the object.",
                ));
            }
            (_, Some(_)) => {
                return Err(invalid_request("The encryption parameters are not applicable to this object."));
            }
            (EncryptionMethod::Managed { version }, None) => self.opener(MANAGED_KEY_ID, *version)?,
            (EncryptionMethod::Kms { key_id, version, .. }, None) => self.opener(key_name(key_id), *version)?,
        };
        let context = sealing_context(bucket, key, &encryption.method);
        let opened = sealer.open(Purpose::DataKey, &context, &encryption.sealed_key);
        let opened = opened.ok().and_then(|key| <[u8; DATA_KEY_LENGTH]>::try_from(&key[..]).ok());
        match (opened, &encryption.method) {
            (Some(key), _) => Ok(Some(Arc::new(DataKey::new(key)))),
            (None, EncryptionMethod::Customer) => {
                Err(ObjectError::Refused { code: "AccessDenied", message: "Access Denied".to_owned() })
            }
            (None, _) => {
                Err(ObjectError::Storage("an object's data key does not open under this cluster's key".to_owned()))
            }
        }
    }

    fn opener(&self, name: &str, version: u32) -> Result<ClusterKey, ObjectError> {
        self.config.kms.check_open(name).map_err(refused)?;
        Ok(self.key_version(name, version))
    }

    /// A version of a named key: derived, so that it is the same in every datacenter.
    fn key_version(&self, name: &str, version: u32) -> ClusterKey {
        let mut key = self.config.cluster_key.derive(Purpose::ObjectKey, &format!("{name}/{version}"));
        let sealer = ClusterKey::new(key);
        key.zeroize();
        sealer
    }
}

/// The name of a key in what clients write for it: `arn:aws:kms:REGION:ACCOUNT:key/NAME`, `…:alias/NAME` or the name alone.
fn key_name(id: &str) -> &str {
    let Some(rest) = id.strip_prefix("arn:") else { return id };
    let resource = rest.splitn(5, ':').last().unwrap_or(rest);
    resource.strip_prefix("key/").unwrap_or(resource)
}

/// What a data key is sealed for; a key holds no NUL, so that no two places have one context.
fn sealing_context(bucket: BucketId, key: &ObjectKey, method: &EncryptionMethod) -> String {
    let (method, context) = match method {
        EncryptionMethod::Managed { .. } => ("managed", None),
        EncryptionMethod::Kms { context, .. } => ("kms", context.as_deref()),
        EncryptionMethod::Customer => ("customer", None),
    };
    format!("{}\0{method}\0{}\0{key}", hex::encode(bucket.0), context.unwrap_or_default())
}

pub(crate) fn invalid_request(message: &str) -> ObjectError {
    ObjectError::Refused { code: "InvalidRequest", message: message.to_owned() }
}

fn refused(refusal: KmsRefusal) -> ObjectError {
    let message = refusal.to_string();
    match refusal {
        KmsRefusal::NotFound(_) => ObjectError::Refused { code: "KMS.NotFoundException", message },
        KmsRefusal::Disabled(_) => ObjectError::Refused { code: "KMS.DisabledException", message },
        KmsRefusal::Unavailable(_) => ObjectError::unavailable(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_itself_or_in_an_arn() {
        for (id, name) in [
            ("reports", "reports"),
            ("arn:aws:kms:dc-a:111122223333:key/reports", "reports"),
            ("arn:aws:kms:dc-a:1:alias/reports", "alias/reports"),
            ("alias/aws/s3", "alias/aws/s3"),
            ("arn:aws:kms:dc-a:1:key/a:b", "a:b"),
            ("arn:x", "x"),
        ] {
            assert_eq!(key_name(id), name);
        }
    }

    #[test]
    fn data_keys_are_sealed_for_one_place_and_one_method() {
        let key = |text: &str| text.parse::<ObjectKey>().unwrap();
        let kms = |context: Option<&str>| EncryptionMethod::Kms {
            key_id: "k".to_owned(),
            version: 1,
            context: context.map(str::to_owned),
            bucket_key: false,
        };
        let contexts = [
            sealing_context(BucketId([1; 16]), &key("a"), &EncryptionMethod::Customer),
            sealing_context(BucketId([2; 16]), &key("a"), &EncryptionMethod::Customer),
            sealing_context(BucketId([1; 16]), &key("b"), &EncryptionMethod::Customer),
            sealing_context(BucketId([1; 16]), &key("a"), &EncryptionMethod::Managed { version: 1 }),
            sealing_context(BucketId([1; 16]), &key("a"), &kms(None)),
            sealing_context(BucketId([1; 16]), &key("a"), &kms(Some("a"))),
        ];
        for (place, context) in contexts.iter().enumerate() {
            assert!(!contexts[..place].contains(context), "{context:?}");
        }
    }

    #[test]
    fn customer_keys_have_256_bits_and_are_not_shown() {
        assert!(CustomerKey::new(&[1; 31]).is_none() && CustomerKey::new(&[1; 33]).is_none());
        let wish = EncryptionWish::Customer(CustomerKey::new(&[65; 32]).unwrap());
        assert_eq!(format!("{wish:?}"), "Customer(CustomerKey(..))");
    }
}
