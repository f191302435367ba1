//! A bucket's default encryption, in the form in which its row keeps it.
//!
//! ```text
//! AES256 | aws:kms, then perhaps " bucket-key", then perhaps " key=" and the key's id
//! ```
//!
//! Every way to write an object asks it, not S3's gateway alone; so it is kept in a form that needs no XML.
//!
//! Invariants: a text that can't be read is damage: nothing is stored plain because of it.

use meridian_index::{BucketRow, DocumentKind};

use crate::ObjectError;

const MANAGED: &str = "AES256";
const KMS: &str = "aws:kms";
const BUCKET_KEY: &str = " bucket-key";
const KEY_ID: &str = " key=";

/// What is done with objects of which nothing else is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultEncryption {
    pub method: DefaultMethod,
    /// Told back to clients.
    pub bucket_key: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefaultMethod {
    /// SSE-S3.
    Managed,
    /// SSE-KMS, under the store's own key where none is named.
    Kms { key_id: Option<String> },
}

impl DefaultEncryption {
    /// The default of a bucket, if it has one.
    ///
    /// # Errors
    /// `Storage` when the row's text can't be read.
    pub fn of(bucket: &BucketRow) -> Result<Option<Self>, ObjectError> {
        let Some(text) = bucket.settings.document(DocumentKind::Encryption) else { return Ok(None) };
        let unreadable = || ObjectError::Storage(format!("bucket {} has an unknown default encryption", bucket.name));
        Self::from_text(text).map(Some).ok_or_else(unreadable)
    }

    pub fn to_text(&self) -> String {
        let (method, key_id) = match &self.method {
            DefaultMethod::Managed => (MANAGED, None),
            DefaultMethod::Kms { key_id } => (KMS, key_id.as_ref()),
        };
        let bucket_key = if self.bucket_key { BUCKET_KEY } else { "" };
        let key_id = key_id.map_or_else(String::new, |id| format!("{KEY_ID}{id}"));
        format!("{method}{bucket_key}{key_id}")
    }

    pub fn from_text(text: &str) -> Option<Self> {
        let (is_kms, rest) = match text.strip_prefix(KMS) {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix(MANAGED)?),
        };
        let (bucket_key, rest) = match rest.strip_prefix(BUCKET_KEY) {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let method = match (is_kms, rest.strip_prefix(KEY_ID)) {
            (true, Some(id)) if !id.is_empty() => DefaultMethod::Kms { key_id: Some(id.to_owned()) },
            (true, None) if rest.is_empty() => DefaultMethod::Kms { key_id: None },
            (false, None) if rest.is_empty() => DefaultMethod::Managed,
            _ => return None,
        };
        Some(Self { method, bucket_key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_comes_back_from_its_text() {
        let kms = |key_id: Option<&str>| DefaultMethod::Kms { key_id: key_id.map(str::to_owned) };
        let key_id = Some("arn:aws:kms:dc-a:1:key/a b");
        for method in [DefaultMethod::Managed, kms(None), kms(key_id)] {
            for bucket_key in [false, true] {
                let default = DefaultEncryption { method: method.clone(), bucket_key };
                assert_eq!(DefaultEncryption::from_text(&default.to_text()), Some(default));
            }
        }
        let named = DefaultEncryption { method: kms(Some("reports")), bucket_key: true };
        assert_eq!(named.to_text(), "aws:kms bucket-key key=reports", "a form in rows: it never changes");
    }

    #[test]
    fn what_is_no_default_is_none() {
        for text in ["", "AES256 ", "AES256 key=a", "aws:kms key=", "aws:kms:dsse", "<Rule/>", "AES128"] {
            assert_eq!(DefaultEncryption::from_text(text), None, "{text:?}");
        }
    }
}
