//! Cross-origin requests of browsers: which rule of a bucket covers one, what preflights are answered, and which headers
//! actual answers carry.
//!
//! Invariants: a preflight is answered without a signature, and tells nothing but what the rules say.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/cors.html>

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use meridian_object::{DocumentKind, Objects};
use s3s::{Body, S3ErrorCode, S3Result, dto};

use crate::document_xml::from_text;
use crate::errors::{error, error_with_status, object_error};
use crate::wire_values::bucket_name;

const VARY_ON: &str = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method";

/// A cross-origin request: where its page is from, and what it wants to do.
pub(crate) struct CrossOrigin {
    origin: String,
    /// That of the request, or the one that a preflight asks for.
    method: String,
    /// Lower case.
    headers: Vec<String>,
}

impl CrossOrigin {
    /// `None` for a request that no page of another origin sent.
    pub fn of(method: &Method, headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let wanted = text(ACCESS_CONTROL_REQUEST_METHOD).unwrap_or(method.as_str());
        let asked = text(ACCESS_CONTROL_REQUEST_HEADERS).unwrap_or_default();
        let asked = asked.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty());
        Some(Self { origin: text(ORIGIN)?.to_owned(), method: wanted.to_owned(), headers: asked.collect() })
    }

    /// The headers that the first rule which covers this request gives an answer.
    pub fn answer_headers(&self, rules: &dto::CORSConfiguration) -> Option<HeaderMap> {
        let rule = rules.cors_rules.iter().find(|rule| self.is_covered(rule))?;
        let mut headers = HeaderMap::new();
        let mut set = |name, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        let everybody = rule.allowed_origins.iter().any(|origin| origin == "*");
        set(ACCESS_CONTROL_ALLOW_ORIGIN, if everybody { "*" } else { &self.origin });
        if !everybody {
            set(ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
        }
        set(ACCESS_CONTROL_ALLOW_METHODS, &rule.allowed_methods.join(", "));
        if !self.headers.is_empty() {
            set(ACCESS_CONTROL_ALLOW_HEADERS, &self.headers.join(", "));
        }
        if let Some(exposed) = rule.expose_headers.as_ref().filter(|exposed| !exposed.is_empty()) {
            set(ACCESS_CONTROL_EXPOSE_HEADERS, &exposed.join(", "));
        }
        if let Some(seconds) = rule.max_age_seconds {
            set(ACCESS_CONTROL_MAX_AGE, &seconds.to_string());
        }
        set(VARY, VARY_ON);
        Some(headers)
    }

    fn is_covered(&self, rule: &dto::CORSRule) -> bool {
        let allows = |wanted: &String| {
            let patterns = rule.allowed_headers.as_deref().unwrap_or_default();
            patterns.iter().any(|pattern| wildcard_matches(&pattern.to_ascii_lowercase(), wanted))
        };
        rule.allowed_origins.iter().any(|pattern| wildcard_matches(pattern, &self.origin))
            && rule.allowed_methods.contains(&self.method)
            && self.headers.iter().all(allows)
    }
}

/// One `*` at most stands for any text.
fn wildcard_matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, end)) => text.len() >= start.len() + end.len() && text.starts_with(start) && text.ends_with(end),
    }
}

/// The rules of a bucket; `None` when it has none, or is none.
pub(crate) async fn rules_of(objects: &Objects, bucket: &str) -> Option<dto::CORSConfiguration> {
    let row = objects.head_bucket(&bucket_name(bucket).ok()?).await.ok()?;
    from_text(row.settings.document(DocumentKind::Cors)?).ok()
}

/// The answer to a preflight.
///
/// # Errors
/// `BadRequest` without an origin or a method, `NoSuchBucket`, `AccessForbidden` when no rule covers it.
pub(crate) async fn preflight(
    objects: &Objects,
    bucket: Option<&str>,
    headers: &HeaderMap,
) -> S3Result<Response<Body>> {
    let missing = |what: &str| {
        let text = format!("Insufficient information. {what} request header needed.");
        error_with_status("BadRequest", StatusCode::BAD_REQUEST, text)
    };
    if !headers.contains_key(ORIGIN) {
        return Err(missing("Origin"));
    }
    let asked = CrossOrigin::of(&Method::OPTIONS, headers).ok_or_else(|| missing("Origin"))?;
    if !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return Err(missing("Access-Control-Request-Method"));
    }
    let Some(bucket) = bucket else {
        return Err(error(S3ErrorCode::MethodNotAllowed, "The specified method is not allowed against this resource."));
    };
    let row = objects.head_bucket(&bucket_name(bucket)?).await.map_err(|failure| object_error(failure, None))?;
    let Some(text) = row.settings.document(DocumentKind::Cors) else {
        return Err(forbidden("CORSResponse: CORS is not enabled for this bucket."));
    };
    let rules: dto::CORSConfiguration = from_text(text)?;
    let Some(granted) = asked.answer_headers(&rules) else {
        return Err(forbidden(
            "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request \
             method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the \
             resource's CORS spec.",
        ));
    };
    let mut answer = Response::new(Body::empty());
    *answer.headers_mut() = granted;
    answer.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    Ok(answer)
}

fn forbidden(text: &str) -> s3s::S3Error {
    error_with_status("AccessForbidden", StatusCode::FORBIDDEN, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(origins: &[&str], methods: &[&str], headers: &[&str]) -> dto::CORSRule {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        dto::CORSRule {
            allowed_headers: Some(texts(headers)),
            allowed_methods: texts(methods),
            allowed_origins: texts(origins),
            expose_headers: Some(texts(&["x-amz-meta-a", "ETag"])),
            id: None,
            max_age_seconds: Some(30),
        }
    }

    fn asked(origin: &str, method: &str, headers: &[&str]) -> CrossOrigin {
        let headers = headers.iter().map(|name| (*name).to_owned()).collect();
        CrossOrigin { origin: origin.to_owned(), method: method.to_owned(), headers }
    }

    #[test]
    fn the_first_rule_that_covers_a_request_answers_it() {
        let rules = dto::CORSConfiguration {
            cors_rules: vec![
                rule(&["*suffix"], &["GET"], &[]),
                rule(&["start*end"], &["GET"], &[]),
                rule(&["prefix*"], &["GET"], &[]),
                rule(&["*.put"], &["PUT", "POST"], &["X-Amz-*"]),
                rule(&["*"], &["DELETE"], &["*"]),
            ],
        };
        let origin = |request: CrossOrigin| {
            let headers = request.answer_headers(&rules)?;
            Some(headers[ACCESS_CONTROL_ALLOW_ORIGIN].to_str().unwrap().to_owned())
        };
        for (request, expected) in [
            (asked("foo.suffix", "GET", &[]), Some("foo.suffix")),
            (asked("foo.suffix.get", "GET", &[]), None),
            (asked("startend", "GET", &[]), Some("startend")),
            (asked("start1end", "GET", &[]), Some("start1end")),
            (asked("0start12end", "GET", &[]), None),
            (asked("prefix", "GET", &[]), Some("prefix")),
            (asked("foo.put", "PUT", &["x-amz-meta-b"]), Some("foo.put")),
            (asked("foo.put", "PUT", &["content-type"]), None),
            (asked("foo.put", "GET", &[]), None),
            (asked("anywhere", "DELETE", &["anything"]), Some("*")),
        ] {
            let shown = (request.origin.clone(), request.method.clone());
            assert_eq!(origin(request).as_deref(), expected, "{shown:?}");
        }
        let headers = asked("foo.put", "PUT", &["x-amz-a"]).answer_headers(&rules).unwrap();
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_METHODS], "PUT, POST");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_HEADERS], "x-amz-a");
        assert_eq!(headers[ACCESS_CONTROL_EXPOSE_HEADERS], "x-amz-meta-a, ETag");
        assert_eq!(
            (&headers[ACCESS_CONTROL_MAX_AGE], &headers[ACCESS_CONTROL_ALLOW_CREDENTIALS]),
            (&"30".parse().unwrap(), &"true".parse().unwrap())
        );
    }

    #[test]
    fn a_request_without_an_origin_is_none_of_another_origin() {
        assert!(CrossOrigin::of(&Method::GET, &HeaderMap::new()).is_none());
    }
}
