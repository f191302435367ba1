//! The durable form of an ETag: a hex MD5 takes 16 bytes instead of 32, in every row and log entry.
//!
//! ```text
//! 0 text | 1 md5 [u8; 16] | 2 md5 [u8; 16], parts u32
//! ```
//!
//! Invariants: every text comes back as it was; only lower-case hex without leading zeros in the part count is packed,
//! because packing anything else would change it. Human-readable serde formats keep the text.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const MD5_LENGTH: usize = 16;

/// Discriminants are on disk: never reuse one.
#[derive(Serialize, Deserialize)]
enum Packed<'a> {
    Text(Cow<'a, str>),
    Md5([u8; MD5_LENGTH]),
    Multipart([u8; MD5_LENGTH], u32),
}

fn pack(etag: &str) -> Packed<'_> {
    let (digits, parts) = match etag.split_once('-') {
        Some((digits, parts)) => (digits, Some(parts)),
        None => (etag, None),
    };
    let mut md5 = [0; MD5_LENGTH];
    if digits.bytes().any(|byte| byte.is_ascii_uppercase()) || hex::decode_to_slice(digits, &mut md5).is_err() {
        return Packed::Text(Cow::Borrowed(etag));
    }
    let Some(parts) = parts else { return Packed::Md5(md5) };
    let canonical = !parts.starts_with('0') && parts.bytes().all(|byte| byte.is_ascii_digit());
    match parts.parse() {
        Ok(count) if canonical => Packed::Multipart(md5, count),
        _ => Packed::Text(Cow::Borrowed(etag)),
    }
}

pub(crate) fn serialize<S: Serializer>(etag: &str, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() { etag.serialize(serializer) } else { pack(etag).serialize(serializer) }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    if deserializer.is_human_readable() {
        return String::deserialize(deserializer);
    }
    Ok(match Packed::deserialize(deserializer)? {
        Packed::Text(text) => text.into_owned(),
        Packed::Md5(md5) => hex::encode(md5),
        Packed::Multipart(md5, parts) => format!("{}-{parts}", hex::encode(md5)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::{Deserialize, Serialize, deserialize, pack, serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Holder(#[serde(serialize_with = "serialize", deserialize_with = "deserialize")] String);

    fn round_trip(text: &str) -> usize {
        let bytes = postcard::to_stdvec(&Holder(text.to_owned())).unwrap();
        assert_eq!(postcard::from_bytes::<Holder>(&bytes).unwrap().0, text);
        bytes.len()
    }

    #[test]
    fn md5_etags_are_packed_and_odd_texts_come_back_unchanged() {
        let md5 = "0123456789abcdef0123456789abcdef";
        assert_eq!(round_trip(md5), 17);
        assert_eq!(round_trip(&format!("{md5}-10000")), 19);
        for text in ["", "-", "x", &md5.to_uppercase(), &format!("{md5}-"), &format!("{md5}-01"), &format!("{md5}-+1")]
        {
            round_trip(text);
        }
        round_trip(&format!("{md5}-99999999999"));
        assert!(matches!(pack(&md5[..30]), super::Packed::Text(_)));
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in "([0-9a-f]{32}(-[0-9]{1,6})?)|.{0,40}") {
            let bytes = postcard::to_stdvec(&Holder(text.clone())).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Holder>(&bytes).unwrap().0, text);
        }
    }
}
