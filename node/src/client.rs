//! The admin client of the command line: one signed HTTP call to a REST endpoint.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use meridian_sigv4::{Credentials, PayloadHash, Scope, SecretKey};
use serde::de::DeserializeOwned;

use crate::cli::ConnectionArgs;
use crate::init::{ReadyFile, read_ready};
use crate::tls_client::{HttpClient, http_client, read_ca};

/// Longest answer that is read.
const ANSWER_SIZE_MAX: usize = 16 << 20;
/// Deadline of a call that waits for nothing.
pub const CALL_DEADLINE: Duration = Duration::from_secs(15);

const ACCESS_KEY_VARIABLE: &str = "MERIDIAN_ACCESS_KEY";
const SECRET_KEY_VARIABLE: &str = "MERIDIAN_SECRET_KEY";

/// A command line that can't work; exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Talks to the REST port of one node.
pub struct AdminClient {
    endpoint: String,
    credentials: Credentials,
    http: HttpClient,
}

impl AdminClient {
    /// Finds the endpoint and the keys: `--endpoint` with keys from the environment or the ready file, else
    /// `--ready-file` alone, else the ready file of the default development cluster.
    pub fn connect(connection: &ConnectionArgs) -> Result<Self> {
        let (endpoint, access_key, secret_key, ca_pem) = match (&connection.endpoint, &connection.ready_file) {
            (Some(endpoint), Some(path)) if std::env::var_os(ACCESS_KEY_VARIABLE).is_none() => {
                let ready = read_ready(path)?;
                (endpoint.clone(), ready.access_key, ready.secret_key, ready.ca_pem)
            }
            (Some(endpoint), _) => {
                let key = |name: &str| {
                    let mend = format!("--endpoint needs {name} in the environment, or a --ready-file with keys");
                    std::env::var(name).map_err(|_| UsageError(mend))
                };
                (endpoint.clone(), key(ACCESS_KEY_VARIABLE)?, key(SECRET_KEY_VARIABLE)?, None)
            }
            (None, ready_file) => {
                let ready = find_ready(ready_file.as_deref())?;
                let first = ready.datacenters.first().context("the ready file names no datacenter")?;
                (first.rest.clone(), ready.access_key.clone(), ready.secret_key.clone(), ready.ca_pem)
            }
        };
        let ca_pem = connection.ca_file.as_deref().map(read_ca).transpose()?.or(ca_pem);
        let http = http_client(&endpoint, ca_pem.as_deref())?;
        let credentials = Credentials { access_key, secret_key: SecretKey::new(secret_key) };
        Ok(Self { endpoint: endpoint.trim_end_matches('/').to_owned(), credentials, http })
    }

    /// A signed GET of `path`, decoded from JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call(Method::GET, path, Bytes::new(), CALL_DEADLINE).await
    }

    /// A signed POST of a JSON body.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
        deadline: Duration,
    ) -> Result<T> {
        self.call(Method::POST, path, serde_json::to_vec(body)?.into(), deadline).await
    }

    /// A signed call with a JSON body, or none.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl serde::Serialize>,
    ) -> Result<T> {
        let body = body.map_or_else(|| Ok(Bytes::new()), |body| serde_json::to_vec(body).map(Bytes::from))?;
        self.call(method, path, body, CALL_DEADLINE).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<T> {
        let uri = format!("{}{path}", self.endpoint);
        let request = Request::builder()
            .method(method)
            .uri(&uri)
            .header("content-type", "application/json")
            .body(())
            .map_err(|error| UsageError(format!("--endpoint {:?}: {error}", self.endpoint)))?;
        let (mut parts, ()) = request.into_parts();
        let now_ms = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
        let scope = Scope::new("meridian", "meridian");
        meridian_sigv4::sign(&mut parts, &PayloadHash::of(&body), &self.credentials, &scope, now_ms)?;
        let exchange = async {
            let answer = self.http.request(Request::from_parts(parts, Full::new(body))).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_SIZE_MAX).collect().await.map_err(|error| anyhow::anyhow!(error))?;
            anyhow::Ok((head.status, body.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(deadline, exchange)
            .await
            .with_context(|| format!("{uri} did not answer within {} s", deadline.as_secs()))?
            .with_context(|| format!("reach {}; is the cluster running?", self.endpoint))?;
        if status != StatusCode::OK {
            bail!("{}", error_text(status, &body));
        }
        serde_json::from_slice(&body).with_context(|| format!("{uri} answered something else than expected"))
    }
}

/// What `/readyz` of an endpoint answers: the status and what is missing. It needs no keys.
///
/// # Errors
/// When the endpoint does not answer within `CALL_DEADLINE`.
pub async fn ask_ready(endpoint: &str, ca_pem: Option<&str>) -> Result<(StatusCode, serde_json::Value)> {
    let uri = format!("{}/readyz", endpoint.trim_end_matches('/'));
    let http = http_client(endpoint, ca_pem)?;
    let request = Request::get(&uri).body(Full::default());
    let request = request.map_err(|error| UsageError(format!("--endpoint {endpoint:?}: {error}")))?;
    let exchange = async {
        let (head, body) = http.request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_SIZE_MAX).collect().await.map_err(|error| anyhow::anyhow!(error))?;
        anyhow::Ok((head.status, body.to_bytes()))
    };
    let (status, body) = tokio::time::timeout(CALL_DEADLINE, exchange)
        .await
        .with_context(|| format!("{uri} did not answer within {} s", CALL_DEADLINE.as_secs()))?
        .with_context(|| format!("reach {endpoint}; is the node running?"))?;
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}

fn error_text(status: StatusCode, body: &[u8]) -> String {
    serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|value| value.get("error")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| format!("the endpoint answered {status}"))
}

/// The ready file that was named, or that of the default development cluster.
pub fn find_ready(named: Option<&Path>) -> Result<ReadyFile> {
    if let Some(path) = named {
        return read_ready(path);
    }
    let default = crate::dev::default_directory().join("ready.json");
    if !default.exists() {
        let mend = "say where the cluster is: --ready-file F, or --endpoint URL with MERIDIAN_ACCESS_KEY and MERIDIAN_SECRET_KEY";
        return Err(UsageError(mend.to_owned()).into());
    }
    read_ready(&default)
}
