//! What a client sets on an object (headers, user metadata, tags), between the wire and `Attributes`.
//!
//! Invariants: what is stored is given back unchanged.

use std::collections::HashMap;

use http::StatusCode;
use meridian_object::Attributes;
use s3s::S3Result;
use s3s::dto::{Tag, Timestamp, TimestampFormat};

use crate::errors::{error, error_with_status, invalid_argument};
use crate::locks::{legal_hold, retention_of_headers};
use crate::wire_values::format_timestamp;

/// S3's type of objects that were given none.
pub(crate) const CONTENT_TYPE_DEFAULT: &str = "binary/octet-stream";
/// Most tags of an object (S3).
const TAGS_MAX: usize = 10;
/// Longest tag name and value, in characters (S3).
const TAG_NAME_LENGTH_MAX: usize = 128;
const TAG_VALUE_LENGTH_MAX: usize = 256;
/// Longest website redirect location, in bytes (S3).
const REDIRECT_LENGTH_MAX: usize = 2048;

/// The headers of a PutObject, CopyObject or CreateMultipartUpload, as s3s parsed them.
#[derive(Default)]
pub(crate) struct AttributeHeaders {
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
    pub content_disposition: Option<String>,
    pub content_encoding: Option<String>,
    pub content_language: Option<String>,
    pub expires: Option<Timestamp>,
    pub metadata: Option<HashMap<String, String>>,
    pub tagging: Option<String>,
    pub website_redirect: Option<String>,
    pub storage_class: Option<String>,
    pub lock_mode: Option<String>,
    pub lock_until: Option<Timestamp>,
    pub legal_hold: Option<String>,
}

impl AttributeHeaders {
    /// # Errors
    /// `InvalidTag`, `InvalidArgument` for a tagging header that does not parse.
    pub fn into_attributes(self) -> S3Result<Attributes> {
        let mut user_metadata: Vec<(String, String)> = self.metadata.unwrap_or_default().into_iter().collect();
        user_metadata.sort(); // the map's order is random, and rows must not be
        Ok(Attributes {
            content_type: self.content_type,
            cache_control: self.cache_control,
            content_disposition: self.content_disposition,
            content_encoding: self.content_encoding.and_then(|encoding| stored_encoding(&encoding)),
            content_language: self.content_language,
            expires: self.expires.and_then(|expires| format_timestamp(&expires, TimestampFormat::HttpDate)),
            user_metadata,
            tags: self.tagging.map_or(Ok(Vec::new()), |tagging| parse_tagging(&tagging))?,
            website_redirect: self.website_redirect.map(checked_redirect).transpose()?,
            storage_class: self.storage_class.map(checked_storage_class).transpose()?.flatten(),
            retention: retention_of_headers(self.lock_mode.as_deref(), self.lock_until.as_ref())?,
            legal_hold: self.legal_hold.as_deref().map(legal_hold).transpose()?,
            ..Attributes::default()
        })
    }
}

/// `aws-chunked` is how the body travels, not what it is.
fn stored_encoding(header: &str) -> Option<String> {
    let kept: Vec<&str> = header
        .split(',')
        .map(str::trim)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    if kept.is_empty() { None } else { Some(kept.join(",")) }
}

/// `x-amz-tagging: a=b&c=d`, URL-encoded.
fn parse_tagging(header: &str) -> S3Result<Vec<(String, String)>> {
    let mut tags = Vec::new();
    for pair in header.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded =
            |text: &str| url_decode(text).ok_or_else(|| invalid_argument("x-amz-tagging", "is not URL-encoded"));
        tags.push((decoded(name)?, decoded(value)?));
    }
    let is_repeated = |(at, (name, _)): (usize, &(String, String))| tags[..at].iter().any(|(other, _)| other == name);
    if tags.iter().enumerate().any(is_repeated) {
        let text = "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without \
                    tag name duplicates.";
        return Err(error(s3s::S3ErrorCode::InvalidArgument, text));
    }
    check_tags(&tags)?;
    Ok(tags)
}

/// # Errors
/// `InvalidTag`, `BadRequest` for too many.
pub(crate) fn check_tags(tags: &[(String, String)]) -> S3Result<()> {
    let invalid = |message: &str| Err(error(s3s::S3ErrorCode::InvalidTag, message));
    if tags.len() > TAGS_MAX {
        return Err(error_with_status("BadRequest", StatusCode::BAD_REQUEST, "Object tags cannot be greater than 10"));
    }
    for (index, (name, value)) in tags.iter().enumerate() {
        if name.is_empty() || name.chars().count() > TAG_NAME_LENGTH_MAX || !name.chars().all(is_tag_char) {
            return invalid("The TagKey you have provided is invalid");
        }
        if value.chars().count() > TAG_VALUE_LENGTH_MAX || !value.chars().all(is_tag_char) {
            return invalid("The TagValue you have provided is invalid");
        }
        if name.starts_with("aws:") {
            return invalid("System tags cannot be added/updated by requester");
        }
        if tags[..index].iter().any(|(other, _)| other == name) {
            return invalid("Cannot provide multiple Tags with the same key");
        }
    }
    Ok(())
}

/// Letters, digits and spaces of any script, and a few signs (S3).
fn is_tag_char(char: char) -> bool {
    char.is_alphanumeric() || char.is_whitespace() || "+-=._:/@".contains(char)
}

pub(crate) fn url_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digit = |byte: &u8| (*byte as char).to_digit(16);
                bytes.push((digit(high)? * 16 + digit(low)?) as u8);
                tail
            }
            (b'%', _) => return None,
            (b'+', tail) => {
                bytes.push(b' ');
                tail
            }
            (byte, tail) => {
                bytes.push(*byte);
                tail
            }
        };
    }
    String::from_utf8(bytes).ok()
}

/// The stored expiry as s3s writes it.
pub(crate) fn expires(attributes: &Attributes) -> Option<Timestamp> {
    Timestamp::parse(TimestampFormat::HttpDate, attributes.expires.as_deref()?).ok()
}

pub(crate) fn metadata(attributes: &Attributes) -> Option<HashMap<String, String>> {
    let pairs = &attributes.user_metadata;
    (!pairs.is_empty()).then(|| pairs.iter().cloned().collect())
}

pub(crate) fn tag_set(attributes: &Attributes) -> Vec<Tag> {
    let tag = |(name, value): &(String, String)| Tag { key: Some(name.clone()), value: Some(value.clone()) };
    attributes.tags.iter().map(tag).collect()
}

/// S3's storage classes. All objects are stored alike; the class is told back.
const STORAGE_CLASSES: [&str; 8] = [
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER",
    "DEEP_ARCHIVE",
    "GLACIER_IR",
];

/// `None` for the class that is not told.
fn checked_storage_class(class: String) -> S3Result<Option<String>> {
    if !STORAGE_CLASSES.contains(&class.as_str()) {
        return Err(error(s3s::S3ErrorCode::InvalidStorageClass, "The storage class you specified is not valid"));
    }
    Ok((class != "STANDARD").then_some(class))
}

/// The class of objects that name none.
pub(crate) const STANDARD: &str = "STANDARD";

/// The class as listings tell it.
pub(crate) fn storage_class(attributes: &Attributes) -> &str {
    attributes.storage_class.as_deref().unwrap_or(STANDARD)
}

fn checked_redirect(location: String) -> S3Result<String> {
    let starts = ["/", "http://", "https://"];
    if starts.iter().any(|start| location.starts_with(start)) && location.len() <= REDIRECT_LENGTH_MAX {
        return Ok(location);
    }
    let text = "The website redirect location must have a prefix of 'http://' or 'https://' or '/'.";
    Err(error_with_status("InvalidRedirectLocation", StatusCode::BAD_REQUEST, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(header: &str) -> S3Result<Vec<(String, String)>> {
        let headers = AttributeHeaders { tagging: Some(header.to_owned()), ..Default::default() };
        headers.into_attributes().map(|attributes| attributes.tags)
    }

    #[test]
    fn aws_chunked_is_not_stored() {
        for (header, stored) in [
            ("aws-chunked", None),
            ("gzip,aws-chunked", Some("gzip")),
            ("AWS-Chunked, br", Some("br")),
            ("gzip", Some("gzip")),
        ] {
            let headers = AttributeHeaders { content_encoding: Some(header.to_owned()), ..Default::default() };
            assert_eq!(headers.into_attributes().unwrap().content_encoding.as_deref(), stored);
        }
    }

    #[test]
    fn metadata_and_expiry_come_back_as_they_went() {
        let pairs = [("b", "2"), ("a", "1 é")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let expires_at = Timestamp::parse(TimestampFormat::HttpDate, "Sun, 30 Aug 2015 12:36:00 GMT").unwrap();
        let headers = AttributeHeaders {
            metadata: Some(pairs.clone().into_iter().collect()),
            expires: Some(expires_at.clone()),
            ..Default::default()
        };
        let attributes = headers.into_attributes().unwrap();
        assert_eq!(attributes.user_metadata[0].0, "a", "stored in order");
        assert_eq!(metadata(&attributes).unwrap(), pairs.into_iter().collect());
        assert_eq!(expires(&attributes), Some(expires_at));
        assert_eq!(metadata(&Attributes::default()), None);
    }

    #[test]
    fn tagging_headers_are_decoded_and_checked() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(tags("a=b&c=d%2B+e&f").unwrap(), [pair("a", "b"), pair("c", "d+ e"), pair("f", "")]);
        assert_eq!(tags("").unwrap(), []);
        let many: Vec<String> = (0..11).map(|n| format!("k{n}=v")).collect();
        for bad in [
            "a=1&a=2",
            "=b",
            "a=b%26",
            "aws:a=b",
            "a=%zz",
            "a=%ff",
            "a=%2",
            &format!("{}=v", "k".repeat(129)),
            &many.join("&"),
        ] {
            assert!(tags(bad).is_err(), "{bad:?}");
        }
        assert_eq!(tag_set(&Attributes { tags: vec![pair("a", "b")], ..Default::default() }).len(), 1);
    }

    #[test]
    fn classes_and_redirects_are_those_of_s3() {
        let class = |class: &str| checked_storage_class(class.to_owned());
        assert_eq!((class("STANDARD").unwrap(), class("GLACIER").unwrap().as_deref()), (None, Some("GLACIER")));
        assert_eq!(class("COLD").unwrap_err().code().as_str(), "InvalidStorageClass");
        assert!(checked_redirect("/a".to_owned()).is_ok() && checked_redirect("https://a/b".to_owned()).is_ok());
        assert_eq!(checked_redirect("a".to_owned()).unwrap_err().code().as_str(), "InvalidRedirectLocation");
    }
}
