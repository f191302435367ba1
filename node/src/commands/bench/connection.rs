//! One client's kept connections: HTTP/1.1 without a pool, so that the load generator costs little beside the server.
//!
//! Invariants: one request at a time; a connection that failed is dropped, and the next request makes a new one; every
//! exchange has a deadline.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Deadline of one request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(60);

/// An answer, read whole.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// The connections of one client, by `host:port`.
#[derive(Default)]
pub struct Connections {
    open: HashMap<String, SendRequest<Full<Bytes>>>,
}

impl Connections {
    /// Sends a request, whose URI is absolute, and reads its answer.
    pub async fn call(&mut self, request: Request<Full<Bytes>>) -> Result<Answer> {
        let authority = request.uri().authority().context("the URI names no host")?.as_str().to_owned();
        let exchange = self.exchange(&authority, request);
        match tokio::time::timeout(REQUEST_DEADLINE, exchange).await.context("no answer in time").flatten() {
            Ok(answer) => Ok(answer),
            Err(failure) => {
                self.open.remove(&authority);
                Err(failure)
            }
        }
    }

    async fn exchange(&mut self, authority: &str, request: Request<Full<Bytes>>) -> Result<Answer> {
        if let Some(connection) = self.open.get_mut(authority)
            && connection.ready().await.is_err()
        {
            self.open.remove(authority); // the server has closed it
        }
        let connection = match self.open.entry(authority.to_owned()) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => place.insert(connect(authority).await?),
        };
        let answer = connection.send_request(in_origin_form(request, authority)?).await?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }
}

async fn connect(authority: &str) -> Result<SendRequest<Full<Bytes>>> {
    let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let stream = TcpStream::connect(&address).await.with_context(|| format!("connect to {address}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection); // ends with the sender
    Ok(sender)
}

/// As a server wants it: the path in the request line, the host in a header.
fn in_origin_form(request: Request<Full<Bytes>>, authority: &str) -> Result<Request<Full<Bytes>>> {
    let (mut parts, body) = request.into_parts();
    if !parts.headers.contains_key(HOST) {
        parts.headers.insert(HOST, HeaderValue::from_str(authority)?);
    }
    parts.uri = parts.uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
    Ok(Request::from_parts(parts, body))
}
