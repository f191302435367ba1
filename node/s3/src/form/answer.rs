//! What a browser gets for a form that was stored: nothing, a document, or the way to another page.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use meridian_object::PutOutcome;
use s3s::{Body, S3Response, S3Result};

use crate::errors::invalid_argument;
use crate::multipart::location;
use crate::put::checksum_texts;
use crate::sse::told;
use crate::wire_values::url_encode;

const CHECKSUM_HEADERS: [&str; 5] = [
    "x-amz-checksum-crc32",
    "x-amz-checksum-crc32c",
    "x-amz-checksum-crc64nvme",
    "x-amz-checksum-sha1",
    "x-amz-checksum-sha256",
];

/// What was stored where.
pub(super) struct Stored<'a> {
    pub outcome: &'a PutOutcome,
    pub bucket: &'a str,
    pub key: &'a str,
}

/// The answer that a form's fields ask for. `asked` are its fields as headers, `request` those of the request.
///
/// # Errors
/// `InvalidArgument` for a place that no header can name.
pub(super) fn answer(
    stored: &Stored<'_>,
    fields: &[(String, String)],
    asked: &HeaderMap,
    request: &HeaderMap,
    uri: &Uri,
) -> S3Result<Response<Body>> {
    let field = |wanted: &str| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let etag = format!("\"{}\"", stored.outcome.etag);
    let place = location(request, uri, stored.bucket, stored.key);
    let redirect = field("success_action_redirect").or(field("redirect")).filter(|url| is_url(url));
    let (status, place, body) = match (redirect, field("success_action_status")) {
        (Some(url), _) => (StatusCode::SEE_OTHER, with_query(url, stored, &etag), None),
        (None, Some("200")) => (StatusCode::OK, place, None),
        (None, Some("201")) => {
            let document = document(stored, &place, &etag);
            (StatusCode::CREATED, place, Some(document))
        }
        (None, _) => (StatusCode::NO_CONTENT, place, None),
    };
    let odd = |_| invalid_argument("success_action_redirect", "is no value of a header");
    let mut answer = told(S3Response::new(()), stored.outcome.encryption.as_deref(), asked);
    let headers = &mut answer.headers;
    headers.insert(LOCATION, HeaderValue::try_from(place).map_err(odd)?);
    headers.insert(ETAG, HeaderValue::try_from(etag).map_err(odd)?);
    if let Some(version) = stored.outcome.version {
        headers.insert("x-amz-version-id", HeaderValue::try_from(version.to_string()).map_err(odd)?);
    }
    for (name, value) in CHECKSUM_HEADERS.into_iter().zip(checksum_texts(&stored.outcome.checksums, 0)) {
        if let Some(value) = value {
            headers.insert(name, HeaderValue::try_from(value).map_err(odd)?);
        }
    }
    if body.is_some() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    }
    let mut response = Response::new(body.map_or_else(Body::empty, |document| Body::from(Bytes::from(document))));
    *response.status_mut() = status;
    *response.headers_mut() = answer.headers;
    Ok(response)
}

/// S3 passes over what is none.
fn is_url(text: &str) -> bool {
    let uri = text.parse::<Uri>().ok();
    uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some())
}

fn with_query(url: &str, stored: &Stored<'_>, etag: &str) -> String {
    let (url, fragment) = url.split_once('#').map_or((url, None), |(url, fragment)| (url, Some(fragment)));
    let joint = if url.contains('?') { '&' } else { '?' };
    let encode = |text: &str| url_encode(text).replace('/', "%2F");
    let fragment = fragment.map_or_else(String::new, |fragment| format!("#{fragment}"));
    format!("{url}{joint}bucket={}&key={}&etag={}{fragment}", stored.bucket, encode(stored.key), encode(etag))
}

fn document(stored: &Stored<'_>, place: &str, etag: &str) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<PostResponse><Location>{}</Location><Bucket>{}</Bucket><Key>{}</Key>\
         <ETag>{}</ETag></PostResponse>",
        escape(place),
        stored.bucket,
        escape(stored.key),
        etag.replace('"', "&quot;"),
    )
}

#[cfg(test)]
mod tests {
    use http::header::HOST;
    use meridian_types::{DatacenterId, Stamp, Timestamp};

    use super::*;

    fn answered(fields: &[(&str, &str)]) -> Response<Body> {
        let outcome = PutOutcome {
            etag: "e".to_owned(),
            stamp: Stamp::new(Timestamp::ZERO, DatacenterId::new(1).unwrap()),
            version: None,
            size: 1,
            checksums: Vec::new(),
            replaced: false,
            encryption: None,
        };
        let stored = Stored { outcome: &outcome, bucket: "photos", key: "a/b&c" };
        let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let request: HeaderMap = [(HOST, HeaderValue::from_static("h:9000"))].into_iter().collect();
        answer(&stored, &fields, &HeaderMap::new(), &request, &Uri::from_static("/photos")).unwrap()
    }

    fn place(answer: &Response<Body>) -> (u16, &str) {
        (answer.status().as_u16(), answer.headers()[LOCATION].to_str().unwrap())
    }

    #[test]
    fn a_form_chooses_its_answer() {
        let here = "http://h:9000/photos/a/b%26c";
        assert_eq!(place(&answered(&[])), (204, here));
        assert_eq!(place(&answered(&[("success_action_status", "200")])), (200, here));
        assert_eq!(place(&answered(&[("success_action_status", "404")])), (204, here));
        let created = answered(&[("success_action_status", "201")]);
        assert_eq!((place(&created), created.headers()[ETAG].to_str().unwrap()), ((201, here), "\"e\""));
        let text = String::from_utf8(created.body().bytes().unwrap().to_vec()).unwrap();
        assert!(text.contains("<Bucket>photos</Bucket><Key>a/b&amp;c</Key><ETag>&quot;e&quot;</ETag>"), "{text}");
    }

    #[test]
    fn a_redirect_carries_what_was_stored_and_must_be_a_url() {
        let query = "bucket=photos&key=a%2Fb%26c&etag=%22e%22";
        let to = |url: &str| place(&answered(&[("success_action_redirect", url)])).1.to_owned();
        assert_eq!(to("http://x/done"), format!("http://x/done?{query}"));
        assert_eq!(to("https://x/done?a=b#part"), format!("https://x/done?a=b&{query}#part"));
        assert_eq!(place(&answered(&[("redirect", "http://x/"), ("success_action_status", "201")])).0, 303);
        for odd in ["nowhere", "/done", "javascript:alert(1)", "http:///"] {
            assert_eq!(place(&answered(&[("success_action_redirect", odd)])).0, 204, "{odd}");
        }
    }
}
