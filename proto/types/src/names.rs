//! Names that were checked when they were parsed: buckets, keys, datacenters, nodes.
//!
//! Bucket names follow the S3 rules (docs.aws.amazon.com, "Bucket naming rules"). Keys are UTF-8 of 1 to 1024
//! bytes, literal (`../x`, `//` and `a/./b` are three different keys) and without NUL, because NUL ends a key
//! in the object index's rows.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::OBJECT_KEY_LENGTH_MAX;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error(
        "bucket name {0:?}: 3 to 63 of a-z 0-9 . - , starting and ending with a letter or digit, and no IP address"
    )]
    Bucket(String),
    #[error("a key must not be empty")]
    KeyEmpty,
    #[error("a key has at most 1024 bytes of UTF-8, this one {0}")]
    KeyTooLong(usize),
    #[error("a key must not contain a NUL byte")]
    KeyWithNul,
    #[error("{kind} name {name:?}: 1 to 63 of a-z 0-9 - , starting and ending with a letter or digit")]
    Label { kind: &'static str, name: String },
}

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> Result<(), NameError> = $check;
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

text_name!(
    /// The name of a bucket, as S3 allows it.
    BucketName,
    check_bucket
);
text_name!(
    /// The key of an object: 1 to 1024 bytes of UTF-8 without NUL.
    ObjectKey,
    check_key
);
text_name!(
    /// The name of a datacenter, which is its S3 region too.
    DatacenterName,
    |text| check_label("datacenter", text)
);
text_name!(
    /// The name of a node, unique in the cluster.
    NodeName,
    |text| check_label("node", text)
);

fn check_bucket(text: &str) -> Result<(), NameError> {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
    let valid = (3..=63).contains(&bytes.len())
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(inner)
        && !text.contains("..")
        && text.parse::<std::net::Ipv4Addr>().is_err();
    if valid { Ok(()) } else { Err(NameError::Bucket(text.chars().take(80).collect())) }
}

fn check_key(text: &str) -> Result<(), NameError> {
    match text.len() {
        0 => Err(NameError::KeyEmpty),
        length if length > OBJECT_KEY_LENGTH_MAX => Err(NameError::KeyTooLong(length)),
        _ if text.contains('\0') => Err(NameError::KeyWithNul),
        _ => Ok(()),
    }
}

fn check_label(kind: &'static str, text: &str) -> Result<(), NameError> {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let valid = (1..=63).contains(&bytes.len())
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if valid { Ok(()) } else { Err(NameError::Label { kind, name: text.chars().take(80).collect() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names_follow_the_s3_rules() {
        for good in ["abc", "a-b.c", "0ab", "a".repeat(63).as_str()] {
            assert!(good.parse::<BucketName>().is_ok(), "{good}");
        }
        for bad in ["A", "..", "ab", "1.2.3.4", "-ab", "ab-", "a..b", "a_b", "Abc", "a".repeat(64).as_str(), ""] {
            assert!(bad.parse::<BucketName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_literal() {
        for good in ["../x", "//", "a/./b", " ", "é+%00", "a".repeat(1024).as_str()] {
            assert_eq!(good.parse::<ObjectKey>().unwrap().as_str(), good);
        }
        assert_eq!("".parse::<ObjectKey>(), Err(NameError::KeyEmpty));
        assert_eq!("a".repeat(1025).parse::<ObjectKey>(), Err(NameError::KeyTooLong(1025)));
        assert_eq!("a\0b".parse::<ObjectKey>(), Err(NameError::KeyWithNul));
    }

    #[test]
    fn a_stored_name_is_checked_again_when_read() {
        let bytes = postcard::to_stdvec("NOT A BUCKET").unwrap();
        assert!(postcard::from_bytes::<BucketName>(&bytes).is_err());
    }
}
