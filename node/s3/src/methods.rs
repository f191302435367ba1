//! Which methods a resource has. S3 refuses every other with 405, whoever asks; s3s takes such a request for one without
//! the sub-resource: a PUT of a bucket's location would create the bucket, a DELETE of its ACL would delete it.
//!
//! Invariants: nothing here tells whether a bucket or key exists; a method that this table allows may still be one that
//! is not offered, which is the operation's to say.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html>

use http::Method;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::errors::{error, error_with_status};

/// What a request's path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    Service,
    Bucket,
    Object,
}

type Methods = &'static [&'static str];

const SERVICE: Methods = &["GET"];
const BUCKET: Methods = &["GET", "HEAD", "PUT", "DELETE"];
const OBJECT: Methods = &["GET", "HEAD", "PUT", "DELETE"];

/// Sub-resources of buckets, and the methods of each. HEAD asks for the bucket, whatever its query.
const OF_BUCKETS: [(&str, Methods); 28] = [
    ("accelerate", &["GET", "PUT"]),
    ("acl", &["GET", "PUT"]),
    ("analytics", &["GET", "PUT", "DELETE"]),
    ("cors", &["GET", "PUT", "DELETE"]),
    ("delete", &["POST"]),
    ("encryption", &["GET", "PUT", "DELETE"]),
    ("intelligent-tiering", &["GET", "PUT", "DELETE"]),
    ("inventory", &["GET", "PUT", "DELETE"]),
    ("lifecycle", &["GET", "PUT", "DELETE"]),
    ("location", &["GET"]),
    ("logging", &["GET", "PUT"]),
    ("metadataTable", &["GET", "POST", "DELETE"]),
    ("metrics", &["GET", "PUT", "DELETE"]),
    ("notification", &["GET", "PUT"]),
    ("object-lock", &["GET", "PUT"]),
    ("ownershipControls", &["GET", "PUT", "DELETE"]),
    ("policy", &["GET", "PUT", "DELETE"]),
    ("policyStatus", &["GET"]),
    ("publicAccessBlock", &["GET", "PUT", "DELETE"]),
    ("replication", &["GET", "PUT", "DELETE"]),
    ("requestPayment", &["GET", "PUT"]),
    ("session", &["GET"]),
    ("tagging", &["GET", "PUT", "DELETE"]),
    ("uploads", &["GET"]),
    ("versioning", &["GET", "PUT"]),
    ("versions", &["GET"]),
    ("website", &["GET", "PUT", "DELETE"]),
    ("list-type", &["GET"]),
];

/// Sub-resources of objects. `versionId` and `partNumber` change no method by themselves.
const OF_OBJECTS: [(&str, Methods); 11] = [
    ("acl", &["GET", "PUT"]),
    ("attributes", &["GET"]),
    ("legal-hold", &["GET", "PUT"]),
    ("renameObject", &["PUT"]),
    ("restore", &["POST"]),
    ("retention", &["GET", "PUT"]),
    ("select", &["POST"]),
    ("tagging", &["GET", "PUT", "DELETE"]),
    ("torrent", &["GET"]),
    ("uploadId", &["GET", "PUT", "POST", "DELETE"]),
    ("uploads", &["POST"]),
];

/// Lets a request pass whose resource has its method. `names` are those of its query.
///
/// # Errors
/// `MethodNotAllowed` with the methods that there are; `PreconditionFailed` for a POST to a bucket that is no form.
pub(crate) fn check_method<'q>(
    method: &Method,
    resource: Resource,
    mut names: impl Iterator<Item = &'q str>,
) -> S3Result<()> {
    let (own, sub): (Methods, &[(&str, Methods)]) = match resource {
        Resource::Service => (SERVICE, &[]),
        Resource::Bucket => (BUCKET, &OF_BUCKETS),
        Resource::Object => (OBJECT, &OF_OBJECTS),
    };
    let named = names.find_map(|name| sub.iter().find(|(known, _)| *known == name));
    let methods = named.map_or(own, |(_, methods)| *methods);
    if methods.contains(&method.as_str()) || (method == Method::HEAD && resource != Resource::Service) {
        return Ok(());
    }
    if method == Method::POST && resource == Resource::Bucket && named.is_none() {
        let text = "Bucket POST must be of the enclosure-type multipart/form-data";
        return Err(error_with_status("PreconditionFailed", StatusCode::PRECONDITION_FAILED, text));
    }
    Err(not_allowed(methods))
}

fn not_allowed(methods: Methods) -> S3Error {
    let mut refused =
        error(S3ErrorCode::MethodNotAllowed, "The specified method is not allowed against this resource.");
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    if let Ok(value) = HeaderValue::try_from(methods.join(", ")) {
        headers.insert(ALLOW, value);
    }
    refused.set_headers(headers);
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(method: &str, resource: Resource, query: &str) -> Option<(u16, String)> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let names = query.split('&').filter(|name| !name.is_empty());
        let failure = check_method(&method, resource, names).err()?;
        let allow = failure.headers().and_then(|headers| headers.get(ALLOW));
        let allow = allow.map_or("", |value| value.to_str().unwrap()).to_owned();
        Some((failure.status_code().unwrap().as_u16(), allow))
    }

    #[test]
    fn what_a_resource_has_passes() {
        for (method, resource, query) in [
            ("GET", Resource::Service, ""),
            ("PUT", Resource::Bucket, ""),
            ("HEAD", Resource::Bucket, "location"),
            ("POST", Resource::Bucket, "delete"),
            ("PUT", Resource::Object, "partNumber&uploadId"),
            ("PUT", Resource::Object, "versionId"),
            ("POST", Resource::Object, "uploads"),
            ("DELETE", Resource::Object, "lifecycle"), // a name that objects don't have is passed over
        ] {
            assert_eq!(refused(method, resource, query), None, "{method} {resource:?} {query}");
        }
    }

    #[test]
    fn every_other_method_is_refused_with_those_that_there_are() {
        let refused = |method, resource, query| refused(method, resource, query).expect("a refusal");
        assert_eq!(refused("PUT", Resource::Bucket, "location"), (405, "GET".to_owned()));
        assert_eq!(refused("DELETE", Resource::Bucket, "acl"), (405, "GET, PUT".to_owned()));
        assert_eq!(refused("PATCH", Resource::Object, ""), (405, "GET, HEAD, PUT, DELETE".to_owned()));
        assert_eq!(refused("PUT", Resource::Service, ""), (405, "GET".to_owned()));
        assert_eq!(refused("POST", Resource::Object, ""), (405, "GET, HEAD, PUT, DELETE".to_owned()));
        assert_eq!(refused("POST", Resource::Bucket, ""), (412, String::new()));
        for (name, methods) in OF_BUCKETS.iter().chain(&OF_OBJECTS) {
            for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "TRACE", "LONGMETHOD"] {
                for resource in [Resource::Bucket, Resource::Object] {
                    let table: &[(&str, Methods)] =
                        if resource == Resource::Bucket { &OF_BUCKETS } else { &OF_OBJECTS };
                    if table.contains(&(*name, *methods)) && !methods.contains(&method) {
                        assert_eq!(refused(method, resource, name).0, 405, "{method} {resource:?}?{name}");
                    }
                }
            }
        }
    }
}
