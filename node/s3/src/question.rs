//! What policies may ask about a request: the values of its condition keys.
//!
//! Invariants: a key that the request does not carry stays absent; nothing here is believed about who asks.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/amazon-s3-policy-keys.html>

use std::net::IpAddr;

use http::header::{AUTHORIZATION, REFERER, USER_AGENT};
use http::{HeaderMap, Uri};
use meridian_policy::Context;
use s3s::dto;

use crate::attributes::url_decode;
use crate::config::Principal;
use crate::document_xml::from_text;
use crate::sse::{CUSTOMER_KEY, SOURCE_KEY};

/// A request as policies see it.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub operation: &'a str,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    pub peer: Option<IpAddr>,
    /// Whether it came over TLS that ends here.
    pub secure: bool,
    pub now_unix_ms: u64,
    /// The XML body, where there is one.
    pub body: Option<&'a [u8]>,
    pub principal: Option<&'a Principal>,
}

impl Asked<'_> {
    /// The first value of a query parameter, decoded.
    pub fn query(&self, wanted: &str) -> Option<String> {
        let pairs = self.uri.query().unwrap_or_default().split('&');
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.into_iter().find(|(name, _)| *name == wanted).and_then(|(_, value)| url_decode(value))
    }

    pub fn version(&self) -> Option<String> {
        self.query("versionId").filter(|version| !version.is_empty())
    }

    pub fn context(&self) -> Context {
        let mut context = Context::new();
        self.add_caller(&mut context);
        self.add_environment(&mut context);
        for (parameter, key) in [
            ("prefix", "s3:prefix"),
            ("delimiter", "s3:delimiter"),
            ("max-keys", "s3:max-keys"),
            ("versionId", "s3:VersionId"),
        ] {
            if let Some(value) = self.query(parameter) {
                context.add(key, value);
            }
        }
        for (name, value) in self.headers {
            let (name, Ok(value)) = (name.as_str(), value.to_str()) else { continue };
            let is_secret = name == CUSTOMER_KEY || name == SOURCE_KEY;
            if !name.starts_with("x-amz-") || is_secret || matches!(name, "x-amz-security-token" | "x-amz-tagging") {
                continue;
            }
            let value = match name {
                "x-amz-copy-source" => url_decode(value.trim_start_matches('/')).unwrap_or_else(|| value.to_owned()),
                _ => value.to_owned(),
            };
            if let Some(lock) = name.strip_prefix("x-amz-object-lock-") {
                context.add(&format!("s3:object-lock-{lock}"), value.clone());
            }
            context.add(&format!("s3:{name}"), value);
        }
        for (name, value) in self.request_tags() {
            context.add(&format!("s3:RequestObjectTag/{name}"), value.clone());
            context.add(&format!("aws:RequestTag/{name}"), value);
            context.add("s3:RequestObjectTagKeys", name.clone());
            context.add("aws:TagKeys", name);
        }
        context
    }

    fn add_caller(&self, context: &mut Context) {
        let Some(identity) = self.principal.map(|principal| &principal.identity) else {
            context.add("aws:PrincipalType", "Anonymous");
            context.add("aws:userid", "anonymous");
            return;
        };
        let (kind, resource) = match (identity.is_account(), &identity.role_session) {
            (true, _) => ("Account", format!("user/{}", identity.name)),
            (false, None) if identity.path.is_empty() => ("User", format!("user/{}", identity.name)),
            (false, None) => ("User", format!("user{}{}", identity.path, identity.name)),
            // The role and not its session (IAM).
            (false, Some(_)) => ("AssumedRole", format!("role{}{}", identity.path, identity.name)),
        };
        context.add("aws:PrincipalType", kind);
        if identity.role_session.is_none() {
            context.add("aws:username", identity.name.clone());
        }
        for (key, value) in &identity.tags {
            context.add(&format!("aws:PrincipalTag/{key}"), value.clone());
        }
        context.add("aws:userid", identity.id.clone());
        context.add("aws:PrincipalAccount", identity.account.clone());
        context.add("aws:PrincipalArn", format!("arn:aws:iam::{}:{resource}", identity.account));
    }

    fn add_environment(&self, context: &mut Context) {
        context.add("aws:SecureTransport", self.secure.to_string());
        if let Some(peer) = self.peer {
            context.add("aws:SourceIp", peer.to_canonical().to_string());
        }
        for (header, key) in [(USER_AGENT, "aws:UserAgent"), (REFERER, "aws:Referer")] {
            if let Some(value) = self.headers.get(header).and_then(|value| value.to_str().ok()) {
                context.add(key, value);
            }
        }
        let seconds = self.now_unix_ms / 1000;
        context.add("aws:EpochTime", seconds.to_string());
        context.add("aws:CurrentTime", seconds.to_string());
        let authorization = self.headers.contains_key(AUTHORIZATION);
        let is_form = self.operation == "PostObject";
        if authorization || is_form || self.query("X-Amz-Signature").is_some() {
            let kind = if is_form { "POST" } else { "REST-QUERY-STRING" };
            context.add("s3:authType", if authorization { "REST-HEADER" } else { kind });
            context.add("s3:signatureversion", "AWS4-HMAC-SHA256");
        }
    }

    fn request_tags(&self) -> Vec<(String, String)> {
        if self.operation == "PutObjectTagging" {
            let body = self.body.and_then(|body| std::str::from_utf8(body).ok());
            let tagging: Option<dto::Tagging> = body.and_then(|body| from_text(body).ok());
            let tags = tagging.map(|tagging| tagging.tag_set).unwrap_or_default();
            return tags.into_iter().filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default()))).collect();
        }
        let header = self.headers.get("x-amz-tagging").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let pairs = header.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.filter_map(|(name, value)| Some((url_decode(name)?, url_decode(value)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::principal;
    use http::HeaderValue;

    #[test]
    fn what_a_request_carries_is_told_and_nothing_else() {
        let headers: HeaderMap = [
            ("x-amz-acl", "public-read"),
            ("x-amz-copy-source", "/photos/a%20b"),
            ("x-amz-tagging", "color=red&a%20b=c"),
            ("referer", "http://example.com/x"),
            ("authorization", "AWS4-HMAC-SHA256 …"),
        ]
        .into_iter()
        .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap()))
        .collect();
        let uri = Uri::from_static("/b?prefix=home%2Fann&max-keys=5&delimiter=");
        let ann = principal("ann", false);
        let asked = Asked {
            operation: "PutObject",
            uri: &uri,
            headers: &headers,
            peer: Some("::ffff:10.1.2.3".parse().unwrap()),
            secure: true,
            now_unix_ms: 5000,
            body: None,
            principal: Some(&ann),
        };
        let context = asked.context();
        for (key, expected) in [
            ("s3:prefix", "home/ann"),
            ("s3:max-keys", "5"),
            ("s3:delimiter", ""),
            ("s3:x-amz-acl", "public-read"),
            ("s3:x-amz-copy-source", "photos/a b"),
            ("s3:RequestObjectTag/color", "red"),
            ("s3:RequestObjectTag/a b", "c"),
            ("aws:SourceIp", "10.1.2.3"),
            ("aws:Referer", "http://example.com/x"),
            ("aws:username", "ann"),
            ("aws:SecureTransport", "true"),
            ("s3:authType", "REST-HEADER"),
        ] {
            assert_eq!(context.get(key), Some(&[expected.to_owned()][..]), "{key}");
        }
        assert_eq!(context.get("s3:VersionId"), None);
        let anonymous = Asked { principal: None, secure: false, ..asked }.context();
        assert_eq!(anonymous.get("aws:SecureTransport"), Some(&["false".to_owned()][..]));
        assert_eq!(anonymous.get("aws:username"), None);
    }

    #[test]
    fn tags_of_a_body_are_those_that_are_asked_for() {
        let (uri, headers) = (Uri::from_static("/b/k?tagging"), HeaderMap::new());
        let body = b"<Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag></TagSet></Tagging>";
        let asked = Asked {
            operation: "PutObjectTagging",
            uri: &uri,
            headers: &headers,
            peer: None,
            secure: false,
            now_unix_ms: 0,
            body: Some(body),
            principal: None,
        };
        assert_eq!(asked.context().get("s3:requestobjecttag/a"), Some(&["1".to_owned()][..]));
        assert_eq!(asked.version(), None);
    }
}
