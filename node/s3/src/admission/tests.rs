//! Heads of requests that are let through, and those that are not.

use http::Request;

use super::*;

const SCOPE: &str = "Credential=AK/20260101/us-east-1/s3/aws4_request";

fn admission() -> Admission {
    Admission::new(&GatewayLimits::default(), Domains::new(&["s3.example.com".to_owned()]))
}

fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn code(parts: &Parts) -> (String, u16) {
    match admission().check_head(parts) {
        Ok(()) => ("ok".to_owned(), 200),
        Err(error) => (error.code().as_str().to_owned(), error.status_code().unwrap().as_u16()),
    }
}

fn authorized(signed: &str, headers: &[(&str, &str)]) -> Parts {
    let authorization = format!("AWS4-HMAC-SHA256 {SCOPE}, SignedHeaders={signed}, Signature=00");
    let mut all = vec![("host", "h"), ("authorization", authorization.as_str())];
    all.extend_from_slice(headers);
    parts("GET", "/b/k", &all)
}

#[test]
fn everything_that_changes_a_request_must_be_signed() {
    let amz =
        [("x-amz-date", "20260101T000000Z"), ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"), ("range", "bytes=0-1")];
    let all = "host;x-amz-content-sha256;x-amz-date";
    assert_eq!(code(&authorized(all, &amz)).0, "ok");
    for signed in ["host;x-amz-date", "x-amz-content-sha256;x-amz-date", ""] {
        assert_eq!(code(&authorized(signed, &amz)), ("AccessDenied".to_owned(), 403), "{signed:?}");
    }
    let with_acl = [amz.as_slice(), &[("x-amz-acl", "public-read")]].concat();
    assert_eq!(code(&authorized(all, &with_acl)).0, "AccessDenied");
}

#[test]
fn a_signature_has_a_moment() {
    let date = ("date", "Sun, 30 Aug 2015 12:36:00 GMT");
    assert_eq!(code(&authorized("host;date", &[date])).0, "ok");
    assert_eq!(code(&authorized("host;x-amz-date", &[("x-amz-date", "20150830T123600Z")])).0, "ok");
    let undated: [(&str, &[(&str, &str)]); 5] = [
        ("host", &[]),
        ("host", &[date]),
        ("host;date", &[("date", "yesterday")]),
        ("host;x-amz-date", &[("x-amz-date", "20150830")]),
        ("host;date;x-amz-date", &[("x-amz-date", ""), date]),
    ];
    for (signed, headers) in undated {
        assert_eq!(code(&authorized(signed, headers)), ("AccessDenied".to_owned(), 403), "{signed} {headers:?}");
    }
}

#[test]
fn an_empty_digest_is_a_wrong_one() {
    let digest = |value| code(&parts("PUT", "/b/k", &[("host", "h"), ("content-md5", value)]));
    assert_eq!(digest(""), ("InvalidDigest".to_owned(), 400));
    assert_eq!(digest("anything"), ("ok".to_owned(), 200)); // its value is compared with the body's
}

#[test]
fn only_signature_version_four_is_offered() {
    for authorization in ["AWS AK:signature", "Bearer x", "AWS4-ECDSA-P256-SHA256 Credential=a", "AWS4-HMAC-SHA256X a"]
    {
        let refused = code(&parts("GET", "/b/k", &[("host", "h"), ("authorization", authorization)]));
        assert_eq!(refused, ("InvalidRequest".to_owned(), 400), "{authorization}");
    }
    assert_eq!(code(&parts("GET", "/b/k?AWSAccessKeyId=a&Signature=b&Expires=1", &[])).0, "InvalidRequest");
    let bare = parts("GET", "/b/k", &[("authorization", "AWS4-HMAC-SHA256 Credential=a")]);
    assert_eq!(code(&bare).0, "AuthorizationHeaderMalformed");
}

fn presigned(expires: &str, signed: &str, headers: &[(&str, &str)]) -> Parts {
    let uri = format!("/b/k?X-Amz-Expires={expires}&X-Amz-SignedHeaders={signed}&X-Amz-Signature=00");
    parts("GET", &uri, headers)
}

#[test]
fn days_of_credentials_are_days() {
    let host = [("host", "h"), ("x-amz-date", "20260101T000000Z")];
    for day in ["2 260101", "2026010", "202601011", "", "abcdefgh", "20260101/x"] {
        let signed = format!(
            "AWS4-HMAC-SHA256 Credential=AK/{day}/r/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=00"
        );
        let headers = [&host[..], &[("authorization", signed.as_str())]].concat();
        assert_eq!(code(&parts("GET", "/b/k", &headers)), ("AuthorizationHeaderMalformed".to_owned(), 400), "{day}");
        let day = day.replace(' ', "+");
        let uri = format!(
            "/b/k?X-Amz-Credential=AK%2F{day}%2Fr%2Fs3%2Faws4_request&X-Amz-SignedHeaders=host&X-Amz-Signature=00"
        );
        assert_eq!(
            code(&parts("GET", &uri, &host[..1])),
            ("AuthorizationQueryParametersError".to_owned(), 400),
            "{day}"
        );
    }
    for date in ["2 260101T000000Z", "20260101", ""] {
        let uri = format!("/b/k?X-Amz-Date={}&X-Amz-SignedHeaders=host&X-Amz-Signature=00", date.replace(' ', "%20"));
        assert_eq!(code(&parts("GET", &uri, &host[..1])).0, "AuthorizationQueryParametersError", "{date}");
    }
}

#[test]
fn presigned_urls_live_seven_days_at_most() {
    let host = [("host", "h")];
    assert_eq!(code(&presigned("604800", "host", &host)).0, "ok");
    for expires in ["604801", "0", "18446744073709551615"] {
        let refused = code(&presigned(expires, "host", &host));
        assert_eq!(refused, ("AuthorizationQueryParametersError".to_owned(), 403), "{expires}");
    }
}

#[test]
fn headers_beside_a_presigned_url_must_be_signed_too() {
    let headers = [("host", "h"), ("x-amz-meta-a", "b"), ("x-amz-content-sha256", "UNSIGNED-PAYLOAD")];
    assert_eq!(code(&presigned("60", "host%3Bx-amz-meta-a", &headers)).0, "ok");
    assert_eq!(code(&presigned("60", "host", &headers)).0, "AccessDenied");
    assert_eq!(code(&presigned("60", "", &headers)).0, "AccessDenied");
    let both = presigned("60", "host", &[("host", "h"), ("authorization", "AWS4-HMAC-SHA256 x")]);
    assert_eq!(code(&both).0, "InvalidArgument");
}

#[test]
fn large_headers_are_refused() {
    let large = "x".repeat(8 << 10);
    let refused = code(&parts("GET", "/b/k", &[("x-large", &large)]));
    assert_eq!(refused, ("RequestHeaderSectionTooLarge".to_owned(), 400));
}

#[test]
fn bodies_are_read_by_what_they_are() {
    let kind = |method: &str, uri: &str, headers: &[(&str, &str)]| admission().body_kind(&parts(method, uri, headers));
    let upload = BodyKind::Upload(None);
    for (method, uri, headers, expected) in [
        ("PUT", "/b/k", &[("host", "h")][..], upload),
        ("PUT", "/b/k?partNumber=1&uploadId=x", &[("host", "h")], upload),
        ("PUT", "/b//", &[("host", "h")], upload),
        ("PUT", "/k", &[("host", "b.s3.example.com")], upload),
        (
            "PUT",
            "/b/k",
            &[(PAYLOAD_HEADER, "STREAMING-UNSIGNED-PAYLOAD-TRAILER")],
            BodyKind::Upload(Some(ChunkSigning::Unsigned)),
        ),
        (
            "PUT",
            "/b/k",
            &[(PAYLOAD_HEADER, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")],
            BodyKind::Upload(Some(ChunkSigning::Signed)),
        ),
        ("PUT", "/b", &[("host", "h")], BodyKind::Xml),
        ("PUT", "/b/", &[("host", "h")], BodyKind::Xml),
        ("PUT", "/", &[("host", "b.s3.example.com")], BodyKind::Xml),
        ("PUT", "/b/k?tagging", &[("host", "h")], BodyKind::Xml),
        ("POST", "/b?delete=", &[("host", "h")], BodyKind::Xml),
        ("POST", "/b/k?uploadId=x", &[("host", "h")], BodyKind::Xml),
        ("GET", "/b/k", &[("host", "h")], BodyKind::Ignored),
        ("DELETE", "/b/k", &[("host", "h")], BodyKind::Ignored),
    ] {
        assert_eq!(kind(method, uri, headers), expected, "{method} {uri}");
    }
}

#[test]
fn xml_bodies_must_announce_their_length() {
    assert_eq!(announced_length(&parts("POST", "/b?delete", &[("content-length", "5")])).unwrap(), 5);
    for headers in [&[][..], &[("content-length", "x")], &[("transfer-encoding", "chunked")]] {
        let refused = announced_length(&parts("POST", "/b?delete", headers)).unwrap_err();
        assert_eq!(refused.status_code().unwrap().as_u16(), 411);
    }
}

#[test]
fn a_path_is_percent_encoded_to_the_end() {
    for path in ["/b/k", "/b/%25", "/b/a%2Bb%c3%A9"] {
        assert_eq!(code(&parts("GET", path, &[("host", "h")])).0, "ok", "{path}");
    }
    for path in ["/b/%", "/b/%2", "/b/100%", "/b/%zz", "/b/%+1"] {
        assert_eq!(code(&parts("GET", path, &[("host", "h")])), ("InvalidURI".to_owned(), 400), "{path}");
    }
}
