//! A small S3 client for tests: signed requests with whole bodies in memory, answers as they came.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use meridian_sigv4::{Credentials, PayloadHash, Scope, SecretKey};

use crate::tls::{HttpClient, http_client};

/// Deadline of one request.
const DEADLINE: Duration = Duration::from_secs(30);

/// Talks to one S3 endpoint.
#[derive(Clone)]
pub struct S3 {
    endpoint: String,
    credentials: Credentials,
    scope: Scope,
    http: HttpClient,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The contents of every element of that name, in order.
    pub fn elements(&self, name: &str) -> Vec<String> {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let text = self.text();
        text.split(&open).skip(1).filter_map(|rest| rest.split_once(&close)).map(|(inside, _)| inside.into()).collect()
    }

    /// The answer, if it is a success.
    pub fn ok(self) -> Result<Self> {
        if self.status.is_success() {
            return Ok(self);
        }
        bail!("{} {}", self.status, self.text())
    }
}

impl S3 {
    pub fn new(endpoint: &str, region: &str, access_key: &str, secret_key: &str) -> Self {
        Self::trusting(None, endpoint, region, access_key, secret_key)
    }

    /// For an `https` endpoint whose certificate is of the CA with this one.
    pub fn trusting(ca_pem: Option<&str>, endpoint: &str, region: &str, access_key: &str, secret_key: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            credentials: Credentials { access_key: access_key.to_owned(), secret_key: SecretKey::new(secret_key) },
            scope: Scope::new(region, "s3"),
            http: http_client(ca_pem),
        }
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// One signed request; `path` starts with a slash and holds the query, both already encoded.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let body = body.into();
        let with_length = method == Method::PUT || method == Method::POST;
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.endpoint));
        if with_length {
            request = request.header("content-length", body.len()); // hyper leaves it out for an empty body
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(())?.into_parts();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64;
        meridian_sigv4::sign(&mut parts, &PayloadHash::of(&body), &self.credentials, &self.scope, now)?;
        let exchange = async {
            let answer = self.http.request(Request::from_parts(parts, Full::new(body))).await?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await?.to_bytes();
            anyhow::Ok(Answer { status: head.status, headers: head.headers, body })
        };
        tokio::time::timeout(DEADLINE, exchange).await.with_context(|| format!("{path}: no answer in time"))?
    }

    /// The same client for another service at the same endpoint, such as `iam`.
    pub fn for_service(&self, service: &str) -> Self {
        let region = self.scope.region.clone();
        Self { scope: Scope::new(region, service), ..self.clone() }
    }

    /// One action of IAM or STS, as their clients post it.
    pub async fn action(&self, action: &str, fields: &[(&str, &str)]) -> Result<Answer> {
        let service = if self.scope.service == "sts" { "2011-06-15" } else { "2010-05-08" };
        let mut form = format!("Action={action}&Version={service}");
        for (name, value) in fields {
            form.push_str(&format!("&{name}={}", encode(value, true)));
        }
        let content_type = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        self.call(Method::POST, "/", &[content_type], form).await
    }

    pub async fn create_bucket(&self, bucket: &str) -> Result<()> {
        self.call(Method::PUT, &format!("/{bucket}"), &[], Bytes::new()).await?.ok().map(drop)
    }

    /// Returns the ETag with its quotes.
    pub async fn put(&self, bucket: &str, key: &str, body: impl Into<Bytes>) -> Result<String> {
        let answer = self.call(Method::PUT, &object_path(bucket, key), &[], body).await?.ok()?;
        Ok(answer.header("etag").context("an answer to PUT has an ETag")?.to_owned())
    }

    /// None for 404.
    pub async fn get(&self, bucket: &str, key: &str) -> Result<Option<Bytes>> {
        let answer = self.call(Method::GET, &object_path(bucket, key), &[], Bytes::new()).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            _ => Ok(Some(answer.ok()?.body)),
        }
    }

    pub async fn delete(&self, bucket: &str, key: &str) -> Result<()> {
        self.call(Method::DELETE, &object_path(bucket, key), &[], Bytes::new()).await?.ok().map(drop)
    }

    /// All keys under a prefix with their ETags, over as many pages as there are. Keys must not need XML escapes.
    pub async fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        let mut token = None;
        loop {
            let continued =
                token.map_or(String::new(), |token: String| format!("&continuation-token={}", encode(&token, true)));
            let path = format!("/{bucket}?list-type=2&prefix={}{continued}", encode(prefix, true));
            let page = self.call(Method::GET, &path, &[], Bytes::new()).await?.ok()?;
            all.extend(page.elements("Key").into_iter().zip(page.elements("ETag")));
            match page.elements("NextContinuationToken").pop() {
                Some(next) => token = Some(next),
                None => return Ok(all),
            }
        }
    }
}

/// The path of an object, its key encoded.
pub fn object_path(bucket: &str, key: &str) -> String {
    format!("/{bucket}/{}", encode(key, false))
}

/// Percent-encodes all but the unreserved characters of RFC 3986, and slashes where asked.
fn encode(text: &str, slashes_too: bool) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            b'/' if !slashes_too => "/".to_owned(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
