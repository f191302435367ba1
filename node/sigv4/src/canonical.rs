//! The canonical request and the string to sign.
//!
//! Differences between services, as AWS has them: S3 encodes the decoded path once and leaves `//` and `..` alone;
//! every other service normalises the path and encodes what stands on the wire a second time.

use std::fmt::Write as _;

use http::{HeaderMap, Method, Uri};

use aws_lc_rs::digest;

use crate::date::AmzDate;
use crate::key::Scope;

const S3: &str = "s3";

/// Builds the canonical request. `signed` holds lower-case header names in ascending order.
///
/// Returns `None` when a signed header is missing, a header's value is not text, or the path or query holds a broken
/// percent escape.
pub(crate) fn canonical_request(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    signed: &[String],
    scope: &Scope,
    payload: &str,
) -> Option<String> {
    let mut text = String::with_capacity(512);
    text.push_str(method.as_str());
    text.push('\n');
    text.push_str(&canonical_path(uri.path(), &scope.service)?);
    text.push('\n');
    text.push_str(&canonical_query(uri.query().unwrap_or_default())?);
    text.push('\n');
    for name in signed {
        let value = header_value(name, uri, headers)?;
        writeln!(text, "{name}:{value}").expect("a string takes any text");
    }
    text.push('\n');
    text.push_str(&signed.join(";"));
    text.push('\n');
    text.push_str(payload);
    Some(text)
}

pub(crate) fn string_to_sign(canonical: &str, date: &AmzDate, scope: &Scope) -> String {
    let hash = digest::digest(&digest::SHA256, canonical.as_bytes());
    format!("{}\n{}\n{}\n{}", crate::ALGORITHM, date.as_str(), scope.text(date.day()), hex::encode(hash))
}

/// The canonical value of a header: values trimmed, runs of spaces made one, several joined by commas. HTTP/2 has
/// the host in the URI's authority.
fn header_value(name: &str, uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let mut values = Vec::new();
    for value in headers.get_all(name) {
        let text = std::str::from_utf8(value.as_bytes()).ok()?;
        values.push(text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ").trim().to_owned());
    }
    if values.is_empty() && name == "host" {
        return uri.authority().map(|authority| authority.as_str().to_owned());
    }
    if values.is_empty() { None } else { Some(values.join(",")) }
}

fn canonical_path(path: &str, service: &str) -> Option<String> {
    let path = if path.is_empty() { "/" } else { path };
    if service == S3 {
        return Some(encode(&decode(path)?, true));
    }
    Some(encode(normalise(path).as_bytes(), true))
}

/// Removes empty and dot segments; a trailing slash stays.
fn normalise(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut normal = format!("/{}", segments.join("/"));
    if !segments.is_empty() && (path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..")) {
        normal.push('/');
    }
    normal
}

fn canonical_query(query: &str) -> Option<String> {
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.push((encode(&decode(name)?, false), encode(&decode(value)?, false)));
    }
    pairs.sort();
    let joined: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    Some(joined.join("&"))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let [high, low, tail @ ..] = tail else { return None };
        let digit = |byte: &u8| (*byte as char).to_digit(16);
        bytes.push((digit(high)? * 16 + digit(low)?) as u8);
        rest = tail;
    }
    Some(bytes)
}

/// Percent-encodes all but the unreserved characters, and `/` too unless `keep_slash`.
fn encode(bytes: &[u8], keep_slash: bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(*byte as char),
            b'/' if keep_slash => text.push('/'),
            byte => write!(text, "%{byte:02X}").expect("a string takes any text"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_follow_the_service() {
        for (path, s3, other) in [
            ("", "/", "/"),
            ("/", "/", "/"),
            ("/test$file.text", "/test%24file.text", "/test%24file.text"),
            ("/a%20b", "/a%20b", "/a%2520b"),
            ("/a//b/../c/", "/a//b/../c/", "/a/c/"),
            ("/./a/..", "/./a/..", "/"),
        ] {
            assert_eq!(canonical_path(path, S3).unwrap(), s3, "{path:?}");
            assert_eq!(canonical_path(path, "meridian").unwrap(), other, "{path:?}");
        }
        assert_eq!(canonical_path("/%2", S3), None);
        assert_eq!(canonical_path("/%zz", S3), None);
    }

    #[test]
    fn queries_are_sorted_by_encoded_name_then_value() {
        assert_eq!(canonical_query("b=2&a=%20&a=1&c&&a-b=%2F").unwrap(), "a=%20&a=1&a-b=%2F&b=2&c=");
        assert_eq!(canonical_query("a=%").map(|_| ()), None);
    }

    #[test]
    fn header_values_lose_their_spare_spaces() {
        let mut headers = HeaderMap::new();
        headers.append("x-amz-a", "  a   b  ".parse().unwrap());
        headers.append("x-amz-a", "c".parse().unwrap());
        let uri: Uri = "http://example.com:9001/".parse().unwrap();
        assert_eq!(header_value("x-amz-a", &uri, &headers).unwrap(), "a b,c");
        assert_eq!(header_value("host", &uri, &headers).unwrap(), "example.com:9001");
        assert_eq!(header_value("x-amz-b", &uri, &headers), None);
    }

    proptest! {
        #[test]
        fn encoding_round_trips(bytes: Vec<u8>, keep_slash: bool) {
            prop_assert_eq!(decode(&encode(&bytes, keep_slash)).unwrap(), bytes);
        }

        #[test]
        fn any_text_is_taken_or_refused(text in ".{0,60}") {
            let _ = (canonical_query(&text), canonical_path(&text, S3), canonical_path(&text, "iam"));
        }
    }
}
