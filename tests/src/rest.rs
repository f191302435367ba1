//! A plain HTTP client of REST ports for tests: unsigned unless asked, answers as they came, redirects not followed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use meridian_sigv4::{Credentials, PayloadHash, Scope, SecretKey};
use serde_json::Value;

use crate::s3::Answer;

/// Deadline of one request.
const DEADLINE: Duration = Duration::from_secs(30);

/// Talks to one REST endpoint.
#[derive(Clone)]
pub struct Rest {
    endpoint: String,
    credentials: Option<Credentials>,
    http: Client<HttpConnector, Full<Bytes>>,
}

impl Rest {
    /// `endpoint` is such as `http://127.0.0.1:9001`.
    pub fn new(endpoint: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Self { endpoint: endpoint.to_owned(), credentials: None, http }
    }

    /// The same, with every request signed for the service `meridian`.
    pub fn signed(&self, (access_key, secret_key): (&str, &str)) -> Self {
        let credentials = Credentials { access_key: access_key.to_owned(), secret_key: SecretKey::new(secret_key) };
        Self { credentials: Some(credentials), ..self.clone() }
    }

    /// `host:port` of the endpoint.
    pub fn address(&self) -> &str {
        self.endpoint.trim_start_matches("http://")
    }

    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let body = body.into();
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.endpoint));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(())?.into_parts();
        if let Some(credentials) = &self.credentials {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64;
            let scope = Scope::new("dc-a", "meridian");
            meridian_sigv4::sign(&mut parts, &PayloadHash::of(&body), credentials, &scope, now)?;
        }
        let exchange = async {
            let answer = self.http.request(Request::from_parts(parts, Full::new(body))).await?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await?.to_bytes();
            anyhow::Ok(Answer { status: head.status, headers: head.headers, body })
        };
        tokio::time::timeout(DEADLINE, exchange).await.with_context(|| format!("{path}: no answer in time"))?
    }

    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.call(Method::GET, path, &[], Bytes::new()).await
    }

    /// The JSON of a successful GET.
    pub async fn json(&self, path: &str) -> Result<Value> {
        let answer = self.get(path).await?.ok()?;
        ensure!(answer.header("content-type") == Some("application/json"), "{path} is no JSON");
        Ok(serde_json::from_slice(&answer.body)?)
    }
}
