//! One request, from hyper to its answer: an id, the checks of `admission`, s3s, and what every answer has in common.
//!
//! Invariants: every request gets an answer with its id; a panic is a 500 and a log entry, never a lost connection;
//! an answer to HEAD and a 304 have no body; a connection whose client may still send a body that nobody reads is not
//! used again, and the answer says so; the access log names operation, path and status, and no query, because presigned
//! signatures stand there.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, EXPECT, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use meridian_edge::Peer;
use meridian_linger::Owed;
use meridian_object::{Ack, Objects, recording};
use s3s::service::S3Service;
use s3s::{Body, S3Error, S3ErrorCode};
use tokio::sync::Semaphore;

use crate::admission::Admission;
use crate::attributes::url_decode;
use crate::context::{RequestContext, RequestIds};
use crate::cors::{CrossOrigin, preflight, rules_of};
use crate::errors::{error, slow_down};
use crate::form::{Forms, is_form};
use crate::forward::{Forward, Forwarded, forwarded, upload_elsewhere};
use crate::iam::Iam;
use crate::lenient::{are_signed, date_signature, odd_headers, without};
use crate::observe::{RequestObserver, RequestReport};
use crate::remote_ack::{acknowledged, wished};

const REQUEST_ID_HEADER: &str = "x-amz-request-id";
/// The second id of S3's answers, which support asks for; here it says no more than the first.
const HOST_ID_HEADER: &str = "x-amz-id-2";
/// What the answer shows, for a session that goes on in another region (rule 21).
const TOKEN_HEADER: &str = "x-meridian-token";
/// Whose answer has an ETag without quotes.
const UNQUOTED_ETAG_OPERATION: &str = "GetObjectAttributes";
/// Of S3's documents.
const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";
const ERROR_END: &[u8] = b"</Error>";

/// Answers requests; shared by all connections.
pub(crate) struct Responder {
    pub service: S3Service,
    pub admission: Admission,
    pub ids: RequestIds,
    /// Requests that may run at once.
    pub requests: Semaphore,
    pub observer: Option<Arc<dyn RequestObserver>>,
    /// For the rules of cross-origin requests.
    pub objects: Option<Objects>,
    /// What a form posted to `/` is for.
    pub iam: Option<Iam>,
    /// Takes the forms of browsers, which s3s would hold in memory.
    pub forms: Option<Forms>,
    /// Answers what other datacenters have to.
    pub forward: Option<Arc<dyn Forward>>,
}

impl Responder {
    pub async fn respond(&self, request: Request<Incoming>, peer: Option<Peer>, owed: &Owed) -> Response<Body> {
        let started = Instant::now();
        let context = RequestContext::new(self.ids.next(), peer);
        let cross_origin = CrossOrigin::of(request.method(), request.headers());
        let bucket = self.admission.bucket_of(&request);
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        if let Some(bucket) = &bucket {
            context.set_names(bucket.clone(), key_of(&path, bucket));
        }
        let request_bytes = announced(request.headers());
        let may_send_body = may_send_body(&request);
        let ack = wished(self.objects.as_ref(), &method, request.headers());
        let wish = ack.as_ref().copied().unwrap_or_default();
        let running = async {
            ack?;
            self.run(request, &context).boxed().await // moved as a pointer, like what `call` gives
        };
        let (answer, shown) = recording(wish, AssertUnwindSafe(running).catch_unwind()).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(panic) => {
                tracing::error!(request = context.id, panic = panic_text(&*panic), "a handler panicked");
                Err(internal_error())
            }
        };
        let answer = match (answer, &self.objects) {
            (Ok(answer), Some(objects)) if wish == Ack::Remote => acknowledged(objects, &shown, answer, &context).await,
            (answer, _) => answer,
        };
        let answer = answer.unwrap_or_else(error_answer);
        let mut answer = match answer.extensions().get::<Forwarded>() {
            Some(_) => answer, // it has all of that, and the id under which it is found there
            None => decorate(answer, &method, &path, &context),
        };
        // What was looked at to refuse somebody is none of his business.
        if !shown.seen.is_empty() && answer.status() != StatusCode::FORBIDDEN {
            let token = HeaderValue::from_str(&shown.seen.to_text()).expect("a token is hex digits");
            answer.headers_mut().insert(TOKEN_HEADER, token);
        }
        if let (Some(cross_origin), Some(bucket), Some(objects)) = (cross_origin, bucket, &self.objects)
            && method != Method::OPTIONS
            && let Some(rules) = rules_of(objects, &bucket).await
            && let Some(headers) = cross_origin.answer_headers(&rules)
        {
            answer.headers_mut().extend(headers);
        }
        if may_send_body && !context.body_ended() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            owed.set();
        }
        self.report(&context, &method, &path, &answer, request_bytes, started.elapsed());
        answer
    }

    async fn run(&self, request: Request<Incoming>, context: &Arc<RequestContext>) -> Result<Response<Body>, S3Error> {
        let Ok(_running) = self.requests.try_acquire() else {
            return Err(slow_down("Please reduce your request rate: too many requests are running."));
        };
        if request.method() == Method::OPTIONS
            && let Some(objects) = &self.objects
        {
            context.set_operation("OptionsObject");
            let bucket = self.admission.bucket_of(&request);
            return preflight(objects, bucket.as_deref(), request.headers()).await;
        }
        let form_bucket = self.admission.bucket_of(&request);
        if let Some(forward) = self.forward.as_deref()
            && let Some(to) = upload_elsewhere(forward, &request)
        {
            return forwarded(forward, to, request, context).await;
        }
        let (mut parts, body) = request.into_parts();
        if let Some(iam) = self.iam.as_ref().filter(|_| Iam::is_query(&parts)) {
            if Iam::is_too_long(&parts) {
                return Ok(Iam::too_long(context));
            }
            let (form, _held) = self.admission.form(&parts, body, context).await?;
            return Ok(iam.answer(&parts, &form, context).await);
        }
        if let (Some(forms), Some(bucket)) = (&self.forms, &form_bucket)
            && is_form(&parts)
        {
            let body = self.admission.admit_form(&parts, body, context)?;
            return forms.post(&parts, bucket, body, context).await;
        }
        let (body, _xml) = self.admission.admit(&parts, body, context).await?;
        date_signature(&mut parts.headers);
        parts.extensions.insert(Arc::clone(context));
        let answer = self.ask(parts, body, context).await;
        answer.map_err(|failure| {
            tracing::error!(request = context.id, ?failure, "an answer could not be made");
            internal_error()
        })
    }

    /// Hands a request to s3s, without the headers of a read that S3 passes over (`lenient`).
    async fn ask(&self, parts: Parts, body: Body, context: &RequestContext) -> Result<Response<Body>, s3s::HttpError> {
        let odd = odd_headers(&parts);
        if odd.is_empty() {
            return self.call(Request::from_parts(parts, body)).await;
        }
        if are_signed(&parts, &odd) {
            let proof = self.call(Request::from_parts(parts.clone(), Body::empty())).await?;
            // Only what was allowed and then not understood is asked again; a suffix without a length is taken for none.
            let misread = matches!(proof.status(), StatusCode::BAD_REQUEST | StatusCode::RANGE_NOT_SATISFIABLE);
            if !misread || context.principal().is_none() {
                return Ok(proof);
            }
        }
        self.call(Request::from_parts(without(parts, &odd), Body::empty())).await
    }

    /// Boxed: the state of s3s's operations is tens of KiB, which would be moved with each of the futures around it.
    fn call(&self, request: Request<Body>) -> BoxFuture<'_, Result<Response<Body>, s3s::HttpError>> {
        self.service.call(request).boxed()
    }

    fn report(
        &self,
        context: &RequestContext,
        method: &Method,
        path: &str,
        answer: &Response<Body>,
        request_bytes: Option<u64>,
        latency: Duration,
    ) {
        let (status, operation, id) = (answer.status().as_u16(), context.operation(), context.id.as_str());
        let response_bytes = announced(answer.headers());
        let owner = context.principal().map(|principal| principal.identity.id.as_str());
        let latency_us = latency.as_micros() as u64;
        if answer.status().is_server_error() {
            tracing::info!(id, %method, path, operation, owner, status, latency_us, request_bytes, response_bytes, "access");
        } else {
            tracing::debug!(id, %method, path, operation, owner, status, latency_us, request_bytes, response_bytes, "access");
        }
        if let Some(observer) = &self.observer {
            observer.observe(&RequestReport { operation, status, latency, request_bytes, response_bytes });
        }
    }
}

/// Whether bytes may follow this head on its connection. A client that expects `100 Continue` and gets its answer first
/// can't tell whether the server still waits for the body, an empty one included: botocore takes the next answer on
/// that connection for this one. HTTP/2 has a stream for each request.
fn may_send_body(request: &Request<Incoming>) -> bool {
    let expects = request.headers().contains_key(EXPECT);
    request.version() <= Version::HTTP_11 && (expects || !request.body().is_end_stream())
}

fn internal_error() -> S3Error {
    error(S3ErrorCode::InternalError, "We encountered an internal error. Please try again.")
}

fn error_answer(failure: S3Error) -> Response<Body> {
    failure.to_http_response().unwrap_or_else(|_| {
        let mut answer = Response::new(Body::empty()); // an error's own XML can't fail to be written
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        answer
    })
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a text")
}

fn decorate(answer: Response<Body>, method: &Method, path: &str, context: &RequestContext) -> Response<Body> {
    let (mut parts, body) = answer.into_parts();
    let id = HeaderValue::from_str(&context.id).expect("an id is hex digits");
    parts.headers.insert(HOST_ID_HEADER, id.clone());
    parts.headers.insert(REQUEST_ID_HEADER, id);
    if method == Method::HEAD && parts.status == StatusCode::OK && parts.headers.contains_key(CONTENT_RANGE) {
        parts.status = StatusCode::PARTIAL_CONTENT; // s3s knows no other status for HEAD
    }
    let is_error = parts.status.is_client_error() || parts.status.is_server_error();
    if parts.status == StatusCode::NOT_MODIFIED || (is_error && method == Method::HEAD) {
        parts.headers.remove(CONTENT_TYPE);
        return Response::from_parts(parts, Body::empty());
    }
    let body = match body.bytes() {
        Some(xml) if is_error => Body::from(without_raw_controls(&completed(&xml, path, context))),
        Some(xml) if xml_without_namespace(context.operation()).is_some() => {
            parts.headers.remove(CONTENT_LENGTH);
            Body::from(with_namespace(&xml, xml_without_namespace(context.operation()).unwrap_or_default()))
        }
        Some(xml) if context.operation() == UNQUOTED_ETAG_OPERATION => {
            parts.headers.remove(CONTENT_LENGTH);
            Body::from(with_plain_etag(&xml))
        }
        Some(xml) if has_raw_controls(&xml) => {
            parts.headers.remove(CONTENT_LENGTH);
            Body::from(without_raw_controls(&xml))
        }
        _ => body,
    };
    if parts.headers.contains_key(CONTENT_LENGTH) {
        parts.headers.remove(TRANSFER_ENCODING);
    }
    Response::from_parts(parts, body)
}

/// The documents that S3 writes with its namespace, and s3s without.
fn xml_without_namespace(operation: &str) -> Option<&'static str> {
    match operation {
        "CopyObject" => Some("CopyObjectResult"),
        "UploadPartCopy" => Some("CopyPartResult"),
        "GetBucketPolicyStatus" => Some("PolicyStatus"),
        _ => None,
    }
}

fn with_namespace(xml: &[u8], root: &str) -> Bytes {
    let (bare, whole) = (format!("<{root}>"), format!("<{root} xmlns=\"{NAMESPACE}\">"));
    Bytes::from(String::from_utf8_lossy(xml).replacen(&bare, &whole, 1))
}

/// The ETag of GetObjectAttributes is the one that S3 writes without its quotes, and s3s with them.
fn with_plain_etag(xml: &[u8]) -> Bytes {
    let text = String::from_utf8_lossy(xml);
    let Some((before, rest)) = text.split_once("<ETag>") else { return Bytes::copy_from_slice(xml) };
    let Some((etag, after)) = rest.split_once("</ETag>") else { return Bytes::copy_from_slice(xml) };
    let etag = etag.replace("&quot;", "").replace('"', "");
    Bytes::from(format!("{before}<ETag>{etag}</ETag>{after}"))
}

/// Control characters that XML does not pass on as they are: a parser makes a line feed of a carriage return.
fn is_raw_control(byte: u8) -> bool {
    byte < b' ' && !matches!(byte, b'\t' | b'\n')
}

/// Looks at whole stretches, not at byte after byte: a page of a listing has two hundred thousand.
fn has_raw_controls(xml: &[u8]) -> bool {
    let stretch = |bytes: &[u8]| bytes.iter().fold(false, |found, byte| found | is_raw_control(*byte));
    xml.chunks(4096).any(stretch)
}

/// A document whose control characters are references, as S3 writes those that stand in keys.
fn without_raw_controls(xml: &[u8]) -> Bytes {
    let mut document = Vec::with_capacity(xml.len() + 16);
    for &byte in xml {
        if is_raw_control(byte) {
            document.extend_from_slice(format!("&#x{byte:X};").as_bytes());
        } else {
            document.push(byte);
        }
    }
    Bytes::from(document)
}

/// The key in a path, decoded; the bucket stands before it or in the host.
fn key_of(path: &str, bucket: &str) -> String {
    let rest = path.strip_prefix('/').unwrap_or(path);
    let key = rest.strip_prefix(bucket).and_then(|rest| rest.strip_prefix('/')).unwrap_or(rest);
    url_decode(&key.replace('+', "%2B")).unwrap_or_else(|| key.to_owned())
}

/// An error document with what s3s leaves out: a message, the bucket or key that is not there, the condition that did
/// not hold, the resource, the request's ids.
fn completed(xml: &[u8], path: &str, context: &RequestContext) -> Bytes {
    let Some(head) = xml.strip_suffix(ERROR_END) else { return Bytes::copy_from_slice(xml) };
    let text = String::from_utf8_lossy(head);
    let mut document = text.clone().into_owned();
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("", |(code, _)| code);
    if !text.contains("<Message>") {
        document.push_str(&format!("<Message>{}</Message>", escape(message(code))));
    }
    let (id, names) = (&context.id, context.names());
    let subject = match (code, names, context.condition()) {
        ("NoSuchBucket", Some((bucket, _)), _) => format!("<BucketName>{}</BucketName>", escape(bucket)),
        ("NoSuchKey" | "NoSuchVersion", Some((_, key)), _) => format!("<Key>{}</Key>", escape(key)),
        ("PreconditionFailed", _, Some(condition)) => format!("<Condition>{condition}</Condition>"),
        _ => String::new(),
    };
    document.push_str(&format!(
        "{subject}<Resource>{}</Resource><RequestId>{id}</RequestId><HostId>{id}</HostId></Error>",
        escape(path)
    ));
    Bytes::from(document)
}

/// Texts for the errors that s3s raises without one.
fn message(code: &str) -> &str {
    match code {
        "SignatureDoesNotMatch" => {
            "The request signature we calculated does not match the signature you provided. Check your key and signing method."
        }
        "InvalidBucketName" => "The specified bucket is not valid.",
        "KeyTooLongError" => "Your key is too long: at most 1024 bytes.",
        "InvalidURI" => "Couldn't parse the specified URI.",
        "MalformedXML" => "The XML you provided was not well-formed or did not validate against our published schema.",
        "MissingRequestBodyError" => "Request body is empty.",
        "MethodNotAllowed" => "The specified method is not allowed against this resource.",
        "MissingContentLength" => "You must provide the Content-Length HTTP header.",
        "IncompleteBody" => "You did not provide the number of bytes specified by the Content-Length HTTP header.",
        "NotImplemented" => "A header or query you provided implies functionality that is not implemented.",
        "AccessDenied" => "Access Denied",
        code => code,
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_to(method: &Method, failure: S3Error) -> Response<Body> {
        let context = RequestContext::new("00000000000000AB".to_owned(), None);
        decorate(error_answer(failure), method, "/b/a<b&c", &context)
    }

    fn text(answer: &Response<Body>) -> String {
        String::from_utf8(answer.body().bytes().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn an_error_names_code_message_resource_and_request() {
        let answer = answer_to(&Method::GET, error(S3ErrorCode::NoSuchKey, "none"));
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()[REQUEST_ID_HEADER]),
            (404, &"00000000000000AB".parse().unwrap())
        );
        let text = text(&answer);
        assert!(text.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>"), "{text}");
        assert!(
            text.ends_with(
                "<Error><Code>NoSuchKey</Code><Message>none</Message><Resource>/b/a&lt;b&amp;c</Resource>\
             <RequestId>00000000000000AB</RequestId><HostId>00000000000000AB</HostId></Error>"
            ),
            "{text}"
        );
    }

    #[test]
    fn an_error_names_what_is_not_there() {
        let text = |path: &str, failure| {
            let context = RequestContext::new("1".to_owned(), None);
            context.set_names("photos".to_owned(), key_of(path, "photos"));
            context.set_condition("If-Match");
            let answer = decorate(error_answer(failure), &Method::GET, path, &context);
            String::from_utf8(answer.body().bytes().unwrap().to_vec()).unwrap()
        };
        let key = text("/photos/a%20b%3C/c", S3Error::new(S3ErrorCode::NoSuchKey));
        assert!(key.contains("<Key>a b&lt;/c</Key>"), "{key}");
        let key = text("/in/the/host", S3Error::new(S3ErrorCode::NoSuchKey));
        assert!(key.contains("<Key>in/the/host</Key>"), "{key}");
        let bucket = text("/photos/a", S3Error::new(S3ErrorCode::NoSuchBucket));
        assert!(bucket.contains("<BucketName>photos</BucketName>"), "{bucket}");
        let condition = text("/photos/a", S3Error::new(S3ErrorCode::PreconditionFailed));
        assert!(condition.contains("<Condition>If-Match</Condition>"), "{condition}");
    }

    #[test]
    fn an_error_without_a_message_gets_one() {
        let text = text(&answer_to(&Method::GET, S3Error::new(S3ErrorCode::SignatureDoesNotMatch)));
        assert!(text.contains("<Message>The request signature we calculated"), "{text}");
    }

    #[test]
    fn answers_to_head_and_not_modified_have_no_body() {
        let head = answer_to(&Method::HEAD, error(S3ErrorCode::NoSuchKey, "none"));
        assert_eq!((head.status().as_u16(), head.body().bytes().unwrap().len()), (404, 0));
        let same = answer_to(&Method::GET, S3Error::new(S3ErrorCode::NotModified));
        assert_eq!((same.status().as_u16(), same.body().bytes().unwrap().len()), (304, 0));
    }

    #[test]
    fn a_head_of_a_range_is_partial_content() {
        let context = RequestContext::new("1".to_owned(), None);
        let mut answer = Response::new(Body::empty());
        answer.headers_mut().insert(CONTENT_RANGE, HeaderValue::from_static("bytes 0-1/5"));
        assert_eq!(decorate(answer, &Method::HEAD, "/b/k", &context).status(), StatusCode::PARTIAL_CONTENT);
    }

    #[test]
    fn control_characters_in_keys_survive_a_parser() {
        let context = RequestContext::new("1".to_owned(), None);
        let answer = Response::new(Body::from(Bytes::from_static(b"<Key>a\rb\x01\n\t\xc3\xa9</Key>")));
        let answer = decorate(answer, &Method::POST, "/b", &context);
        assert_eq!(text(&answer), "<Key>a&#xD;b&#x1;\n\té</Key>");
    }

    #[test]
    fn results_of_copies_have_their_namespace() {
        let context = RequestContext::new("1".to_owned(), None);
        context.set_operation("CopyObject");
        let answer =
            Response::new(Body::from(Bytes::from_static(b"<CopyObjectResult><ETag>a</ETag></CopyObjectResult>")));
        let answer = decorate(answer, &Method::PUT, "/b/k", &context);
        let whole = format!("<CopyObjectResult xmlns=\"{NAMESPACE}\"><ETag>a</ETag></CopyObjectResult>");
        assert_eq!(text(&answer), whole);
    }

    #[test]
    fn attributes_tell_an_etag_without_quotes() {
        let context = RequestContext::new("1".to_owned(), None);
        context.set_operation(UNQUOTED_ETAG_OPERATION);
        for xml in ["<A><ETag>&quot;ab-2&quot;</ETag><B/></A>", "<A><ETag>\"ab-2\"</ETag><B/></A>"] {
            let answer = Response::new(Body::from(Bytes::copy_from_slice(xml.as_bytes())));
            let answer = decorate(answer, &Method::GET, "/b/k", &context);
            assert_eq!(text(&answer), "<A><ETag>ab-2</ETag><B/></A>");
        }
    }

    #[test]
    fn panics_are_named() {
        assert_eq!(panic_text(&"a"), "a");
        assert_eq!(panic_text(&"b".to_owned()), "b");
        assert_eq!(panic_text(&5), "a panic without a text");
    }
}
