//! What the fields of a form say of its object, in the words of a PUT: as headers for those who decide and encrypt, as
//! attributes for the object.
//!
//! Invariants: fields that sign the form say nothing of the object.

use std::collections::HashMap;

use http::header::{HOST, REFERER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use meridian_object::Attributes;
use s3s::S3Result;
use s3s::dto::{self, Timestamp, TimestampFormat};

use crate::attributes::{AttributeHeaders, check_tags};
use crate::bucket_documents::malformed;
use crate::document_xml::from_text;
use crate::errors::invalid_argument;
use crate::form::reading::Form;
use crate::wire_values::url_encode;

const METADATA: &str = "x-amz-meta-";
const SYSTEM: [&str; 5] =
    ["content-type", "cache-control", "content-disposition", "content-encoding", "content-language"];
const SIGNING: [&str; 5] =
    ["x-amz-signature", "x-amz-credential", "x-amz-algorithm", "x-amz-date", "x-amz-security-token"];

/// The headers of a PUT that says the same; those that tell of the client come from the request.
///
/// # Errors
/// `InvalidArgument` for a value that no header can have.
pub(super) fn headers(form: &Form, request: &HeaderMap) -> S3Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for name in [HOST, USER_AGENT, REFERER] {
        if let Some(value) = request.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    for (name, value) in &form.fields {
        let (header, value) = match name.as_str() {
            "acl" => ("x-amz-acl", value.clone()),
            "tagging" => ("x-amz-tagging", tagging_text(&tags_of(value)?)),
            name if SIGNING.contains(&name) || !name.starts_with("x-amz-") => continue,
            name => (name, value.clone()),
        };
        let odd = || invalid_argument(name, "is no value of a header");
        let header = HeaderName::try_from(header).map_err(|_| odd())?;
        headers.append(header, HeaderValue::from_bytes(value.as_bytes()).map_err(|_| odd())?);
    }
    Ok(headers)
}

/// # Errors
/// Those of a PUT's headers; `MalformedXML` for tags.
pub(super) fn attributes(form: &Form) -> S3Result<Attributes> {
    // They come back as headers.
    let is_odd = |(name, value): &&(String, String)| {
        SYSTEM.contains(&name.as_str()) && HeaderValue::from_bytes(value.as_bytes()).is_err()
    };
    if let Some((name, _)) = form.fields.iter().find(is_odd) {
        return Err(invalid_argument(name, "is no value of a header"));
    }
    let field = |name: &str| form.field(name).map(str::to_owned);
    let date = |name: &str, format| {
        let odd = || invalid_argument(name, "is no date");
        form.field(name).map(|text| Timestamp::parse(format, text).map_err(|_| odd())).transpose()
    };
    let metadata: HashMap<String, String> = form
        .fields
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(METADATA)?.to_owned(), value.clone())))
        .collect();
    let headers = AttributeHeaders {
        content_type: field("content-type"),
        cache_control: field("cache-control"),
        content_disposition: field("content-disposition"),
        content_encoding: field("content-encoding"),
        content_language: field("content-language"),
        expires: date("expires", TimestampFormat::HttpDate)?,
        metadata: Some(metadata),
        tagging: None,
        website_redirect: field("x-amz-website-redirect-location"),
        storage_class: field("x-amz-storage-class"),
        lock_mode: field("x-amz-object-lock-mode"),
        lock_until: date("x-amz-object-lock-retain-until-date", TimestampFormat::DateTime)?,
        legal_hold: field("x-amz-object-lock-legal-hold"),
    };
    let mut attributes = headers.into_attributes()?;
    if let Some(tagging) = form.field("tagging") {
        attributes.tags = tags_of(tagging)?;
    }
    Ok(attributes)
}

/// A form's tags come as XML, unlike those of a PUT.
fn tags_of(xml: &str) -> S3Result<Vec<(String, String)>> {
    let tagging: dto::Tagging = from_text(xml)?;
    let pair = |tag: dto::Tag| Some((tag.key?, tag.value?));
    let tags: Option<Vec<_>> = tagging.tag_set.into_iter().map(pair).collect();
    let tags = tags.ok_or_else(malformed)?;
    check_tags(&tags)?;
    Ok(tags)
}

fn tagging_text(tags: &[(String, String)]) -> String {
    let pairs: Vec<String> =
        tags.iter().map(|(name, value)| format!("{}={}", url_encode(name), url_encode(value))).collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};

    use super::*;

    fn form(fields: &[(&str, &str)]) -> Form {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Form { fields, file_name: String::new(), file: stream::empty().boxed() }
    }

    const TAGS: &str = "<Tagging><TagSet><Tag><Key>a b</Key><Value>1+2</Value></Tag></TagSet></Tagging>";

    #[test]
    fn fields_say_what_headers_say() {
        let form = form(&[
            ("key", "k"),
            ("acl", "public-read"),
            ("tagging", TAGS),
            ("content-type", "text/plain"),
            ("expires", "Sun, 30 Aug 2015 12:36:00 GMT"),
            ("x-amz-meta-colour", "blau é"),
            ("x-amz-storage-class", "GLACIER"),
            ("x-amz-server-side-encryption", "AES256"),
            ("x-amz-date", "20151229T000000Z"),
            ("x-amz-signature", "00"),
        ]);
        let request: HeaderMap = [(USER_AGENT, HeaderValue::from_static("browser"))].into_iter().collect();
        let headers = headers(&form, &request).unwrap();
        let value = |name: &str| headers.get(name).map(|value| value.as_bytes());
        assert_eq!(value("x-amz-acl"), Some(b"public-read".as_slice()));
        assert_eq!(value("x-amz-tagging"), Some(b"a%20b=1%2B2".as_slice()));
        assert_eq!(value("x-amz-server-side-encryption"), Some(b"AES256".as_slice()));
        assert_eq!(
            (value("user-agent"), value("x-amz-signature"), value("x-amz-date")),
            (Some(b"browser".as_slice()), None, None)
        );
        let attributes = attributes(&form).unwrap();
        assert_eq!(attributes.tags, [("a b".to_owned(), "1+2".to_owned())]);
        assert_eq!(attributes.user_metadata, [("colour".to_owned(), "blau é".to_owned())]);
        assert_eq!(
            (attributes.content_type.as_deref(), attributes.storage_class.as_deref()),
            (Some("text/plain"), Some("GLACIER"))
        );
        assert_eq!(attributes.expires.as_deref(), Some("Sun, 30 Aug 2015 12:36:00 GMT"));
    }

    #[test]
    fn what_can_t_be_meant_is_refused() {
        let refusal = |fields: &[(&str, &str)]| {
            let form = form(fields);
            let refused = headers(&form, &HeaderMap::new()).map(drop).and_then(|()| attributes(&form).map(drop));
            refused.unwrap_err().code().as_str().to_owned()
        };
        assert_eq!(refusal(&[("tagging", "a=b")]), "MalformedXML");
        assert_eq!(refusal(&[("x-amz-meta-a", "two\r\nlines")]), "InvalidArgument");
        assert_eq!(refusal(&[("content-type", "two\nlines")]), "InvalidArgument");
        assert_eq!(refusal(&[("x-amz-object-lock-retain-until-date", "soon")]), "InvalidArgument");
        assert_eq!(refusal(&[("x-amz-storage-class", "COLD")]), "InvalidStorageClass");
    }
}
