//! The part of an object's row that listings tell, read without the rest.
//!
//! A page of a thousand keys reads more than a thousand rows, and decoding them whole is most of its cost. So this mirrors
//! the durable form of `ObjectVersion` up to the last field that is told: what is not told is passed over in place, and no
//! field behind it is looked at.
//!
//! Invariants: the whole row's checksum is checked all the same; the layout is that of `rows` (a property test compares the
//! two for any row).

use std::fmt;
use std::marker::PhantomData;

use meridian_types::{ObjectKey, RecordError, Stamp, decode_front};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::attributes::Retention;
use crate::encryption::Encryption;
use crate::rows::{ChecksumAlgorithm, ChunkRef, ObjectVersion, Row, VersionId};

/// An object as a listing tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    pub key: ObjectKey,
    pub stamp: Stamp,
    /// Bytes.
    pub size: u64,
    /// Hex MD5, or `md5-n` of a multipart object; no quotes.
    pub etag: String,
    pub content_type: Option<String>,
    /// `None` is STANDARD.
    pub storage_class: Option<String>,
    /// The account that wrote it, where it is not the bucket's owner.
    pub owner: Option<String>,
    pub checksums: Vec<ListedChecksum>,
}

/// A checksum without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedChecksum {
    pub algorithm: ChecksumAlgorithm,
    /// A checksum of the parts' checksums rather than of the whole object.
    pub composite: bool,
}

/// The front of a row.
#[derive(Deserialize)]
pub(crate) struct ListedVersion<'r> {
    pub(crate) stamp: Stamp,
    _version: VersionId,
    #[serde(borrow)]
    pub(crate) kind: ListedKind<'r>,
}

/// The variants of `VersionKind`, in its order.
#[expect(clippy::large_enum_variant, reason = "it lives for one row, and most rows are objects")]
#[derive(Deserialize)]
pub(crate) enum ListedKind<'r> {
    Object(#[serde(borrow)] Body<'r>),
    DeleteMarker,
    Tombstone,
}

/// The fields of `ObjectBody` up to its checksums.
#[derive(Deserialize)]
pub(crate) struct Body<'r> {
    size: u64,
    #[serde(with = "crate::etag")]
    etag: String,
    #[serde(borrow)]
    attributes: Told<'r>,
    _chunks: Passed<ChunkRef>,
    #[serde(borrow)]
    _parts: Passed<(u16, u64, Option<&'r [u8]>)>,
    #[serde(borrow)]
    checksums: Vec<(ChecksumAlgorithm, &'r [u8], bool)>,
}

/// The fields of `Attributes`.
#[derive(Deserialize)]
struct Told<'r> {
    content_type: Option<&'r str>,
    _cache_control: Option<&'r str>,
    _content_disposition: Option<&'r str>,
    _content_encoding: Option<&'r str>,
    _content_language: Option<&'r str>,
    _expires: Option<&'r str>,
    #[serde(borrow)]
    _user_metadata: Passed<(&'r str, &'r str)>,
    #[serde(borrow)]
    _tags: Passed<(&'r str, &'r str)>,
    _website_redirect: Option<&'r str>,
    storage_class: Option<&'r str>,
    owner: Option<&'r str>,
    _acl: Option<&'r str>,
    _retention: Option<Retention>,
    _legal_hold: Option<bool>,
    _encryption: Option<Box<Encryption>>,
}

/// A list that is read over.
struct Passed<T>(PhantomData<T>);

impl<'r, T: Deserialize<'r>> Deserialize<'r> for Passed<T> {
    fn deserialize<D: Deserializer<'r>>(deserializer: D) -> Result<Self, D::Error> {
        struct Over<T>(PhantomData<T>);
        impl<'r, T: Deserialize<'r>> Visitor<'r> for Over<T> {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'r>>(self, mut list: A) -> Result<(), A::Error> {
                while list.next_element::<T>()?.is_some() {}
                Ok(())
            }
        }
        deserializer.deserialize_seq(Over(PhantomData::<T>))?;
        Ok(Self(PhantomData))
    }
}

impl<'r> ListedVersion<'r> {
    pub(crate) fn from_row(row: &'r [u8]) -> Result<Self, RecordError> {
        decode_front(ObjectVersion::KIND, ObjectVersion::VERSION, row)
    }
}

impl Body<'_> {
    pub(crate) fn told(self, key: ObjectKey, stamp: Stamp) -> ListedObject {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let checksums = self.checksums.into_iter();
        ListedObject {
            key,
            stamp,
            size: self.size,
            etag: self.etag,
            content_type: owned(self.attributes.content_type),
            storage_class: owned(self.attributes.storage_class),
            owner: owned(self.attributes.owner),
            checksums: checksums.map(|(algorithm, _, composite)| ListedChecksum { algorithm, composite }).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
