//! Parts of a bucket's configuration as texts: S3's own XML, which is what the catalog keeps of them.
//!
//! Invariants: what was written comes back as it was.

use s3s::xml::{Deserialize, Deserializer, Serialize, Serializer};
use s3s::{S3ErrorCode, S3Result};

use crate::errors::error;

/// # Errors
/// `InternalError` for a value that has no XML form: a bug.
pub(crate) fn to_text<T: Serialize>(value: &T) -> S3Result<String> {
    let mut bytes = Vec::new();
    let written = value.serialize(&mut Serializer::new(&mut bytes));
    let text = written.ok().and_then(|()| String::from_utf8(bytes).ok());
    text.ok_or_else(|| error(S3ErrorCode::InternalError, "We encountered an internal error. Please try again."))
}

/// # Errors
/// `MalformedXML` for what is no such document.
pub(crate) fn from_text<T: for<'xml> Deserialize<'xml>>(text: &str) -> S3Result<T> {
    T::deserialize(&mut Deserializer::new(text.as_bytes())).map_err(|_| {
        let text = "The XML you provided was not well-formed or did not validate against our published schema";
        error(S3ErrorCode::MalformedXML, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use s3s::dto;

    #[test]
    fn a_document_comes_back_as_it_was() {
        let rule = dto::CORSRule {
            allowed_headers: Some(vec!["x-*".to_owned()]),
            allowed_methods: vec!["GET".to_owned(), "PUT".to_owned()],
            allowed_origins: vec!["https://*.example.com".to_owned()],
            expose_headers: None,
            id: Some("one & two".to_owned()),
            max_age_seconds: Some(60),
        };
        let cors = dto::CORSConfiguration { cors_rules: vec![rule] };
        let text = to_text(&cors).unwrap();
        assert_eq!(from_text::<dto::CORSConfiguration>(&text).unwrap(), cors, "{text}");
        assert_eq!(from_text::<dto::CORSConfiguration>("<a/>").unwrap_err().code().as_str(), "MalformedXML");
    }
}
